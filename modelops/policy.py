"""Which alarm starts which job, and when: pure, from the alarm, the model's jobs and the limits."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from modelops.alarm import Alarm
from modelops.job import IN_VAIN, Action, Corrected, Job, retry_id

DAY_S = 86_400.0
ACTIONS: dict[str, Action] = {"covariate": "retrain", "concept": "retrain", "prior": "recalibrate"}
Opened = tuple[Alarm, str]
"""An open alarm and the id of its first job."""


@dataclass(frozen=True, slots=True)
class Limits:
    """After a job of a model the next waits `cooldown_s`; at most `max_per_day` begin in 24 hours."""

    cooldown_s: float
    max_per_day: int


def decide(alarm: Alarm, jobs: Sequence[Job], limits: Limits, *, champion: str | None, now_s: float) -> Job:
    """The job of an alarm that opened: one to come, an active one that covers it, or a record of why there is none.

    `jobs` are the model's; `champion` is its version in service, None where the registry has none.
    """
    made = Job(
        id=alarm.job_id,
        model=alarm.model,
        version=alarm.version,
        kind=alarm.kind,
        action=ACTIONS.get(alarm.kind, "retrain"),
        alarm_id=alarm.alarm_id,
        started_s=alarm.started_s,
        created_s=now_s,
        due_s=now_s,
    )
    same = next((job for job in jobs if job.id == made.id), None)
    if same is not None:
        return same
    why_not = reason_against(alarm, champion)
    if why_not:
        return _recorded(made, why_not, now_s)
    active = next((job for job in jobs if job.is_active), None)
    if active is not None:
        covered = msgspec.structs.replace(made, covered_by=active.id)
        return _recorded(covered, f"job {active.id} of this model is {active.state} and covers it.", now_s)
    return _queued(made, jobs, limits, now_s)


def update(job: Job, alarm: Alarm, others: Sequence[Job], limits: Limits, *, champion: str | None, now_s: float) -> Job:
    """The job of an alarm whose kind or evidence changed, where none is at work (those are told a `correction`).

    One that was recorded for its kind is decided anew; one that another covers takes the new kind.
    """
    if job.state != "recorded":
        return job
    why_not = reason_against(alarm, champion)
    if why_not:
        said = f"the alarm changed from {job.kind} to {alarm.kind}: {why_not}"
        changed = msgspec.structs.replace(job, kind=alarm.kind, covered_by=None)
        return job if job.kind == alarm.kind else _recorded(changed, said, now_s)
    if job.covered_by is not None:
        return msgspec.structs.replace(job, kind=alarm.kind, action=ACTIONS[alarm.kind])
    if job.kind == alarm.kind or job.retry:  # a retry begins as retries do
        return job
    decided = decide(alarm, others, limits, champion=champion, now_s=now_s)
    return msgspec.structs.replace(decided, id=job.id)


def revive(jobs: Sequence[Job], limits: Limits, *, champion: str | None, now_s: float) -> list[Job]:
    """The jobs that change because the one that covered them has ended.

    Where it was not promoted, the newest alarm that is still open gets its job, which then covers the others.
    """
    known = {job.id: job for job in jobs}
    if any(job.is_active for job in jobs):
        return []
    changed, open_ones = [], []
    for job in jobs:
        cover = known.get(job.covered_by or "")
        if job.covered_by is None:
            continue
        if cover is None or cover.state == "promoted" or job.version != champion:
            changed.append(msgspec.structs.replace(job, covered_by=None))
        else:
            open_ones.append((job, cover))
    open_ones.sort(key=lambda pair: -pair[0].created_s)
    for job, cover in open_ones[:1]:
        again = msgspec.structs.replace(job, state="queued", covered_by=None, created_s=now_s, finished_s=None)
        again = _queued(again, jobs, limits, now_s)
        said = f"job {cover.id}, which covered it, is {cover.state}; {again.reason or 'its own begins.'}"
        changed.append(msgspec.structs.replace(again, reason=said))
    changed += [msgspec.structs.replace(job, covered_by=open_ones[0][0].id) for job, _ in open_ones[1:]]
    return changed


def retry(
    alarms: Sequence[Opened], jobs: Sequence[Job], limits: Limits, *, champion: str | None, now_s: float
) -> list[Job]:
    """What changes because an alarm is open still though its job ended in vain: a new job, or when it is to begin.

    `alarms`: the model's open ones, the newest first. Only that one is tried: what is trained on the rows since then is
    as good for those before it. The wait after a job, `cooldown_s`, doubles with each retry of an alarm, up to a day:
    an alarm whose end we were never told costs one training a day.
    """
    wanted: dict[str, float] = {}
    changed: list[Job] = []
    found = _in_vain(alarms, jobs, champion)
    if found is not None:
        alarm, last = found
        due_s = _retry_s(last, jobs, limits)
        if now_s < due_s:
            wanted[last.id] = due_s
        else:
            changed.append(_next(last, alarm, now_s))
    stale = [job for job in jobs if job.retry_s != wanted.get(job.id)]
    return changed + [msgspec.structs.replace(job, retry_s=wanted.get(job.id)) for job in stale]


def _in_vain(
    alarms: Sequence[tuple[Alarm, str]], jobs: Sequence[Job], champion: str | None
) -> tuple[Alarm, Job] | None:
    """The open alarm that is to be tried again, with its last job; none while the pipeline is at fault."""
    concerned = [(alarm, first) for alarm, first in alarms if alarm.version == champion]
    if any(job.is_active for job in jobs) or any(data_quality(alarm) for alarm, _ in concerned):
        return None
    for alarm, first in concerned:
        last = max((job for job in jobs if job.first_id == first), key=lambda job: job.retry, default=None)
        if last is not None and last.state in IN_VAIN and not reason_against(alarm, champion):
            return None if last.is_final else (alarm, last)
    return None


def _retry_s(last: Job, jobs: Sequence[Job], limits: Limits) -> float:
    wait_s = min(limits.cooldown_s * 2.0 ** min(last.retry, 64), max(limits.cooldown_s, DAY_S))
    ended_s = max(job.finished_s or 0.0 for job in jobs if not job.is_active and job.state != "recorded")
    return max((last.finished_s or 0.0) + wait_s, ended_s + limits.cooldown_s, _free_s(jobs, limits))


def _next(last: Job, alarm: Alarm, now_s: float) -> Job:
    """The alarm's next job, of its kind as it is now."""
    number = last.retry + 1
    return Job(
        id=retry_id(last.first_id, number),
        model=last.model,
        version=last.version,
        kind=alarm.kind,
        action=ACTIONS[alarm.kind],
        alarm_id=last.alarm_id,
        started_s=alarm.started_s,
        created_s=now_s,
        due_s=now_s,
        reason=f"the alarm is open still; job {last.id} is {last.state}.",
        retry=number,
        retry_of=last.first_id,
    )


def reason_against(alarm: Alarm, champion: str | None) -> str:
    """Why an alarm starts no job; empty where it does."""
    if why_not := data_quality(alarm):
        return why_not
    if alarm.kind not in ACTIONS:
        return f"kind {alarm.kind!r} is unknown; known are {', '.join(ACTIONS)} and data_quality."
    if champion is None:
        return "the registry has no champion of this model: train one with `modelops train` first."
    if alarm.version != champion:
        return f"version {alarm.version} is not the champion; version {champion} is."
    return ""


def _queued(job: Job, jobs: Sequence[Job], limits: Limits, now_s: float) -> Job:
    """The job, due when the cool-down after the model's last one is over and the day has room."""
    began_s = max((other.created_s for other in jobs if other.state != "recorded"), default=None)
    due_s = max(now_s, _free_s(jobs, limits))
    if began_s is not None:
        due_s = max(due_s, began_s + limits.cooldown_s)
    reason = "" if due_s == now_s else f"waits {due_s - now_s:.0f} s: the cool-down, or the jobs of a day, ask for it."
    return msgspec.structs.replace(job, due_s=due_s, reason=reason)


def _free_s(jobs: Sequence[Job], limits: Limits) -> float:
    """When the last 24 hours have room for one more job."""
    began = sorted(job.created_s for job in jobs if job.state != "recorded")
    return began[-limits.max_per_day] + DAY_S if len(began) >= limits.max_per_day else 0.0


def data_quality(alarm: Alarm) -> str:
    """Why nothing is trained on a fault of the pipeline; empty where it is none."""
    if "data_quality" in (alarm.kind, alarm.alarm_class) or alarm.suggestion == "fix_the_pipeline":
        return (
            "data quality: the pipeline that fills the features must be repaired; a model trained on it would learn it."
        )
    return ""


def correction(alarm: Alarm) -> Corrected | None:
    """What an alarm says of a job of its model that is at work; None where nothing: only labels correct a kind.

    They do in an alarm of class performance, and where they change one that is open (`updated`).
    """
    if alarm.transition != "updated" and (alarm.transition, alarm.alarm_class) != ("opened", "performance"):
        return None
    if why_not := data_quality(alarm):
        return Corrected(alarm.kind, None, why_not)
    return Corrected(alarm.kind, ACTIONS[alarm.kind], "") if alarm.kind in ACTIONS else None


def _recorded(job: Job, reason: str, now_s: float) -> Job:
    return msgspec.structs.replace(job, state="recorded", reason=reason, finished_s=now_s)

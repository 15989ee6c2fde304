"""What happened, by what the two services say of themselves: lines for who watches, and when a step was reached."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]
ENDED = ("promoted", "rolled_back", "rejected", "failed")
EVERY_S = 5.0  # between two windows that are told, where nothing changes
STEPS = {
    "drift_to_alarm": ("the change → the alarm opens", "changed", "alarm"),
    "alarm_to_job": ("→ webhook, job", "alarm", "job"),
    "labels": ("→ enough labels came", "job", "training"),
    "training": ("→ contract, training, gate, profile, registry", "training", "registered"),
    "preparing": ("→ profile at driftwatch, model server ready", "registered", "observing"),
    "observing": ("→ canary", "observing", "watching"),
    "watching": ("→ champion, the old one stays ready → promoted", "watching", "promoted"),
    "resolving": ("→ alarms resolved as superseded", "promoted", "resolved"),
}
"""By name: in words, and from which moment to which."""


@dataclass
class Alarm:
    """An alarm of driftwatch."""

    id: str
    version: str
    alarm_class: str
    kind: str
    opened_s: float
    resolved_s: float | None = None
    reason: str | None = None


@dataclass
class Story:
    """Told piece by piece; `moments`: when each step was reached, epoch seconds."""

    alarms: dict[str, Alarm] = field(default_factory=dict)
    moments: dict[str, float] = field(default_factory=dict)
    performance: dict[tuple[str, str], Json] = field(default_factory=dict)
    jobs: dict[str, Json] = field(default_factory=dict)  # the first one is that of the change
    judged_on_labels: dict[str, list[str]] = field(default_factory=dict)
    _said: dict[str, str] = field(default_factory=dict)
    _shown: tuple[str, str, float] = ("", "", 0.0)  # the last window that was told: version, verdict, when

    @property
    def resolved(self) -> bool:
        """Whether all alarms of the version that the change struck are resolved."""
        struck = [] if self.job is None else [a for a in self.alarms.values() if a.version == self.job["version"]]
        return bool(struck) and all(alarm.resolved_s is not None for alarm in struck)

    @property
    def job(self) -> Json | None:
        """The job that the change started; an alarm of another time may have its own."""
        return next(iter(self.jobs.values()), None)

    def decided(self, decision: Json, now_s: float) -> Iterator[str]:
        """A decision of driftwatch."""
        window = decision["window"]
        version, verdict = window["version"], decision["verdict"]
        if decision["revision"]:
            self.judged_on_labels.setdefault(version, []).append(verdict)
            auc = next((p for p in decision["performance"] if p["metric"] == "roc_auc"), None)
            is_news = (version, verdict) != self._shown[:2] or now_s - self._shown[2] > EVERY_S
            if auc is not None and auc["value"] is not None and is_news:
                self._shown = (version, verdict, now_s)
                beside = "" if auc["reference"] is None else f", {auc['reference']:.3f} in its reference"
                yield f"driftwatch  version {version}: AUC {auc['value']:.3f} by labels{beside}: {verdict}"
        for alarm in decision["alarms"]:
            yield from self._alarm(alarm, version, now_s)

    def _alarm(self, said: Json, version: str, now_s: float) -> Iterator[str]:
        known = self.alarms.get(said["id"])
        if said["transition"] == "opened" and known is None:
            self.alarms[said["id"]] = Alarm(said["id"], version, said["class"], said["kind"], now_s)
            why = f"{said['class']}, {said['kind']}: {'; '.join(said['evidence'])}"
            yield f"driftwatch  ALARM {said['id']} opened: {why}"
        elif said["transition"] == "updated" and known is not None and known.kind != said["kind"]:
            known.kind = said["kind"]
            yield f"driftwatch  alarm {said['id']} updated by labels: {said['kind']}: {'; '.join(said['evidence'])}"
        elif said["transition"] == "resolved" and known is not None and known.resolved_s is None:
            known.resolved_s, known.reason = now_s, said.get("reason")
            yield f"driftwatch  alarm {said['id']} RESOLVED{': ' + known.reason if known.reason else ''}"
            if self.resolved:
                self.moments.setdefault("resolved", now_s)

    def worked(self, jobs: Sequence[Json], rollouts: Sequence[Json], now_s: float) -> Iterator[str]:
        """The jobs and rollouts of modelops, newest first."""
        for job in reversed(jobs):
            if job["state"] == "recorded":
                yield from self._new(
                    job["id"], f"modelops    no job of its own for alarm {job['alarm_id']}: {job['reason']}"
                )
                continue
            self.jobs[job["id"]] = job
            yield from self._job(job, now_s)
        for rollout in reversed(rollouts):
            for i, line in enumerate(rollout["log"]):
                yield from self._new(f"{rollout['id']}/{i}", f"modelops    rollout: {line.partition(' ')[2]}")
            if rollout["phase"] in ("observing", "watching"):
                self.moments.setdefault(rollout["phase"], now_s)

    def _job(self, job: Json, now_s: float) -> Iterator[str]:
        if job is self.job:
            self._reached(job, now_s)
        said = f"done: {', '.join(job['done'])}" if job["state"] == "running" and job["done"] else job["reason"]
        what = job["state"].replace("_", " ") + (f": {said}" if said else "")
        yield from self._new(job["id"], f"modelops    job {job['id']}, {job['kind']}: {what}", what)

    def _reached(self, job: Json, now_s: float) -> None:
        """Notes which moments the job of the change has reached."""
        state, was = job["state"], self._said.get(job["id"], "")
        if job["alarm_id"] in self.alarms:
            self.moments.setdefault("alarm", self.alarms[job["alarm_id"]].opened_s)
        self.moments.setdefault("job", job["created_s"])
        if state == "running" and "registered" not in self.moments and not was.startswith("running"):
            self.moments["training"] = now_s
        if state == "rolling_out":
            self.moments.setdefault("registered", now_s)
        if state in ENDED:
            self.moments.setdefault(state, job["finished_s"])

    def _new(self, key: str, line: str, what: str = "said") -> Iterator[str]:
        if self._said.get(key) != what:
            self._said[key] = what
            yield line

    def seconds(self) -> dict[str, float | None]:
        """How long each step took; None where it was not reached."""
        return {name: self.between(begins, ends) for name, (_, begins, ends) in STEPS.items()}

    def between(self, begins: str, ends: str) -> float | None:
        """Seconds between two moments; None where one was not reached."""
        if begins not in self.moments or ends not in self.moments:
            return None
        return max(0.0, self.moments[ends] - self.moments[begins])

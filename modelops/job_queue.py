"""The durable queue: webhooks become jobs in one transaction, executors take jobs by lease."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec

from modelops import policy
from modelops.alarm import Alarm
from modelops.errors import StateError
from modelops.job import AlarmResolved, Happening, Job, JobState, advance
from modelops.policy import DAY_S, Limits
from modelops.state import state_errors, transaction

HISTORY = 200  # jobs of a model that a decision looks at
KEPT_S = 7 * DAY_S  # driftwatch tries a webhook for a day; a person may send one again later, but what is asked then is
# whether its alarm's job is there, and jobs are kept


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a webhook. `is_new` is False for one that was received before."""

    job: str | None
    said: str
    is_new: bool


class JobQueue:
    """Jobs in the state file. Every method is one transaction and raises StateError."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self._path = path

    def receive(self, webhook_id: str, alarm: Alarm, limits: Limits, *, now_s: float) -> Receipt:
        """Keeps a webhook and what it means, once for each id."""
        with state_errors(self._path), transaction(self._database):
            known = self._database.execute("SELECT job, said FROM hooks WHERE id = ?", (webhook_id,)).fetchone()
            if known is not None:
                return Receipt(known[0], known[1], is_new=False)
            receipt = self._receive(alarm, limits, now_s)
            self._database.execute(
                "INSERT INTO hooks VALUES (?, ?, ?, ?)", (webhook_id, now_s, receipt.job, receipt.said)
            )
            self._forget(now_s)
        return receipt

    def _receive(self, alarm: Alarm, limits: Limits, now_s: float) -> Receipt:
        known = self._database.execute("SELECT job, is_over FROM alarms WHERE id = ?", (alarm.alarm_id,)).fetchone()
        first, is_over = known or (None, False)
        if is_over:
            return Receipt(None, f"{alarm.transition}: the alarm had resolved before", is_new=True)
        champion = self._champion(alarm.model)
        jobs = self._of_model(alarm.model, alarm.job_id)
        corrected = policy.correction(alarm)
        if corrected is not None:
            for job in jobs:
                is_its_own = job.alarm_id == alarm.alarm_id
                if job.is_active and job.version == alarm.version and (is_its_own or corrected.action is not None):
                    self._write(advance(job, corrected, now_s))
            jobs = self._of_model(alarm.model, alarm.job_id)
        if alarm.transition == "opened":
            job = policy.decide(alarm, jobs, limits, champion=champion, now_s=now_s)
            self._insert(job)
            self._note_alarm(alarm, job.first_id, now_s)
            return Receipt(job.id, job.reason or job.state, is_new=True)
        if alarm.transition == "resolved":
            self._end_alarm(alarm, now_s)
        if alarm.transition not in ("resolved", "updated") or first is None:
            return Receipt(None, f"{alarm.transition}: nothing to do", is_new=True)
        job = self._last_of(first)
        if alarm.transition == "updated":
            self._note_alarm(alarm, first, now_s)
            if job.alarm_id == alarm.alarm_id:
                others = [other for other in jobs if other.id != job.id]
                job = policy.update(job, alarm, others, limits, champion=champion, now_s=now_s)
                self._write(job)
            return Receipt(job.id, f"updated to {alarm.kind}: {job.reason or job.state}", is_new=True)
        why = f" ({alarm.reason})" if alarm.reason else ""
        if self._database.execute("SELECT 1 FROM alarms WHERE job = ? AND NOT is_over", (first,)).fetchone():
            return Receipt(job.id, f"alarm resolved{why}; another one of its window is open", is_new=True)
        self._write(advance(job, AlarmResolved(why), now_s))
        return Receipt(job.id, f"alarm resolved{why}", is_new=True)

    def _note_alarm(self, alarm: Alarm, first_id: str, now_s: float) -> None:
        self._database.execute(
            "INSERT INTO alarms (id, model, job, opened_s, told_s, body) VALUES (?1, ?2, ?3, ?4, ?4, ?5)"
            " ON CONFLICT (id) DO UPDATE SET told_s = ?4, body = ?5",
            (alarm.alarm_id, alarm.model, first_id, now_s, _encode(alarm)),
        )

    def _end_alarm(self, alarm: Alarm, now_s: float) -> None:
        """Also of one that never opened here: webhooks may come in any order."""
        self._database.execute(
            "INSERT INTO alarms (id, model, told_s, is_over) VALUES (?, ?, ?, 1)"
            " ON CONFLICT (id) DO UPDATE SET told_s = excluded.told_s, is_over = 1",
            (alarm.alarm_id, alarm.model, now_s),
        )

    def _forget(self, now_s: float) -> None:
        """Forgets webhooks that come no more, alarms that are over, and those of versions long out of service."""
        self._database.execute("DELETE FROM hooks WHERE received_s < ?", (now_s - KEPT_S,))
        self._database.execute(
            "DELETE FROM alarms WHERE told_s < ?1 AND (is_over OR body ->> '$.version' IS NOT"
            " (SELECT version || '' FROM aliases WHERE aliases.model = alarms.model AND alias = 'champion'))",
            (now_s - KEPT_S,),
        )

    def revive(self, model: str, limits: Limits, *, now_s: float) -> None:
        """Begins a job for an alarm that is open still: the job that covered it, or its own, ended for nothing."""
        with state_errors(self._path):
            if not self._revived(model, limits, now_s):
                return
        with state_errors(self._path), transaction(self._database):
            for job in self._revived(model, limits, now_s):
                self._insert(job)
                self._write(job)

    def _revived(self, model: str, limits: Limits, now_s: float) -> list[Job]:
        """The jobs that are to change or to be made."""
        rows = self._database.execute(
            "SELECT body, job FROM alarms WHERE model = ? AND NOT is_over ORDER BY opened_s DESC", (model,)
        ).fetchall()
        if not rows:
            return []
        jobs, champion = self._of_model(model), self._champion(model)
        changed = policy.revive(jobs, limits, champion=champion, now_s=now_s)
        if changed:
            return changed
        alarms = [(_decode_alarm(body), first) for body, first in rows]
        return policy.retry(alarms, jobs, limits, champion=champion, now_s=now_s)

    def add(self, job: Job) -> None:
        """Keeps a job that no alarm started; one of its id that is there stays."""
        with state_errors(self._path), transaction(self._database):
            self._insert(job)

    def take(self, owner: str, *, lease_s: float, now_s: float) -> Job | None:
        """The next due job whose lease is free or over, leased to `owner`."""
        with state_errors(self._path), transaction(self._database):
            row = self._database.execute(
                "SELECT id FROM jobs WHERE state IN ('queued', 'running', 'waiting_for_labels') AND due_s <= ?1"
                " AND (owner IS NULL OR lease_until_s <= ?1) ORDER BY due_s, id LIMIT 1",
                (now_s,),
            ).fetchone()
            if row is None:
                return None
            self._database.execute(
                "UPDATE jobs SET owner = ?, lease_until_s = ? WHERE id = ?", (owner, now_s + lease_s, row[0])
            )
            return self._read(row[0])

    def renew(self, job_id: str, owner: str, *, lease_s: float, now_s: float) -> bool:
        """Whether the lease is still the owner's; then it lasts on."""
        with state_errors(self._path), transaction(self._database):
            done = self._database.execute(
                "UPDATE jobs SET lease_until_s = ? WHERE id = ? AND owner = ?", (now_s + lease_s, job_id, owner)
            )
            return done.rowcount == 1

    def forget_leases(self) -> None:
        """Frees every job: who has the state file to itself, as a service that begins, need not wait for a dead one."""
        with state_errors(self._path), transaction(self._database):
            self._database.execute("UPDATE jobs SET owner = NULL, lease_until_s = NULL")

    def release(self, job_id: str, owner: str) -> None:
        """Gives a lease back."""
        with state_errors(self._path), transaction(self._database):
            self._database.execute(
                "UPDATE jobs SET owner = NULL, lease_until_s = NULL WHERE id = ? AND owner = ?", (job_id, owner)
            )

    def tell(
        self, job_id: str, happening: Happening, *, now_s: float, and_then: Callable[[Job], None] | None = None
    ) -> Job:
        """Advances a job; what `and_then` writes on the same connection belongs to the same transaction."""
        with state_errors(self._path), transaction(self._database):
            job = self.note(job_id, happening, now_s=now_s)
            if and_then is not None:
                and_then(job)
        return job

    def note(self, job_id: str, happening: Happening, *, now_s: float) -> Job:
        """Advances a job in the caller's transaction."""
        job = advance(self._read(job_id), happening, now_s)
        self._write(job)
        return job

    def get(self, job_id: str) -> Job:
        """A job. Raises StateError where there is none."""
        with state_errors(self._path):
            return self._read(job_id)

    def jobs(self, model: str | None = None, limit: int = 100) -> list[Job]:
        """The latest jobs, newest first."""
        with state_errors(self._path):
            rows = self._database.execute(
                "SELECT body FROM jobs WHERE ?1 IS NULL OR model = ?1 ORDER BY created_s DESC, id LIMIT ?2",
                (model, limit),
            ).fetchall()
            return [_decode(body) for (body,) in rows]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state, those without one too."""
        with state_errors(self._path):
            found = dict(self._database.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
        return {state: found.get(state, 0) for state in get_args(JobState)}

    def _read(self, job_id: str) -> Job:
        row = self._database.execute("SELECT body FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise StateError(f"there is no job {job_id!r}. `modelops jobs` lists them.")
        return _decode(row[0])

    def _insert(self, job: Job) -> None:
        self._database.execute(
            "INSERT INTO jobs (id, model, state, alarm, created_s, due_s, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (job.id, job.model, job.state, job.alarm_id, job.created_s, job.due_s, _encode(job)),
        )

    def _write(self, job: Job) -> None:
        self._database.execute(
            "UPDATE jobs SET state = ?, created_s = ?, due_s = ?, body = ? WHERE id = ?",
            (job.state, job.created_s, job.due_s, _encode(job), job.id),
        )

    def _of_model(self, model: str, job_id: str = "") -> list[Job]:
        """The jobs that a decision looks at: of those only recorded, this one, those that wait and what they wait for.

        A flapping alarm records one after another: they must not hide those that the cool-down counts from.
        """
        rows = self._database.execute(
            "WITH covered AS (SELECT id, body ->> '$.covered_by' AS cover FROM jobs WHERE model = ?1"
            " AND state = 'recorded' AND body ->> '$.covered_by' IS NOT NULL)"
            " SELECT body FROM jobs WHERE model = ?1 AND (state != 'recorded' OR id = ?2"
            " OR id IN (SELECT id FROM covered) OR id IN (SELECT cover FROM covered))"
            " ORDER BY created_s DESC LIMIT ?3",
            (model, job_id, HISTORY),
        ).fetchall()
        return [_decode(body) for (body,) in rows]

    def _last_of(self, first_id: str) -> Job:
        """An alarm's last job."""
        rows = self._database.execute(
            "SELECT body FROM jobs WHERE id = ?1 OR body ->> '$.retry_of' = ?1", (first_id,)
        ).fetchall()
        return max((_decode(body) for (body,) in rows), key=lambda job: job.retry)

    def _champion(self, model: str) -> str | None:
        row = self._database.execute(
            "SELECT version FROM aliases WHERE model = ? AND alias = 'champion'", (model,)
        ).fetchone()
        return None if row is None else str(row[0])


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Job).decode
_decode_alarm = msgspec.json.Decoder(Alarm).decode

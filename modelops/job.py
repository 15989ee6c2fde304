"""A job: what one alarm started, as a value; and its states as a pure function."""

from typing import Literal

import msgspec

from modelops.errors import StateError

Action = Literal["retrain", "recalibrate"]
JobState = Literal[
    "queued",
    "running",
    "waiting_for_labels",
    "rolling_out",
    "promoted",
    "rolled_back",
    "rejected",
    "failed",
    "recorded",
]
STEPS = ("snapshot", "contract", "train", "gate", "profile", "register")
"""What the subprocess does, in order; each leaves a result that a restart does not make again."""

ACTIVE: frozenset[JobState] = frozenset({"queued", "running", "waiting_for_labels", "rolling_out"})
IN_VAIN: frozenset[JobState] = frozenset({"rejected", "failed", "rolled_back"})
WAIT_S, LONGEST_WAIT_S = 5.0, 300.0  # between two looks for labels: a tenth of the job's age within these


class Job(msgspec.Struct, frozen=True):
    """One job. Times are epoch seconds: `started_s` of events, the others of the machine.

    `done`: steps with a result. `due_s`: not taken before. `deadline_s`: until when labels are waited for, None before
    they were missed. `new_version`: what it registered. `covered_by`: the job of another alarm that this one waits for.

    An alarm that is open still when its job has ended without a promotion is tried again, in a job of its own: the
    `retry`th one after `retry_of`, the alarm's first. `retry_s`: when the next one begins, where one is to come.
    `is_final`: a person ended it, and none comes.
    """

    id: str
    model: str
    version: str
    kind: str
    action: Action
    alarm_id: str
    started_s: float
    created_s: float
    due_s: float
    state: JobState = "queued"
    done: tuple[str, ...] = ()
    attempts: int = 0
    reason: str = ""
    deadline_s: float | None = None
    new_version: int | None = None
    finished_s: float | None = None
    covered_by: str | None = None
    retry: int = 0
    retry_of: str | None = None
    retry_s: float | None = None
    is_final: bool = False

    @property
    def is_active(self) -> bool:
        """Whether something is still to come."""
        return self.state in ACTIVE

    @property
    def first_id(self) -> str:
        """The alarm's first job."""
        return self.retry_of or self.id

    @property
    def previous_id(self) -> str | None:
        """The alarm's job before this one."""
        return None if not self.retry else retry_id(self.first_id, self.retry - 1)


class Searched(msgspec.Struct, frozen=True):
    """How far a search is: trials that were made, of at most how many, the best ROC AUC so far (None: there is none
    yet), and the share of trials or seconds that is spent."""

    trials: int
    of: int
    best: float | None
    share: float

    @property
    def said(self) -> str:
        """For a person who waits."""
        best = "" if self.best is None else f", best roc_auc {self.best:.4f}"
        return f"{self.trials} of {self.of} trials{best}"


class Taken(msgspec.Struct, frozen=True):
    """The executor began with it."""


class Done(msgspec.Struct, frozen=True):
    """A step left its result."""

    step: str


class LabelsMissing(msgspec.Struct, frozen=True):
    """Too few labelled rows; `patience_s` counts from the first time."""

    report: str
    patience_s: float


class Rejected(msgspec.Struct, frozen=True):
    """The contract or the gate said no."""

    report: str


class Crashed(msgspec.Struct, frozen=True):
    """The subprocess ended without a result; after `attempts` of it the job has failed."""

    report: str
    attempts: int


class Registered(msgspec.Struct, frozen=True):
    """The challenger is in the registry and its rollout begins."""

    version: int
    report: str


class RolloutEnded(msgspec.Struct, frozen=True):
    """The rollout's outcome. `by_person`: somebody aborted it."""

    promoted: bool
    report: str
    by_person: bool = False


class AlarmResolved(msgspec.Struct, frozen=True):
    """The alarm that started it is over."""

    reason: str


class Corrected(msgspec.Struct, frozen=True):
    """Labels showed which kind of drift it is, and what is to be done about it; None: nothing, for `reason`."""

    kind: str
    action: Action | None
    reason: str


Happening = Corrected | Taken | Done | LabelsMissing | Rejected | Crashed | Registered | RolloutEnded | AlarmResolved


def retry_id(first_id: str, retry: int) -> str:
    """The id of an alarm's first job, or of a later one: `…-2` is the second."""
    return f"{first_id}-{retry + 1}" if retry else first_id


def advance(job: Job, happening: Happening, now_s: float) -> Job:
    """The job after what happened. Raises StateError where that cannot happen in its state.

    What a crash makes us tell again changes nothing: a step that is done stays done, a finished job stays as it is.
    """
    match happening, job.state:
        case Taken(), "queued" | "running" | "waiting_for_labels":
            return _with(job, state="running", reason="")
        case Done(step), "running":
            return job if step in job.done else _with(job, done=(*job.done, step))
        case LabelsMissing(report, patience_s), "running":
            deadline_s = now_s + patience_s if job.deadline_s is None else job.deadline_s
            if now_s >= deadline_s:
                return _end(job, "failed", f"labels did not come in time: {report}", now_s)
            wait_s = min(max(WAIT_S, (now_s - job.created_s) / 10), LONGEST_WAIT_S, deadline_s - now_s)
            return _with(job, state="waiting_for_labels", reason=report, deadline_s=deadline_s, due_s=now_s + wait_s)
        case Rejected(report), "running":
            return _end(job, "rejected", report, now_s)
        case Crashed(report, attempts), "running":
            tried = job.attempts + 1
            if tried >= attempts:
                return _end(job, "failed", f"{report} It was tried {tried} times.", now_s, attempts=tried)
            return _with(job, state="queued", attempts=tried, reason=report, due_s=now_s + 2.0**tried)
        case Registered(version, report), "running":
            return _with(job, state="rolling_out", new_version=version, reason=report)
        case RolloutEnded(promoted, report, by_person), "rolling_out":
            return _end(job, "promoted" if promoted else "rolled_back", report, now_s, is_final=by_person)
        case Corrected(kind, None, reason), "queued" | "waiting_for_labels":
            said = f"the alarm changed from {job.kind} to {kind}: {reason}"
            return _end(_with(job, kind=kind), "recorded", said, now_s)
        case Corrected(kind, action, _), "queued" | "waiting_for_labels" | "running" if action is not None:
            # What is trained already stays; the gate judges it by the kind, where it has not done so yet.
            return _with(job, kind=kind, action=job.action if "train" in job.done else action)
        case Corrected(), _:
            return job
        case AlarmResolved(reason), "queued" | "waiting_for_labels":
            return _end(job, "recorded", f"the alarm resolved before there was anything to train on{reason}.", now_s)
        case AlarmResolved(reason), "recorded" if job.covered_by is not None:
            return _with(job, covered_by=None, reason=f"{job.reason} The alarm resolved{reason}.")
        case AlarmResolved(), _:
            return _with(job, retry_s=None)
        case _ if not job.is_active:
            return job
    raise StateError(f"a job that is {job.state} cannot see {type(happening).__name__}; it is job {job.id}.")


def _with(job: Job, **changes: object) -> Job:
    return msgspec.structs.replace(job, **changes)


def _end(job: Job, state: JobState, reason: str, now_s: float, **changes: object) -> Job:
    return _with(job, state=state, reason=reason, finished_s=now_s, **changes)

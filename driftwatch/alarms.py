"""Alarms of one model: how they open, go on and end as windows are judged one after the other.

The two judgements of a window are followed apart. Each class of alarm has one alarm at most: the first judgement's
drift is of class `data_quality` where its kind is, else of class `drift`; the second's is of class `performance`. Where
only the label's own distribution drifts in it and an alarm of the first is open, that one is told and none opens.
k drifting windows of the last n determined ones open an alarm, of whichever class the last of them is; once one is
open, another class needs k of its own. max(n, 3) windows in a row without its class resolve an alarm.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from detectors.openings import MIN_CALM
from detectors.performance.kind import Kind
from detectors.score import Verdict
from driftwatch.decision import AlarmClass, AlarmFeature, AlarmLine, Transition, WindowLine, rfc3339
from driftwatch.records import Rise, Window

FIRST: tuple[AlarmClass, ...] = ("drift", "data_quality")
ON_LABELS: tuple[AlarmClass, ...] = ("performance",)
MAX_VERSIONS = 100  # remembered; beyond them the one without an open alarm that was judged longest ago is forgotten


class OpenAlarm(msgspec.Struct, frozen=True):
    """An alarm that is open: its features are those of the last window that drifted.

    `started_s`: start of the first drifting window of those that opened it, or the row with which a loss rose.
    `said_of_s`: the end of the window whose judgement gave its kind and evidence.
    """

    id: str
    started_s: float
    features: tuple[AlarmFeature, ...]
    kind: str
    evidence: tuple[str, ...]
    suggestion: str
    said_of_s: float
    updates: int = 0

    def said(self, kind: Kind, end_s: float) -> "OpenAlarm | None":
        """The alarm once the labels have spoken of the window that ends then; None where that changes nothing.

        A window in which too little of a concept drift is seen does not say that there is none: a model that is made
        for it repairs the other two as well.
        """
        if self.kind == "concept" and kind.kind in {"covariate", "prior"}:
            return None
        news = kind.kind != self.kind
        news |= end_s == self.said_of_s and (kind.evidence, kind.suggestion) != (self.evidence, self.suggestion)
        if not news:
            return None
        return msgspec.structs.replace(
            self,
            kind=kind.kind,
            evidence=kind.evidence,
            suggestion=kind.suggestion,
            said_of_s=end_s,
            updates=self.updates + 1,
        )


class StreamState(msgspec.Struct, frozen=True):
    """What is remembered of one version of the model."""

    last_end_s: float  # the latest end of a window that had rows
    drifted: tuple[tuple[float, AlarmClass] | None, ...] = ()  # last determined windows: since when, class of a drift
    alarms: dict[AlarmClass, OpenAlarm] = {}
    resolved_s: dict[AlarmClass, float] = {}  # end of the window in which the last alarm was resolved
    ok_elsewhere: dict[str, int] = {}  # other version → its windows judged ok in a row since this one's last rows


class PolicyState(msgspec.Struct, frozen=True):
    """The memory of all versions of one model: of first judgements, and of those on labels."""

    streams: dict[str, StreamState] = {}
    labelled: dict[str, StreamState] = {}

    def to_bytes(self) -> bytes:
        """MessagePack."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> "PolicyState":
        """The inverse of `to_bytes`; raises msgspec.MsgspecError for other bytes."""
        return msgspec.msgpack.decode(data, type=cls)


@dataclass(frozen=True, slots=True)
class Judged:
    """What the alarms follow of a judgement. `kind`, `features`: of a drift; `is_of_loss`: the loss is among them."""

    window: Window
    line: WindowLine
    verdict: Verdict
    kind: Kind | None
    features: tuple[AlarmFeature, ...]
    is_of_loss: bool = False
    rise: Rise | None = None

    @property
    def since_s(self) -> float:
        """Since when it drifts."""
        return self.window.start_s if self.rise is None or self.rise.began_s is None else self.rise.began_s

    @property
    def on_performance(self) -> Kind | None:
        """The kind with all that is known, for the alarm about performance."""
        if self.kind is None or self.rise is None:
            return self.kind
        return Kind(self.kind.kind, (*self.kind.evidence, self.rise.sentence), self.kind.suggestion)

    @property
    def of_class(self) -> AlarmClass | None:
        """The class of its drift."""
        if self.verdict != "drift" or self.kind is None:
            return None
        if self.window.revision:
            return "performance"
        return "data_quality" if self.kind.kind == "data_quality" else "drift"


@dataclass(frozen=True, slots=True)
class Persistence:
    """When windows make an alarm. `cooldown_s`: event time after a resolve in which none of that class opens."""

    k: int
    n: int
    cooldown_s: float

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n:
            raise ValueError(f"`for` must be `k of n` with 1 ≤ k ≤ n; got {self.k} of {self.n}. Use `1 of 1`.")

    @property
    def calm(self) -> int:
        """How many determined windows in a row without drift resolve an alarm."""
        return max(self.n, MIN_CALM)

    def follow(self, state: PolicyState, judged: Judged) -> tuple[PolicyState, tuple[AlarmLine, ...]]:
        """The memory after a judgement, and the lines of the alarms that it concerns."""
        version, window, said = judged.window.stream.version, judged.window, judged
        first, second = state.streams, state.labelled
        known = second if window.revision else first
        if window.revision and not judged.is_of_loss and version in first and first[version].alarms:
            judged = replace(judged, kind=None)
        now, lines = self._step(known.get(version, StreamState(window.end_s)), judged)
        after, superseded = self._supersede({**known, version: now}, judged)
        if not window.revision:
            return msgspec.structs.replace(state, streams=_bounded(after)), (*lines, *superseded)
        first, updated = _retold(first, said)
        return PolicyState(first, _bounded(after)), (*lines, *superseded, *updated)

    def _step(self, before: StreamState, judged: Judged) -> tuple[StreamState, tuple[AlarmLine, ...]]:
        """The version's state after this window, and the lines of its alarms."""
        window, of_class = judged.window, judged.of_class
        classes = ON_LABELS if window.revision else FIRST
        now = msgspec.structs.replace(before, last_end_s=max(before.last_end_s, window.end_s), ok_elsewhere={})
        if judged.verdict == "undetermined":
            return now, tuple(alarm_line(before.alarms[c], "continuing", c) for c in classes if c in before.alarms)
        recent = (*before.drifted, None if of_class is None else (judged.since_s, of_class))[-self.calm :]
        alarms, resolved_s, lines = dict(before.alarms), dict(before.resolved_s), []
        for c in classes:
            alarm = before.alarms.get(c)
            transition: Transition = "continuing"
            if alarm is None:
                alarm, transition = self._opened(c, recent, before, judged), "opened"
            elif len(recent) == self.calm and all(one is None or one[1] != c for one in recent):
                del alarms[c]
                resolved_s[c] = window.end_s
                lines.append(alarm_line(alarm, "resolved", c))
                continue
            elif c == of_class and (kind := judged.on_performance) is not None:
                alarm = msgspec.structs.replace(alarm, features=judged.features)
                if window.revision and (said := alarm.said(kind, window.end_s)) is not None:
                    alarm, transition = said, "updated"
            if alarm is not None:
                alarms[c] = alarm
                lines.append(alarm_line(alarm, transition, c))
        return msgspec.structs.replace(now, drifted=recent, alarms=alarms, resolved_s=resolved_s), tuple(lines)

    def _opened(
        self, c: AlarmClass, recent: tuple[tuple[float, AlarmClass] | None, ...], before: StreamState, judged: Judged
    ) -> OpenAlarm | None:
        """The alarm that this window opens; None where it opens none of the class."""
        window, kind = judged.window, judged.on_performance
        if c != judged.of_class or kind is None:
            return None
        drifts = [one for one in recent[-self.n :] if one is not None and (not before.alarms or one[1] == c)]
        cooling = c in before.resolved_s and window.end_s < before.resolved_s[c] + self.cooldown_s
        if len(drifts) < self.k or cooling:
            return None
        return OpenAlarm(
            alarm_id(judged.line, window.part, c),
            min(start for start, _ in drifts),
            judged.features,
            kind.kind,
            kind.evidence,
            kind.suggestion,
            window.end_s,
        )

    def _supersede(
        self, streams: dict[str, StreamState], judged: Judged
    ) -> tuple[dict[str, StreamState], list[AlarmLine]]:
        """Resolves alarms of versions without rows, while this window's version was ok, for `calm` windows in a row."""
        window, version = judged.window, judged.window.stream.version
        lines = []
        for other, state in streams.items():
            if other == version or not state.alarms or window.end_s <= state.last_end_s:
                continue
            if judged.verdict == "undetermined":
                continue
            n_ok = state.ok_elsewhere.get(version, 0) + 1 if judged.verdict == "ok" else 0
            if n_ok < self.calm:
                known = {v: count for v, count in state.ok_elsewhere.items() if v in streams}
                after = msgspec.structs.replace(state, ok_elsewhere={**known, version: n_ok})
            else:
                after = StreamState(state.last_end_s, resolved_s=dict.fromkeys(state.alarms, window.end_s))
                lines += [
                    alarm_line(alarm, "resolved", c, version=other, reason="superseded")
                    for c, alarm in sorted(state.alarms.items())
                ]
            streams = {**streams, other: after}
        return streams, lines


def _retold(streams: dict[str, StreamState], judged: Judged) -> tuple[dict[str, StreamState], list[AlarmLine]]:
    """What the labels say of an alarm that a first judgement opened, before the window or in it."""
    version, kind, window = judged.window.stream.version, judged.kind, judged.window
    state = streams.get(version)
    if state is None or kind is None or judged.verdict != "drift":
        return streams, []
    c: AlarmClass = "data_quality" if kind.kind == "data_quality" else "drift"
    alarm = state.alarms.get(c)
    said = alarm.said(kind, window.end_s) if alarm is not None and alarm.started_s <= window.start_s else None
    if said is None:
        return streams, []
    after = msgspec.structs.replace(state, alarms={**state.alarms, c: said})
    return {**streams, version: after}, [alarm_line(said, "updated", c)]


def alarm_id(window: WindowLine, part: int, of_class: str = "drift") -> str:
    """16 hex digits of SHA-256 over these, joined by newlines, as UTF-8.

    Model, version, segment (empty where there is none), class (`drift`, `data_quality`, `performance`), start and end
    of the opening window as the decision prints them, and its part where that is over 1.
    """
    what = [window.model, window.version, window.segment or "", of_class, window.start, window.end]
    if part > 1:
        what.append(str(part))
    return hashlib.sha256("\n".join(what).encode()).hexdigest()[:16]


def alarm_line(
    alarm: OpenAlarm, transition: Transition, c: AlarmClass, *, version: str | None = None, reason: str | None = None
) -> AlarmLine:
    """An alarm as a decision tells it."""
    return AlarmLine(
        alarm.id,
        transition,
        alarm.kind,
        None,
        rfc3339(alarm.started_s),
        alarm.features,
        c,
        alarm.evidence,
        alarm.suggestion,
        alarm.updates,
        version,
        reason,
    )


def _bounded(streams: Mapping[str, StreamState]) -> dict[str, StreamState]:
    if len(streams) <= MAX_VERSIONS:
        return dict(streams)
    without_alarm = [version for version, state in streams.items() if not state.alarms]
    oldest = min(without_alarm, key=lambda version: streams[version].last_end_s, default=None)
    return {version: state for version, state in streams.items() if version != oldest}

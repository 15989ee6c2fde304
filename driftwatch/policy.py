"""The policy: what a window's scores come to, given the floors and what the windows before it did.

Pure: `Policy.judge` is handed its memory and hands it back, so a replay gives the same decisions byte for byte.

A window is `drift` when a term over the threshold belongs to a feature over a floor. k drifting windows of the last n
determined ones open an alarm; max(n, 3) in a row without drift resolve it. The second judgement of a window, on its
labels, has alarms of its own class, `performance`; it is counted apart from the first. Until the kinds of drift are
told apart, an alarm of class `drift` is of kind `covariate` and one of class `performance` of kind `concept`, without
a pattern, and suggests to retrain.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

from detectors.openings import MIN_CALM
from detectors.performance.outcome import LOSS
from detectors.score import Score, Verdict
from driftwatch.decision import (
    AlarmFeature,
    AlarmLine,
    Decision,
    PerformanceLine,
    QualityLine,
    ScoreLine,
    ShareLine,
    Transition,
    WindowLine,
    rfc3339,
)
from driftwatch.records import Judgement, Window

DRIFT, PERFORMANCE = "drift", "performance"
KINDS = {DRIFT: "covariate", PERFORMANCE: "concept"}
MAX_FEATURES = 20  # of an alarm
MAX_VERSIONS = 100  # remembered; beyond them the one without an open alarm that was judged longest ago is forgotten
LARGEST_TERM = 700.0  # −log of the smallest p-value is 691


class OpenAlarm(msgspec.Struct, frozen=True):
    """An alarm that is open: its features are those of the last window that drifted."""

    id: str
    started_at: str  # start of the first drifting window of those that opened it
    features: tuple[AlarmFeature, ...]


class StreamState(msgspec.Struct, frozen=True):
    """What the policy remembers of one version of the model."""

    last_end_s: float  # the latest end of a window that had rows
    drifted_at: tuple[float | None, ...] = ()  # last determined windows: the start of one that drifted, else None
    alarm: OpenAlarm | None = None
    resolved_s: float | None = None  # end of the window in which the last alarm was resolved
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


class Webhook(NamedTuple):
    """A transition to tell a target of."""

    type: str
    id: str
    data: dict[str, object]


class _Ranked(NamedTuple):
    """A feature by the largest term among its scores."""

    term: float
    score: Score
    severity: float | None
    over_floor: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """When a window counts, and when windows make an alarm.

    An alarm opens when `k` of the last `n` determined windows drift. For `cooldown_s` of event time after a resolve
    no alarm of that version opens. `floors`: detector → the effect at which a feature counts; one that is reached is
    enough; empty = every feature counts.
    """

    k: int
    n: int
    cooldown_s: float
    floors: Mapping[str, float]

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n:
            raise ValueError(f"`for` must be `k of n` with 1 ≤ k ≤ n; got {self.k} of {self.n}. Use `1 of 1`.")

    @property
    def calm(self) -> int:
        """How many determined windows in a row without drift resolve an alarm."""
        return max(self.n, MIN_CALM)

    def judge(self, window: Window, judgement: Judgement, state: PolicyState) -> tuple[Decision, PolicyState]:
        """The window's decision, and what to remember for the next."""
        reason = judgement.reason
        threshold = math.inf if judgement.threshold is None else judgement.threshold
        if reason is None and judgement.threshold is None:
            reason = "no_threshold"
        ranked = self._rank(judgement)
        scores = tuple(
            _score_line(score, ranked[_feature(score)].over_floor and term > threshold, reason)
            for score, term in zip(judgement.scores, judgement.terms, strict=True)
        )
        drifting = [r for r in ranked.values() if reason is None and r.over_floor and r.term > threshold]
        near_threshold = math.inf if judgement.caution_threshold is None else judgement.caution_threshold
        near = [r for r in ranked.values() if reason is None and r.over_floor and near_threshold < r.term <= threshold]
        verdict: Verdict = "undetermined" if reason is not None else "drift" if drifting else "ok"

        known = state.labelled if window.revision else state.streams
        before = known.get(window.stream.version, StreamState(window.end_s))
        now, alarm = self._follow(before, window, verdict, _alarm_features(drifting, near))
        streams, superseded = self._supersede({**known, window.stream.version: now}, window, verdict)
        unheard = [] if now.alarm is not None else drifting
        decision = Decision(
            window=_window_line(window),
            verdict=verdict,
            scores=scores,
            quality=_quality_lines(judgement, scores),
            alarms=(*alarm, *superseded),
            part=window.part,
            partial=window.partial,
            share=None if window.share is None else ShareLine(tuple(window.share[0]), window.share[1]),
            revision=window.revision,
            p_value=judgement.p_value,
            threshold=judgement.threshold,
            caution=tuple(_feature(r.score) for r in (*unheard, *near)),
            reason=reason,
            performance=_performance_lines(judgement, scores, reason),
        )
        field = "labelled" if window.revision else "streams"
        return decision, msgspec.structs.replace(state, **{field: _bounded(streams)})

    def _rank(self, judgement: Judgement) -> dict[str, _Ranked]:
        """Each feature by its largest term, largest first; features of one term in the order of their scores."""
        loudest: dict[str, tuple[float, Score]] = {}
        severity: dict[str, float] = {}
        for score, term in zip(judgement.scores, judgement.terms, strict=True):
            feature = _feature(score)
            if feature not in loudest or term > loudest[feature][0]:
                loudest[feature] = (term, score)
            floor = self.floors.get(score.detector)
            if floor is not None and score.effect is not None and not math.isnan(score.effect):
                times = abs(score.effect) / floor if floor > 0 else math.inf
                severity[feature] = max(times, severity.get(feature, 0.0))
        return {
            feature: _Ranked(term, score, severity.get(feature), not self.floors or severity.get(feature, 0.0) >= 1)
            for feature, (term, score) in sorted(loudest.items(), key=lambda item: -item[1][0])
        }

    def _follow(
        self, before: StreamState, window: Window, verdict: Verdict, features: tuple[AlarmFeature, ...]
    ) -> tuple[StreamState, tuple[AlarmLine, ...]]:
        """The version's state after this window, and its alarm's line where it has one."""
        now = msgspec.structs.replace(before, last_end_s=max(before.last_end_s, window.end_s), ok_elsewhere={})
        alarm = before.alarm
        if verdict == "undetermined":
            return now, () if alarm is None else (_alarm_line(alarm, "continuing", class_of(window)),)
        drifted = verdict == "drift"
        recent = (*before.drifted_at, window.start_s if drifted else None)[-self.calm :]
        now = msgspec.structs.replace(now, drifted_at=recent)
        if alarm is not None:
            if len(recent) == self.calm and all(start is None for start in recent):
                now = msgspec.structs.replace(now, alarm=None, resolved_s=window.end_s)
                return now, (_alarm_line(alarm, "resolved", class_of(window)),)
            if drifted:
                alarm = msgspec.structs.replace(alarm, features=features)
            return msgspec.structs.replace(now, alarm=alarm), (_alarm_line(alarm, "continuing", class_of(window)),)
        starts = [start for start in recent[-self.n :] if start is not None]
        cooling = before.resolved_s is not None and window.end_s < before.resolved_s + self.cooldown_s
        if not drifted or len(starts) < self.k or cooling:
            return now, ()
        of_class = class_of(window)
        alarm = OpenAlarm(alarm_id(_window_line(window), window.part, of_class), rfc3339(min(starts)), features)
        return msgspec.structs.replace(now, alarm=alarm), (_alarm_line(alarm, "opened", of_class),)

    def _supersede(
        self, streams: dict[str, StreamState], window: Window, verdict: Verdict
    ) -> tuple[dict[str, StreamState], list[AlarmLine]]:
        """Resolves alarms of versions without rows, while this window's version was ok, for `calm` windows in a row."""
        version = window.stream.version
        lines = []
        for other, state in streams.items():
            if other == version or state.alarm is None or window.end_s <= state.last_end_s or verdict == "undetermined":
                continue
            n_ok = state.ok_elsewhere.get(version, 0) + 1 if verdict == "ok" else 0
            if n_ok < self.calm:
                known = {v: count for v, count in state.ok_elsewhere.items() if v in streams}
                after = msgspec.structs.replace(state, ok_elsewhere={**known, version: n_ok})
            else:
                after = StreamState(state.last_end_s, resolved_s=window.end_s)
                gone = _alarm_line(state.alarm, "resolved", class_of(window), version=other, reason="superseded")
                lines.append(gone)
            streams = {**streams, other: after}
        return streams, lines


def class_of(window: Window) -> str:
    """The class of the alarms that a window may open."""
    return PERFORMANCE if window.revision else DRIFT


def alarm_id(window: WindowLine, part: int, of_class: str = DRIFT) -> str:
    """16 hex digits of SHA-256 over these, joined by newlines, as UTF-8.

    Model, version, segment (empty where there is none), class (`drift`, `performance`), start and end of the opening
    window as the decision prints them, and its part where that is over 1.
    """
    what = [window.model, window.version, window.segment or "", of_class, window.start, window.end]
    if part > 1:
        what.append(str(part))
    return hashlib.sha256("\n".join(what).encode()).hexdigest()[:16]


def webhooks(decision: Decision, on: Sequence[str]) -> list[Webhook]:
    """What a decision tells a target whose `on` holds globs over the type without `driftwatch.`.

    A continuing alarm tells nothing. `data` is fit for JSON and depends on the decision alone.
    """
    told = []
    for alarm in decision.alarms:
        kind_of_event = f"{PERFORMANCE if decision.revision else DRIFT}.{alarm.transition}"
        if alarm.transition == "continuing" or not any(fnmatchcase(kind_of_event, glob) for glob in on):
            continue
        data: dict[str, object] = {
            "model": decision.window.model,
            "version": decision.window.version if alarm.version is None else alarm.version,
            "window": msgspec.to_builtins(decision.window),
            "transition": alarm.transition,
            "kind": alarm.kind,
            "pattern": alarm.pattern,
            "started_at": alarm.started_at,
            "features": msgspec.to_builtins(alarm.features),
            "suggestion": "retrain",
            "links": {},
        }
        if decision.performance:
            data["performance"] = msgspec.to_builtins(decision.performance)
        if alarm.reason is not None:
            data["reason"] = alarm.reason
        told.append(Webhook(f"driftwatch.{kind_of_event}", f"{alarm.id}:{alarm.transition}", data))
    return told


def _feature(score: Score) -> str:
    return "*" if score.feature is None else score.feature


def _window_line(window: Window) -> WindowLine:
    start, end = rfc3339(window.start_s), rfc3339(window.end_s)
    return WindowLine(window.stream.model, window.stream.version, None, start, end, window.n_records)


def _score_line(score: Score, drifts: bool, undetermined: str | None) -> ScoreLine:
    reason = undetermined if score.reason is None else score.reason
    is_psi = score.detector == "psi"
    return ScoreLine(
        feature=_feature(score),
        detector=score.detector,
        statistic=score.statistic,
        p_value=score.p_value,
        effect=score.effect,
        n_reference=score.n_reference,
        n_current=score.n_current,
        verdict="undetermined" if reason is not None else "drift" if drifts else "ok",
        reason=reason,
        band=score.detail if is_psi else None,
        detail=None if is_psi else score.detail,
    )


def _quality_lines(judgement: Judgement, scores: Sequence[ScoreLine]) -> tuple[QualityLine, ...]:
    """The checks with their shares; a check that no score judged is undetermined."""
    verdicts: dict[tuple[str, str], Verdict] = {(score.feature, score.detector): score.verdict for score in scores}
    return tuple(
        QualityLine(feature, check, value, reference, verdicts.get((feature, check), "undetermined"))
        for feature, check, value, reference in judgement.quality
    )


def _performance_lines(
    judgement: Judgement, scores: Sequence[ScoreLine], reason: str | None
) -> tuple[PerformanceLine, ...]:
    """The metrics; what is judged is the loss, so its verdict is theirs."""
    drifts = any(score.feature == LOSS and score.verdict == "drift" for score in scores)
    verdict: Verdict = "undetermined" if reason is not None else "drift" if drifts else "ok"
    return tuple(
        PerformanceLine(
            metric=m.metric,
            source="labels",
            value=_float(m.value),
            low=_float(m.low),
            high=_float(m.high),
            reference=_float(reference),
            n=m.n,
            verdict="undetermined" if m.value is None else verdict,
        )
        for m, reference in judgement.performance
    )


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _alarm_features(drifting: Sequence[_Ranked], near: Sequence[_Ranked]) -> tuple[AlarmFeature, ...]:
    named = [*drifting, *near][:MAX_FEATURES]
    weights = [min(max(r.term, 0.0), LARGEST_TERM) for r in named]
    total = sum(weights)
    return tuple(
        AlarmFeature(
            feature=_feature(r.score),
            detector=r.score.detector,
            effect=r.score.effect,
            p_value=r.score.p_value,
            contribution=weight / total if total > 0 else None,
            score=r.score.statistic,
            severity=r.severity,
        )
        for r, weight in zip(named, weights, strict=True)
    )


def _alarm_line(
    alarm: OpenAlarm, transition: Transition, of_class: str, *, version: str | None = None, reason: str | None = None
) -> AlarmLine:
    return AlarmLine(alarm.id, transition, KINDS[of_class], None, alarm.started_at, alarm.features, version, reason)


def _bounded(streams: dict[str, StreamState]) -> dict[str, StreamState]:
    if len(streams) <= MAX_VERSIONS:
        return streams
    without_alarm = [version for version, state in streams.items() if state.alarm is None]
    oldest = min(without_alarm, key=lambda version: streams[version].last_end_s, default=None)
    return {version: state for version, state in streams.items() if version != oldest}

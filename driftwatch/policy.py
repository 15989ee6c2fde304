"""The policy: what a window's scores come to, given the floors and what the windows before it did.

Pure: `Policy.judge` is handed its memory and hands it back, so a replay gives the same decisions byte for byte.

A window is `drift` when a term over the threshold belongs to a feature over a floor. What drifts make of alarms is told
in `alarms`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from detectors.performance.kind import Kind
from detectors.performance.metric import Metric
from detectors.performance.outcome import LOSS
from detectors.score import Score, Verdict
from driftwatch.alarms import Judged, Persistence, PolicyState
from driftwatch.decision import (
    AlarmFeature,
    Decision,
    PerformanceLine,
    QualityLine,
    ScoreLine,
    ShareLine,
    WindowLine,
    rfc3339,
)
from driftwatch.records import Judgement, Window

MAX_FEATURES = 20  # of an alarm
LARGEST_TERM = 700.0  # −log of the smallest p-value is 691


class _Ranked(NamedTuple):
    """A feature by the largest term among its scores."""

    term: float
    score: Score
    severity: float | None
    over_floor: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """When a window counts, and when windows make an alarm.

    `floors`: detector → the effect at which a feature counts; one that is reached is enough; empty = every feature
    counts.
    """

    persistence: Persistence
    floors: Mapping[str, float]

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

        if drifting and judgement.kind is None:
            raise ValueError("`judgement` must say of which kind its drift is; got None. Judge it with a `Monitor`.")
        line = _window_line(window)
        kind, is_of_loss = _with_evidence(judgement.kind, drifting), any(_feature(r.score) == LOSS for r in drifting)
        judged = Judged(
            *(window, line, verdict, kind, _alarm_features(drifting, near)),
            is_of_loss=is_of_loss or judgement.rise is not None,
            rise=judgement.rise,
        )
        state, alarms = self.persistence.follow(state, judged)
        is_told = any(alarm.of_class == judged.of_class for alarm in alarms)
        decision = Decision(
            window=line,
            verdict=verdict,
            scores=scores,
            quality=_quality_lines(judgement, scores),
            alarms=alarms,
            part=window.part,
            partial=window.partial,
            share=None if window.share is None else ShareLine(tuple(window.share[0]), window.share[1]),
            revision=window.revision,
            p_value=judgement.p_value,
            threshold=judgement.threshold,
            caution=tuple(_feature(r.score) for r in (*([] if is_told else drifting), *near)),
            reason=reason,
            performance=_performance_lines(judgement, scores, reason) + _figure_lines(judgement, scores),
        )
        return decision, state

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
    """The metrics; what is judged is the loss, so its verdict is theirs. Without labels they are estimates."""
    drifts = any(score.feature == LOSS and score.verdict == "drift" for score in scores)
    verdict: Verdict = "undetermined" if reason is not None else "drift" if drifts else "ok"
    estimates = {m.metric: _float(m.value) for m, _ in judgement.estimates}
    if not judgement.performance:
        return tuple(_performance_line(m, before, "estimate", "undetermined") for m, before in judgement.estimates)
    return tuple(
        _performance_line(m, before, "labels", verdict, estimates.get(m.metric)) for m, before in judgement.performance
    )


def _figure_lines(judgement: Judgement, scores: Sequence[ScoreLine]) -> tuple[PerformanceLine, ...]:
    """The figures of fields; the verdict is the field's own, undetermined where no profile knows the field."""
    verdicts: dict[str, set[Verdict]] = {}
    for score in scores:
        verdicts.setdefault(score.feature, set()).add(score.verdict)
    ranked: tuple[Verdict, ...] = ("drift", "ok", "undetermined")
    return tuple(
        _performance_line(m, None, "fields", next((v for v in ranked if v in verdicts.get(f, ())), "undetermined"))
        for m, f in judgement.figures
    )


def _performance_line(
    m: Metric, reference: float | None, source: str, verdict: Verdict, estimate: float | None = None
) -> PerformanceLine:
    return PerformanceLine(
        metric=m.metric,
        source=source,
        value=_float(m.value),
        low=_float(m.low),
        high=_float(m.high),
        reference=_float(reference),
        n=m.n,
        verdict="undetermined" if m.value is None else verdict,
        estimate=estimate,
    )


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _with_evidence(kind: Kind | None, drifting: Sequence[_Ranked]) -> Kind | None:
    """The kind of a drift; where it has no sentence of its own, the loudest score is its evidence."""
    if kind is None or kind.evidence or not drifting:
        return kind
    loudest = drifting[0].score
    what = loudest.detail if loudest.feature is None and loudest.detail else f"`{_feature(loudest)}`"
    by = "" if loudest.effect is None else f", by {loudest.effect:.2g}"
    return replace(kind, evidence=(f"no feature moved clearly by itself; {loudest.detector} of {what} changed{by}",))


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

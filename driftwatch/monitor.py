"""Judges a window against its profile: scores, and the threshold that the alarm budget comes to."""

from collections.abc import Mapping
from math import inf

from detectors.performance.metric import Metric
from detectors.profile import Profile
from detectors.scoring import score
from driftwatch.outcomes import outcome_for
from driftwatch.records import LEARNING, Judgement, LabelColumn, Window

CAUTION = 10  # times the budget's rate is what a cautious look is worth


class Monitor:
    """Judges windows on the profiles that their tables are counted on.

    `profiles`: by content hash, each with the rate of alarms a window that its budget allows. A window that holds a
    share of the source's shards is judged by that share of the rate. `label`: what is judged the second time.
    """

    def __init__(
        self, profiles: Mapping[str, tuple[Profile, float]], *, min_records: int, label: LabelColumn | None = None
    ) -> None:
        self._profiles, self._min_records, self._label = dict(profiles), min_records, label

    def know(self, profile: Profile, rate: float) -> None:
        """Judges what is counted on one more profile."""
        self._profiles[profile.hash] = profile, rate

    def forget(self, content_hash: str) -> None:
        """Judges nothing more that is counted on a profile."""
        self._profiles.pop(content_hash, None)

    def judge(self, window: Window) -> Judgement:
        """The judgement; undetermined without a profile or with too few records."""
        if window.revision:
            return self._judge_labels(window)
        found = self._profiles.get(window.profile)
        reason = None if found is not None else "learning" if window.profile == LEARNING else "no_profile"
        if found is None or window.n_records < self._min_records:
            return Judgement((), (), None, None, None, reason or "too_few_records")
        profile, rate = found[0], _share(window) * found[1]
        scored = score(profile, window.table)
        if max(scored.terms) == -inf:
            return Judgement(scored.scores, scored.terms, None, None, None, "too_few_observed", scored.quality)
        curves = profile.calibration
        return Judgement(
            scores=scored.scores,
            terms=scored.terms,
            p_value=curves.p_value(max(scored.terms), scored.n),
            threshold=curves.threshold(rate, scored.n),
            caution_threshold=curves.threshold(CAUTION * rate, scored.n),
            quality=scored.quality,
        )

    def _judge_labels(self, window: Window) -> Judgement:
        """The second judgement: label and loss, against the threshold that holds for all of the window's terms."""
        found = self._profiles.get(window.profile)
        if found is None:
            return Judgement((), (), None, None, None, "no_profile")
        profile, rate, table = found[0], _share(window) * found[1], window.table
        performance: tuple[tuple[Metric, float | None], ...] = ()
        outcome = outcome_for(profile, self._label)
        if outcome is not None:
            before = outcome.reference
            performance = tuple(
                (m, before[m.metric].value if m.metric in before else None)
                for m in outcome.tally.metrics(table.outcome)
            )
        if not window.n_labels or window.n_labels < self._min_records:
            reason = "too_few_labels" if window.n_labels else "stale_labels"
            return Judgement((), (), None, None, None, reason, performance=performance)
        if not profile.grid.delayed.any():
            return Judgement((), (), None, None, None, "no_reference_labels", performance=performance)
        scored = score(profile, table, delayed=True)
        if max(scored.terms) == -inf:
            return Judgement(
                scored.scores, scored.terms, None, None, None, "too_few_observed", scored.quality, performance
            )
        curves, n = profile.calibration, window.n_records
        return Judgement(
            scores=scored.scores,
            terms=scored.terms,
            p_value=curves.p_value(max(scored.terms), scored.n),
            threshold=curves.threshold(rate, n),
            caution_threshold=curves.threshold(CAUTION * rate, n),
            quality=scored.quality,
            performance=performance,
        )


def _share(window: Window) -> float:
    """The share of the source's shards that a window was counted on."""
    return 1.0 if window.share is None else len(window.share[0]) / window.share[1]

"""Judges a window against its profile: scores, the threshold of the alarm budget, and what kind of drift it shows."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf

import numpy as np

from detectors.performance.kind import Kind, Learnt, kind_of
from detectors.performance.loss_baseline import LossBaseline
from detectors.performance.metric import Metric
from detectors.performance.outcome import Outcome
from detectors.profile import Profile
from detectors.scoring import score
from driftwatch.figures import Figures
from driftwatch.outcomes import outcome_for
from driftwatch.records import LEARNING, Judgement, LabelColumn, Window

CAUTION = 10  # times the budget's rate is what a cautious look is worth
OF_ROWS = 0.1  # of the budget, for losses row by row where they are held against a reference's; windows have the rest

Compared = tuple[tuple[Metric, float | None], ...]


class Monitor:
    """Judges windows on the profiles that their tables are counted on.

    `profiles`: by content hash, each with the rate of alarms a window that its budget allows. A window that holds a
    share of the source's shards is judged by that share of the rate. `label`: what is judged the second time.
    `prediction`: the column of what the model says. `figures`: what is shown of the event's fields.
    """

    def __init__(
        self,
        profiles: Mapping[str, tuple[Profile, float]],
        *,
        min_records: int,
        label: LabelColumn | None = None,
        prediction: str | None = None,
        figures: Figures | None = None,
    ) -> None:
        self.min_records, self._label, self._prediction = min_records, label, prediction
        self._figures = figures
        self._profiles: dict[str, tuple[Profile, float]] = {}
        self._learnt: dict[str, Learnt] = {}
        for profile, rate in profiles.values():
            self.know(profile, rate)

    def know(self, profile: Profile, rate: float) -> None:
        """Judges what is counted on one more profile."""
        self._profiles[profile.hash] = profile, rate
        self._learnt[profile.hash] = profile.learnt(self._prediction)

    def forget(self, content_hash: str) -> None:
        """Judges nothing more that is counted on a profile."""
        self._profiles.pop(content_hash, None)
        self._learnt.pop(content_hash, None)

    def judge(self, window: Window) -> Judgement:
        """The judgement; undetermined without a profile or with too few records."""
        found = self._profiles.get(window.profile)
        if found is None:
            return undetermined("learning" if window.profile == LEARNING else "no_profile")
        profile, rate = found[0], self._rate(window)
        estimates = self._estimates(profile, window)
        if window.revision:
            return self._judge_labels(profile, rate, window, estimates)
        few = window.n_records < self.min_records
        judged = undetermined("too_few_records") if few else self._judge_terms(profile, rate, window)
        figures = () if self._figures is None else self._figures.read(window.table, of_labels=False)
        return replace(judged, estimates=() if few else estimates, figures=figures)

    def _rate(self, window: Window) -> float:
        """Alarms a window that the budget leaves to the window's terms."""
        profile, rate = self._profiles[window.profile]
        if window.share is not None:
            rate *= len(window.share[0]) / window.share[1]
        return windows_rate(profile, rate) if self._label is not None else rate

    def losses_of(self, window: Window) -> tuple[LossBaseline, float] | None:
        """What a window's losses are held against row by row, and the alarms a window that this may cost."""
        found = self._profiles.get(window.profile)
        baseline = None if found is None else baseline_of(found[0])
        return None if baseline is None else (baseline, self._rate(window) * OF_ROWS / (1 - OF_ROWS))

    def thresholds(self, window: Window) -> tuple[float, float]:
        """What a term of a window judged on its labels must exceed, and what a cautious look takes."""
        rate, curves = self._rate(window), self._profiles[window.profile][0].calibration
        n = window.n_records
        return curves.threshold(rate, n), curves.threshold(CAUTION * rate, n)

    def _judge_labels(self, profile: Profile, rate: float, window: Window, estimates: Compared) -> Judgement:
        """The second judgement: label and loss, against the threshold that holds for all of the window's terms."""
        performance = self._realised(profile, window)
        if not window.n_labels or window.n_labels < self.min_records:
            judged = undetermined("too_few_labels" if window.n_labels else "stale_labels")
        elif not profile.grid.delayed.any():
            judged = undetermined("no_reference_labels")
        else:
            judged = self._judge_terms(profile, rate, window)
        figures = () if self._figures is None else self._figures.read(window.table, of_labels=True)
        return replace(judged, performance=performance, estimates=estimates, figures=figures)

    def realised(self, window: Window) -> Compared:
        """The metrics of a window's labels, judged by nothing; none without a profile."""
        found = self._profiles.get(window.profile)
        return () if found is None else self._realised(found[0], window)

    def _realised(self, profile: Profile, window: Window) -> Compared:
        outcome = outcome_for(profile, self._label)
        return () if outcome is None else beside(outcome, outcome.metrics(window.table.outcome))

    def _judge_terms(self, profile: Profile, rate: float, window: Window) -> Judgement:
        """The scores, and what they come to."""
        scored = score(profile, window.table, delayed=bool(window.revision))
        loudest = max(scored.terms)
        if loudest == -inf:
            return Judgement(scored.scores, scored.terms, None, None, None, "too_few_observed", scored.quality)
        curves, n = profile.calibration, window.n_records if window.revision else scored.n
        threshold = curves.threshold(rate, n)
        return Judgement(
            scores=scored.scores,
            terms=scored.terms,
            p_value=curves.p_value(loudest, scored.n),
            threshold=threshold,
            caution_threshold=curves.threshold(CAUTION * rate, n),
            quality=scored.quality,
            kind=self.kind(window) if loudest > threshold else None,
        )

    def kind(self, window: Window, *, rose: bool = False) -> Kind:
        """What the window's drift is; with labels where it is judged on them. `rose`: row by row the loss did."""
        profile = self._profiles[window.profile][0]
        learnt, table, labelled = self._learnt[window.profile], window.table, None
        if window.revision:
            known = None if profile.outcome is None else profile.outcome.performance
            if known is None:  # then only the label's own distribution is judged
                label = profile.grid.names[int(np.flatnonzero(profile.grid.delayed)[0])]
                return Kind("prior", (f"the distribution of `{label}` moved",), "recalibrate")
            labelled = known.labelled(table.outcome, table.samples[-1].sums.sum(axis=0))
        return kind_of(learnt, table.counts.astype(np.float64), labelled, loss_rose=rose)

    def _estimates(self, profile: Profile, window: Window) -> Compared:
        """The metrics as they are estimated without labels, where the reference's labels allow it."""
        outcome, at = profile.outcome, self._learnt[window.profile].prediction
        if outcome is None or outcome.performance is None or at is None or window.n_records < self.min_records:
            return ()
        table = window.table
        expected = table.samples[-1].sums.sum(axis=0)
        cells = table.counts[profile.grid.slice(at)].astype(np.float64)
        if not cells.any():
            return ()
        return beside(outcome, outcome.performance.estimates(cells, expected))


def baseline_of(profile: Profile) -> LossBaseline | None:
    """What the reference says of losses row by row."""
    known = None if profile.outcome is None else profile.outcome.performance
    return None if known is None else known.baseline


def windows_rate(profile: Profile, rate: float) -> float:
    """Of a rate of alarms what is left to windows where losses are followed row by row too."""
    return rate if baseline_of(profile) is None else rate * (1 - OF_ROWS)


def undetermined(reason: str) -> Judgement:
    """A judgement that decides nothing."""
    return Judgement((), (), None, None, None, reason)


def beside(outcome: Outcome, metrics: tuple[Metric, ...]) -> Compared:
    """Metrics, each with what it is in the reference."""
    before = outcome.reference
    return tuple((m, before[m.metric].value if m.metric in before else None) for m in metrics)

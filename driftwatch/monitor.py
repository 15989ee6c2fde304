"""Judges a window against its profile: scores, and the threshold that the alarm budget comes to."""

from collections.abc import Mapping
from math import inf

from detectors.profile import Profile
from detectors.scoring import score
from driftwatch.records import LEARNING, Judgement, Window

CAUTION = 10  # times the budget's rate is what a cautious look is worth


class Monitor:
    """Judges windows on the profiles that their tables are counted on.

    `profiles`: by content hash, each with the rate of alarms a window that its budget allows. A window that holds a
    share of the source's shards is judged by that share of the rate.
    """

    def __init__(self, profiles: Mapping[str, tuple[Profile, float]], *, min_records: int) -> None:
        self._profiles, self._min_records = dict(profiles), min_records

    def know(self, profile: Profile, rate: float) -> None:
        """Judges what is counted on one more profile."""
        self._profiles[profile.hash] = profile, rate

    def forget(self, content_hash: str) -> None:
        """Judges nothing more that is counted on a profile."""
        self._profiles.pop(content_hash, None)

    def judge(self, window: Window) -> Judgement:
        """The judgement; undetermined without a profile or with too few records."""
        found = self._profiles.get(window.profile)
        reason = None if found is not None else "learning" if window.profile == LEARNING else "no_profile"
        if found is None or window.n_records < self._min_records:
            return Judgement((), (), None, None, None, reason or "too_few_records")
        profile, rate = found
        if window.share is not None:
            rate *= len(window.share[0]) / window.share[1]
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

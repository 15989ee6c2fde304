"""What a profile would find, and how often it errs: measured on the reference that it was built from.

False alarms: the world is the reference; a pseudo-reference is drawn from it, and windows of the same world are judged
against that one. Power: one feature of such windows is changed by an amount, and its own terms are judged.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, ndtri

from detectors.calibration import ONCE, Alarm, Null, rolling
from detectors.contrast import Contrast
from detectors.family import JointDifference, JointEffects
from detectors.grid import MISSING, SPECIAL, UNSEEN, FeatureKind, Grid
from detectors.openings import count_openings
from detectors.profile import Profile
from detectors.reference import null_of
from detectors.resampling import Draws
from detectors.scoring import MIN_OBSERVED
from detectors.two_sample.special_cells import CELLS

REFERENCES, WINDOWS = 100, 300  # pseudo-references, and windows judged against each
LEVEL = 0.10  # share of windows above which a single reference's tail is taken to be exponential
POOLED_LEVEL = 0.01  # the same for all references together
BETWEEN = (0.05, 0.95)  # quantiles of the rates of single references
DRAWS = 400
FOUND = 0.8  # probability with which a change is to be found
MANY_WINDOWS = 10
STEPS = 9  # of bisection: amounts to within 2 %

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Alarms a window when nothing changed: averaged over references, and between which two a single one's lie.

    Nine of ten references of this length have a rate between `low` and `high`.
    """

    mean: float
    low: float
    high: float


def false_alarms(
    profile: Profile,
    *,
    threshold: float,
    n_current: int,
    longer: int = 1,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> FalseAlarms:
    """The rate of alarms of the profile's policy on windows of `n_current` rows at a threshold.

    `longer`: how many times as long the reference is taken to be. What the service would compute is simulated: the
    draws are widened by what their blocks do not carry, and Student's factor, which pays for a short reference's
    uncertain spread, is drawn once a reference, as that spread is the same for all its windows.

    Rates too rare to count go on from a level that windows do reach, as an exponential tail: the average from the
    windows of all references, the spread between references from each one's own windows, less the part of it that is
    counting noise. Where the dependence is longer than any block, the reference is not drawn afresh, and the spread
    is Student's alone.
    """
    null = null_of(profile)
    largest = np.stack(list(_largest_terms(profile, null, n_current, longer, seed, progress)))
    alarm = profile.calibration.alarm
    return _rates(alarm_statistic(largest, alarm), largest, alarm, threshold)


def alarm_statistic(largest: np.ndarray, alarm: Alarm) -> np.ndarray:
    """What must exceed the threshold for an alarm at each window, (runs, windows − n + 1).

    The k-th largest of the last n windows' terms, and no more than the window's own.
    """
    last = np.lib.stride_tricks.sliding_window_view(largest, alarm.n, axis=1)
    return np.minimum(np.sort(last, axis=-1)[..., -alarm.k], last[..., -1])

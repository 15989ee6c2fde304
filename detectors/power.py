"""What a profile would find, and how often it errs: measured on the reference that it was built from.

False alarms: the reference is the world; pseudo-references are drawn from it, and windows of the same world are judged
against each. Power: one feature of such windows changes by an amount, and its own terms are judged.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import ndtr, ndtri

from detectors.calibration import ONCE, Alarm, Null, rolling
from detectors.contrast import Contrast
from detectors.family import JointDifference, JointEffects
from detectors.grid import MISSING, SPECIAL, UNSEEN
from detectors.openings import count_openings
from detectors.profile import Profile
from detectors.reference import null_of
from detectors.resampling import Draws
from detectors.scoring import MIN_OBSERVED
from detectors.two_sample.special_cells import CELLS

REFERENCES, WINDOWS = 100, 300  # pseudo-references, and windows judged against each
POOLED_LEVEL = 0.01  # share of windows above which their tail is taken to be exponential
EXTREMES = 400  # windows that every pseudo-reference judges
BETWEEN = (0.05, 0.95)  # quantiles of the rates of single references
DRAWS = 200  # windows for each amount of change
FOUND = 0.8  # probability with which a change is to be found
MANY_WINDOWS = 10
STEPS = 9  # of bisection: an amount to within 2 %

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Alarms a window while nothing changes: averaged over references, and between which two a single one's rate lies.

    Nine of ten references of this length have a rate of their own from `low` to `high`.
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
    """How often the profile's policy opens an alarm at a threshold on windows of `n_current` rows.

    `longer`: how many times as long as it is the reference is taken to be. A rate too rare to count goes on as an
    exponential tail from a level that windows do reach. The average is over windows of all pseudo-references; how they
    differ is seen by judging the same extreme windows against each, so that little of it is chance. Where the
    dependence is longer than any block, no reference is drawn, and they differ by Student's factor alone. The profile
    must have its codes.

    Cost: 30,000 windows and 400 against 100 references, about 14 CPU-seconds for 25 features and windows of 1,000.
    """
    null = null_of(profile)
    null = replace(null, n_rows=longer * null.n_rows)
    alarm = profile.calibration.alarm
    trial = Trial(profile, null, n_current, null.student(np.random.default_rng(seed), REFERENCES))
    kept_share = min(1.0, max(2 * POOLED_LEVEL, 3 * profile.calibration.p_value(threshold, n_current)))
    largest = np.empty(REFERENCES * WINDOWS)
    references: list[tuple[np.ndarray, np.ndarray]] = []
    extremes: list[tuple[np.ndarray, np.ndarray]] = []
    n_done = n_kept = 0
    for draws in pseudo_windows(null, alarm, n_current, seed):
        at = np.arange(n_done, n_done + len(draws.current))
        largest[at] = trial.largest_terms(draws, at // WINDOWS)
        first = np.flatnonzero(at % WINDOWS == 0)  # of those judged against one pseudo-reference
        references += zip(draws.reference[first], draws.joint_reference[first], strict=True)
        if n_kept < EXTREMES:
            kept = np.argsort(largest[at])[-max(1, round(kept_share * len(at))) :]
            extremes.append((draws.current[kept], draws.joint_current[kept]))
            n_kept += len(kept)
        n_done += len(at)
        progress(0.7 * n_done / len(largest))
    current, joint_current = (np.concatenate(part) for part in zip(*extremes, strict=True))
    crossed = np.empty((REFERENCES, len(current)))
    for r, (reference, joint_reference) in enumerate(references):
        draws = Draws(current, reference[None], joint_current, joint_reference[None])
        crossed[r] = trial.largest_terms(draws, np.array([r]))
        progress(0.7 + 0.3 * (r + 1) / REFERENCES)
    mean = rate(largest.reshape(REFERENCES, WINDOWS), alarm, threshold)
    relative = relative_rates(crossed, threshold) ** alarm.k  # an alarm needs k windows over the threshold
    low, high = np.quantile(relative / relative.mean(), BETWEEN) * mean
    return FalseAlarms(mean, float(low), float(high))


def pseudo_windows(null: Null, alarm: Alarm, n_current: int, seed: int) -> Iterator[Draws]:
    """WINDOWS windows against each of REFERENCES pseudo-references, in order; consecutive ones where that matters."""
    if alarm == ONCE:
        shared = 1 if null.dependence.segments else WINDOWS  # there every pseudo-reference is the reference
        yield from null.resampler(n_current, seed).draws(REFERENCES * WINDOWS, n_current, windows=shared)
        return
    pane_rows = max(1, round(n_current / alarm.panes))
    for run in null.resampler(pane_rows, seed).runs(REFERENCES, WINDOWS + alarm.panes - 1, pane_rows):
        yield rolling(run, alarm.panes)


@dataclass(frozen=True)
class Trial:
    """Judges windows in which nothing changed as the service would.

    They are widened by what their blocks do not carry. `student` stands for how far the spread that a reference showed
    may be from the true one: (references, terms), since it is the same for all windows of a reference.
    """

    profile: Profile
    null: Null
    n_current: int
    student: np.ndarray | None

    @cached_property
    def widenings(self) -> np.ndarray:
        """By how much the draws are too narrow, (terms,)."""
        pane_rows = max(1, round(self.n_current / self.profile.calibration.alarm.panes))
        return self.null.widenings(self.n_current, pane_rows)

    def largest_terms(self, draws: Draws, reference: np.ndarray) -> np.ndarray:
        """The largest term of each window; `reference`: which one each is judged against, (windows,) or (1,)."""
        contrast = Contrast(self.profile.basis, reference=draws.reference, current=draws.current)
        joint = self.null.joint_difference(draws, self.n_current, self.profile.calibration.pair_sd(self.n_current))
        wider = self.widenings if self.student is None else self.widenings * self.student[reference]
        return np.asarray(terms(self.profile, contrast, joint, self.n_current, wider).max(axis=1))


def terms(
    profile: Profile, contrast: Contrast, joint: JointDifference, n_current: int, wider: np.ndarray | float = 1.0
) -> np.ndarray:
    """−log p + log w of every term, −inf where too few rows were observed to decide, (windows, terms)."""
    family = profile.family
    minus_log_p = profile.calibration.minus_log_p(family, family.pivots(contrast, joint) * wider, n_current)
    few = np.pad(contrast.n_current < MIN_OBSERVED, ((0, 0), (0, 1)))[:, family.feature]
    return np.where(few & ~np.isin(family.detector, list(CELLS)), -np.inf, minus_log_p + family.log_weight)


def rate(largest: np.ndarray, alarm: Alarm, threshold: float) -> float:
    """Alarms a window, given the largest terms of consecutive windows of each reference, (references, windows)."""
    last = np.lib.stride_tricks.sliding_window_view(largest, alarm.n, axis=1)
    needed = np.minimum(np.sort(last, axis=-1)[..., -alarm.k], last[..., -1])  # what must be over it for an alarm
    point = min(threshold, float(np.quantile(needed, 1 - POOLED_LEVEL)))
    opened = count_openings(largest > point, alarm.k, alarm.n).sum() / largest.size
    return float(opened * np.exp(-tail_depth(needed.ravel(), point, threshold)))


def relative_rates(extreme: np.ndarray, threshold: float) -> np.ndarray:
    """Rates up to a common factor at which references have windows over a threshold, (references,).

    `extreme`: largest terms of the same extreme windows against each, (references, windows).
    """
    point = min(threshold, float(np.median(extreme)))
    n_above = (extreme > point).sum(axis=1)
    return np.array([n * np.exp(-tail_depth(own, point, threshold)) for n, own in zip(n_above, extreme, strict=True)])


def tail_depth(sample: np.ndarray, point: float, threshold: float) -> float:
    """How many mean excesses over a point the threshold lies above it; 0 where nothing exceeds the point."""
    above = sample[sample > point]
    return (threshold - point) / float((above - point).mean()) if len(above) else 0.0


@dataclass(frozen=True, slots=True)
class NullWindows:
    """Windows in which nothing changed, each with a pseudo-reference, (draws, cells)."""

    profile: Profile
    current: np.ndarray
    reference: np.ndarray
    seed: int


Amounts = np.ndarray
"""How much each feature changes, float64 (features,)."""


def _cumulative(profile: Profile, j: int) -> np.ndarray:
    """The reference's distribution function at the ends of feature j's regular cells, from 0 to 1."""
    shares = np.cumsum(profile.counts[profile.grid.slice(j)])
    return np.concatenate([[0.0], shares / max(shares[-1], 1.0)])


def _moved(windows: NullWindows, origin: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
    """Numeric features after their rows moved: those below normal score `origin(j, z)` come to lie below z.

    Inside a cell a window's rows are spread evenly over the reference's ranks, so that a cell's count divides.
    """
    profile, moved = windows.profile, windows.current.copy()
    for j in profile.grid.kind("numeric"):
        cells = profile.grid.slice(j)
        ends = _cumulative(profile, j)
        sources = ndtr(origin(j, ndtri(ends)))
        left = np.clip(np.searchsorted(ends, sources, "right") - 1, 0, len(ends) - 2)
        width = ends[left + 1] - ends[left]
        part = np.where(width > 0, (sources - ends[left]) / np.where(width > 0, width, 1), 0)
        rows = np.pad(np.cumsum(windows.current[:, cells], axis=1), ((0, 0), (1, 0)))
        below = (1 - part) * rows[:, left] + part * rows[:, left + 1]
        below[:, 0], below[:, -1] = 0, rows[:, -1]
        moved[:, cells] = np.maximum(np.diff(below, axis=1), 0)  # a rounding may fall below
    return moved


def _mean(windows: NullWindows, amounts: Amounts) -> np.ndarray:
    return _moved(windows, lambda j, z: z - amounts[j])


def _spread(windows: NullWindows, amounts: Amounts) -> np.ndarray:
    return _moved(windows, lambda j, z: z / (1 + amounts[j]))


def _category(windows: NullWindows, amounts: Amounts) -> np.ndarray:
    """Rows of the commonest category, each by chance, become the second."""
    profile, moved, rng = windows.profile, windows.current.copy(), np.random.default_rng(windows.seed)
    for j in profile.grid.kind("categorical"):
        first = profile.grid.slice(j).start
        chance = min(1.0, amounts[j] * profile.n_rows / max(profile.counts[first], 1.0))
        if profile.grid.sizes[j] > 1:
            n = np.minimum(rng.binomial(np.round(moved[:, first]).astype(np.int64), chance), moved[:, first])
            moved[:, first] -= n
            moved[:, first + 1] += n
    return moved


def _lost(windows: NullWindows, amounts: Amounts, special: int, features: np.ndarray) -> np.ndarray:
    """Observed rows, each by chance, come to lie in a special cell."""
    profile, moved, rng = windows.profile, windows.current.copy(), np.random.default_rng(windows.seed)
    for j in features:
        cells = profile.grid.slice(j)
        chance = min(1.0, amounts[j] * profile.n_rows / max(profile.counts[cells].sum(), 1.0))
        observed = moved[:, cells].sum(axis=1)
        n = np.minimum(rng.binomial(np.round(observed).astype(np.int64), chance), observed)
        moved[:, cells] *= (1 - n / np.maximum(observed, 1))[:, None]
        moved[:, SPECIAL * j + special] += n
    return moved


def _unseen(windows: NullWindows, amounts: Amounts) -> np.ndarray:
    return _lost(windows, amounts, UNSEEN, windows.profile.grid.kind("categorical"))


def _missing(windows: NullWindows, amounts: Amounts) -> np.ndarray:
    return _lost(windows, amounts, MISSING, np.arange(len(windows.profile.grid.features)))


def _varies(profile: Profile) -> np.ndarray:
    return np.asarray(np.maximum.reduceat(np.abs(profile.basis.normal), profile.grid.starts) > 0)


def _categorical(profile: Profile) -> np.ndarray:
    return np.array([f.kind == "categorical" for f in profile.grid.features])


@dataclass(frozen=True, slots=True)
class Change:
    """A way in which some features may change, and the amounts between which the smallest is sought."""

    possible: Callable[[Profile], np.ndarray]  # bool (features,)
    least: float
    most: float
    applied: Callable[[NullWindows, Amounts], np.ndarray]


CHANGES: Mapping[str, Change] = {
    "mean": Change(_varies, 0.002, 8.0, _mean),
    "spread": Change(_varies, 0.002, 8.0, _spread),
    "category": Change(lambda profile: _categorical(profile) & (profile.grid.sizes > 1), 0.0002, 1.0, _category),
    "unseen": Change(
        lambda profile: _categorical(profile) & ~np.array([f.buckets > 0 for f in profile.grid.features]),
        0.0002,
        1.0,
        _unseen,
    ),
    "missing": Change(lambda profile: np.ones(len(profile.grid.features), bool), 0.0002, 1.0, _missing),
}
"""mean: every row moves up by this many standard deviations on the scale of normal scores (for a normal feature, its
own); a value that many rows share stays one value, which more or fewer rows then have. spread: the distance from the
median on that scale grows by this part (.5 = × 1.5). category, unseen, missing: this share of all rows goes from the
commonest category to the second, to categories that the reference lacks, to missing."""


def smallest_changes(
    profile: Profile,
    *,
    threshold: float,
    n_current: int,
    floors: Mapping[str, float],
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> dict[str, np.ndarray]:
    """The smallest amounts of every change found with probability FOUND, (features, 2) by the change's name.

    Found: enough windows are over the threshold and over a floor (detector → effect; one that is reached is enough;
    none = no floor), by terms of the changed feature alone, for the policy to open an alarm. First column: as soon as
    it can, in its first k windows; second: within MANY_WINDOWS windows. inf = no amount is; nan = not a change that the
    feature can undergo. All features change at once, each judged by its own terms; windows are taken to be independent.
    The profile must have its codes.

    Cost: 20,000 windows, about 12 CPU-seconds for 25 features, two thirds of them for the floors.
    """
    null = null_of(profile)
    portions = list(null.resampler(n_current, seed).draws(DRAWS, n_current))
    current, reference = (
        np.concatenate([getattr(p, side) for p in portions])[:DRAWS].astype(np.float64)
        for side in ("current", "reference")
    )
    windows = NullWindows(profile, current, reference, seed)
    alarm = profile.calibration.alarm
    targets = (FOUND ** (1 / alarm.k), share_needed(alarm, MANY_WINDOWS))
    found: dict[str, np.ndarray] = {}
    for name, change in CHANGES.items():
        columns: list[np.ndarray] = []
        for target in targets:
            progress((len(found) + len(columns) / len(targets)) / len(CHANGES))
            columns.append(_smallest(windows, change, target, threshold=threshold, n_current=n_current, floors=floors))
        found[name] = np.where(change.possible(profile)[:, None], np.stack(columns, axis=1), np.nan)
    progress(1.0)
    return found


def share_needed(alarm: Alarm, n_windows: int) -> float:
    """Share of windows that must drift, each by itself, for the policy to open an alarm within n windows: FOUND.

    inf where so few windows never open one. Cost: all 2^n sequences of windows.
    """
    drifts = (np.arange(1 << n_windows)[:, None] >> np.arange(n_windows)) % 2 == 1
    opens = count_openings(drifts, alarm.k, alarm.n) > 0
    n_opening = np.bincount(drifts[opens].sum(axis=1), minlength=n_windows + 1)
    if not n_opening.any():
        return np.inf
    share = np.linspace(0, 1, 2001)[:, None]
    drifting = np.arange(n_windows + 1)
    chance = (n_opening * share**drifting * (1 - share) ** (n_windows - drifting)).sum(axis=1)
    return float(np.interp(FOUND, chance, share[:, 0]))


def _smallest(
    windows: NullWindows,
    change: Change,
    target: float,
    *,
    threshold: float,
    n_current: int,
    floors: Mapping[str, float],
) -> np.ndarray:
    """The smallest amount at which the share of windows that find it reaches the target, by bisection, (features,)."""

    def reaches(amounts: Amounts) -> np.ndarray:
        changed = change.applied(windows, amounts)
        contrast = Contrast(windows.profile.basis, reference=windows.reference, current=changed)
        found = drifting(windows.profile, contrast, threshold=threshold, n_current=n_current, floors=floors)
        return np.asarray(found.mean(axis=0) >= target)

    n_features = len(windows.profile.grid.features)
    low, high = np.full(n_features, np.log(change.least)), np.full(n_features, np.log(change.most))
    possible = reaches(np.exp(high))
    if not possible.any():
        return np.full(n_features, np.inf)
    for _ in range(STEPS):
        middle = (low + high) / 2
        enough = reaches(np.exp(middle))
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(possible, np.exp(high), np.inf)


def drifting(
    profile: Profile, contrast: Contrast, *, threshold: float, n_current: int, floors: Mapping[str, float]
) -> np.ndarray:
    """Whether a feature's own terms make a window of `n_current` rows drift, bool (windows, features)."""
    family, n_windows, n_features = profile.family, len(contrast.current), len(profile.grid.features)
    still = np.zeros(n_windows)
    samples = tuple(still for _ in family.samples)
    joint = JointDifference(np.zeros((n_windows, max(1, family.n_pairs))), samples, samples)
    own = terms(profile, contrast, joint, n_current)
    found = np.maximum.reduceat(own, family.starts, axis=1)[:, :n_features] > threshold
    if not floors:
        return found
    floor = np.array([floors.get(name, np.inf) for name in family.detector.tolist()])
    no_joint = JointEffects(0.0, None, (0.0,) * len(family.samples))
    for i in np.flatnonzero(found.any(axis=1)):
        one = Contrast(profile.basis, reference=contrast.reference[i], current=contrast.current[i])
        counts = family.effects(one, no_joint) >= floor
        found[i] &= np.logical_or.reduceat(counts, family.starts)[:n_features]
    return found

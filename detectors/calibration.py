"""From a reference to thresholds: what every term's p-value is, and what the largest one must exceed at a budget.

The recipe and its measured error are in docs/statistics.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from detectors.contrast import Contrast
from detectors.dependence import Autocovariance, widening
from detectors.family import Family, JointDifference
from detectors.openings import count_openings
from detectors.resampling import Draws, Resampler, Rows, base_rows
from detectors.tails import RATES, Fit, exact_curve, fit, minus_log_p, opening_curve, threshold_curve
from detectors.two_sample import cells

SAFETY = 0.85  # of the budget is what thresholds aim at
DRAWS_FIT, DRAWS_THRESHOLD = 10_000, 20_000
SKEWED = 0.015  # skewness of a window's mean from which its tail is not taken for normal
STUDENT = 1.5  # degrees of freedom for each block that the reference is worth
RUN_WINDOWS = 200


@dataclass(frozen=True, slots=True)
class Dependence:
    """How the reference's rows depend on one another.

    `need`: block length of the whole; `of_feature` (features,); `series`: the autocovariances behind it, by (feature,
    "location" | "scale" | "missing"). `segments`: the dependence is too long for blocks; `periodic`: it is a season.
    """

    need: float
    of_feature: np.ndarray
    series: dict[tuple[int, str], Autocovariance]
    segments: bool
    periodic: bool


@dataclass(frozen=True, slots=True)
class Alarm:
    """The policy whose openings are budgeted: k of the last n windows, each of `panes` panes (1 = tumbling)."""

    k: int = 1
    n: int = 1
    panes: int = 1


ONCE = Alarm()


@dataclass(frozen=True)
class Calibration:
    """Null distributions on a ladder of window sizes; between two sizes linear in log n.

    `p_curves` (sizes, rates): thresholds that a single window exceeds at RATES; `opening_curves` (sizes, rates): those
    at which the policy `alarm` opens alarms at RATES, a window.
    """

    sizes: np.ndarray
    fits: np.ndarray  # (sizes, 4, terms): a, b, c, flat
    p_curves: np.ndarray
    opening_curves: np.ndarray
    pair_sds: np.ndarray  # (sizes, pairs): √(n · variance) of each pair's mean product
    alarm: Alarm

    def pair_sd(self, n: float) -> np.ndarray:
        """√(n · variance of a mean over n rows) of each watched pair's product, (pairs,)."""
        return self._between(self.pair_sds, n)

    def _between(self, values: np.ndarray, n: float) -> np.ndarray:
        log_sizes = np.log(self.sizes)
        at = float(np.interp(np.log(max(n, 1)), log_sizes, np.arange(len(log_sizes))))
        low, part = int(at), at - int(at)
        return np.asarray(values[low] if not part else (1 - part) * values[low] + part * values[low + 1])

    def minus_log_p(self, family: Family, pivots: np.ndarray, n: float) -> np.ndarray:
        """−log p of every term of windows of n rows, (…, terms)."""
        a, b, c, flat = self._between(self.fits, n)
        return minus_log_p(family, Fit(a, b, c, flat > 0.5), pivots)

    def threshold(self, rate: float, n: float) -> float:
        """What the largest term must exceed so that alarms open at `rate` a window; aims at SAFETY of it."""
        curve = self._between(self.opening_curves, n)
        return _along(-np.log(RATES), curve, -np.log(min(rate * SAFETY, RATES[0])))

    def p_value(self, largest: float, n: float) -> float:
        """Probability that a window in which nothing changed has a term as large as this."""
        curve = self._between(self.p_curves, n)
        return float(np.clip(np.exp(-_along(curve, -np.log(RATES), largest)), 1e-300, 1.0))


def _along(x: np.ndarray, y: np.ndarray, at: float) -> float:
    """Linear interpolation; beyond the last point along the last segment, at the first point and below it y[0]."""
    if at <= x[-1]:
        return float(np.interp(at, x, y))
    return float(y[-1] + (at - x[-1]) * (y[-1] - y[-2]) / max(x[-1] - x[-2], 1e-12))


@dataclass(frozen=True)
class Null:
    """A reference made ready for draws: codes, basis, joint block sums and dependence."""

    codes: np.ndarray  # int32 (rows, features): flat cells
    counts: np.ndarray  # float64 (cells,)
    family: Family
    joint: np.ndarray  # float32 (base blocks, joint features)
    n_pairs: int
    mmd_rows: int  # bound of the MMD sample of a window, 0 = off
    dependence: Dependence
    n_rows: int  # of the reference; `codes` may hold fewer, in runs

    def block(self, n_current: int) -> int:
        """Rows of a block: what is needed, at most a tenth of the reference and a quarter of a window."""
        if self.dependence.segments:
            return min(n_current, len(self.codes))
        return int(max(1, min(np.ceil(self.dependence.need), len(self.codes) // 10, -(-n_current // 4))))

    def resampler(self, n_current: int, seed: int) -> Resampler:
        """A source of null draws for windows of `n_current` rows."""
        block, segments = self.block(n_current), self.dependence.segments
        rows = Rows(self.codes, self.family.basis.grid.n_cells, self.joint, self.n_rows)
        return Resampler(rows, block=block, segments=segments, seed=seed)

    def widenings(self, n_current: int, n_drawn: int) -> np.ndarray:
        """λ of every term, (terms,): by how much windows are too narrow that are drawn `n_drawn` rows at a time."""
        family, block = self.family, self.block(n_drawn)
        out = np.ones(len(family.terms))
        if self.dependence.segments or block == 1:
            return out
        reference_block = max(block, base_rows(len(self.codes)))
        factors = {
            key: widening(series, n=n_current, reference=self.n_rows, block=block, reference_block=reference_block)
            for key, series in self.dependence.series.items()
        }
        widest = max((f for (_, what), f in factors.items() if what == "location"), default=1.0)
        for t, (j, detector) in enumerate(family.terms):
            what = detector if detector in ("scale", "missing") else "location"
            out[t] = factors.get((j, what), 1.0) if j < len(family.names) - 1 else widest
        return out

    def student(self, rng: np.random.Generator, n_draws: int) -> np.ndarray | None:
        """One factor √(ν/χ²_ν) a draw and feature, spread to the terms; None where the reference's spread is known."""
        need = max(self.dependence.need, 1.0)
        degrees = STUDENT * self.n_rows / need
        if self.dependence.segments:
            if self.dependence.periodic:
                return None
            degrees = max(degrees, 4.0)
        factors = np.sqrt(degrees / rng.chisquare(degrees, (n_draws, len(self.family.names))))
        return np.asarray(factors[:, self.family.feature])

    def joint_difference(self, draws: Draws, n_current: int, pair_sd: np.ndarray) -> JointDifference:
        """The joint features' differences of null draws; the MMD's spread is that of its sample, not of all rows."""
        off = draws.joint_current - draws.joint_reference
        n_sampled = min(n_current, self.mmd_rows)
        size, mmd_size = (1 / np.sqrt(1 / n + 1 / self.n_rows) for n in (n_current, max(n_sampled, 1)))
        correlation = off[:, : self.n_pairs] * (size / pair_sd)
        groups = np.split(off[:, self.n_pairs :], len(self.family.samples), axis=1) if self.family.samples else []
        mmd = tuple(2 * (group**2).mean(axis=1) * (size / mmd_size) ** 2 for group in groups)
        return JointDifference(correlation, mmd, (np.asarray(mmd_size),) * len(mmd))

    def skewed(self, n_current: int) -> np.ndarray:
        """Location terms whose mean over a window is visibly skewed: a rare value among many equal ones, (terms,)."""
        grid, z = self.family.basis.grid, self.family.basis.normal
        counts = self.counts[grid.n_special :]
        observed = np.maximum(np.add.reduceat(counts, grid.starts), 1)
        skewness = np.append(np.add.reduceat(counts * z**3, grid.starts) / observed, 0.0) / np.sqrt(n_current)
        located = self.family.detector == "location"
        return np.asarray(located & (np.abs(skewness[self.family.feature]) > SKEWED))

    def pair_sd(self, n_current: int, seed: int) -> np.ndarray:
        """√(n · variance of a pair's mean product) from blocks."""
        variance = self.resampler(n_current, seed).joint_variance[: self.n_pairs]
        return np.asarray(np.sqrt(np.maximum(variance, 1e-12)))


def with_cell_rms(null: Null, n_current: int, seed: int) -> Null:
    """The same with each cell's spread of deviance measured in 400 draws, and cells of too few rows left out."""
    basis, squares, n = null.family.basis, 0.0, 0
    for draws in null.resampler(n_current, seed).draws(400, n_current):
        roots = cells.roots(Contrast(basis, reference=draws.reference, current=draws.current))
        squares, n = squares + (roots.astype(np.float64) ** 2).sum(axis=0), n + len(roots)
    rms = np.maximum(1.0, np.sqrt(squares / n))
    need = null.dependence.of_feature[basis.grid.owner]
    rows = null.counts[basis.grid.n_special :]
    basis = replace(basis, cell_rms=np.where((need > 1) & (rows < 5 * need), np.inf, rms))
    return replace(null, family=replace(null.family, basis=basis))


def pivots(
    null: Null, draws: Iterator[Draws], n_current: int, pair_sd: np.ndarray, *, panes: int = 1
) -> Iterator[np.ndarray]:
    """Every term of each portion of null draws, widened, (draws, terms); a window was drawn pane by pane."""
    widenings = null.widenings(n_current, max(1, round(n_current / panes))).astype(np.float32)
    for portion in draws:
        contrast = Contrast(null.family.basis, reference=portion.reference, current=portion.current)
        joint = null.joint_difference(portion, n_current, pair_sd)
        yield null.family.pivots(contrast, joint) * widenings


def calibrate(
    null: Null, sizes: list[int], alarm: Alarm, *, seed: int = 0, progress: Callable[[float], None] = lambda _: None
) -> Calibration:
    """Null distributions for windows of each of the `sizes`; `progress` is told the share that is done."""
    fits, p_curves, opening_curves, pair_sds = [], [], [], []
    for i, n in enumerate(sizes):
        pair_sd = null.pair_sd(n, seed)
        pair_sds.append(pair_sd)
        first = null.resampler(n, seed + 1).draws(DRAWS_FIT, n)
        drawn = np.concatenate(list(pivots(null, first, n, pair_sd)))[:DRAWS_FIT]
        fitted = fit(null.family, drawn, null.skewed(n))
        progress((i + 0.2) / len(sizes))
        second = null.resampler(n, seed + 2).draws(DRAWS_THRESHOLD, n)
        curve = threshold_curve(np.concatenate(list(largest_terms(null, fitted, second, n, pair_sd))))
        curve = np.maximum(curve, exact_curve(null.family, drawn))
        fits.append(np.stack([fitted.a, fitted.b, fitted.c, fitted.flat]))
        p_curves.append(curve)
        if alarm != ONCE:
            curve = simulate_openings(null, fitted, n, pair_sd, alarm, seed, otherwise=curve)
        opening_curves.append(curve)
        progress((i + 1) / len(sizes))
    a, b, c, d = (np.stack(part) for part in (fits, p_curves, opening_curves, pair_sds))
    return Calibration(np.array(sizes, np.float64), fits=a, p_curves=b, opening_curves=c, pair_sds=d, alarm=alarm)


def largest_terms(
    null: Null, fitted: Fit, draws: Iterator[Draws], n_current: int, pair_sd: np.ndarray
) -> Iterator[np.ndarray]:
    """The window statistic, max over terms of −log p + log w, of each portion of null draws."""
    rng = np.random.default_rng(n_current)
    for values in pivots(null, draws, n_current, pair_sd):
        terms = minus_log_p(null.family, fitted, values, null.student(rng, len(values))) + null.family.log_weight
        yield terms.max(axis=1)


def simulate_openings(
    null: Null, fitted: Fit, n_current: int, pair_sd: np.ndarray, alarm: Alarm, seed: int, *, otherwise: np.ndarray
) -> np.ndarray:
    """Thresholds at RATES of alarms opened a window, from runs of consecutive windows against one pseudo-reference.

    Where no run opens an alarm (nothing in the reference ever moves) they are `otherwise`, those of single windows.
    """
    rng = np.random.default_rng(seed)
    pane_rows = max(1, round(n_current / alarm.panes))
    length = RUN_WINDOWS + alarm.panes - 1
    n_runs = DRAWS_THRESHOLD // RUN_WINDOWS
    windows = (rolling(run, alarm.panes) for run in null.resampler(pane_rows, seed).runs(n_runs, length, pane_rows))
    rows = []
    for values in pivots(null, windows, n_current, pair_sd, panes=alarm.panes):
        student = null.student(rng, 1)  # what the reference says of its spread is the same for the whole run
        rows.append((minus_log_p(null.family, fitted, values, student) + null.family.log_weight).max(axis=1))
    largest = np.array(rows)
    thresholds = np.unique(np.quantile(largest, 1 - np.geomspace(0.7, 2 / largest.size, 80)))
    rates = np.array([count_openings(largest > u, alarm.k, alarm.n).sum() / largest.size for u in thresholds])
    return opening_curve(thresholds, rates) if rates.any() else otherwise


def rolling(run: Draws, panes: int) -> Draws:
    """Windows as sums of `panes` panes each, one for every pane from the first full window on."""
    if panes == 1:
        return run
    kernel = np.lib.stride_tricks.sliding_window_view
    return replace(
        run,
        current=kernel(run.current, panes, axis=0).sum(axis=-1),
        joint_current=kernel(run.joint_current, panes, axis=0).mean(axis=-1),
    )

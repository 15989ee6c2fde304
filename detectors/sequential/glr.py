"""A scan over change points for losses in [0, 1], whose threshold keeps a budget of false alarms."""

from dataclasses import dataclass, field, replace
from math import inf

import numpy as np
import numpy.typing as npt

from detectors.score import Score
from detectors.sequential import blocks
from detectors.sequential.blocks import BLOCKS, KEPT, UNIT, Ints, Memory
from detectors.sequential.change import Answer, Change, Floats, as_rows, none_for_nan
from detectors.sequential.likelihood import least_sums, likelihood_ratio, statistic
from detectors.sequential.threshold import LAGS, N_LEVELS, level, thresholds

FEWEST_ROWS, MOST_ROWS = 256, 4096  # looked at together: ever more since the last start, as a change ends it


@dataclass(frozen=True, slots=True)
class Baseline:
    """The mean loss of the reference's `n` rows."""

    mean: float
    n: int

    def __post_init__(self) -> None:
        if not (0 <= self.mean <= 1 and self.n > 0):
            raise ValueError(
                f"`mean` must lie in [0, 1] and `n` be above 0; got {self.mean!r} and {self.n!r}. "
                "Pass the mean loss of the reference and its number of rows."
            )


@dataclass(frozen=True, slots=True)
class GLR:
    """Detects that the mean loss rose, since when and by how much, at a stated rate of false alarms.

    For every window of the last l rows, l = 8, 10, 12, 14, 16, 20, … 7,168, the generalised likelihood ratio

        G(l) = n₁ KL(p₁ ‖ p) + l KL(p₂ ‖ p),   KL(a ‖ b) = a log(a / b) + (1 − a) log((1 − a) / (1 − b)),

    of "the rate was p₁ in the n₁ rows before and is p₂ > p₁ in these l" against "it was p in all of them". A change is
    found when G(l) / φ ≥ h − log(l / 8) for some l; h follows from the budget (`threshold.level`), and φ, the losses'
    dispersion, from how the sums of neighbouring blocks differ (`blocks.dispersion`). Where φ > 1 neighbours are alike,
    and the ratio is at most that of a Markov chain with this φ (`likelihood.statistic`). Neither the rate before nor
    that after needs to be known: the first is learned from the rows since the last start, in which a loss that falls,
    as of a model that learns, does no harm; or it is the reference's. A window of l rows is looked at every l/14 to l/8
    rows. The change is dated to the boundary at which the likelihood is largest.

    It is blind to falls, to changes that keep the mean loss, and to rises too small or too slow for 7,168 rows. Losses
    that depend on others more than about 30 rows away need an `excess`, and those whose calm and bad times alternate a
    `skewness`, which a reference shows, or raise more false alarms than the budget allows.

    With a `baseline` the mean before is the reference's and not learned anew after a change: as long as the loss stays
    high the change is found again and again.

    Parameters
    ----------
    rows_per_false_alarm
        The budget: rows, on average, from a start to a false alarm while nothing changes, in [1e3, 1e15]. Raising it
        makes detection later, by its logarithm.
    baseline
        What the reference says; left out, the mean before is learned since the last start.
    dispersion
        φ before the rows themselves tell it, above 0: that of the reference (`blocks.dispersion_of`) where neighbouring
        losses are alike; after some hundred rows it hardly matters.
    excess
        By how much φ is larger than blocks of up to 64 rows show it, at least 1: where a reference says that losses
        depend on others farther away. Raising it makes all less significant.
    skewness
        By how much sums of l rows are more skewed than those of errors, × √l, at least 0: where a reference says so.
        Raising it makes short windows less significant.
    degrees
        Degrees of freedom of what is known of φ: lower ones make large statistics less significant, as in a t test.
    warm_up
        Rows before a window, at least; unused with a baseline. Raising it hides changes soon after a start.

    Cost: about 1 µs a row in batches of a thousand, half of it in longer ones; 3.6 kB of state.

    Calibration: tests/detectors/sequential/test_false_alarms.py measures the false alarms for several base rates.

    References: Lai (1998), Information bounds and quick detection of parameter changes in stochastic systems, IEEE
    Transactions on Information Theory 44 (window-limited GLR; we take a geometric grid of windows); Dümbgen & Spokoiny
    (2001), Annals of Statistics 29 (a threshold for each length); Wedderburn (1974), Biometrika 61 (the dispersion).

    >>> rng = np.random.default_rng(0)
    >>> losses = (rng.random(3000) < np.repeat([0.1, 0.3], [2000, 1000])).astype(float)
    >>> glr = GLR()
    >>> state, answer = glr.update(glr.init(), losses)
    >>> [(change.row, change.began_row) for change in answer.changes]
    [(2095, 1992)]

    See also: `river_detectors.ADWIN`, which also finds falls, without a budget.
    """

    rows_per_false_alarm: float = 400_000.0
    baseline: Baseline | None = None
    dispersion: float = 1.0
    excess: float = 1.0
    skewness: float = 0.0
    degrees: float = inf
    warm_up: int = 30
    _thresholds: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_thresholds", thresholds(self.rows_per_false_alarm))
        if not self.dispersion > 0:
            raise ValueError(
                f"`dispersion` must be above 0; got {self.dispersion!r}. Pass `blocks.dispersion_of` of the reference."
            )
        if not (self.excess >= 1 and self.skewness >= 0 and self.degrees > 0):
            got = f"{self.excess!r}, {self.skewness!r} and {self.degrees!r}"
            raise ValueError(
                f"`excess` must be at least 1, `skewness` at least 0 and `degrees` above 0; got {got}. "
                "Pass those of `LossBaseline.of` the reference."
            )
        if self.warm_up < 1:
            raise ValueError(f"`warm_up` must be at least 1; got {self.warm_up!r}. Pass rows.")

    @property
    def threshold(self) -> float:
        """What `score.statistic` must reach."""
        return level(self.rows_per_false_alarm)

    def init(self) -> Memory:
        """The state before the first row."""
        return blocks.started(0)

    def update(self, state: Memory, values: Floats, times_s: Floats | None = None) -> tuple[Memory, Answer]:
        """The state after these losses, and the changes in them; `values` in [0, 1], NaN where there is none.

        Raises ValueError for a loss outside [0, 1].
        """
        values, times = as_rows(values, times_s)
        finite = np.isfinite(values)
        losses = values[finite]
        if losses.size and not (losses.min() >= 0 and losses.max() <= 1):
            wrong = losses[(losses < 0) | (losses > 1)][0]
            raise ValueError(f"`values` must lie in [0, 1]; got {wrong}. Bring losses to [0, 1] with `ranks.Ranks`.")
        units = np.rint(losses * UNIT).astype(np.int64)
        rows, times = state.n_rows + np.flatnonzero(finite), times[finite]
        end = state.n_rows + len(values)
        changes: list[Change] = []
        at = 0
        while at < len(units):
            n_together = min(max(state.n, FEWEST_ROWS), MOST_ROWS)
            sums = state.total + np.cumsum(units[at : at + n_together])
            first = self._first_found(state, sums)
            until = at + (len(sums) if first is None else first[0] - state.n)
            state = blocks.advanced(state, sums[: until - at], rows[at : until + 1], times[at : until + 1])
            at = until
            if first is not None:
                changes.append(self._change(state, int(rows[at - 1]), float(times[at - 1]), first[1]))
                state = blocks.started(end)
        state = replace(state, n_rows=end)
        return state, Answer(tuple(changes), self._score(state), len(values) - len(losses))

    def to_bytes(self, state: Memory) -> bytes:
        """The state as bytes."""
        return blocks.to_bytes(state)

    def from_bytes(self, data: bytes) -> Memory:
        """The state that `to_bytes` wrote, bit for bit. Raises ValueError for anything else."""
        return blocks.from_bytes(data)

    def _before(self, counts: Ints, sums: Ints) -> tuple[Floats, Floats]:
        """Rows and summed loss before boundaries at which `counts` rows had come and their losses made `sums`."""
        if self.baseline is None:
            return counts.astype(np.float64), sums / UNIT
        n, mean = float(self.baseline.n), self.baseline.mean
        return np.full(counts.shape, n), np.full(counts.shape, n * mean)

    def _least(self) -> int:
        """Rows since the last start that a window needs before it."""
        return self.warm_up if self.baseline is None else 0

    def _first_found(self, state: Memory, sums: Ints) -> tuple[int, float] | None:
        """How many rows had come since the last start when the first change was found, and its statistic."""
        counts, levels, starts, ends = _windows(state, sums)
        ends_at = np.arange(state.n + 1, state.n + len(sums) + 1)
        scatter = self.excess * blocks.dispersion(state, sums, ends_at, self.dispersion)
        if self.baseline is None:
            may = self._may_rise(counts, levels, starts, ends, scatter[counts - state.n - 1])
        else:
            n, mean = float(self.baseline.n), self.baseline.mean
            may = ends - starts >= least_sums(n, n * mean, self._thresholds * scatter.min()).T[:, levels]
        m, i = np.nonzero(may)
        rows = LAGS[m] << levels[i]
        usable = counts[i] - rows >= self._least()
        if not usable.any():
            return None
        m, i, rows = m[usable], i[usable], rows[usable]
        before, n2, s2 = starts[m, i], rows.astype(np.float64), (ends[i] - starts[m, i]) / UNIT
        n1, s1 = self._before(counts[i] - rows, before)
        evidence = statistic(
            n1, s1, n2, s2, dispersion=scatter[counts[i] - state.n - 1], skewness=self.skewness, degrees=self.degrees
        )
        reached = evidence >= self._thresholds[levels[i], m]
        if not reached.any():
            return None
        first = counts[i[reached]].min()
        here = reached & (counts[i] == first)
        return int(first), float((evidence + np.log(n2 / LAGS[0]))[here].max())

    def _may_rise(self, counts: Ints, levels: Ints, starts: Ints, ends: Ints, scatter: Floats) -> npt.NDArray[np.bool_]:
        """(lags, windows): whether χ² reaches the threshold, which is never below the ratio and takes no logarithm."""
        rows = LAGS[:, None] << levels
        n1, s1 = self._before(counts - rows, starts)
        n2, s2 = rows.astype(np.float64), (ends - starts) / UNIT
        n, s, rise = n1 + n2, s1 + s2, s2 * n1 - s1 * n2
        least = self._thresholds.T[:, levels] * scatter
        return np.asarray((rise > 0) & (rise * rise * n >= least * s * (n - s) * n1 * n2))

    def _change(self, state: Memory, row: int, time_s: float, evidence: float) -> Change:
        """The change that was found with the newest row: its most likely beginning among the boundaries kept."""
        counts = blocks.counts(state)
        n1, s1 = self._before(counts, state.sums)
        n2, s2 = (state.n - counts).astype(np.float64), (state.total - state.sums) / UNIT
        usable = (counts >= self._least()) & (n2 > 0)
        ratio = np.where(usable, 0.0, -1.0)
        ratio[usable] = likelihood_ratio(n1[usable], s1[usable], n2[usable], s2[usable])
        best = np.unravel_index(np.argmax(ratio), ratio.shape)
        return Change(
            row=row,
            began_row=int(state.rows[best]),
            time_s=none_for_nan(time_s),
            began_time_s=none_for_nan(state.times_s[best]),
            before=float(s1[best] / n1[best]),
            after=float(s2[best] / n2[best]),
            statistic=evidence,
        )

    def _score(self, state: Memory) -> Score:
        """The newest windows of all lengths: the largest statistic + log(l / 8), 0 where none has risen."""
        ends, starts = state.sums[:, -1:], state.sums[:, KEPT - 1 - LAGS]
        n_since = (state.n // BLOCKS - LAGS) * BLOCKS
        usable = n_since >= self._least()
        if not usable.any():
            n = state.n if self.baseline is None else self.baseline.n
            return Score("glr", None, None, None, n, 0, verdict="undetermined", reason="warm_up")
        n1, s1 = self._before(n_since[usable], starts[usable])
        n2, s2 = (LAGS * BLOCKS)[usable].astype(np.float64), (ends - starts)[usable] / UNIT
        scatter = self.excess * blocks.newest_dispersion(state, self.dispersion)
        evidence = statistic(n1, s1, n2, s2, dispersion=scatter, skewness=self.skewness, degrees=self.degrees)
        evidence = np.where(evidence > 0, evidence + np.log(n2 / LAGS[0]), 0.0)
        evidence = np.minimum(evidence, np.nextafter(self.threshold, 0.0))  # looked at when φ was another: not found
        best = int(np.argmax(evidence))
        rise = float(s2[best] / n2[best] - s1[best] / n1[best])
        return Score("glr", float(evidence[best]), None, rise, int(n1[best]), int(n2[best]))


def _windows(state: Memory, sums: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """The windows that end in the new rows, of all levels, side by side.

    (windows,): rows since the last start at their ends, and their level; (lags, windows): the sums at their starts;
    (windows,): those at their ends.
    """
    n_until = state.n + len(sums)
    n_new = np.array([(n_until >> j) - (state.n >> j) for j in range(N_LEVELS)])
    levels = np.repeat(np.arange(N_LEVELS), n_new)
    counts, ends = np.empty((2, len(levels)), np.int64)
    starts = np.empty((len(LAGS), len(levels)), np.int64)
    at = 0
    for j in range(int(np.count_nonzero(n_new))):
        block, until = 1 << j, at + int(n_new[j])
        first = (state.n // block + 1) * block
        counts[at:until] = np.arange(first, n_until + 1, block)
        ends[at:until] = sums[first - state.n - 1 :: block]
        line = np.concatenate([state.sums[j], ends[at:until]])
        for row, lag in enumerate(LAGS.tolist()):
            starts[row, at:until] = line[KEPT - lag : len(line) - lag]
        at = until
    return counts, levels, starts, ends

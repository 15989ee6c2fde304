"""A scan over change points for losses in [0, 1], whose threshold keeps a budget of false alarms."""

import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from detectors.score import Score
from detectors.sequential.change import Answer, Change, Floats, as_rows, none_for_nan
from detectors.sequential.threshold import LAGS, N_LEVELS, level, thresholds

Ints = npt.NDArray[np.int64]

UNIT = 1 << 24  # a loss is counted in units of 2⁻²⁴: sums of integers do not depend on how the rows were split
KEPT = int(LAGS[-1]) + 1  # boundaries a level: the newest and those that its longest window needs
CHUNK_ROWS = 4096
FORMAT = b"glr1"
HEAD = struct.Struct("<4s3q")


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


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """What the scan remembers: the sums since its last start at the boundaries of blocks of 1, 2, 4, … 512 rows.

    Line j holds boundaries of blocks of 2^j rows, the newest last. Those before the start hold 0 and are not used.
    `rows` and `times_s` are those of the first row after the boundary, −1 and NaN as long as it has not come.
    """

    n_rows: int  # handed in, ever
    n: int  # finite losses since the last start
    total: int  # their sum, in units
    sums: Ints  # (levels, KEPT)
    rows: Ints
    times_s: Floats


@dataclass(frozen=True, slots=True)
class GLR:
    """Detects that the mean loss rose, since when and by how much, at a stated rate of false alarms.

    For every window of the last l rows, l = 8, 10, 12, 14, 16, 20, … 7,168, the generalised likelihood ratio

        G(l) = n₁ KL(p₁ ‖ p) + l KL(p₂ ‖ p),   KL(a ‖ b) = a log(a / b) + (1 − a) log((1 − a) / (1 − b)),

    of "the rate was p₁ in the n₁ rows before and is p₂ > p₁ in these l" against "it was p in all of them". A change is
    found when G(l) / dispersion ≥ h − log(l / 8) for some l; h follows from the budget (`threshold.level`). Neither the
    rate before nor that after needs to be known: the first is learned from the rows since the last start, in which a
    loss that falls, as of a model that learns, does no harm; or it is the reference's. A window of l rows is looked at
    every l/14 to l/8 rows. The change is dated to the boundary at which the likelihood is largest.

    It is blind to falls, to changes of the losses' shape that keep their mean, and to rises too small or too slow for
    7,168 rows. Losses that depend on their neighbours raise more false alarms than the budget allows; the `dispersion`
    of a reference (`losses.dispersion`) corrects for that.

    With a `baseline` the mean before is the reference's and not learned anew after a change: as long as the loss stays
    high the change is found again.

    Parameters
    ----------
    rows_per_false_alarm
        The budget: rows, on average, from a start to a false alarm while nothing changes, in [1e3, 1e9]. Raising it
        makes detection later, by the logarithm.
    baseline
        The reference's mean loss; left out, it is learned since the last start.
    dispersion
        Variance of the losses ÷ p(1 − p), above 0: 1 for independent 0/1 errors, less for losses inside [0, 1], more
        where neighbours are alike.
    warm_up
        Rows before a window, at least; unused with a baseline. Raising it hides changes soon after a start.

    Cost: .3 µs a row in batches of a thousand; 3.6 kB of state.

    Calibration: tests/detectors/sequential/test_threshold.py measures the false alarms for five base rates.

    References: Lai (1998), Information bounds and quick detection of parameter changes in stochastic systems, IEEE
    Transactions on Information Theory 44 (window-limited GLR; we take a geometric grid of windows); Dümbgen & Spokoiny
    (2001), Annals of Statistics 29 (a threshold for each length); Wedderburn (1974), Biometrika 61 (the dispersion).

    >>> rng = np.random.default_rng(0)
    >>> losses = (rng.random(3000) < np.repeat([0.1, 0.3], [2000, 1000])).astype(float)
    >>> glr = GLR()
    >>> state, answer = glr.update(glr.init(), losses)
    >>> [(change.row, change.began_row) for change in answer.changes]
    []

    See also: `river_detectors.ADWIN`, which also finds falls, without a budget.
    """

    rows_per_false_alarm: float = 400_000.0
    baseline: Baseline | None = None
    dispersion: float = 1.0
    warm_up: int = 30
    _thresholds: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_thresholds", thresholds(self.rows_per_false_alarm) * self.dispersion)
        if not self.dispersion > 0:
            raise ValueError(
                f"`dispersion` must be above 0; got {self.dispersion!r}. Pass the variance of the losses ÷ p(1 − p)."
            )
        if self.warm_up < 1:
            raise ValueError(f"`warm_up` must be at least 1; got {self.warm_up!r}. Pass rows.")

    def init(self) -> Memory:
        """The state before the first row."""
        return _started(0)

    def update(self, state: Memory, values: Floats, times_s: Floats | None = None) -> tuple[Memory, Answer]:
        """The state after these losses, and the changes in them; `values` in [0, 1], NaN where there is none.

        Raises ValueError for a loss outside [0, 1].
        """
        values, times = as_rows(values, times_s)
        finite = np.isfinite(values)
        losses = values[finite]
        if losses.size and not (losses.min() >= 0 and losses.max() <= 1):
            wrong = losses[(losses < 0) | (losses > 1)][0]
            raise ValueError(f"`values` must lie in [0, 1]; got {wrong}. Bring losses to [0, 1] with `losses.Ranks`.")
        units = np.rint(losses * UNIT).astype(np.int64)
        rows, times = state.n_rows + np.flatnonzero(finite), times[finite]
        end = state.n_rows + len(values)
        changes: list[Change] = []
        at = 0
        while at < len(units):
            chunk = slice(at, at + CHUNK_ROWS)
            sums = state.total + np.cumsum(units[chunk])
            n_until = self._first_found(state, sums)
            stop = len(sums) if n_until is None else n_until - state.n
            found = slice(at, at + stop)
            after = rows[found.stop : found.stop + 1], times[found.stop : found.stop + 1]
            state = _advanced(state, sums[:stop], np.append(rows[found], after[0]), np.append(times[found], after[1]))
            at += stop
            if n_until is not None:
                changes.append(self._change(state, int(rows[at - 1]), float(times[at - 1])))
                state = _started(0)
        state = Memory(end, state.n, state.total, state.sums, state.rows, state.times_s)
        return state, Answer(tuple(changes), self._score(state), len(values) - len(losses))

    def _before(self, counts: Ints, sums: Ints) -> tuple[Floats, Floats]:
        """Rows and summed loss before boundaries at which `counts` rows had come and their losses made `sums`."""
        if self.baseline is None:
            return counts.astype(np.float64), sums / UNIT
        n, mean = float(self.baseline.n), self.baseline.mean
        return np.full(counts.shape, n), np.full(counts.shape, n * mean)

    def _least(self) -> int:
        """Rows since the last start that a window needs before it."""
        return self.warm_up if self.baseline is None else 0

    def _first_found(self, state: Memory, sums: Ints) -> int | None:
        """How many rows had come since the last start when the first change was found; None where there is none."""
        counts, blocks, starts, ends, least = self._windows(state, sums)
        n_since = counts - LAGS[:, None] * blocks
        n1, s1 = self._before(n_since, starts)
        n2, s2 = (LAGS[:, None] * blocks).astype(np.float64), (ends - starts) / UNIT
        n, s, rise = n1 + n2, s1 + s2, s2 * n1 - s1 * n2
        # χ² is never below the likelihood ratio, and it takes no logarithm
        may = (rise > 0) & (rise * rise * n >= least * s * (n - s) * n1 * n2) & (n_since >= self._least())
        m, i = np.nonzero(may)
        reached = likelihood_ratio(n1[m, i], s1[m, i], n2[m, i], s2[m, i]) >= least[m, i]
        return int(counts[i[reached]].min()) if reached.any() else None

    def _windows(self, state: Memory, sums: Ints) -> tuple[Ints, Ints, Ints, Ints, Floats]:
        """The windows that end in the new rows, of all levels, side by side.

        (windows,): rows since the last start at their ends, their block, the sums at their ends; (lags, windows): the
        sums at their starts and what the likelihood ratio must reach.
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
        return counts, 1 << levels, starts, ends, self._thresholds.T[:, levels]

    def _change(self, state: Memory, row: int, time_s: float) -> Change:
        """The change that was found with the newest row: its most likely beginning among the boundaries kept."""
        counts = _counts(state)
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
        )

    def _score(self, state: Memory) -> Score:
        """The newest windows of all lengths: the largest G / dispersion + log(l / 8), 0 where none has risen."""
        blocks = 1 << np.arange(N_LEVELS)[:, None]
        ends = state.sums[:, -1:]
        starts = state.sums[:, KEPT - 1 - LAGS]
        n_since = state.n // blocks * blocks - LAGS * blocks
        usable = n_since >= self._least()
        n_rows = state.n if self.baseline is None else self.baseline.n
        if not usable.any():
            reason = "warm_up"
            return Score("glr", None, None, None, n_rows, 0, verdict="undetermined", reason=reason)
        n1, s1 = self._before(n_since[usable], starts[usable])
        n2, s2 = (LAGS * blocks)[usable].astype(np.float64), ((ends - starts)[usable]) / UNIT
        ratio = likelihood_ratio(n1, s1, n2, s2)
        statistic = np.where(ratio > 0, ratio / self.dispersion + np.log(n2 / LAGS[0]), 0.0)
        best = int(np.argmax(statistic))
        rise = float(s2[best] / n2[best] - s1[best] / n1[best])
        return Score("glr", float(statistic[best]), None, rise, int(n1[best]), int(n2[best]))

    @property
    def threshold(self) -> float:
        """What `score.statistic` must reach."""
        return level(self.rows_per_false_alarm)

    def to_bytes(self, state: Memory) -> bytes:
        """The state as bytes."""
        head = HEAD.pack(FORMAT, state.n_rows, state.n, state.total)
        arrays = (state.sums.astype("<i8"), state.rows.astype("<i8"), state.times_s.astype("<f8"))
        return b"".join([head, *(array.tobytes() for array in arrays)])

    def from_bytes(self, data: bytes) -> Memory:
        """The state that `to_bytes` wrote, bit for bit. Raises ValueError for anything else."""
        size = N_LEVELS * KEPT * 8
        if len(data) != HEAD.size + 3 * size or data[:4] != FORMAT:
            raise ValueError(
                f"`data` must be {HEAD.size + 3 * size} bytes that begin with {FORMAT!r}; "
                f"got {len(data)} that begin with {data[:4]!r}. Pass what `to_bytes` wrote."
            )
        _, n_rows, n, total = HEAD.unpack_from(data)
        sums, rows, times = (
            np.frombuffer(data, kind, N_LEVELS * KEPT, HEAD.size + i * size).reshape(N_LEVELS, KEPT)
            for i, kind in enumerate(("<i8", "<i8", "<f8"))
        )
        return Memory(n_rows, n, total, sums.astype(np.int64), rows.astype(np.int64), times.astype(np.float64))


def likelihood_ratio(n1: Floats, s1: Floats, n2: Floats, s2: Floats) -> Floats:
    """G of two Bernoulli samples with sums s1 of n1 and s2 of n2 rows; 0 where the second mean is not the larger."""
    ratio = _likelihood(n1, s1) + _likelihood(n2, s2) - _likelihood(n1 + n2, s1 + s2)
    return np.where(s2 * n1 > s1 * n2, np.maximum(ratio, 0.0), 0.0)


def _likelihood(n: Floats, s: Floats) -> Floats:
    """Largest log likelihood of s ones among n: s log(s / n) + (n − s) log(1 − s / n)."""
    inside = (s > 0) & (s < n)
    p = np.where(inside, s, 0.5 * n) / n
    return np.where(inside, s * np.log(p) + (n - s) * np.log1p(-p), 0.0)


def _counts(state: Memory) -> Ints:
    """(levels, KEPT): rows since the last start at every boundary; negative for those before it."""
    blocks = 1 << np.arange(N_LEVELS)[:, None]
    return (state.n // blocks + np.arange(1 - KEPT, 1)) * blocks


def _started(n_rows: int) -> Memory:
    """Nothing remembered but the boundary at the start."""
    shape = (N_LEVELS, KEPT)
    return Memory(n_rows, 0, 0, np.zeros(shape, np.int64), np.full(shape, -1), np.full(shape, np.nan))


def _advanced(state: Memory, sums: Ints, rows: Ints, times_s: Floats) -> Memory:
    """The state with the sums after further rows; `rows` and `times_s` may have that of one row more."""
    kept_sums, kept_rows, kept_times = state.sums.copy(), state.rows.copy(), state.times_s.copy()
    next_rows = np.append(rows[1:], np.full(len(sums) + 1 - len(rows), -1))
    next_times = np.append(times_s[1:], np.full(len(sums) + 1 - len(rows), np.nan))
    for j in range(N_LEVELS):
        block = 1 << j
        if state.n % block == 0:
            kept_rows[j, -1], kept_times[j, -1] = rows[0], times_s[0]
        first = (state.n // block + 1) * block - state.n - 1
        if first < len(sums):
            for kept, new in ((kept_sums, sums), (kept_rows, next_rows), (kept_times, next_times)):
                kept[j] = np.concatenate([kept[j], new[first::block][-KEPT:]])[-KEPT:]
    return Memory(state.n_rows, state.n + len(sums), int(sums[-1]), kept_sums, kept_rows, kept_times)

"""The memory of the scan: summed losses at the boundaries of blocks of 1, 2, 4, … 512 rows, and how they scatter."""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.sequential.change import Floats
from detectors.sequential.threshold import LAGS, N_LEVELS

Ints = npt.NDArray[np.int64]

UNIT = 1 << 24  # a loss is counted in units of 2⁻²⁴: sums of integers do not depend on how the rows were split
KEPT = int(LAGS[-1]) + 1  # boundaries a level: the newest and those that its longest window needs
BLOCKS = 1 << np.arange(N_LEVELS)[:, None]

SCATTER_LEVELS = (3, 6)  # blocks of 8 and of 64 rows
PRIOR_BLOCKS = (64.0, 16.0)  # as many blocks' worth of trust in the dispersion assumed before the first row
LEAST_DISPERSION = 0.1

FORMAT = b"glr1"
HEAD = struct.Struct("<4s3q2d")


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """What the scan remembers since its last start.

    Line j holds boundaries of blocks of 2^j rows, the newest last. Those before the start hold 0 and are not used.
    `rows` and `times_s` are those of the first row after the boundary, −1 and NaN as long as it has not come.
    """

    n_rows: int  # handed in, ever
    n: int  # finite losses since the last start
    total: int  # their sum, in units
    sums: Ints  # (levels, KEPT)
    rows: Ints
    times_s: Floats
    scatter: tuple[float, float]  # Σ (difference of neighbouring blocks' sums)² ÷ (2 × rows), of SCATTER_LEVELS


def started(n_rows: int) -> Memory:
    """Nothing remembered but the boundary at the start."""
    shape = (N_LEVELS, KEPT)
    return Memory(n_rows, 0, 0, np.zeros(shape, np.int64), np.full(shape, -1), np.full(shape, np.nan), (0.0, 0.0))


def counts(memory: Memory) -> Ints:
    """(levels, KEPT): rows since the last start at every boundary; negative for those before it."""
    return (memory.n // BLOCKS + np.arange(1 - KEPT, 1)) * BLOCKS


def advanced(memory: Memory, sums: Ints, rows: Ints, times_s: Floats) -> Memory:
    """The memory after further rows.

    `sums` are those since the last start, (n,). `rows` and `times_s` may have one row more, the next, where it is here.
    """
    kept_sums, kept_rows, kept_times = memory.sums.copy(), memory.rows.copy(), memory.times_s.copy()
    n_missing = len(sums) + 1 - len(rows)
    next_rows = np.append(rows[1:], np.full(n_missing, -1))
    next_times = np.append(times_s[1:], np.full(n_missing, np.nan))
    for j in range(N_LEVELS):
        block = 1 << j
        if memory.n % block == 0:
            kept_rows[j, -1], kept_times[j, -1] = rows[0], times_s[0]
        first = (memory.n // block + 1) * block - memory.n - 1
        if first < len(sums):
            for kept, new in ((kept_sums, sums), (kept_rows, next_rows), (kept_times, next_times)):
                kept[j] = np.concatenate([kept[j], new[first::block][-KEPT:]])[-KEPT:]
    short, long = (float(scatter(memory, sums, k)[-1]) for k in range(2))
    n, total = memory.n + len(sums), int(sums[-1])
    return Memory(memory.n_rows, n, total, kept_sums, kept_rows, kept_times, (short, long))


def scatter(memory: Memory, sums: Ints, k: int) -> Floats:
    """The scatter of blocks of SCATTER_LEVELS[k] before further rows and at the end of each block in them."""
    level = SCATTER_LEVELS[k]
    block = 1 << level
    n_before = memory.n >> level
    ends = sums[(n_before + 1) * block - memory.n - 1 :: block]
    boundaries = np.concatenate([memory.sums[level, -2:], ends])
    squares = (np.diff(boundaries, n=2) / UNIT) ** 2 / (2 * block)
    if n_before == 0:
        squares[:1] = 0.0  # the first block has no neighbour before it
    return np.cumsum(np.concatenate([[memory.scatter[k]], squares]))


def dispersion(memory: Memory, sums: Ints, at: Ints, prior: float) -> Floats:
    """Variance of the losses ÷ p(1 − p) after `at` rows since the last start, each of them in (memory.n, the newest].

    1 for independent 0/1 errors, less for losses inside [0, 1] or errors that alternate, more where neighbours are
    alike. From differences of neighbouring blocks, which neither a slow fall nor one jump of the mean disturbs much
    (von Neumann); the larger of what blocks of 8 and of 64 rows say. With few blocks, or few errors, it stays near
    `prior`: the square of a difference of two Poisson counts of mean μ scatters by 2 + 1/μ times its own square.

    References: von Neumann (1941), Distribution of the ratio of the mean square successive difference to the variance,
    Annals of Mathematical Statistics 12.
    """
    short, long = (scatter(memory, sums, k)[(at >> j) - (memory.n >> j)] for k, j in enumerate(SCATTER_LEVELS))
    return _dispersion(at, sums[at - memory.n - 1], (short, long), prior)


def dispersion_of(losses: Floats) -> float:
    """The dispersion of a reference's losses in [0, 1], in the order of time; what is not finite is left out."""
    values = np.asarray(losses, np.float64)
    units = np.rint(values[np.isfinite(values)] * UNIT).astype(np.int64)
    return float(dispersion(started(0), np.cumsum(units), np.array([len(units)]), 1.0)[0]) if units.size else 1.0


def newest_dispersion(memory: Memory, prior: float) -> Floats:
    """(1,): the dispersion after the newest row."""
    n, total = np.array([memory.n]), np.array([memory.total])
    short, long = np.array(memory.scatter)[:, None]
    return _dispersion(n, total, (short, long), prior)


def _dispersion(n: Ints, total: Ints, seen: tuple[Floats, Floats], prior: float) -> Floats:
    """From rows since the last start, their summed loss and the two scatters, (k,) each."""
    p = total / (UNIT * n)
    variance = np.maximum(p * (1 - p), 1e-12)
    found = np.full(len(n), LEAST_DISPERSION)
    for scattered, j, weight in zip(seen, SCATTER_LEVELS, PRIOR_BLOCKS, strict=True):
        errors = 2 * variance * (1 << j)
        trust = errors / (1 + errors)  # a block that is expected to hold no error tells nothing of how they scatter
        estimate = (weight * prior + trust * scattered / variance) / (weight + trust * np.maximum((n >> j) - 1, 0))
        found = np.maximum(found, estimate)
    return found


def to_bytes(memory: Memory) -> bytes:
    """The memory as bytes."""
    head = HEAD.pack(FORMAT, memory.n_rows, memory.n, memory.total, *memory.scatter)
    arrays = (memory.sums.astype("<i8"), memory.rows.astype("<i8"), memory.times_s.astype("<f8"))
    return b"".join([head, *(array.tobytes() for array in arrays)])


def from_bytes(data: bytes) -> Memory:
    """What `to_bytes` wrote, bit for bit. Raises ValueError for anything else."""
    size = N_LEVELS * KEPT * 8
    if len(data) != HEAD.size + 3 * size or data[:4] != FORMAT:
        raise ValueError(
            f"`data` must be {HEAD.size + 3 * size} bytes that begin with {FORMAT!r}; "
            f"got {len(data)} that begin with {data[:4]!r}. Pass what `to_bytes` wrote."
        )
    _, n_rows, n, total, short, long = HEAD.unpack_from(data)
    sums, rows, times = (
        np.frombuffer(data, kind, N_LEVELS * KEPT, HEAD.size + i * size).reshape(N_LEVELS, KEPT)
        for i, kind in enumerate(("<i8", "<i8", "<f8"))
    )
    whole = sums.astype(np.int64), rows.astype(np.int64), times.astype(np.float64)
    return Memory(n_rows, n, total, *whole, (short, long))

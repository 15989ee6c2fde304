"""Summaries that add: a window as counts over a grid that the reference fixed, sums, and sums over a bounded sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

LEVELS = 24  # a sample may thin itself to one row in 2^23
MOST_WAITING = 1 << 20  # bytes of the rows of a sample whose features are not computed yet


Rows = Callable[[np.ndarray], np.ndarray]
"""Takes out the rows at some places, in their order."""

Features = Callable[[np.ndarray], np.ndarray]
"""The features of some rows, (rows, features)."""


@dataclass(slots=True)
class Sample:
    """Sums of a row's features over at most `bound` rows, chosen by a hash of each row's id.

    A row's level is the number of leading zero bits of its hash: half the rows are of level 0, a quarter of level 1 …
    Kept are the rows of level `level` and above; the level rises whenever they exceed the bound. What is kept depends
    on the rows alone, never on their order or on how they came in batches, and two samples merge exactly.

    Features are computed when `sums` are asked for, of all rows together: most rows that are kept at first go again as
    the level rises.
    """

    bound: int
    level: int
    counts: np.ndarray  # int64, (levels,)
    _sums: np.ndarray  # float64, (levels, features)
    _waiting: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # levels (rows,), rows (rows, …)
    _features: Features | None = None

    @classmethod
    def empty(cls, bound: int, n_features: int) -> "Sample":
        """A sample of no row."""
        return cls(bound, 0, np.zeros(LEVELS, np.int64), np.zeros((LEVELS, n_features)))

    @property
    def sums(self) -> np.ndarray:
        """Of the features of the rows of each level, float64 (levels, features)."""
        if self._waiting:
            self._settle()
        return self._sums

    def add(self, keys: np.ndarray, rows: Rows, features: Features | None = None) -> None:
        """Adds rows by their 32-bit keys. `rows(kept)` takes out those that are kept.

        `features` computes (rows, features) of what was taken out, the same in every call; None: they are that.
        """
        levels = levels_of(keys)
        self.counts += np.bincount(levels, minlength=LEVELS)
        self._thin()
        kept = np.flatnonzero(levels >= self.level)
        if len(kept):
            self._waiting.append((levels[kept], rows(kept)))
            self._features = features
            if sum(some.nbytes for _, some in self._waiting) > MOST_WAITING:
                self._settle()

    def _settle(self) -> None:
        """Computes the features of the rows that wait and are still kept.

        Each batch is summed for itself, so that it does not matter to the last bit when the sums are asked for.
        """
        levels, rows = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        batches = np.repeat(np.arange(len(self._waiting)), [len(some) for some, _ in self._waiting])
        self._waiting = []
        order = np.lexsort((levels, batches))
        order = order[levels[order] >= self.level]
        if not len(order):
            return
        features = rows[order] if self._features is None else self._features(rows[order])
        groups = batches[order] * LEVELS + levels[order]
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        sums, at = np.add.reduceat(features, starts, axis=0, dtype=np.float64), groups[starts]
        for some in np.split(np.arange(len(at)), np.flatnonzero(np.diff(at // LEVELS)) + 1):
            self._sums[at[some] % LEVELS] += sums[some]

    def _thin(self) -> None:
        self.counts[: self.level] = 0
        while self.counts.sum() > self.bound:
            self.counts[self.level] = 0
            self.level += 1
        self._sums[: self.level] = 0

    @property
    def n(self) -> int:
        """Rows kept."""
        return int(self.counts.sum())

    def merge(self, other: "Sample") -> None:
        """Adds the rows of another sample of the same bound."""
        self.level = max(self.level, other.level)
        self.counts += other.counts
        self._sums = self.sums + other.sums
        self._thin()

    def copy(self) -> "Sample":
        """An independent copy."""
        return Sample(self.bound, self.level, self.counts.copy(), self.sums.copy())


def levels_of(keys: np.ndarray) -> np.ndarray:
    """Leading zero bits of a mixed 32-bit key, at most LEVELS − 1 (Murmur's finaliser spreads what crc32 left)."""
    h = keys.astype(np.uint32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return np.asarray(np.minimum(32 - np.frexp(h.astype(np.float64))[1], LEVELS - 1))


_WORDS = ("<i8", "<f8", "<f8")  # of counts, sums and outcome


@dataclass(slots=True)
class Table:
    """Counts over the cells of a grid, sums, and samples; two tables of one grid merge by `+`, in any order.

    `outcome`: sums of predictions against labels, of the profile's tally, empty where no label is asked for.
    `figures`: more sums, each under a number of its own. Of two tables either may lack some of both.
    """

    counts: np.ndarray  # int64, (cells,)
    sums: np.ndarray  # float64, (sums,)
    samples: tuple[Sample, ...] = ()
    outcome: np.ndarray = field(default_factory=lambda: np.zeros(0))  # float64, (outcome sums,)
    figures: dict[int, np.ndarray] = field(default_factory=dict)  # float64, each (sums,)

    def __add__(self, other: "Table") -> "Table":
        samples, figures = tuple(s.copy() for s in self.samples), {key: v.copy() for key, v in self.figures.items()}
        merged = Table(self.counts.copy(), self.sums.copy(), samples, self.outcome.copy(), figures)
        merged += other
        return merged

    def __iadd__(self, other: "Table") -> "Table":
        self.counts += other.counts
        self.sums += other.sums
        self.add_outcome(other.outcome)
        for sample, theirs in zip(self.samples, other.samples, strict=True):
            sample.merge(theirs)
        for key, sums in other.figures.items():
            self.add_figures(key, sums)
        return self

    def add_outcome(self, sums: np.ndarray) -> None:
        """Adds sums of predictions against labels."""
        if not self.outcome.size:
            self.outcome = sums.copy()
        elif sums.size:
            self.outcome += sums

    def add_figures(self, key: int, sums: np.ndarray) -> None:
        """Adds sums under a number."""
        before = self.figures.get(key)
        self.figures[key] = sums.copy() if before is None else before + sums

    def to_bytes(self) -> bytes:
        """Lengths, then the arrays, all little-endian; of a sample only levels that hold rows; last the figures."""
        head = [self.counts.size, self.sums.size, self.outcome.size, len(self.samples)]
        parts: list[np.ndarray] = [
            a.astype(t) for a, t in zip((self.counts, self.sums, self.outcome), _WORDS, strict=True)
        ]
        for s in self.samples:
            held = np.flatnonzero(s.counts)
            head += [s.bound, s.level, s.sums.shape[1], len(held)]
            parts += [held.astype("<i8"), s.counts[held].astype("<i8"), s.sums[held].astype("<f8")]
        for key, sums in sorted(self.figures.items()):
            parts += [np.array([key, len(sums)], "<i8"), sums.astype("<f8")]
        return np.array(head, "<i8").tobytes() + b"".join(part.tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Table":
        """The inverse of `to_bytes`."""
        *lengths, n_samples = np.frombuffer(data, "<i8", 4).tolist()
        heads = np.frombuffer(data, "<i8", 4 * n_samples, 32).reshape(n_samples, 4)
        words = np.frombuffer(data, "<i8", offset=32 + heads.nbytes)
        counts, sums, outcome, rest = np.split(words, np.cumsum(lengths))
        samples = []
        for bound, level, width, n_held in heads.tolist():
            held, of_level, values, rest = np.split(rest, np.cumsum([n_held, n_held, n_held * width]))
            sample = Sample.empty(bound, width)
            sample.level = level
            sample.counts[held] = of_level
            sample.sums[held] = values.view("<f8").reshape(n_held, width)
            samples.append(sample)
        sums, outcome = (part.view("<f8").astype(np.float64) for part in (sums, outcome))
        figures = {}
        while len(rest):
            (key, n), rest = rest[:2].tolist(), rest[2:]
            figures[key], rest = rest[:n].view("<f8").astype(np.float64), rest[n:]
        return cls(counts.astype(np.int64), sums, tuple(samples), outcome, figures)


def total(tables: Sequence[Table]) -> Table:
    """The merger of at least one table."""
    merged = tables[0] + tables[1] if len(tables) > 1 else Table.from_bytes(tables[0].to_bytes())
    for table in tables[2:]:
        merged += table
    return merged

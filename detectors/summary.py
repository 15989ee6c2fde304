"""Summaries that add: a window as counts over a grid that the reference fixed, and sums."""

from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Table:
    """Counts over the cells of a grid, and sums; two tables of one grid merge by `+`, exactly and in any order."""

    counts: np.ndarray  # int64, (..., cells)
    sums: np.ndarray  # float64, (..., sums)

    def __add__(self, other: "Table") -> "Table":
        return Table(self.counts + other.counts, self.sums + other.sums)

    def __iadd__(self, other: "Table") -> "Table":
        self.counts += other.counts
        self.sums += other.sums
        return self

    def to_bytes(self) -> bytes:
        """Both arrays, little-endian, behind their lengths."""
        head = np.array([self.counts.size, self.sums.size], "<i8")
        return head.tobytes() + self.counts.astype("<i8").tobytes() + self.sums.astype("<f8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Table":
        """The inverse of `to_bytes`."""
        n_counts, n_sums = (int(n) for n in np.frombuffer(data, "<i8", 2))
        counts = np.frombuffer(data, "<i8", n_counts, 16).astype(np.int64)
        return cls(counts, np.frombuffer(data, "<f8", n_sums, 16 + 8 * n_counts).astype(np.float64))

"""The grid of cells on which rows are counted: fixed by the reference, never by what is compared with it.

A feature has three special cells (missing, invalid, unseen) and at least one regular cell. In the flat vector of all
cells the special ones of all features come first, three by three, then the regular ones, feature by feature.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from zlib import crc32

import numpy as np

MISSING, INVALID, UNSEEN = 0, 1, 2
SPECIAL = 3
QUANTILES = 64  # regular cells of a continuous feature between its extremes
TAILS = (0.0005, 0.002, 0.006)  # further cells at both ends, where the reference has rows enough
MAX_CATEGORIES = 1000
BUCKETS = 256  # of the rare categories, where there are more

LOSS = "loss"  # the delayed feature that holds how wrong each prediction was

FeatureKind = Literal["numeric", "categorical", "embedding"]


@dataclass(frozen=True, slots=True)
class Feature:
    """The cells of one feature.

    numeric: regular cell i holds edges[i-1] < x ≤ edges[i]; the first and last cells lie below and above all that the
    finite reference showed. categorical: one cell a category, by falling frequency; every other string lies in one of
    `buckets` more cells by its hash, or, where there are none, is unseen. embedding: one cell, "present".
    `delayed`: its values come with the labels, after a window was judged on the others.
    """

    name: str
    kind: FeatureKind
    edges: np.ndarray | None = None  # float64, ascending
    categories: tuple[str, ...] = ()
    buckets: int = 0
    length: int = 0
    delayed: bool = False

    @property
    def is_loss(self) -> bool:
        """Whether it holds how wrong each prediction was."""
        return self.delayed and self.name == LOSS

    @property
    def n_regular(self) -> int:
        """How many regular cells the feature has, at least one."""
        if self.edges is not None:
            return len(self.edges) + 1
        return max(1, len(self.categories) + self.buckets)


@dataclass(frozen=True)
class Grid:
    """The cells of all features, in order."""

    features: tuple[Feature, ...]

    @cached_property
    def sizes(self) -> np.ndarray:
        """Regular cells of each feature, intp (features,)."""
        return np.array([f.n_regular for f in self.features], np.intp)

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each feature's regular cells begin among all regular ones, intp (features,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.intp)

    @cached_property
    def owner(self) -> np.ndarray:
        """The feature to which each regular cell belongs, intp (regular cells,)."""
        return np.repeat(np.arange(len(self.features)), self.sizes)

    @property
    def n_special(self) -> int:
        """Special cells of all features together; the first regular cell has this flat index."""
        return SPECIAL * len(self.features)

    @property
    def n_cells(self) -> int:
        """Length of the flat vector of counts."""
        return self.n_special + int(self.sizes.sum())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features' names in order."""
        return tuple(f.name for f in self.features)

    def kind(self, kind: FeatureKind) -> np.ndarray:
        """Indices of the features of one kind, intp."""
        return np.flatnonzero([f.kind == kind for f in self.features])

    @cached_property
    def delayed(self) -> np.ndarray:
        """Which features come with the labels, bool (features,)."""
        return np.array([f.delayed for f in self.features], bool)

    def slice(self, j: int) -> slice:
        """Feature j's regular cells in the flat vector."""
        first = self.n_special + int(self.starts[j])
        return slice(first, first + int(self.sizes[j]))

    def encode(self, columns: Mapping[str, np.ndarray], invalid: Mapping[str, np.ndarray]) -> np.ndarray:
        """The flat cell of every value, int32 (rows, features).

        `columns` holds float64 (NaN = missing), lists of strings (None = missing) or, for an embedding, a float matrix
        whose rows with a NaN are missing; `invalid` may hold a bool mask per feature.
        """
        n_rows = len(columns[self.features[0].name])
        codes = np.empty((n_rows, len(self.features)), np.int32)
        for j, feature in enumerate(self.features):
            codes[:, j] = self.encode_feature(j, columns[feature.name], invalid.get(feature.name))
        return codes

    def encode_feature(self, j: int, values: np.ndarray, invalid: np.ndarray | None = None) -> np.ndarray:
        """The flat cell of every value of feature j, (rows,)."""
        cells = self._regular_or_missing(j, self.features[j], values)
        return cells if invalid is None else np.where(invalid, SPECIAL * j + INVALID, cells)

    def _regular_or_missing(self, j: int, feature: Feature, values: np.ndarray) -> np.ndarray:
        first = self.n_special + int(self.starts[j])
        if feature.edges is not None:
            missing = np.isnan(values)
            return np.where(missing, SPECIAL * j, first + np.searchsorted(feature.edges, values, "left"))
        if feature.kind == "embedding":
            return np.where(np.isnan(values).any(axis=1), SPECIAL * j, first)
        cells = self.category_cells(j)
        return np.fromiter((cells[v] if v in cells else self.other_cell(j, v) for v in values), np.int32, len(values))

    def other_cell(self, j: int, category: str) -> int:
        """The flat cell of a category of feature j that has none of its own."""
        feature = self.features[j]
        if not feature.buckets:
            return SPECIAL * j + UNSEEN
        first = self.n_special + int(self.starts[j]) + len(feature.categories)
        return first + crc32(category.encode()) % feature.buckets

    def category_cells(self, j: int) -> dict[str | None, int]:
        """The flat cell of each known category of feature j, and of None = missing."""
        first = self.n_special + int(self.starts[j])
        cells: dict[str | None, int] = {c: first + i for i, c in enumerate(self.features[j].categories)}
        cells[None] = SPECIAL * j + MISSING
        return cells

    def count(self, codes: np.ndarray) -> np.ndarray:
        """Rows in each flat cell, float64 (cells,)."""
        return np.bincount(codes.ravel(), minlength=self.n_cells).astype(np.float64)


def numeric_feature(
    name: str, values: np.ndarray, *, need: float = 1.0, quantiles: int = QUANTILES, cut: float | None = None
) -> Feature:
    """Cells for a numeric feature from its reference values (NaN = missing, ±inf = beyond every cell).

    A value that more than half a cell's share of the rows have is a cell of its own, so that ties and zero inflation
    are exact. A tail cell is made where the reference holds at least max(4, `need`) rows in it; `need` is the block
    length that the reference's dependence asks for: rarer cells would hold a single cluster of rows. `cut`: an edge
    that there must be, wherever the values lie.
    """
    finite = np.sort(values[np.isfinite(values)])
    n, cuts = len(finite), [] if cut is None else [cut]
    if n == 0:
        return Feature(name, "numeric", np.array(cuts, np.float64))
    tails = [t for t in TAILS if t * n >= max(4.0, need)]
    shares = np.array([*tails, *(np.arange(1, quantiles) / quantiles), *(1 - t for t in reversed(tails))])
    quantile = np.unique(finite[np.minimum((shares * n).astype(np.intp), n - 1)])
    distinct, rows = np.unique(finite, return_counts=True)
    atoms = distinct[rows > n / (2 * quantiles)]
    with np.errstate(over="ignore"):  # below the smallest float lies −inf
        ends = np.nextafter([finite[0], *atoms], -np.inf)
        edges = np.unique(np.concatenate([quantile, atoms, finite[-1:], ends, cuts]))
    return Feature(name, "numeric", edges)


def categorical_feature(name: str, values: Iterable[str | None], *, most: int = MAX_CATEGORIES) -> Feature:
    """Cells for a categorical feature: its categories by falling frequency (ties by name).

    Where there are more than `most`, only those with a cell's usual share of the rows have cells of their own and all
    others are spread over buckets by a hash. A bucket is chosen without a look at how often a category came; keeping
    the most frequent ones instead would keep those that came often by luck, and every later window would differ.
    """
    counts = Counter(v for v in values if v is not None)
    order = sorted(counts, key=lambda c: (-counts[c], c))
    if len(order) <= most:
        return Feature(name, "categorical", categories=tuple(order))
    least = counts.total() / (2 * QUANTILES)
    return Feature(name, "categorical", categories=tuple(c for c in order if counts[c] > least), buckets=BUCKETS)


def exact_feature(name: str, *samples: np.ndarray) -> Feature:
    """A cell for every distinct value of the pooled samples: statistics on it are exact."""
    return Feature(name, "numeric", np.unique(np.concatenate(samples))[:-1])

"""Finds the cells of whole matrices of numbers at once: a uniform table, then one step of correction."""

import numpy as np

from detectors.grid import INVALID, MISSING, SPECIAL, Grid

BUCKETS = 1024  # of the table of each feature; all of it should stay in the cache of the processor
COVER = 1 / 128  # quantile of the edges at which the table begins and ends; beyond it a value is searched for


class CellLookup:
    """Flat cells of the numeric features of a grid but the delayed ones, all columns in one pass.

    The range of a feature's inner edges is cut into equal buckets, each of which knows the cell of its lower end and
    whether it holds at most one edge. One comparison with that edge gives the cell; only values in crowded buckets and
    beyond the table are searched for, column by column. About .3 µs for a row of 20 features against .9 µs for 20
    binary searches; exact: the same cells as `Grid.encode`.
    """

    def __init__(self, grid: Grid) -> None:
        numeric = grid.kind("numeric")
        self.features = numeric[~grid.delayed[numeric]]
        n = len(self.features)
        self._edges: list[np.ndarray] = []
        self._first = grid.n_special + grid.starts[self.features].astype(np.int64)
        self._missing = (SPECIAL * self.features + MISSING).astype(np.int64)
        self._invalid = (SPECIAL * self.features + INVALID).astype(np.int64)
        self._uncounted = grid.n_cells
        self._low, self._scale = np.zeros(n), np.zeros(n)
        self._cell: np.ndarray = np.zeros((n, BUCKETS), np.int64)
        self._edge: np.ndarray = np.full((n, BUCKETS), np.inf)
        self._crowded = np.zeros((n, BUCKETS), bool)
        for i, j in enumerate(self.features):
            edges = grid.features[j].edges
            self._edges.append(edges if edges is not None else np.empty(0))
            self._fill(i, self._edges[i])
        self._offset = np.arange(n, dtype=np.intp)[:, None] * BUCKETS
        self._low, self._scale = self._low[:, None], self._scale[:, None]
        self._cell, self._edge = self._cell.ravel(), self._edge.ravel()
        self._any_crowded = bool(self._crowded.any())

    def _fill(self, i: int, edges: np.ndarray) -> None:
        self._cell[i] = self._first[i]
        if not len(edges):
            return
        low, high = np.quantile(edges, [COVER, 1 - COVER], method="inverted_cdf")
        with np.errstate(over="ignore", invalid="ignore"):  # numbers near the ends of what a float can be
            width = (high - low) / (BUCKETS - 2)
            if not (np.isfinite(width) and width > 0 and np.isfinite(1 / width)):
                self._crowded[i] = True
                return
            self._low[i], self._scale[i] = low - width, 1 / width
            # an edge's own bucket, computed as a value's is, so that rounding falls alike on both
            bucket = np.clip((edges - self._low[i]) * self._scale[i], 0, BUCKETS - 1).astype(np.intp)
        held = np.bincount(bucket, minlength=BUCKETS)
        before = np.cumsum(held) - held
        self._cell[i] += before
        self._crowded[i] = held > 1
        self._edge[i, bucket] = edges

    def __call__(self, values: np.ndarray, marked: np.ndarray, marks: np.ndarray) -> np.ndarray:
        """Flat cells int64 (rows, features), a feature after the other in memory, of float64 values; NaN = missing.

        `marked` (m, 2) are places that are invalid (`marks` 1) or not to be counted (2): those get the cell one past
        the last.
        """
        across = np.ascontiguousarray(values.T)  # a feature after the other, as a decoder's matrix lies in memory
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = across - self._low
            scaled *= self._scale
        np.fmax(scaled, 0, out=scaled)  # NaN becomes 0
        np.minimum(scaled, BUCKETS - 1, out=scaled)
        bucket = scaled.astype(np.intp)
        bucket += self._offset
        by_feature: np.ndarray = self._cell.take(bucket)
        by_feature += across > self._edge.take(bucket)
        cells = by_feature.T
        if self._any_crowded:
            crowded = self._crowded.take(bucket)
            for i in np.flatnonzero(crowded.any(axis=1)):
                rows = np.flatnonzero(crowded[i])
                cells[rows, i] = self._first[i] + np.searchsorted(self._edges[i], values[rows, i], "left")
        missing = np.isnan(values)
        if missing.any():
            rows, columns = np.nonzero(missing)
            cells[rows, columns] = self._missing[columns]
        if len(marked):
            rows, columns = marked.T
            cells[rows, columns] = np.where(marks == 1, self._invalid[columns], self._uncounted)
        return cells

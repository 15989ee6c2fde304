"""Figures of an event's fields in every window: sums, means and rates of the business, quantiles of the serving system.

Each field adds up to sums of its own in the window's table, whether a profile knows the field or not; where one does,
the field is judged as well, as any other column.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from zlib import crc32

import numpy as np

from detectors.performance import metric
from detectors.performance.metric import Metric
from detectors.summary import Table
from driftwatch.records import Records, Schema

How = Literal["sum", "mean", "rate", "quantiles"]

QUANTILES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
PER_DOUBLING = 16  # cells, so that a quantile is within 2.2 %
LEAST, MOST = -20, 20  # powers of two: of seconds, from a microsecond to twelve days
N_CELLS = (MOST - LEAST) * PER_DOUBLING


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure by its name: what is made of which field."""

    name: str
    field: str
    how: How


class Figures:
    """Adds the fields' values to a table, and reads the measures off one."""

    def __init__(self, measures: Iterable[Measure], schema: Schema) -> None:
        self._measures = tuple(measures)
        self._label = None if schema.label is None else schema.label.name
        columns = [c.name for c in schema.of_kind("numeric")]
        fields = dict.fromkeys(m.field for m in self._measures if m.field != self._label)
        self._columns = {name: columns.index(name) for name in fields}
        self._spread = {m.field for m in self._measures if m.how == "quantiles"}

    @property
    def has_labels(self) -> bool:
        """Whether a measure is of the labels; who joins those adds them."""
        return any(m.field == self._label for m in self._measures)

    def count(self, table: Table, records: Records) -> None:
        """Adds these rows."""
        for name, k in self._columns.items():
            values = add_moments(table, name, records.numeric[:, k])
            if len(values) and name in self._spread:
                table.add_figures(key(name, "cells"), np.bincount(_cells(values), minlength=N_CELLS + 2) * 1.0)

    def read(self, table: Table, *, of_labels: bool) -> tuple[tuple[Metric, str], ...]:
        """The measures of a window's fields, or of its labels, each with its column; undefined without a value."""
        chosen = [m for m in self._measures if (m.field == self._label) == of_labels]
        return tuple((found, m.field) for m in chosen for found in _read(m, table))


def add_moments(table: Table, name: str, values: np.ndarray) -> np.ndarray:
    """Adds up a column's values; the answer: those that are numbers."""
    values = values[np.isfinite(values)]
    if len(values):
        with np.errstate(over="ignore"):
            moments = [len(values), values.sum(), np.square(values).sum(), np.count_nonzero(values)]
        table.add_figures(key(name), np.array(moments, np.float64))
    return values


def key(field: str, of: str = "moments") -> int:
    """The number under which a table holds sums of a column."""
    return crc32(f"{of} of {field}".encode())


def _cells(values: np.ndarray) -> np.ndarray:
    """The cell of each value by its logarithm: 0 = below all (and not above zero), the last = above all."""
    with np.errstate(divide="ignore", invalid="ignore"):
        at = np.floor((np.log2(np.maximum(values, 0.0)) - LEAST) * PER_DOUBLING)
    return np.asarray(np.clip(at, -1, N_CELLS).astype(np.intp) + 1)


def _read(measure: Measure, table: Table) -> Sequence[Metric]:
    name, moments = measure.name, table.figures.get(key(measure.field))
    if measure.how == "quantiles":
        cells = table.figures.get(key(measure.field, "cells"))
        return [_quantile(f"{name}_{short}", q, cells) for q, short in QUANTILES]
    if moments is None:
        return [metric.undefined(name, 0, "no_value")]
    n, total, squares, n_set = moments.tolist()
    if measure.how == "rate":
        return [metric.share(name, n_set, n, n, "no_value")]
    if measure.how == "mean" and n > 1:
        return [metric.mean(name, total, squares, n)]
    value = total / n if measure.how == "mean" else total
    if not np.isfinite(value):
        return [metric.undefined(name, n, "overflow")]
    return [Metric(name, value, None, None, int(n))]  # what a window adds up to is no estimate of anything


def _quantile(name: str, q: float, cells: np.ndarray | None) -> Metric:
    """A quantile with the interval of its rank, each to the middle of its cell."""
    if cells is None:
        return metric.undefined(name, 0, "no_value")
    upto = np.cumsum(cells)
    n = upto[-1]
    half = metric.Z * np.sqrt(n * q * (1 - q))
    ranks = np.clip(np.ceil([n * q, n * q - half, n * q + half]), 1, n)
    places = np.searchsorted(upto, ranks)
    value, low, high = np.exp2((places - 0.5) / PER_DOUBLING + LEAST).tolist()
    return Metric(name, value, low, high, int(n))

"""What a sequential detector is, and what it answers: a fold over a stream of losses.

The detector holds parameters only. Its memory is the state that it is handed and hands back, so that a stream can be
stopped after any row, written down and taken up again.
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from detectors.score import Score

S = TypeVar("S")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was found.

    Rows are counted from 0 over everything the fold was handed, also what was skipped. `row` is where it was found,
    `began_row` the estimate of the first row of the new level; None where the detector makes none. Times are those of
    these rows, None where none were handed in. `before` and `after` are the mean losses on the two sides.
    `statistic`: what reached the threshold of the shortest window.
    """

    row: int
    began_row: int | None
    time_s: float | None
    began_time_s: float | None
    before: float | None
    after: float | None
    statistic: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one update says: the changes in the rows handed in, oldest first, and where the detector stands after them.

    `score.verdict` is "undetermined", with its reason, while the detector has too few rows to judge.
    """

    changes: tuple[Change, ...]
    score: Score
    n_skipped: int  # values of the rows handed in that were not finite


class SequentialDetector(Protocol[S]):
    """Detects that the mean of a stream changed, row by row."""

    def init(self) -> S:
        """The state before the first row."""

    def update(self, state: S, values: Floats, times_s: Floats | None = None) -> tuple[S, Answer]:
        """The state after these rows and what they show. Splitting the rows anywhere gives the same changes and state.

        Values that are not finite are skipped and counted. After a change the detector starts anew at the next row.
        """

    def to_bytes(self, state: S) -> bytes:
        """The state as bytes."""

    def from_bytes(self, data: bytes) -> S:
        """The state that `to_bytes` wrote, bit for bit."""


def as_rows(values: Floats, times_s: Floats | None) -> tuple[Floats, Floats]:
    """Both as float64 of one length; times that were not handed in are NaN. Raises ValueError."""
    rows = np.asarray(values, np.float64)
    if rows.ndim != 1:
        raise ValueError(f"`values` must have one dimension; got {rows.shape}. Pass the losses of one stream in order.")
    times = np.full(len(rows), np.nan) if times_s is None else np.asarray(times_s, np.float64)
    if times.shape != rows.shape:
        raise ValueError(
            f"`times_s` must have one time a value, {len(rows)}; got {times.shape}. Pass both of each row."
        )
    return rows, times


def none_for_nan(value: float) -> float | None:
    """A time, or None where there was none."""
    return None if np.isnan(value) else float(value)

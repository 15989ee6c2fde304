"""Columns of single values → arrays: the part of decoding that is paid for every row."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, compress
from typing import Any

import msgspec
import numpy as np

from driftwatch.decode.cells import (
    ABSENT,
    END_S,
    INVALID,
    MISSING,
    MISSING_NUMBER,
    PER_SECOND,
    category,
    time_s,
)
from driftwatch.records import Category, Mark

# msgspec writes many floats or times as MessagePack, in cells of one width, in a fraction of the time that struct or
# numpy need to take them from Python objects; numpy then reads the cells where they lie.
_pack = msgspec.msgpack.Encoder().encode
_TIMESTAMP, _TIMESTAMP_TAG = np.dtype([("tag", ">u2"), ("value", ">u8")]), 0xD7FF


@dataclass(frozen=True, slots=True)
class Columns:
    """What `Records` holds of the schema's columns; `marks` (n, numeric columns) uint8, 0 = none."""

    numeric: np.ndarray
    marks: np.ndarray
    categories: tuple[list[Category], ...]
    embeddings: tuple[np.ndarray, ...]
    states: tuple[np.ndarray, ...]

    def absent(self) -> np.ndarray:
        """Where an event says nothing: bool (n, columns), numeric columns first, then categorical, then embeddings."""
        lists = [np.array([v is Mark.ABSENT for v in values], bool) for values in self.categories]
        return np.column_stack([self.marks == ABSENT, *lists, *(s == ABSENT for s in self.states)])

    def mark_missing(self, cells: np.ndarray) -> None:
        """Turn absent cells into missing ones; `cells` as `absent` returns them."""
        n_numeric, n_categorical = self.marks.shape[1], len(self.categories)
        self.marks[cells[:, :n_numeric]] = 0
        for row, column in np.argwhere(cells[:, n_numeric : n_numeric + n_categorical]):
            self.categories[column][row] = None
        for state, column in zip(self.states, cells.T[n_numeric + n_categorical :], strict=True):
            state[column] = MISSING

    def take(self, keep: np.ndarray) -> "Columns":
        """The rows where `keep` (n,) is true."""
        return Columns(
            self.numeric[keep],
            self.marks[keep],
            tuple(list(compress(values, keep)) for values in self.categories),
            tuple(e[keep] for e in self.embeddings),
            tuple(s[keep] for s in self.states),
        )


def numbers(columns: Sequence[Sequence[float | None]], n: int) -> np.ndarray:
    """Columns of n values as a writable (n, columns) matrix whose columns are contiguous."""
    if not columns:
        return np.empty((n, 0))
    header, start = _header(n), _header(len(columns))
    column = np.dtype([("header", f"V{header}"), ("cells", [("tag", "u1"), ("value", ">f8")], (n,))])
    packed = _pack(columns)
    if len(packed) < start + len(columns) * column.itemsize:  # a float takes nine bytes, None one
        columns = [
            values if len(_pack(values)) == column.itemsize else [MISSING_NUMBER if v is None else v for v in values]
            for values in columns
        ]
        packed = _pack(columns)
    return np.frombuffer(packed, column, offset=start)["cells"]["value"].astype(np.float64).T


def _header(n: int) -> int:
    """The bytes before the first cell of a MessagePack array of n."""
    return 1 if n < 16 else 3 if n < 65536 else 5


def take_marks(matrix: np.ndarray) -> np.ndarray:
    """The marks of a matrix, uint8 of its shape (0 = none); its NaNs lose their payload."""
    nan = np.isnan(matrix)
    marks = np.zeros(matrix.shape, np.uint8)
    if nan.any():
        marks[nan] = matrix[nan].view(np.uint64) & 3
        matrix[nan] = MISSING_NUMBER
    return marks


def categories(values: Sequence[object]) -> list[Category]:
    """A column of JSON values of any type as categories; where they can be told apart, each is looked at once."""
    kinds = set(map(type, values))
    if not kinds.isdisjoint((list, dict)) or (bool in kinds and not kinds.isdisjoint((int, float))):  # True == 1
        return [category(v) for v in values]
    texts = {v: category(v) for v in set(values)}
    return [texts[v] for v in values]


def vectors(values: Sequence[list[float] | Mark | None], length: int) -> tuple[np.ndarray, np.ndarray]:
    """An embedding column as (n, length) float32 and its states (n,); what is not finite in float32 is invalid."""
    states = np.array([_vector_state(v, length) for v in values], np.uint8)
    present = states == 0
    flat = list(chain.from_iterable(v for v, here in zip(values, present, strict=True) if here and isinstance(v, list)))
    matrix = np.full((len(values), length), np.nan, np.float32)
    with np.errstate(over="ignore"):
        matrix[present] = np.frombuffer(struct.pack(f"{len(flat)}d", *flat)).reshape(-1, length)
    broken = present & ~np.isfinite(matrix).all(axis=1)
    states[broken] = INVALID
    matrix[broken] = np.nan
    return matrix, states


def _vector_state(value: list[float] | Mark | None, length: int) -> int:
    if isinstance(value, list):
        return 0 if len(value) == length else INVALID
    if value is None:
        return MISSING
    return ABSENT if value is Mark.ABSENT else INVALID


def times(values: Sequence[Any], unit: str, arrived_s: np.ndarray | None) -> np.ndarray:
    """Event times in epoch seconds, float64 (n,); the arrival time where it is null, NaN where there is none."""
    kinds = set(map(type, values))
    if kinds == {float}:
        return numbers([values], len(values))[:, 0] / PER_SECOND[unit]
    stamps = _timestamps(values) if kinds == {datetime} else None
    if stamps is not None:
        return stamps
    found = np.array([time_s(v, unit) for v in values])
    return found if arrived_s is None else np.where([v is None for v in values], arrived_s, found)


def _timestamps(values: Sequence[datetime]) -> np.ndarray | None:
    """Epoch seconds of times with an offset; None where one is naive or lies outside 1970–2514."""
    try:
        packed = _pack(values)
    except OverflowError:  # in UTC the year is 0 or 10000
        return None
    start = _header(len(values))
    if len(packed) != start + len(values) * _TIMESTAMP.itemsize:
        return None
    cells = np.frombuffer(packed, _TIMESTAMP, offset=start)
    if (cells["tag"] != _TIMESTAMP_TAG).any():
        return None
    stamps = cells["value"].astype(np.uint64)  # nanoseconds above 34 bits of seconds
    return ((stamps & (2**34 - 1)) * 10**6 + (stamps >> 34) // 1000) / 1e6


def in_range(times_s: np.ndarray) -> np.ndarray:
    """Which times lie in the years 1970–2200, bool (n,)."""
    return (times_s >= 0) & (times_s < END_S)

"""A reference file as columns: what a profile is built from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import numpy as np

from driftwatch.decode import cells
from driftwatch.errors import ConfigError, DecodeError, SourceError
from driftwatch.records import Category, Column, Mark
from driftwatch.tables import SUFFIXES, Field, Ragged, Row, locate, open_table

CHUNK_ROWS = 8192

_NUMBERS = {float, int, NoneType}


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference's columns by their configured names, rows in time order.

    A numeric column is float64 (n_rows,): NaN = missing or invalid, ±inf as it came. A categorical one is a list of
    category texts: None = missing, `Mark.INVALID` = invalid. An embedding is float32 (n_rows, length): a row of NaN =
    missing or invalid. `invalid` (n_rows,) tells the two apart. `times_s`: epoch seconds, None where the file has no
    times; `was_sorted` is False where its rows were not in time order and had to be sorted (stably).
    """

    columns: dict[str, np.ndarray | list[Category]]
    invalid: dict[str, np.ndarray]
    n_rows: int
    times_s: np.ndarray | None
    was_sorted: bool


def read(
    path: Path,
    columns: Sequence[Column],
    *,
    time_path: tuple[str, ...] = ("time",),
    time_unit: Literal["s", "ms", "us", "ns"] = "s",
    progress: Callable[[int], None] | None = None,
) -> Reference:
    """Reads a CSV, Parquet or JSON-lines file (flat objects or plain events) by the rules of the decoder.

    A column lies under its name, else its dotted path, the prediction also under `prediction`; an event's field at its
    path comes before. `progress` is told how many more bytes of the file have been read; they add up to its size.
    Raises ConfigError where the file cannot be read, lacks a column (all are named), has fewer than 2 rows, a row that
    is none, or a time that cannot be read.
    """
    if not str(path).endswith(SUFFIXES):
        raise ConfigError(
            f"`reference.path` must end in one of {', '.join(SUFFIXES)}; got {str(path)!r}. "
            "Rename the file after what it holds."
        )
    parts: list[_Part] = []
    n_bytes = 0
    try:
        for rows, at_byte in _chunks(path, columns, time_path):
            parts.append(_part(rows, columns, time_unit, path, sum(part.n_rows for part in parts)))
            if progress is not None:
                progress(at_byte - n_bytes)
            n_bytes = at_byte
    except SourceError as error:
        raise ConfigError(f"`reference.path` cannot be used: {error}") from error
    n_rows = sum(part.n_rows for part in parts)
    if n_rows < 2:
        raise ConfigError(f"`{path.name}` must hold at least 2 rows; got {n_rows}. Give a reference of some thousands.")
    return _in_time_order(_joined(parts, columns))


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows of a reference; an embedding is still a list of lists, its length may not be known yet."""

    columns: list[Any]
    invalid: list[Any]
    times_s: np.ndarray | None
    n_rows: int


def _part(rows: list[Row], columns: Sequence[Column], unit: str, path: Path, n_before: int) -> _Part:
    values = list(zip(*rows, strict=True))
    cells_and_marks = [_READERS[column.kind](cells) for column, cells in zip(columns, values, strict=False)]
    times_s = None
    if len(values) > len(columns):
        times_s = np.array([_time_s(value, unit, path, n_before + i) for i, value in enumerate(values[-1])], np.float64)
    return _Part([c for c, _ in cells_and_marks], [m for _, m in cells_and_marks], times_s, len(rows))


def _numbers(values: Sequence[object]) -> tuple[np.ndarray, np.ndarray]:
    valid = np.ones(len(values), bool)
    if not set(map(type, values)) <= {float, NoneType}:
        valid = np.fromiter((type(value) in _NUMBERS for value in values), bool, len(values))
        values = [cells.number(value) for value in values]
    return np.array(values, np.float64), ~valid


def _categories(values: Sequence[object]) -> tuple[list[Category], np.ndarray]:
    if set(map(type, values)) <= {str, NoneType}:
        known = {value: cells.category(value) for value in set(values)}
        texts = [known[value] for value in values]
    else:
        texts = [cells.category(value) for value in values]
    return texts, np.fromiter((text is Mark.INVALID for text in texts), bool, len(texts))


def _vectors(values: Sequence[object]) -> tuple[list[list[float] | None], np.ndarray]:
    vectors = [cells.vector(value) for value in values]
    invalid = np.fromiter((isinstance(vector, Mark) for vector in vectors), bool, len(vectors))
    return [vector if isinstance(vector, list) else None for vector in vectors], invalid


_READERS: dict[str, Callable[[Sequence[object]], tuple[Any, np.ndarray]]] = {
    "numeric": _numbers,
    "categorical": _categories,
    "embedding": _vectors,
}


def _time_s(value: object, unit: str, path: Path, row: int) -> float:
    try:
        time = value if isinstance(value, datetime) else cells.read_time(value)
    except DecodeError as error:
        raise ConfigError(f"row {row} of `{path.name}`: {error} Write such times, or drop the column.") from error
    seconds = cells.time_s(time, unit)
    if not 0 <= seconds < cells.END_S:
        raise ConfigError(f"`{path.name}`: {cells.why_no_time(time, unit, f'row {row}')}")
    return seconds


def _joined(parts: Sequence[_Part], columns: Sequence[Column]) -> Reference:
    whole: dict[str, np.ndarray | list[Category]] = {}
    invalid = {c.name: np.concatenate([part.invalid[k] for part in parts]) for k, c in enumerate(columns)}
    for k, column in enumerate(columns):
        pieces = [part.columns[k] for part in parts]
        if column.kind == "numeric":
            whole[column.name] = np.concatenate(pieces)
        elif column.kind == "categorical":
            whole[column.name] = list(chain.from_iterable(pieces))
        else:
            whole[column.name] = _matrix(list(chain.from_iterable(pieces)), column, invalid[column.name])
    times = [part.times_s for part in parts if part.times_s is not None]
    n_rows = sum(part.n_rows for part in parts)
    return Reference(whole, invalid, n_rows, np.concatenate(times) if times else None, was_sorted=True)


def _matrix(vectors: list[list[float] | None], column: Column, invalid: np.ndarray) -> np.ndarray:
    """Float32 rows of the column's length, where it has none yet of the commonest; marks others as invalid."""
    lengths = np.array([-1 if vector is None else len(vector) for vector in vectors])
    present = lengths[lengths >= 0]
    if present.size == 0:
        raise ConfigError(
            f"`{column.name}` must hold a list of numbers in some row of the reference; got none. "
            "Correct the kind or the path of the feature."
        )
    length = column.length or int(np.bincount(present).argmax())
    invalid |= (lengths >= 0) & (lengths != length)
    matrix = np.full((len(vectors), length), np.nan, np.float32)
    fits = lengths == length
    with np.errstate(over="ignore"):  # a number beyond float32 is infinite there
        matrix[fits] = np.array([vector for vector, fit in zip(vectors, fits, strict=True) if fit]).reshape(-1, length)
    return matrix


def _in_time_order(reference: Reference) -> Reference:
    times_s = reference.times_s
    if times_s is None or bool(np.all(times_s[1:] >= times_s[:-1])):
        return reference
    order = np.argsort(times_s, kind="stable")
    return Reference(
        {name: _taken(values, order) for name, values in reference.columns.items()},
        {name: marks[order] for name, marks in reference.invalid.items()},
        reference.n_rows,
        times_s[order],
        was_sorted=False,
    )


def _taken(values: np.ndarray | list[Category], order: np.ndarray) -> np.ndarray | list[Category]:
    return values[order] if isinstance(values, np.ndarray) else [values[i] for i in order.tolist()]


Chunks = Iterator[tuple[list[Row], int]]  # rows (a value for each column, then the time if there is one), bytes read


def _chunks(path: Path, columns: Sequence[Column], time_path: tuple[str, ...]) -> Chunks:
    with open_table(path) as table:
        located = locate(columns, table.names, path)
        fields = [Field(located[column.name], column.kind) for column in columns]
        time = next((name for name in (time_path[-1], ".".join(time_path)) if name in table.names), None)
        if time is not None:
            fields.append(Field(time, "time"))
        rows = table.rows(fields)
        n_rows = 0
        while chunk := list(islice(rows, CHUNK_ROWS)):
            whole = [row for row in chunk if not isinstance(row, Ragged)]
            if len(whole) < len(chunk):
                at, ragged = next((i, row.cells) for i, row in enumerate(chunk) if isinstance(row, Ragged))
                raise ConfigError(
                    f"row {n_rows + at} of `{path.name}` must have the header's {len(table.names)} cells; "
                    f"got {len(ragged)}. Quote cells that hold a comma, or drop the row."
                )
            n_rows += len(chunk)
            yield whole, table.bytes_read()

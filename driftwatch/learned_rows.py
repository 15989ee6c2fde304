"""The rows that a profile is learned from, as the state file keeps them: pieces of runs, column by column."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from driftwatch.records import Category, Mark, Records

_NO_CATEGORY: tuple[Category, ...] = (None, Mark.INVALID, Mark.ABSENT)  # their codes are their places here


class Piece(NamedTuple):
    """Rows that a shard showed one after the other; the first was its row number `first`, in the run number `run`."""

    shard: str
    run: int
    first: int
    body: bytes


@dataclass(frozen=True, slots=True)
class LearningChanges:
    """What to store of learning. `every`: runs whose number it does not divide are kept no longer; None = as before."""

    state: bytes
    pieces: Sequence[Piece]
    every: int | None = None


class _Body(msgspec.Struct, array_like=True):
    """A piece's columns; numbers as little-endian bytes. A categorical column: its distinct categories, and codes."""

    times_s: bytes
    numeric: bytes
    marked: bytes  # int32 (m, 2)
    marks: bytes
    categories: list[tuple[list[str], bytes]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as columns, without ids: numeric and marks as in `Records`."""

    times_s: np.ndarray  # float64, (n,)
    numeric: np.ndarray  # float64, (n, numeric columns)
    marked: np.ndarray  # intp, (m, 2)
    marks: np.ndarray  # uint8, (m,)
    categories: tuple[list[Category], ...]

    def __len__(self) -> int:
        return len(self.times_s)

    @classmethod
    def of(cls, records: Records, rows: np.ndarray) -> "Rows":
        """Some rows of records; `rows` (intp) ascending."""
        place = np.full(len(records), -1, np.intp)
        place[rows] = np.arange(len(rows))
        at = place[records.marked[:, 0]]
        kept, index = at >= 0, rows.tolist()
        return cls(
            records.times_s[rows],
            records.numeric[rows],
            np.column_stack([at[kept], records.marked[kept, 1]]),
            records.marks[kept],
            tuple([column[i] for i in index] for column in records.categories),
        )

    def to_bytes(self) -> bytes:
        """Compressed; numbers and categories as they are."""
        body = _Body(
            self.times_s.astype("<f8").tobytes(),
            self.numeric.astype("<f8").tobytes("F"),
            self.marked.astype("<i4").tobytes(),
            self.marks.astype("u1").tobytes(),
            [_coded(column) for column in self.categories],
        )
        return zlib.compress(_encoder.encode(body), 1)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Rows":
        """The inverse of `to_bytes`. Raises ValueError where the bytes are none of its."""
        try:
            body = _decoder.decode(zlib.decompress(data))
        except (zlib.error, msgspec.MsgspecError) as error:
            raise ValueError(f"rows to learn from must be whole; got {error!r}.") from error
        times_s = np.frombuffer(body.times_s, "<f8")
        return cls(
            times_s,
            np.frombuffer(body.numeric, "<f8").reshape((len(times_s), -1), order="F"),
            np.frombuffer(body.marked, "<i4").astype(np.intp).reshape(-1, 2),
            np.frombuffer(body.marks, "u1"),
            tuple(_decoded(*column) for column in body.categories),
        )


def joined(some: Sequence[Rows]) -> Rows:
    """All rows, in time order; rows of the same time keep theirs."""
    starts = np.cumsum([0, *(len(rows) for rows in some)])
    times_s = np.concatenate([rows.times_s for rows in some])
    order = np.argsort(times_s, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    offsets = np.repeat(starts[:-1], [len(rows.marks) for rows in some])
    marked = np.concatenate([rows.marked for rows in some])
    marked[:, 0] += offsets
    columns = [[c for rows in some for c in rows.categories[k]] for k in range(len(some[0].categories))]
    return Rows(
        times_s[order],
        np.concatenate([rows.numeric for rows in some])[order],
        np.column_stack([place[marked[:, 0]], marked[:, 1]]),
        np.concatenate([rows.marks for rows in some]),
        tuple([column[i] for i in order.tolist()] for column in columns),
    )


def _coded(column: Sequence[Category]) -> tuple[list[str], bytes]:
    places: dict[Category, int] = {value: code for code, value in enumerate(_NO_CATEGORY)}
    for value in column:
        places.setdefault(value, len(places))
    codes = np.fromiter(map(places.__getitem__, column), "<u4", len(column))
    return [value for value in places if isinstance(value, str)], codes.tobytes()


def _decoded(values: list[str], codes: bytes) -> list[Category]:
    known: tuple[Category, ...] = (*_NO_CATEGORY, *values)
    return [known[code] for code in np.frombuffer(codes, "<u4").tolist()]

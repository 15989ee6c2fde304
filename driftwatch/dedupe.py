"""Duplicates by id, and taking rows of records."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from driftwatch.records import Records


@dataclass(frozen=True, slots=True)
class Chunk:
    """Ids in the order shown; ids[i] was the shard's id number `first` + i."""

    first: int
    ids: list[str]


class Seen:
    """The last `size` ids that one shard has shown: an id among them is a duplicate.

    An id is shown again by its duplicates too, so a row is a duplicate exactly where one of the `size` rows before it
    has the same id. 0 = off. A shard that is read again from an earlier position needs a new `Seen`. Keeps up to
    2 · size ids and those of one batch: about 150 bytes an id.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._shown = 0
        self._last: dict[str, int] = {}  # id → the number under which it was shown last, in that order
        self._pending: list[str] = []

    def fresh(self, ids: list[str]) -> np.ndarray | None:
        """The indices (intp) of the rows that are no duplicates; None where all are fresh."""
        if self._size == 0 or not ids:
            return None
        last, first, n_known = self._last, self._shown, len(self._last)
        self._shown = first + len(ids)
        self._pending += ids
        rows = None
        if not last.keys().isdisjoint(ids):
            rows = self._one_by_one(ids, first)
        else:
            last.update(zip(ids, range(first, self._shown), strict=True))
            if len(last) < n_known + len(ids):  # an id twice in this batch: begin again from what was known
                self._last = dict(islice(last.items(), n_known))
                rows = self._one_by_one(ids, first)
        if len(self._last) > 2 * self._size:
            self._last = dict(islice(self._last.items(), len(self._last) - self._size, None))
        if len(self._pending) > 2 * self._size:
            del self._pending[: -self._size]
        return None if rows is None or len(rows) == len(ids) else rows

    def _one_by_one(self, ids: list[str], first: int) -> np.ndarray:
        rows = []
        for i, key in enumerate(ids):
            before = self._last.pop(key, None)  # goes back in at the end: the dict stays in the order shown
            if before is None or first + i - before > self._size:
                rows.append(i)
            self._last[key] = first + i
        return np.array(rows, dtype=np.intp)

    def new_chunk(self) -> Chunk | None:
        """The ids shown since the last call that still matter; None where there are none."""
        ids = self._pending[-self._size :]
        self._pending = []
        return Chunk(self._shown - len(ids), ids) if ids else None

    @property
    def oldest(self) -> int:
        """The number of the oldest id that still matters; a chunk that ends before it can go from the store."""
        return max(0, self._shown - self._size)

    def restore(self, chunks: Iterable[Chunk]) -> None:
        """Goes back to a stored state: the chunks that `new_chunk` gave, in any order, before any `fresh`."""
        for chunk in sorted(chunks, key=lambda c: c.first):
            self._one_by_one(chunk.ids, chunk.first)
            self._shown = chunk.first + len(chunk.ids)
        if len(self._last) > self._size:
            self._last = dict(islice(self._last.items(), len(self._last) - self._size, None))


def take(records: Records, rows: slice | np.ndarray) -> Records:
    """Some rows of `records`, in the order of `rows` (a slice or distinct indices)."""
    numbers = np.arange(len(records))[rows]
    index = numbers.tolist()
    place = np.full(len(records), -1, dtype=np.intp)
    place[numbers] = np.arange(len(numbers))
    marked_at = place[records.marked[:, 0]]
    kept = marked_at >= 0
    return Records(
        shard=records.shard,
        positions=records.positions[rows],
        times_s=records.times_s[rows],
        ids=[records.ids[i] for i in index],
        numeric=records.numeric[rows],
        marked=np.column_stack([marked_at[kept], records.marked[kept, 1]]),
        marks=records.marks[kept],
        categories=tuple([column[i] for i in index] for column in records.categories),
        embeddings=tuple(matrix[rows] for matrix in records.embeddings),
        embedding_states=tuple(state[rows] for state in records.embedding_states),
        versions=None if records.versions is None else [records.versions[i] for i in index],
    )

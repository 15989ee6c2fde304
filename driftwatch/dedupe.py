"""Duplicates by id, and taking rows of records."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import numpy as np

from driftwatch.records import Records


@dataclass(frozen=True, slots=True)
class Chunk:
    """Ids in the order shown; ids[i] was the shard's id number `first` + i."""

    first: int
    ids: list[str]


class _Run:
    """Ids shown one after the other; ids[i] was the shard's id number `first` + i."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.ids: list[str] = []
        self.known: set[str] = set()

    @cached_property
    def last(self) -> dict[str, int]:
        """Id → the number under which it was shown last; asked for once the run is complete."""
        return dict(zip(self.ids, count(self.first), strict=False))


class Seen:
    """The last `size` ids that one shard has shown: an id among them is a duplicate.

    A duplicate shows its id again, so a row is a duplicate exactly where one of the `size` rows before it has the same
    id. 0 = off. A shard that is read again from an earlier position needs a new `Seen`. Keeps at most 2 · size ids,
    about 150 bytes each.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._shown = 0
        self._stored = 0
        self._before = _Run(0)  # rows [(g − 1) · size, g · size): whatever matters is in it or in `_now`
        self._now = _Run(0)  # rows [g · size, …)

    def fresh(self, ids: list[str]) -> np.ndarray | None:
        """The indices (intp) of the rows that are no duplicates; None where all are fresh."""
        if self._size == 0:
            return None
        duplicates: list[int] = []
        at = 0
        while at < len(ids):
            room = self._size - self._shown % self._size
            run = ids[at : at + room]
            now, n_known = self._now, len(self._now.known)
            now.known.update(run)
            if len(now.known) < n_known + len(run) or not self._before.known.isdisjoint(run):
                now.known = set(now.ids)  # some id is not new: look at them one by one
                duplicates += [at + i for i, key in enumerate(run) if self._is_duplicate(key, self._shown + i)]
            now.ids += run
            self._shown += len(run)
            at += len(run)
            if len(run) == room:
                self._before, self._now = now, _Run(self._shown)
        return np.delete(np.arange(len(ids)), duplicates) if duplicates else None

    def _is_duplicate(self, key: str, number: int) -> bool:
        now, before = self._now, self._before
        if key in now.known:
            return True
        now.known.add(key)
        return key in before.known and before.last[key] >= number - self._size

    def new_chunk(self) -> Chunk | None:
        """The ids shown since the last call that still matter; None where there are none."""
        first = max(self._stored, self.oldest)
        ids = [key for run in (self._before, self._now) for key in run.ids[max(0, first - run.first) :]]
        self._stored = self._shown
        return Chunk(first, ids) if ids else None

    @property
    def oldest(self) -> int:
        """The number of the oldest id that still matters; a chunk that ends before it can go from the store."""
        return max(0, self._shown - self._size)

    def restore(self, chunks: Iterable[Chunk]) -> None:
        """Goes back to a stored state: the chunks that `new_chunk` gave, in any order, before any `fresh`."""
        for chunk in sorted(chunks, key=lambda c: c.first):
            if chunk.first != self._shown:  # what lies before a gap did not matter any more when the chunk was made
                self._shown = chunk.first
                self._before, self._now = _Run(chunk.first), _Run(chunk.first)
            self.fresh(chunk.ids)
        self._stored = self._shown


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
        labels=None if records.labels is None else records.labels[rows],
    )

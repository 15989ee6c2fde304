"""The HTTP source: reads the spool that the ingest server fills, one shard."""

import time
from collections.abc import Callable, Iterator, Mapping, Set

import numpy as np

from driftwatch.protocols import Assigned, AtEnd, CommitMark, Event, Tick
from driftwatch.records import Frames, Shard
from driftwatch.sources.spool import Spool

SHARD = Shard("http")
BATCH, BATCH_BYTES = 1000, 8 * 2**20
POLL_S = 0.1
"""A pause after every batch that was not full: many small batches would cost the server its time."""


class HttpSource:
    """Yields the bodies in the spool with their headers; a position is a place in the spool. It has no end."""

    def __init__(self, spool: Spool, *, batch_size: int = BATCH, sleep: Callable[[float], None] = time.sleep) -> None:
        self._spool = spool
        self._batch_size = batch_size
        self._sleep = sleep
        self._position: int | None = None
        self._paused: Set[Shard] = frozenset()
        self._closed = False

    def events(self) -> Iterator[Event]:
        yield Assigned(SHARD, start=self._spool.start)
        caught_up = False
        while not self._closed and self._position is not None:
            entries = []
            if SHARD not in self._paused:
                entries = self._spool.read(self._position, most=self._batch_size, most_bytes=BATCH_BYTES)
            if entries:
                self._position = entries[-1].end
                caught_up = False
                yield Frames(
                    SHARD,
                    [entry.body for entry in entries],
                    np.array([*(entry.position for entry in entries), self._position], np.int64),
                    np.array([entry.arrived_s for entry in entries]),
                    [entry.headers for entry in entries],
                )
            elif caught_up or SHARD in self._paused:
                yield Tick()
            else:
                caught_up = True
                yield AtEnd(SHARD, final=False)
            if len(entries) < self._batch_size and not self._closed:
                self._sleep(POLL_S)

    def begin(self, shard: Shard, position: int) -> None:
        self._position = position

    def pause(self, shards: Set[Shard]) -> None:
        self._paused = shards

    def commit(self, marks: Mapping[Shard, CommitMark]) -> None:
        """Forgets what is judged or counted: panes are in the store, so nothing is read again."""
        if SHARD in marks:
            self._spool.forget(int(marks[SHARD].metadata["r"]))

    def close(self) -> None:
        self._closed = True

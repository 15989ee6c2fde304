"""An in-memory source: the twin of every other one, for tests and for embedding."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Set

import numpy as np

from driftwatch.protocols import Assigned, AtEnd, CommitMark, Event, Tick
from driftwatch.records import Frames, Shard


class MemorySource:
    """Yields the messages of each shard in batches, round robin; a position is a message's index."""

    def __init__(self, shards: Mapping[str, Iterable[bytes]], *, batch_size: int = 1000) -> None:
        self._messages = {Shard(name): list(messages) for name, messages in shards.items()}
        self._batch_size = batch_size
        self._position: dict[Shard, int] = {}
        self._paused: Set[Shard] = frozenset()
        self._closed = False
        self.committed: dict[Shard, CommitMark] = {}

    def events(self) -> Iterator[Event]:
        for shard in self._messages:
            yield Assigned(shard)
        unread = deque(shard for shard in self._messages if shard in self._position)
        while unread and not self._closed:
            if all(shard in self._paused for shard in unread):
                yield Tick()  # the loop must turn, or nothing could ever end the pause
                continue
            shard = unread.popleft()
            if shard in self._paused:
                unread.append(shard)
                continue
            at = self._position[shard]
            batch = self._messages[shard][at : at + self._batch_size]
            if not batch:
                yield AtEnd(shard, final=True)
                continue
            unread.append(shard)
            self._position[shard] = at + len(batch)
            yield Frames(shard, batch, np.arange(at, at + len(batch) + 1, dtype=np.int64))

    def begin(self, shard: Shard, position: int) -> None:
        self._position[shard] = position

    def pause(self, shards: Set[Shard]) -> None:
        self._paused = shards

    def commit(self, marks: Mapping[Shard, CommitMark]) -> None:
        self.committed.update(marks)

    def close(self) -> None:
        self._closed = True

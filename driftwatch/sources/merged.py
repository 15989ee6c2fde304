"""Several files as one source, merged by event time."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from math import inf, isnan

import msgspec

from driftwatch.decode import cells
from driftwatch.protocols import Assigned, CommitMark, Event, Source
from driftwatch.records import Frames, Schema, Shard


class MergedSource:
    """Yields what files hold, always the batch whose first event is the earliest.

    What a window holds does not depend on how shards are interleaved; merged, none runs far ahead of the others.
    `labels`: which of the sources hold labels alone. None of them may grow.
    """

    def __init__(self, sources: Sequence[Source], schema: Schema, *, labels: Set[int] = frozenset()) -> None:
        self._sources = sources
        self._labels = labels
        self._time_of = first_time(schema)
        self._of_shard: dict[Shard, Source] = {}

    def events(self) -> Iterator[Event]:
        streams = {i: source.events() for i, source in enumerate(self._sources)}
        waiting: dict[int, Frames] = {}
        while streams:
            for i, stream in list(streams.items()):
                while i not in waiting:
                    event = next(stream, None)
                    if event is None:
                        del streams[i]
                        break
                    if isinstance(event, Frames):
                        waiting[i] = event
                        break
                    if isinstance(event, Assigned):
                        self._of_shard[event.shard] = self._sources[i]
                        event = replace(event, holds_labels=i in self._labels)
                    yield event
            if waiting:
                yield waiting.pop(min(waiting, key=lambda i: self._time_of(waiting[i])))

    def begin(self, shard: Shard, position: int) -> None:
        self._of_shard[shard].begin(shard, position)

    def pause(self, shards: Set[Shard]) -> None:
        for source in self._sources:
            source.pause(shards)

    def commit(self, marks: Mapping[Shard, CommitMark]) -> None:
        """Files remember nothing of their readers."""

    def close(self) -> None:
        for source in self._sources:
            source.close()


def first_time(schema: Schema) -> Callable[[Frames], float]:
    """The event time of a batch's first message that has one, −inf where none of the first few has."""

    def time_of(frames: Frames) -> float:
        for i in range(min(len(frames.messages), 8)):
            try:
                value: object = msgspec.json.decode(frames.messages[i])
                for key in schema.time_path:
                    value = value[key] if isinstance(value, dict) else None
                time_s = cells.time_s(cells.read_time(value), schema.time_unit)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
                continue
            if not isnan(time_s):
                return time_s
        return -inf

    return time_of

"""Several files as one source, merged by event time."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from math import inf, isnan, nan

import msgspec

from driftwatch.decode import cells
from driftwatch.protocols import Assigned, CommitMark, Event, Source
from driftwatch.records import Frames, Schema, Shard

LOOKED_AT = 8  # messages of a batch, for one that has a time


class MergedSource:
    """Yields what files hold, always the batch whose first event is the earliest; of labels, whose last one is.

    What a window holds does not depend on how shards are interleaved; merged, none runs far ahead of the others, and
    few labels come before their predictions. `labels`: which of the sources hold labels alone. None of them may grow.
    """

    def __init__(self, sources: Sequence[Source], schema: Schema, *, labels: Set[int] = frozenset()) -> None:
        self._sources = sources
        self._labels = labels
        self._schema = schema
        self._of_shard: dict[Shard, Source] = {}

    def events(self) -> Iterator[Event]:
        streams = {i: source.events() for i, source in enumerate(self._sources)}
        waiting: dict[int, tuple[float, Frames]] = {}  # each with its place in the order
        while streams:
            for i, stream in list(streams.items()):
                while i not in waiting:
                    event = next(stream, None)
                    if event is None:
                        del streams[i]
                        break
                    if isinstance(event, Frames):
                        waiting[i] = self._time_of(event, holds_labels=i in self._labels), event
                        break
                    if isinstance(event, Assigned):
                        self._of_shard[event.shard] = self._sources[i]
                        event = replace(event, holds_labels=i in self._labels)
                    yield event
            if waiting:
                yield waiting.pop(min(waiting, key=lambda i: waiting[i][0]))[1]

    def _time_of(self, frames: Frames, *, holds_labels: bool) -> float:
        """The event time of the first message that has one, of labels the last; −inf where none looked at has."""
        n = len(frames.messages)
        for i in range(min(n, LOOKED_AT)):
            time_s = event_time(frames.messages[n - 1 - i if holds_labels else i], self._schema)
            if not isnan(time_s):
                return time_s
        return -inf

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


def event_time(message: bytes, schema: Schema) -> float:
    """In epoch seconds, NaN where there is none."""
    try:
        value: object = msgspec.json.decode(message)
        for key in schema.time_path:
            value = value[key] if isinstance(value, dict) else None
        return cells.time_s(cells.read_time(value), schema.time_unit)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        return nan

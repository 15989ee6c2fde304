"""Predictions from one source and labels from another, read in one thread.

Each of the two makes its reader wait for a moment where it has nothing: one that does must not hold up the other.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Set
from dataclasses import dataclass, replace

from driftwatch.protocols import Assigned, AtEnd, CommitMark, Decoder, Event, Held, Revoked, Source, Tick
from driftwatch.records import Decoded, Frames, Shard

REST = 20  # times as long as it made us wait a source is left alone, while the other one has something in stock
WAITED_S = 0.09  # what takes so long to come was waited for: the source had nothing in stock,
FULL = 5000  # unless so many messages came for each second of it: a large batch of a busy machine


@dataclass(slots=True, eq=False)
class _Side:
    """One of the two as it is read."""

    source: Source
    events: Iterator[Event]
    rests_until_s: float
    has_stock: bool = False  # its last answer was a batch that came at once
    is_over: bool = False


class LabelsBeside:
    """Yields the events of a source, and those of another one that holds labels and is read for nothing else.

    The two take turns. While one has messages in stock and the other has none, the other is asked for a twentieth of
    the time only. Where the predictions end, all ends once the labels that are there by then are read.

    `before`: the shards that an earlier run remembers of the one of the two that is no group's; what a group decides
    of the other one's does not touch them.
    """

    def __init__(
        self,
        predictions: Source,
        labels: Source,
        *,
        before: Set[Shard] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._predictions, self._labels, self._before, self._clock = predictions, labels, before, clock
        self._source_of: dict[Shard, Source] = {}
        self._unread: set[Shard] = set()  # shards of labels that have more than was read, as far as is known
        self._closed = False

    def events(self) -> Iterator[Event]:
        soon_s = self._clock() + REST * WAITED_S  # a backlog does not wait for the other to connect
        predictions = _Side(self._predictions, self._predictions.events(), soon_s)
        labels = _Side(self._labels, self._labels.events(), soon_s)
        asked, other = predictions, labels
        while not self._closed and not asked.is_over:
            yield from self._answer(asked)
            if asked.is_over or not (other.is_over or self._goes_on(asked, other)):
                asked, other = other, asked
            if predictions.is_over:
                break
        while not self._closed and not labels.is_over:
            brought = yield from self._answer(labels)
            if not brought and not self._unread and self._labels in self._source_of.values():
                break

    def begin(self, shard: Shard, position: int) -> None:
        self._source_of[shard].begin(shard, position)

    def pause(self, shards: Set[Shard]) -> None:
        """Only shards of predictions ever are."""
        self._predictions.pause(shards)

    def commit(self, marks: Mapping[Shard, CommitMark]) -> None:
        for source in (self._predictions, self._labels):
            if its := {shard: mark for shard, mark in marks.items() if self._source_of.get(shard) is source}:
                source.commit(its)

    def close(self) -> None:
        self._closed = True
        self._predictions.close()
        self._labels.close()

    def holds_labels(self, shard: Shard) -> bool:
        """Whether it is a shard of the source of labels."""
        return self._source_of.get(shard) is self._labels

    # ----------------------------------------------------------------------------------------------------------------

    def _answer(self, side: _Side) -> Generator[Event, None, bool]:
        """What a source says next: what there is to say of shards, then a batch, or that there is none; whether one."""
        side.has_stock, waited_s = False, 0.0
        while not self._closed:
            asked_s = self._clock()
            event = next(side.events, None)
            now_s = self._clock()
            waited_s += now_s - asked_s
            side.rests_until_s = now_s + REST * waited_s
            if event is None:
                side.is_over = True
                return False
            if isinstance(event, Frames):
                side.has_stock = waited_s < WAITED_S or len(event.messages) > FULL * waited_s
            yield self._told(side.source, event)
            if isinstance(event, Frames | AtEnd | Tick):
                return isinstance(event, Frames)
        return False

    def _goes_on(self, asked: _Side, other: _Side) -> bool:
        """Whether the one that was asked is asked again, since the other one would only hold it up."""
        return asked.has_stock and not other.has_stock and self._clock() < other.rests_until_s

    def _told(self, source: Source, event: Event) -> Event:
        """The event as the loop is to know it."""
        is_labels = source is self._labels
        match event:
            case Assigned(shard):
                self._source_of[shard] = source
                if is_labels:
                    self._unread.add(shard)
                    return replace(event, holds_labels=True)
            case Held():
                others = {shard for shard, its in self._source_of.items() if its is not source}
                return replace(event, of=None if is_labels else event.of, beside=self._before | others)
            case Frames() if is_labels:
                self._unread.add(event.shard)
            case AtEnd(shard, _) | Revoked(shard):
                self._unread.discard(shard)
        return event


class DecoderBeside:
    """Decodes what `LabelsBeside` yields: the labels of a source of their own come in other forms than predictions."""

    def __init__(self, source: LabelsBeside, predictions: Decoder, labels: Decoder) -> None:
        self._source, self._predictions, self._labels = source, predictions, labels

    def decode(self, frames: Frames) -> Decoded:
        """By where the frames come from."""
        decoder = self._labels if self._source.holds_labels(frames.shard) else self._predictions
        return decoder.decode(frames)

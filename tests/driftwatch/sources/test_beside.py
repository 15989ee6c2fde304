"""Predictions from one source and labels from another: every event of both, and neither holds up the other."""

from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np

from driftwatch.protocols import Assigned, AtEnd, CommitMark, Event, Held, Tick
from driftwatch.records import Frames, Shard
from driftwatch.sources.beside import REST, WAITED_S, LabelsBeside
from driftwatch.sources.memory import MemorySource

PREDICTIONS, LABELS = Shard("predictions/0"), Shard("labels")


class Clock:
    """Machine time, which passes only where somebody waits."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Scripted(MemorySource):
    """Says these events one after the other, each after so many seconds, and then nothing more."""

    def __init__(self, clock: Clock, script: Sequence[tuple[float, Event]], *, ends: bool = True) -> None:
        super().__init__({})
        self._clock, self._script, self._ends = clock, script, ends
        self.asked_s: list[float] = []
        self.paused: Set[Shard] = frozenset()

    def events(self) -> Iterator[Event]:
        for pause_s, event in self._script:
            self.asked_s.append(self._clock())
            self._clock.now_s += pause_s
            yield event
        while not self._ends:
            self.asked_s.append(self._clock())
            self._clock.now_s += 1.0
            yield Tick()

    def pause(self, shards: Set[Shard]) -> None:
        self.paused = shards


def batch(shard: Shard, at: int = 0, n: int = 1) -> Frames:
    return Frames(shard, [b"{}"] * n, np.arange(at, at + n + 1))


def read(source: LabelsBeside) -> list[Event]:
    """All events; every shard is read from its start."""
    found = []
    for event in source.events():
        if isinstance(event, Assigned):
            source.begin(event.shard, 0)
        found.append(event)
    return found


def messages(events: Sequence[Event], shard: Shard) -> list[bytes]:
    return [bytes(m) for e in events if isinstance(e, Frames) and e.shard == shard for m in e.messages]


def test_all_of_both_comes_in_the_order_of_each_and_labels_are_told_apart() -> None:
    predictions = MemorySource({PREDICTIONS: [b"p%d" % i for i in range(25)]}, batch_size=10)
    labels = MemorySource({LABELS: [b"l%d" % i for i in range(12)]}, batch_size=5)
    both = LabelsBeside(predictions, labels)
    found = read(both)
    assert messages(found, PREDICTIONS) == [b"p%d" % i for i in range(25)]
    assert messages(found, LABELS) == [b"l%d" % i for i in range(12)]
    assert {e.shard: e.holds_labels for e in found if isinstance(e, Assigned)} == {PREDICTIONS: False, LABELS: True}
    assert (both.holds_labels(LABELS), both.holds_labels(PREDICTIONS)) == (True, False)


def test_where_a_shard_goes_on_and_what_is_committed_goes_to_its_own_source() -> None:
    predictions, labels = MemorySource({PREDICTIONS: [b"p"] * 3}), MemorySource({LABELS: [b"l"] * 3})
    both = LabelsBeside(predictions, labels)
    for event in both.events():
        if isinstance(event, Assigned):
            both.begin(event.shard, 1 if event.shard == PREDICTIONS else 2)
    marks: Mapping[Shard, CommitMark] = {
        PREDICTIONS: CommitMark(3),
        LABELS: CommitMark(2),
        Shard("x"): CommitMark(1),
    }
    both.commit(marks)
    assert predictions.committed == {PREDICTIONS: CommitMark(3)}
    assert labels.committed == {LABELS: CommitMark(2)}


def test_a_source_that_makes_one_wait_does_not_hold_up_one_that_has_messages() -> None:
    clock = Clock()
    stock = [(0.0, Assigned(PREDICTIONS)), *((0.01, batch(PREDICTIONS, i)) for i in range(10_000))]
    predictions = Scripted(clock, stock)
    labels = Scripted(clock, [(0.0, Assigned(LABELS)), (0.0, AtEnd(LABELS, final=False))], ends=False)
    found = read(LabelsBeside(predictions, labels, clock=clock))
    assert len(messages(found, PREDICTIONS)) == 10_000
    assert 100 < clock.now_s < 100 * (1 + 1.5 / REST)
    pauses_s = np.diff(labels.asked_s[3:-1])
    assert pauses_s.max() < REST + 2  # and it is not forgotten


def test_labels_in_stock_are_not_held_up_either_and_come_while_predictions_do() -> None:
    clock = Clock()
    slow: list[tuple[float, Event]] = [(0.0, Assigned(PREDICTIONS))]
    slow += [(1.0, Tick() if i % 2 else batch(PREDICTIONS, i)) for i in range(40)]
    fast: list[tuple[float, Event]] = [(0.0, Assigned(LABELS)), *((0.01, batch(LABELS, i)) for i in range(1000))]
    found = read(LabelsBeside(Scripted(clock, slow), Scripted(clock, fast), clock=clock))
    assert len(messages(found, LABELS)) == 1000
    firsts = [i for i, e in enumerate(found) if isinstance(e, Frames) and e.shard == PREDICTIONS]
    before = [len(messages(found[:i], LABELS)) for i in firsts]
    assert before[:2] == [0, 1000]  # they took half as long as the predictions were let rest
    assert clock.now_s < 52


def test_of_two_that_have_messages_neither_waits_for_the_other() -> None:
    clock = Clock()
    sources = [
        Scripted(clock, [(0.0, Assigned(shard)), *((0.01, batch(shard, i)) for i in range(300))])
        for shard in (PREDICTIONS, LABELS)
    ]
    found = [e.shard for e in read(LabelsBeside(*sources, clock=clock)) if isinstance(e, Frames)]
    first = found.index(LABELS)  # the one of which nobody knows yet whether it makes one wait
    assert first <= REST * WAITED_S / 0.01 + 1
    assert found[first:][:200] == [LABELS, PREDICTIONS] * 100


def test_shards_of_one_share_are_told_of_together() -> None:
    clock = Clock()
    shards = [Shard(f"p/{i}") for i in range(3)]
    script: list[tuple[float, Event]] = [*((0.0, Assigned(shard)) for shard in shards)]
    script += [(0.0, Held(frozenset(shards), 6)), (1.0, Tick())]
    labels = MemorySource({LABELS: [b"l"] * 5}, batch_size=1)
    known = Shard("labels of another run")
    found = read(LabelsBeside(Scripted(clock, script), labels, before={known}, clock=clock))
    assert [type(event) for event in found[:4]] == [Assigned] * 3 + [Held]
    held = found[3]
    assert isinstance(held, Held)
    assert (held.of, held.shards, held.beside) == (6, frozenset(shards), {known})


def test_a_group_that_holds_labels_alone_says_nothing_of_the_predictions() -> None:
    clock = Clock()
    script: list[tuple[float, Event]] = [(0.0, Assigned(LABELS)), (0.0, Held(frozenset({LABELS}), 2)), (1.0, Tick())]
    predictions = MemorySource({PREDICTIONS: [b"p"]})
    found = read(LabelsBeside(predictions, Scripted(clock, script), clock=clock))
    (held,) = [event for event in found if isinstance(event, Held)]
    assert held.of is None
    assert held.beside == {PREDICTIONS}


def test_where_predictions_end_the_labels_that_are_there_are_read() -> None:
    clock = Clock()
    script: list[tuple[float, Event]] = [(1.0, Tick()), (1.0, Tick()), (0.0, Assigned(LABELS))]
    script += [(0.01, batch(LABELS, i)) for i in range(5)]
    script += [(1.0, Tick()), (0.0, batch(LABELS, 5)), (1.0, AtEnd(LABELS, final=False))]
    labels = Scripted(clock, script, ends=False)
    found = read(LabelsBeside(MemorySource({PREDICTIONS: [b"p"]}), labels, clock=clock))
    assert len(messages(found, LABELS)) == 6
    assert isinstance(found[-1], AtEnd)


def test_where_labels_end_predictions_go_on() -> None:
    clock = Clock()
    script: list[tuple[float, Event]] = [(0.0, Assigned(PREDICTIONS))]
    script += [(0.5, batch(PREDICTIONS, i)) for i in range(20)]
    both = LabelsBeside(Scripted(clock, script), MemorySource({LABELS: [b"l"]}), clock=clock)
    assert len(messages(read(both), PREDICTIONS)) == 20


def test_told_to_stop_it_reads_no_more_of_either() -> None:
    clock = Clock()
    both = LabelsBeside(Scripted(clock, [], ends=False), Scripted(clock, [], ends=False), clock=clock)
    events = both.events()
    assert isinstance(next(events), Tick)
    both.close()
    assert list(events) == []


def test_only_the_source_of_predictions_is_paused() -> None:
    clock = Clock()
    predictions, labels = Scripted(clock, []), Scripted(clock, [])
    LabelsBeside(predictions, labels, clock=clock).pause({PREDICTIONS})
    assert (predictions.paused, labels.paused) == ({PREDICTIONS}, frozenset())

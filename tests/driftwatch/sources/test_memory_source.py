"""The in-memory source keeps the promises of every source."""

from itertools import islice

from driftwatch.protocols import Assigned, AtEnd, Tick
from driftwatch.records import Frames, Shard
from driftwatch.sources.memory import MemorySource

A, B = Shard("a"), Shard("b")


def started(source: MemorySource, *shards: Shard):
    events = source.events()
    for _ in shards:
        assigned = next(events)
        assert isinstance(assigned, Assigned)
        source.begin(assigned.shard, 0)
    return events


def test_shards_are_read_in_turn_and_each_ends():
    events = started(MemorySource({"a": [b"1", b"2", b"3"], "b": [b"4"]}, batch_size=2), A, B)
    seen = [(e.shard, e.messages if isinstance(e, Frames) else e.final) for e in events]
    assert seen == [(A, [b"1", b"2"]), (B, [b"4"]), (A, [b"3"]), (B, True), (A, True)]


def test_it_ticks_while_all_that_is_unread_is_paused_and_goes_on_after():
    source = MemorySource({"a": [b"1"], "b": []})
    events = started(source, A, B)
    source.pause({A})
    assert next(events) == AtEnd(B, final=True)
    assert list(islice(events, 3)) == [Tick()] * 3
    source.pause(frozenset())
    assert next(events).messages == [b"1"]


def test_a_paused_shard_waits_while_another_is_read():
    source = MemorySource({"a": [b"1"], "b": [b"2"]}, batch_size=1)
    events = started(source, A, B)
    source.pause({A})
    assert next(events).messages == [b"2"]
    source.pause(frozenset())
    assert [e.shard for e in events if isinstance(e, Frames)] == [A]


def test_a_closed_source_yields_nothing_more():
    source = MemorySource({"a": [b"1", b"2"]}, batch_size=1)
    events = started(source, A)
    next(events)
    source.close()
    assert list(events) == []

"""A shard that moves between members, each with a store of its own: every row is counted once, whoever judges it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sidecar import events
from test_pipeline import Stopped, over_rows, over_time, parts

from driftwatch import checkpoint
from driftwatch.pipeline import Pipeline
from driftwatch.protocols import Assigned, CommitMark, Event, Held, Revoked
from driftwatch.records import Frames, Shard
from driftwatch.store import Store
from driftwatch.window import ShardState, Windower

LOG = [msgspec.json.encode(event) for event in events(430)]
OTHER = Shard("other/0")


class Group:
    """The broker's part: one log, and what was committed of it."""

    def __init__(self, shard: Shard, messages: list[bytes], start: int = 0) -> None:
        self.shard, self.messages, self.start = shard, messages, start
        self.committed: CommitMark | None = None

    def assigned(self) -> Assigned:
        return Assigned(self.shard, self.start, len(self.messages), self.committed)


class Share:
    """A source that reads some batches of the log, as the member that has it now, then stops."""

    def __init__(self, group: Group, batches: int, size: int, end: str) -> None:
        self.group, self.batches, self.size, self.how = group, batches, size, end
        self.position = -1
        self.stop: Callable[[], None] = lambda: None

    def events(self) -> Iterator[Event]:
        yield self.group.assigned()
        yield Held(frozenset({self.group.shard}))
        for _ in range(self.batches):
            at = self.position
            some = self.group.messages[at : at + self.size]
            if not some:
                break
            self.position += len(some)
            yield Frames(self.group.shard, some, np.arange(at, self.position + 1))
        if self.how == "killed":
            raise Stopped
        if self.how == "revoked":
            yield Revoked(self.group.shard)
        self.stop()

    def begin(self, shard: Shard, position: int) -> None:
        self.position = position

    def pause(self, shards: Set[Shard]) -> None:
        """One shard is never ahead of another."""

    def commit(self, marks: Mapping[Shard, CommitMark]) -> None:
        self.group.committed = marks.get(self.group.shard, self.group.committed)

    def close(self) -> None:
        """Told by `stop`."""


def live(store: Store, source: Share, **changed: Any) -> Pipeline:
    """One life of a member."""
    windower = changed.pop("windower", None) or over_time()
    pipeline = Pipeline(parts(source, store, windower, **changed), store.load())
    source.stop = pipeline.stop
    try:
        pipeline.run()
    except Stopped:
        assert source.how == "killed"
    return pipeline


def rows(*stores: Store) -> Counter[str]:
    """How many rows the decisions hold, by window."""
    found: Counter[str] = Counter()
    for store in stores:
        for line in store.decisions():
            window = msgspec.json.decode(line)["window"]
            found[window["start"]] += window["n_records"]
    return found


LIVES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6), st.sampled_from(["killed", "revoked", "ended"])))


@settings(max_examples=40)
@given(lives=LIVES, size=st.integers(1, 90))
def test_however_often_a_shard_moves_each_row_is_counted_once(lives: list[tuple[int, int, str]], size: int) -> None:
    group, members = Group(Shard("t/0"), LOG), [Store.open(None, model="credit") for _ in range(2)]
    for who, batches, end in lives:
        live(members[who], Share(group, batches, size, end))
    live(members[0], Share(group, 1000, size, "ended"))
    alone = Store.open(None, model="credit")
    live(alone, Share(Group(Shard("t/0"), LOG), 1000, size, "ended"))
    assert rows(*members) == rows(alone)
    assert len(rows(alone)) == 8


def test_what_the_store_knows_of_another_members_shards_goes() -> None:
    store = Store.open(None, model="credit")
    live(store, Share(Group(OTHER, LOG), 3, 40, "ended"))
    assert {key.shard for key in store.load().panes} == {OTHER}
    live(store, Share(Group(Shard("t/0"), LOG), 1, 40, "ended"))
    remembered = store.load()
    assert {key.shard for key in remembered.panes} == {"t/0"}
    assert remembered.shards[OTHER].position is None
    assert {chunk.shard for chunk in remembered.seen} == {"t/0"}


def test_what_retention_took_is_counted_and_the_rest_is_read() -> None:
    store, said = Store.open(None, model="credit"), list[str]()
    live(store, Share(Group(Shard("t/0"), LOG), 2, 50, "ended"))
    pipeline = live(store, Share(Group(Shard("t/0"), LOG, 130), 1000, 50, "ended"), warn=said.append)
    assert pipeline.outcomes["used"] == len(LOG) - 130
    assert said == ["t/0: 30 records were gone before they were read; the topic's retention is too short"]


def test_a_log_made_anew_under_the_name_is_read_from_its_start() -> None:
    store, said = Store.open(None, model="credit"), list[str]()
    live(store, Share(Group(Shard("t/0"), LOG), 1000, 50, "ended"))
    pipeline = live(store, Share(Group(Shard("t/0"), LOG[:60]), 1000, 50, "ended"), warn=said.append)
    assert pipeline.outcomes["used"] + pipeline.outcomes["late"] == 60
    assert [line.partition(":")[0] for line in said] == ["t/0 holds less than was read of it"]


@pytest.mark.parametrize("made", [over_rows, over_time])
@pytest.mark.parametrize("how", ["ended", "killed"])
def test_what_was_read_of_a_log_that_is_gone_is_judged_with_what_comes_under_its_name(
    made: Callable[[], Windower], how: str
) -> None:
    store, alone = Store.open(None, model="credit"), Store.open(None, model="credit")
    live(store, Share(Group(Shard("t/0"), LOG[:135]), 1000, 45, "ended"), windower=made())
    anew = Group(Shard("t/0"), LOG[135:])
    anew.messages = LOG[135:200]
    live(store, Share(anew, 1, 45, how), windower=made())
    anew.messages = LOG[135:]
    live(store, Share(anew, 1000, 45, "ended"), windower=made())
    live(alone, Share(Group(Shard("t/0"), LOG), 1000, 45, "ended"), windower=made())
    assert rows(store) == rows(alone)


class Two(Share):
    """A source of two shards that are assigned one after the other."""

    def __init__(self, of: int | None, *reads: tuple[Shard, int, int]) -> None:
        super().__init__(Group(OTHER, LOG), 0, 0, "ended")
        self.of, self.reads = of, reads

    def events(self) -> Iterator[Event]:
        shards = Shard("a"), Shard("b")
        for shard in shards:
            yield Assigned(shard, 0, len(LOG))
        yield Held(frozenset(shards), self.of)
        for shard, start, end in self.reads:
            yield Frames(shard, LOG[start:end], np.arange(start, end + 1))
        self.stop()


def windows(store: Store) -> list[tuple[str, int, int, Any]]:
    """Every decision: its window's start, rows, part and share."""
    found = [msgspec.json.decode(line) for line in store.decisions()]
    return [(d["window"]["start"][-6:], d["window"]["n_records"], d["part"], d["share"]) for d in found]


def test_after_a_restart_no_window_is_judged_before_all_shards_are_there() -> None:
    store = Store.open(None, model="credit")
    live(store, Two(2, (Shard("a"), 0, 200), (Shard("b"), 0, 30)))
    live(store, Two(2, (Shard("b"), 30, 200)))
    assert windows(store) == [(start, 100, 1, None) for start in ("13:20Z", "14:10Z", "15:00Z")]


def test_a_share_of_the_shards_is_named() -> None:
    store = Store.open(None, model="credit")
    live(store, Two(3, (Shard("a"), 0, 100), (Shard("b"), 0, 100)))
    assert windows(store) == [("13:20Z", 100, 1, {"shards": ["a", "b"], "of": 3})]


def test_what_was_read_of_a_log_that_is_made_anew_is_judged() -> None:
    shard = Shard("t/0")
    group = Group(shard, LOG[80:])

    class Anew(Share):
        def events(self) -> Iterator[Event]:
            for event in super().events():
                yield replace(event, anew=True) if isinstance(event, Assigned) else event

    store = Store.open(None, model="credit")
    live(store, Share(Group(shard, LOG), 1, 80, "ended"))
    live(store, Anew(group, 1000, 50, "ended"))
    assert set(rows(store).values()) == {50}


def test_a_mark_says_who_read_how_far_and_what_is_judged() -> None:
    mark = checkpoint.mark(ShardState(90, 95, (), 50.0), 60, "me")
    assert mark == CommitMark(60, {"o": "me", "r": 95, "f": 50.0})
    assert checkpoint.judged_before(mark) == (95, 50.0)
    assert checkpoint.judged_before(checkpoint.mark(ShardState(90, 95), 60, "me")) == (95, None)
    assert checkpoint.judged_before(CommitMark(60)) == (0, None)
    assert checkpoint.judged_before(None) == (0, None)


@pytest.mark.parametrize(
    ("committed", "is_ours"),
    [
        (None, True),
        (CommitMark(500, {"o": "me"}), True),
        (CommitMark(5, {"o": "you"}), False),
        (CommitMark(100), True),  # a broker that keeps no metadata
        (CommitMark(101), False),
    ],
)
def test_the_store_is_gone_on_from_where_nobody_else_has_read(committed: CommitMark | None, is_ours: bool) -> None:
    assert checkpoint.is_ours(committed, 100, "me") is is_ours

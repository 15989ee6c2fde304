"""Partitions that members pass around, die with and come back to: each row that is not late stands in one part only.

The model is plain: the rows themselves. A window's table has a cell for every row, so that what is judged can be told
row by row; what a member judged counts once it is committed.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_pipeline import STREAM, parts
from window_model import RowCounter, rows_of

from driftwatch.count_window import CountWindower
from driftwatch.monitor import Monitor
from driftwatch.pipeline import Pipeline
from driftwatch.protocols import Assigned, AtEnd, CommitMark, Event, Held, Revoked
from driftwatch.records import Frames, Judgement, Shard, Window
from driftwatch.store import Store
from driftwatch.time_window import TimeWindower
from driftwatch.window import CountWindows, TimeWindows, Windower

N_ROWS, MEMBERS = 240, 3
COUNTER = RowCounter(N_ROWS)
MADE: dict[str, Callable[[], Windower]] = {
    "tumbling": lambda: TimeWindower(TimeWindows(50.0, 50.0, 20.0), STREAM, lambda stream, start_s: COUNTER),
    "sliding": lambda: TimeWindower(TimeWindows(100.0, 50.0, 20.0), STREAM, lambda stream, start_s: COUNTER),
    "rows": lambda: CountWindower(CountWindows(35), STREAM, lambda stream, start_s: COUNTER),
}


@dataclass
class Broker:
    """The partitions and what was committed of them."""

    logs: dict[Shard, list[bytes]]
    committed: dict[Shard, CommitMark] = field(default_factory=dict)

    def assigned(self, shard: Shard) -> Assigned:
        return Assigned(shard, 0, len(self.logs[shard]), self.committed.get(shard))


class Watching(Monitor):
    """Notes which rows each window that it judges holds."""

    def __init__(self) -> None:
        super().__init__({}, min_records=1)
        self.judged: list[tuple[float, int]] = []

    def judge(self, window: Window) -> Judgement:
        self.judged += [(window.end_s, row) for row in rows_of(window.table)]
        return super().judge(window)


class Member:
    """A loop that is turned event by event; it can be killed between two, and goes on from its store."""

    def __init__(self, broker: Broker, made: Callable[[], Windower]) -> None:
        self.broker, self.made = broker, made
        self.store = Store.open(None, model="credit")
        self.positions: dict[Shard, int] = {}
        self.kept: list[tuple[float, int]] = []
        self.start()

    def start(self) -> None:
        """A new process over what is stored."""
        self.monitor, self.windower = Watching(), self.made()
        source: Any = self
        made = parts(source, self.store, self.windower, monitor=self.monitor, committed=self.keep)
        self.pipeline = Pipeline(made, self.store.load())
        held, self.positions = set(self.positions), {}
        for shard in sorted(held):
            self.turn(self.broker.assigned(shard))
        if held:  # a group that gives nothing says nothing
            self.turn(Held(frozenset(held)))

    def keep(self) -> None:
        self.kept += self.monitor.judged
        self.monitor.judged.clear()

    def turn(self, event: Event) -> None:
        """What `run` does with one event."""
        assert self.pipeline._take(event)
        if windows := self.windower.closed():
            self.pipeline._save(windows)

    def save(self, windows: Any = ()) -> None:
        self.pipeline._save(windows)

    def read(self, shard: Shard, n: int) -> None:
        at = self.positions[shard]
        if some := self.broker.logs[shard][at : at + n]:
            self.positions[shard] = at + len(some)
            self.turn(Frames(shard, some, np.arange(at, at + len(some) + 1)))

    def give(self, shard: Shard) -> None:
        self.turn(self.broker.assigned(shard))
        self.turn(Held(frozenset(self.positions)))

    def take_away(self, shard: Shard) -> None:
        del self.positions[shard]
        self.turn(Revoked(shard))

    # As a source ----------------------------------------------------------------------------------------------------

    def events(self) -> Iterator[Event]:
        yield from ()

    def begin(self, shard: Shard, position: int) -> None:
        self.positions[shard] = position

    def pause(self, shards: Set[Shard]) -> None:
        """One partition may run ahead of the others: what is paused is read later, or not."""

    def commit(self, marks: Mapping[Shard, CommitMark]) -> None:
        self.broker.committed |= {s: m for s, m in marks.items() if s in self.positions}

    def close(self) -> None:
        """It has no end."""


def logs_of(shares: list[int], jitter: list[float]) -> dict[Shard, list[bytes]]:
    """Rows of one stream, a second each and out of order within the lateness, divided among partitions."""
    logs: dict[Shard, list[bytes]] = {Shard(f"t/{p}"): [] for p in sorted(set(shares))}
    for i, p in enumerate(shares):
        time_s = 1e9 + i + jitter[i % len(jitter)]
        event = {"id": f"r{i}", "time": time_s, "features": {"x": float(i)}}
        logs[Shard(f"t/{p}")].append(msgspec.json.encode(event))
    return logs


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 2), st.integers(1, 40)),
        st.tuples(st.just("move"), st.integers(0, 2), st.integers(0, MEMBERS - 1)),
        st.tuples(st.just("kill"), st.integers(0, MEMBERS - 1), st.just(0)),
        st.tuples(st.just("die"), st.integers(0, MEMBERS - 1), st.integers(0, MEMBERS - 1)),
        st.tuples(st.just("save"), st.integers(0, MEMBERS - 1), st.just(0)),
    ),
    min_size=12,
    max_size=50,
)


def passed_around(kind: str, steps: list[tuple[str, int, int]], shares: list[int], jitter: list[float]) -> None:
    """Plays the steps, reads the rest, and counts."""
    broker = Broker(logs_of(shares, jitter))
    shards = list(broker.logs)
    members = [Member(broker, MADE[kind]) for _ in range(MEMBERS)]
    holder = {shard: i % 2 for i, shard in enumerate(shards)}
    for shard, who in holder.items():
        members[who].give(shard)
    for what, which, how in steps:
        shard = shards[which % len(shards)]
        if what == "read":
            members[holder[shard]].read(shard, how)
        elif what == "kill":
            members[which].start()
        elif what == "save":
            members[which].save()
        elif what == "die":  # and its partitions go to another before it is there again, which it is never told
            lost = [] if which == how else [s for s, who in holder.items() if who == which]
            for each in lost:
                del members[which].positions[each]
                holder[each] = how
                members[how].give(each)
            members[which].start()
        elif how != holder[shard]:
            members[holder[shard]].take_away(shard)
            holder[shard] = how
            members[how].give(shard)
    for member in members:
        while any(at < len(broker.logs[shard]) for shard, at in member.positions.items()):
            for shard in list(member.positions):
                member.read(shard, 30)
        for shard in list(member.positions):
            member.turn(AtEnd(shard, final=True))
        if member.positions:  # one that holds nothing never comes to an end
            member.save(member.windower.finish())
    judged = Counter(pair for member in members for pair in member.kept)
    assert max(judged.values()) == 1
    in_how_many = Counter(row for _, row in judged)
    assert in_how_many == dict.fromkeys(range(N_ROWS), 2 if kind == "sliding" else 1)


THERE_AND_BACK = [("read", 0, 80), ("save", 0, 0), ("die", 0, 1), ("read", 0, 120), ("save", 1, 0), ("move", 0, 0)]
STORIES = {
    "steps": STEPS,
    "shares": st.lists(st.integers(0, 2), min_size=N_ROWS, max_size=N_ROWS),
    "jitter": st.lists(st.floats(0, 15), min_size=1, max_size=7),
}


@pytest.mark.parametrize("kind", MADE)
@settings(max_examples=15, deadline=None)
@given(story=st.fixed_dictionaries(STORIES))
@example(story={"steps": THERE_AND_BACK, "shares": [0] * N_ROWS, "jitter": [0.0]})
def test_each_row_stands_in_one_part_whoever_holds_its_partition_and_whoever_dies(
    kind: str, story: dict[str, Any]
) -> None:
    passed_around(kind, **story)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MADE)
@settings(max_examples=400, deadline=None)
@given(story=st.fixed_dictionaries(STORIES))
def test_each_row_stands_in_one_part_through_many_more_stories(kind: str, story: dict[str, Any]) -> None:
    passed_around(kind, **story)

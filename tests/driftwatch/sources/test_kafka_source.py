"""The Kafka source over a client that plays a script: what the loop hears, and what the client is told to do."""

from collections.abc import Callable, Iterable, Mapping, Set

import pytest

from driftwatch.errors import ConfigError, SourceError
from driftwatch.protocols import Assigned, AtEnd, CommitMark, Event, Held, Revoked, Tick
from driftwatch.records import Frames, Shard
from driftwatch.sources.kafka import ASK_S, LOOK_S, QUIET_S, KafkaSource
from driftwatch.sources.kafka_client import Batch, Bounds, BrokerUnavailable, Change, Partition, Polled, merged

P0, P1 = Partition("a/b", 0), Partition("a/b", 1)
S0, S1 = Shard("a/b/0"), Shard("a/b/1")


class Script:
    """A client: each poll plays the next step; then nothing comes."""

    def __init__(self, *steps: Polled) -> None:
        self.trouble: str | None = None
        self.steps = list(steps)
        self.is_away = False
        self.on_record: dict[Partition, Bounds] = {}
        self.begun: list[dict[Partition, int]] = []
        self.paused: list[set[Partition]] = []
        self.commits: list[dict[Partition, tuple[int, str]]] = []
        self.done: list[Callable[[bool], None]] = []
        self.n_partitions, self.asked = 2, 0
        self.positions: dict[Partition, int] = {}

    def poll(self) -> Polled:
        return self.steps.pop(0) if self.steps else Polled()

    def read_from(self, offsets: Mapping[Partition, int]) -> None:
        self.begun.append(dict(offsets))

    def pause(self, partitions: Set[Partition]) -> None:
        self.paused.append(set(partitions))

    def bounds(self, partitions: Iterable[Partition]) -> dict[Partition, Bounds]:
        if self.is_away:
            raise BrokerUnavailable("away")
        self.trouble = None
        return {p: self.on_record.get(p, Bounds(0, 100, None)) for p in partitions}

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {p: found.end for p, found in self.bounds(partitions).items()}

    def position(self, partition: Partition) -> int:
        return self.positions.get(partition, 0)

    def topics(self) -> dict[str, int]:
        if self.is_away:
            raise BrokerUnavailable("away")
        self.asked += 1
        self.trouble = None
        return {"a/b": self.n_partitions}

    def known_end(self, partition: Partition) -> int | None:
        return 100

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], done: Callable[[bool], None]) -> None:
        self.commits.append(dict(offsets))
        self.done.append(done)

    def close(self) -> None:
        """Nothing is open."""


class Loop:
    """A pipeline that begins every shard at `position`; time stands still but for what a test adds."""

    def __init__(self, script: Script) -> None:
        self.script, self.now_s, self.said = script, 0.0, list[str | None]()
        self.source = KafkaSource(lambda: script, self.said.append, clock=lambda: self.now_s, sleep=lambda s: None)
        self.position: dict[Shard, int] = {}
        self._events = self.source.events()

    def hear(self, n: int) -> list[Event]:
        """The next events that are no ticks; fewer where so many ticks come in a row."""
        found: list[Event] = []
        ticks = 0
        while len(found) < n and ticks < 20:
            event = next(self._events)
            ticks = ticks + 1 if isinstance(event, Tick) else 0
            if isinstance(event, Assigned):
                self.source.begin(event.shard, self.position.get(event.shard, event.start))
            if not isinstance(event, Tick):
                found.append(event)
        return found


def batch(partition: Partition, *offsets: int) -> Batch:
    return Batch(partition, [b"{}"] * len(offsets), list(offsets), [1000 + n if n else -1 for n in offsets])


def assigned(*partitions: Partition) -> Polled:
    return Polled([Change("assigned", partitions)])


def test_what_is_assigned_is_read_from_where_the_loop_says() -> None:
    script = Script(assigned(P0, P1), Polled([], [batch(P0, 7, 9), batch(P1, 0)]))
    script.on_record[P0] = Bounds(3, 10, (5, '{"o":"x","r":8}'))
    loop = Loop(script)
    loop.position[S0] = 7
    heard = loop.hear(5)
    assert heard[0] == Assigned(S0, 3, 10, CommitMark(5, {"o": "x", "r": 8}))
    assert heard[1:3] == [Assigned(S1, 0, 100, None), Held(frozenset({S0, S1}), 2)]
    assert script.begun == [{P0: 7, P1: 0}]
    first, second = heard[3:]
    assert isinstance(first, Frames)
    assert isinstance(second, Frames)
    assert (first.shard, first.positions.tolist()) == (S0, [7, 9, 10])
    assert first.arrived_s is not None
    assert first.arrived_s.tolist() == [1.007, 1.009]
    assert second.arrived_s is not None
    assert str(second.arrived_s.tolist()) == "[nan]"
    assert loop.source.lag == 90 + 99


def test_metadata_that_is_not_ours_says_nothing() -> None:
    script = Script(assigned(P0))
    script.on_record[P0] = Bounds(0, 10, (5, "written by a tool"))
    assert Loop(script).hear(1) == [Assigned(S0, 0, 10, CommitMark(5, {}))]


def test_records_that_came_with_a_change_of_partitions_are_not_used() -> None:
    moved = Polled([Change("revoked", (P0,)), Change("assigned", (P0,))], [batch(P0, 1)])
    script = Script(assigned(P0), Polled([], [batch(P0, 0)]), moved, Polled([], [batch(P0, 0)]))
    heard = [type(event) for event in Loop(script).hear(7)]
    assert heard == [Assigned, Held, Frames, Revoked, Assigned, Held, Frames]


def test_a_partition_that_is_no_longer_ours_is_not_committed() -> None:
    script = Script(assigned(P0, P1), Polled([Change("revoked", (P0,))]))
    loop = Loop(script)
    loop.hear(4)
    loop.source.commit({S0: CommitMark(4, {}), S1: CommitMark(5, {"o": "x"})})
    assert script.commits == [{P1: (5, '{"o":"x"}')}]


def test_one_commit_is_on_its_way_and_one_that_failed_is_made_again() -> None:
    loop = Loop(script := Script(assigned(P0)))
    loop.hear(2)
    for position in (1, 2, 3):
        loop.source.commit({S0: CommitMark(position, {})})
    assert script.commits == [{P0: (1, "{}")}]
    script.done.pop()(False)
    loop.now_s += 2
    loop.hear(1)
    assert script.commits[1:] == [{P0: (3, "{}")}]
    script.done.pop()(True)
    loop.hear(1)
    assert len(script.commits) == 2


def test_the_broker_says_where_a_silent_partition_ends() -> None:
    script = Script(assigned(P0, P1))
    loop = Loop(script)
    loop.position[S0] = 100
    loop.hear(3)
    assert loop.hear(1) == []
    loop.now_s += QUIET_S
    script.is_away = True
    assert loop.hear(1) == []
    assert loop.said == []  # in doubt, and asked a moment ago
    script.is_away = False
    loop.now_s += ASK_S
    assert loop.hear(2) == [AtEnd(S0, final=False)]  # the other has records left
    loop.now_s += QUIET_S
    script.positions[P1] = 100  # which are no records
    assert loop.hear(2) == [AtEnd(S1, final=False)]


def test_an_outage_is_said_once_and_so_is_its_end() -> None:
    script = Script(assigned(P0))
    loop = Loop(script)
    loop.hear(2)
    loop.source.commit({S0: CommitMark(1, {})})
    script.done.pop()(True)
    script.trouble, script.is_away = "refused", True
    for _ in range(5):
        loop.now_s += ASK_S
        loop.hear(1)
    loop.source.commit({S0: CommitMark(2, {})})
    assert loop.said == ["Kafka does not answer: refused"]
    assert len(script.commits) == 1
    script.is_away = False
    loop.now_s += ASK_S
    loop.hear(1)
    assert loop.said == ["Kafka does not answer: refused", None]
    loop.hear(1)
    assert len(script.commits) == 2


def test_one_connection_of_many_that_fails_is_no_outage() -> None:
    loop = Loop(script := Script(assigned(P0)))
    loop.hear(2)
    script.trouble = "broker 3: refused"
    loop.now_s += ASK_S
    loop.hear(1)
    assert loop.said == []


def test_a_topic_that_is_gone_is_looked_for_and_what_was_counted_of_it_is_kept() -> None:
    script = Script(assigned(P0), Polled([], [batch(P0, 0)]))
    loop = Loop(script)
    loop.hear(3)
    loop.source.commit({S0: CommitMark(1, {})})
    script.done.pop()(True)
    script.steps = [Polled([Change("revoked", (P0,)), Change("assigned", ())])]
    script.n_partitions = 0
    assert loop.hear(1) == [AtEnd(S0, final=False)]
    assert loop.said == ["the topic a/b does not exist"]
    asked = script.asked
    loop.hear(1)
    assert script.asked == asked
    script.n_partitions = 1
    loop.now_s += LOOK_S
    loop.hear(1)
    assert loop.said == ["the topic a/b does not exist", None]
    script.steps = [assigned(P0)]
    assert loop.hear(2) == [Assigned(S0, 0, 100, None, anew=True), Held(frozenset({S0}), 1)]


def test_a_topic_that_was_never_there_is_said() -> None:
    loop = Loop(script := Script())
    script.n_partitions = 0
    assert loop.hear(1) == []
    assert loop.said == []
    loop.now_s += LOOK_S
    loop.hear(1)
    assert loop.said == ["the topic a/b does not exist"]


def test_it_connects_once_a_broker_answers() -> None:
    said: list[str | None] = []
    tries = iter([BrokerUnavailable("refused"), BrokerUnavailable("refused"), None])

    def connect() -> Script:
        if (error := next(tries)) is not None:
            raise error
        return Script(assigned(P0))

    events = KafkaSource(connect, said.append, clock=lambda: 0.0, sleep=lambda s: None).events()
    assert [next(events) for _ in range(4)] == [Tick(), Tick(), Tick(), Assigned(S0, 0, 100)]
    assert said == ["Kafka does not answer: refused"]


def test_an_offset_that_the_broker_does_not_have_is_asked_about_again() -> None:
    script = Script(assigned(P0), Polled([], [], {P0}), Polled([], [batch(P0, 60)]))
    loop = Loop(script)
    loop.hear(2)
    script.on_record[P0] = Bounds(50, 100, None)
    loop.position[S0] = 50
    heard = loop.hear(2)
    assert heard[0] == Assigned(S0, 50, 100)
    assert isinstance(heard[1], Frames)
    assert script.begun == [{P0: 0}, {P0: 50}]


def test_offsets_that_begin_anew_are_asked_about() -> None:
    script = Script(assigned(P0), Polled([], [batch(P0, 0)]))
    loop = Loop(script)
    loop.position[S0] = 40
    heard = loop.hear(3)
    assert heard[2] == Assigned(S0, 0, 100)


def test_paused_shards_stay_paused_over_a_new_share() -> None:
    script = Script(assigned(P0, P1), assigned(P0, P1))
    loop = Loop(script)
    loop.hear(3)
    loop.source.pause(frozenset({S1}))
    loop.source.pause(frozenset({S1}))
    loop.hear(3)
    assert script.paused == [{P1}, {P1}]


def test_what_driftwatch_sets_itself_cannot_be_set() -> None:
    assert merged({"a": 1, "b": 2}, frozenset({"g"}), {"b": 3}) == {"a": 1, "b": 3}
    with pytest.raises(ConfigError, match=r"`settings` must not set g; got 'x'\."):
        merged({}, frozenset({"g"}), {"g": "x"})


def test_after_the_end_the_last_commit_is_waited_for() -> None:
    class Late(Script):
        def poll(self) -> Polled:
            if self.done:
                self.done.pop()(True)
            return super().poll()

    loop = Loop(script := Late(assigned(P0)))
    loop.hear(2)
    loop.source.close()
    loop.source.commit({S0: CommitMark(1, {})})
    loop.source.commit({S0: CommitMark(2, {})})
    loop.source.leave()
    assert script.commits == [{P0: (1, "{}")}, {P0: (2, "{}")}]


def test_an_error_at_the_end_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Script):
        def close(self) -> None:
            raise SourceError("gone")

    loop = Loop(Broken(assigned(P0)))
    loop.hear(2)
    loop.source.leave()
    assert "not ended in order: gone" in caplog.text

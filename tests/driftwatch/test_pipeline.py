"""The loop: what a transaction moves, when it runs, and that batches, crashes and several shards change nothing."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from sidecar import Event, drifting, events

from driftwatch import app, pipeline
from driftwatch.alarms import Persistence
from driftwatch.count import RowCounter
from driftwatch.count_window import CountWindower
from driftwatch.decision import Decision
from driftwatch.decode.json import JsonDecoder
from driftwatch.metrics import Metrics
from driftwatch.monitor import Monitor
from driftwatch.outbox import Message
from driftwatch.pipeline import Parts, Pipeline
from driftwatch.policy import Policy
from driftwatch.records import Column, Poison, Schema, Stream
from driftwatch.sources.memory import MemorySource
from driftwatch.store import Store, Transaction
from driftwatch.time_window import TimeWindower
from driftwatch.window import CountWindows, TimeWindows, Windower

STREAM = Stream("credit", "1")
SCHEMA = Schema("credit", "1", (Column("x", "numeric", ("features", "x")),))
MadeWindower = Callable[[], Windower]


def over_rows() -> Windower:
    return CountWindower(CountWindows(50), STREAM, lambda stream, start_s: RowCounter())


def over_time() -> Windower:
    return TimeWindower(TimeWindows(50.0, 50.0, 20.0), STREAM, lambda stream, start_s: RowCounter())


class Seen:
    """A sink that keeps lines; with a store, also how many decisions were committed when it heard of each."""

    def __init__(self, store: Store | None = None) -> None:
        self.lines: list[bytes] = []
        self.committed: list[int] = []
        self._store = store

    def write(self, decision: Decision, line: bytes) -> None:
        self.lines.append(line)
        if self._store is not None:
            self.committed.append(len(list(self._store.decisions())))


class Box:
    """Dead letters in memory."""

    def __init__(self) -> None:
        self.letters: list[Poison] = []
        self.dropped = 0

    def add(self, poison: Sequence[Poison], at: str) -> None:
        self.letters += poison


class Stopped(Exception):
    """What ends a life in these tests."""


def parts(source: MemorySource, store: Store, windower: Windower, **changed: Any) -> Parts:
    """Everything that a loop needs, counting rows only."""
    made: dict[str, Any] = {
        "model": "credit",
        "source": source,
        "decoder": JsonDecoder(SCHEMA),
        "windower": windower,
        "monitor": Monitor({}, min_records=1),
        "policy": Policy(Persistence(1, 1, 0.0), {}),
        "store": store,
        "sinks": [],
        "dead_letters": None,
        "metrics": Metrics(CollectorRegistry(), model="credit", version="1"),
        "messages": lambda decision: [],
        "safely": app.once,
        "committed": lambda: None,
        "turned": lambda n_records: None,
        "dedupe": 1000,
    }
    return Parts(**(made | changed))


def encoded(some: Sequence[Event]) -> list[bytes]:
    return [msgspec.json.encode(event) for event in some]


def decided(messages: dict[str, list[bytes]], windower: Windower, *, batch_size: int = 1000) -> list[bytes]:
    """The lines of an undisturbed run."""
    store = Store.open(None, model="credit")
    Pipeline(parts(MemorySource(messages, batch_size=batch_size), store, windower), store.load()).run()
    return list(store.decisions())


@pytest.mark.parametrize("made", [over_rows, over_time])
@settings(max_examples=20)
@given(
    batch_size=st.integers(1, 120),
    lives=st.lists(st.integers(1, 6), max_size=4),
    before=st.booleans(),
    every=st.sampled_from([1, 40, 100_000]),
)
def test_lives_that_end_at_any_save_come_to_what_one_undisturbed_life_does(
    made: MadeWindower, batch_size: int, lives: list[int], before: bool, every: int
) -> None:
    messages = {"a": encoded(events(230))}
    want = decided(messages, made())
    store = Store.open(None, model="credit")

    def live(saves: int | None) -> None:
        left = saves

        def safely(action: Callable[[], None]) -> bool:
            nonlocal left
            if left is not None:
                left -= 1
            if left == 0 and before:
                raise Stopped
            action()
            if left == 0:
                raise Stopped
            return True

        source = MemorySource(messages, batch_size=batch_size)
        Pipeline(parts(source, store, made(), safely=safely), store.load()).run()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "CHECKPOINT_ROWS", every)
        for saves in lives:
            try:
                live(saves)
            except Stopped:
                continue
        live(None)
    assert list(store.decisions()) == want


@settings(max_examples=20)
@given(batch_size=st.integers(1, 120), share=st.lists(st.integers(0, 2), min_size=230, max_size=230))
def test_windows_of_time_hold_the_same_rows_however_shards_and_batches_interleave(
    batch_size: int, share: list[int]
) -> None:
    whole = encoded(events(230))
    one = [msgspec.json.decode(line)["window"] for line in decided({"a": whole}, over_time())]
    shards = {name: [m for m, s in zip(whole, share, strict=True) if s == i] for i, name in enumerate("abc")}
    found = [msgspec.json.decode(line) for line in decided(shards, over_time(), batch_size=batch_size)]
    counts: dict[str, int] = {}
    for decision in found:
        counts[decision["window"]["end"]] = counts.get(decision["window"]["end"], 0) + decision["window"]["n_records"]
    assert counts == {window["end"]: window["n_records"] for window in one}


def test_a_sink_hears_of_a_decision_only_when_it_is_committed(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state.db", model="credit")
    sink = Seen(store)
    source = MemorySource({"a": encoded(events(120))}, batch_size=10)
    Pipeline(parts(source, store, over_rows(), sinks=[sink]), store.load()).run()
    assert sink.lines == list(store.decisions())
    assert sink.committed == [1, 2, 3]
    store.close()


def test_a_position_moves_with_what_its_rows_changed_and_then_the_source_is_told(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state.db", model="credit")
    source = MemorySource({"a": encoded(events(120))}, batch_size=10)
    Pipeline(parts(source, store, over_rows()), store.load()).run()
    assert store.load().shards["a"].position == 120
    assert source.committed["a"].position == 120  # the last window was judged as it is, so nothing is open
    assert store.load().panes == {}
    store.close()


@pytest.mark.parametrize(("rows", "expected"), [(1, 12), (25, 4), (100_000, 0)])
def test_it_saves_after_so_many_rows_where_no_window_closes(
    monkeypatch: pytest.MonkeyPatch, rows: int, expected: int
) -> None:
    monkeypatch.setattr(pipeline, "CHECKPOINT_ROWS", rows)
    store, saves = Store.open(None, model="credit"), []
    monkeypatch.setattr(store, "save", saves.append)
    wide = CountWindower(CountWindows(1000), STREAM, lambda stream, start_s: RowCounter())
    source = MemorySource({"a": encoded(events(120))}, batch_size=10)
    Pipeline(parts(source, store, wide, clock=lambda: 0.0), store.load()).run()
    assert len(saves) == expected + 1  # and the end's


def test_it_saves_every_two_seconds_where_rows_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    store, saves = Store.open(None, model="credit"), []
    monkeypatch.setattr(store, "save", saves.append)
    now_s = iter(range(1000))
    wide = CountWindower(CountWindows(1000), STREAM, lambda stream, start_s: RowCounter())
    source = MemorySource({"a": encoded(events(10))}, batch_size=1)
    Pipeline(parts(source, store, wide, clock=lambda: float(next(now_s))), store.load()).run()
    assert len(saves) >= 5


def test_stop_ends_it_with_one_transaction_and_judges_nothing_that_is_open() -> None:
    store = Store.open(None, model="credit")
    source = MemorySource({"a": encoded(events(120))}, batch_size=10)
    loop = Pipeline(
        parts(source, store, over_rows(), turned=lambda n: loop.stop() if loop.outcomes["used"] == 70 else None),
        store.load(),
    )
    loop.run()
    remembered = store.load()
    assert [msgspec.json.decode(line)["window"]["n_records"] for line in store.decisions()] == [50]
    assert remembered.shards["a"].position == 70
    assert [pane.n_records for pane in remembered.panes.values()] == [20]


def test_told_to_stop_while_nothing_can_be_saved_it_leaves_everything_for_the_next_start() -> None:
    store = Store.open(None, model="credit")
    source = MemorySource({"a": encoded(events(120))}, batch_size=10)
    sink = Seen()
    loop = Pipeline(parts(source, store, over_rows(), sinks=[sink], safely=lambda action: False), store.load())
    loop.run()
    assert sink.lines == []
    assert store.load().shards == {}


def test_messages_are_saved_with_the_decision_that_calls_for_them(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state.db", model="credit")
    saved: list[Transaction] = []
    save = store.save
    source = MemorySource({"a": encoded(events(100))})

    def messages(decision: Decision) -> list[Message]:
        return [Message(f"{decision.window.end}:opened", "hook", b"{}", 0.0)]

    made = parts(source, store, over_rows(), messages=messages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "save", lambda changes: (saved.append(changes), save(changes))[1])
        Pipeline(made, store.load()).run()
    assert [(len(t.decisions), len(t.messages)) for t in saved] == [(2, 2), (0, 0)]
    outbox = store.outbox()
    assert len(outbox.due(1.0)) == 2
    outbox.close()
    store.close()


def test_every_record_has_one_outcome_in_the_counts_and_in_the_metrics() -> None:
    rows = drifting((0,))[:100]
    rows[50] = {**rows[50], "time": rows[50]["time"] + 40 * 86_400}
    rows[90] = {**rows[90], "time": rows[90]["time"] - 3600}
    messages = [*encoded(rows), *encoded(rows[:5]), b"{", b""]
    registry, box, store = CollectorRegistry(), Box(), Store.open(None, model="credit")
    metrics = Metrics(registry, model="credit", version="1")
    made = parts(MemorySource({"a": messages}), store, over_time(), metrics=metrics, dead_letters=box)
    loop = Pipeline(made, store.load())
    loop.run()
    want = {"used": 98, "ahead": 1, "late": 1, "duplicate": 5, "poison": 1, "tombstone": 1}
    assert dict(loop.outcomes) == want
    assert sum(want.values()) == len(messages)
    labels = {"model": "credit", "version": "1"}
    for outcome, n in want.items():
        assert registry.get_sample_value("driftwatch_records_total", {**labels, "outcome": outcome}) == n
    assert [(letter.reason, letter.payload) for letter in box.letters] == [
        ("structure", b"{"),
        ("ahead", messages[50]),
    ]

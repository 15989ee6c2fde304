"""What the pipeline remembers comes back from the store as it went in."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.summary import Sample, Table
from driftwatch import checkpoint
from driftwatch.alarms import OpenAlarm, PolicyState, StreamState
from driftwatch.dedupe import Seen
from driftwatch.errors import StateError
from driftwatch.records import Shard, Stream
from driftwatch.store import Remembered, ShardRow, Store, StoredDecision, Transaction
from driftwatch.window import Pane, PaneKey, ShardState

NOTHING = Remembered(shards={}, panes={}, seen=[], policy=None, parts={})
TIMES = st.floats(-1e9, 1e10)
STATES = st.builds(
    ShardState,
    position=st.none() | st.integers(0, 2**62),
    read_to=st.integers(0, 2**62),
    clock_s=st.lists(TIMES, max_size=3).map(tuple),
    open_from_s=st.none() | TIMES,
)


def table(seed: int) -> Table:
    rng = np.random.default_rng(seed)
    sample = Sample.empty(100, 4)
    sample.add(rng.integers(0, 2**32, 300).astype(np.uint32), lambda rows: rng.normal(size=(len(rows), 4)))
    return Table(rng.integers(0, 1000, 20), rng.normal(size=7), (sample,))


@settings(max_examples=30)
@given(st.dictionaries(st.text("abc/#0", min_size=1).map(Shard), STATES, max_size=4))
def test_shards_come_back_from_a_store(shards: dict[Shard, ShardState]) -> None:
    store = Store.open(None, model="credit")
    store.save(Transaction(shards=checkpoint.stored_shards(shards)))
    assert checkpoint.restored_shards(store.load()) == shards


def test_panes_come_back_from_a_store_with_their_tables_and_go_by_their_keys(tmp_path: Path) -> None:
    key = PaneKey(Shard("p/0"), Stream("credit", "3"), 7, "hash")
    panes = [
        Pane(key, 1750.0, 2000.0, 11, 300, table(1)),
        Pane(PaneKey(Shard("p/1"), Stream("credit", "4"), -2, ""), -500.0, -250.0, 0, 3, table(2)),
    ]
    store = Store.open(tmp_path / "state.db", model="credit")
    store.save(Transaction(panes=checkpoint.stored_panes(panes)))
    found = {pane.key: pane for pane in checkpoint.restored_panes(store.load(), "credit")}
    for pane in panes:
        other = found[pane.key]
        assert (other.start_s, other.end_s) == (pane.start_s, pane.end_s)
        assert (other.first_position, other.n_records) == (pane.first_position, pane.n_records)
        assert other.table.to_bytes() == pane.table.to_bytes()
    store.save(Transaction(dropped=[checkpoint.stored_key(key)]))
    assert [pane.key for pane in checkpoint.restored_panes(store.load(), "credit")] == [panes[1].key]
    store.close()


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 30).map(str), max_size=12), max_size=8), st.integers(0, 10), st.integers(0, 7))
def test_ids_that_come_back_find_the_duplicates_that_a_process_that_went_on_finds(
    batches: list[list[str]], size: int, restart_at: int
) -> None:
    went_on, restarted = Seen(size), Seen(size)
    store, shard = Store.open(None, model="credit"), Shard("a")
    for i, batch in enumerate(batches):
        if i == restart_at:
            restarted = checkpoint.restored_seen(store.load(), shard, size)
        want, found = went_on.fresh(batch), restarted.fresh(batch)
        assert (want is None) == (found is None)
        assert want is None or want.tolist() == found.tolist()
        chunks, seen_from = checkpoint.stored_seen({shard: restarted})
        store.save(Transaction(seen=chunks, seen_from=seen_from))


def test_the_policys_memory_comes_back_and_is_empty_before_the_first_decision() -> None:
    alarm = OpenAlarm("0123456789abcdef", 750.0, (), "prior", ("it moved",), "recalibrate", 1000.0)
    drifted = (None, (750.0, "drift"))
    state = PolicyState({"3": StreamState(1000.0, drifted, {"drift": alarm}, ok_elsewhere={"4": 2})})
    assert checkpoint.restored_policy(NOTHING) == PolicyState()
    assert checkpoint.restored_policy(replace(NOTHING, policy=state.to_bytes())) == state


def test_parts_are_counted_by_version_and_end() -> None:
    store = Store.open(None, model="credit")
    store.save(Transaction(decisions=[StoredDecision("3", 250.0, 1, b"{}"), StoredDecision("3", 250.0, 2, b"{}")]))
    assert checkpoint.restored_parts(store.load(), "credit") == {(Stream("credit", "3"), 250.0): 2}


@pytest.mark.parametrize("data", [b"", b"\xc1", msgspec.msgpack.encode("something else")])
def test_a_row_that_cannot_be_read_is_a_state_error_that_says_what_to_do(data: bytes) -> None:
    words = r"`state\.path` holds a row that cannot be read: .*\. Begin with another file\."
    with pytest.raises(StateError, match=words):
        checkpoint.restored_shards(Remembered({"a": ShardRow(1, data)}, {}, [], None, {}))
    with pytest.raises(StateError, match=words):
        checkpoint.restored_policy(Remembered({}, {}, [], data, {}))

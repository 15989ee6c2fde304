"""The store: one transaction moves everything, whatever kills it; and what a broken file says."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftwatch.errors import StateError
from driftwatch.halves import Half, HalfKey, HalvesChanges
from driftwatch.outbox import Message
from driftwatch.records import Shard
from driftwatch.store import (
    PaneKey,
    PaneRow,
    Remembered,
    SeenChunk,
    ShardRow,
    Store,
    StoredDecision,
    Transaction,
)
from driftwatch.store_profiles import Assignment
from driftwatch.store_schema import StoreUnavailable

SHARDS = ("p/0", "p/1")


def numbered(i: int, size: int = 0) -> Transaction:
    """A transaction that leaves its number in every table; `size` bytes of padding that does not compress."""
    padding = os.urandom(size)
    return Transaction(
        shards={"p/0": ShardRow(i, b"%d" % i)},
        panes={PaneKey("p/0", "3", 0, "hash"): PaneRow(0.0, 300.0, i, i, b"%d" % i + padding)},
        seen=[SeenChunk("p/0", i, [f"id-{i}"])],
        seen_from={"p/0": i},
        policy=b"%d" % i,
        decisions=[StoredDecision("3", 300.0 * i, 1, b"%d" % i + padding)],
        messages=[Message(f"{i}:opened", "hook", b"%d" % i + padding, float(i))],
    )


def number_of(store: Store) -> int:
    """The number of the last save, found in every table, with all before it where they add up."""
    remembered = store.load()
    i = remembered.shards["p/0"].position
    assert remembered.shards["p/0"].state == b"%d" % i
    (pane,) = remembered.panes.values()
    assert (pane.first_position, pane.n_records, pane.body[: len(str(i))]) == (i, i, b"%d" % i)
    assert remembered.seen == [SeenChunk("p/0", i, [f"id-{i}"])]
    assert remembered.policy == b"%d" % i
    assert [int(line[: len(str(n))]) for n, line in enumerate(store.decisions(), 1)] == list(range(1, i + 1))
    outbox = store.outbox()
    assert [message.id for message in outbox.due(1e18)] == [f"{n}:opened" for n in range(1, i + 1)]
    outbox.close()
    return i


def save_until_refused(store: Store) -> tuple[int, str]:
    """Saves 1, 2, 3 … until one is refused; the last that was not, and what the refusal said."""
    i = 0
    while True:
        try:
            store.save(numbered(i + 1, 5_000))
        except StoreUnavailable as error:
            return i, str(error)
        i += 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


# One transaction moves everything


def test_what_was_saved_is_there_after_a_restart(path: Path) -> None:
    store = Store.open(path, model="credit")
    store_id = store.store_id
    for i in (1, 2, 3):
        store.save(numbered(i))
    store.close()
    again = Store.open(path, model="credit")
    assert number_of(again) == 3
    assert again.store_id == store_id
    again.close()


def test_what_a_transaction_does_not_name_stays(path: Path) -> None:
    store = Store.open(path, model="credit")
    store.save(numbered(1))
    store.save(Transaction())
    assert number_of(store) == 1
    store.close()


PANES = st.dictionaries(
    st.builds(PaneKey, st.sampled_from(SHARDS), st.sampled_from("34"), st.integers(0, 1), st.sampled_from(["", "h"])),
    st.builds(
        PaneRow,
        st.just(0.0),
        st.floats(1, 9),
        st.integers(0, 2**60),
        st.integers(0, 9),
        st.binary(max_size=9),
        st.integers(0, 2**60),
    ),
    max_size=3,
)
STEPS = st.lists(
    st.tuples(
        st.dictionaries(
            st.sampled_from(SHARDS), st.builds(ShardRow, st.none() | st.integers(0, 2**62), st.binary(max_size=5))
        ),
        PANES,
        PANES,
        st.none() | st.binary(max_size=5),
        st.lists(st.lists(st.text(max_size=3), min_size=1, max_size=4), max_size=2),
        st.integers(0, 12),
    ),
    max_size=6,
)


@settings(max_examples=30)
@given(STEPS)
def test_the_store_remembers_what_a_plain_dictionary_would(steps: list[tuple[object, ...]]) -> None:
    store = Store.open(None, model="credit")
    shards: dict[str, ShardRow] = {}
    panes: dict[PaneKey, PaneRow] = {}
    seen: list[SeenChunk] = []
    policy: bytes | None = None
    n_ids = 0
    for changed, dropped, written, state, chunks, keep in steps:
        new = []
        for ids in chunks:
            new.append(SeenChunk("p/0", n_ids, ids))
            n_ids += len(ids)
        bound = n_ids - keep
        store.save(Transaction(changed, written, list(dropped), new, {"p/0": bound}, state))
        shards |= changed
        panes = {key: row for key, row in panes.items() if key not in dropped} | written
        seen = [chunk for chunk in seen if chunk.first + len(chunk.ids) > bound] + new
        policy = policy if state is None else state
        assert store.load() == Remembered(shards, panes, seen, policy, {})
    store.close()


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[3]]
from test_store import number_of, numbered
from driftwatch.store import Store
store = Store.open(Path(sys.argv[1]), model="credit")
i = number_of(store) if store.load().shards else 0
while True:
    i += 1
    store.save(numbered(i, int(sys.argv[2])))
    if i % 10 == 1:
        print(i, flush=True)
"""


def test_a_process_killed_at_any_time_leaves_all_tables_of_one_transaction(path: Path) -> None:
    draw = random.Random(11)
    before = 0
    for _ in range(5):
        command = [sys.executable, "-c", CHILD, str(path), "3000", str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(draw.uniform(0, 0.1))
            child.send_signal(signal.SIGKILL)
        store = Store.open(path, model="credit")
        now = number_of(store)
        store.close()
        assert now > before
        before = now


# A save that fails changes nothing


def test_a_full_disk_changes_nothing_and_passes_when_there_is_room(tiny_folder: Path) -> None:
    ballast = tiny_folder / "ballast"
    ballast.write_bytes(bytes(7_600_000))  # of 8 MiB
    store = Store.open(tiny_folder / "state.db", model="credit")
    i, refusal = save_until_refused(store)
    assert i > 3
    assert "disk is full. Nothing was changed; free space" in refusal
    assert number_of(store) == i
    ballast.unlink()
    store.save(numbered(i + 1, 5_000))
    assert number_of(store) == i + 1
    store.close()


LIMITED_CHILD = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from test_store import number_of, numbered, save_until_refused
from driftwatch.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store.open(Path(sys.argv[1]), model="credit")
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
i, refusal = save_until_refused(store)
assert "disk I/O error" in refusal, refusal
assert number_of(store) == i
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.save(numbered(i + 1, 5_000))
assert number_of(store) == i + 1
print(i + 1)
"""


def test_a_write_that_the_system_refuses_changes_nothing(path: Path) -> None:
    command = [sys.executable, "-c", LIMITED_CHILD, str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    store = Store.open(path, model="credit")
    assert number_of(store) == int(done.stdout) > 3
    store.close()


def test_a_file_that_another_connection_holds_is_unavailable_until_it_lets_go(path: Path) -> None:
    store = Store.open(path, model="credit")
    store.save(numbered(1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="database is locked"):
        store.save(numbered(2))
    other.execute("ROLLBACK")
    other.close()
    assert number_of(store) == 1
    store.save(numbered(2))
    assert number_of(store) == 2
    store.close()


def test_a_value_that_cannot_be_stored_leaves_nothing_of_its_transaction(path: Path) -> None:
    store = Store.open(path, model="credit")
    store.save(numbered(1))
    with pytest.raises(OverflowError):
        store.save(Transaction(policy=b"other", shards={"p/0": ShardRow(2**70, b"")}))
    assert number_of(store) == 1
    store.save(numbered(2))
    assert number_of(store) == 2
    store.close()


# Decisions


def test_decisions_come_in_the_order_in_which_they_were_made_and_since_a_time(path: Path) -> None:
    store = Store.open(path, model="credit")
    ends = [600.0, 300.0, 900.0]
    store.save(Transaction(decisions=[StoredDecision("3", end_s, 1, b"%d" % end_s) for end_s in ends]))
    assert list(store.decisions()) == [b"600", b"300", b"900"]
    assert list(store.decisions(since_s=300.0)) == [b"600", b"900"]
    store.close()


def test_decisions_are_kept_for_so_much_event_time_before_the_latest(path: Path) -> None:
    store = Store.open(path, model="credit", keep_s=600.0)
    for i in range(1, 10):
        store.save(numbered(i))
    assert list(store.decisions()) == [b"7", b"8", b"9"]
    store.close()


def test_the_parts_of_a_window_that_were_decided_are_counted_by_version(path: Path) -> None:
    store = Store.open(path, model="credit")
    decided = [("3", 300.0, 1), ("3", 300.0, 2), ("4", 300.0, 1), ("3", 600.0, 1)]
    store.save(Transaction(decisions=[StoredDecision(*window, b"{}") for window in decided]))
    assert store.load().parts == {("3", 300.0): 2, ("3", 600.0): 1, ("4", 300.0): 1}
    store.close()


def test_the_ids_of_a_shard_that_is_counted_anew_are_forgotten() -> None:
    store = Store.open(None, model="credit")
    store.save(Transaction(seen=[SeenChunk(shard, first, ["a", "b"]) for shard in SHARDS for first in (0, 2)]))
    store.save(Transaction(seen=[SeenChunk("p/0", 0, ["c"])], seen_from={"p/0": 2**62}))
    assert store.load().seen == [
        *(SeenChunk("p/0", 0, ["c"]), SeenChunk("p/1", 0, ["a", "b"]), SeenChunk("p/1", 2, ["a", "b"]))
    ]
    store.close()


def test_a_reader_beside_a_running_writer_sees_what_is_committed(path: Path) -> None:
    writer = Store.open(path, model="credit")
    for i in range(1, 151):
        writer.save(numbered(i))
    reader = Store.open(path, model="credit", read_only=True)
    lines = reader.decisions()
    assert next(lines) == b"1"
    writer.save(numbered(151))
    assert [int(line) for line in lines] == list(range(2, 152))
    with pytest.raises(StateError, match="readonly"):
        reader.save(numbered(152))
    writer.close()
    assert number_of(reader) == 151
    reader.close()


def test_a_reader_opens_the_file_of_a_writer_that_has_ended(path: Path) -> None:
    writer = Store.open(path, model="credit")
    writer.save(numbered(1))
    writer.close()
    reader = Store.open(path, model="credit", read_only=True)
    assert number_of(reader) == 1
    reader.close()


# Profiles


def test_a_version_keeps_its_current_profile_and_the_one_before(path: Path) -> None:
    store = Store.open(path, model="credit")
    for since_s, content_hash in ((0.0, "a"), (300.0, "b"), (600.0, "c")):
        store.assign(Assignment("3", since_s, content_hash), content_hash.encode() * 3)
    store.assign(Assignment("4", 900.0, "c"), b"ccc")
    store.close()
    again = Store.open(path, model="credit")
    assert again.current() == [Assignment("3", 300.0, "b"), Assignment("3", 600.0, "c"), Assignment("4", 900.0, "c")]
    assert [again.profile(content_hash) for content_hash in "abc"] == [None, b"bbb", b"ccc"]
    again.close()


def test_a_profile_stays_while_a_pane_is_counted_on_it(path: Path) -> None:
    store = Store.open(path, model="credit")
    key = PaneKey("p/0", "3", 0, "a")
    store.assign(Assignment("3", 0.0, "a"), b"aaa")
    store.save(Transaction(panes={key: PaneRow(0.0, 300.0, 0, 1, b"")}))
    for since_s, content_hash in ((300.0, "b"), (600.0, "c")):
        store.assign(Assignment("3", since_s, content_hash), content_hash.encode())
    assert store.profile("a") == b"aaa"
    store.save(Transaction(dropped=[key]))
    store.assign(Assignment("3", 900.0, "d"), b"d")
    assert store.profile("a") is None
    store.close()


def test_a_profile_may_hold_from_the_beginning_of_time() -> None:
    store = Store.open(None, model="credit")
    store.assign(Assignment("3", float("-inf"), "a"), b"a")
    assert store.current() == [Assignment("3", float("-inf"), "a")]
    store.close()


def test_halves_wait_in_their_order_until_they_are_gone(path: Path) -> None:
    keys = [HalfKey("s", name) for name in "cab"]
    one, two = Shard("p/0"), Shard("p/1")
    halves = [
        Half("request", 1.5, b"{}", one, 3),
        Half("response", 0.5, b"\xff", two, 2),
        Half("request", 2.0, b"", one, 4),
    ]
    store = Store.open(path, model="credit")
    store.save(Transaction(halves=HalvesChanges(dict(zip(keys, halves, strict=True)), [], (2.0, 1.5))))
    again = Half("response", 3.0, b"again", one, 5)
    store.save(Transaction(halves=HalvesChanges({keys[0]: again}, [keys[0], keys[1]], (3.0, 2.0, 1.5), {one: {0: 3}})))
    store.close()
    store = Store.open(path, model="credit")
    found = store.load().halves
    assert list(found.waiting.items()) == [(keys[2], halves[2]), (keys[0], again)]
    assert (found.times_s, found.read) == ((3.0, 2.0, 1.5), {one: {0: 3}})
    store.close()

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from window_model import DEFAULT, MODEL, PlainStore, Row, RowCounter, batch, rows_of

from driftwatch.count_window import CountWindower
from driftwatch.records import Shard, Stream, Window
from driftwatch.window import CountWindows

A, B = Shard("a"), Shard("b")

rows_read = st.lists(st.tuples(st.integers(-100, 100), st.sampled_from("112")), max_size=60).map(
    lambda pairs: [Row(i, float(t), v) for i, (t, v) in enumerate(pairs)]
)


def windower(count: int, profile: str = "p") -> CountWindower:
    return CountWindower(CountWindows(count), DEFAULT, lambda stream, start_s: RowCounter(100, profile))


def expected(rows: list[Row], count: int) -> list[tuple[str, list[int], float, float, bool]]:
    """The definition: rows of a version in the order read, cut at every `count`; in the order in which they fill."""
    full, filling = [], dict[str, list[Row]]()
    for row in rows:
        filling.setdefault(row.version, []).append(row)
        if len(filling[row.version]) == count:
            full.append((filling.pop(row.version), False))
    full += [(filling[v], True) for v in sorted(filling)]
    return [
        (w[0].version, sorted(r.number for r in w), min(r.time_s for r in w), max(r.time_s for r in w), partial)
        for w, partial in full
    ]


def seen(window: Window) -> tuple[str, list[int], float, float, bool]:
    assert window.n_records == window.table.counts.sum()
    assert window.part == 1
    return window.stream.version, rows_of(window.table), window.start_s, window.end_s, window.partial


def of_version(windows: list[tuple[str, list[int], float, float, bool]], version: str) -> list[object]:
    return [w for w in windows if w[0] == version]


@given(rows_read, st.integers(1, 12), st.data())
def test_windows_are_cut_exactly_at_n_rows_however_they_are_batched_and_restarted(
    rows: list[Row], count: int, data: st.DataObject
):
    store, target, at, unsaved = PlainStore(), windower(count), 0, list[Window]()
    target.assign(A, 0, now_s=0.0)
    crashes = data.draw(st.integers(0, 3))
    while at < len(rows):
        n = data.draw(st.integers(1, 30))
        added = target.add(batch("a", rows[at : at + n], at), end=min(at + n, len(rows)), now_s=0.0)
        assert (added.used, added.late, len(added.ahead), added.already_judged) == (len(rows[at : at + n]), 0, 0, 0)
        at = min(at + n, len(rows))
        unsaved += target.closed()
        if data.draw(st.booleans()):
            store.save(target.changes(), unsaved)
            unsaved = []
        if crashes and data.draw(st.booleans()):
            crashes -= 1
            target, unsaved = windower(count), []
            target.restore(*store.load())
            at = store.shards[A].position if A in store.shards else 0
            target.assign(A, at, now_s=0.0)
    store.save(target.changes(), unsaved + target.finish())
    found = [seen(w) for w in store.windows]
    # Windows of several versions that fill up in one batch come version by version.
    for version in "12":
        assert of_version(found, version) == of_version(expected(rows, count), version)
    store.save(target.changes(), [])
    assert store.panes == {}
    assert target.open_panes == 0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9)), max_size=20), st.integers(1, 10))
def test_rows_of_several_shards_fill_one_window_in_the_order_read(reads: list[tuple[str, int]], count: int):
    target, windows, order = windower(count), list[Window](), list[int]()
    position = {"a": 0, "b": 0}
    for name in position:
        target.assign(Shard(name), 0, now_s=0.0)
    for name, n in reads:
        first = position[name]
        rows = [Row((first + i) % 50 + 50 * (name == "b"), 1.0) for i in range(n)]
        position[name] += n
        target.add(batch(name, rows, first, default_version=True), end=first + n, now_s=0.0)
        order += [r.number for r in rows]
        windows += target.closed()
    windows += target.finish()
    cuts = [sorted(order[i : i + count]) for i in range(0, len(order), count)]
    assert [rows_of(w.table) for w in windows] == cuts
    assert [w.partial for w in windows] == [len(cut) < count for cut in cuts]


def test_a_shard_that_is_revoked_takes_its_rows_along():
    target = windower(5)
    for name in (A, B):
        target.assign(name, 0, now_s=0.0)
    target.add(batch("a", [Row(0, 1.0), Row(1, 2.0)], 0), end=2, now_s=0.0)
    target.add(batch("b", [Row(10, 3.0), Row(11, 4.0)], 7), end=9, now_s=0.0)
    assert (target.rewind(A), target.rewind(B)) == (0, 7)
    target.changes()
    target.revoke(A)
    changes = target.changes()
    assert changes.shards[A].position is None
    assert [key.shard for key in changes.dropped] == [A]
    assert [rows_of(w.table) for w in target.finish()] == [[10, 11]]


def test_a_shard_read_from_another_position_than_the_stored_one_is_counted_anew():
    store, target = PlainStore(), windower(5)
    target.assign(A, 0, now_s=0.0)
    target.add(batch("a", [Row(0, 1.0), Row(1, 2.0)], 0), end=2, now_s=0.0)
    store.save(target.changes(), [])
    target = windower(5)
    target.restore(*store.load())
    target.assign(A, 0, now_s=0.0)
    target.add(batch("a", [Row(i, 1.0) for i in range(4)], 0), end=4, now_s=0.0)
    assert [rows_of(w.table) for w in target.finish()] == [[0, 1, 2, 3]]


def test_a_window_that_was_open_on_another_profile_is_judged_as_it_is():
    store, target = PlainStore(), windower(5, "old")
    for name in (A, B):
        target.assign(name, 0, now_s=0.0)
        target.add(batch(name, [Row(10 * (name == B), 1.0)], 0), end=1, now_s=0.0)
    store.save(target.changes(), [])
    target = windower(5, "new")
    target.restore(*store.load())
    for name in (A, B):
        target.assign(name, 1, now_s=0.0)
    assert [(rows_of(w.table), w.profile, w.partial) for w in target.closed()] == [([0, 10], "old", True)]
    target.add(batch("a", [Row(1, 1.0)], 1), end=2, now_s=0.0)
    assert [(rows_of(w.table), w.profile) for w in target.finish()] == [([1], "new")]
    store.save(target.changes(), [])
    assert store.panes == {}


def test_a_shard_at_its_end_is_idle_until_rows_come():
    target = windower(5)
    target.assign(A, 0, now_s=0.0)
    target.at_end(A, final=False, now_s=0.0)
    assert target.shard_states() == {"active": 0, "idle": 1, "stalled": 0, "paused": 0}
    target.add(batch("a", [Row(0, 1.0)], 0), end=1, now_s=0.0)
    assert target.shard_states()["active"] == 1
    assert target.watermark_s is None


def test_a_batch_of_no_rows_moves_the_position_alone():
    target = windower(5)
    target.assign(A, 0, now_s=0.0)
    added = target.add(batch("a", [], 0), end=3, now_s=0.0)
    assert added.used == 0
    assert target.state(A).position == target.rewind(A) == 3
    assert np.array_equal(added.ahead, [])


def test_streams_have_windows_of_their_own():
    target = windower(2)
    target.assign(A, 0, now_s=0.0)
    target.add(batch("a", [Row(i, 1.0, v) for i, v in enumerate("1211")], 0), end=4, now_s=0.0)
    assert [(w.stream, rows_of(w.table)) for w in target.closed()] == [(Stream(MODEL, "1"), [0, 2])]

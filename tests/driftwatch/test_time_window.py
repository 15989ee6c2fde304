from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window_model import DEFAULT, MODEL, PlainStore, Row, RowCounter, batch, expected, fate, rows_of, seen

from driftwatch.records import Shard, Stream, Window
from driftwatch.time_window import TimeWindower
from driftwatch.window import Added, TimeWindows

TUMBLING = TimeWindows(length_s=10, slide_s=10, lateness_s=5, max_ahead_s=60)
SLIDING = TimeWindows(length_s=30, slide_s=10, lateness_s=5, max_ahead_s=60)
A, B = Shard("a"), Shard("b")

time_windows = st.builds(
    lambda panes, slide_s, lateness_s, ahead_s: TimeWindows(panes * slide_s, slide_s, lateness_s, max_ahead_s=ahead_s),
    st.integers(1, 3),
    st.sampled_from([10.0, 0.7]),
    st.sampled_from([0.0, 5.0, 15.0]),
    st.sampled_from([30.0, 200.0]),
)


@st.composite
def streams(draw: st.DrawFn, most_shards: int = 4) -> dict[str, list[Row]]:
    """Shards whose times rise, with jitter, strays and gaps."""
    shards: dict[str, list[Row]] = {}
    number = 0
    for name in "abcd"[: draw(st.integers(1, most_shards))]:
        now, rows = draw(st.integers(-5, 20)), []
        for step in draw(st.lists(st.integers(0, 9), max_size=30)):
            now += 70 if step == 9 and draw(st.booleans()) else step
            stray = draw(st.sampled_from([0, 0, 0, 0, -3, -8, -25, 40, 300]))
            rows.append(Row(number, float(now + stray), draw(st.sampled_from("112"))))
            number += 1
        shards[name] = rows
    return shards


def windower(rules: TimeWindows, n_rows: int = 100) -> TimeWindower:
    return TimeWindower(rules, DEFAULT, lambda stream, start_s: RowCounter(n_rows))


def feed(target: TimeWindower, shard: str, times_s: list[float], *, first: int = 0, now_s: float = 0.0) -> Added:
    """Rows whose number is their position, plus 50 in shard b."""
    rows = [Row(first + i + 50 * (shard == "b"), t) for i, t in enumerate(times_s)]
    return target.add(batch(shard, rows, first, default_version=True), end=first + len(rows), now_s=now_s)


def held(windows: list[Window]) -> list[tuple[float, list[int], int]]:
    return [(w.end_s, rows_of(w.table), w.part) for w in windows]


@given(streams(), time_windows, st.data())
@settings(max_examples=120)
def test_batches_interleavings_and_crashes_change_nothing_of_what_a_row_by_row_model_says(
    shards: dict[str, list[Row]], rules: TimeWindows, data: st.DataObject
):
    fates = {name: fate(rows, rules) for name, rows in shards.items()}
    n_rows = sum(map(len, shards.values()))
    store, target = PlainStore(), windower(rules, n_rows)
    crashes = data.draw(st.integers(0, 3))
    late, ahead = dict.fromkeys(shards, 0), {name: set[int]() for name in shards}
    position, unsaved = dict.fromkeys(shards, 0), list[Window]()
    for name in shards:
        target.assign(Shard(name), 0, now_s=0.0)
    saved_late, unread = dict(late), list(shards)
    while unread:
        name = data.draw(st.sampled_from(unread))
        rows, at = shards[name], position[name]
        n = data.draw(st.integers(1, 12))
        added = target.add(batch(name, rows[at : at + n], at), end=min(at + n, len(rows)), now_s=0.0)
        position[name] = min(at + n, len(rows))
        late[name] += added.late
        ahead[name] |= {rows[at + i].number for i in added.ahead}
        assert added.used + added.late + len(added.ahead) == len(rows[at : at + n])
        assert added.already_judged == 0
        if position[name] == len(rows):
            target.at_end(Shard(name), final=True, now_s=0.0)
            unread.remove(name)
        if data.draw(st.booleans()):
            unsaved += target.closed()
        if data.draw(st.booleans()):
            unsaved += target.closed()
            store.save(target.changes(), unsaved)
            saved_late, unsaved = dict(late), []
        if crashes and data.draw(st.booleans()):
            crashes -= 1
            target, unsaved, late = windower(rules, n_rows), [], dict(saved_late)
            target.restore(*store.load())
            for other in shards:
                position[other] = store.shards[Shard(other)].position if Shard(other) in store.shards else 0
                target.assign(Shard(other), position[other], now_s=0.0)
            unread = list(shards)
    store.save(target.changes(), unsaved + target.finish())
    assert [seen(w) for w in store.windows] == expected(list(fates.values()), rules)
    assert late == {name: len(f.late) for name, f in fates.items()}
    assert ahead == {name: set(f.ahead) for name, f in fates.items()}
    assert target.open_panes == 0
    store.save(target.changes(), [])
    assert store.panes == {}


@pytest.mark.parametrize("rules", [TUMBLING, SLIDING])
def test_one_stream_split_at_every_batch_size_gives_the_same_windows(rules: TimeWindows):
    rng = np.random.default_rng(7)
    times = np.cumsum(rng.exponential(1.0, 300)) + rng.normal(0, 4, 300) + 200 * (rng.random(300) < 0.02)
    rows = [Row(i, float(t)) for i, t in enumerate(times)]
    one = fate(rows, rules)
    assert one.late
    assert one.ahead
    for size in [*range(1, 40), 75, 150, 299, 300]:
        target, windows, late, ahead = windower(rules, 300), list[Window](), 0, list[int]()
        target.assign(A, 0, now_s=0.0)
        for at in range(0, 300, size):
            added = target.add(batch("a", rows[at : at + size], at), end=at + size, now_s=0.0)
            late += added.late
            ahead += (at + added.ahead).tolist()
            if at % 3 == 0:
                windows += target.closed()
        target.at_end(A, final=True, now_s=0.0)
        assert [seen(w) for w in windows + target.finish()] == expected([one], rules)
        assert (late, ahead) == (len(one.late), one.ahead)
        ends = {w[0] for w in expected([one], rules)}
        assert target.empty == round((max(ends) - min(ends)) / rules.slide_s) + 1 - len(ends)


@given(streams(most_shards=1), time_windows, st.data())
def test_a_shard_that_moves_between_members_has_each_row_judged_once_in_each_of_its_windows(
    shards: dict[str, list[Row]], rules: TimeWindows, data: st.DataObject
):
    rows = shards["a"]
    position, read_to, open_from_s, windows, ahead = 0, 0, None, list[Window](), set[int]()
    members = [windower(rules) for _ in range(3)]
    while position < len(rows):
        member = data.draw(st.sampled_from(members))
        member.assign(A, position, read_to=read_to, open_from_s=open_from_s, now_s=0.0)
        for _ in range(data.draw(st.integers(1, 4))):
            n = data.draw(st.integers(1, 15))
            end = min(position + n, len(rows))
            added = member.add(batch("a", rows[position:end], position), end=end, now_s=0.0)
            ahead |= {rows[position + i].number for i in added.ahead}
            windows += member.closed()
            position = end
        if position == len(rows):
            windows += member.finish()
            break
        state = member.state(A)
        position, read_to, open_from_s = member.rewind(A), state.read_to, state.open_from_s
        member.revoke(A)
        assert member.open_panes == 0
    judged = [(end_s, number) for end_s, _, numbers, _, _ in map(seen, windows) for number in numbers]
    assert len(judged) == len(set(judged))
    # A new member's clock may lag behind its predecessor's, so it may take a row that is late in an undisturbed read,
    # or set aside as ahead one that is not.
    undisturbed = expected([fate(rows, rules)], rules)
    assert set(judged) >= {(end_s, n) for end_s, _, numbers, _, _ in undisturbed for n in numbers if n not in ahead}


def test_a_window_is_judged_when_the_slowest_active_shard_has_passed_its_end():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    target.assign(B, 0, now_s=0.0)
    feed(target, "a", [1, 2, 30, 31, 32])
    assert target.closed() == []
    assert target.watermark_s is None
    feed(target, "b", [3, 14, 14, 14])
    assert target.closed() == []
    assert target.watermark_s == 9.0
    feed(target, "b", [15, 15, 15], first=4)
    assert held(target.closed()) == [(10.0, [0, 1, 50], 1)]
    assert target.closed() == []


def test_a_file_that_grew_after_its_end_makes_a_second_part():
    store, target = PlainStore(), windower(SLIDING)
    target.assign(A, 0, now_s=0.0)
    feed(target, "a", [1, 2, 3, 4])
    target.at_end(A, final=True, now_s=0.0)
    store.save(target.changes(), target.finish())
    store.save(target.changes(), [])
    target = windower(SLIDING)
    target.restore(*store.load())
    target.assign(A, 4, now_s=0.0)
    assert feed(target, "a", [5, 12], first=4).used == 2
    assert held(target.finish()) == [(10.0, [4], 2), (20.0, [4, 5], 2), (30.0, [4, 5], 2), (40.0, [5], 1)]


def test_the_last_windows_are_partial_where_the_watermark_had_not_passed_their_end():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    feed(target, "a", [1, 15, 16, 17, 31])
    target.at_end(A, final=True, now_s=0.0)
    assert [(w.end_s, w.partial) for w in target.finish()] == [(10.0, False), (20.0, True), (40.0, True)]


def test_intervals_without_a_row_are_counted_and_not_returned():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    feed(target, "a", [1, 51, 52, 53])
    assert held(target.closed()) == [(10.0, [0], 1)]
    assert target.empty == 3  # [10, 20), [20, 30), [30, 40)
    feed(target, "a", [60, 61, 62, 1e9], first=4)
    target.closed()
    assert target.empty == 4


def test_a_gap_in_the_traffic_costs_two_rows():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    feed(target, "a", [1, 2, 3])
    assert feed(target, "a", [1000, 1001, 1002, 1003], first=3).ahead.tolist() == [0, 1]


def test_rows_that_were_judged_by_an_earlier_holder_are_skipped():
    target = windower(TUMBLING)
    target.assign(A, 0, read_to=4, open_from_s=20.0, now_s=0.0)
    added = feed(target, "a", [1, 21, 5, 22, 3, 23])
    assert (added.used, added.late, added.already_judged) == (3, 1, 2)
    assert held(target.finish()) == [(30.0, [1, 3, 5], 1)]


@pytest.mark.parametrize("position", [0, 4])
def test_a_row_that_was_late_for_the_earlier_holder_is_late_here(position: int):
    target = windower(TUMBLING)
    target.assign(A, position, read_to=4, open_from_s=20.0, now_s=0.0)
    feed(target, "a", [1, 21, 22, 23][position:], first=position)
    assert feed(target, "a", [3, 24, 19.9], first=4).late == 2
    assert target.watermark_s == 20.0


def test_the_clock_of_a_file_that_has_ended_stays():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    target.assign(B, 0, now_s=0.0)
    feed(target, "a", [1, 2, 3])
    target.at_end(A, final=True, now_s=0.0)
    feed(target, "b", [1, 25, 26, 27])
    assert held(target.closed()) == [(10.0, [0, 1, 2, 50], 1)]
    assert target.state(A).clock_s == (3.0, 2.0, 1.0)


def test_what_was_judged_here_is_remembered_while_the_shard_is_elsewhere():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    feed(target, "a", [1, 21, 22, 23])
    target.closed()
    assert target.rewind(A) == 1
    target.changes()
    target.revoke(A)
    changes = target.changes()
    assert changes.shards[A].position is None
    assert [key.index for key in changes.dropped] == [2]
    target.assign(A, 0, now_s=0.0)
    added = feed(target, "a", [1, 21, 22, 23])
    assert (added.used, added.already_judged) == (3, 1)


def test_a_profile_that_changes_inside_a_window_makes_a_partial_part_of_each():
    target = TimeWindower(SLIDING, DEFAULT, lambda s, start_s: RowCounter(100, "old" if start_s < 20 else "new"))
    target.assign(A, 0, now_s=0.0)
    feed(target, "a", [5, 15, 25, 35, 45, 65, 65, 65])
    windows = [(w.end_s, w.profile, rows_of(w.table), w.part, w.partial) for w in target.closed()]
    assert windows[1:5] == [
        (20.0, "old", [0, 1], 1, False),
        (30.0, "old", [0, 1], 1, True),
        (30.0, "new", [2], 2, True),
        (40.0, "old", [1], 1, True),
    ]
    assert windows[-1] == (60.0, "new", [3, 4], 1, False)


def test_restored_panes_of_a_shard_that_was_not_assigned_again_can_be_dropped():
    store, target = PlainStore(), windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    feed(target, "a", [1, 2, 3])
    store.save(target.changes(), [])
    target = windower(TUMBLING)
    target.restore(*store.load())
    target.revoke(A)
    store.save(target.changes(), [])
    assert store.panes == {}
    assert store.shards[A].position is None


def test_open_windows_of_another_slide_go_on_at_the_first_window_that_begins_after_them():
    target = windower(TimeWindows(length_s=15, slide_s=15, lateness_s=0, max_ahead_s=60))
    target.assign(A, 0, read_to=3, open_from_s=20.0, now_s=0.0)
    assert feed(target, "a", [25, 31, 32]).already_judged == 1


def test_rows_of_several_versions_go_to_the_windows_of_their_streams():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    rows = [Row(i, 1.0, version) for i, version in enumerate("2132")]
    target.add(batch("a", rows, 0), end=4, now_s=0.0)
    assert [(w.stream, rows_of(w.table)) for w in target.finish()] == [
        (Stream(MODEL, "1"), [1]),
        (Stream(MODEL, "2"), [0, 3]),
        (Stream(MODEL, "3"), [2]),
    ]


@given(streams(), time_windows, st.data())
def test_idle_stalled_and_paused_shards_lose_and_double_no_row(
    shards: dict[str, list[Row]], rules: TimeWindows, data: st.DataObject
):
    target, now_s, used, windows = windower(rules, 200), 0.0, 0, list[Window]()
    position = dict.fromkeys(shards, 0)
    for name in shards:
        target.assign(Shard(name), 0, now_s=now_s)
    while any(position[name] < len(rows) for name, rows in shards.items()):
        name = data.draw(st.sampled_from(sorted(shards)))
        now_s += data.draw(st.sampled_from([0.0, 1.0, 61.0, 301.0]))
        at, end = position[name], min(position[name] + data.draw(st.integers(0, 9)), len(shards[name]))
        used += target.add(batch(name, shards[name][at:end], at), end=end, now_s=now_s).used
        position[name] = end
        if data.draw(st.booleans()):
            target.at_end(Shard(name), final=False, now_s=now_s)
        windows += target.closed()
        assert sum(target.shard_states().values()) == len(shards)
    windows += target.finish()
    judged = [(w.end_s, number) for w in windows for number in rows_of(w.table)]
    assert len(judged) == len(set(judged)) == rules.panes * used
    names = [(w.end_s, w.stream, w.part) for w in windows]
    assert len(names) == len(set(names))


def test_a_profile_may_hold_from_the_first_pane_after_all_rows_but_strays_also_before_shards_are_assigned_again():
    rules = TimeWindows(10.0, 5.0, 2.0, max_ahead_s=100.0)
    first = windower(rules)
    assert first.next_start_s == -inf
    for shard in "ab":
        first.assign(Shard(shard), 0, now_s=0.0)
    feed(first, "a", [1.0])
    assert first.next_start_s == 5.0
    feed(first, "a", [17.0, 3.0, 5000.0, 18.0], first=1)  # one is far ahead
    feed(first, "b", [21.0])
    assert first.next_start_s == 25.0
    changes = first.changes()
    again = windower(rules)
    again.restore(changes.shards, changes.panes, {})
    assert again.next_start_s == 25.0
    again.assign(Shard("b"), 1, now_s=0.0)
    assert again.next_start_s == 25.0

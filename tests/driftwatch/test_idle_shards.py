"""Shards that are idle, stalled, paused or far ahead: what they hold up, and what of them is judged when."""

from test_time_window import TUMBLING, A, B, feed, held, windower

from driftwatch.records import Shard


def test_an_idle_shard_holds_nothing_and_its_clock_moves_with_the_watermark():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    target.assign(B, 0, now_s=0.0)
    feed(target, "b", [1, 2, 3])
    target.at_end(B, final=False, now_s=0.0)
    feed(target, "a", [1, 25, 26, 27], now_s=59.0)
    assert target.closed() == []
    target.tick(60.0)
    assert target.shard_states()["idle"] == 1
    assert held(target.closed()) == [
        (10.0, [0, 50, 51, 52], 1),
    ]
    assert feed(target, "b", [4, 24], first=3, now_s=61.0).late == 1
    assert target.shard_states() == {"active": 2, "idle": 0, "stalled": 0, "paused": 0}
    state = target.changes().shards[B]
    assert state.clock_s == (25.0, 25.0, 25.0)
    assert state.open_from_s == 20.0


def test_when_every_shard_is_idle_the_furthest_one_closes_the_windows():
    target = windower(TUMBLING)
    for name, times in ((A, [1, 25, 26, 27]), (B, [1, 2, 3])):
        target.assign(name, 0, now_s=0.0)
        feed(target, name, times)
        target.at_end(name, final=False, now_s=0.0)
    target.tick(60.0)
    assert held(target.closed()) == [(10.0, [0, 50, 51, 52], 1)]


def test_a_stalled_shard_is_left_out_and_judged_later_as_a_part_of_its_own():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    target.assign(B, 0, now_s=0.0)
    feed(target, "b", [1, 2, 3])
    feed(target, "a", [1, 25, 26, 27], now_s=299.0)
    assert target.closed() == []
    target.tick(300.0)
    assert target.shard_states()["stalled"] == 1
    assert held(target.closed()) == [(10.0, [0], 1)]
    assert feed(target, "b", [4, 5, 24, 25, 26], first=3, now_s=301.0).used == 5
    assert held(target.closed()) == [(10.0, [50, 51, 52, 53, 54], 2)]
    assert target.empty == 1  # [10, 20), passed once


def test_a_shard_far_ahead_of_the_watermark_is_paused_until_the_others_follow_or_stall():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    target.assign(B, 0, now_s=0.0)
    feed(target, "b", [1, 2, 3])
    feed(target, "a", [*range(0, 90, 5)])
    target.closed()
    assert target.paused == frozenset()
    feed(target, "a", [*range(90, 120, 5)], first=18)
    target.closed()
    assert target.paused == {A}
    assert target.shard_states() == {"active": 1, "idle": 0, "stalled": 0, "paused": 1}
    feed(target, "b", [*range(5, 40)], first=3)
    target.closed()
    assert target.paused == frozenset()


def test_a_shard_that_showed_rows_after_its_end_is_no_longer_at_its_end():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    target.at_end(A, final=False, now_s=0.0)
    feed(target, "a", [1])
    target.tick(299.0)
    assert target.shard_states()["active"] == 1
    target.tick(300.0)
    assert target.shard_states()["stalled"] == 1


def test_what_closes_by_the_passing_of_machine_time_alone_is_stored():
    target = windower(TUMBLING)
    for name, times in ((A, [1, 25, 26, 27]), (B, [1, 2, 3])):
        target.assign(name, 0, now_s=0.0)
        feed(target, name, times)
    target.at_end(B, final=False, now_s=0.0)
    target.changes()
    target.tick(60.0)
    target.closed()
    changes = target.changes()
    assert {s: (state.clock_s, state.open_from_s) for s, state in changes.shards.items()} == {
        A: ((27.0, 26.0, 25.0), 20.0),
        B: ((25.0, 25.0, 25.0), 20.0),
    }
    assert {(key.shard, key.index) for key in changes.dropped} == {(A, 0), (B, 0)}


def test_a_pane_that_was_dropped_and_counted_again_is_only_written():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    feed(target, "a", [1, 2])
    target.revoke(A)
    target.assign(A, 0, now_s=0.0)
    feed(target, "a", [1])
    changes = target.changes()
    assert [pane.n_records for pane in changes.panes] == [1]
    assert changes.dropped == []


def test_sums_are_equal_to_the_last_bit_whatever_the_order_in_which_shards_came():
    sums = set()
    for order in ("abc", "acb", "bac", "bca", "cab", "cba"):
        target = windower(TUMBLING)
        for name in order:
            target.assign(Shard(name), 0, now_s=0.0)
            feed(target, name, [{"a": 0.1, "b": 0.2, "c": 0.3}[name]])
        sums |= {w.table.sums.tobytes() for w in target.finish()}
    assert len(sums) == 1


def test_a_paused_shard_does_not_stall_for_being_paused_and_goes_on_once_the_others_are_stalled():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    target.assign(B, 0, now_s=0.0)
    feed(target, "b", [1, 2, 3])
    feed(target, "a", [*range(0, 120, 5)])
    target.closed()
    for now_s in range(0, 301, 20):
        target.tick(now_s)
    assert target.shard_states() == {"active": 0, "idle": 0, "stalled": 1, "paused": 1}
    assert target.closed()[-1].end_s == 100.0
    assert target.paused == frozenset()


def test_a_shard_that_has_yet_to_show_where_it_stands_bounds_what_the_others_hold():
    target = windower(TUMBLING)
    target.assign(A, 0, now_s=0.0)
    target.assign(B, 0, now_s=0.0)
    feed(target, "a", [*range(0, 120, 5)])
    assert target.closed() == []
    assert target.paused == {A}

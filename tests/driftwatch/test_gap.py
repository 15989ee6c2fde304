"""Windows that lack records are partial, whatever a restart comes between; a log made anew goes on in what was open."""

import pytest
from window_model import DEFAULT, PlainStore, Row, RowCounter, batch, rows_of

from driftwatch.count_window import CountWindower
from driftwatch.gap import Gap
from driftwatch.records import Shard
from driftwatch.time_window import TimeWindower
from driftwatch.window import CountWindows, TimeWindows, Windower

A, B = Shard("a"), Shard("b")


def over_time(length_s: float = 50.0, slide_s: float = 50.0) -> Windower:
    return TimeWindower(TimeWindows(length_s, slide_s, 0.0), DEFAULT, lambda stream, start_s: RowCounter(1000))


def over_rows(n: int = 50) -> Windower:
    return CountWindower(CountWindows(n), DEFAULT, lambda stream, start_s: RowCounter(1000))


def rows(first: int, end: int) -> list[Row]:
    """One a second."""
    return [Row(i, float(i)) for i in range(first, end)]


def give(windower: Windower, shard: Shard, first: int, end: int) -> None:
    windower.add(batch(shard, rows(first, end), first), end=end, now_s=0.0)


def restarted(store: PlainStore, old: Windower, new: Windower, *positions: tuple[Shard, int]) -> Windower:
    store.save(old.changes(), [])
    new.restore(*store.load())
    for shard, position in positions:
        new.assign(shard, position, now_s=0.0)
    return new


@pytest.mark.parametrize("restarts", [False, True])
def test_the_windows_between_what_was_read_and_what_is_left_are_partial(restarts: bool) -> None:
    windower, store = over_time(), PlainStore()
    windower.assign(A, 0, now_s=0.0)
    give(windower, A, 0, 120)
    whole = windower.closed()
    windower.gap(A)
    if restarts:
        windower = restarted(store, windower, over_time(), (A, 120))
    give(windower, A, 210, 220)  # the windows of 150 and 200 have none and few of their rows
    if restarts:
        windower = restarted(store, windower, over_time(), (A, 220))
    give(windower, A, 220, 400)
    assert [w.partial for w in whole] == [False, False]
    found = [(w.start_s, w.n_records, w.partial) for w in windower.finish()]
    assert found == [(100.0, 20, True), (200.0, 40, True), (250.0, 50, False), (300.0, 50, False), (350.0, 50, True)]


def test_every_sliding_window_over_a_gap_is_partial() -> None:
    windower = over_time(100.0, 50.0)
    windower.assign(A, 0, now_s=0.0)
    give(windower, A, 0, 210)
    windower.gap(A)
    give(windower, A, 220, 500)
    found = [(w.start_s, w.partial) for w in windower.finish()]
    assert found[:3] == [(-50.0, False), (0.0, False), (50.0, False)]
    assert found[3:7] == [(100.0, False), (150.0, True), (200.0, True), (250.0, False)]


def test_a_gap_in_one_shard_touches_the_windows_that_it_is_a_part_of() -> None:
    windower = over_time()
    for shard in (A, B):
        windower.assign(shard, 0, now_s=0.0)
        give(windower, shard, 0, 60)
    windower.gap(B)
    give(windower, B, 70, 170)
    give(windower, A, 60, 170)
    assert [(w.start_s, w.partial) for w in windower.closed()] == [(0.0, False), (50.0, True), (100.0, False)]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_window_of_rows_on_both_sides_of_a_gap_is_partial(restarts: bool) -> None:
    windower = over_rows()
    windower.assign(A, 0, now_s=0.0)
    give(windower, A, 0, 70)
    assert [w.partial for w in windower.closed()] == [False]
    windower.gap(A)
    if restarts:
        windower = restarted(PlainStore(), windower, over_rows(), (A, 70))
    give(windower, A, 100, 210)
    assert [(w.n_records, w.partial) for w in windower.closed()] == [(50, True), (50, False)]
    state = windower.state(A)
    assert state is not None
    assert state.gap_s is None


def test_between_two_windows_of_rows_a_gap_touches_none() -> None:
    windower = over_rows()
    windower.assign(A, 0, now_s=0.0)
    give(windower, A, 0, 50)
    windower.gap(A)
    give(windower, A, 100, 160)
    assert [w.partial for w in windower.closed()] == [False, False]


@pytest.mark.parametrize("make", [over_time, over_rows])
def test_a_log_made_anew_goes_on_in_the_windows_that_are_open(make: type[Windower]) -> None:
    windower = make()
    windower.assign(A, 0, now_s=0.0)
    give(windower, A, 0, 70)
    windower.closed()
    windower.begin_anew(A, 0)
    windower.assign(A, 0, now_s=0.0)
    assert windower.rewind(A) == 0
    windower.add(batch("a", rows(70, 110), 0), end=40, now_s=0.0)
    assert windower.rewind(A) <= 40
    (window,) = windower.closed()
    assert rows_of(window.table) == list(range(50, 100))


def test_a_gap_is_the_same_after_its_span_was_stored() -> None:
    for gap in (Gap(3, 7), Gap.begun(3, None), Gap.begun(-float("inf"), None), Gap.begun(-float("inf"), None).ended(4)):
        assert Gap.of_span(gap.span(0.1), 0.1) == gap
    assert Gap.begun(5, Gap(3, 4)) == Gap(3, float("inf"))

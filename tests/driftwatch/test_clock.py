from math import inf

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftwatch.clock import Clock

times = st.lists(st.integers(-50, 50).map(float), max_size=40)


def reads(shown: list[float]) -> float:
    """The definition: the third-largest event time shown, before three rows the smallest."""
    return sorted(shown)[-3] if len(shown) >= 3 else min(shown)


@given(times, st.data())
def test_the_clock_reads_the_third_largest_time_however_the_rows_are_batched(shown: list[float], data: st.DataObject):
    clock, running, at = Clock(), [], 0
    while at < len(shown):
        n = data.draw(st.integers(1, len(shown) - at))
        batch = np.array(shown[at : at + n])
        running += clock.running(batch).tolist()
        clock = clock.after(batch)
        at += n
    assert running == [reads(shown[: i + 1]) for i in range(len(shown))]
    assert clock.settled_s == (reads(shown) if len(shown) >= 3 else -inf)
    assert clock.times_s == tuple(sorted(shown, reverse=True)[:3])


def test_two_stray_rows_move_nothing():
    clock = Clock().after(np.array([1.0, 2.0, 3.0, 4.0]))
    assert clock.after(np.array([1e9, 2e9])).settled_s == 4.0


@given(times, st.integers(-60, 60).map(float), times)
def test_a_raised_clock_reads_the_later_of_the_two_from_then_on(shown: list[float], to_s: float, more: list[float]):
    clock = Clock().after(np.array(shown)).raised(to_s)
    plain = sorted(shown)[-3] if len(shown) >= 3 else -inf
    assert clock.settled_s == max(plain, to_s)
    expected = [max(to_s, reads(shown + more[: i + 1])) for i in range(len(more)) if len(shown) + i >= 2]
    assert clock.running(np.array(more)).tolist()[len(more) - len(expected) :] == expected

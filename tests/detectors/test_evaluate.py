"""Alarms against the truth: cases made by hand, and laws."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, poisson

from detectors.evaluate import evaluate

numbers = st.integers(-1000, 1000)


@st.composite
def observations(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]], int, int, list[int | None]]:
    """Openings, drifts, start, end and resolutions; whole numbers, so that shifting them is exact."""
    edges = sorted(draw(st.lists(numbers, min_size=2, max_size=12, unique=True)))
    start, end = edges[0], edges[-1] + 1
    inner = edges[1 : 1 + (len(edges) - 1) // 2 * 2]
    drifts = [(inner[i], inner[i + 1]) for i in range(0, len(inner), 2)]
    openings = draw(st.lists(st.integers(start, end), max_size=20))
    resolutions = [draw(st.none() | st.integers(at, at + 300)) for at in openings]
    return openings, drifts, start, end, resolutions


def test_an_opening_inside_a_drift_detects_it_after_its_delay() -> None:
    result = evaluate([130, 650], [(100, 300), (600, 700)], start=0, end=1000)
    assert result.delays == (30, 50)
    assert result.detection_delay == 40
    assert (result.detections, result.misses, result.repeats, result.false_alarms) == (2, 0, 0, 0)
    assert result.missed_detection_rate == 0
    assert result.false_alarm_rate == 0
    assert result.mean_time_between_false_alarms == math.inf


def test_a_drift_without_an_opening_is_missed() -> None:
    result = evaluate([], [(100, 300), (600, 700)], start=0, end=1000)
    assert result.delays == (None, None)
    assert result.detection_delay is None
    assert (result.misses, result.missed_detection_rate) == (2, 1)


def test_openings_before_and_after_a_drift_are_false_alarms() -> None:
    result = evaluate([99, 300, 800], [(100, 300)], start=0, end=1000)
    assert (result.detections, result.misses, result.false_alarms) == (0, 1, 3)
    assert result.quiet_time == 800
    assert result.false_alarm_rate == 3 / 800
    assert result.mean_time_between_false_alarms == 800 / 3


def test_the_first_row_of_a_drift_is_in_it_and_its_end_is_not() -> None:
    assert evaluate([100], [(100, 300)], start=0, end=1000).delays == (0,)
    assert evaluate([300], [(100, 300)], start=0, end=1000).delays == (None,)


def test_only_the_earliest_opening_detects_whatever_the_order_given() -> None:
    result = evaluate([250, 110, 180], [(100, 300)], start=0, end=1000, resolutions=[260, 340, 190])
    assert (result.delays, result.recoveries) == ((10,), (40,))
    assert (result.detections, result.repeats, result.false_alarms) == (1, 2, 0)


def test_an_alarm_that_stands_from_before_detects_nothing() -> None:
    result = evaluate([90], [(100, 300)], start=0, end=1000, resolutions=[500])
    assert (result.detections, result.misses, result.false_alarms) == (0, 1, 1)
    assert result.recoveries == (None,)


def test_recovery_is_counted_from_the_end_of_the_drift() -> None:
    drifts = [(100, 200), (300, 400), (500, 600)]
    result = evaluate([110, 310, 510], drifts, start=0, end=1000, resolutions=[250, 350, None])
    assert result.recoveries == (50, 0, None)
    assert evaluate([110], [(100, 200)], start=0, end=1000).recoveries == (None,)


def test_grace_lets_the_last_window_of_a_drift_explain_an_opening() -> None:
    openings, drifts = [320, 760], [(100, 300), (600, 700)]
    result = evaluate(openings, drifts, start=0, end=1000, grace=50)
    assert (result.delays, result.false_alarms) == ((220, None), 1)
    assert result.quiet_time == 1000 - 250 - 150
    assert evaluate([], [(100, 300)], start=0, end=310, grace=50).quiet_time == 100


@pytest.mark.parametrize("count", [0, 1, 4, 30])
def test_the_interval_of_the_mean_time_is_garwoods(count: int) -> None:
    result = evaluate(np.linspace(0, 700, count).tolist(), [], start=0, end=700)
    assert result.mean_time_between_false_alarms_interval is not None
    low, high = result.mean_time_between_false_alarms_interval
    assert low == pytest.approx(700 / (chi2.ppf(0.975, 2 * count + 2) / 2), rel=1e-12)
    assert poisson.cdf(count, 700 / low) == pytest.approx(0.025)
    if count:
        assert poisson.sf(count - 1, 700 / high) == pytest.approx(0.025)
    else:
        assert high == math.inf


def test_the_interval_holds_the_true_mean_time_in_95_percent_of_streams() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for count in rng.poisson(5.0, 500):
        interval = evaluate(rng.uniform(0, 100, count).tolist(), [], start=0, end=100)
        assert interval.mean_time_between_false_alarms_interval is not None
        low, high = interval.mean_time_between_false_alarms_interval
        covered += low <= 20 <= high
    assert covered >= 465  # at least 95 % by construction; 465 lies 2 standard errors below


def test_where_all_time_is_drift_there_is_no_rate_of_false_alarms() -> None:
    result = evaluate([5], [(0, 10)], start=0, end=10)
    assert result.quiet_time == 0
    assert result.false_alarm_rate is None
    assert result.mean_time_between_false_alarms is None
    assert result.mean_time_between_false_alarms_interval is None


def test_without_a_drift_there_is_no_rate_of_misses() -> None:
    result = evaluate([5], [], start=0, end=10)
    assert (result.delays, result.missed_detection_rate, result.false_alarms) == ((), None, 1)


@settings(max_examples=50)
@given(observed=observations())
def test_counts_add_up(observed: Any) -> None:
    openings, drifts, start, end, resolutions = observed
    result = evaluate(openings, drifts, start=start, end=end, resolutions=resolutions)
    assert result.detections + result.repeats + result.false_alarms == len(openings)
    assert result.detections + result.misses == len(drifts) == len(result.delays) == len(result.recoveries)
    assert result.detections == sum(delay is not None for delay in result.delays)
    assert result.quiet_time + sum(b - a for a, b in drifts) == end - start
    for (a, b), delay, recovery in zip(drifts, result.delays, result.recoveries, strict=True):
        inside = [at for at in openings if a <= at < b]
        assert delay == (min(inside) - a if inside else None)
        assert recovery is None or (delay is not None and recovery >= 0)


@settings(max_examples=50)
@given(observed=observations(), shift=numbers)
def test_shifting_everything_changes_nothing(observed: Any, shift: int) -> None:
    openings, drifts, start, end, resolutions = observed
    moved = evaluate(
        [at + shift for at in openings],
        [(a + shift, b + shift) for a, b in drifts],
        start=start + shift,
        end=end + shift,
        resolutions=[None if at is None else at + shift for at in resolutions],
    )
    assert moved == evaluate(openings, drifts, start=start, end=end, resolutions=resolutions)


@settings(max_examples=50)
@given(observed=observations(), data=st.data())
def test_the_order_of_the_alarms_does_not_matter(observed: Any, data: st.DataObject) -> None:
    openings, drifts, start, end, _ = observed
    resolutions = [at + 7 for at in openings]  # distinct times of one opening would make its order matter
    order = data.draw(st.permutations(range(len(openings))))
    other = evaluate(
        [openings[i] for i in order], drifts, start=start, end=end, resolutions=[resolutions[i] for i in order]
    )
    assert other == evaluate(openings, drifts, start=start, end=end, resolutions=resolutions)


@pytest.mark.parametrize(
    ("openings", "drifts", "options", "message"),
    [
        ([], [], {"end": 0}, "`end` must lie after `start`, 0; got 0."),
        ([], [], {"grace": -1}, "`grace` must be at least 0; got -1."),
        ([11], [], {}, r"`openings` must lie in \[0, 10\]; got 11.0."),
        ([math.nan], [], {}, r"`openings` must lie in \[0, 10\]; got nan."),
        ([], [(5, 5)], {}, "`drifts` must be ascending intervals"),
        ([], [(6, 8), (1, 2)], {}, "`drifts` must be ascending intervals"),
        ([], [(1, 11)], {}, "`drifts` must be ascending intervals"),
        ([], [(1, 3), (4, 5)], {"grace": 2}, "at least `grace` apart"),
        ([5], [], {"resolutions": []}, "`resolutions` must have one entry an opening, 1; got 0."),
        ([5], [], {"resolutions": [4]}, "`resolutions` must not come before their openings; got 4.0 for 5.0."),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    openings: list[float], drifts: list[tuple[float, float]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(openings, drifts, **{"start": 0, "end": 10, **options})

"""Durations, sizes, budgets and `k of n`: read back as written, refused with a reason."""

import re
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from driftwatch.errors import ConfigError
from driftwatch.units import (
    BUDGET_PATTERN,
    BYTES_PATTERN,
    DURATION_PATTERN,
    LONGEST_S,
    PERSISTENCE_PATTERN,
    SECONDS,
    Budget,
    Persistence,
    format_bytes,
    format_duration,
    parse_bytes,
    parse_duration,
)


@given(st.floats(0, LONGEST_S) | st.integers(0, LONGEST_S).map(float))
def test_a_duration_is_read_back_as_it_was_written(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.decimals(0, 400, places=3), st.sampled_from("smhd"))
def test_a_duration_is_its_number_times_its_unit(number: object, unit: str) -> None:
    expected = float(str(number)) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert parse_duration(f"{number}{unit}") == expected


@given(st.integers(1, 2**50))
def test_a_size_is_read_back_as_it_was_written(size: int) -> None:
    assert parse_bytes(format_bytes(size)) == size
    assert parse_bytes(size) == size


@given(st.integers(1, 1000), st.integers(1, 10**6), st.booleans())
def test_a_budget_is_read_back_as_it_was_written(alarms: int, per: int, by_windows: bool) -> None:
    budget = Budget(alarms, per_windows=alarms + per) if by_windows else Budget(alarms, per_seconds=float(per))
    assert Budget.parse(str(budget)) == budget


def test_a_budget_becomes_a_rate_by_the_windows_length() -> None:
    assert Budget.parse("1 per 1000 windows").rate_per_window(None) == 0.001
    assert Budget.parse("2 per 28h").rate_per_window(3600) == pytest.approx(2 / 28)
    with pytest.raises(ConfigError, match=r"must be `N per M windows` where .* got '1 per 30d'"):
        Budget.parse("1 per 30d").rate_per_window(None)
    with pytest.raises(ConfigError, match=r"fewer alarms than windows; got '2 per 1h' with a window every 1800 s"):
        Budget.parse("2 per 1h").rate_per_window(1800)


@given(st.integers(1, 100).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_k_of_n_is_read_back_as_it_was_written(k_n: tuple[int, int]) -> None:
    assert Persistence.parse(str(Persistence(*k_n))) == Persistence(*k_n)


@given(
    st.text(max_size=12) | st.none() | st.booleans() | st.lists(st.integers()) | st.integers() | st.floats(),
    st.sampled_from([parse_duration, parse_bytes, Budget.parse, Persistence.parse]),
)
def test_a_value_of_any_other_form_is_refused_with_a_reason(value: object, parse: Callable[[object], object]) -> None:
    assume(not (parse == parse_bytes and re.fullmatch(BYTES_PATTERN, str(value))))
    with pytest.raises(ValueError, match=r"^must "):
        parse(value)


@given(
    st.sampled_from(
        [
            (parse_duration, DURATION_PATTERN),
            (parse_bytes, BYTES_PATTERN),
            (Budget.parse, BUDGET_PATTERN),
            (Persistence.parse, PERSISTENCE_PATTERN),
        ]
    ).flatmap(lambda pair: st.tuples(st.just(pair[0]), st.from_regex(pair[1])))
)
def test_what_matches_the_pattern_is_read_or_refused_for_its_size(pair: tuple[Callable[[str], object], str]) -> None:
    parse, text = pair
    if text.endswith("\n"):  # `$` matches before it
        with pytest.raises(ValueError, match=r"^must be "):
            parse(text)
    elif parse == parse_bytes:
        assert (int(re.match(r"[0-9]+", text)[0]) > 0) == is_read(parse, text)
    elif parse == parse_duration:
        assert is_read(parse, text) == (float(text[:-1]) * SECONDS[text[-1]] <= LONGEST_S)
    else:
        is_read(parse, text)


def is_read(parse: Callable[[str], object], text: str) -> bool:
    """Whether the text is read; a refusal must have a reason."""
    try:
        parse(text)
    except ValueError as error:
        reason = str(error)
    else:
        return True
    assert reason.startswith("must ")
    return False

"""The scan over change points: against a plain double loop, split anywhere, restored from bytes, with bad values."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.sequential.blocks import LEAST_DISPERSION, dispersion_of
from detectors.sequential.change import Change
from detectors.sequential.glr import GLR, Baseline


def errors(rng: np.random.Generator, *parts: tuple[int, float]) -> np.ndarray:
    """0/1 errors: so many rows at each rate."""
    return np.concatenate([(rng.random(n) < p).astype(np.float64) for n, p in parts])


def found(glr: GLR, losses: np.ndarray, *, batch: int = 1000) -> list[Change]:
    state, changes = glr.init(), []
    for first in range(0, len(losses), batch):
        state, answer = glr.update(state, losses[first : first + batch])
        changes += answer.changes
    return changes


def likelihood(n: float, s: float) -> float:
    return sum(k * math.log(k / n) for k in (s, n - s) if k > 0)


def ratio(n1: float, s1: float, n2: float, s2: float) -> float:
    if s2 / n2 <= s1 / n1:
        return 0.0
    return likelihood(n1, s1) + likelihood(n2, s2) - likelihood(n1 + n2, s1 + s2)


def plain_chain(x: float, p: float, r: float) -> float:
    """The rate of a share x of ones in a Markov chain, over all numbers of changes between ones and zeros."""
    rise, stay = p * (1 - r), p + r * (1 - p)
    u = np.linspace(0, min(x, 1 - x), 2_001)[1:-1] if 0 < x < 1 else np.zeros(1)
    parts = [(x - u, x * stay), (u, x * (1 - stay)), (u, (1 - x) * rise), (1 - x - u, (1 - x) * (1 - rise))]
    return float(sum(a * np.log(a / b) if b and a.all() else 0 * a for a, b in parts).min())


def plain_statistic(glr: GLR, n1: float, s1: float, n2: float, s2: float, dispersion: float) -> float:
    found, p = ratio(n1, s1, n2, s2) / dispersion, (s1 + s2) / (n1 + n2)
    if dispersion > 1 and found > 0:
        r = (dispersion - 1) / (dispersion + 1)
        found = min(found, n1 * plain_chain(s1 / n1, p, r) + n2 * plain_chain(s2 / n2, p, r))
    gamma = glr.skewness * max(n2**-2 - n1**-2, 0) / (1 / n1 + 1 / n2) ** 1.5
    if gamma * found > 0:
        y = math.sqrt(2 * found) * gamma / 2
        found = 4 / gamma**2 * (y - math.log(1 + y))
    return found if math.isinf(glr.degrees) else glr.degrees / 2 * math.log(1 + 2 * found / glr.degrees)


def plain_dispersion(losses: Sequence[float], prior: float) -> float:
    n, p = len(losses), sum(losses) / len(losses)
    largest = LEAST_DISPERSION
    for rows, weight in ((8, 64), (64, 16)):
        sums = [sum(losses[i : i + rows]) for i in range(0, n - rows + 1, rows)]
        squares = sum((b - a) ** 2 for a, b in pairwise(sums)) / (2 * rows)
        variance = max(p * (1 - p), 1e-12)
        trust = 2 * rows * variance / (1 + 2 * rows * variance)
        seen = trust * squares / variance
        largest = max(largest, (weight * prior + seen) / (weight + trust * max(len(sums) - 1, 0)))
    return largest


def plain_first(glr: GLR, losses: Sequence[float]) -> int | None:
    """The row of the first change, by a loop over rows and windows."""
    known = glr.baseline
    for n in range(1, len(losses) + 1):
        dispersion = glr.excess * plain_dispersion(losses[:n], glr.dispersion)
        for level in range(10):
            for lag in (8, 10, 12, 14):
                rows = lag * 2**level
                before = n - rows
                if n % 2**level or before < (0 if known else glr.warm_up):
                    continue
                n1, s1 = (known.n, known.n * known.mean) if known else (before, sum(losses[:before]))
                s2, least = sum(losses[before:n]), glr.threshold - math.log(rows / 8)
                if ratio(n1, s1, rows, s2) / dispersion < least:
                    continue
                if plain_statistic(glr, n1, s1, rows, s2, dispersion) >= least:
                    return n - 1
    return None


@pytest.mark.parametrize(("excess", "skewness", "degrees"), [(1.0, 0.0, math.inf), (1.5, 0.0, 40.0), (1.2, 2.0, 90.0)])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_first_change_is_that_of_a_plain_double_loop(
    seed: int, known: bool, excess: float, skewness: float, degrees: float
) -> None:
    rng = np.random.default_rng(seed)
    losses = errors(rng, (int(rng.integers(0, 350)), 0.1), (300, float(rng.choice([0.1, 0.25, 0.6]))))
    if seed == 3:
        losses *= rng.random(len(losses))
    baseline = Baseline(0.1, 400) if known else None
    scatter = {"dispersion": 1.2, "excess": excess, "skewness": skewness, "degrees": degrees}
    glr = GLR(rows_per_false_alarm=3000, baseline=baseline, **scatter)
    changes = found(glr, losses, batch=97)
    assert (changes[0].row if changes else None) == plain_first(glr, losses.tolist())


def test_the_oracle_has_found_something() -> None:
    assert plain_first(GLR(rows_per_false_alarm=3000), [0.0] * 60 + [1.0] * 10) is not None


losses_with_gaps = st.lists(st.sampled_from([0.0, 0.0, 1.0, 0.25, math.nan, math.inf]), max_size=400)


@given(losses_with_gaps, st.lists(st.integers(0, 700), max_size=6), st.booleans())
@settings(max_examples=30, deadline=None)
def test_splitting_a_batch_anywhere_gives_the_same_state_and_answers(
    head: list[float], cuts: list[int], known: bool
) -> None:
    values = np.array(head + [1.0] * 120 + [0.0] * 60 + [1.0] * 40)
    times = np.arange(len(values)) * 2.0
    glr = GLR(rows_per_false_alarm=1000, baseline=Baseline(0.2, 300) if known else None)
    whole, answer = glr.update(glr.init(), values, times)
    state, changes, skipped = glr.init(), (), 0
    bounds = sorted(min(cut, len(values)) for cut in cuts)
    for first, end in zip([0, *bounds], [*bounds, len(values)], strict=True):
        state, part = glr.update(glr.from_bytes(glr.to_bytes(state)), values[first:end], times[first:end])
        changes, skipped = changes + part.changes, skipped + part.n_skipped
    assert glr.to_bytes(state) == glr.to_bytes(whole)
    assert changes == answer.changes
    assert (part.score, skipped) == (answer.score, answer.n_skipped)


def test_batches_longer_than_a_chunk_are_split_the_same_way() -> None:
    losses = errors(np.random.default_rng(5), (9000, 0.1), (3000, 0.3), (9000, 0.6))
    glr = GLR()
    _, answer = glr.update(glr.init(), losses)
    assert len(answer.changes) == 2
    assert found(glr, losses, batch=733) == list(answer.changes)


def test_the_state_of_another_kind_is_refused() -> None:
    glr = GLR()
    with pytest.raises(ValueError, match="begin with b'glr1'"):
        glr.from_bytes(b"else" + glr.to_bytes(glr.init())[4:])
    with pytest.raises(ValueError, match="bytes that begin"):
        glr.from_bytes(b"glr1")


def test_one_nan_switches_nothing_off() -> None:
    losses = errors(np.random.default_rng(6), (2000, 0.1), (500, 0.4))
    (plain,) = found(GLR(), losses)
    (gap,) = found(GLR(), np.insert(losses, 1000, np.nan))
    assert (gap.row, gap.began_row) == (plain.row + 1, plain.began_row + 1)
    glr = GLR()
    _, answer = glr.update(glr.init(), np.full(50, np.nan))
    assert (answer.n_skipped, answer.score.verdict, answer.score.reason) == (50, "undetermined", "warm_up")


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_constant_losses_are_no_change(value: float) -> None:
    assert found(GLR(rows_per_false_alarm=1000), np.full(20_000, value)) == []


def test_no_rows_change_nothing() -> None:
    glr = GLR()
    state, answer = glr.update(glr.init(), np.array([]))
    assert (answer.changes, answer.n_skipped) == ((), 0)
    assert glr.to_bytes(state) == glr.to_bytes(glr.init())


def test_a_rise_is_dated_in_rows_and_time() -> None:
    off = []
    for seed in range(30):
        losses = errors(np.random.default_rng(seed), (3000, 0.1), (600, 0.3))
        glr = GLR(rows_per_false_alarm=100_000)
        _, answer = glr.update(glr.init(), losses, np.arange(len(losses)) * 60.0 + 7.0)
        (change,) = [change for change in answer.changes if change.row >= 2900]
        assert (change.time_s, change.began_time_s) == (change.row * 60.0 + 7.0, change.began_row * 60.0 + 7.0)
        assert change.before == pytest.approx(0.1, abs=0.03)
        assert change.after == pytest.approx(0.3, abs=0.2)
        off.append(abs(change.began_row - 3000))
    assert np.median(off) <= 20


def test_a_rise_from_a_tenth_to_three_tenths_is_found_within_a_hundred_rows() -> None:
    delays = [
        found(GLR(rows_per_false_alarm=100_000), errors(np.random.default_rng(seed), (3000, 0.1), (600, 0.3)))[0].row
        - 3000
        for seed in range(30)
    ]
    assert np.mean(delays) < 100
    assert max(delays) < 300


def test_a_fall_is_no_change_and_the_rise_after_it_is() -> None:
    rng = np.random.default_rng(9)
    fallen = errors(rng, (1000, 0.5), (4000, 0.1))
    assert found(GLR(), fallen) == []
    assert len(found(GLR(), np.concatenate([fallen, errors(rng, (400, 0.4))]))) >= 1


def test_a_baseline_shows_a_loss_that_was_high_from_the_first_row_on() -> None:
    losses = errors(np.random.default_rng(10), (2000, 0.4))
    assert found(GLR(), losses) == []
    changes = found(GLR(baseline=Baseline(0.2, 5000)), losses)
    assert changes[0].began_row < 30
    assert len(changes) > 1  # as long as it stays high
    assert changes[0].before == 0.2


def test_a_short_reference_is_worth_less_than_a_long_one() -> None:
    losses = errors(np.random.default_rng(11), (3000, 0.23))
    assert found(GLR(baseline=Baseline(0.2, 100)), losses) == []
    assert found(GLR(baseline=Baseline(0.2, 1_000_000)), losses) != []


def test_the_score_reaches_the_threshold_where_a_change_is_found() -> None:
    losses = errors(np.random.default_rng(12), (2000, 0.1), (600, 0.3))
    glr = GLR()
    (change,) = found(glr, losses)
    _, before = glr.update(glr.init(), losses[: change.row])
    _, calm = glr.update(glr.init(), losses[:2000])
    assert calm.score.statistic < before.score.statistic < glr.threshold
    assert before.score.effect > 0.1


@pytest.mark.parametrize(
    ("rate", "shape", "wanted"), [(0.3, None, 1.0), (0.5, "alternating", 0.1), (0.5, "uniform", 1 / 3)]
)
def test_the_dispersion_is_the_variance_over_that_of_errors(rate: float, shape: str | None, wanted: float) -> None:
    rng = np.random.default_rng(13)
    losses = errors(rng, (40_000, rate))
    if shape == "alternating":
        losses = np.arange(40_000) % 2
    elif shape == "uniform":
        losses = rng.random(40_000)
    assert dispersion_of(losses) == pytest.approx(wanted, rel=0.15)


def test_errors_that_alternate_are_told_from_errors_that_do_not() -> None:
    """The rate hardly moves, but so steady a stream makes even a small rise certain."""
    rng = np.random.default_rng(14)
    steady = (np.arange(8000) % 2).astype(np.float64)
    changes = found(GLR(), np.concatenate([steady, errors(rng, (1000, 0.55))]))
    assert changes
    assert changes[0].row < 8600


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GLR(rows_per_false_alarm=10), "`rows_per_false_alarm` must lie in"),
        (lambda: GLR(dispersion=0), "`dispersion` must be above 0"),
        (lambda: GLR(excess=0.9), "`excess` must be at least 1"),
        (lambda: GLR(skewness=-1), "`skewness` at least 0"),
        (lambda: GLR(degrees=0), "`degrees` above 0"),
        (lambda: GLR(warm_up=0), "`warm_up` must be at least 1"),
        (lambda: Baseline(1.5, 10), "`mean` must lie in"),
        (lambda: GLR().update(GLR().init(), np.array([0.5, 1.5])), "`values` must lie in .* got 1.5"),
        (lambda: GLR().update(GLR().init(), np.zeros((2, 2))), "`values` must have one dimension"),
        (lambda: GLR().update(GLR().init(), np.zeros(2), np.zeros(3)), "`times_s` must have one time a value"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()

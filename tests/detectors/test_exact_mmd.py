"""The exact MMD against a plain double loop, its laws, its p-values and its power."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kstest

from detectors.two_sample import exact_mmd
from detectors.two_sample.exact_mmd import mmd

seeds = st.integers(0, 2**32 - 1)


def double_loop(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """The definition, pair by pair."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return math.exp(-sum((p - q) ** 2 for p, q in zip(a.tolist(), b.tolist(), strict=True)) / (2 * bandwidth**2))

    n, m = len(x), len(y)
    xx = math.fsum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j)
    yy = math.fsum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j)
    xy = math.fsum(kernel(a, b) for a in x for b in y)
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)


def by_differences(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """The definition in float64 from differences, row by row: for sizes at which the double loop takes minutes."""

    def total(a: np.ndarray, b: np.ndarray) -> float:
        with np.errstate(over="ignore"):
            return math.fsum(float(np.exp(-0.5 * (((b - row) / bandwidth) ** 2).sum(axis=1)).sum()) for row in a)

    n, m = len(x), len(y)
    return (total(x, x) - n) / (n * (n - 1)) + (total(y, y) - m) / (m * (m - 1)) - 2 * total(x, y) / (n * m)


def permuted_p_value(x: np.ndarray, y: np.ndarray, bandwidth: float, permutations: int, seed: int) -> float:
    """A permutation test that relabels the rows and computes everything again."""
    rng, pool, observed = np.random.default_rng(seed), np.concatenate([x, y]), by_differences(x, y, bandwidth)
    at_least = 0
    for _ in range(permutations):
        rows = rng.permutation(pool)
        at_least += by_differences(rows[: len(x)], rows[len(x) :], bandwidth) >= observed
    return (1 + at_least) / (1 + permutations)


@pytest.mark.parametrize(("n", "m", "features"), [(2, 2, 1), (30, 30, 1), (47, 21, 3), (20, 60, 8)])
def test_equals_a_double_loop_to_1e_10(n: int, m: int, features: int) -> None:
    rng = np.random.default_rng(n + m)
    x, y = rng.normal(size=(n, features)), rng.normal(0.1, 1.2, (m, features))
    result = mmd(x, y, block=16)
    assert result.mmd2 == pytest.approx(double_loop(x, y, result.bandwidth), rel=1e-10)


@pytest.mark.parametrize("features", [1, 8, 32])
def test_float32_tiles_stay_within_1e_9_of_float64_without_drift(features: int) -> None:
    rng = np.random.default_rng(features)
    x, y = rng.normal(size=(1100, features)), rng.normal(size=(1300, features))
    result = mmd(x, y)
    assert abs(result.mmd2 - by_differences(x, y, result.bandwidth)) < 1e-9


def test_far_rows_keep_their_distances_and_overflow_nothing() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.standard_t(2, (1300, 4)), rng.standard_t(2, (1200, 4))
    y[:300] = 1e6 + rng.normal(size=(300, 4))  # float32 cannot tell these from each other
    x[0], x[1], y[300], y[301] = 1e200, 1.7e308, -1.7e308, 1e200
    result = mmd(x, y)
    expected = by_differences(x / 2, y / 2, result.bandwidth / 2)  # halved: 1.7e308 − −1.7e308 is no float
    assert abs(result.mmd2 - expected) < 1e-9


@settings(max_examples=30)
@given(seed=seeds, n=st.integers(2, 40), m=st.integers(2, 40), features=st.integers(1, 4), block=st.integers(1, 90))
def test_is_symmetric_and_depends_neither_on_row_order_nor_on_the_block(
    seed: int, n: int, m: int, features: int, block: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, features)), rng.normal(size=(m, features))
    expected = mmd(x, y)
    other = mmd(rng.permutation(y), rng.permutation(x), bandwidth=expected.bandwidth, block=block)
    assert other.mmd2 == pytest.approx(expected.mmd2, rel=1e-10, abs=1e-14)


@settings(max_examples=30)
@given(seed=seeds, n=st.integers(3, 40), scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_moving_and_scaling_both_samples_changes_nothing(seed: int, n: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 2)), rng.normal(size=(n, 2))
    moved = mmd(x * scale + shift, y * scale + shift)
    assert moved.mmd2 == pytest.approx(mmd(x, y).mmd2, rel=1e-6, abs=1e-8)
    assert moved.bandwidth == pytest.approx(mmd(x, y).bandwidth * scale, rel=1e-6)


@settings(max_examples=30)
@given(seed=seeds, n=st.integers(2, 40))
def test_the_biased_estimate_of_equal_multisets_is_zero(seed: int, n: int) -> None:
    # with the diagonal the biased estimate is 0, so the unbiased one is −2/n·(1 − mean kernel of different rows)
    x = np.random.default_rng(seed).normal(size=(n, 3))
    result = mmd(x, np.random.default_rng(seed + 1).permutation(x))
    kernel = np.exp(-0.5 * ((x[:, np.newaxis] - x) ** 2).sum(axis=2) / result.bandwidth**2)
    mean_kernel = (kernel.sum() - n) / (n * (n - 1))
    assert result.mmd2 == pytest.approx(-2 / n * (1 - mean_kernel), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(12, 12), (25, 10)])
def test_p_values_agree_with_relabelling_and_computing_again(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 2)), rng.normal(0.5, 1.0, (m, 2))
    result = mmd(x, y, permutations=4000, seed=1, block=16)
    assert result.p_value is not None
    expected = permuted_p_value(x, y, result.bandwidth, 1000, seed=2)
    assert abs(result.p_value - expected) < 4 * math.sqrt(expected * (1 - expected) * (1 / 4000 + 1 / 1000))


@pytest.mark.parametrize(("n", "m"), [(40, 40), (60, 15)])
def test_p_values_are_uniform_without_drift(n: int, m: int) -> None:
    rng = np.random.default_rng(7)
    p_values = np.array(
        [mmd(rng.normal(size=(n, 2)), rng.normal(size=(m, 2)), permutations=39, seed=i).p_value for i in range(250)]
    )
    for level in (0.05, 0.2):
        low, high = binom.ppf([0.0005, 0.9995], len(p_values), level)
        assert low <= (p_values <= level).sum() <= high
    # on the grid 1/40 … 40/40; half a step back makes it comparable with the continuous uniform law
    assert kstest(p_values - 0.0125, "uniform").pvalue > 0.001


def test_p_values_of_float32_tiles_agree_with_those_of_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=(900, 4)), rng.normal(0.03, 1.0, (1200, 4))
    fast = mmd(x, y, permutations=200, seed=3)
    monkeypatch.setattr(exact_mmd, "_EXACT_ROWS", 10_000)
    slow = mmd(x, y, permutations=200, seed=3)
    assert fast.p_value == slow.p_value
    assert fast.mmd2 != slow.mmd2


def test_sees_a_change_of_correlation_alone() -> None:
    correlated, shuffled = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(2, 300, 2))
        y[:, 1] = 0.7 * y[:, 0] + math.sqrt(1 - 0.7**2) * y[:, 1]  # each column stays standard normal
        correlated.append(mmd(x, y, permutations=99).p_value)
        y[:, 1] = rng.permutation(y[:, 1])  # the same columns without their correlation
        shuffled.append(mmd(x, y, permutations=99).p_value)
    assert max(p for p in correlated if p is not None) <= 0.05
    assert sum(p <= 0.05 for p in shuffled if p is not None) <= binom.ppf(0.9995, 20, 0.05)


def test_ties_count_as_at_least() -> None:
    # every relabelling of rows of which all but one are equal gives one of two values, the observed one among them
    x, y = np.array([0.0, 0, 0, 0, 1]), np.zeros(5)
    assert mmd(x, y, permutations=50).p_value == 1.0


def test_the_same_seed_gives_the_same_p_value_and_another_seed_another_sample_of_relabellings() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(50, 2)), rng.normal(size=(50, 2))
    results = [mmd(x, y, permutations=200, seed=seed) for seed in (1, 1, 2, 3)]
    assert results[0] == results[1]
    assert len({r.p_value for r in results}) > 1
    assert len({r.mmd2 for r in results}) == 1


def test_rows_that_are_not_finite_are_dropped_and_counted() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(25, 2))
    dirty_x = np.concatenate([[[np.nan, 0.0]], x, [[np.inf, np.nan]]])
    dirty_y = np.concatenate([y, [[0.0, -np.inf]]])
    clean, dirty = mmd(x, y, permutations=20), mmd(dirty_x, dirty_y, permutations=20)
    assert (dirty.dropped_reference, dirty.dropped_current) == (2, 1)
    assert (dirty.n_reference, dirty.n_current) == (30, 25)
    assert (dirty.mmd2, dirty.p_value) == (clean.mmd2, clean.p_value)


def test_a_vector_is_one_feature() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=40), rng.normal(size=30)
    assert mmd(x, y) == mmd(x[:, np.newaxis], y[:, np.newaxis])
    assert mmd(np.arange(9), np.arange(8)).n_reference == 9


def test_the_bandwidth_is_the_median_of_positive_distances_on_the_reference() -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(60, 2))
    distances = np.sqrt(((x[:, np.newaxis] - x) ** 2).sum(axis=2))[np.triu_indices(60, 1)]
    assert mmd(x, x + 5).bandwidth == pytest.approx(np.median(distances), rel=1e-12)
    mostly_zero = np.concatenate([np.zeros(50), [3.0]])
    assert mmd(mostly_zero, mostly_zero).bandwidth == 3.0
    long = rng.normal(size=(2500, 2))
    assert mmd(long, long[:10]).bandwidth == mmd(long, long[:20]).bandwidth


@pytest.mark.parametrize(
    ("reference", "current", "options", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 1)), {}, "`current` must have the reference's 2 columns; got 1."),
        (
            np.zeros((3, 2, 2)),
            np.zeros(3),
            {},
            r"`reference` must be of shape \(n,\) or \(n, features\); got \(3, 2, 2\)",
        ),
        (np.zeros((3, 0)), np.zeros(3), {}, "`reference` must be of shape"),
        (np.arange(3.0), np.zeros(1), {}, "`current` must have at least 2 rows of finite numbers; got 1 of 1."),
        (np.full(3, np.nan), np.zeros(3), {}, "`reference` must have at least 2 rows of finite numbers; got 0 of 3."),
        (np.ones(3), np.zeros(3), {}, "`bandwidth` must be given where all reference rows are equal"),
        (np.arange(3.0), np.zeros(3), {"bandwidth": 0.0}, "`bandwidth` must be positive and finite; got 0.0."),
        (np.arange(3.0), np.zeros(3), {"bandwidth": np.nan}, "`bandwidth` must be positive and finite; got nan."),
        (np.arange(3.0), np.zeros(3), {"permutations": -1}, "`permutations` must be at least 0; got -1."),
        (np.arange(3.0), np.zeros(3), {"block": 0}, "`block` must be at least 1; got 0."),
    ],
)
def test_what_cannot_be_compared_is_refused_with_what_to_do(
    reference: np.ndarray, current: np.ndarray, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mmd(reference, current, **options)

"""Dependence against series whose autocovariances are known."""

import numpy as np
import pytest
from scipy.signal import lfilter

from detectors.dependence import Autocovariance, autocovariance, flat_top, widening


def ar1(n: int, phi: float, seed: int) -> np.ndarray:
    """A series of sd 1 whose correlation at lag k is phi^k."""
    noise = np.random.default_rng(seed).normal(size=n + 2000) * np.sqrt(1 - phi**2)
    return np.asarray(lfilter([1.0], [1.0, -phi], noise)[2000:])


def found(series: np.ndarray) -> Autocovariance:
    result = autocovariance(series)
    assert result is not None
    return result


def test_lags_are_those_of_the_definition() -> None:
    series = ar1(300, 0.6, 0)
    result, centred = found(series), series - series.mean()
    for k, value in enumerate(result.lags):
        assert value == pytest.approx(float(centred[: len(series) - k] @ centred[k:]) / len(series), abs=1e-12)
    assert len(result.lags) == result.cut + 1


def test_independent_rows_need_hardly_a_block() -> None:
    blocks = [found(np.random.default_rng(seed).normal(size=5000)).block for seed in range(20)]
    assert np.median(blocks) <= 1
    assert max(blocks) < 12


def test_autocorrelated_rows_need_the_blocks_of_the_literature() -> None:
    n, phi = 20_000, 0.9
    blocks = [found(ar1(n, phi, seed)).block for seed in range(10)]
    expected = (2 * (2 * phi / (1 - phi**2)) ** 2 * n * 3 / 4) ** (1 / 3)  # (2 G²/D)^⅓ n^⅓ of an AR(1), D = 4/3 g²
    assert np.median(blocks) == pytest.approx(expected, rel=0.25)


def test_the_variance_of_sums_is_that_of_the_series() -> None:
    phi, length = 0.8, 20
    long_run = np.mean([found(ar1(20_000, phi, seed)).variance(np.inf) for seed in range(10)])
    assert long_run == pytest.approx((1 + phi) / (1 - phi), rel=0.1)
    series = ar1(400_000, phi, 99)
    simulated = series.reshape(-1, length).mean(axis=1).var() * length
    short = np.mean([found(ar1(20_000, phi, seed)).variance(length) for seed in range(10)])
    assert short == pytest.approx(simulated, rel=0.1)


def test_the_variance_of_one_row_is_that_of_the_series_and_never_falls_near_zero() -> None:
    result = found(ar1(2000, 0.5, 1))
    assert result.variance(1) == pytest.approx(result.lags[0])
    alternating = found(np.resize([1.0, -1.0], 2000) + np.random.default_rng(0).normal(size=2000) / 100)
    assert alternating.variance(np.inf) >= 0.05 * alternating.lags[0]


def test_a_season_asks_for_a_block_that_nothing_can_have() -> None:
    n, period = 20_000, 200
    series = np.sin(2 * np.pi * np.arange(n) / period) + np.random.default_rng(0).normal(size=n) / 3
    result = found(series)
    assert result.block > n / 20
    assert result.lags.min() < -0.5 * result.lags[0]


@pytest.mark.parametrize("constant", [0.0, 3.0, -1e9])
def test_a_constant_has_no_dependence(constant: float) -> None:
    assert autocovariance(np.full(500, constant)) is None


@pytest.mark.parametrize("n", [20, 50, 51])
def test_short_series_are_measured(n: int) -> None:
    assert np.isfinite(found(np.random.default_rng(0).normal(size=n)).block)


def test_weights_are_one_up_to_half_the_cut_and_fall_to_nothing() -> None:
    assert flat_top(np.array([0, 5, 10, 15, 20, 30]), 20).tolist() == [1, 1, 1, 0.5, 0, 0]


def test_widening_is_one_for_independent_rows_and_undoes_what_blocks_lose() -> None:
    independent = Autocovariance(1.0, 0, np.array([1.0]))
    assert widening(independent, n=500, reference=10**6, block=1, reference_block=1) == pytest.approx(1, abs=1e-5)
    phi = 0.9
    lags = phi ** np.arange(200.0)
    dependent = Autocovariance(100.0, 199, lags)
    factors = [widening(dependent, n=1000, reference=40_000, block=b, reference_block=b) for b in (1, 10, 50, 200)]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == pytest.approx(np.sqrt((1 + phi) / (1 - phi)), rel=0.02)  # rows drawn one by one
    assert 1 <= factors[-1] < 1.05

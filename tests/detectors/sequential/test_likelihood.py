"""The ratio of errors that are alike: against the growth of moments of a Markov chain, and against a t statistic."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import gamma, norm, t

from detectors.sequential.likelihood import chain_rate, chain_skewness, likelihood_ratio, skewed, statistic


@pytest.mark.parametrize("correlation", [0.0, 0.1, 0.6, 0.95])
@pytest.mark.parametrize(("x", "p"), [(0.3, 0.1), (0.9, 0.1), (0.02, 0.1), (0.6, 0.5), (0.99, 0.7), (0.01, 0.001)])
def test_the_rate_is_the_transform_of_the_largest_eigenvalue(x: float, p: float, correlation: float) -> None:
    rise, stay = p * (1 - correlation), p + correlation * (1 - p)

    def negative(theta: float) -> float:
        tilted = np.array([[1 - rise, rise * math.exp(theta)], [1 - stay, stay * math.exp(theta)]])
        return math.log(max(np.linalg.eigvals(tilted).real)) - theta * x

    best = -minimize_scalar(negative, bounds=(-30, 30), method="bounded", options={"xatol": 1e-10}).fun
    found = float(chain_rate(np.array(x), np.array(p), np.array(correlation)))
    assert found == pytest.approx(best, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("p", [0.02, 0.3, 0.8])
def test_a_chains_skewness_is_the_third_derivative_of_its_largest_eigenvalue(p: float, correlation: float) -> None:
    rise, stay = p * (1 - correlation), p + correlation * (1 - p)
    step = 0.02 * (1 - correlation)

    def grown(theta: float) -> float:
        tilted = np.array([[1 - rise, rise * math.exp(theta)], [1 - stay, stay * math.exp(theta)]])
        return math.log(max(np.linalg.eigvals(tilted).real))

    above, below = grown(2 * step) - 2 * grown(step), grown(-2 * step) - 2 * grown(-step)
    variance = (grown(step) + grown(-step)) / step**2
    third = (above - below) / (2 * step**3)
    dispersion = (1 + correlation) / (1 - correlation)
    assert variance == pytest.approx(p * (1 - p) * dispersion, rel=0.01)
    assert chain_skewness(p, dispersion) == pytest.approx(third / variance**1.5, rel=0.02)


def test_the_shares_at_the_ends_have_the_rate_of_one_run() -> None:
    rise, stay = 0.1 * 0.4, 0.1 + 0.6 * 0.9
    found = chain_rate(np.array([0.0, 1.0]), np.array(0.1), np.array(0.6))
    np.testing.assert_allclose(found, [-math.log(1 - rise), -math.log(stay)])


def test_without_dispersion_it_is_the_ratio_of_independent_errors() -> None:
    n1, s1, n2, s2 = (np.array(v) for v in ([900.0, 4000.0], [90.0, 400.0], [20.0, 64.0], [12.0, 6.0]))
    plain = likelihood_ratio(n1, s1, n2, s2)
    for dispersion in (1.0, 0.4):
        found = statistic(n1, s1, n2, s2, dispersion=np.array(dispersion), degrees=math.inf)
        np.testing.assert_allclose(found, plain / dispersion)
    assert plain[0] > 0 == plain[1]


def test_runs_make_a_short_window_full_of_errors_less_significant_than_the_dispersion_says() -> None:
    window = tuple(np.array(float(v)) for v in (4000, 400, 16, 16))
    plain = likelihood_ratio(*window)
    alike = statistic(*window, dispersion=np.array(4.0), degrees=math.inf)
    assert alike < 0.8 * plain / 4
    long = tuple(np.array(float(v)) for v in (4000, 400, 4000, 480))
    assert statistic(*long, dispersion=np.array(4.0), degrees=math.inf) == pytest.approx(
        float(likelihood_ratio(*long)) / 4, rel=0.1
    )


def test_degrees_of_freedom_make_a_normal_tail_that_of_a_t_statistic() -> None:
    degrees, z = 30.0, 6.0
    window = tuple(np.array(float(v)) for v in (1e9, 5e8, 1e6, 5e5 + z * 500))  # a mean z standard errors up
    found = float(statistic(*window, dispersion=np.array(1.0), degrees=degrees))
    as_normal = norm.sf(math.sqrt(2 * found))
    assert as_normal == pytest.approx(t.sf(z, degrees), rel=0.35)
    assert as_normal > 100 * norm.sf(z)


@pytest.mark.parametrize("z", [2.0, 4.0, 6.0])
@pytest.mark.parametrize("skewness", [0.5, 3.0])
def test_skewed_sums_have_the_tail_of_a_gamma(skewness: float, z: float) -> None:
    n1, n2 = 4000.0, 100.0
    of_difference = skewness * (n2**-2 - n1**-2) / (1 / n2 + 1 / n1) ** 1.5
    k = 4 / of_difference**2
    found = float(skewed(np.array(n1), np.array(n2), np.array(z * z / 2), skewness))
    at = k + z * math.sqrt(k)
    assert found == pytest.approx(at - k - k * math.log(at / k), rel=1e-9)  # the gamma's rate of large deviations
    assert norm.sf(math.sqrt(2 * found)) == pytest.approx(gamma.sf(at, k), rel=0.35)


def test_without_skewness_or_before_as_few_rows_as_in_the_window_nothing_changes() -> None:
    n, ratio = np.array([50.0, 100.0]), np.array([12.0, 12.0])
    np.testing.assert_array_equal(skewed(n, n, ratio, 3.0), ratio)
    np.testing.assert_array_equal(skewed(n * 9, n, ratio, 0.0), ratio)
    np.testing.assert_array_equal(skewed(n * 9, n, 0 * ratio, 3.0), 0 * ratio)

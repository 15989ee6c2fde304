"""What the reference's losses say of sums of them, and that it keeps the scan's budget where they alternate."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import poisson

from detectors.performance.loss_baseline import LossBaseline, skewness_beyond_errors
from detectors.sequential.glr import GLR, Baseline
from detectors.sequential.likelihood import chain_skewness

N = 200_000
Draw = Callable[[int, np.random.Generator], np.ndarray]


def errors(n: int, rng: np.random.Generator) -> np.ndarray:
    """Independent ones."""
    return (rng.random(n) < 0.1).astype(np.float64)


def runs(n: int, rng: np.random.Generator) -> np.ndarray:
    """A Markov chain of errors whose neighbours correlate by .8."""
    fresh = np.where(rng.random(n) < 0.8, 0, np.arange(n))
    return (rng.random(n) < 0.1)[np.maximum.accumulate(fresh)].astype(np.float64)


def distances(n: int, rng: np.random.Generator) -> np.ndarray:
    """Of a number from its prediction, whose noise is an AR(1): calm and bad times alternate."""
    return np.abs(lfilter([1.0], [1.0, -0.9], rng.normal(size=n + 100))[100:])


@pytest.mark.parametrize("draw", [errors, runs])
def test_sums_of_errors_are_as_skewed_as_those_of_errors(draw: Draw) -> None:
    baseline = LossBaseline.of("binary", draw(N, np.random.default_rng(1)))
    own = chain_skewness(baseline.mean, baseline.dispersion * baseline.excess)
    assert own > 2.5
    assert baseline.skewness < 0.2 * own


def test_calm_and_bad_times_make_sums_skewed() -> None:
    baseline = LossBaseline.of("numeric", distances(N, np.random.default_rng(2)))
    sums = baseline.scaled(distances(40 * N, np.random.default_rng(3))).reshape(-1, 400).sum(axis=1)
    skewness = ((sums - sums.mean()) ** 3).mean() / sums.std() ** 3
    assert 0.9 * skewness < baseline.skewness / np.sqrt(400) < 1.6 * skewness  # with a standard error on top


def test_the_skewness_of_single_losses_is_their_own() -> None:
    losses = np.random.default_rng(4).random(N) ** 4
    mean, variance = losses.mean(), losses.var()
    dispersion = float(variance / (mean * (1 - mean)))
    own = ((losses - mean) ** 3).mean() / variance**1.5
    errors_own = (1 - 2 * mean) / np.sqrt(mean * (1 - mean)) * np.sqrt(dispersion)
    assert skewness_beyond_errors(losses, 1, dispersion) == pytest.approx(own - errors_own + np.sqrt(6 / N))
    assert skewness_beyond_errors(1 - losses, 1, dispersion) == 0.0


def test_a_baseline_is_its_arrays() -> None:
    baseline = LossBaseline.of("numeric", distances(4000, np.random.default_rng(5)))
    arrays = {name: np.asarray(part) for name, part in baseline.to_arrays().items()}
    again = LossBaseline.from_arrays(arrays).to_arrays()
    assert all(np.array_equal(again[name], part) for name, part in arrays.items())


@pytest.mark.slow
def test_losses_with_calm_and_bad_times_keep_the_budget() -> None:
    rows, budget, n = 1_000_000, 1_000_000.0, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        known = LossBaseline.of("numeric", distances(40_000, rng))
        scatter = {"dispersion": known.dispersion, "excess": known.excess, "degrees": known.degrees}
        glr = GLR(budget, Baseline(known.mean, known.n), skewness=known.skewness, **scatter)
        n += len(glr.update(glr.init(), known.scaled(distances(rows, rng)))[1].changes)
    assert n <= poisson.isf(1e-3, 12)  # without the skewness they come to about 34


@pytest.mark.parametrize("losses", [[0.0, 1.0], [1.0, 0.0, 1.0], [1.0]])
def test_a_handful_of_losses_says_nothing_of_their_dependence(losses: list[float]) -> None:
    made = LossBaseline.of("binary", np.array(losses))
    assert (made.mean, made.n, made.excess) == (np.mean(losses), len(losses), 1.0)

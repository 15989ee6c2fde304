"""The scan's false alarms on streams that do not change are within its budget, and it does not waste much of it."""

import numpy as np
import pytest
from scipy.stats import poisson

from detectors.sequential.blocks import dispersion_of
from detectors.sequential.glr import GLR, Baseline
from detectors.sequential.ranks import Ranks

BATCH = 20_000


def alarms(glr: GLR, losses: np.ndarray) -> int:
    state, n = glr.init(), 0
    for first in range(0, len(losses), BATCH):
        state, answer = glr.update(state, losses[first : first + BATCH])
        n += len(answer.changes)
    return n


def within(n: int, budget: float, *, most: float, least: float) -> bool:
    """Whether a detector at `most` times its budget shows so many, and one at `least`: each fails once in 1,000."""
    return bool(poisson.ppf(1e-3, least * budget) <= n <= poisson.isf(1e-3, most * budget))


def alike(n: int, p: float, keep: float, rng: np.random.Generator) -> np.ndarray:
    """Errors each of which repeats the one before with probability `keep`."""
    fresh = np.where(rng.random(n) < keep, 0, np.arange(n))
    return (rng.random(n) < p)[np.maximum.accumulate(fresh)].astype(np.float64)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("p", [0.01, 0.05, 0.2, 0.5, 0.8])
def test_the_budget_is_kept_at_every_base_rate(p: float, known: bool) -> None:
    n, budget = 240_000, 2000
    glr = GLR(rows_per_false_alarm=budget, baseline=Baseline(p, 10_000_000) if known else None)
    losses = (np.random.default_rng(20).random(n) < p).astype(np.float64)
    assert within(alarms(glr, losses), n / budget, most=1.1, least=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.05, 0.2, 0.5])
def test_a_tight_budget_is_kept_as_well(p: float) -> None:
    n, budget = 6_000_000, 100_000
    losses = (np.random.default_rng(21).random(n) < p).astype(np.float64)
    assert within(alarms(GLR(rows_per_false_alarm=budget), losses), n / budget, most=1.1, least=0.2)


def test_ranks_of_losses_with_a_heavy_tail_keep_the_budget() -> None:
    rng = np.random.default_rng(22)
    ranks = Ranks.of(rng.standard_t(2, 20_000) ** 2)
    losses = ranks(rng.standard_t(2, 300_000) ** 2)
    assert within(alarms(GLR(rows_per_false_alarm=3000), losses), 100, most=1.1, least=0.1)


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_with_the_references_dispersion_errors_that_are_alike_stay_near_the_budget(keep: float) -> None:
    rng = np.random.default_rng(23)
    known = dispersion_of(alike(50_000, 0.2, keep, rng))
    losses = alike(100_000, 0.2, keep, rng)
    n = alarms(GLR(rows_per_false_alarm=5_000, dispersion=known), losses)
    assert within(n, 20, most=2.2, least=0.2)
    assert alarms(GLR(rows_per_false_alarm=5_000), losses[:20_000]) > 2 * n / 5

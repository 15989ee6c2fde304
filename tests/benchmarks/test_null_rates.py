"""The benchmarks' way of judging many windows at once is the service's, and a small part of the null rates holds."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ks_2samp, nbinom

from benchmarks.null_rates import RATES, Outcome, Setting, judge
from benchmarks.streams import Stream, World, drawn_tables, profile_of, terms, windows
from detectors import calibration
from detectors.performance.tally import PredictionKind
from detectors.profile import Profile
from detectors.reference import build
from detectors.scoring import score

SMALL = World(n_numeric=3, n_categorical=2, categories=(3, 12), correlation=0.0)
N_ROWS, SAMPLED = 200, 50  # of a window, and at most in its MMD sample
SPREAD = 0.5  # of a reference's own rate around the average, relative


@pytest.fixture(scope="module")
def profile() -> Profile:
    return build(Stream(SMALL, 1).take(4000).columns(), SMALL.kinds, sizes=[N_ROWS], mmd_rows=SAMPLED)


def test_judging_many_windows_at_once_equals_scoring_them_one_by_one(profile: Profile) -> None:
    for portion in windows(profile, Stream(SMALL, 2), SMALL, N_ROWS, 30):
        one_by_one = [score(profile, table).terms for table in portion]
        np.testing.assert_allclose(terms(profile, portion), one_by_one, rtol=1e-12)


@pytest.mark.parametrize("model", ["probability", "numeric", "binary"])
def test_windows_with_labels_are_judged_like_the_service_judges_them_twice(model: PredictionKind) -> None:
    world = replace(SMALL, model=model)
    stream = Stream(world, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "DRAWS_FIT", 500)
        patch.setattr(calibration, "DRAWS_THRESHOLD", 1000)
        profile = profile_of(stream, world, 3000, [N_ROWS], mmd_rows=SAMPLED)
    late = profile.family.delayed
    assert late.any()
    for portion in windows(profile, stream, world, N_ROWS, 10):
        for table, row in zip(portion, terms(profile, portion), strict=True):
            np.testing.assert_allclose(row[~late], score(profile, table).terms, rtol=1e-12)
            np.testing.assert_allclose(row[late], score(profile, table, delayed=True).terms, rtol=1e-12)
            labels = table.counts[profile.grid.slice(profile.grid.names.index("loss"))].sum()
            assert 0.85 * N_ROWS < labels < N_ROWS


def test_tables_drawn_without_rows_are_distributed_like_those_of_rows(profile: Profile) -> None:
    counted = [table for portion in windows(profile, Stream(SMALL, 3), SMALL, N_ROWS, 600) for table in portion]
    rng = np.random.default_rng(4)
    drawn = [table for portion in drawn_tables(profile, SMALL, N_ROWS, 600, rng) for table in portion]
    first, second = terms(profile, counted), terms(profile, drawn)
    moving = np.flatnonzero(np.ptp(first, axis=0) > 0)
    assert len(moving) > 20
    p_values = [ks_2samp(first[:, t], second[:, t]).pvalue for t in moving]
    assert min(p_values) > 1e-4 / len(moving)


def test_rows_follow_one_another_across_portions() -> None:
    """An autocorrelated stream, taken in parts, goes on where it was."""
    world = World("ar1", n_numeric=1, n_categorical=0)
    stream = Stream(world, 5)
    rows = np.concatenate([stream.take(10).numeric for _ in range(4000)])[:, 0]
    at_seams = np.corrcoef(rows[9:-1:10], rows[10::10])[0, 1]
    assert at_seams == pytest.approx(0.9, abs=0.02)
    assert rows.std() == pytest.approx(1.0, abs=0.1)


@pytest.fixture(scope="module", params=[None, "probability", pytest.param("numeric", marks=pytest.mark.slow)], ids=str)
def outcomes(request: pytest.FixtureRequest) -> list[Outcome]:
    world = World(n_numeric=2, n_categorical=1, categories=(3,), model=request.param)
    setting = Setting("small", world, n_reference=4000, n_current=100, n_windows=6000)
    return [judge(setting, seed) for seed in range(3)]


@pytest.mark.parametrize("at", range(len(RATES)))
def test_the_budget_is_kept_on_average_over_references(outcomes: list[Outcome], at: int) -> None:
    """Once in 1,000 runs a monitor at 1.2 of its budget (at 1/1,000: 1.5) shows more, one at .5 shows fewer.

    A reference's count is Poisson with a rate of its own, gamma-distributed with the coefficient of variation SPREAD.
    """
    budget = sum(o.n_windows for o in outcomes) * RATES[at]
    shape = len(outcomes) / SPREAD**2
    alarms = sum(o.alarms[at] for o in outcomes)
    most = (1.2, 1.5)[at] * budget
    assert alarms <= nbinom.isf(1e-3, shape, shape / (shape + most))
    if at == 0:
        assert alarms >= nbinom.ppf(1e-3, shape, shape / (shape + 0.5 * budget))


def test_every_false_alarm_has_a_leader_and_the_weights_share_one_budget(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        assert sum(outcome.leaders.values()) == outcome.alarms[0]
        assert sum(outcome.weights.values()) == pytest.approx(1.0)

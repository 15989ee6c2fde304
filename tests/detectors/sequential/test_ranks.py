"""Real-valued losses as ranks among the reference's."""

import numpy as np
import pytest

from detectors.sequential.glr import GLR, Baseline
from detectors.sequential.ranks import Ranks


def test_the_references_own_ranks_have_mean_one_half() -> None:
    rng = np.random.default_rng(0)
    for losses in (rng.lognormal(size=5000), np.repeat([0.0, 1.0], [4000, 1000]), rng.integers(0, 3, 500)):
        assert Ranks.of(losses)(losses).mean() == pytest.approx(0.5, abs=0.01)


def test_the_unit_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    reference, losses = rng.lognormal(size=700), rng.lognormal(size=300)
    assert (Ranks.of(reference)(losses) == Ranks.of(reference * 1000)(losses * 1000)).all()


def test_what_is_missing_stays_missing_and_what_is_infinite_is_an_end() -> None:
    ranks = Ranks.of([1.0, 2.0, np.nan])
    np.testing.assert_array_equal(ranks([np.nan, np.inf, -np.inf]), [np.nan, 1.0, 0.0])


def test_a_reference_without_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="`losses` must hold a finite value"):
        Ranks.of([np.nan])


def test_squared_errors_that_grow_by_half_are_found() -> None:
    rng = np.random.default_rng(2)
    reference = rng.standard_t(3, 5000) ** 2
    losses = rng.standard_t(3, 4000) ** 2
    losses[3000:] *= 2.25
    glr = GLR(baseline=Baseline(0.5, 5000))
    _, answer = glr.update(glr.init(), Ranks.of(reference)(losses))
    assert 3000 <= answer.changes[0].row < 3400
    assert answer.changes[0].began_row == pytest.approx(3000, abs=150)

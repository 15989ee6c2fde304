"""Null tails: fits to known distributions, and curves whose rates are what they say."""

import numpy as np
import pytest
from profile_examples import Built
from scipy.stats import chi2, expon, norm

from detectors.family import Family
from detectors.tails import (
    EMPIRICAL,
    RATES,
    Fit,
    exact_curve,
    fit,
    minus_log_p,
    normal_score,
    opening_curve,
    threshold_curve,
)


@pytest.fixture(scope="module")
def family(mixed: Built) -> Family:
    return mixed.profile.family


def draws_of(family: Family, n: int, **columns: np.ndarray) -> np.ndarray:
    """Null draws of every term: |standard normal|, or what `columns` say of a detector."""
    draws = np.abs(np.random.default_rng(0).normal(size=(n, len(family.terms))))
    for detector, values in columns.items():
        draws[:, family.of(detector)] = values[:, None]
    return draws


def test_the_fitted_tail_of_a_known_distribution_is_its_tail(family: Family) -> None:
    rng = np.random.default_rng(1)
    n = 40_000
    laws = {"psi": np.sqrt(rng.chisquare(9, n)), "ks": rng.gumbel(size=n), "wasserstein": 7 + rng.normal(size=n)}
    fitted = fit(family, draws_of(family, n, **laws), np.zeros(len(family.terms), bool))
    at = {"psi": np.sqrt(chi2.isf(1e-4, 9)), "ks": -np.log(-np.log1p(-1e-4)), "wasserstein": 7 + norm.isf(1e-4)}
    for detector, threshold in at.items():
        term = family.of(detector)[0]
        pivots = np.zeros(len(family.terms))
        pivots[term] = threshold
        assert minus_log_p(family, fitted, pivots)[term] == pytest.approx(-np.log(1e-4), abs=0.5)


@pytest.mark.parametrize("detector", ["location", "scale"])
def test_location_and_scale_are_two_sided_normal_with_the_sd_of_the_draws(family: Family, detector: str) -> None:
    sd = 1.7
    fitted = fit(
        family,
        draws_of(family, 20_000, **{detector: sd * np.random.default_rng(2).normal(size=20_000)}),
        np.zeros(len(family.terms), bool),
    )
    pivots = np.full(len(family.terms), 4 * sd)
    term = family.of(detector)[0]
    assert fitted.b[term] == pytest.approx(sd, rel=0.02)
    assert minus_log_p(family, fitted, pivots)[term] == pytest.approx(-np.log(2 * norm.sf(4)), abs=0.5)


@pytest.mark.parametrize("detector", ["missing", "invalid", "unseen"])
def test_an_exact_score_stays_what_it_is_or_widens(family: Family, detector: str) -> None:
    two_sided = detector == "missing"
    pivots = np.full(len(family.terms), 5.0)
    for factor in (0.0, 0.3, 1.0, 2.0):
        values = factor * np.abs(np.random.default_rng(3).normal(size=20_000))
        values = values if two_sided else values * (np.random.default_rng(4).random(20_000) < 0.5)
        fitted = fit(family, draws_of(family, 20_000, **{detector: values}), np.zeros(len(family.terms), bool))
        term = family.of(detector)[0]
        found = minus_log_p(family, fitted, pivots)[term]
        exact = -np.log(norm.sf(5.0 / max(1.0, factor)) * (2 if two_sided else 1))
        assert found == pytest.approx(exact, rel=0.06)
        assert not fitted.flat[term]


def test_a_term_that_never_moved_is_flat_also_with_what_rounding_leaves(family: Family) -> None:
    noise = 1e-6 * np.random.default_rng(5).random(5000)
    fitted = fit(
        family,
        draws_of(family, 5000, ks=np.zeros(5000), psi=noise, largest_cell=np.zeros(5000)),
        np.zeros(len(family.terms), bool),
    )
    flat = set(family.detector[fitted.flat])
    assert flat == {"ks", "psi", "largest_cell"}
    out = minus_log_p(family, fitted, np.full(len(family.terms), 5.0))
    assert (out[family.of("ks")] == -np.inf).all()
    cells = family.of("largest_cell")
    bound = -np.log(2 * norm.sf(5.0) * family.n_cells[cells])
    np.testing.assert_allclose(out[cells], np.maximum(bound, 0))


def test_the_largest_cell_is_never_more_significant_than_bonferroni_over_its_cells(family: Family) -> None:
    fitted = fit(
        family,
        draws_of(family, 5000, largest_cell=np.abs(np.random.default_rng(6).normal(size=5000)) / 9),
        np.zeros(len(family.terms), bool),
    )
    pivots = np.random.default_rng(7).uniform(0, 9, (200, len(family.terms)))
    at = family.of("largest_cell")
    out = minus_log_p(family, fitted, pivots)[:, at]
    bound = -np.log(np.minimum(2 * norm.sf(pivots[:, at]) * family.n_cells[at], 1))
    assert (out <= bound + 1e-9).all()


def test_more_drift_is_never_less_significant(family: Family) -> None:
    rng = np.random.default_rng(8)
    fitted = fit(
        family,
        draws_of(family, 5000, psi=np.sqrt(rng.chisquare(3, 5000)), ks=rng.exponential(size=5000)),
        np.zeros(len(family.terms), bool),
    )
    pivots = np.linspace(0, 40, 400)[:, None] * np.ones(len(family.terms))
    out = minus_log_p(family, fitted, pivots)
    assert not np.isnan(out).any()
    moving = ~fitted.flat & (family.detector != "largest_cell")
    assert (np.diff(out[:, moving], axis=0) >= 0).all()
    assert (np.diff(out[:, family.of("largest_cell")], axis=0) >= 0).all()


def test_a_factor_of_students_correction_widens_positive_scores_only(family: Family) -> None:
    fitted = fit(family, draws_of(family, 5000), np.zeros(len(family.terms), bool))
    pivots = np.stack([np.full(len(family.terms), 6.0), np.zeros(len(family.terms))])
    plain, wider = minus_log_p(family, fitted, pivots), minus_log_p(family, fitted, pivots, np.array(2.0))
    above = normal_score(fitted, pivots) > 0
    assert (wider[above] >= plain[above]).all()
    assert (wider[~above] == plain[~above]).all()


@pytest.mark.parametrize(("c", "b"), [(0.0, 2.0), (0.4, 2.0), (1e-9, 1.0)])
def test_the_normal_score_inverts_the_fitted_polynomial(c: float, b: float) -> None:
    z = np.linspace(-1, 8, 50)
    fitted = Fit(np.array([0.7]), np.array([b]), np.array([c]), np.array([False]))
    found = normal_score(fitted, (0.7 + b * z + c * z * z)[:, None])[:, 0]
    np.testing.assert_allclose(found, z, atol=1e-6)


def test_thresholds_of_exponential_null_statistics_have_the_rates_they_are_kept_for() -> None:
    curve = threshold_curve(np.random.default_rng(9).exponential(2.0, 40_000))
    assert (np.diff(curve) > 0).all()
    log_ratio = expon.logsf(curve, scale=2.0) - np.log(RATES)
    assert np.abs(log_ratio[RATES >= EMPIRICAL]).max() < 0.15
    assert np.abs(log_ratio[RATES > 1e-4]).max() < 0.5


def test_a_statistic_that_never_moves_has_a_constant_curve_and_the_exact_terms_bound_it(family: Family) -> None:
    assert threshold_curve(np.full(1000, -3.0)).tolist() == [-3.0] * len(RATES)
    draws = draws_of(family, 1000, missing=np.zeros(1000), unseen=np.zeros(1000))
    still = np.isin(family.detector, ["missing", "unseen"])
    weight = np.exp(family.log_weight[still]).sum()
    curve = exact_curve(family, draws)
    np.testing.assert_allclose(weight * np.exp(-curve), RATES)  # the chance that one of them is over the threshold
    assert exact_curve(family, draws_of(family, 1000)).max() < -600  # all moved: no bound


def test_the_opening_curve_goes_through_the_rates_and_on_beyond_them() -> None:
    thresholds = np.linspace(0, 8, 60)
    rates = 0.3 * np.exp(-thresholds)
    rates[:5] = 0.1  # so low a threshold that alarms merge
    curve = opening_curve(thresholds, rates)
    assert (np.diff(curve) >= 0).all()
    inside = rates[5] >= RATES
    np.testing.assert_allclose(curve[inside], np.log(0.3 / RATES[inside]), atol=0.05)
    assert curve.min() >= thresholds[4]

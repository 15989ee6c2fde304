"""Simulated columns against the laws they claim, and drifts against their truth."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, kstest, lognorm, norm, pearsonr, t

from detectors import simulate
from detectors.simulate import Schedule, Stream, Truth

N = 20_000
FREQUENT = 0.001  # a test on fixed seeds at this level


def standard(seed: int, n: int = N, **options: float) -> np.ndarray:
    return simulate.latent(n, 1, np.random.default_rng(seed), **options)[:, 0]


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    start = draw(st.integers(0, 300))
    end = draw(st.integers(start + 1, 600))
    shape: Any = draw(st.sampled_from(["abrupt", "gradual", "incremental", "recurring"]))
    if shape == "recurring":
        on_rows, off_rows = draw(st.tuples(st.integers(1, 200), st.integers(1, 200)))
        return Schedule(shape, start, end, on_rows=on_rows, off_rows=off_rows)
    return Schedule(shape, start, end, ramp_rows=0 if shape == "abrupt" else draw(st.integers(1, 400)))


@given(schedule=schedules(), n=st.integers(0, 700), seed=st.integers(0, 99))
def test_rows_outside_the_truth_have_not_drifted(schedule: Schedule, n: int, seed: int) -> None:
    intensity = schedule.intensity(n, np.random.default_rng(seed))
    inside = np.zeros(n, bool)
    for first, end in schedule.intervals():
        assert schedule.start <= first < end <= schedule.end
        inside[first:end] = True
    assert intensity.shape == (n,)
    assert ((intensity >= 0) & (intensity <= 1)).all()
    assert (intensity[~inside] == 0).all()
    if schedule.shape in {"abrupt", "recurring"}:
        assert (intensity[inside] == 1).all()
    if schedule.shape == "incremental":
        assert (intensity[inside] > 0).all()
        assert (np.diff(intensity[schedule.start : schedule.end]) >= 0).all()
    if schedule.shape == "gradual":
        assert set(intensity.tolist()) <= {0.0, 1.0}


def test_a_recurring_drift_is_on_and_off_for_the_rows_stated() -> None:
    schedule = Schedule("recurring", 100, 460, on_rows=50, off_rows=150)
    assert schedule.intervals() == ((100, 150), (300, 350))
    assert Schedule("recurring", 100, 320, on_rows=50, off_rows=150).intervals() == ((100, 150), (300, 320))


def test_a_gradual_drift_takes_rows_with_the_probability_of_its_ramp() -> None:
    schedule = Schedule("gradual", 0, N, ramp_rows=N)
    intensity = schedule.intensity(N, np.random.default_rng(0))
    shares = intensity.reshape(10, -1).mean(axis=1)
    assert shares == pytest.approx(np.arange(0.05, 1, 0.1), abs=4 * 0.5 / np.sqrt(N / 10))


def test_an_incremental_drift_is_complete_at_the_end_of_its_ramp() -> None:
    intensity = Schedule("incremental", 10, 40, ramp_rows=20).intensity(50, np.random.default_rng(0))
    assert intensity[10] == 1 / 20
    assert intensity[19] == 0.5
    assert (intensity[29:40] == 1).all()
    assert intensity[40] == 0


@pytest.mark.parametrize(
    ("column", "law"),
    [
        (lambda z: simulate.normal(z, mean=40, sd=12), norm(40, 12)),
        (lambda z: simulate.lognormal(z, median=30, sigma=0.7), lognorm(0.7, scale=30)),
        (lambda z: simulate.heavy_tailed(z, scale=3), t(2, scale=3)),
        (lambda z: (v := simulate.zero_inflated(z, zeros=0.6, median=5, sigma=1.2))[v > 0], lognorm(1.2, scale=5)),
    ],
    ids=["normal", "lognormal", "heavy_tailed", "zero_inflated"],
)
def test_a_numeric_column_follows_its_law(column: Any, law: Any) -> None:
    assert kstest(column(standard(1)), law.cdf).pvalue > FREQUENT


def test_heavy_tails_keep_their_digits_on_both_sides() -> None:
    z = np.array([-8.0, -3.0, 3.0, 8.0])
    assert simulate.heavy_tailed(z) == pytest.approx(
        np.concatenate([t(2).ppf(norm.cdf(z[:2])), t(2).isf(norm.sf(z[2:]))])
    )


def test_zeros_whole_numbers_and_booleans_have_their_shares() -> None:
    z = standard(2)
    assert (simulate.zero_inflated(z, zeros=0.6) == 0).mean() == pytest.approx(0.6, abs=0.015)
    counts = simulate.integer(z, median=12, sigma=0.8)
    assert (counts == np.floor(counts)).all()
    assert (counts < 12).mean() == pytest.approx(0.5, abs=0.015)
    assert set(simulate.boolean(z, share=0.3).tolist()) == {True, False}
    assert simulate.boolean(z, share=0.3).mean() == pytest.approx(0.3, abs=0.015)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.7])
def test_categories_have_zipfs_shares(exponent: float) -> None:
    names = ["a", "b", "c", "d", "e"]
    drawn = simulate.category(standard(3), names=names, exponent=exponent)
    shares = np.array([1, 2, 3, 4, 5.0]) ** -exponent
    expected = shares / shares.sum()
    for name, share in zip(names, expected, strict=True):
        assert (drawn == name).mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / N))


def test_rows_are_independent_by_default_and_columns_correlate_as_asked() -> None:
    z = simulate.latent(N, 3, np.random.default_rng(4), correlation=0.6)
    correlation = np.asarray(np.corrcoef(z.T))
    assert correlation[np.triu_indices(3, 1)] == pytest.approx(0.6, abs=0.02)
    assert kstest(z[:, 1], norm.cdf).pvalue > FREQUENT
    assert abs(pearsonr(z[1:, 0], z[:-1, 0]).statistic) < 4 / np.sqrt(N)


def test_autocorrelated_rows_stay_standard_normal_from_the_first_row() -> None:
    z = simulate.latent(200, 4000, np.random.default_rng(5), phi=0.9)
    for row in (0, 1, 199):
        assert kstest(z[row], norm.cdf).pvalue > FREQUENT
    for lag in (1, 5):
        assert (z[lag:] * z[:-lag]).mean() == pytest.approx(0.9**lag, abs=0.02)


def test_autocorrelated_columns_keep_their_correlation() -> None:
    z = simulate.latent(50_000, 2, np.random.default_rng(6), correlation=0.5, phi=0.8)
    assert pearsonr(z[:, 0], z[:, 1]).statistic == pytest.approx(0.5, abs=0.04)


def test_a_season_repeats_daily_and_keeps_mean_and_variance() -> None:
    times_s = simulate.times(N, start_s=0.0, interval_s=86_400 / 200)
    z = simulate.with_season(standard(7), times_s, strength=0.5)
    by_phase = z.reshape(-1, 200).mean(axis=0)
    assert by_phase == pytest.approx(np.sin(2 * np.pi * np.arange(200) / 200), abs=4 * np.sqrt(0.5 / 100) + 0.05)
    assert z.mean() == pytest.approx(0, abs=0.03)
    assert z.var() == pytest.approx(1, abs=0.05)
    both = np.column_stack([standard(7), standard(8)])
    assert (simulate.with_season(both, times_s, strength=0.5)[:, 0] == z).all()


def test_the_same_generator_gives_the_same_stream() -> None:
    assert (standard(1, phi=0.5) == standard(1, phi=0.5)).all()
    assert (standard(1, phi=0.5) != standard(2, phi=0.5)).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda v, i, rng: simulate.shift_mean(v, i, by=1.0),
        lambda v, i, rng: simulate.scale_spread(v, i, centre=0.5, factor=2.0),
        lambda v, i, rng: simulate.stretch_tail(v, i, above=-9.0, factor=2.0),
        lambda v, i, rng: simulate.drop_values(v, i, rng, share=1.0),
        lambda v, i, rng: simulate.recorrelate(standard(9), v, i, before=0.3, after=-0.7),
    ],
    ids=["mean", "variance", "tail", "missing", "correlation"],
)
def test_a_change_touches_the_rows_that_have_drifted_and_no_others(change: Any) -> None:
    values, rng = standard(10), np.random.default_rng(1)
    given_values = values.copy()
    intensity = Schedule("abrupt", 5_000, 9_000).intensity(N, rng)
    changed = change(values, intensity, rng)
    touched = ~np.isclose(changed, values, atol=1e-12)
    assert (values == given_values).all()
    assert not touched[:5_000].any()
    assert not touched[9_000:].any()
    assert touched[5_000:9_000].all()


def test_each_change_is_of_the_size_asked_for() -> None:
    z, on, rng = standard(11), np.ones(N), np.random.default_rng(2)
    assert simulate.shift_mean(z, on, by=0.5).mean() - z.mean() == pytest.approx(0.5)
    wider = simulate.scale_spread(z, on, centre=z.mean(), factor=1.5)
    assert wider.mean() == pytest.approx(z.mean())
    assert wider.var() == pytest.approx(2.25 * z.var())
    stretched = simulate.stretch_tail(z, on, above=2.0, factor=3.0)
    assert (stretched[z <= 2] == z[z <= 2]).all()
    assert stretched[z > 2] == pytest.approx(2 + 3 * (z[z > 2] - 2))
    assert np.isnan(simulate.drop_values(z, on, rng, share=0.2)).mean() == pytest.approx(0.2, abs=0.012)


def test_a_new_category_and_missing_categories_take_their_share() -> None:
    rng = np.random.default_rng(3)
    regions = simulate.category(standard(12), names=["north", "south"])
    half = np.full(N, 0.5)
    renamed = simulate.add_category(regions, half, rng, name="moon", share=0.2)
    assert (renamed == "moon").mean() == pytest.approx(0.1, abs=0.01)
    assert set(renamed.tolist()) == {"north", "south", "moon"}
    dropped = simulate.drop_values(regions, half, rng, share=0.2)
    assert sum(value is None for value in dropped) / N == pytest.approx(0.1, abs=0.01)


def test_a_change_of_correlation_leaves_both_columns_as_they_were() -> None:
    z = simulate.latent(N, 2, np.random.default_rng(13), correlation=0.6, phi=0.5)
    changed = simulate.recorrelate(z[:, 0], z[:, 1], np.ones(N), before=0.6, after=-0.3)
    assert np.corrcoef(z[:, 0], changed)[0, 1] == pytest.approx(-0.3, abs=0.04)
    assert kstest(changed[::20], norm.cdf).pvalue > FREQUENT  # every 20th: as good as independent
    assert np.corrcoef(changed[1:], changed[:-1])[0, 1] == pytest.approx(0.5, abs=0.03)
    unchanged = simulate.recorrelate(z[:, 0], z[:, 1], np.zeros(N), before=0.6, after=-0.3)
    assert unchanged == pytest.approx(z[:, 1])


def test_a_change_of_correlation_passes_through_to_other_kinds_of_columns() -> None:
    z = simulate.latent(N, 2, np.random.default_rng(14), correlation=0.8)
    changed = simulate.recorrelate(z[:, 0], z[:, 1], np.ones(N), before=0.8, after=0.0)
    first = simulate.category(z[:, 0], names=["a", "b", "c"])
    second = simulate.boolean(changed)
    table = [[((first == name) & (second == flag)).sum() for flag in (True, False)] for name in "abc"]
    assert chi2_contingency(table).pvalue > FREQUENT


def test_a_stream_keeps_columns_times_and_truth_together() -> None:
    truth = Truth(Schedule("abrupt", 1, 3), "mean", ("x",))
    stream = Stream({"x": np.zeros(3)}, simulate.times(3, start_s=10, interval_s=0.5), truth)
    assert stream.times_s.tolist() == [10.0, 10.5, 11.0]
    assert stream.truth == truth


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Schedule("abrupt", 5, 5), "`end` must lie after `start`, which is at least 0; got 5 and 5."),
        (lambda: Schedule("abrupt", -1, 5), "`end` must lie after `start`, which is at least 0; got -1 and 5."),
        (lambda: Schedule("abrupt", 0, 5, ramp_rows=2), "`ramp_rows` must be 0 for a drift that is abrupt; got 2."),
        (lambda: Schedule("gradual", 0, 5), "`ramp_rows` must be above 0 for a drift that is gradual; got 0."),
        (lambda: Schedule("recurring", 0, 5, on_rows=2), "must be above 0 for a drift that is recurring; got 2 and 0."),
        (lambda: Schedule("abrupt", 0, 5, off_rows=1), "must be 0 for a drift that is abrupt; got 0 and 1."),
        (lambda: standard(0, correlation=1.5), r"`correlation` must lie in \[0, 1\]; got 1.5."),
        (lambda: standard(0, phi=1.0), r"`phi` must lie in \[0, 1\); got 1.0."),
        (
            lambda: simulate.with_season(np.zeros(2), np.zeros(2), strength=2),
            r"`strength` must lie in \[0, 1\]; got 2.",
        ),
        (lambda: simulate.zero_inflated(np.zeros(2), zeros=1.0), r"`zeros` must lie in \[0, 1\); got 1.0."),
        (
            lambda: simulate.recorrelate(np.zeros(2), np.zeros(2), np.zeros(2), before=1.0, after=0.0),
            r"`before` must lie in \(-1, 1\) and `after` in \[-1, 1\]; got 1.0 and 0.0.",
        ),
    ],
)
def test_what_cannot_be_simulated_is_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()

"""The promise: alarms at the declared rate where nothing changed, and found where something did."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from profile_examples import Built, Columns, Kinds, built, few_draws, mix
from scipy.signal import lfilter
from scipy.stats import binom

from detectors.calibration import ONCE, RATES, SAFETY, Alarm, Calibration, Dependence, Null, rolling
from detectors.contrast import Contrast
from detectors.family import JointDifference
from detectors.reference import build, null_of, recalibrate
from detectors.resampling import Draws
from detectors.scoring import score

RATE, N, N_WINDOW, WINDOWS = 1 / 20, 10_000, 500, 150
Stream = Callable[[int, np.random.Generator], tuple[Columns, Kinds]]


def correlated(n: int, rng: np.random.Generator) -> tuple[Columns, Kinds]:
    """Four features, each an AR(1) of .9."""
    noise = rng.normal(size=(4, n + 300))
    series = lfilter([1.0], [1.0, -0.9], noise, axis=1)[:, 300:]
    return dict(zip("abcd", series, strict=True)), dict.fromkeys("abcd", "numeric")


def largest_terms(reference: Built, windows: list[Columns]) -> np.ndarray:
    """The largest term of each of many windows at once."""
    profile = reference.profile
    tables = [reference.window(window) for window in windows]
    counts = np.stack([table.counts for table in tables]).astype(np.float64)
    sums = np.stack([table.sums for table in tables])
    n = float(sums[0, 0])
    size = 1 / np.sqrt(1 / n + 1 / profile.n_rows)
    off = sums[:, 1:] / n - profile.joint_means[: profile.n_pairs]
    joint = JointDifference(off * size / profile.calibration.pair_sd(n), (), ())
    contrast = Contrast(profile.basis, reference=profile.counts, current=counts)
    family = profile.family
    terms = profile.calibration.minus_log_p(family, family.pivots(contrast, joint), n) + family.log_weight
    return np.asarray(terms.max(axis=1))


def reference_of(stream: Stream, seed: int, n: int = N, **options: Any) -> tuple[Built, np.random.Generator]:
    rng = np.random.default_rng(seed)
    columns, kinds = stream(n, rng)
    with few_draws(2000, 4000):
        return built(columns, kinds, sizes=options.get("sizes", (N_WINDOW,)), mmd_rows=0), rng


def rates_of(stream: Stream, seeds: range, windows: int = WINDOWS) -> list[float]:
    """Share of unchanged windows that are over the threshold, for each of several references."""
    rates = []
    for seed in seeds:
        reference, rng = reference_of(stream, seed)
        largest = largest_terms(reference, [stream(N_WINDOW, rng)[0] for _ in range(windows)])
        rates.append(float((largest > reference.profile.calibration.threshold(RATE, N_WINDOW)).mean()))
    return rates


@pytest.fixture(scope="module")
def plain() -> Built:
    return reference_of(mix, 0)[0]


def test_terms_of_many_windows_are_those_of_each(plain: Built) -> None:
    windows = [plain.rows(N_WINDOW, seed) for seed in range(3)]
    alone = [max(score(plain.profile, plain.window(window)).terms) for window in windows]
    np.testing.assert_allclose(largest_terms(plain, windows), alone, rtol=1e-9)


def assert_within(rates: list[float], windows: int, low: float, high: float) -> None:
    """The mean rate lies within [low, high] times the budget.

    A true rate of .85 of the budget leaves [.4, 1.3] by chance with a probability below 1 in 1,000, if windows were
    independent of one another; those of one reference are nearly so.
    """
    n = windows * len(rates)
    assert binom.cdf(low * RATE * n, n, SAFETY * RATE) + binom.sf(high * RATE * n, n, SAFETY * RATE) < 2e-3
    assert low <= np.mean(rates) / RATE <= high


def test_unchanged_windows_of_independent_rows_alarm_at_the_budget() -> None:
    assert_within(rates_of(mix, range(1, 7)), WINDOWS, 0.4, 1.3)


def test_unchanged_windows_of_autocorrelated_rows_alarm_at_the_budget() -> None:
    assert_within(rates_of(correlated, range(1, 7)), WINDOWS, 0.4, 1.3)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [mix, correlated])
def test_the_budget_holds_over_twenty_references(stream: Stream) -> None:
    assert 0.5 <= np.mean(rates_of(stream, range(100, 120), 400)) / RATE <= 1.2


def test_a_season_never_alarms_above_the_budget() -> None:
    def season(n: int, rng: np.random.Generator) -> tuple[Columns, Kinds]:
        start = 0 if n == N else rng.integers(0, 10**6)
        wave = np.sin(2 * np.pi * (start + np.arange(n)) / 700)
        return {"a": wave + rng.normal(size=n) / 3, "b": rng.normal(size=n)}, {"a": "numeric", "b": "numeric"}

    assert np.mean(rates_of(season, range(2), 100)) <= RATE


def changed(name: str, change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Stream:
    def stream(n: int, rng: np.random.Generator) -> tuple[Columns, Kinds]:
        columns, kinds = mix(n, rng)
        return {**columns, name: change(columns[name], rng)}, kinds

    return stream


CHANGES = {
    "mean .25 sd": changed("x0", lambda v, _: v + 0.25),
    "spread 1.3": changed("x1", lambda v, _: v * 1.3),
    "5 % missing": changed("x2", lambda v, rng: np.where(rng.random(len(v)) < 0.05, np.nan, v)),
    "5 % of a new category": changed("ten", lambda v, rng: np.where(rng.random(len(v)) < 0.05, "new", v)),
    "10 % stuck": changed("x3", lambda v, rng: np.where(rng.random(len(v)) < 0.1, 0.123, v)),
    "fewer zeros": changed("zeros", lambda v, rng: np.where(rng.random(len(v)) < 0.3, rng.lognormal(size=len(v)), v)),
    "two shares": changed("two", lambda v, rng: np.where(rng.random(len(v)) < 0.3, "c1", v)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_worth_waking_for_is_found_in_nearly_every_window_at_one_alarm_in_a_hundred(
    plain: Built, change: str
) -> None:
    rng = np.random.default_rng(7)
    largest = largest_terms(plain, [CHANGES[change](N_WINDOW, rng)[0] for _ in range(60)])
    assert (largest > plain.profile.calibration.threshold(1 / 100, N_WINDOW)).mean() >= 0.9


def test_a_shift_too_small_to_see_is_seen_no_more_often_than_chance(plain: Built) -> None:
    rng = np.random.default_rng(8)
    small = changed("x0", lambda v, _: v + 0.01)
    largest = largest_terms(plain, [small(N_WINDOW, rng)[0] for _ in range(200)])
    assert (largest > plain.profile.calibration.threshold(RATE, N_WINDOW)).mean() < 3 * RATE


def test_thresholds_rise_as_the_budget_falls_and_stay_near_bonferroni(plain: Built) -> None:
    curves = plain.profile.calibration
    rates = np.geomspace(0.4, 1e-9, 30)
    thresholds = [curves.threshold(rate, N_WINDOW) for rate in rates]
    assert (np.diff(thresholds) > 0).all()
    for rate in (1 / 100, 1 / 1000):
        assert curves.threshold(rate, N_WINDOW) == pytest.approx(np.log(12 / (SAFETY * rate)), abs=1.0)


def test_the_p_value_of_a_threshold_is_its_rate(plain: Built) -> None:
    curves = plain.profile.calibration
    for rate in (0.3, 0.05, 1e-3, 1e-7):
        assert curves.p_value(curves.threshold(rate, N_WINDOW), N_WINDOW) == pytest.approx(SAFETY * rate, rel=1e-6)
    assert curves.p_value(1e9, N_WINDOW) == 1e-300
    assert curves.p_value(-np.inf, N_WINDOW) == pytest.approx(RATES[0])


def test_between_two_sizes_everything_is_linear_in_log_n(mixed: Built) -> None:
    curves = mixed.profile.calibration
    low, high = curves.sizes
    assert (low, high) == (100, 500)
    for t in (0.0, 0.3, 1.0):
        n = low ** (1 - t) * high**t
        ends = [curves.threshold(1e-3, size) for size in (low, high)]
        assert curves.threshold(1e-3, n) == pytest.approx((1 - t) * ends[0] + t * ends[1])
    assert curves.threshold(1e-3, 5) == curves.threshold(1e-3, low)
    assert curves.threshold(1e-3, 10**6) == curves.threshold(1e-3, high)


def null(reference: Built, **changes: Any) -> Null:
    return replace(null_of(reference.profile), **changes)


def dependence(reference: Built, need: float, *, segments: bool = False, periodic: bool = False) -> Dependence:
    return replace(null_of(reference.profile).dependence, need=need, segments=segments, periodic=periodic)


@pytest.mark.parametrize(
    ("need", "n_current", "block"), [(1, 500, 1), (7.2, 500, 8), (400, 500, 125), (5000, 10**6, 1000), (400, 3, 1)]
)
def test_a_block_is_what_is_needed_within_a_quarter_of_a_window_and_a_tenth_of_the_reference(
    plain: Built, need: float, n_current: int, block: int
) -> None:
    assert null(plain, dependence=dependence(plain, need)).block(n_current) == block


def test_draws_pane_by_pane_are_widened_for_the_blocks_that_fit_a_pane() -> None:
    reference, _ = reference_of(correlated, 3, n=5000)
    found = null_of(reference.profile)
    whole, panes = found.widenings(400, 400), found.widenings(400, 40)
    assert found.block(40) < found.block(400)
    assert (whole >= 1).all()
    assert (panes > whole).any()
    assert (panes >= whole).all()


def test_students_factor_is_wide_for_a_reference_of_few_blocks_and_absent_for_a_season(plain: Built) -> None:
    rng = np.random.default_rng(0)
    for need, sd in ((1.0, 0.01), (1000.0, 0.3)):
        factors = null(plain, dependence=dependence(plain, need)).student(rng, 3000)
        assert factors is not None
        assert factors.shape == (3000, len(plain.profile.family.terms))
        degrees = 1.5 * N / need
        assert (1 / factors[:, 0] ** 2).mean() == pytest.approx(1, abs=0.05)
        assert (1 / factors[:, 0] ** 2).var() == pytest.approx(2 / degrees, rel=0.15)
        assert factors[:, 0].std() < 2 * sd
        assert (factors[:, 0] == factors[:, 1]).all()  # one a feature
    assert null(plain, dependence=dependence(plain, 4000, segments=True, periodic=True)).student(rng, 3) is None
    assert null(plain, dependence=dependence(plain, 4000, segments=True)).student(rng, 3) is not None


@pytest.mark.parametrize("alarm", [Alarm(2, 3), Alarm(1, 1, panes=4), Alarm(2, 2, panes=3)])
def test_a_policy_opens_alarms_at_the_budget_on_unchanged_windows(alarm: Alarm) -> None:
    reference, rng = reference_of(lambda n, r: ({"a": r.normal(size=n)}, {"a": "numeric"}), 4, n=4000)
    with few_draws(3000, 20_000):
        profile = recalibrate(reference.profile, sizes=(N_WINDOW,), alarm=alarm)
    with few_draws(3000, 6000):
        once = recalibrate(reference.profile, sizes=(N_WINDOW,), alarm=ONCE)
    threshold = profile.calibration.threshold(RATE, N_WINDOW)
    assert (threshold < once.calibration.threshold(RATE, N_WINDOW)) or alarm.k == 1
    pane = N_WINDOW // alarm.panes
    rows = rng.normal(size=(pane * (3000 + alarm.panes - 1),))
    panes = profile.grid.encode({"a": rows}, {})[:, 0].reshape(-1, pane)
    counts = np.stack([profile.grid.count(codes) for codes in panes])
    windows = np.lib.stride_tricks.sliding_window_view(counts, alarm.panes, axis=0).sum(axis=-1)
    family = profile.family
    contrast = Contrast(profile.basis, reference=profile.counts, current=windows)
    nothing = JointDifference(np.zeros((len(windows), 0)), (), ())
    terms = profile.calibration.minus_log_p(family, family.pivots(contrast, nothing), N_WINDOW) + family.log_weight
    exceeds = terms.max(axis=1) > threshold
    openings, open_, calm = 0, False, 0
    for t in range(len(exceeds)):
        calm = 0 if exceeds[t] else calm + 1
        met = bool(exceeds[t]) and exceeds[max(0, t - alarm.n + 1) : t + 1].sum() >= alarm.k
        openings += met and not open_
        open_ = (open_ or met) and calm < max(alarm.n, 3)
    assert 0.3 * RATE < openings / len(exceeds) < 1.7 * RATE


def test_rolling_windows_are_sums_of_panes_and_means_of_their_joint_features() -> None:
    counts, joint = np.arange(12.0).reshape(6, 2), np.arange(6.0)[:, None]
    run = Draws(counts, np.zeros((1, 2)), joint, np.zeros((1, 1)))
    windows = rolling(run, 3)
    assert windows.current.tolist() == [counts[i : i + 3].sum(axis=0).tolist() for i in range(4)]
    assert windows.joint_current.ravel().tolist() == [1, 2, 3, 4]
    assert rolling(run, 1) is run


def test_a_calibration_of_one_size_serves_all() -> None:
    curve = np.linspace(1, 30, len(RATES))[None]
    found = Calibration(np.array([300.0]), np.zeros((1, 4, 2)), curve, curve, np.ones((1, 1)), ONCE)
    assert found.threshold(1e-3, 10) == found.threshold(1e-3, 300) == found.threshold(1e-3, 10**5)


def test_the_location_of_a_rare_value_among_equal_ones_keeps_its_rate() -> None:
    """1 % of ones: a window's mean is Poisson, whose tail a normal one falls short of by a factor of ten."""
    rng = np.random.default_rng(5)
    columns = {"rare": (rng.random(40_000) < 0.01).astype(float), "even": rng.normal(size=40_000)}
    profile = build(columns, {"rare": "numeric", "even": "numeric"}, sizes=[1000], mmd_rows=0)
    null = null_of(profile)
    assert null.skewed(1000).tolist() == [name == "location" and j == 0 for j, name in profile.family.terms]
    ones = rng.binomial(1000, columns["rare"].mean(), 40_000)
    cells = np.zeros((len(ones), profile.grid.n_cells))
    place = profile.grid.encode({"rare": np.array([0.0, 1.0]), "even": np.zeros(2)}, {})[:, 0]
    cells[:, place[0]], cells[:, place[1]] = 1000 - ones, ones
    contrast = Contrast(profile.basis, reference=profile.counts, current=cells)
    pivots = profile.family.pivots(contrast, JointDifference(np.zeros((len(ones), 1)), (), ()))
    term = profile.family.terms.index((0, "location"))
    found = profile.calibration.minus_log_p(profile.family, pivots, 1000)[:, term]
    for p in (0.01, 0.001):  # binomial: 40,000 windows, three standard errors and the granularity of counts
        assert (found > -np.log(p)).mean() < 1.5 * p

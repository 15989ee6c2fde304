"""Two arrays against SciPy, and what `compare` says where it cannot compare."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, ks_2samp, wasserstein_distance

from detectors import PSI, ChiSquare, JensenShannon, KolmogorovSmirnov, Score, Wasserstein
from detectors.arrays import observed, on_reference

few_valued = st.lists(st.integers(0, 4).map(float), min_size=2, max_size=60)
floats = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=60)
samples = st.tuples(few_valued, few_valued) | st.tuples(floats, floats) | st.tuples(few_valued, floats)
seeds = st.integers(0, 2**32 - 1)

COMPARISONS: list[Any] = [KolmogorovSmirnov(), Wasserstein(), PSI(), ChiSquare(), JensenShannon()]
by_name = pytest.mark.parametrize("detector", COMPARISONS, ids=lambda d: type(d).__name__)
asymptotic = pytest.mark.filterwarnings("ignore:ks_2samp")


@asymptotic
@settings(max_examples=150)
@given(samples)
def test_ks_equals_scipy(pair: tuple[list[float], list[float]]) -> None:
    reference, current = pair
    score = KolmogorovSmirnov().compare(reference=reference, current=current)
    expected = ks_2samp(reference, current)
    assert score.statistic == pytest.approx(expected.statistic, abs=1e-12)
    assert score.p_value == pytest.approx(expected.pvalue, abs=1e-12)
    assert (score.n_reference, score.n_current) == (len(reference), len(current))


@settings(max_examples=150)
@given(samples)
def test_wasserstein_equals_scipy_and_its_effect_is_in_reference_sd(pair: tuple[list[float], list[float]]) -> None:
    reference, current = pair
    score = Wasserstein().compare(reference=reference, current=current)
    size = max(map(abs, reference + current))
    expected = wasserstein_distance(reference, current)
    assert score.statistic == pytest.approx(expected, rel=1e-12, abs=1e-12 * max(size, 1.0))
    sd = float(np.std(reference))
    if sd > 0:
        assert score.effect == pytest.approx(score.statistic / sd, rel=1e-9)
    else:
        assert score.effect is None
    assert score.p_value is None


@settings(max_examples=150)
@given(few_valued, few_valued)
def test_chi_square_equals_scipy_where_nothing_is_pooled(reference: list[float], current: list[float]) -> None:
    values = sorted({*reference, *current})
    score = ChiSquare(min_expected=0.0).compare(reference=reference, current=current)
    table = [[side.count(v) for v in values] for side in (reference, current)]
    expected = chi2_contingency(table, correction=False)
    assert score.statistic == pytest.approx(expected.statistic, rel=1e-12, abs=1e-12)
    assert score.p_value == pytest.approx(expected.pvalue, rel=1e-12, abs=1e-12)


def pool(rows: np.ndarray, least: float) -> np.ndarray:
    """Columns of a 2 × K table summed from the left until a group holds `least` rows in the smaller sample."""
    share = rows.sum(axis=0) / rows.sum() * rows.sum(axis=1).min()
    groups: list[np.ndarray] = []
    held, column = 0.0, np.zeros(2)
    for expected, counts in zip(share, rows.T, strict=True):
        held, column = held + expected, column + counts
        assume(abs(held - least) > 1e-9)  # rounding decides
        if held >= least:
            groups.append(column)
            held, column = 0.0, np.zeros(2)
    if column.any():
        if groups:
            groups[-1] = groups[-1] + column
        else:
            groups.append(column)
    return np.array(groups).T


@settings(max_examples=100)
@given(seed=seeds, n=st.integers(10, 400), m=st.integers(10, 400), k=st.integers(2, 40))
def test_chi_square_equals_scipy_on_groups_pooled_to_five_expected_rows(seed: int, n: int, m: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(k))
    reference, current = rng.choice(k, n, p=shares), rng.choice(k, m, p=shares)
    score = ChiSquare().compare(reference=reference, current=current)
    both = np.stack([np.bincount(side, minlength=k) for side in (reference, current)])
    table = pool(both[:, both.any(axis=0)].astype(float), 5.0)
    if table.shape[1] < 2:
        assert (score.statistic, score.p_value) == (pytest.approx(0.0, abs=1e-12), 1.0)
        return
    expected = chi2_contingency(table, correction=False)
    assert score.statistic == pytest.approx(expected.statistic, rel=1e-10, abs=1e-10)
    assert score.p_value == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-12)


@asymptotic
@pytest.mark.parametrize(("n", "m"), [(20_000, 300), (300, 20_000)])
def test_large_samples_of_unequal_size_equal_scipy(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    reference, current = rng.normal(size=n).round(2), rng.normal(0.1, 1, m).round(2)
    ks = KolmogorovSmirnov().compare(reference=reference, current=current)
    expected = ks_2samp(reference, current)
    assert ks.statistic == pytest.approx(expected.statistic, abs=1e-12)
    assert ks.p_value == pytest.approx(expected.pvalue, rel=1e-12)
    distance = Wasserstein().compare(reference=reference, current=current).statistic
    assert distance == pytest.approx(wasserstein_distance(reference, current), abs=1e-12)


def quantile_shares(reference: np.ndarray, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both samples in the 20 groups of the reference, by a loop."""
    ordered, n = np.sort(reference), len(reference)
    cuts = sorted({float(ordered[int(np.ceil(n * k / 20)) - 1]) for k in range(1, 20)})
    rows = [[0] * (len(cuts) + 1) for _ in range(2)]
    for counts, side in zip(rows, (reference, current), strict=True):
        for value in side:
            counts[sum(value > cut for cut in cuts)] += 1
    return np.array(rows[0], float), np.array(rows[1], float)


@settings(max_examples=60)
@given(samples)
def test_psi_and_jensen_shannon_equal_their_formulas_on_quantile_groups(pair: tuple[list[float], list[float]]) -> None:
    reference, current = (np.array(side) for side in pair)
    y, x = quantile_shares(reference, current)
    q, p = (y + 0.5) / (y + 0.5).sum(), (x + 0.5) / (x + 0.5).sum()
    psi = PSI().compare(reference=reference, current=current)
    assert psi.statistic == pytest.approx(((p - q) * np.log(p / q)).sum(), abs=1e-10)
    bias = (len(y) - 1) * (1 / len(reference) + 1 / len(current))
    assert psi.effect == pytest.approx(max(psi.statistic - bias, 0.0), abs=1e-10)
    js = JensenShannon().compare(reference=reference, current=current)
    assert js.statistic == pytest.approx(jensenshannon(y / y.sum(), x / x.sum()), abs=1e-7)


@settings(max_examples=60)
@given(seed=seeds, shift=st.sampled_from([-64.0, 0.0, 3.0]), factor=st.sampled_from([0.25, 1.0, 8.0]))
def test_shifting_and_rescaling_both_samples_changes_no_rank_statistic(seed: int, shift: float, factor: float) -> None:
    rng = np.random.default_rng(seed)
    reference, current = rng.integers(-50, 50, 120) / 8, rng.integers(-50, 60, 80) / 8  # exact under both
    for detector in (KolmogorovSmirnov(), PSI(), ChiSquare(), JensenShannon()):
        before = detector.compare(reference=reference, current=current)
        after = detector.compare(reference=reference * factor + shift, current=current * factor + shift)
        assert after.statistic == pytest.approx(before.statistic, abs=1e-12)
    before = Wasserstein().compare(reference=reference, current=current)
    after = Wasserstein().compare(reference=reference * factor + shift, current=current * factor + shift)
    assert after.statistic == pytest.approx(factor * before.statistic, rel=1e-9)
    assert after.effect == pytest.approx(before.effect, rel=1e-9)


@by_name
def test_identical_samples_differ_by_nothing(detector: Any) -> None:
    score = detector.compare(reference=[1.0, 2.0, 2.0, 5.0] * 10, current=[1.0, 2.0, 2.0, 5.0] * 10)
    assert score.statistic == pytest.approx(0.0, abs=1e-7)
    assert score.effect == pytest.approx(0.0, abs=1e-7)


@by_name
def test_constant_samples_differ_by_nothing_and_a_moved_constant_by_all(detector: Any) -> None:
    still = detector.compare(reference=np.ones(40), current=np.ones(40))
    moved = detector.compare(reference=np.ones(40), current=np.full(40, 3.0))
    assert still.statistic == pytest.approx(0.0, abs=1e-12)
    assert still.statistic < moved.statistic


@by_name
@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (1, 5), (5, 1), (0, 0)])
def test_fewer_than_two_rows_are_undetermined(detector: Any, sizes: tuple[int, int]) -> None:
    score = detector.compare(reference=np.arange(sizes[0], dtype=float), current=np.arange(sizes[1], dtype=float))
    assert (score.verdict, score.reason) == ("undetermined", "too_few_records")
    assert (score.statistic, score.p_value, score.effect) == (None, None, None)


@by_name
def test_missing_values_are_left_out_and_said_so(detector: Any) -> None:
    reference, current = [1.0, 2.0, 3.0, 4.0] * 5, [2.0, 3.0, 4.0, 5.0] * 5
    clean = detector.compare(reference=reference, current=current)
    dirty = detector.compare(reference=[*reference, np.nan, None], current=[*current, np.nan])
    assert dirty.detail == "missing values left out: 2 of the reference, 1 of the current sample"
    assert clean.detail is None
    assert (dirty.statistic, dirty.p_value, dirty.n_current) == (clean.statistic, clean.p_value, clean.n_current)


@by_name
def test_all_missing_is_undetermined_not_equal(detector: Any) -> None:
    score = detector.compare(reference=np.full(20, np.nan), current=np.full(20, np.nan))
    assert (score.statistic, score.verdict) == (None, "undetermined")


WRAPPERS: list[Callable[[np.ndarray], Any]] = [
    list,
    pd.Series,
    lambda x: pd.DataFrame({"a": x}),
    lambda x: x.reshape(-1, 1),
    lambda x: x.astype(object),
    lambda x: pd.Series(x, index=np.arange(len(x))[::-1] * 7),
]


@by_name
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_lists_series_and_frames_of_one_column_are_taken_as_arrays(detector: Any, wrap: Any) -> None:
    x, y = np.arange(40.0), np.arange(30.0) + 5
    assert detector.compare(reference=wrap(x), current=wrap(y)) == detector.compare(reference=x, current=y)


@by_name
def test_two_columns_and_dates_are_refused(detector: Any) -> None:
    with pytest.raises(ValueError, match=r"`current` must be one-dimensional; got shape \(4, 2\)"):
        detector.compare(reference=np.ones(4), current=np.ones((4, 2)))
    with pytest.raises(TypeError, match="`reference` must hold numbers or strings; got dtype datetime64"):
        detector.compare(reference=np.array(["2020-01-01"] * 4, "datetime64[D]"), current=np.ones(4))


@pytest.mark.parametrize("detector", [KolmogorovSmirnov(), Wasserstein()], ids=lambda d: type(d).__name__)
def test_statistics_of_order_refuse_strings(detector: Any) -> None:
    with pytest.raises(TypeError, match=r"`current` must hold numbers; got strings\. Compare categories by `ChiSq"):
        detector.compare(reference=[1.0, 2.0, 3.0], current=["a", "b", "c"])


def test_infinities_have_ranks_but_no_distance() -> None:
    reference, current = [1.0, 2.0, np.inf, 3.0] * 10, [1.0, -np.inf, 3.0, 2.0] * 10
    ks = KolmogorovSmirnov().compare(reference=reference, current=current)
    assert ks.statistic == pytest.approx(ks_2samp(reference, current).statistic, abs=1e-12)
    for detector in (PSI(), ChiSquare(), JensenShannon()):
        assert np.isfinite(detector.compare(reference=reference, current=current).statistic)
    with pytest.raises(ValueError, match="`reference` must be finite"):
        Wasserstein().compare(reference=reference, current=current)


@pytest.mark.parametrize("detector", [PSI(), ChiSquare(), JensenShannon()], ids=lambda d: type(d).__name__)
def test_a_bool_is_the_same_in_an_array_and_in_a_list_with_gaps(detector: Any) -> None:
    score = detector.compare(reference=np.array([True, False] * 20), current=[True, False, None] * 20)
    assert score.statistic == pytest.approx(0.0, abs=1e-12)


def test_a_category_that_the_reference_lacks_has_a_group_of_its_own() -> None:
    contrast = on_reference(np.array(["a", "b", "b", "a"]), np.array(["a", "c", "z", "c"]))
    assert contrast.regular_reference.tolist() == [2, 2, 0]
    assert contrast.regular_current.tolist() == [1, 0, 3]


def test_values_beyond_the_reference_fall_into_the_outer_groups() -> None:
    contrast = on_reference(np.arange(100.0), np.array([-1e300, 1e300, -np.inf, np.inf]))
    assert contrast.regular_current[[0, -1]].tolist() == [2, 2]
    assert contrast.regular_reference.tolist() == [5] * 20


@pytest.mark.parametrize("detector", [PSI(), Wasserstein()], ids=lambda d: type(d).__name__)
def test_permutation_p_values_come_from_their_seed_and_equal_a_shuffle_of_rows(detector: Any) -> None:
    rng = np.random.default_rng(7)
    reference, current = rng.normal(size=60).round(1), rng.normal(0.5, 1, 40).round(1)

    def p_value(seed: int, permutations: int = 4000) -> float:
        score: Score = detector.compare(reference=reference, current=current, permutations=permutations, seed=seed)
        assert score.p_value is not None
        return score.p_value

    assert p_value(1) == p_value(1)
    if isinstance(detector, Wasserstein):
        seen, pooled, larger = wasserstein_distance(reference, current), np.concatenate([reference, current]), 0
        for _ in range(2000):
            shuffled = rng.permutation(pooled)
            larger += wasserstein_distance(shuffled[:60], shuffled[60:]) >= seen - 1e-12
        expected = (1 + larger) / 2001
        assert abs(p_value(1) - expected) < 5 * np.sqrt(expected / 2000 + expected / 4000)
    assert p_value(1, permutations=9) >= 0.1  # at least 1 ÷ (1 + permutations)


@settings(max_examples=50)
@given(st.lists(st.none() | st.floats(allow_infinity=False) | st.integers(-5, 5), max_size=30))
def test_observed_counts_what_it_leaves_out(values: list[Any]) -> None:
    kept, n_missing = observed(values, "current")
    present = [float(v) for v in values if v is not None and not np.isnan(v)]
    assert kept.tolist() == present
    assert n_missing == len(values) - len(present)

"""Statistics on tables of counts against loops over the cells, SciPy on the rows, and their laws."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import cbrt, exp, log, pi, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chi2_contingency, ks_2samp, norm

from detectors.basis import Basis, basis
from detectors.contrast import Contrast
from detectors.grid import INVALID, MISSING, SPECIAL, UNSEEN, Grid, categorical_feature, exact_feature, numeric_feature
from detectors.two_sample import cells, chi_square, jensen_shannon, ks, psi, smooth, special_cells, wasserstein
from detectors.two_sample.special_cells import upper_score

seeds = st.integers(0, 2**32 - 1)


def missing_some(values: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(len(values)) < share, None if values.dtype == object else np.nan, values)


def columns_of(n: int, rng: np.random.Generator, *, shift: float = 0.0) -> dict[str, np.ndarray]:
    """Rows of five features: continuous, zero-inflated, categories, rare categories, always missing."""
    weights = 1 / np.arange(1, 60) ** 1.5
    return {
        "x": missing_some(rng.normal(shift, 1 + shift, n), 0.05, rng),
        "zeros": np.where(rng.random(n) < 0.6 - shift / 4, 0.0, rng.lognormal(size=n)),
        "c": missing_some(rng.choice(np.array(["a", "b", "c"], object), n, p=[0.6, 0.3, 0.1]), 0.02, rng),
        "rare": rng.choice(59, n, p=weights / weights.sum()).astype(str).astype(object),
        "gone": np.full(n, np.nan),
    }


REFERENCE = columns_of(3000, np.random.default_rng(0))


def make_basis() -> Basis:
    features = [
        categorical_feature(name, values) if values.dtype == object else numeric_feature(name, values)
        for name, values in REFERENCE.items()
    ]
    grid = Grid(tuple(features))
    codes = grid.encode(REFERENCE, {})
    return basis(grid, grid.count(codes), REFERENCE, n_current=400, codes=codes)


BASIS = make_basis()
GRID = BASIS.grid


def counts_of(columns: dict[str, np.ndarray]) -> np.ndarray:
    rng = np.random.default_rng(len(columns["x"]))
    invalid = {"x": rng.random(len(columns["x"])) < 0.01}
    return GRID.count(GRID.encode(columns, invalid))


COUNTS = counts_of(REFERENCE)


def contrasts() -> list[Contrast]:
    """Windows of several sizes against the reference: unchanged, shifted, one row, none."""
    rng = np.random.default_rng(1)
    windows = [columns_of(n, rng, shift=shift) for n, shift in ((400, 0.0), (150, 0.5), (900, 1.5), (1, 0.0), (0, 0.0))]
    return [Contrast(BASIS, reference=COUNTS, current=counts_of(window)) for window in windows]


CONTRASTS = contrasts()
Numbers = list[float]


def sides(contrast: Contrast, j: int) -> tuple[Numbers, Numbers, float, float]:
    """Current and reference rows of feature j's regular cells, and their sums."""
    x, y = (side[GRID.slice(j)].tolist() for side in (contrast.current, contrast.reference))
    return x, y, sum(x), sum(y)


def here(vector: np.ndarray, j: int) -> Numbers:
    """Feature j's part of a vector over regular cells."""
    return vector[GRID.slice(j).start - GRID.n_special : GRID.slice(j).stop - GRID.n_special].tolist()


def grouped(values: Numbers, j: int) -> Numbers:
    """Sums of a feature's cells over its groups."""
    first = GRID.slice(j).start - GRID.n_special
    starts = [g - first for g in BASIS.groups.tolist() if first <= g < first + len(values)]
    return [sum(values[a:b]) for a, b in zip(starts, [*starts[1:], len(values)], strict=True)]


def loop_ks(c: Contrast, j: int) -> float:
    x, y, n, m = sides(c, j)
    return max(abs(sum(x[: i + 1]) / n - sum(y[: i + 1]) / m) for i in range(len(x)))


def loop_wasserstein(c: Contrast, j: int) -> float:
    x, y, n, m = sides(c, j)
    gap = here(BASIS.gap, j)
    return sum(abs(sum(x[: i + 1]) / n - sum(y[: i + 1]) / m) * gap[i] for i in range(len(x)))


def loop_location(c: Contrast, j: int) -> float:
    x, y, n, m = sides(c, j)
    return sum((a / n - b / m) * z for a, b, z in zip(x, y, here(BASIS.normal, j), strict=True))


def loop_scale(c: Contrast, j: int) -> float:
    x, y, n, m = sides(c, j)
    raw = sum((a / n - b / m) * s for a, b, s in zip(x, y, here(BASIS.spread, j), strict=True))
    sd = float(BASIS.spread_sd[j])
    return (cbrt(max(1 + raw * sd, 0.01)) - 1) * 3 / sd


def loop_psi(c: Contrast, j: int) -> float:
    x, y, _, _ = sides(c, j)
    p, q = ([v + 0.5 for v in grouped(side, j)] for side in (x, y))
    p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
    return sum((a - b) * log(a / b) for a, b in zip(p, q, strict=True))


def loop_chi_square(c: Contrast, j: int) -> float:
    x, y, _, _ = sides(c, j)
    table = np.array([grouped(x, j), grouped(y, j)])
    table = table[:, table.any(axis=0)]
    return float(chi2_contingency(table, correction=False).statistic) if table.shape[1] > 1 else 0.0


def loop_half_l1(c: Contrast, j: int) -> float:
    x, y, n, m = sides(c, j)
    moved = 0.0
    for a, b in zip(x, y, strict=True):
        share = (a + b) / (n + m)
        moved += abs(a / n - b / m) - sqrt(2 / pi * share * (1 - share) * (1 / n + 1 / m))
    return max(moved / 2, 0.0)


def loop_jensen_shannon(c: Contrast, j: int) -> float:
    x, y, n, m = sides(c, j)
    total = 0.0
    for a, b in zip(x, y, strict=True):
        p, q = a / n, b / m
        total += sum(v * log(2 * v / (p + q)) / 2 for v in (p, q) if v > 0)
    return sqrt(max(total, 0.0))


def loop_root(a: float, b: float, n: float, m: float) -> float:
    """Signed root of one cell's deviance, its rows moved by half a row towards what is expected."""
    expected, rest = (a + b) * n / (n + m), (a + b) * m / (n + m)
    step = max(-0.5, min(0.5, a - expected))
    deviance = sum(2 * v * log(v / e) for v, e in ((a - step, expected), (b + step, rest)) if v > 1e-9)
    return sqrt(max(deviance, 0.0))


def loop_largest_cell(c: Contrast, j: int) -> float:
    x, y, n, m = sides(c, j)
    return max(loop_root(a, b, n, m) for a, b in zip(x, y, strict=True))


LOOPS: dict[str, tuple[Callable[[Contrast], np.ndarray], Callable[[Contrast, int], float]]] = {
    "ks": (ks.statistic, loop_ks),
    "wasserstein": (wasserstein.statistic, loop_wasserstein),
    "location": (smooth.location, loop_location),
    "scale": (smooth.scale, loop_scale),
    "psi": (psi.statistic, loop_psi),
    "chi_square": (chi_square.statistic, loop_chi_square),
    "half_l1": (chi_square.half_l1, loop_half_l1),
    "jensen_shannon": (jensen_shannon.statistic, loop_jensen_shannon),
    "largest_cell": (cells.statistic, loop_largest_cell),
}
by_name = pytest.mark.parametrize("name", LOOPS)


@by_name
def test_a_statistic_equals_a_loop_over_the_cells(name: str) -> None:
    statistic, loop = LOOPS[name]
    for contrast in CONTRASTS[:4]:
        found = statistic(contrast)
        assert found.shape == (len(GRID.features),)
        for j in range(4):
            assert found[j] == pytest.approx(loop(contrast, j), rel=1e-9, abs=1e-7 if "shannon" in name else 1e-10)


@by_name
def test_a_feature_that_one_side_never_observed_shows_no_difference(name: str) -> None:
    statistic = LOOPS[name][0]
    assert statistic(CONTRASTS[4]).tolist() == [0.0] * 5  # a window of no row
    for contrast in CONTRASTS:
        assert abs(statistic(contrast)[4]) < 1e-12  # missing in the reference as well


@by_name
def test_leading_axes_equal_one_by_one(name: str) -> None:
    statistic = LOOPS[name][0]
    currents = np.stack([c.current for c in CONTRASTS])
    references = np.stack([COUNTS, counts_of(columns_of(700, np.random.default_rng(2)))])
    grid = statistic(Contrast(BASIS, reference=references[None], current=currents[:, None]))
    assert grid.shape == (5, 2, 5)
    for i, current in enumerate(currents):
        for k, reference in enumerate(references):
            alone = statistic(Contrast(BASIS, reference=reference, current=current))
            np.testing.assert_allclose(grid[i, k], alone, rtol=1e-12, atol=1e-12)
    many = statistic(Contrast(BASIS, reference=COUNTS, current=currents))
    np.testing.assert_allclose(many, grid[:, 0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", special_cells.CELLS)
def test_special_cells_broadcast_as_well(name: str) -> None:
    currents = np.stack([c.current for c in CONTRASTS])
    for statistic in (special_cells.statistic, special_cells.change):
        many = statistic(Contrast(BASIS, reference=COUNTS, current=currents), name)
        for i, contrast in enumerate(CONTRASTS):
            np.testing.assert_allclose(many[i], statistic(contrast, name), rtol=1e-12, atol=1e-15)


@by_name
def test_single_precision_agrees_with_double(name: str) -> None:
    statistic = LOOPS[name][0]
    for contrast in CONTRASTS:
        single = Contrast(BASIS, reference=COUNTS.astype(np.float32), current=contrast.current.astype(np.float32))
        np.testing.assert_allclose(statistic(single), statistic(contrast), rtol=2e-3, atol=2e-3)


def test_a_statistic_of_one_feature_does_not_depend_on_its_neighbours() -> None:
    contrast = CONTRASTS[1]
    current = contrast.current.copy()
    for j in (1, 2):  # every value of two features is missing
        current[SPECIAL * j + MISSING] += current[GRID.slice(j)].sum()
        current[GRID.slice(j)] = 0
    disturbed = Contrast(BASIS, reference=COUNTS, current=current)
    special = [partial(special_cells.statistic, name=name) for name in special_cells.CELLS]
    for statistic in [pair[0] for pair in LOOPS.values()] + special:
        before, after = statistic(contrast), statistic(disturbed)
        np.testing.assert_allclose(after[[0, 3, 4]], before[[0, 3, 4]], rtol=1e-9, atol=1e-12)


@settings(max_examples=50)
@given(seed=seeds, n=st.integers(3, 300), m=st.integers(3, 300))
def test_on_a_grid_of_distinct_values_ks_and_chi_square_equal_scipy(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    reference, current = rng.integers(0, 30, m).astype(float), rng.integers(0, 33, n).astype(float)
    grid = Grid((exact_feature("a", reference, current),))
    codes = grid.encode({"a": reference}, {})
    own = basis(grid, grid.count(codes), {"a": reference}, n_current=n, codes=codes)
    cells_apart = np.arange(int(grid.sizes[0]))
    own = replace(own, groups=cells_apart, group_starts=np.zeros(1, np.intp))
    rows = [grid.count(grid.encode({"a": side}, {})) for side in (reference, current)]
    contrast = Contrast(own, reference=rows[0], current=rows[1])
    expected = ks_2samp(reference, current, method="asymp").statistic
    assert ks.statistic(contrast)[0] == pytest.approx(expected, abs=1e-12)
    table = np.stack([side[SPECIAL:] for side in rows])
    if table.shape[1] > 1:
        expected = chi2_contingency(table, correction=False).statistic
        assert chi_square.statistic(contrast)[0] == pytest.approx(expected, rel=1e-10, abs=1e-10)
        assert chi_square.degrees_of_freedom(contrast)[0] == table.shape[1] - 1


@settings(max_examples=40)
@given(seed=seeds, shift=st.sampled_from([-64.0, 3.0]), factor=st.sampled_from([0.25, 8.0]))
def test_shifting_and_rescaling_the_values_changes_no_statistic(seed: int, shift: float, factor: float) -> None:
    rng = np.random.default_rng(seed)
    reference, current = rng.integers(-400, 400, 900) / 8, rng.integers(-300, 500, 250) / 8  # exact under both

    def contrast(change: Callable[[np.ndarray], np.ndarray]) -> Contrast:
        old, new = change(reference), change(current)
        grid = Grid((numeric_feature("a", old),))
        codes = grid.encode({"a": old}, {})
        own = basis(grid, grid.count(codes), {"a": old}, n_current=250, codes=codes)
        rows = [grid.count(grid.encode({"a": side}, {})) for side in (old, new)]
        return Contrast(own, reference=rows[0], current=rows[1])

    before, after = contrast(lambda v: v), contrast(lambda v: v * factor + shift)
    for statistic, _ in LOOPS.values():
        assert statistic(after)[0] == pytest.approx(statistic(before)[0], rel=1e-9, abs=1e-12)


def test_the_reference_itself_differs_from_itself_by_nothing() -> None:
    same = Contrast(BASIS, reference=COUNTS, current=COUNTS)
    for statistic, _ in LOOPS.values():
        assert statistic(same) == pytest.approx(np.zeros(5), abs=1e-7)
    assert psi.unbiased(same).tolist() == [0.0] * 5


def test_a_cell_may_be_left_out_or_count_for_less() -> None:
    contrast = CONTRASTS[2]
    rms = np.ones(len(BASIS.cell_rms))
    rms[GRID.owner == 0], rms[GRID.owner == 1] = np.inf, 2.0
    other = Contrast(replace(BASIS, cell_rms=rms), reference=COUNTS, current=contrast.current)
    before, after = cells.statistic(contrast), cells.statistic(other)
    assert after[0] == 0
    assert after[1] == pytest.approx(before[1] / 2)
    assert after[2:].tolist() == before[2:].tolist()


def test_location_and_scale_have_their_signs() -> None:
    rng = np.random.default_rng(5)
    for by, sd in ((0.5, 1.0), (-0.5, 1.0), (0.0, 1.6), (0.0, 0.5)):
        window = {**REFERENCE, "x": rng.normal(by, sd, 3000)}
        contrast = Contrast(BASIS, reference=COUNTS, current=GRID.count(GRID.encode(window, {})))
        location, scale = smooth.location(contrast)[0], smooth.scale(contrast)[0]
        if by:
            assert location == pytest.approx(by, abs=0.1)
        else:
            assert abs(location) < 0.1
            assert (scale > 0) == (sd > 1)
            assert abs(scale) > 0.3


def test_the_bias_of_psi_is_taken_away_on_average() -> None:
    rng = np.random.default_rng(6)
    shares = COUNTS / 3000
    draws = np.zeros((2, 400, len(COUNTS)))
    j = 0
    at = GRID.slice(j)
    p = shares[at] / shares[at].sum()
    draws[0][:, at], draws[1][:, at] = rng.multinomial(2000, p, 400), rng.multinomial(500, p, 400)
    contrast = Contrast(BASIS, reference=draws[0], current=draws[1])
    n_groups = len(grouped([0.0] * (at.stop - at.start), j))
    bias = (n_groups - 1) * (1 / 2000 + 1 / 500)
    assert psi.statistic(contrast)[:, j].mean() == pytest.approx(bias, rel=0.1)
    assert psi.unbiased(contrast)[:, j].mean() < 0.6 * bias


@pytest.mark.parametrize(("value", "word"), [(0.0, "stable"), (0.1, "caution"), (0.25, "caution"), (0.26, "unstable")])
def test_bands_of_psi_are_the_customary_ones(value: float, word: str) -> None:
    assert psi.band(value) == word


@settings(max_examples=60)
@given(x=st.integers(0, 60), y=st.integers(0, 400), n=st.integers(60, 5000), m=st.integers(400, 10**6))
def test_the_exact_score_is_that_of_the_binomial_mid_p(x: int, y: int, n: int, m: int) -> None:
    found = float(upper_score(np.array(x), np.array(y), np.array(n), np.array(m)))
    if x + y == 0:
        assert found == 0
        return
    law = binom(x + y, n / (n + m))
    upper = law.sf(x) + law.pmf(x) / 2
    if upper > 0.5:
        lower = law.cdf(x - 1) + law.pmf(x) / 2
        if lower > 1e-11:
            assert found == pytest.approx(norm.ppf(lower), rel=1e-4, abs=1e-6)
        else:
            assert found < -6.5  # 1 − p has sixteen digits
    elif upper > 1e-290:
        assert found == pytest.approx(-norm.ppf(upper), rel=1e-6, abs=1e-9)
    else:
        assert found > 36


def test_one_row_that_was_never_seen_is_no_catastrophe() -> None:
    score = float(upper_score(np.array(1.0), np.array(0.0), np.array(800.0), np.array(5000.0)))
    assert norm.sf(score) == pytest.approx(800 / 5800 / 2)  # half the chance that the one row fell into the window


def special(j: int, cell: int, rows: float) -> np.ndarray:
    """A window of 500 rows of the reference's shares, `rows` of which move into a special cell of feature j."""
    window = np.round(COUNTS * 500 / 3000)
    at = GRID.slice(j)
    window[at] *= 1 - rows / window[at].sum()
    window[SPECIAL * j + cell] += rows
    return window


@pytest.mark.parametrize(
    ("name", "cell", "j"), [("missing", MISSING, 0), ("invalid", INVALID, 1), ("unseen", UNSEEN, 2)]
)
def test_a_special_cell_that_grew_scores_by_its_share_of_all_rows(name: str, cell: int, j: int) -> None:
    window = special(j, cell, 40)
    contrast = Contrast(BASIS, reference=COUNTS, current=window)
    n, m = window[GRID.slice(j)].sum() + window[SPECIAL * j : SPECIAL * j + 3].sum(), 3000
    x, y = window[SPECIAL * j + cell], COUNTS[SPECIAL * j + cell]
    law = binom(int(x + y), n / (n + m))
    expected = -norm.ppf(law.sf(x) + law.pmf(x) / 2)
    assert special_cells.statistic(contrast, name)[j] == pytest.approx(expected, rel=1e-6)
    assert special_cells.change(contrast, name)[j] == pytest.approx(x / n - y / m)


def test_unseen_is_held_against_the_categories_that_came_once() -> None:
    window = special(3, UNSEEN, 4)
    plain = Contrast(replace(BASIS, singletons=np.zeros(5)), reference=COUNTS, current=window)
    expected_ones = Contrast(replace(BASIS, singletons=np.full(5, 24.0)), reference=COUNTS, current=window)
    assert special_cells.statistic(plain, "unseen")[3] > 3
    assert special_cells.statistic(expected_ones, "unseen")[3] < 0.5  # 24 of 3,000 make 4 of 500 expected


def test_fewer_missing_values_than_in_the_reference_score_below_zero() -> None:
    reference = COUNTS.copy()
    reference[MISSING] += 3000
    assert (
        special_cells.statistic(Contrast(BASIS, reference=reference, current=special(0, MISSING, 0)), "missing")[0] < -5
    )


def test_jensen_shannon_of_samples_apart_is_the_root_of_log_two() -> None:
    reference, current = np.zeros(GRID.n_cells), np.zeros(GRID.n_cells)
    reference[GRID.slice(2).start], current[GRID.slice(2).start + 1] = 100, 7
    found = jensen_shannon.statistic(Contrast(BASIS, reference=reference, current=current))[2]
    assert exp(found**2) == pytest.approx(2)

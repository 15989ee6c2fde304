"""What a reference says of its cells, against direct formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, rankdata, wasserstein_distance

from detectors.basis import Basis, basis, gaps, pooled, scores_of_cells
from detectors.contrast import Contrast
from detectors.grid import Feature, FeatureKind, Grid, categorical_feature, exact_feature, numeric_feature
from detectors.two_sample import wasserstein

shares_of_cells = st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any).map(np.array)


def feature_of(name: str, kind: FeatureKind, values: np.ndarray) -> Feature:
    if kind == "numeric":
        return numeric_feature(name, values)
    return categorical_feature(name, values) if kind == "categorical" else Feature(name, "embedding", length=2)


def basis_of(columns: dict[str, np.ndarray], kinds: dict[str, FeatureKind], n_current: float = 500) -> Basis:
    grid = Grid(tuple(feature_of(name, kind, columns[name]) for name, kind in kinds.items()))
    codes = grid.encode(columns, {})
    return basis(grid, grid.count(codes), columns, n_current=n_current, codes=codes)


def numeric_basis(values: np.ndarray, n_current: float = 500) -> Basis:
    return basis_of({"a": values}, {"a": "numeric"}, n_current)


@settings(max_examples=150)
@given(shares_of_cells)
def test_scores_are_centred_scaled_and_orthogonal_on_the_reference(rows: np.ndarray) -> None:
    share = rows / rows.sum()
    z, s, spread_sd = scores_of_cells(share, float(rows.sum()))
    assert np.isfinite([*z, *s, spread_sd]).all()
    assert share @ z == pytest.approx(0.0, abs=1e-9)
    assert share @ s == pytest.approx(0.0, abs=1e-9)
    if (rows > 0).sum() == 1:
        assert not z.any()
        assert not s.any()
        return
    assert share @ z**2 == pytest.approx(1.0)
    assert (np.diff(z) >= 0).all()
    if s.any():
        assert share @ s**2 == pytest.approx(1.0)
        assert share @ (s * z) == pytest.approx(0.0, abs=1e-6)
        assert spread_sd > 0
    if (rows > 0).sum() == 2:
        assert not s.any()  # what spread two values have follows from their shares


def test_scores_of_distinct_values_are_the_normal_scores_of_their_mid_ranks() -> None:
    values = np.random.default_rng(0).integers(0, 40, 700).astype(float)
    feature = exact_feature("a", values)
    grid = Grid((feature,))
    codes = grid.encode({"a": values}, {})
    found = basis(grid, grid.count(codes), {"a": values}, n_current=100, codes=codes)
    z = norm.ppf((rankdata(values) - 0.5) / len(values))
    z = (z - z.mean()) / z.std()
    np.testing.assert_allclose(found.normal[codes[:, 0] - grid.n_special], z, atol=1e-12)
    s = z**2 - 1 - (z**3).mean() * z
    np.testing.assert_allclose(found.spread[codes[:, 0] - grid.n_special], s / s.std(), atol=1e-9)
    assert found.spread_sd[0] == pytest.approx(s.std())


@settings(max_examples=150)
@given(shares_of_cells, st.floats(0.001, 0.9))
def test_groups_cover_the_cells_and_hold_their_least_share(rows: np.ndarray, least: float) -> None:
    share = rows / rows.sum()
    firsts = pooled(share, least)
    assert firsts[0] == 0
    assert firsts == sorted(set(firsts))
    held = np.add.reduceat(share, firsts)
    assert len(firsts) == 1 or held.min() >= least - 1e-9
    assert held.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("n_current", "n_groups"), [(20, 3), (100, 16), (1000, 16)])
def test_groups_hold_five_expected_rows_and_numeric_ones_a_twentieth(n_current: int, n_groups: int) -> None:
    rng = np.random.default_rng(1)
    weights = 1 / np.arange(1, 200)
    columns = {"a": rng.normal(size=5000), "c": rng.choice(199, 5000, p=weights / weights.sum()).astype(str)}
    found = basis_of(columns, {"a": "numeric", "c": "categorical"}, n_current)
    grid = found.grid
    counts = grid.count(grid.encode(columns, {}))[grid.n_special :]
    rows = np.add.reduceat(counts, found.groups)
    numeric, categorical = np.split(rows, found.group_starts[1:])
    least = 5000 * 5 / n_current
    assert numeric.min() >= max(least, 250)
    assert categorical.min() >= least
    assert found.groups[found.group_starts].tolist() == grid.starts.tolist()
    assert len(numeric) == n_groups


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), factor=st.sampled_from([1e-3, 1.0, 1e6]), shift=st.sampled_from([0.0, 50.0]))
def test_gaps_are_distances_of_winsorised_means_in_winsorised_sd(seed: int, factor: float, shift: float) -> None:
    values = np.random.default_rng(seed).standard_t(2, 3000) * factor + shift * factor
    found = numeric_basis(values)
    low, high = np.quantile(values, [0.005, 0.995], method="inverted_cdf")
    clipped = np.clip(values, low, high)
    cells = found.grid.encode({"a": values}, {})[:, 0] - found.grid.n_special
    means = [clipped[cells == c].mean() for c in range(found.grid.sizes[0]) if (cells == c).any()]
    assert found.gap.sum() == pytest.approx((means[-1] - means[0]) / clipped.std(), rel=1e-9)
    held = np.flatnonzero(np.bincount(cells, minlength=len(found.gap)))
    between = np.add.reduceat(found.gap, held)[:-1]
    np.testing.assert_allclose(between, np.diff(means) / clipped.std(), rtol=1e-6, atol=1e-9)
    assert (found.gap >= 0).all()
    assert found.gap[-1] == 0


def test_wasserstein_on_cells_is_that_of_winsorised_values_within_a_cell() -> None:
    rng = np.random.default_rng(2)
    reference, current = rng.normal(size=20_000), rng.normal(0.4, 1, 5000)
    found = numeric_basis(reference)
    rows = [found.grid.count(found.grid.encode({"a": side}, {})) for side in (reference, current)]
    distance = wasserstein.statistic(Contrast(found, reference=rows[0], current=rows[1]))[0]
    low, high = np.quantile(reference, [0.005, 0.995])
    clipped = [np.clip(side, low, high) for side in (reference, current)]
    assert distance == pytest.approx(wasserstein_distance(*clipped) / clipped[0].std(), rel=0.02)


def test_one_wild_row_hardly_changes_the_gaps() -> None:
    values = np.random.default_rng(3).normal(size=4000)
    wild = np.append(values, 1e9)
    assert numeric_basis(wild).gap.sum() == pytest.approx(numeric_basis(values).gap.sum(), rel=0.01)


@pytest.mark.parametrize(
    "values",
    [
        np.where(np.arange(1000) % 50 == 0, np.inf, np.arange(1000.0)),
        np.where(np.arange(1000) % 3 == 0, -np.inf, np.arange(1000.0)),
        np.append(np.full(60, np.nan), np.inf),
        np.random.default_rng(4).uniform(-1, 1, 500) * 1.7e308,
        np.random.default_rng(4).uniform(-1, 1, 500) * 1e-310,
    ],
    ids=["2 % infinite", "a third infinite", "infinite only", "huge", "denormal"],
)
def test_extreme_references_have_finite_vectors(values: np.ndarray) -> None:
    found = numeric_basis(values)
    for vector in (found.normal, found.spread, found.gap, found.spread_sd):
        assert np.isfinite(vector).all()


def test_infinities_of_the_reference_leave_distances_between_the_finite_cells() -> None:
    values = np.random.default_rng(5).normal(size=3000)
    with_infinities = np.append(values, np.full(100, np.inf))
    assert numeric_basis(with_infinities).gap.sum() == pytest.approx(numeric_basis(values).gap.sum(), rel=0.1)


def test_the_means_of_empty_cells_never_make_a_gap_negative() -> None:
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    found = gaps(edges, np.array([0.5, 0.5, 2.9, 2.9]), np.array([1, 1, 3, 3]), 5)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(2.4 / 1.2)


def test_singletons_are_the_categories_that_came_once_and_none_where_they_are_pooled() -> None:
    columns: dict[str, np.ndarray] = {
        "c": np.array(["a", "a", "b", "c", None] + ["a"] * 1200, object),
        "ids": np.array([f"id-{i}" for i in range(1205)], object),
        "a": np.arange(1205.0),
    }
    kinds: dict[str, FeatureKind] = {"c": "categorical", "ids": "categorical", "a": "numeric"}
    assert basis_of(columns, kinds).singletons.tolist() == [2, 0, 0]


def test_constants_and_embeddings_have_no_scores() -> None:
    columns = {"a": np.full(60, 2.0), "e": np.ones((60, 2)), "b": np.full(60, np.nan)}
    found = basis_of(columns, {"a": "numeric", "e": "embedding", "b": "numeric"})
    assert not found.normal.any()
    assert not found.spread.any()
    assert not found.gap.any()
    assert len(found.group_starts) == 3

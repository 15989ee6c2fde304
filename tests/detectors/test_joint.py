"""Products of pairs and random features against their definitions."""

import numpy as np
import pytest
from profile_examples import Built

from detectors.basis import basis
from detectors.grid import Grid, numeric_feature
from detectors.joint import CLIP, MAX_FEATURES, N_RANDOM, normal_scores, random_features
from detectors.reference import joint_blocks


def test_inner_products_of_random_features_approximate_the_gaussian_kernel() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 3))
    found = random_features(rows, scale=False)
    distances = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(axis=-1))
    bandwidth = np.median(distances[distances > 0])
    kernel = np.exp(-(distances**2) / (2 * bandwidth**2))
    values = found(rows).astype(np.float64)
    error = 2 * values @ values.T / N_RANDOM - kernel
    assert np.sqrt((error**2).mean()) < 2 / np.sqrt(N_RANDOM)
    assert np.abs(error).max() < 8 / np.sqrt(N_RANDOM)


def test_the_mean_difference_of_random_features_is_the_mmd() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(4000, 2)), rng.normal(0.7, 1, (4000, 2))
    found = random_features(x, scale=False)
    square = 2 * ((found(x).mean(axis=0, dtype=float) - found(y).mean(axis=0, dtype=float)) ** 2).mean()
    distances = ((x[:800, None] - x[None, :800]) ** 2).sum(axis=-1)
    width = np.median(distances[distances > 0])

    def mean_kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a[:800, None] - b[None, :800]) ** 2).sum(axis=-1) / (2 * width)).mean())

    assert square == pytest.approx(mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y), rel=0.3)


def test_scaled_features_do_not_depend_on_the_units() -> None:
    rows = np.random.default_rng(2).normal(size=(300, 3))
    units = np.array([1e3, 1e-3, 1.0])
    plain, scaled = random_features(rows, scale=True)(rows), random_features(rows * units, scale=True)(rows * units)
    np.testing.assert_allclose(plain, scaled, atol=1e-4)


@pytest.mark.parametrize(
    "rows",
    [
        np.ones((50, 2)),
        np.full((50, 2), np.nan),
        np.empty((0, 2)),
        np.where(np.arange(100).reshape(50, 2) % 7, 1.0, np.nan),
    ],
    ids=["constant", "missing", "none", "some missing"],
)
def test_degenerate_rows_have_finite_features(rows: np.ndarray) -> None:
    found = random_features(rows, scale=True)
    assert np.isfinite(found(np.array([[0.5, -2.0]]))).all()
    assert found(np.zeros((0, 2))).shape == (0, N_RANDOM)


def test_a_missing_row_has_no_random_features() -> None:
    found = random_features(np.random.default_rng(3).normal(size=(60, 2)), scale=True)
    assert np.isnan(found(np.array([[np.nan, 1.0]]))).all()


def test_scores_of_cells_are_clipped_and_zero_where_there_is_no_value(mixed: Built) -> None:
    scores, grid = mixed.profile.normal_scores, mixed.profile.grid
    assert not scores.by_cell[: grid.n_special].any()
    assert scores.by_cell[-1] == 0
    assert np.abs(scores.by_cell).max() == pytest.approx(CLIP, abs=1e-3)
    assert scores.features.tolist() == grid.kind("numeric").tolist()
    first, second = scores.pairs
    assert (first < second).all()
    assert len(first) == 8 * 7 / 2


def test_constants_have_no_pairs_and_only_the_first_features_are_watched() -> None:
    rng = np.random.default_rng(4)
    columns = {f"x{i}": np.ones(60) if i == 1 else rng.normal(size=60) for i in range(MAX_FEATURES + 3)}
    grid = Grid(tuple(numeric_feature(name, values) for name, values in columns.items()))
    codes = grid.encode(columns, {})
    scores = normal_scores(basis(grid, grid.count(codes), columns, n_current=60, codes=codes))
    assert scores.features.tolist() == [0, *range(2, MAX_FEATURES + 1)]


def test_block_sums_are_sums_over_all_rows_and_stand_in_for_missing_embeddings(mixed: Built) -> None:
    profile = mixed.profile
    columns = dict(mixed.columns)
    columns["e"] = columns["e"].copy()
    columns["e"][::3] = np.nan
    sums = joint_blocks(profile.normal_scores, profile.random_features, columns, profile.codes).sum(axis=0)
    z = profile.normal_scores(profile.codes[:, profile.normal_scores.features]).astype(float)
    first, second = profile.normal_scores.pairs
    np.testing.assert_allclose(sums[: len(first)], (z[:, first] * z[:, second]).sum(axis=0), rtol=1e-4, atol=0.05)
    embedded = profile.random_features["e"](columns["e"])
    expected = np.nanmean(embedded.astype(float), axis=0) * len(profile.codes)
    np.testing.assert_allclose(sums[len(first) : len(first) + N_RANDOM], expected, rtol=1e-3, atol=0.1)


def test_the_profile_holds_the_means_of_the_joint_features(mixed: Built) -> None:
    profile = mixed.profile
    table = mixed.window(mixed.columns)
    np.testing.assert_allclose(profile.joint_means[: profile.n_pairs], table.sums[1:] / table.sums[0], atol=1e-5)


def test_sums_of_products_are_the_same_to_the_last_bit_in_any_order(mixed: Built) -> None:
    profile = mixed.profile
    z = profile.normal_scores(profile.codes[:, profile.normal_scores.features])
    shuffled = np.random.default_rng(5).permutation(z)
    assert (z.T @ z).tolist() == (shuffled.T @ shuffled).tolist()
    assert (z.T @ z).tolist() == (z[:7].T @ z[:7] + z[7:].T @ z[7:]).tolist()


def test_a_rows_features_do_not_depend_on_the_rows_that_it_is_computed_with() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000, 20)).astype(np.float32)
    features = random_features(rows, scale=True)
    whole = features(rows)
    for size in (1, 7, 240, 999):
        parts = [features(rows[i : i + size]) for i in range(0, len(rows), size)]
        assert np.array_equal(np.concatenate(parts), whole)

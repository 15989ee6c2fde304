"""Cells: every value lies in exactly one, and the reference alone decides which there are."""

from collections import Counter
from zlib import crc32

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from detectors.grid import (
    BUCKETS,
    INVALID,
    MAX_CATEGORIES,
    MISSING,
    SPECIAL,
    UNSEEN,
    Feature,
    Grid,
    categorical_feature,
    exact_feature,
    numeric_feature,
)

any_float = st.floats(allow_nan=True, allow_infinity=True)
columns = st.lists(any_float | st.integers(0, 3).map(float), max_size=80).map(lambda v: np.array(v, np.float64))
MAX = float(np.finfo(np.float64).max)


def interval(feature: Feature, x: float) -> int:
    """The regular cell of a number by the definition edges[i-1] < x ≤ edges[i]."""
    assert feature.edges is not None
    bounds = [None, *feature.edges.tolist(), None]
    found = [
        i
        for i in range(feature.n_regular)
        if (bounds[i] is None or x > bounds[i]) and (bounds[i + 1] is None or x <= bounds[i + 1])
    ]
    assert len(found) == 1
    return found[0]


def rows_of(feature: Feature, values: np.ndarray) -> np.ndarray:
    """Rows in each regular cell of a one-feature grid."""
    grid = Grid((feature,))
    return grid.count(grid.encode({feature.name: values}, {}))[SPECIAL:]


@settings(max_examples=150)
@given(reference=columns, values=columns)
def test_every_number_lies_in_exactly_one_cell(reference: np.ndarray, values: np.ndarray) -> None:
    feature = numeric_feature("a", reference)
    assert feature.edges is not None
    assert (np.diff(feature.edges) > 0).all()
    grid = Grid((feature,))
    codes = grid.encode({"a": values}, {})[:, 0]
    for code, value in zip(codes.tolist(), values.tolist(), strict=True):
        assert code == (MISSING if np.isnan(value) else SPECIAL + interval(feature, value))
    assert grid.count(codes).sum() == len(values)


@settings(max_examples=150)
@given(reference=columns)
def test_the_outer_cells_hold_only_what_lies_beyond_the_finite_reference(reference: np.ndarray) -> None:
    finite = reference[np.isfinite(reference)]
    assume(len(finite) > 0)
    rows = rows_of(numeric_feature("a", reference), reference)
    assert rows[0] == (reference == -np.inf).sum()
    assert rows[-1] == (reference == np.inf).sum()


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(200, 3000), share=st.floats(0.009, 0.9))
def test_every_value_with_more_than_half_a_cell_of_the_rows_is_a_cell_of_its_own(
    seed: int, n: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    atoms = rng.normal(size=3)
    values = np.where(rng.random(n) < share, rng.choice(atoms, n, p=[0.6, 0.3, 0.1]), rng.normal(size=n))
    feature = numeric_feature("a", values)
    common = [v for v, rows in Counter(values.tolist()).items() if rows > n / 128]
    grid = Grid((feature,))
    for value in common:
        near = np.array([np.nextafter(value, -np.inf), value, np.nextafter(value, np.inf)])
        below, own, above = grid.encode({"a": near}, {})[:, 0]
        assert below < own < above
        assert rows_of(feature, values)[own - SPECIAL] == (values == value).sum()


def test_few_valued_integers_have_a_cell_each() -> None:
    values = np.random.default_rng(0).integers(0, 100, 20_000).astype(float)
    rows = rows_of(numeric_feature("a", values), values)
    assert sorted(rows[rows > 0]) == sorted(Counter(values.tolist()).values())


def test_zero_inflation_leaves_zero_alone_in_its_cell() -> None:
    rng = np.random.default_rng(1)
    values = np.where(rng.random(5000) < 0.6, 0.0, rng.lognormal(size=5000))
    rows = rows_of(numeric_feature("a", values), values)
    assert (values == 0).sum() in rows
    assert rows.max() == (values == 0).sum()


def test_a_continuous_feature_has_cells_of_equal_share_and_smaller_ones_in_the_tails() -> None:
    values = np.random.default_rng(2).normal(size=64_000)
    rows = rows_of(numeric_feature("a", values), values)
    assert len(rows) == 64 + 2 + 2 * 3
    assert (rows[0], rows[-1]) == (0, 0)
    inner = rows[5:-5]  # the tails divide the first and the last of the 64
    assert np.abs(inner - 1000).max() <= 1
    assert rows[1:5].sum() == pytest.approx(1000, abs=2)
    assert rows[1] == pytest.approx(0.0005 * 64_000, abs=2)


@pytest.mark.parametrize(("n", "need", "tails"), [(600, 1, 0), (700, 1, 1), (2100, 1, 2), (8000, 1, 3), (8000, 17, 1)])
def test_a_tail_cell_needs_four_rows_or_a_block(n: int, need: float, tails: int) -> None:
    values = np.random.default_rng(3).normal(size=n)
    assert numeric_feature("a", values, need=need).n_regular == 64 + 2 + 2 * tails
    assert numeric_feature("a", values, need=np.inf).n_regular == 64 + 2


@pytest.mark.parametrize("constant", [0.0, -3.5, 5e-324, MAX, -MAX, 1e308])
def test_a_constant_has_a_cell_with_one_on_either_side(constant: float) -> None:
    feature = numeric_feature("a", np.full(60, constant))
    assert feature.n_regular == 3
    grid = Grid((feature,))
    assert grid.encode({"a": np.array([-np.inf, constant, np.inf])}, {})[:, 0].tolist() == [3, 4, 5]


@pytest.mark.parametrize("values", [[], [np.nan] * 60, [np.inf] * 60, [-np.inf, np.nan, np.inf]])
def test_without_a_finite_value_there_is_one_regular_cell(values: list[float]) -> None:
    feature = numeric_feature("a", np.array(values))
    assert feature.n_regular == 1
    grid = Grid((feature,))
    assert grid.encode({"a": np.array([np.nan, 0.0, np.inf])}, {})[:, 0].tolist() == [MISSING, SPECIAL, SPECIAL]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), shift=st.sampled_from([-64.0, 3.0]), factor=st.sampled_from([0.25, 8.0]))
def test_shifting_and_rescaling_reference_and_rows_alike_moves_no_row_to_another_cell(
    seed: int, shift: float, factor: float
) -> None:
    rng = np.random.default_rng(seed)
    reference, current = rng.integers(-400, 400, 700) / 8, rng.integers(-500, 500, 300) / 8  # exact under both
    before = rows_of(numeric_feature("a", reference), current)
    after = rows_of(numeric_feature("a", reference * factor + shift), current * factor + shift)
    assert before.tolist() == after.tolist()


def test_categories_stand_by_falling_frequency_and_ties_by_name() -> None:
    feature = categorical_feature("a", ["b", None, "c", "a", "c", "true", "false", "true"])
    assert feature.categories == ("c", "true", "a", "b", "false")
    assert not feature.buckets


texts = st.sampled_from(["a", "b", "c", "true", "false", "", "3"])


@settings(max_examples=100)
@given(reference=st.lists(texts | st.none(), max_size=30), values=st.lists(st.text(max_size=2) | texts | st.none()))
def test_every_category_lies_in_its_own_cell_and_others_are_unseen(
    reference: list[str | None], values: list[str | None]
) -> None:
    feature = categorical_feature("a", reference)
    grid = Grid((feature,))
    column = np.array([*values, None], object)[:-1]
    codes = grid.encode({"a": column}, {})[:, 0].tolist()
    known = list(feature.categories)
    for code, value in zip(codes, values, strict=True):
        if value is None:
            assert code == MISSING
        else:
            assert code == (SPECIAL + known.index(value) if value in known else UNSEEN)


def test_a_feature_that_was_always_missing_has_one_empty_cell() -> None:
    feature = categorical_feature("a", [None, None])
    grid = Grid((feature,))
    assert feature.n_regular == 1
    assert grid.encode({"a": np.array([None, "x"], object)}, {})[:, 0].tolist() == [MISSING, UNSEEN]


def test_beyond_a_thousand_categories_the_rare_ones_share_buckets_by_their_hash() -> None:
    values = ["common"] * 100 + [f"c{i}" for i in range(1500)]
    feature = categorical_feature("a", values)
    assert (feature.categories, feature.buckets, feature.n_regular) == (("common",), BUCKETS, 1 + BUCKETS)
    grid = Grid((feature,))
    codes = grid.encode({"a": np.array(["common", "c7", "never seen", None], object)}, {})[:, 0].tolist()
    buckets = [SPECIAL + 1 + crc32(text) % BUCKETS for text in (b"c7", b"never seen")]
    assert codes == [SPECIAL, *buckets, MISSING]
    exactly = categorical_feature("a", [f"c{i}" for i in range(MAX_CATEGORIES)])
    assert (exactly.buckets, exactly.n_regular) == (0, MAX_CATEGORIES)


@pytest.mark.parametrize("zipf", [False, True])
def test_fresh_rows_of_very_many_categories_are_spread_as_the_references_were(zipf: bool) -> None:
    rng = np.random.default_rng(3)
    shares = 1 / np.arange(1, 4001) if zipf else np.ones(4000)
    names = np.array([f"c{i}" for i in range(4000)], object)
    draw = [rng.choice(names, n, p=shares / shares.sum()) for n in (20_000, 20_000)]
    grid = Grid((categorical_feature("a", draw[0]),))
    counts = np.stack([grid.count(grid.encode({"a": column}, {})) for column in draw])
    counts = counts[:, counts.sum(axis=0) >= 10]
    assert chi2_contingency(counts).pvalue > 0.001


def mixed_grid() -> Grid:
    rng = np.random.default_rng(4)
    return Grid(
        (
            categorical_feature("c", ["x", "y", "x"]),
            numeric_feature("a", rng.normal(size=500)),
            Feature("e", "embedding", length=2),
            numeric_feature("b", np.full(60, np.nan)),
        )
    )


def test_the_flat_vector_holds_special_cells_first_then_each_feature_in_order() -> None:
    grid = mixed_grid()
    assert grid.names == ("c", "a", "e", "b")
    places = [place for j in range(4) for place in range(grid.slice(j).start, grid.slice(j).stop)]
    assert places == list(range(grid.n_special, grid.n_cells))
    assert grid.n_special == 12
    assert [grid.owner[place - grid.n_special] for place in places] == [
        j for j in range(4) for _ in range(grid.features[j].n_regular)
    ]
    assert (grid.kind("numeric").tolist(), grid.kind("embedding").tolist()) == ([1, 3], [2])


def test_an_invalid_value_is_counted_as_such_whatever_stands_in_its_place() -> None:
    grid = mixed_grid()
    rows = {
        "c": np.array(["x", "z", None, object()], object),
        "a": np.array([0.0, np.nan, np.inf, 0.0]),
        "e": np.array([[1.0, 2.0], [np.nan, 1.0], [np.nan, np.nan], [0.0, 0.0]]),
        "b": np.array([np.nan, 1.0, np.nan, np.nan]),
    }
    invalid = {"c": np.array([False, False, False, True]), "b": np.array([False, False, True, False])}
    counts = grid.count(grid.encode(rows, invalid))
    special = counts[: grid.n_special].reshape(4, 3)
    assert special[0].tolist() == [1, 1, 1]  # missing, invalid, unseen
    assert special[1].tolist() == [1, 0, 0]
    assert special[2].tolist() == [2, 0, 0]
    assert special[3, [MISSING, INVALID]].tolist() == [2, 1]
    assert counts.sum() == 4 * 4


def test_a_grid_of_every_distinct_value_counts_each() -> None:
    feature = exact_feature("a", np.array([3.0, 1.0, 1.0]), np.array([2.0]))
    assert rows_of(feature, np.array([1.0, 1.0, 2.0, 3.0, 3.0, 3.0])).tolist() == [2, 1, 3]

"""Cells of whole matrices: the same as one search after the other, on the worst of numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.grid import Grid, categorical_feature, numeric_feature
from detectors.lookup import CellLookup

NONE = np.empty((0, 2), np.intp), np.empty(0, np.uint8)
MAX, TINY = float(np.finfo(np.float64).max), 5e-324
EXTREMES = [0.0, -0.0, TINY, -TINY, MAX, -MAX, np.inf, -np.inf, np.nan, 1e-308, 1e308, -1e308]


def probes(reference: np.ndarray) -> np.ndarray:
    """The values at which a search may go wrong: each edge, its neighbours, midpoints, and extremes."""
    edges = numeric_feature("a", reference).edges
    assert edges is not None
    with np.errstate(over="ignore", invalid="ignore"):
        near = [np.nextafter(edges, -np.inf), edges, np.nextafter(edges, np.inf), edges[:-1] / 2 + edges[1:] / 2]
        near += [edges * 2, edges * (1 + 1e-12), edges - 1, edges + 1]
    return np.concatenate([*near, EXTREMES])


def assert_same_cells(grid: Grid, columns: dict[str, np.ndarray]) -> None:
    names = [grid.names[j] for j in grid.kind("numeric")]
    found = CellLookup(grid)(np.stack([columns[name] for name in names], axis=1), *NONE)
    expected = grid.encode(columns, {})[:, grid.kind("numeric")]
    assert found.tolist() == expected.tolist()


RNG = np.random.default_rng(0)
REFERENCES = {
    "normal": RNG.normal(size=5000),
    "lognormal": RNG.lognormal(0, 3, 5000),
    "heavy tails": RNG.standard_t(1, 5000),
    "integers": RNG.integers(0, 9, 3000).astype(float),
    "zero-inflated": np.where(RNG.random(4000) < 0.6, 0.0, RNG.lognormal(size=4000)),
    "constant": np.full(60, 3.0),
    "one far row": np.append(RNG.normal(size=3000), 1e300),
    "clusters": np.concatenate([RNG.normal(0, 1e-9, 500), 1e6 + RNG.normal(0, 1e-6, 500)]),
    "the whole range": np.array([-MAX, MAX, 0.0, 1.0, 2.0] * 20),
    "extremes beside a normal": np.concatenate([[-MAX, MAX], RNG.normal(size=2000)]),
    "denormal": np.arange(1000) * TINY,
    "hardly more than denormal": np.arange(1000) * 1e-310,
    "nothing": np.full(60, np.nan),
    "infinities": np.array([np.inf, -np.inf] * 30),
    "times in microseconds": 1.7e15 + RNG.integers(0, 10**6, 3000).astype(float),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_adversarial_numbers_find_the_cells_that_a_search_finds(name: str) -> None:
    reference = REFERENCES[name]
    assert_same_cells(Grid((numeric_feature("a", reference),)), {"a": probes(reference)})
    assert_same_cells(Grid((numeric_feature("a", reference),)), {"a": reference})


def test_all_features_at_once_find_the_cells_that_each_finds_alone() -> None:
    features = [numeric_feature(name, values) for name, values in REFERENCES.items()]
    features.insert(3, categorical_feature("c", ["x", "y"]))
    rows = np.concatenate([probes(values) for values in REFERENCES.values()])
    columns: dict[str, np.ndarray] = {name: RNG.permutation(rows) for name in REFERENCES}
    columns["c"] = np.array(["x"] * len(rows), object)
    assert_same_cells(Grid(tuple(features)), columns)


any_float = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=150)
@given(
    reference=st.lists(any_float | st.floats(-4, 4), max_size=200).map(lambda v: np.array(v, np.float64)),
    values=st.lists(any_float | st.floats(-5, 5), min_size=1, max_size=50).map(lambda v: np.array(v, np.float64)),
)
def test_any_reference_and_any_number_agree_with_a_search(reference: np.ndarray, values: np.ndarray) -> None:
    assert_same_cells(Grid((numeric_feature("a", reference),)), {"a": np.concatenate([values, probes(reference)])})


def test_marked_places_are_invalid_or_one_past_the_last_cell() -> None:
    grid = Grid((numeric_feature("a", REFERENCES["normal"]), numeric_feature("b", REFERENCES["integers"])))
    values = np.array([[0.0, np.nan], [np.nan, 1.0], [np.nan, np.nan]])
    marked, marks = np.array([[0, 1], [1, 0], [2, 1]]), np.array([1, 2, 1], np.uint8)
    cells = CellLookup(grid)(values, marked, marks)
    plain = grid.encode({"a": values[:, 0], "b": values[:, 1]}, {})
    assert cells.tolist() == [[plain[0, 0], 4], [grid.n_cells, plain[1, 1]], [0, 4]]


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_no_numeric_feature_are_no_error(rows: int) -> None:
    numeric = Grid((numeric_feature("a", REFERENCES["normal"]),))
    assert CellLookup(numeric)(np.zeros((rows, 1)), *NONE).shape == (rows, 1)
    categorical = Grid((categorical_feature("c", ["x"]),))
    assert CellLookup(categorical)(np.zeros((rows, 0)), *NONE).shape == (rows, 0)

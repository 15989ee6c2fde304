"""The loss of each row."""

import numpy as np
import pytest

from detectors.grid import Grid, numeric_feature
from detectors.performance.loss import loss, residual
from detectors.performance.multiclass import Multiclass


def test_losses_are_those_of_the_textbook_and_missing_where_a_side_is() -> None:
    p, y = np.array([0.25, 0.9, 1.2, np.nan, 0.5]), np.array([1.0, 0.0, 1.0, 1.0, 3.0])
    np.testing.assert_allclose(loss("probability", p, y), [0.5625, 0.81, np.nan, np.nan, np.nan])
    hard = np.array([1.0, 0.0, 0.7]), np.array([0.0, 0.0, 1.0])
    np.testing.assert_allclose(loss("binary", *hard), [1, 0, np.nan])
    numbers = np.array([3.0, np.inf, 1.0]), np.array([5.0, 1.0, np.nan])
    np.testing.assert_allclose(loss("numeric", *numbers), [2, np.nan, np.nan])
    np.testing.assert_allclose(residual("numeric", *numbers), [-2, np.nan, np.nan])
    many = Multiclass(("a", "b"))
    found = loss("categorical", many.codes(["a", "b", "x", None]), many.codes(["a", "a", "x", "a"]))
    np.testing.assert_allclose(found, [0, 1, 0, np.nan])


@pytest.mark.parametrize("kind", ["probability", "numeric"])
def test_an_increasing_function_of_the_loss_falls_into_the_same_cells(kind: str) -> None:
    rng = np.random.default_rng(1)
    p, y = rng.random(5000), rng.integers(0, 2, 5000).astype(float)
    column = loss("probability" if kind == "probability" else "numeric", p, y)
    other = -np.log1p(-np.sqrt(column)) if kind == "probability" else column**2
    tables = []
    for values in (column, other):
        grid = Grid((numeric_feature("loss", values[:4000]),))
        tables.append(grid.count(grid.encode({"loss": values[4000:]}, {})))
    np.testing.assert_array_equal(*tables)

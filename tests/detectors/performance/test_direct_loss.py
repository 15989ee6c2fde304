"""The loss to expect of a row, and regression performance without labels."""

import numpy as np
import pytest

from detectors.grid import Grid, categorical_feature, numeric_feature
from detectors.performance import loss_model
from detectors.performance.direct_loss import DirectLoss, of_numbers

FEATURES = np.arange(5)


def cars(n: int, rng: np.random.Generator, together: float = 0.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features whose correlation may change while each alone stays, and errors that multiply."""
    common = rng.normal(size=n)
    z = np.sqrt(together) * common[:, None] + np.sqrt(1 - together) * rng.normal(size=(n, 3))
    fuel = rng.choice(np.array(["gas", "diesel", "electric"], object), n, p=[0.5, 0.3, 0.2])
    price = np.exp(0.5 * z[:, 0] - 0.4 * z[:, 1] - 0.4 * z[:, 2])
    columns = {"new": z[:, 0], "age": z[:, 1], "km": z[:, 2], "fuel": fuel, "prediction": price}
    return columns, price * np.where(fuel == "electric", 0.5, 0.25) * rng.normal(size=n)


def on_cells(n: int, rng: np.random.Generator) -> tuple[Grid, np.ndarray, np.ndarray]:
    columns, error = cars(n, rng)
    features = [
        categorical_feature(name, values.tolist()) if name == "fuel" else numeric_feature(name, values)
        for name, values in columns.items()
    ]
    grid = Grid(tuple(features))
    return grid, grid.encode(columns, {}), error


@pytest.fixture(scope="module")
def learnt() -> tuple[Grid, DirectLoss]:
    grid, codes, error = on_cells(30_000, np.random.default_rng(1))
    return grid, of_numbers(grid, codes, error, FEATURES)


@pytest.mark.parametrize("together", [0.0, 0.4, 0.8])
def test_a_changed_correlation_is_seen_in_the_estimate(learnt: tuple[Grid, DirectLoss], together: float) -> None:
    grid, model = learnt
    rng = np.random.default_rng(2)
    columns, error = cars(20_000, rng, together)
    mae, rmse = model.metrics(model.rows(grid.encode(columns, {})).sum(axis=0))
    assert mae.value == pytest.approx(np.abs(error).mean(), rel=0.04)
    assert rmse.value == pytest.approx(np.sqrt((error**2).mean()), rel=0.05)


def test_the_interval_holds_the_realised_value(learnt: tuple[Grid, DirectLoss]) -> None:
    grid, model = learnt
    rng = np.random.default_rng(3)
    inside = np.zeros(2)
    for _ in range(100):
        columns, error = cars(500, rng)
        realised = np.abs(error).mean(), np.sqrt((error**2).mean())
        for i, metric in enumerate(model.metrics(model.rows(grid.encode(columns, {})).sum(axis=0))):
            assert metric.low is not None
            assert metric.high is not None
            inside[i] += metric.low <= realised[i] <= metric.high
    assert (inside >= 87).all(), inside


def test_expected_losses_of_the_reference_add_up_to_the_true_ones() -> None:
    grid, codes, error = on_cells(10_000, np.random.default_rng(4))
    model = loss_model.fit(grid, codes, error**2, FEATURES)
    expected = model.expected(codes)
    assert expected.mean() == pytest.approx((error**2).mean(), rel=0.02)
    electric = codes[:, 3] == grid.slice(3).start + 2
    assert expected[electric].mean() == pytest.approx((error[electric] ** 2).mean(), rel=0.03)
    assert model.n_rows == 10_000


def test_an_unknown_cell_counts_as_ordinary_and_a_column_that_is_not_asked_counts_nothing() -> None:
    grid, codes, error = on_cells(10_000, np.random.default_rng(5))
    model = loss_model.fit(grid, codes, error**2, np.array([3]))
    other = codes[:1].copy()
    other[:, [0, 1, 2, 4]] = codes[-1:, [0, 1, 2, 4]]
    assert model.expected(codes[:1]) == model.expected(other)
    unseen = codes[:1].copy()
    unseen[0, 3] = 3 * 3 + 2
    assert model.expected(unseen)[0] == pytest.approx(model.mean)


def test_few_features_missing_losses_and_a_perfect_model_are_no_trouble() -> None:
    grid, codes, error = on_cells(3000, np.random.default_rng(6))
    loss = np.where(np.arange(3000) % 2 == 0, error**2, np.nan)
    assert loss_model.fit(grid, codes, loss, np.array([0, 1])).n_rows == 1500
    perfect = of_numbers(grid, codes, np.zeros(3000), FEATURES)
    assert [m.value for m in perfect.metrics(perfect.rows(codes).sum(axis=0))] == [0.0, 0.0]
    assert {m.reason for m in perfect.metrics(np.zeros(5))} == {"too_few_rows"}
    with pytest.raises(ValueError, match="Give a reference with labels"):
        loss_model.fit(grid, codes, np.full(3000, np.nan), FEATURES)


def test_the_accuracy_of_hard_predictions_is_estimated_from_their_errors() -> None:
    rng = np.random.default_rng(7)
    grid, codes, _ = on_cells(20_000, rng)
    wrong = np.array([0.05, 0.1, 0.4])
    fuel = codes[:, 3] - grid.slice(3).start
    model = DirectLoss({"accuracy": loss_model.fit(grid, codes, (rng.random(20_000) < wrong[fuel]) * 1.0, FEATURES)})
    today = grid.encode(cars(2000, rng)[0], {})
    today = today[today[:, 3] == grid.slice(3).start + 2]
    (accuracy,) = model.metrics(model.rows(today).sum(axis=0))
    assert accuracy.value == pytest.approx(0.6, abs=0.02)
    assert accuracy.low is not None
    assert accuracy.low < 0.6 < (accuracy.high or 0)

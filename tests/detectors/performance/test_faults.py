"""Pipeline faults by their shape."""

from collections.abc import Callable

import numpy as np
import pytest

from detectors.grid import Grid, categorical_feature, numeric_feature
from detectors.performance.faults import Found, faults, scaled

Columns = dict[str, np.ndarray]


def columns(n: int, rng: np.random.Generator) -> Columns:
    fuel = rng.choice(np.array(["gas", "diesel", "electric"], object), n, p=[0.5, 0.3, 0.2])
    return {
        "income": np.exp(rng.normal(10, 0.6, n)),
        "balance": rng.normal(0, 500, n),
        "age": np.round(rng.normal(45, 12, n)),
        "flag": (rng.random(n) < 0.3).astype(float),
        "fuel": fuel,
    }


@pytest.fixture(scope="module")
def reference() -> tuple[Grid, np.ndarray]:
    made = columns(20_000, np.random.default_rng(1))
    features = [
        categorical_feature(name, values.tolist()) if name == "fuel" else numeric_feature(name, values)
        for name, values in made.items()
    ]
    grid = Grid(tuple(features))
    return grid, grid.count(grid.encode(made, {}))


def found(reference: tuple[Grid, np.ndarray], today: Columns, invalid: Columns | None = None) -> tuple[Found, ...]:
    grid, counts = reference
    return faults(grid, counts, grid.count(grid.encode(today, invalid or {})))


def struck(name: str, to: Callable[[np.ndarray], object], share: float, seed: int = 2, n: int = 1000) -> Columns:
    rng = np.random.default_rng(seed)
    today = columns(n, rng)
    hit = rng.random(n) < share
    today[name][hit] = to(today[name][hit])
    return today


@pytest.mark.parametrize("name", ["income", "balance", "age"])
@pytest.mark.parametrize("factor", [1000.0, 100.0, 0.001, 0.01, 10.0, 0.1])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_unit_change_is_named(reference: tuple[Grid, np.ndarray], name: str, factor: float, share: float) -> None:
    (fault,) = found(reference, struck(name, lambda v: v * factor, share))
    assert fault.fault == "unit_change" or (share < 1 and fault.fault in {"out_of_range", "frozen"})
    assert fault.share == pytest.approx(share, abs=0.12)


def test_a_factor_is_told_where_the_cells_can_tell_it(reference: tuple[Grid, np.ndarray]) -> None:
    assert "where 0.1 times" in found(reference, struck("balance", lambda v: v / 10, 1.0))[0].sentence
    assert "where 10 times" in found(reference, struck("balance", lambda v: v * 10, 1.0))[0].sentence


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_frozen_sensor_is_named_with_its_value(reference: tuple[Grid, np.ndarray], share: float) -> None:
    (fault,) = found(reference, struck("age", lambda v: np.full_like(v, 51.0), share))
    assert fault.fault == "frozen"
    assert "exactly 51" in fault.sentence
    (whole,) = found(reference, struck("flag", np.ones_like, 1.0))
    assert (whole.fault, "exactly 1" in whole.sentence) == ("frozen", True)
    (category,) = found(reference, struck("fuel", lambda _: "electric", 1.0))
    assert (category.fault, "`electric`" in category.sentence) == ("frozen", True)


def test_nulls_wrong_types_new_categories_and_sentinels_are_named(reference: tuple[Grid, np.ndarray]) -> None:
    nulls = found(reference, struck("income", lambda v: v * np.nan, 0.1))
    assert [(f.fault, f.feature) for f in nulls] == [("null_spike", 0)]
    assert "0.0% in the reference" in nulls[0].sentence
    wrong = np.random.default_rng(3).random(1000) < 0.05
    assert [f.fault for f in found(reference, struck("age", lambda v: v, 0), {"age": wrong})] == ["invalid_values"]
    assert [f.fault for f in found(reference, struck("fuel", lambda _: "hydrogen", 0.04))] == ["new_category"]
    assert [f.fault for f in found(reference, struck("income", lambda v: v * 0 - 999, 0.2))] == ["out_of_range"]


def test_ordinary_drift_is_no_fault(reference: tuple[Grid, np.ndarray]) -> None:
    for by in (0.2, 0.5, 1.0):
        today = columns(1000, np.random.default_rng(4))
        today["income"] *= np.exp(0.6 * by)
        today["balance"] += 500 * by
        today["age"] = np.round(45 + (today["age"] - 45) * (1 + by))
        today["fuel"][:300] = "electric"
        today["flag"][:300] = 1.0
        assert found(reference, today) == ()


def test_nothing_is_found_where_nothing_happened(reference: tuple[Grid, np.ndarray]) -> None:
    rng = np.random.default_rng(5)
    assert [found(reference, columns(n, rng)) for n in (30, 100, 1000) for _ in range(60)] == [()] * 180
    assert found(reference, columns(0, rng)) == ()


def test_scaling_moves_shares_as_it_moves_values() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(3, 1, 50_000)
    feature = numeric_feature("x", values)
    grid = Grid((feature,))
    assert feature.edges is not None
    before, after = (grid.count(grid.encode({"x": v}, {}))[3:] / 50_000 for v in (values, values * 0.1))
    np.testing.assert_allclose(scaled(feature.edges, before, 1.0), before, atol=1e-3)
    assert np.abs(scaled(feature.edges, before, 0.1) - after).sum() / 2 < 0.03

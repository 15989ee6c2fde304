"""The contract's five dimensions: what holds is listed, what does not is named with rows and values."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("pandera", reason="needs the extra modelops")

from modelops import contract
from modelops.data import Rows, Snapshot
from modelops.errors import ContractError
from modelops.recipe import Recipe

SNAPSHOT = Snapshot("s", "", 6, 3, 0.0, 100.0, 160.0, "")


def rows(**changes: Any) -> Rows:
    columns = {
        "age": np.array([20.0, 30.0, 40.0, np.nan, 60.0, 70.0]),
        "region": np.array(["north", "south", None, "north", "west", "west"], object),
    }
    ids = np.array([f"r{i}" for i in range(6)], object)
    made = Rows(columns, np.array([0, 1, 0, 1, 0, 1], np.int8), np.arange(6.0), ids)
    return Rows(**{name: changes.get(name, getattr(made, name)) for name in ("columns", "y", "times_s", "ids")})


def recipe(**rules: Any) -> Recipe:
    features = {"age": "numeric", "region": "categorical"}
    return Recipe.model_validate({"data": {"features": features}, "contract": rules})


def test_what_holds_is_listed() -> None:
    asked = recipe(
        columns={"age": {"between": [0, 120], "max_missing": 0.2}, "region": {"values": ["north", "south", "west"]}},
        rows=[5, 10], positive_share=[0.4, 0.6], max_age="60s",
    )  # fmt: skip
    said = contract.check(rows(), SNAPSHOT, asked)
    dimensions = {rule.partition(":")[0] for rule in said}
    assert dimensions == {"completeness", "accuracy", "consistency", "timeliness", "validity"}


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (
            {"columns": {"age": {"between": [25, 65]}}},
            "validity: age lies between 25 and 65 fails in 2 rows (rows 0, 5",
        ),
        (
            {"columns": {"region": {"values": ["north"]}}},
            "validity: region is one of north fails in 3 rows (rows 1, 4, 5",
        ),
        ({"columns": {"age": {"max_missing": 0.1}}}, "completeness: at most 10.0% of age is missing does not hold"),
        ({"rows": [7, 9]}, "completeness: between 7 and 9 rows does not hold"),
        ({"positive_share": [0.6, 0.9]}, "accuracy: between 60.0% and 90.0% of the labels are positive does not hold"),
        ({"max_age": "59s"}, "timeliness: the newest row is at most 59 s older than the log's end does not hold"),
    ],
)
def test_a_breach_names_rule_rows_and_values(rules: dict[str, Any], says: str) -> None:
    with pytest.raises(ContractError) as broken:
        contract.check(rows(), SNAPSHOT, recipe(**rules))
    assert says in str(broken.value)


def test_every_breach_is_named_at_once() -> None:
    ids = np.array(["a", "a", "b", "c", "d", "e"], object)
    asked = recipe(columns={"age": {"between": [25, 65]}}, rows=[7, 9])
    with pytest.raises(ContractError) as broken:
        contract.check(rows(ids=ids), SNAPSHOT, asked)
    text = str(broken.value)
    assert all(word in text for word in ("age lies between", "between 7 and 9", "no id stands twice"))

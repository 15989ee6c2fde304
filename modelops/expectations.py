"""The contract as a suite of Great Expectations 1.x (extra `gx`), which gives a snapshot the same verdicts.

The suite is for the snapshot's Parquet file. Each expectation's description is the contract's rule. A rule of
timeliness takes the parameter `oldest`: the log's newest event time less `max_age`.
"""

import importlib
import os
from decimal import Decimal
from typing import Any

from modelops import contract
from modelops.errors import ConfigError
from modelops.recipe import Recipe

OLDEST = "oldest"


def suite(name: str, recipe: Recipe) -> Any:
    """The ExpectationSuite of a recipe's contract. Raises ConfigError where the extra is not installed."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    try:
        library: Any = importlib.import_module("great_expectations")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "to export a contract Great Expectations must be installed; it is not. "
            "Install it: pip install 'driftwatch-sidecar[gx]'"
        ) from error
    gx = library.expectations
    asked, says = recipe.contract, contract.SAYS
    found: list[Any] = []
    for column, rule in asked.columns.items():
        if rule.max_missing is not None:
            found.append(
                gx.ExpectColumnValuesToNotBeNull(
                    column=column,
                    mostly=float(1 - Decimal(str(rule.max_missing))),
                    description=says["missing"].format(name=column, most=rule.max_missing),
                )
            )
        if rule.between is not None:
            low, high = rule.between
            found.append(
                gx.ExpectColumnValuesToBeBetween(
                    column=column,
                    min_value=low,
                    max_value=high,
                    description=says["between"].format(name=column, low=low, high=high),
                )
            )
        if rule.values is not None:
            found.append(
                gx.ExpectColumnValuesToBeInSet(
                    column=column,
                    value_set=list(rule.values),
                    description=says["values"].format(name=column, values=", ".join(rule.values)),
                )
            )
    if asked.rows is not None:
        low_n, high_n = asked.rows
        said = says["rows"].format(low=low_n, high=high_n)
        found.append(gx.ExpectTableRowCountToBeBetween(min_value=low_n, max_value=high_n, description=said))
    if asked.positive_share is not None:
        low, high = asked.positive_share
        said = says["positive"].format(low=low, high=high)
        found.append(gx.ExpectColumnMeanToBeBetween(column="$y", min_value=low, max_value=high, description=said))
    if asked.max_age is not None:
        said = says["age"].format(most=asked.max_age)
        least = {"$PARAMETER": OLDEST}
        found.append(gx.ExpectColumnMaxToBeBetween(column="$time", min_value=least, description=said))
    found.append(gx.ExpectColumnValuesToBeInSet(column="$y", value_set=[0, 1], description=says["label"]))
    if asked.unique_ids:
        found.append(gx.ExpectColumnValuesToBeUnique(column="$id", description=says["unique"]))
    return library.ExpectationSuite(name=name, expectations=found)

"""The data contract: five dimensions, checked by pandera; a breach names columns, rows and rules."""

import os
from typing import Any

from modelops.data import Rows, Snapshot
from modelops.errors import ContractError
from modelops.recipe import Recipe

MOST_ROWS = 5  # that a rule's report names
SAYS = {
    "missing": "completeness: at most {most:.1%} of {name} is missing",
    "rows": "completeness: between {low:,} and {high:,} rows",
    "positive": "accuracy: between {low:.1%} and {high:.1%} of the labels are positive",
    "label": "accuracy: a label is 0 or 1",
    "unique": "consistency: no id stands twice",
    "age": "timeliness: the newest row is at most {most:g} s older than the log's end",
    "between": "validity: {name} lies between {low:g} and {high:g}",
    "values": "validity: {name} is one of {values}",
}
"""Each rule in words."""


def check(rows: Rows, snapshot: Snapshot, recipe: Recipe) -> list[str]:
    """The rules that hold, each in words. Raises ContractError with every one that does not."""
    os.environ.setdefault("DISABLE_PANDERA_IMPORT_WARNING", "True")
    import pandas as pd
    import pandera.pandas as pa
    from pandera.errors import SchemaErrors

    contract, data = recipe.contract, recipe.data
    columns: dict[str, Any] = {name: pd.Series(values) for name, values in rows.columns.items()}
    frame = pd.DataFrame({**columns, "$y": rows.y, "$id": pd.Series(rows.ids, dtype=object)})
    rules: list[str] = []

    def rule(says: str, check: Any) -> Any:
        rules.append(says)
        return pa.Check(check, error=says, ignore_na=True)

    described: dict[str, Any] = {}
    for name, kind in data.features.items():
        asked = contract.columns.get(name)
        checks = []
        if asked is not None and asked.between is not None:
            low, high = asked.between
            checks.append(
                rule(SAYS["between"].format(name=name, low=low, high=high), lambda s, a=low, b=high: s.between(a, b))
            )
        if asked is not None and asked.values is not None:
            known = list(asked.values)
            says = SAYS["values"].format(name=name, values=", ".join(known))
            checks.append(rule(says, lambda s, v=known: s.isin(v)))
        described[name] = pa.Column(float if kind == "numeric" else None, checks, nullable=True)
    whole = []
    for name, asked in contract.columns.items():
        if asked.max_missing is not None:
            says = SAYS["missing"].format(name=name, most=asked.max_missing)
            whole.append(rule(says, lambda f, n=name, m=asked.max_missing: bool(f[n].isna().mean() <= m)))
    if contract.rows is not None:
        low_n, high_n = contract.rows
        whole.append(rule(SAYS["rows"].format(low=low_n, high=high_n), lambda f: low_n <= len(f) <= high_n))
    if contract.positive_share is not None:
        low, high = contract.positive_share
        says = SAYS["positive"].format(low=low, high=high)
        whole.append(rule(says, lambda f, a=low, b=high: bool(a <= f["$y"].mean() <= b)))
    if contract.max_age is not None:
        age_s = snapshot.log_end_s - snapshot.to_s
        says = SAYS["age"].format(most=contract.max_age)
        whole.append(rule(says, lambda _: age_s <= contract.max_age))
    described["$y"] = pa.Column(rows.y.dtype, [rule(SAYS["label"], lambda s: s.isin([0, 1]))])
    described["$id"] = pa.Column(None, unique=contract.unique_ids)
    if contract.unique_ids:
        rules.append(SAYS["unique"])
    try:
        pa.DataFrameSchema(described, checks=whole).validate(frame, lazy=True)
    except SchemaErrors as error:
        broken = _breaches(error.failure_cases)
        said = "; ".join(broken.values()) or "a column has another type than the recipe says"
        raise ContractError(f"the contract is broken: {said}", tuple(broken)) from error
    return rules


def _breaches(cases: Any) -> dict[str, str]:
    """By rule that is broken a sentence: the rule, how many rows, the first of them."""
    said = {}
    for (column, check), found in cases.groupby(["column", "check"], dropna=False, sort=False):
        rows = [int(i) for i in found["index"].dropna().unique()]
        rule = SAYS["unique"] if column == "$id" else str(check)
        values = ", ".join(str(v) for v in found["failure_case"].dropna().unique()[:MOST_ROWS])
        where = f" fails in {len(rows):,} rows (rows {', '.join(map(str, rows[:MOST_ROWS]))}; values {values})"
        said[rule] = rule + (where if rows else " does not hold")
    return said

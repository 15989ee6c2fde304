"""The data contract: five dimensions, checked by pandera; a breach names columns, rows and rules."""

import os
from typing import Any

from modelops.data import Rows, Snapshot
from modelops.errors import ContractError
from modelops.recipe import Recipe

MOST_ROWS = 5  # that a rule's report names


def check(rows: Rows, snapshot: Snapshot, recipe: Recipe) -> list[str]:
    """The rules that hold, each in words. Raises ContractError with every one that does not."""
    os.environ.setdefault("DISABLE_PANDERA_IMPORT_WARNING", "True")
    import pandas as pd
    import pandera.pandas as pa
    from pandera.errors import SchemaErrors

    contract, data = recipe.contract, recipe.data
    columns: dict[str, Any] = {name: pd.Series(values) for name, values in rows.columns.items()}
    frame = pd.DataFrame({**columns, "$label": rows.y, "$id": pd.Series(rows.ids, dtype=object)})
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
                rule(f"validity: {name} lies between {low:g} and {high:g}", lambda s, a=low, b=high: s.between(a, b))
            )
        if asked is not None and asked.values is not None:
            known = list(asked.values)
            checks.append(rule(f"validity: {name} is one of {', '.join(known)}", lambda s, v=known: s.isin(v)))
        described[name] = pa.Column(float if kind == "numeric" else None, checks, nullable=True)
    whole = []
    for name, asked in contract.columns.items():
        if asked.max_missing is not None:
            says = f"completeness: at most {asked.max_missing:.1%} of {name} is missing"
            whole.append(rule(says, lambda f, n=name, m=asked.max_missing: bool(f[n].isna().mean() <= m)))
    if contract.rows is not None:
        low_n, high_n = contract.rows
        whole.append(rule(f"completeness: between {low_n:,} and {high_n:,} rows", lambda f: low_n <= len(f) <= high_n))
    if contract.positive_share is not None:
        low, high = contract.positive_share
        says = f"accuracy: between {low:.1%} and {high:.1%} of the labels are positive"
        whole.append(rule(says, lambda f: bool(low <= f["$label"].mean() <= high)))
    if contract.max_age is not None:
        age_s = snapshot.log_end_s - snapshot.to_s
        says = f"timeliness: the newest row is at most {contract.max_age:g} s older than the log's end"
        whole.append(rule(says, lambda _: age_s <= contract.max_age))
    described["$label"] = pa.Column(rows.y.dtype, [rule("accuracy: a label is 0 or 1", lambda s: s.isin([0, 1]))])
    described["$id"] = pa.Column(None, unique=contract.unique_ids)
    if contract.unique_ids:
        rules.append("consistency: no id stands twice")
    try:
        pa.DataFrameSchema(described, checks=whole).validate(frame, lazy=True)
    except SchemaErrors as error:
        raise ContractError("the contract is broken: " + "; ".join(_breaches(error.failure_cases))) from error
    return rules


def _breaches(cases: Any) -> list[str]:
    """A sentence for each rule that is broken: the rule, how many rows, the first of them."""
    said = []
    for (column, check), found in cases.groupby(["column", "check"], dropna=False, sort=False):
        rows = [int(i) for i in found["index"].dropna().unique()]
        rule = "consistency: no id stands twice" if column == "$id" else str(check)
        values = ", ".join(str(v) for v in found["failure_case"].dropna().unique()[:MOST_ROWS])
        where = f" fails in {len(rows):,} rows (rows {', '.join(map(str, rows[:MOST_ROWS]))}; values {values})"
        said.append(rule + (where if rows else " does not hold"))
    return said or ["a column has another type than the recipe says"]

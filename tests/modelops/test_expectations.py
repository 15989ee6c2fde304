"""A contract and its suite of Great Expectations give every frame the same verdicts."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pandera", reason="needs the extra modelops")

from modelops import contract, expectations
from modelops.data import Rows, Selection, Snapshot, Warehouse, read_rows
from modelops.errors import ConfigError, ContractError
from modelops.recipe import Recipe
from tests.modelops import world

FEATURES = {"age": "numeric", "region": "categorical"}


def recipe(**rules: Any) -> Recipe:
    return Recipe.model_validate({"data": {"features": FEATURES}, "contract": rules})


def rows(ages: list[float | None], regions: list[str | None], y: list[int], ids: list[str], times: list[float]) -> Rows:
    columns = {
        "age": np.array([np.nan if a is None else a for a in ages], float),
        "region": np.array(regions, object),
    }
    return Rows(columns, np.array(y, np.int8), np.array(times), np.array(ids, object))


def ours(given: Rows, log_end_s: float, asked: Recipe) -> dict[str, bool]:
    """By rule whether it holds, as the contract says."""
    n = len(given.y)
    snapshot = Snapshot("s", "", n, 0, float(given.times_s.min()), float(given.times_s.max()), log_end_s, "")
    try:
        return dict.fromkeys(contract.check(given, snapshot, asked), True)
    except ContractError as error:
        everything = [expectation.description for expectation in expectations.suite("credit", asked).expectations]
        return {rule: rule not in error.broken for rule in everything} | dict.fromkeys(error.broken, False)


def theirs(frame: Any, log_end_s: float, asked: Recipe) -> dict[str, bool]:
    """By rule whether it holds, as Great Expectations says."""
    import great_expectations as gx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports and of progress bars
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("frames").add_dataframe_asset("frame")
        batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
        parameters = {expectations.OLDEST: log_end_s - (asked.contract.max_age or 0.0)}
        found = batch.validate(expectations.suite("credit", asked), expectation_parameters=parameters)
    assert not any(result.exception_info.get("raised_exception") for result in found.results)
    return {result.expectation_config.description: bool(result.success) for result in found.results}


def frame(given: Rows) -> Any:
    import pandas as pd

    columns = {name: pd.Series(values) for name, values in given.columns.items()}
    return pd.DataFrame({**columns, "$y": given.y, "$id": given.ids, "$time": given.times_s})


shares = st.integers(0, 20).map(lambda n: n / 20)
numbers = st.one_of(st.none(), st.integers(-3, 3).map(float), st.floats(-3, 3))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Rows, float, Recipe]:
    """Rows, the log's end and a contract, whose limits lie among the rows' values."""
    n = draw(st.integers(1, 12))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=n, max_size=n))

    ids = [str(i) for i in range(n)] if draw(st.booleans()) else column(st.integers(0, 20).map(str))
    times = st.integers(0, 50).map(float)
    made = rows(
        column(numbers),
        column(st.sampled_from(["a", "b", "c", None])),
        column(st.integers(0, 1)),
        ids,
        column(times),
    )
    low, high = sorted([draw(st.integers(-3, 3)), draw(st.integers(-3, 3))])
    least, most = sorted([draw(shares), draw(shares)])
    few, many = sorted([draw(st.integers(0, 14)), draw(st.integers(0, 14))])
    age = {"max_missing": draw(shares), "between": [low, high]}
    region = {"max_missing": draw(shares), "values": draw(st.sampled_from([["a"], ["a", "b"], ["a", "b", "c"]]))}
    asked = recipe(
        columns={"age": age, "region": region},
        rows=[few, many],
        positive_share=[least, most],
        max_age=f"{draw(st.integers(0, 30))}s",
        unique_ids=draw(st.booleans()),
    )
    return made, float(made.times_s.max()) + draw(st.integers(0, 30)), asked


@pytest.mark.slow
def test_both_give_every_frame_the_same_verdicts() -> None:
    pytest.importorskip("great_expectations", reason="needs the extra gx")
    seen: dict[str, set[bool]] = {}

    @settings(max_examples=40)
    @given(cases())
    def agree(case: tuple[Rows, float, Recipe]) -> None:
        given, log_end_s, asked = case
        said = ours(given, log_end_s, asked)
        assert theirs(frame(given), log_end_s, asked) == said
        for rule, holds in said.items():
            seen.setdefault(" ".join(rule.split()[:4]), set()).add(holds)

    agree()
    dimensions = {rule.partition(":")[0] for rule, verdicts in seen.items() if verdicts == {True, False}}
    assert dimensions == {"completeness", "accuracy", "consistency", "timeliness", "validity"}


@pytest.mark.slow
def test_the_suite_that_the_command_writes_judges_a_snapshots_file(tmp_path: Path) -> None:
    gx = pytest.importorskip("great_expectations", reason="needs the extra gx")
    import pandas as pd

    rules = {"columns": {"age": {"between": [0, 60], "max_missing": 0.1}}, "rows": [100, 9000], "max_age": "1h"}
    config = world.make_folder(tmp_path, recipe={"contract": rules})
    command = [sys.executable, "-m", "modelops", "expectations", "credit", "-c", str(config)]
    written = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert written["name"] == "credit"
    log = tmp_path / "log.jsonl"
    world.write_events(log, 1200, 2, start_s=1e9, changed=False)
    asked = Recipe.model_validate(json.loads((tmp_path / "credit.yaml").read_text()))
    snapshot = Warehouse(tmp_path / "w").snapshot([log], asked.data, Selection("credit", 1e9))
    batch = gx.get_context(mode="ephemeral").data_sources.add_pandas("files").add_dataframe_asset("snapshot")
    whole = batch.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": pd.read_parquet(snapshot.path)})
    suite = gx.ExpectationSuite(name=written["name"], expectations=written["expectations"])
    oldest = {expectations.OLDEST: snapshot.log_end_s - 3600}
    found = whole.validate(suite, expectation_parameters=oldest).results
    verdicts = {result.expectation_config.description: bool(result.success) for result in found}
    with pytest.raises(ContractError) as broken:
        contract.check(read_rows(Path(snapshot.path), asked.data.features), snapshot, asked)
    assert {rule for rule, holds in verdicts.items() if not holds} == set(broken.value.broken)
    assert len(verdicts) == 6


def test_without_the_extra_the_export_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "great_expectations", None)
    with pytest.raises(ConfigError, match=r"pip install 'driftwatch-sidecar\[gx\]'"):
        expectations.suite("credit", recipe())

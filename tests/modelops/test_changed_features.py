"""A recipe whose features changed: the champion is judged with its own on the same rows, or it is said why not."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("skops", reason="needs the extra modelops")

from modelops import artifact, manual, train
from modelops.bootstrap import roc_auc, value
from modelops.config import load
from modelops.data import read_rows
from modelops.errors import TrainingError
from modelops.gate import Verdict
from modelops.recipe import Kind, Recipe
from modelops.registry import Version
from modelops.results import read_result
from modelops.state import connect
from modelops.train import Champion
from tests.modelops import world
from tests.modelops.job_bench import START_S

BEFORE: dict[str, str] = {"age": "numeric", "income": "numeric", "region": "categorical"}


def write_log(path: Path, n: int, *, lacking: tuple[str, ...] = ()) -> None:
    """Labelled events that have a `tenure` as well, which says much."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    with path.open("a") as file:
        for i, row in enumerate(world.features(n, 7)):
            y = world.label(row, rng, changed=False)
            values = row | {"tenure": round(float(rng.normal(y)), 2)}
            event = {"id": f"e{i}", "time": START_S + i / 10, "model": "credit", "version": "1", "label": y}
            file.write(json.dumps(event | {"features": {k: v for k, v in values.items() if k not in lacking}}) + "\n")


def trained(config_path: Path, features: dict[str, str], source: Path | None = None) -> tuple[Verdict, Version | None]:
    """What `modelops train` says with a recipe of these features, and what it registers."""
    recipe = json.loads((config_path.parent / "credit.yaml").read_text())
    recipe["data"]["features"] = features
    recipe |= {"model": {"kind": "logistic"}, "gate": {"segments": [], "better_by": -1.0, "resamples": 200}}
    (config_path.parent / "credit.yaml").write_text(json.dumps(recipe))
    config = load(config_path)
    with contextlib.closing(connect(config.database)) as database:
        said, version = manual.train(config, database, "credit", source, lambda *_: None)
    newest = max((config.state.folder / "jobs").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    verdict = read_result(newest / "gate.json", Verdict)
    assert verdict is not None
    assert said.startswith(verdict.report)
    return verdict, version


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Version]:
    """A configuration with a champion of the features before, and its version."""
    config_path = world.make_folder(tmp_path_factory.mktemp("world"), entry={"labels": None})
    write_log(config_path.parent / "log" / "predictions.jsonl", 1500)
    _, version = trained(config_path, BEFORE)
    assert version is not None
    return config_path, version


@pytest.mark.parametrize(
    ("after", "lacking"),
    [
        ({"age": "numeric", "region": "categorical", "tenure": "numeric"}, "tenure"),
        ({"region": "categorical", "age": "numeric"}, None),
        ({"age": "categorical", "tenure": "numeric"}, "age, tenure"),
    ],
)
def test_a_champion_is_judged_with_its_own_features(
    first: tuple[Path, Version], after: dict[str, str], lacking: str | None
) -> None:
    config_path, version = first
    verdict, _ = trained(config_path, after)
    lines = {line.name: line for line in verdict.comparisons}
    champion = artifact.load(Path(version.artifact), version.sha256)
    held = read_rows(Path(version.snapshot_path), champion.encoding.kinds).part(slice(version.n_train, None))
    assert lines["new rows"].champion == value(roc_auc, champion.score(held.columns), held.y)
    old = lines["old hold-out"]
    if lacking is None:
        assert (old.champion, old.passes) == (lines["new rows"].champion, old.low is not None and old.low > -0.02)
    else:
        assert (old.challenger, old.passes, old.needs) == (None, None, f"not compared: its rows have no {lacking}")


def test_a_champion_whose_features_the_rows_lack_is_not_judged_and_it_says_what_to_do(
    first: tuple[Path, Version], tmp_path: Path
) -> None:
    log, config_path = tmp_path / "log.jsonl", first[0]
    write_log(log, 1500, lacking=("income",))
    after = {"age": "numeric", "tenure": "numeric"}
    verdict, version = trained(config_path, after, log)
    assert version is None
    assert verdict.report.startswith(
        "not promotable: version 1, the champion, cannot be judged on these rows: they have no value"
    )
    assert "of income, which it was fitted to. Send income until" in verdict.report
    table = tmp_path / "table.csv"
    table.write_text("age,tenure,label\n" + "".join(f"{i % 50},{i % 2},{i % 2}\n" for i in range(900)))
    verdict, version = trained(config_path, after, table)
    assert version is None
    assert "they have no value of income, region, which it was fitted to" in verdict.report


def test_a_recalibration_under_a_changed_recipe_says_why_not(first: tuple[Path, Version]) -> None:
    _, version = first
    kinds: dict[str, Kind] = {"age": "numeric", "tenure": "numeric"}
    champion = Champion(artifact.load(Path(version.artifact), version.sha256), None)
    recipe = Recipe.model_validate({"data": {"features": kinds}})
    rows = read_rows(Path(version.snapshot_path), {"age": "numeric"})
    with pytest.raises(TrainingError, match=r"go on with the champion's features, age, income, region; the recipe has"):
        train.recalibrate(rows, recipe, champion)

"""Recipes and configurations: what is wrong is said with its place."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from modelops import config, recipe, settings
from modelops.errors import ConfigError
from tests.modelops import world


def written(folder: Path, data: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def test_equal_recipes_have_equal_hashes_however_they_are_written(tmp_path: Path) -> None:
    short = recipe.load(written(tmp_path, {"data": {"features": {"age": "numeric"}, "window": "5m"}}))
    long = recipe.load(written(tmp_path, "model: {seed: 0}\ndata:\n  window: 300s\n  features: {age: numeric}\n"))
    other = recipe.load(written(tmp_path, {"data": {"features": {"age": "categorical"}}}))
    assert short.hash == long.hash != other.hash


def test_a_number_with_an_exponent_is_no_text(tmp_path: Path) -> None:
    text = "data: {features: {age: numeric}}\nmodel: {parameters: {a: 1e-3, b: 2E+5, c: 1.5e3, d: e3, e: 1e}}\n"
    found = recipe.load(written(tmp_path, text)).model.parameters
    assert found == {"a": 0.001, "b": 200_000.0, "c": 1500.0, "d": "e3", "e": "1e"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            {"data": {"features": {"a": "numeric"}}, "modell": {}},
            "modell: must be one of the keys .*Did you mean `model`",
        ),
        ({"data": {"features": {"a": "numeric"}, "windows": "5m"}}, r"data\.windows: .*Did you mean `window`"),
        (
            {"data": {"features": {"a": "number"}}},
            r"data\.features\.a: must be 'numeric' or 'categorical'; got 'number'",
        ),
        ({"data": {"features": {"a": "numeric"}, "window": 5}}, r"data\.window: must be a duration.*Did you mean `5s`"),
        ({}, r"data: must be given"),
        ({"data": {"features": {"a": "numeric"}}, "gate": {"segments": ["b"]}}, "must name features; got 'b'"),
        ({"data": {"features": {"a": "numeric"}}, "gate": {"segments": ["a"]}}, "categorical features; 'a' is numeric"),
        ({"data": {"features": {"a": "numeric"}}, "rollout": {"steps": [0.5, 0.2]}}, "rollout: `steps` must be rising"),
        (
            {"data": {"features": {"a": "numeric"}}, "contract": {"columns": {"a": {"max": 1}}}},
            r"contract\.columns\.a\.max",
        ),
        ({"data": {"features": {"$id": "numeric"}}}, r"data\.features\.\$id"),
        ({"data": {"features": {"score": "numeric"}}}, "`profile.prediction` must differ"),
        ("data: {features: [", "must be YAML"),
        ("data: ${NOT_SET_ANYWHERE}", "environment variable NOT_SET_ANYWHERE"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, data: Any, says: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(ConfigError, match=says) as wrong:
        recipe.load(path)
    assert str(wrong.value).startswith(str(path))
    assert wrong.value.exit_code == 2


def test_a_configurations_paths_are_beside_it_and_secrets_stay_out(tmp_path: Path) -> None:
    loaded = config.load(world.make_folder(tmp_path))
    entry = loaded.model("credit")
    assert entry.recipe == tmp_path / "credit.yaml"
    assert loaded.database == tmp_path / "state" / "modelops.db"
    assert recipe.load(entry.recipe).data.min_rows == 600
    assert world.SECRET not in repr(loaded)
    with pytest.raises(ConfigError, match="must name 'other'; got credit"):
        loaded.model("other")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "none.yaml")


def test_the_schemas_describe_every_key() -> None:
    def undescribed(section: dict[str, Any]) -> list[str]:
        return [
            f"{name}.{key}"
            for name, part in [("", section), *section.get("$defs", {}).items()]
            for key, value in part.get("properties", {}).items()
            if "description" not in value and "$ref" not in value and "default" not in value
        ]

    assert undescribed(config.json_schema()) == []
    assert undescribed(settings.json_schema(recipe.Recipe)) == []

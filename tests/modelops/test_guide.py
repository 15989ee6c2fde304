"""What docs/modelops.md tells to write is what both services take, in an empty folder."""

import re
from pathlib import Path

import pytest

import driftwatch.config
from modelops import cli, config, recipe

pytest.importorskip("duckdb", reason="needs the extra modelops")

GUIDE = (Path(__file__).parents[2] / "docs" / "modelops.md").read_text("utf-8")


BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the guide tells to write."""
    for name, text in zip(("modelops.yaml", "credit.yaml", "driftwatch.yaml"), BLOCKS[:3], strict=True):
        (tmp_path / name).write_text(text)
    for name in ("webhook-secret", "profile-token"):
        (tmp_path / name).write_text("d2VsbCB0aGlzIGlzIGEgc2VjcmV0IG9mIDMyIGJ5dGVz")
    return tmp_path


def test_the_guides_configurations_are_taken_and_name_the_same_things(folder: Path) -> None:
    service, watch = config.load(folder / "modelops.yaml"), driftwatch.config.load(folder / "driftwatch.yaml")
    model = service.model("credit")
    made = recipe.load(model.recipe)
    assert model.recipe == folder / "credit.yaml"
    assert made.rollout.strategy == "canary"
    assert watch.model.name == "credit"
    assert watch.events is not None
    assert {name: shape.kind for name, shape in watch.events.features.items()} == made.data.features
    assert watch.events.prediction is not None
    assert watch.events.label is not None
    assert (watch.events.prediction.name, watch.events.label.name) == (made.profile.prediction, made.profile.label)


def test_the_guides_receivers_stand_in_the_models_section(folder: Path) -> None:
    (delivered,) = BLOCKS[3:]
    (folder / "modelops.yaml").write_text(BLOCKS[0].replace("state: {", f"{delivered}state: {{"))
    deliver = config.load(folder / "modelops.yaml").model("credit").deliver
    assert [target.kind for target in deliver] == ["http", "kafka"]


def test_the_guides_commands_are_those_there_are() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    words = [line.partition("#")[0].split()[1:] for block in blocks for line in block.splitlines()
             if line.startswith("modelops ")]  # fmt: skip
    assert len(words) >= 4
    for command in words:
        assert cli.parser().parse_args(command).command is not None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train", "credit", "--from", "nothing.csv"], 2, "there is no nothing.csv"),
        (["rollout", "promote", "nobody"], 2, "`models` must name 'nobody'; got credit"),
        (["rollout", "start", "credit", "7"], 3, "no version 7 of 'credit'; see `modelops registry list`"),
        (["jobs"], 0, "no alarm has come yet"),
        (["rollout", "list"], 0, "nothing has been rolled out yet"),
        (["registry", "list"], 0, "credit has no version yet"),
    ],
)
def test_a_newcomer_is_told_what_is_missing(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "-c", str(folder / "modelops.yaml")])
    assert ended.value.code == code
    assert said in capsys.readouterr().err

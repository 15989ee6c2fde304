"""What docs/modelops.md tells to write is what both services take, in an empty folder."""

import re
from pathlib import Path

import driftwatch.config
from modelops import cli, config, recipe

GUIDE = (Path(__file__).parents[2] / "docs" / "modelops.md").read_text("utf-8")


def test_the_guides_configurations_are_taken_and_name_the_same_things(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)[:3]
    for name, text in zip(("modelops.yaml", "credit.yaml", "driftwatch.yaml"), blocks, strict=True):
        (tmp_path / name).write_text(text)
    for name in ("webhook-secret", "profile-token"):
        (tmp_path / name).write_text("d2VsbCB0aGlzIGlzIGEgc2VjcmV0IG9mIDMyIGJ5dGVz")
    service, watch = config.load(tmp_path / "modelops.yaml"), driftwatch.config.load(tmp_path / "driftwatch.yaml")
    model = service.model("credit")
    made = recipe.load(model.recipe)
    assert model.recipe == tmp_path / "credit.yaml"
    assert watch.model.name == "credit"
    assert watch.events is not None
    assert {name: shape.kind for name, shape in watch.events.features.items()} == made.data.features
    assert watch.events.prediction is not None
    assert watch.events.label is not None
    assert (watch.events.prediction.name, watch.events.label.name) == (made.profile.prediction, made.profile.label)


def test_the_guides_commands_are_those_there_are() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    words = [line.partition("#")[0].split()[1:] for block in blocks for line in block.splitlines()
             if line.startswith("modelops ")]  # fmt: skip
    assert len(words) >= 4
    for command in words:
        assert cli.parser().parse_args(command).command is not None

"""Every kind of model: learnt, kept, read again; what is changed or another's is refused, never run."""

import functools
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest

pytest.importorskip("skops", reason="needs the extra modelops")
pytest.importorskip("lightgbm", reason="needs the extra modelops")
pytest.importorskip("river", reason="needs the extra modelops")

import skops.io

from modelops import artifact, models
from modelops import recipe as recipes
from modelops.bootstrap import roc_auc, value
from modelops.errors import ArtifactError, ConfigError, TrainingError
from modelops.estimators import library, tree_text
from modelops.models import Model
from modelops.recipe import Kind, ModelKind
from tests.modelops import world

KINDS: dict[str, Kind] = {"age": "numeric", "income": "numeric", "region": "categorical"}
PARAMETERS: dict[ModelKind, dict[str, Any]] = {
    "hist_gradient_boosting": {"max_iter": 20},
    "lightgbm": {"num_iterations": 20, "min_data_per_group": 20},
    "logistic": {"C": 0.5},
    "river_alma": {},
    "river_logistic": {"optimizer": "Adam", "learning_rate": 0.02, "l2": 1e-4},
    "river_perceptron": {"l2": 1e-4},
}


def table(n: int, seed: int, *, changed: bool = False) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rows, rng = world.features(n, seed), np.random.default_rng(seed)
    columns = {name: np.array([row[name] for row in rows], object if name == "region" else float) for name in KINDS}
    columns["age"][::17], columns["region"][::13] = np.nan, None
    return columns, np.array([world.label(row, rng, changed=changed) for row in rows])


def chosen(kind: ModelKind, **more: Any) -> recipes.Model:
    return recipes.Model(kind=kind, parameters=PARAMETERS[kind] | more)


def fitted(kind: ModelKind, **more: Any) -> Model:
    columns, y = table(1200, 1)
    return models.fit(chosen(kind, **more), models.encoding_of(columns, KINDS), columns, y)


def test_every_kind_is_tried_here() -> None:
    assert set(PARAMETERS) == set(get_args(ModelKind))


@pytest.mark.parametrize("kind", PARAMETERS)
def test_a_kept_model_predicts_the_same_for_columns_and_rows(tmp_path: Path, kind: ModelKind) -> None:
    model = fitted(kind)
    loaded = artifact.load(tmp_path / "m", artifact.save(model, tmp_path / "m"))
    columns, y = table(400, 2)
    columns["region"][5] = "nowhere"
    scores = model.score(columns)
    assert (loaded.score(columns) == scores).all()
    rows = [{name: columns[name][i] for name in KINDS} for i in range(400)]
    assert (loaded.predict(loaded.encoding.rows(rows)) == scores).all()
    assert (fitted(kind).score(columns) == scores).all()  # the seed decides everything
    assert value(roc_auc, scores, y) > (0.55 if kind in {"river_alma", "river_perceptron"} else 0.65)


@pytest.mark.parametrize("kind", PARAMETERS)
def test_what_was_changed_or_is_not_the_librarys_is_refused(tmp_path: Path, kind: ModelKind) -> None:
    sha256 = artifact.save(fitted(kind), tmp_path)
    path = tmp_path / library.of(kind).ARCHIVE
    data, described = (
        path.read_bytes(),
        msgspec.json.decode((tmp_path / "model.json").read_bytes(), type=artifact.Description),
    )
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=f"{path.name}: must be what was registered"):
        artifact.load(tmp_path, sha256)
    untrusted = skops.io.dumps({"a": functools.partial(os.system, "true")})
    for other in (pickle.dumps(["a list"]), untrusted, b"", data[: len(data) // 2]):
        path.write_bytes(other)
        text = msgspec.json.encode(msgspec.structs.replace(described, archive_sha256=hashlib.sha256(other).hexdigest()))
        (tmp_path / "model.json").write_bytes(text)  # a registry that lies: then what is inside decides
        with pytest.raises(ArtifactError, match=r"must be (a skops archive|LightGBM's text)|trusted types only"):
            artifact.load(tmp_path, hashlib.sha256(text).hexdigest())


def test_a_scikit_archive_is_no_river_archive(tmp_path: Path) -> None:
    for kind, other in (("logistic", "river_logistic"), ("river_logistic", "logistic")):
        artifact.save(fitted(kind), tmp_path)
        if kind == "river_logistic":
            with pytest.raises(ArtifactError, match=r"trusted types only; got .*river"):
                library.of(other).loads((tmp_path / "model.skops").read_bytes(), tmp_path)


def test_parameters_that_a_library_does_not_have_are_refused() -> None:
    for kind, parameters, says in (
        ("lightgbm", {"num_leafs": 3}, "must be among bagging_fraction, .*; got num_leafs"),
        ("lightgbm", {"bagging_fraction": 3.0}, "lightgbm refuses"),
        ("logistic", {"c": 1}, "must be one that can be fitted"),
        ("river_logistic", {"optimizer": "LBFGS"}, "must be one of SGD, Adam, AdaGrad; got 'LBFGS'"),
        ("river_logistic", {"rate": 1}, "must be one that can be fitted"),
    ):
        with pytest.raises(TrainingError, match=says):
            fitted(kind, **parameters)


def test_training_that_yields_no_number_says_what_to_change() -> None:
    columns, y = table(600, 1)
    columns["age"][3] = np.inf
    with pytest.raises(TrainingError, match="infinities in the features"):
        models.fit(chosen("river_logistic"), models.encoding_of(columns, KINDS), columns, y)


@pytest.mark.parametrize("kind", recipes.UNSAFE_KINDS)
def test_a_model_that_cannot_be_kept_is_refused_in_the_recipe(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"data: {{features: {{age: numeric}}}}\nmodel: {{kind: {kind}}}\n")
    with pytest.raises(
        ConfigError, match=rf"must be a model that is kept without pickle; got '{kind}'.*river_logistic"
    ):
        recipes.load(path)


FUZZ = """
import sys
from pathlib import Path
import numpy as np
from modelops.errors import ArtifactError
from modelops.estimators import boosting
data, rng, read = Path(sys.argv[1]).read_bytes(), np.random.default_rng(int(sys.argv[2])), 0
matrix = np.zeros((5, 3))
for _ in range(200):
    changed = bytearray(data)
    way = rng.integers(4)
    place = int(rng.integers(data.index(b"end of trees")))
    if way == 0:
        changed[place] = rng.integers(128)
    elif way == 1:
        del changed[place : place + int(rng.integers(1, 40))]
    elif way == 2:
        changed[place:place] = data[:30]
    else:
        digits = [i for i in range(place, min(place + 300, len(data))) if data[i : i + 1].isdigit()]
        changed[digits[0]] = 48 + int(rng.integers(10))
    try:
        boosting.predict(boosting.loads(bytes(changed), Path("x")), matrix)
        read += 1
    except ArtifactError:
        pass
print("alive", read)
"""


def test_no_changed_text_brings_lightgbm_down(tmp_path: Path) -> None:
    artifact.save(fitted("lightgbm"), tmp_path)
    command = [sys.executable, "-c", FUZZ, str(tmp_path / "model.lightgbm.txt"), "1"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stdout.startswith("alive"), (found.returncode, found.stderr[-2000:])


def test_a_tree_without_splits_and_one_of_categories_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(400) < 0.5).astype(int)
    columns = {"age": np.zeros(400), "income": np.zeros(400), "region": np.array(["a", "b"], object)[y]}
    for names in (("age", "income"), ("region",)):
        kinds: dict[str, Kind] = {name: KINDS[name] for name in names}
        some = {name: columns[name] for name in names}
        model = models.fit(chosen("lightgbm"), models.encoding_of(some, kinds), some, y)
        loaded = artifact.load(tmp_path / names[0], artifact.save(model, tmp_path / names[0]))
        assert (loaded.score(some) == model.score(some)).all()
    text = (tmp_path / "region" / "model.lightgbm.txt").read_text()
    with pytest.raises(ArtifactError, match="sets of categories"):
        tree_text.check(text.replace("\nthreshold=0\n", "\nthreshold=7\n"), tmp_path)
    with pytest.raises(ArtifactError, match="must make a tree"):
        tree_text.check(text.replace("left_child=-1", "left_child=-2"), tmp_path)

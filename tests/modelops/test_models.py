"""Models and their files: what is predicted, what is kept, what is refused."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("skops", reason="needs the extra modelops")

import skops.io
from sklearn.metrics import roc_auc_score

from modelops import artifact, models
from modelops import recipe as recipes
from modelops.errors import ArtifactError, TrainingError
from modelops.models import Model
from modelops.recipe import Kind
from tests.modelops import world

KINDS: dict[str, Kind] = {"age": "numeric", "income": "numeric", "region": "categorical"}


def table(n: int, seed: int, *, changed: bool = False) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rows, rng = world.features(n, seed), np.random.default_rng(seed)
    columns = {name: np.array([row[name] for row in rows], object if name == "region" else float) for name in KINDS}
    return columns, np.array([world.label(row, rng, changed=changed) for row in rows])


def fitted(kind: str, **parameters: Any) -> Model:
    columns, y = table(600, 1)
    chosen = recipes.Model.model_validate({"kind": kind, "parameters": parameters})
    return models.fit(chosen, models.encoding_of(columns, KINDS), columns, y)


@pytest.mark.parametrize(
    ("kind", "parameters"), [("hist_gradient_boosting", {"max_iter": 20}), ("logistic", {"C": 0.5})]
)
def test_a_model_is_the_same_after_its_file_and_for_rows_as_for_columns(
    tmp_path: Path, kind: str, parameters: dict[str, Any]
) -> None:
    model = fitted(kind, **parameters)
    loaded = artifact.load(tmp_path / "m", artifact.save(model, tmp_path / "m"))
    columns, y = table(200, 2)
    columns["age"][3], columns["region"][4], columns["region"][5] = np.nan, None, "nowhere"
    scores = model.score(columns)
    assert (loaded.score(columns) == scores).all()
    rows = [{name: columns[name][i] for name in KINDS} for i in range(200)]
    rows[3]["age"], rows[5]["extra"] = "12", 1
    assert (loaded.predict(loaded.encoding.rows(rows)) == scores).all()
    auc = roc_auc_score(y, scores)
    assert auc > 0.65


def test_the_seed_decides_everything() -> None:
    columns, _ = table(50, 3)
    first, second = (fitted("hist_gradient_boosting", max_iter=15).score(columns) for _ in range(2))
    assert (first == second).all()


def test_a_recalibration_moves_the_mean_and_keeps_the_order(tmp_path: Path) -> None:
    model = fitted("logistic")
    columns, _ = table(2000, 4)
    y = (np.random.default_rng(0).random(2000) < 0.7).astype(int)
    moved = models.recalibrate(model, columns, y)
    assert moved.score(columns).mean() == pytest.approx(y.mean(), abs=1e-6)
    assert (np.argsort(moved.score(columns)) == np.argsort(model.score(columns))).mean() > 0.99
    again = artifact.load(tmp_path, artifact.save(moved, tmp_path))
    assert (again.score(columns) == moved.score(columns)).all()


def test_rows_that_teach_nothing_are_refused() -> None:
    columns, y = table(100, 1)
    encoding = models.encoding_of(columns, KINDS)
    with pytest.raises(TrainingError, match="both classes"):
        models.fit(recipes.Model(), encoding, columns, np.zeros(100, int))
    with pytest.raises(TrainingError, match="must be one that can be fitted"):
        models.fit(recipes.Model(parameters={"max_iterations": 3}), encoding, columns, y)
    with pytest.raises(TrainingError, match="both classes"):
        models.recalibrate(fitted("logistic"), columns, np.ones(100, int))
    columns["age"][0] = np.inf
    with pytest.raises(TrainingError, match="infinity"):
        models.fit(recipes.Model(kind="logistic"), encoding, columns, y)


def test_a_changed_archive_or_description_is_refused(tmp_path: Path) -> None:
    sha256 = artifact.save(fitted("logistic"), tmp_path)
    data, text = (tmp_path / "model.skops").read_bytes(), (tmp_path / "model.json").read_bytes()
    (tmp_path / "model.skops").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"model\.skops: must be what was registered"):
        artifact.load(tmp_path, sha256)
    (tmp_path / "model.skops").write_bytes(data)
    (tmp_path / "model.json").write_bytes(text.replace(b'"shift": 0.0', b'"shift": 9.0'))
    with pytest.raises(ArtifactError, match=r"model\.json: must be what was registered"):
        artifact.load(tmp_path, sha256)
    (tmp_path / "model.json").unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        artifact.load(tmp_path, sha256)


class _Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch /tmp/evil",)


def test_a_pickle_and_an_untrusted_type_are_never_loaded(tmp_path: Path) -> None:
    import functools
    import hashlib

    model = fitted("logistic")
    artifact.save(model, tmp_path)
    described = msgspec.json.decode((tmp_path / "model.json").read_bytes(), type=artifact.Description)
    untrusted = skops.io.dumps({"a": functools.partial(os.system, "true")})
    for data, says in (
        (pickle.dumps(_Evil()), "must be a skops archive"),
        (untrusted, "trusted types only; got .*system"),
    ):
        (tmp_path / "model.skops").write_bytes(data)
        changed = msgspec.structs.replace(described, archive_sha256=hashlib.sha256(data).hexdigest())
        text = msgspec.json.encode(changed)
        (tmp_path / "model.json").write_bytes(text)
        with pytest.raises(ArtifactError, match=says):
            artifact.load(tmp_path, hashlib.sha256(text).hexdigest())


def test_importing_modelops_loads_no_heavy_library() -> None:
    root = Path(models.__file__).parent
    names = [".".join(path.relative_to(root).with_suffix("").parts) for path in root.rglob("*.py")]
    names = [name for name in names if name != "__main__"]
    heavy = ("torch", "mlflow", "sklearn", "skops", "pandas", "pandera", "lightgbm", "optuna", "river")
    heavy += ("openlineage", "great_expectations")
    code = "import sys, importlib\n"
    code += "import modelops\n"
    code += f"for name in {names!r}: importlib.import_module(f'modelops.{{name}}')\n"
    code += f"print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_profiles_predictions_are_distributed_as_on_unseen_rows() -> None:
    from modelops import train
    from modelops.data import Rows

    columns, y = table(3000, 7)
    rows = Rows(columns, y.astype(np.int8), np.arange(3000.0), np.arange(3000).astype(object))
    chosen = recipes.Model(parameters={"max_iter": 80, "min_samples_leaf": 3, "learning_rate": 0.3})
    old = rows.part(slice(0, 2000))
    model = models.fit(chosen, models.encoding_of(columns, KINDS), old.columns, old.y)
    found, own = train.unseen_predictions(model, rows, 2000, chosen), model.score(columns)
    assert (found[2000:] == own[2000:]).all()
    assert set(found) <= set(own)
    unseen = model.score(table(20_000, 8)[0])
    assert own[:2000].std() > 1.04 * unseen.std()  # it has over-fitted
    assert found[:2000].std() == pytest.approx(unseen.std(), rel=0.02)
    assert found[:2000].mean() == pytest.approx(unseen.mean(), abs=2 * unseen.std() / 2000**0.5)
    assert (own.round(6) == own).all()
    in_sample, crossed, held = (
        roc_auc_score(y[part], scores)
        for scores, part in ((own[:2000], slice(2000)), (found[:2000], slice(2000)), (own[2000:], slice(2000, None)))
    )
    assert in_sample > held + 0.1  # it has learnt the labels by heart
    assert crossed == pytest.approx(held, abs=0.04)
    assert (train.unseen_predictions(model, rows, 0, chosen) == own).all()
    stiff = recipes.Model(parameters={"max_iter": 10, "max_leaf_nodes": 4})
    model = models.fit(stiff, models.encoding_of(columns, KINDS), old.columns, old.y)
    found, own = train.unseen_predictions(model, rows, 2000, stiff), model.score(columns)
    assert (np.sort(found[:2000]) == np.sort(own[:2000])).all()  # it is no surer of the rows that it has seen
    assert (found[:2000] != own[:2000]).any()


def test_a_profile_holds_predictions_against_labels_as_on_unseen_rows(tmp_path: Path) -> None:
    from detectors.profile import Profile
    from modelops import train
    from modelops.data import Rows
    from modelops.profile import build_profile

    columns, y = table(3000, 7)
    rows = Rows(columns, y.astype(np.int8), np.arange(3000.0), np.arange(3000).astype(object))
    described = recipes.Recipe(data=recipes.Data(features=KINDS), model=recipes.Model(parameters={"max_iter": 80}))
    learnt = train.train(rows, described, champion=None, folder=tmp_path, progress=lambda share: None)
    model, n_train = learnt.model, learnt.n_train
    scores = train.unseen_predictions(model, rows, n_train, described.model)
    settings = recipes.Profile(sizes=(100,), mmd_rows=0)
    made = build_profile(rows, KINDS, scores, settings, about={"version": "1"}, classes=("no", "yes"))
    read = Profile.from_bytes(made.to_bytes())
    assert [*read.kinds] == [*KINDS, "score", "label", "loss"]
    assert read.outcome is not None
    assert read.outcome.classes == ("no", "yes")
    held = train.hold_out_metrics(model, rows, n_train)["roc_auc"]
    assert read.outcome.reference["roc_auc"].value == pytest.approx(held, abs=0.03)
    bare = build_profile(rows, KINDS, scores, recipes.Profile(sizes=(100,), mmd_rows=0, label=None), about={})
    assert [*bare.kinds] == [*KINDS, "score"]

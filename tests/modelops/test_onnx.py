"""Models as ONNX: they predict what scikit-learn does, are kept and refused, and served without it."""

import contextlib
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("skops", reason="needs the extra modelops")

from modelops import artifact, models, train
from modelops import recipe as recipes
from modelops.config import load
from modelops.data import Rows
from modelops.errors import ArtifactError, ConfigError, TrainingError
from modelops.estimators import onnx_session
from modelops.recipe import Kind, ModelKind, Recipe
from modelops.registry import Registry
from modelops.state import connect
from modelops.train import Champion
from tests.modelops import world
from tests.modelops.job_bench import START_S
from tests.modelops.service import ask, run, wait_for

KINDS: tuple[ModelKind, ...] = ("hist_gradient_boosting", "logistic")
NAMES = ("a", "b", "c")
needs_onnx = pytest.mark.skipif(
    not all(map(onnx_session.find_spec, ("onnx", "onnxruntime"))), reason="needs the extra onnx"
)


def table(
    seed: int, n: int, kinds: dict[str, Kind], *, missing: float, n_categories: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns with missing values and ties, and labels that depend on them."""
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {}
    signal = np.zeros(n)
    for name, kind in kinds.items():
        gone = rng.random(n) < missing
        if kind == "numeric":
            values = rng.normal(size=n).round(int(rng.integers(0, 6)))
            signal += np.where(gone, 1.0, values)
            columns[name] = np.where(gone, np.nan, values)
        else:
            codes = rng.integers(0, n_categories, n)
            signal += np.where(gone, 0.5, codes % 3)
            texts = np.array([f"v{code}" for code in codes], object)
            texts[gone] = None
            columns[name] = texts
    y = (signal + rng.normal(size=n) > np.median(signal)).astype(int)
    y[:2] = 0, 1
    return columns, y


def chosen(kind: ModelKind, **parameters: Any) -> recipes.Model:
    few = {"max_iter": 15, "min_samples_leaf": 5} if kind == "hist_gradient_boosting" else {}
    return recipes.Model(kind=kind, parameters=few | parameters, format="onnx")


@needs_onnx
@settings(max_examples=40)
@given(
    st.sampled_from(KINDS),
    st.integers(0, 10_000),
    st.lists(st.sampled_from(["numeric", "categorical"]), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.1, 0.9]),
    st.integers(1, 70),
)
def test_the_graph_predicts_what_the_model_predicts(
    kind: ModelKind, seed: int, described: list[Kind], missing: float, n_categories: int
) -> None:
    kinds = dict(zip(NAMES, described, strict=False))
    columns, y = table(seed, 120, kinds, missing=missing, n_categories=n_categories)
    model = models.fit(chosen(kind), models.encoding_of(columns, kinds), columns, y)
    made = models.as_onnx(model, columns)
    others, _ = table(seed + 1, 200, kinds, missing=0.3, n_categories=n_categories + 5)  # also of categories never seen
    matrix = np.concatenate([made.encoding.columns(columns), made.encoding.columns(others)])
    matrix = np.concatenate([matrix, np.nextafter(matrix, np.inf), np.nextafter(matrix, -np.inf)])
    one, other = model.estimator.predict_proba(matrix)[:, 1], onnx_session.predict(made.estimator, matrix)
    assert np.max(np.abs(one - other)) <= models.ONNX_TOLERANCE
    assert (made.predict(matrix) == model.predict(matrix)).mean() > 0.999  # to six digits


@needs_onnx
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_kept_as_onnx_alone_and_read_back(tmp_path: Path, kind: ModelKind) -> None:
    kinds: dict[str, Kind] = {"a": "numeric", "b": "categorical"}
    columns, y = table(3, 600, kinds, missing=0.1, n_categories=9)
    made = models.as_onnx(models.fit(chosen(kind), models.encoding_of(columns, kinds), columns, y), columns)
    sha256 = artifact.save(made, tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["model.json", "model.onnx"]
    read = artifact.load(tmp_path / "one", sha256)
    assert (read.score(columns) == made.score(columns)).all()
    moved = models.recalibrate(read, columns, np.where(np.arange(600) % 9 == 0, 0, 1))
    again = artifact.load(tmp_path / "two", artifact.save(moved, tmp_path / "two"))
    assert (again.score(columns) == moved.score(columns)).all()
    assert again.score(columns).mean() > 0.8
    rows = Rows(columns, y, np.arange(600.0), np.arange(600).astype(str).astype(object))
    described = Recipe.model_validate(
        {"data": {"features": kinds}, "model": {"kind": kind}, "training": {"retraining": "transfer"}}
    )
    with pytest.raises(TrainingError, match="must go on from a champion that can learn; it is kept as ONNX"):
        train.train(rows, described, champion=Champion(read, None), folder=tmp_path, progress=lambda _: None)


@needs_onnx
def test_what_is_no_graph_or_was_changed_is_refused(tmp_path: Path) -> None:
    columns, y = table(3, 300, {"a": "numeric"}, missing=0.1, n_categories=2)
    made = models.as_onnx(
        models.fit(chosen("logistic"), models.encoding_of(columns, {"a": "numeric"}), columns, y), columns
    )
    sha256 = artifact.save(made, tmp_path)
    path = tmp_path / "model.onnx"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"model.onnx: must be what was registered"):
        artifact.load(tmp_path, sha256)
    described = msgspec.json.decode((tmp_path / "model.json").read_bytes(), type=artifact.Description)
    for other in (b"", b"no graph at all", data[: len(data) // 2], data.replace(b"MatMul", b"MatMux")):
        path.write_bytes(other)
        text = msgspec.json.encode(msgspec.structs.replace(described, archive_sha256=hashlib.sha256(other).hexdigest()))
        (tmp_path / "model.json").write_bytes(text)  # a registry that lies
        with pytest.raises(ArtifactError, match=r"must be an ONNX graph: .* Do not use it"):
            artifact.load(tmp_path, hashlib.sha256(text).hexdigest())


@needs_onnx
def test_a_graph_that_predicts_otherwise_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, y = table(3, 300, {"a": "numeric"}, missing=0.1, n_categories=2)
    model = models.fit(chosen("logistic"), models.encoding_of(columns, {"a": "numeric"}), columns, y)
    wrong = models.fit(chosen("logistic", C=0.01), model.encoding, columns, y)
    convert = onnx_session.convert
    monkeypatch.setattr(onnx_session, "convert", lambda _estimator, kind: convert(wrong.estimator, kind))
    with pytest.raises(TrainingError, match=r"must predict what the model predicts, to 1e-09; it is 0\.\d+ away"):
        models.as_onnx(model, columns)


def test_a_recipe_whose_model_cannot_be_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for text, says in (
        (
            "model: {kind: lightgbm, format: onnx}",
            "must stand beside one of hist_gradient_boosting, logistic; got lightgbm",
        ),
        ("model: {format: onnx}\ntraining: {retraining: transfer}", "beside `training.retraining: full`; got transfer"),
        ("model: {format: pickle}", "format: must be 'native' or 'onnx'|format.*'native' or 'onnx'"),
    ):
        path.write_text(f"data: {{features: {{age: numeric}}}}\n{text}\n")
        with pytest.raises(ConfigError, match=says):
            recipes.load(path)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_session, "find_spec", lambda _name: None)
    described = Recipe.model_validate({"data": {"features": {"a": "numeric"}}, "model": {"format": "onnx"}})
    rows = Rows({"a": np.zeros(9)}, np.arange(9) % 2, np.arange(9.0), np.arange(9).astype(object))
    with pytest.raises(TrainingError, match=r"onnx and onnxruntime.* not there\. Install .*\[onnx\]"):
        train.train(rows, described, champion=None, folder=tmp_path, progress=lambda _: None)
    with pytest.raises(ArtifactError, match=r"must be run by onnxruntime, which is not there\. Install"):
        onnx_session.loads(b"", tmp_path)


@needs_onnx
@pytest.mark.filterwarnings("ignore:Skipping features without any observed values")
def test_a_column_without_a_value_and_trees_without_a_split_are_written_too() -> None:
    kinds: dict[str, Kind] = {"a": "numeric", "b": "numeric"}
    columns, y = table(3, 300, kinds, missing=0.1, n_categories=2)
    columns["b"][:] = np.nan
    logistic = models.fit(chosen("logistic"), models.encoding_of(columns, kinds), columns, y)
    models.as_onnx(logistic, columns)
    some: dict[str, Kind] = {"c": "categorical"}
    columns = {"c": np.array(["x", None] * 150, object)}
    for least in (5, 400):
        trees = models.fit(
            chosen("hist_gradient_boosting", min_samples_leaf=least), models.encoding_of(columns, some), columns, y
        )
        models.as_onnx(trees, columns)


@needs_onnx
@pytest.mark.slow
def test_a_version_is_trained_and_served_from_onnx_without_scikit_learn(tmp_path: Path) -> None:
    config_path = world.make_folder(tmp_path, recipe={"model": {"format": "onnx"}}, entry={"labels": None})
    (tmp_path / "log").mkdir()
    world.write_events(tmp_path / "log" / "predictions.jsonl", 2000, 3, start_s=START_S, changed=False)
    found = run("train", "credit", "-c", config_path)
    assert found.returncode == 0, found.stderr
    config = load(config_path)
    with contextlib.closing(connect(config.database)) as database:
        (version,) = Registry(database, config.database).versions("credit")
    model = artifact.load(Path(version.artifact), version.sha256)
    assert model.format == "onnx"
    bare = "import sys\nfor name in ('sklearn', 'skops', 'onnx'): sys.modules[name] = None\n"
    words = ["predict", "--model", "credit", "-c", str(config_path), "--port", "0"]
    said_in = tmp_path / "predict.log"
    with said_in.open("w") as log:
        command = [sys.executable, "-c", f"{bare}from modelops.cli import main\nmain({words})"]
        process = subprocess.Popen(command, stderr=log)
    try:
        wait_for(lambda: "answers at " in said_in.read_text(), said_in.read_text)
        said = said_in.read_text().partition("answers at ")[2].strip()
        rows = [*world.features(50, 9), {}, {"age": None, "region": "nowhere"}]
        status, answer = ask(f"{said}/v1/models/credit:predict", json.dumps({"instances": rows}).encode())
        assert status == 200
        assert answer["predictions"] == model.predict(model.encoding.rows(rows)).tolist()
    finally:
        process.terminate()
        assert process.wait(30) == 0

"""Training in its subprocess: killed in a search, going on from champion to champion, failing in words."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("skops", reason="needs the extra modelops")
pytest.importorskip("lightgbm", reason="needs the extra modelops")
pytest.importorskip("optuna", reason="needs the extra modelops")
pytest.importorskip("river", reason="needs the extra modelops")

from modelops.registry import Registry
from tests.modelops import world
from tests.modelops.job_bench import START_S, Bench
from tests.modelops.service import run, wait_for

LIGHTGBM = {"kind": "lightgbm", "parameters": {"num_iterations": 200, "min_data_per_group": 20}}
SEARCH = {
    "space": {"learning_rate": {"between": [0.01, 0.3], "log": True}, "num_leaves": {"between": [4, 31]}},
    "trials": 25,
}


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.close()


def worker(bench: Bench) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "modelops", "work", "-c", str(bench.config_path), "the-job"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_search_that_was_killed_ends_with_what_it_would_have_found(tmp_path: Path, benches: list[Bench]) -> None:
    said = []
    for name, kills in (("whole", 0), ("killed", 2)):
        bench = Bench(tmp_path / name, {"model": LIGHTGBM, "search": SEARCH}, n_events=3000)
        benches.append(bench)
        trials = bench.config.state.folder / "jobs" / "the-job" / "trials.jsonl"
        for n in range(kills):
            process = worker(bench)
            asked = f'"trial_id":{7 * (n + 1)},"state":1'
            wait_for(lambda t=trials, a=asked: t.exists() and a in t.read_text(), lambda t=trials: t.exists())
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert not (trials.parent / "train.json").exists()
        text = worker(bench).communicate()[1]
        assert "trial 25 of 25: roc_auc 0." in text
        assert ("trial 1 of 25" in text) == (kills == 0)
        (version, _) = Registry(bench.database, bench.config.database).versions("credit")
        said.append((version.parameters, version.metrics["search.roc_auc"], version.metrics["search.trials"]))
    assert said[0] == said[1]
    assert said[0][2] == 25


@pytest.mark.slow
def test_an_online_model_goes_on_from_version_to_version(tmp_path: Path) -> None:
    recipe = {
        "model": {"kind": "river_logistic", "parameters": {}},
        "training": {"retraining": "incremental"},
        "data": world.RECIPE["data"] | {"min_rows": 400},
        "gate": {"segments": [], "better_by": -1.0, "old_margin": 1.0, "resamples": 200},
    }
    config = world.make_folder(tmp_path, recipe=recipe)
    log = tmp_path / "log" / "predictions.jsonl"
    log.parent.mkdir()
    for part in range(2):
        world.write_events(log, 2000, 2 + part, start_s=START_S + part * 200, changed=False)
        assert (found := run("train", "credit", "-c", config)).returncode == 0, found.stderr
    listed = run("registry", "list", "-c", config, "--json").stdout.splitlines()
    second, first = (msgspec.json.decode(line) for line in listed)
    assert (first["how"], second["how"]) == ("full", "incremental")
    assert second["parent"] == first["version"]
    assert START_S < first["learnt_to_s"] < second["learnt_to_s"] < START_S + 400
    found = run("train", "credit", "-c", config)  # nothing came since: the champion would learn nothing
    assert found.returncode == 0  # but rows that the second one held out


@pytest.mark.slow
def test_a_crash_says_how_it_ended_and_is_tried_again(
    tmp_path: Path, benches: list[Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, {"training": {"attempts": 2}}, n_events=1200)
    benches.append(bench)
    (tmp_path / "crash").mkdir()
    (tmp_path / "crash" / "sitecustomize.py").write_text("import sys, os\nif 'work' in sys.argv: os.abort()\n")
    with monkeypatch.context() as crashing:
        crashing.setenv("PYTHONPATH", str(tmp_path / "crash"), prepend=os.pathsep)
        job = bench.step()
    assert (job.state, job.attempts) == ("queued", 1)
    assert "the training process was ended by SIGABRT" in job.reason
    bench.database.execute("UPDATE jobs SET due_s = 0")
    assert bench.step().state == "rolling_out"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "age", "says"),
    [
        ({"model": {"kind": "river_logistic", "parameters": {}}}, "1e999", "the model predicts what is no number"),
        ({"model": {"kind": "logistic", "parameters": {}}}, "1e999", "Input X contains infinity"),
        ({"model": LIGHTGBM, "training": {"retraining": "transfer"}}, "40", "of the kind lightgbm; it is logistic"),
    ],
)
def test_training_that_cannot_be_says_what_to_change(
    tmp_path: Path, benches: list[Bench], recipe: dict[str, Any], age: str, says: str
) -> None:
    bench = Bench(tmp_path, recipe | {"training": {"attempts": 1} | recipe.get("training", {})}, n_events=1200)
    benches.append(bench)
    log = tmp_path / "log" / "predictions.jsonl"
    log.write_text(re.sub(r'"age": [0-9.]+', f'"age": {age}', log.read_text(), count=1))
    job = bench.step()
    assert job.state == "failed"
    assert says in job.reason

"""What the service does when what it stands on is gone: its state, the champion's artifact; and its metrics."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip("skops", reason="needs the extra modelops")
pytest.importorskip("uvicorn", reason="needs the extra modelops")

from tests.modelops import served_model, world
from tests.modelops.open_load import Load
from tests.modelops.service import ask, ports, run, servers_of, service, wait_for


def judged(text: str) -> str:
    """What Prometheus's own tool finds wrong with metrics."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("needs promtool, of Prometheus")
    found = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    return found.stdout + found.stderr


def value(text: str, name: str) -> float | None:
    """A metric of the champion."""
    found = re.search(rf'^{name}\{{model="credit",version="1"\}} (\S+)$', text, re.M)
    return None if found is None else float(found[1])


@pytest.mark.slow
def test_the_metrics_are_sound_and_accuracy_comes_from_labels(tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="needs the extra modelops")
    config = world.make_folder(tmp_path)
    served_model.register(config)
    (tmp_path / "log").mkdir()
    log = tmp_path / "log" / "predictions.jsonl"
    world.write_events(log, 500, 2, start_s=time.time() - 100, changed=False)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    right = [(event["prediction"] >= 0.5) == (event["label"] == 1) for event in lines]
    with service(config) as made:
        wait_for(lambda: value(made.get("/metrics"), "model_labelled_requests") == 500, made.text)
        assert value(made.get("/metrics"), "model_accuracy") == pytest.approx(sum(right) / 500)
        assert value(made.get("/metrics"), "model_roc_auc") == 0.5  # one score for all
        wait_for(lambda: ask(f"{made.router}/readyz")[0] == 200, made.text)
        with Load(made.router, 50) as load:
            load.wait_for_more(20)
        (port,) = ports(servers_of(config))
        server = ask(f"http://127.0.0.1:{port}/metrics")[1]
        assert (value(server, "model_predictions_total") or 0) >= len(load.done)
        assert (value(server, "prediction_latency_seconds_count") or 0) >= len(load.done)
        assert judged(server) == ""
        assert judged(made.get("/metrics")) == ""
        assert made.kill(signal.SIGTERM) == 0


@pytest.mark.slow
def test_a_locked_and_then_a_lost_state_cost_no_prediction(tmp_path: Path) -> None:
    config = world.make_folder(tmp_path)
    served_model.register(config)
    state = tmp_path / "state" / "modelops.db"
    with service(config) as made:
        wait_for(lambda: ask(f"{made.router}/readyz")[0] == 200, made.text)
        with Load(made.router, 50) as load:
            holder = sqlite3.connect(state, isolation_level=None)
            holder.execute("BEGIN IMMEDIATE")
            status, problem = made.hook(start="2027-01-15T07:50:00Z")
            assert (status, "try again" in problem["detail"]) == (503, True)
            load.wait_for_more(100)
            holder.execute("ROLLBACK")
            holder.close()
            assert made.hook(start="2027-01-15T07:50:00Z", kind="data_quality")[0] == 202
            for path in (tmp_path / "state").glob("modelops.db*"):
                path.rename(path.with_name(f"away-{path.name}"))
            wait_for(lambda: "modelops_state_lost 1.0" in made.get("/metrics"), made.text)
            load.wait_for_more(50)
        assert load.failed == []
        assert "is not the state that was opened" in made.text()


@pytest.mark.slow
def test_a_champion_whose_artifact_is_gone_answers_on_and_is_named(tmp_path: Path) -> None:
    config = world.make_folder(tmp_path)
    served_model.register(config)
    artifact = tmp_path / "state" / "artifacts" / "1"
    with service(config) as made:
        wait_for(lambda: ask(f"{made.router}/readyz")[0] == 200, made.text)
        with Load(made.router, 50) as load:
            load.wait_for_more(20)
            artifact.rename(artifact.with_name("away"))
            load.wait_for_more(50)
        assert load.failed == []
        (pid,) = servers_of(config)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: "the model server of version 1 ended" in made.text(), made.text)
        said = "artifacts/1/model.json: the model cannot be read: No such file or directory. Train it again."
        assert said in made.text()
        status, problem = ask(f"{made.router}/v1/models/credit:predict", b'{"instances": [{}]}')
        assert (status, "no model server" in problem["detail"]) == (503, True)
        world.write_events(tmp_path / "log" / "predictions.jsonl", 1500, 2, start_s=time.time() - 400, changed=True)
        trained = run("train", "credit", "-c", config)
        assert trained.returncode == 3
        assert "the model cannot be read" in trained.stderr
        artifact.with_name("away").rename(artifact)
        wait_for(lambda: ask(f"{made.router}/readyz")[0] == 200, made.text)

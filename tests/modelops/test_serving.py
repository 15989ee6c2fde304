"""The model server as a real process: its answers, its log as driftwatch reads it, reload and drain under load."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("skops", reason="needs the extra modelops")
pytest.importorskip("uvicorn", reason="needs the extra modelops")

from modelops import copies
from modelops.registry import Registry
from modelops.state import connect
from tests.modelops import served_model, world
from tests.modelops.service import ask, wait_for


class Predicting:
    """`modelops predict` for a model's champion."""

    def __init__(self, config: Path) -> None:
        self.config = config
        command = [sys.executable, "-m", "modelops", "predict", "-c", str(config), "--model", "credit", "--port", "0"]
        log = config.parent / "predict.log"
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stderr=file)
        wait_for(lambda: "answers at" in log.read_text(), log.read_text)
        self.url = log.read_text().partition("answers at ")[2].split()[0]

    def predict(self, rows: list[dict[str, Any]], request_id: str) -> tuple[int, Any]:
        """V1."""
        body = json.dumps({"instances": rows, "id": request_id}).encode()
        return ask(f"{self.url}/v1/models/credit:predict", body)


@pytest.fixture
def predicting(tmp_path: Path) -> Iterator[Predicting]:
    config = world.make_folder(tmp_path)
    served_model.register(config, n_versions=2)
    made = Predicting(config)
    yield made
    made.process.kill()
    made.process.wait()


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log" / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_it_answers_logs_reloads_and_drains(predicting: Predicting, tmp_path: Path) -> None:
    rows = world.features(3, 9)
    status, v1 = predicting.predict(rows, "a")
    assert (status, v1["model_version"], v1["id"]) == (200, "1", "a")
    inputs = [
        {
            "name": name,
            "shape": [3],
            "datatype": "FP64" if name != "region" else "BYTES",
            "data": [r[name] for r in rows],
        }
        for name in rows[0]
    ]
    status, v2 = ask(f"{predicting.url}/v2/models/credit/infer", json.dumps({"id": "b", "inputs": inputs}).encode())
    assert (status, v2["outputs"][0]["data"]) == (200, v1["predictions"])
    assert [event["id"] for event in logged(tmp_path)] == ["a/0", "a/1", "a/2", "b/0", "b/1", "b/2"]
    first = logged(tmp_path)[0]
    assert {k: first[k] for k in ("model", "version", "features", "prediction")} == {
        "model": "credit", "version": "1", "features": rows[0], "prediction": v1["predictions"][0],
    }  # fmt: skip
    bodies = [json.dumps({"instances": [rows[0]]}).encode(), b"{"]
    bundle = copies.encode([copies.Copy("/v1/models/credit:predict", "c", body) for body in bodies])
    assert ask(f"{predicting.url}{copies.PATH}", bundle) == (200, {"answered": 1, "failed": 0})
    assert len(logged(tmp_path)) == 6
    assert len((tmp_path / "log" / "predictions.shadow.jsonl").read_text().splitlines()) == 1
    assert ask(f"{predicting.url}/v1/models/other:predict", b"{}")[0] == 404
    assert ask(f"{predicting.url}/v1/models/credit:predict", b"{")[0] == 400
    metrics = ask(f"{predicting.url}/metrics")[1]
    assert 'model_predictions_total{model="credit",version="1"} 7.0' in metrics
    assert 'prediction_latency_seconds_count{model="credit",version="1"} 2.0' in metrics
    assert 'model_server_errors_total{model="credit",status="400"} 1.0' in metrics
    reload_under_load(predicting, tmp_path)


def reload_under_load(predicting: Predicting, folder: Path) -> None:
    """A new champion answers without a failed request; then SIGTERM: what was asked is answered and logged."""
    found: list[tuple[int, Any]] = []
    stop = threading.Event()

    def client(number: int) -> None:
        row, i = world.features(1, number), 0
        while not stop.is_set():
            found.append(predicting.predict(row, f"c{number}-{i}"))
            i += 1

    clients = [threading.Thread(target=client, args=(i,)) for i in range(4)]
    for thread in clients:
        thread.start()
    wait_for(lambda: len(found) > 50)
    database = connect(folder / "state" / "modelops.db")
    assert Registry(database, folder / "state" / "modelops.db").swap("credit", expected=1, champion=2)
    database.close()
    wait_for(lambda: found[-1][1]["model_version"] == "2")
    stop.set()
    for thread in clients:
        thread.join()
    assert {status for status, _ in found} == {200}
    predicting.process.send_signal(signal.SIGTERM)
    assert predicting.process.wait(30) == 0
    ids = {event["id"] for event in logged(folder)}
    assert {answer["id"] for _, answer in found} <= ids


@pytest.mark.slow
def test_driftwatch_reads_the_log_and_the_profile(predicting: Predicting, tmp_path: Path) -> None:
    from detectors.profile import Profile
    from modelops.data import Rows
    from modelops.profile import build_profile
    from modelops.recipe import Profile as Settings
    from tests.modelops.test_models import table

    columns, y = table(1200, 4)
    import numpy as np

    rows = Rows(columns, y.astype(np.int8), 1e9 + np.arange(1200.0), np.arange(1200).astype(object))
    settings = Settings(sizes=(100,), mmd_rows=0, label=None)
    scores = np.random.default_rng(0).random(1200)
    profile = build_profile(rows, served_model.KINDS, scores, settings, about={"version": "1"})
    (tmp_path / "credit.profile").write_bytes(profile.to_bytes())
    assert Profile.from_bytes(profile.to_bytes()).hash == profile.hash
    config = {
        "model": {"name": "credit", "version": "1"},
        "events": {"features": dict(served_model.KINDS), "prediction": {"name": "score", "kind": "probability"}},
        "reference": {"profile": "credit.profile"},
        "window": {"count": 100, "min_records": 50},
        "alarms": {"budget": "1 per 1000 windows"},
        "detectors": {"mmd": {"rows": 0}},
        "state": {"path": "driftwatch.db"},
    }
    (tmp_path / "driftwatch.yaml").write_text(json.dumps(config))
    for i in range(3):
        assert predicting.predict(world.features(100, i), f"x{i}")[0] == 200
    command = [sys.executable, "-m", "driftwatch", "replay", str(tmp_path / "log" / "predictions.jsonl"), "--json"]
    found = subprocess.run(
        [*command, "-c", str(tmp_path / "driftwatch.yaml")], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    decisions = [json.loads(line) for line in found.stdout.splitlines()]
    assert [d["window"]["n_records"] for d in decisions] == [100, 100, 100]
    assert all(d["verdict"] != "undetermined" for d in decisions), decisions
    judged = {score["feature"] for score in decisions[0]["scores"]}
    assert {"age", "income", "region", "score"} <= judged

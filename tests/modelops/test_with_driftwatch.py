"""Both services as real processes: drift, alarm, webhook, job, challenger, profile, canary, promotion, resolution."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow", reason="needs the extra modelops")

from modelops.asgi import listen
from tests.modelops import world
from tests.modelops.service import PATIENCE_S, Traffic, ask, run, service, wait_for

WINDOW = 200


def free_port() -> int:
    with listen("127.0.0.1", 0) as found:
        return int(found.getsockname()[1])


@contextlib.contextmanager
def driftwatch(folder: Path, *, port: int, hook: str, profile: str) -> Iterator[Path]:
    """The sidecar on the prediction log; its log."""
    config = {
        "model": {"name": "credit", "version": "1"},
        "source": {"kind": "file", "path": "log/predictions.jsonl", "follow": True},
        "events": {
            "features": world.RECIPE["data"]["features"],
            "prediction": {"name": "score", "kind": "probability"},
            "label": {"kind": "binary", "wait": "30s"},
        },
        "reference": {"profile": profile},
        "window": {"count": WINDOW, "min_records": 100, "lateness": "1s"},
        "alarms": {"budget": "1 per 1000 windows"},
        "detectors": {"mmd": {"rows": 0}},
        "sinks": [
            {"kind": "prometheus", "port": port, "token_file": "token"},
            {
                "kind": "webhook",
                "url": hook,
                "secret_file": "secret",
                "allow_http": True,
                "allow_private": ["127.0.0.0/8"],
                "on": ["*.opened", "*.resolved", "*.updated"],
            },
        ],
        "state": {"path": "driftwatch/state.db"},
    }
    (folder / "driftwatch.yaml").write_text(json.dumps(config))
    log = folder / "driftwatch.log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "driftwatch", "run", "-c", str(folder / "driftwatch.yaml")]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield log
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.mark.slow
def test_drift_ends_in_a_promoted_version_whose_windows_are_ok_on_their_labels_too(tmp_path: Path) -> None:
    sidecar_port, api_port = free_port(), free_port()
    sidecar = {"url": f"http://127.0.0.1:{sidecar_port}", "token_file": "token"}
    entry = {"sidecars": [sidecar], "labels": None}  # they stand in the prediction log, which driftwatch reads
    recipe = {"data": world.RECIPE["data"] | {"window": "2s"}}
    config = world.make_folder(tmp_path, entry=entry, recipe=recipe)
    text = json.loads(config.read_text())
    text["api"] = {"port": api_port}
    config.write_text(json.dumps(text))
    reference = tmp_path / "reference.jsonl"
    world.write_events(reference, 2000, 1, start_s=1_800_000_000, changed=False)
    trained = run("train", "credit", "-c", config, "--from", reference)
    assert trained.returncode == 0, trained.stderr
    listed = run("registry", "list", "-c", config, "--json").stdout
    profile = json.loads(listed)["profile"]
    (tmp_path / "log").mkdir(exist_ok=True)
    (tmp_path / "log" / "predictions.jsonl").touch()
    hook = f"http://127.0.0.1:{api_port}/v1/hooks/driftwatch"
    with (
        service(config) as made,
        driftwatch(tmp_path, port=sidecar_port, hook=hook, profile=profile) as log,
        Traffic(made.router, tmp_path / "log" / "predictions.jsonl", changed=False) as traffic,
    ):
        wait_for(lambda: ask(f"http://127.0.0.1:{sidecar_port}/readyz")[0] == 200, log.read_text)
        wait_for(lambda: len(traffic.versions) > 2 * WINDOW, made.text)
        assert made.get("/v1/jobs") == [], made.get("/v1/jobs")
        traffic.older, traffic.changed = 10.0, True
        wait_for(lambda: made.get("/v1/jobs"), lambda: made.text() + log.read_text())
        ended = ("promoted", "rejected", "failed", "rolled_back")
        wait_for(lambda: made.job()["state"] in ended, lambda: (made.text(), made.job()))
        assert made.job()["state"] == "promoted", made.job()
        found = ask(f"http://127.0.0.1:{sidecar_port}/v1/profile/2")[1]
        assert found["id"] == made.get("/v1/models")["credit"]["versions"][0]["profile_hash"]

        def decided() -> list[dict[str, Any]]:
            lines = run_driftwatch("decisions", "-c", str(tmp_path / "driftwatch.yaml"), "--json")
            return [json.loads(line) for line in lines.splitlines()]

        def superseded() -> bool:
            alarms = [(d["window"]["version"], alarm) for d in decided() for alarm in d["alarms"]]
            over = {alarm["id"] for _, alarm in alarms if alarm.get("reason") == "superseded"}
            return over == {alarm["id"] for version, alarm in alarms if version == "1"}

        wait_for(superseded, lambda: [(d["window"], d["verdict"], d["revision"], d["alarms"]) for d in decided()])
        of_new = [d for d in decided() if d["window"]["version"] == "2"]
        for revision in (0, 1):
            assert [d["verdict"] for d in of_new if d["revision"] == revision][-3:] == ["ok"] * 3, of_new
        (auc,) = (p for p in [d for d in of_new if d["revision"]][-1]["performance"] if p["metric"] == "roc_auc")
        assert (auc["source"], auc["verdict"]) == ("labels", "ok")
        assert auc["value"] > auc["reference"] - 0.15
        kinds = {a["class"]: a["kind"] for d in decided() for a in d["alarms"] if a["transition"] != "resolved"}
        assert kinds["performance"] == "concept"
        assert made.job()["kind"] == "concept"
    assert [answer for answer in traffic.failed if answer[0] != 503] == []


def run_driftwatch(*words: str) -> str:
    """A command of driftwatch; what it prints."""
    command = [sys.executable, "-m", "driftwatch", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

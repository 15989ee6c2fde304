"""The service as a real process: its HTTP interface, deliveries of profiles, rollouts under traffic."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("skops", reason="needs the extra modelops")
pytest.importorskip("uvicorn", reason="needs the extra modelops")

from tests.modelops import served_model, world
from tests.modelops.service import Service, Traffic, ask, run, service, wait_for

START = "2027-01-15T07:50:00Z"


def test_webhooks_are_answered_and_what_became_of_them_can_be_read(tmp_path: Path) -> None:
    config = world.make_folder(tmp_path)
    with service(config) as made:
        assert ask(f"{made.api}/livez") == (200, "ok\n")
        assert ask(f"{made.api}/readyz") == (200, "ok\n")
        assert ask(f"{made.router}/readyz")[0] == 503
        assert made.hook(start=START, kind="data_quality")[0] == 202
        status, receipt = made.hook(start=START, kind="data_quality")
        assert (status, receipt["new"]) == (200, False)
        webhook_id, body = world.alarm_body(start=START)
        forged = world.signed(webhook_id, body, now_s=time.time() - 900)
        status, problem = ask(f"{made.api}/v1/hooks/driftwatch", body, forged)
        assert (status, "5 minutes" in problem["detail"]) == (401, True)
        assert made.hook(start=START, alarm="other", model="other")[0] == 404
        assert ask(f"{made.api}/v1/hooks/driftwatch", b"x" * 300_000)[0] == 413
        (job,) = made.get("/v1/jobs")
        assert (job["id"], job["state"]) == (receipt["job"], "recorded")
        assert made.get(f"/v1/jobs/{job['id']}") == job
        assert ask(f"{made.api}/v1/jobs/none")[0] == 404
        assert made.get("/v1/models") == {"credit": {"aliases": {}, "versions": []}}
        metrics = ask(f"{made.api}/metrics")[1]
        for line in ('modelops_webhooks_total{status="202"} 1.0', 'modelops_webhooks_total{status="401"} 1.0',
                     'modelops_jobs{state="recorded"} 1.0', 'modelops_jobs{state="running"} 0.0'):  # fmt: skip
            assert line in metrics
        second = run("serve", "-c", config)
        assert (second.returncode, "held by process" in second.stderr) == (3, True)
        shown = run("jobs", "-c", config)
        assert (shown.returncode, "the pipeline that fills the features" in shown.stdout) == (0, True)
        assert made.kill(signal.SIGTERM) == 0


def test_what_the_command_line_cannot_do_it_says_with_its_exit_code(tmp_path: Path) -> None:
    config = world.make_folder(tmp_path)
    for words, code, says in (
        (("rollout", "pause", "credit", "-c", config), 3, "no rollout of 'credit' is open"),
        (("train", "other", "-c", config), 2, "must name 'other'"),
        (("train", "credit", "-c", config), 3, "no event yet"),
    ):
        found = run(*words)
        assert (found.returncode, says in found.stderr) == (code, True), found.stderr
    assert len(run("--help").stdout.splitlines()) < 40


def with_rollout(folder: Path, **changes: object) -> None:
    """Rewrites the recipe for another rollout."""
    path = folder / "credit.yaml"
    recipe = json.loads(path.read_text())
    recipe["rollout"] |= changes
    path.write_text(json.dumps(recipe))


def rolled_out(made: Service, config: Path, version: int) -> Any:
    """Rolls a version out; the rollout at its end."""
    started = run("rollout", "start", "credit", version, "-c", config)
    assert started.returncode == 0, started.stderr
    wait_for(lambda: made.phase() in ("promoted", "rolled_back"), made.text)
    return made.get("/v1/rollouts")[0]


@pytest.mark.slow
def test_each_strategy_under_traffic(tmp_path: Path) -> None:
    config = world.make_folder(tmp_path)
    served_model.register(config, n_versions=5)
    failed: dict[str, int] = {}
    with service(config) as made:
        wait_for(lambda: ask(f"{made.router}/readyz")[0] == 200, made.text)
        for version, strategy in enumerate(("canary", "blue_green", "shadow", "recreate"), 2):
            with_rollout(tmp_path, strategy=strategy)
            with Traffic(made.router, tmp_path / "log" / "labels.jsonl", seed=version) as traffic:
                assert rolled_out(made, config, version)["phase"] == "promoted", made.text()
                wait_for(lambda v=str(version): traffic.versions[-1] == v, made.text)
            failed[strategy] = len(traffic.failed)
        assert {name: failed[name] for name in ("canary", "blue_green", "shadow")} == {
            "canary": 0, "blue_green": 0, "shadow": 0,
        }  # fmt: skip
        assert failed["recreate"] > 0
        shadowed = (tmp_path / "log" / "predictions.shadow.jsonl").read_text().splitlines()
        assert {json.loads(line)["version"] for line in shadowed} == {"4"}
        logged = (tmp_path / "log" / "predictions.jsonl").read_text().splitlines()
        ids = [json.loads(line)["id"] for line in logged]
        assert len(set(ids)) == len(ids)


@pytest.mark.slow
def test_a_profile_waits_for_its_sidecar_and_is_put_again_where_it_is_lost(tmp_path: Path) -> None:
    with world.sidecar() as sidecar:
        config = world.make_folder(tmp_path, entry={"sidecars": [{"url": sidecar.url, "token_file": "token"}]})
        served_model.register(config, n_versions=2)
        with service(config) as made:
            wait_for(lambda: sidecar.puts == ["1"], made.text)
            sidecar.profiles.clear()
            wait_for(lambda: sidecar.puts == ["1", "1"], made.text)
            wait_for(lambda: ask(f"{made.router}/readyz")[0] == 200, made.text)
            sidecar.is_down = True
            assert run("rollout", "start", "credit", 2, "-c", config).returncode == 0
            wait_for(lambda: "503" in (made.get("/v1/rollouts") or [{"reason": ""}])[0]["reason"], made.text)
            with Traffic(made.router, tmp_path / "log" / "labels.jsonl") as traffic:
                wait_for(lambda: traffic.sent > 50)
                assert set(traffic.versions) == {"1"}
                assert made.phase() == "preparing"
                sidecar.is_down = False
                wait_for(lambda: made.phase() == "promoted", made.text)
            assert traffic.failed == []
            assert sidecar.puts.index("2") == 2


@pytest.mark.slow
def test_an_abort_and_a_bad_challenger_bring_the_champion_back(tmp_path: Path) -> None:
    recipe = {"rollout": {"observe": "600s", "min_requests": 20, "steps": [0.5], "min_labels": 100_000}}
    config = world.make_folder(tmp_path, recipe=recipe)
    served_model.register(config, n_versions=2)
    with service(config) as made:
        wait_for(lambda: ask(f"{made.router}/readyz")[0] == 200, made.text)
        with Traffic(made.router, tmp_path / "log" / "labels.jsonl", changed=False) as traffic:
            assert run("rollout", "start", "credit", 2, "-c", config).returncode == 0
            wait_for(lambda: "2" in traffic.versions, made.text)
            assert run("rollout", "abort", "credit", "-c", config).returncode == 0
            wait_for(lambda: made.phase() == "rolled_back", made.text)
            assert made.get("/v1/rollouts")[0]["reason"] == "aborted by command"
            with_rollout(tmp_path, min_labels=200)
            rollout = rolled_out(made, config, 2)  # version 2 learned the other concept: its live labels tell
            assert rollout["phase"] == "rolled_back"
            assert "labels of live requests version 2 has AUC" in rollout["reason"]
        assert traffic.failed == []
        assert made.get("/v1/models")["credit"]["aliases"] == {"champion": 1}


def test_reading_asks_for_a_token_where_there_is_one(tmp_path: Path) -> None:
    config = world.make_folder(tmp_path)
    text = json.loads(config.read_text())
    text["api"]["token_file"] = "readers"
    config.write_text(json.dumps(text))
    (tmp_path / "readers").write_text("first\nsecond\n")
    with service(config) as made:
        for path in ("/v1/jobs", "/v1/jobs/none", "/v1/models", "/v1/rollouts", "/nothing"):
            status, problem = ask(made.api + path)
            assert (status, "`Bearer TOKEN`" in problem["detail"]) == (401, True)
            assert ask(made.api + path, headers={"Authorization": "Bearer third"})[0] == 401
        for token in ("first", "second"):
            assert ask(f"{made.api}/v1/jobs", headers={"Authorization": f"Bearer {token}"}) == (200, [])
        for path in ("/livez", "/readyz", "/metrics"):
            assert ask(made.api + path)[0] == 200
        assert made.hook(start=START, kind="data_quality")[0] == 202
        (tmp_path / "readers").write_text("third\n")
        assert ask(f"{made.api}/v1/jobs", headers={"Authorization": "Bearer third"})[0] == 200
        assert ask(f"{made.api}/v1/jobs", headers={"Authorization": "Bearer first"})[0] == 401
        (tmp_path / "readers").unlink()
        assert ask(f"{made.api}/v1/jobs", headers={"Authorization": "Bearer third"})[0] == 200
        assert made.kill(signal.SIGTERM) == 0
        refused = run("serve", "-c", config)
        assert (refused.returncode, "tokens cannot be read" in refused.stderr) == (2, True)

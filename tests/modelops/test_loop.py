"""The whole loop as real processes: a signed webhook in, a promoted version out, its profile at the sidecar first."""

import time
from pathlib import Path

import pytest

pytest.importorskip("mlflow", reason="needs the extra modelops")

from modelops.times import rfc3339
from tests.modelops import world
from tests.modelops.service import Traffic, ask, run, service, wait_for


@pytest.mark.slow
def test_an_alarm_ends_in_a_promoted_version_and_no_request_fails(tmp_path: Path) -> None:
    with world.sidecar() as sidecar:
        entry = {"sidecars": [{"url": sidecar.url, "token_file": "token"}]}
        config = world.make_folder(tmp_path, entry=entry)
        reference = tmp_path / "reference.jsonl"
        world.write_events(reference, 1600, 1, start_s=1_800_000_000, changed=False)
        trained = run("train", "credit", "-c", config, "--from", reference)
        assert trained.returncode == 0, trained.stderr
        changed_s = time.time() - 400
        log = tmp_path / "log" / "predictions.jsonl"
        log.parent.mkdir()
        world.write_events(log, 2000, 2, start_s=changed_s, changed=True)
        with service(config) as served:
            wait_for(lambda: sidecar.puts == ["1"] and ask(f"{served.router}/readyz")[0] == 200, served.text)
            with Traffic(served.router, tmp_path / "log" / "labels.jsonl") as traffic:
                assert served.hook(start=rfc3339(changed_s))[0] == 202
                wait_for(
                    lambda: served.job()["state"] in ("promoted", "rejected", "failed", "rolled_back"), served.text
                )
            job = served.job()
            assert job["state"] == "promoted", (job, served.text())
            assert traffic.failed == []
            assert sidecar.puts[:2] == ["1", "2"]
            assert {"1", "2"} <= set(traffic.versions)
            models = served.get("/v1/models")["credit"]
            assert models["aliases"] == {"champion": 2, "previous": 1}
            newest = models["versions"][0]
            assert (newest["job"], newest["alarm"], newest["parent"]) == (job["id"], "a1", 1)


@pytest.mark.slow
def test_a_promotion_after_which_performance_does_not_recover_is_taken_back(tmp_path: Path) -> None:
    patient = {"watch": "600s", "min_requests": 20, "observe": "1s", "steps": [0.5], "min_labels": 200}
    config = world.make_folder(tmp_path, recipe={"rollout": patient})
    reference = tmp_path / "reference.jsonl"
    world.write_events(reference, 1600, 1, start_s=1_800_000_000, changed=False)
    assert run("train", "credit", "-c", config, "--from", reference).returncode == 0
    changed_s = time.time() - 400
    log = tmp_path / "log" / "predictions.jsonl"
    log.parent.mkdir()
    world.write_events(log, 2000, 2, start_s=changed_s, changed=True)
    with service(config) as served:
        wait_for(lambda: ask(f"{served.router}/readyz")[0] == 200, served.text)
        with Traffic(served.router, tmp_path / "log" / "labels.jsonl") as traffic:
            assert served.hook(start=rfc3339(changed_s))[0] == 202
            wait_for(lambda: served.phase() == "watching", lambda: (served.job(), served.text()))
            wait_for(lambda: served.get("/v1/models")["credit"]["aliases"]["champion"] == 2, served.text)
            traffic.changed = False  # what the challenger learnt holds no longer
            wait_for(lambda: served.job()["state"] != "rolling_out", lambda: (served.job(), served.text()))
            wait_for(lambda: traffic.versions[-20:] == ["1"] * 20, served.text)
        job = served.job()
        assert job["state"] == "rolled_back", job
        assert "performance did not recover" in job["reason"], job
        assert "at the gate it was" in job["reason"]
        assert served.get("/v1/models")["credit"]["aliases"]["champion"] == 1
        assert traffic.failed == []

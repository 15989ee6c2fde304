"""Jobs in their subprocess: what hangs, crashes, lacks labels or memory, or meets a changed artifact, says so."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("skops", reason="needs the extra modelops")
pytest.importorskip("duckdb", reason="needs the extra modelops")

from modelops import artifact
from modelops.registry import Registry
from tests.modelops import world
from tests.modelops.job_bench import START_S, Bench


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.close()


def bench(benches: list[Bench], folder: Path, recipe: dict[str, Any], **more: Any) -> Bench:
    benches.append(Bench(folder, recipe, **more))
    return benches[-1]


def test_training_that_hangs_is_ended_at_its_deadline(tmp_path: Path, benches: list[Bench]) -> None:
    made = bench(benches, tmp_path, {"training": {"deadline": "0.1s", "attempts": 1}}, n_events=0)
    job = made.step()
    assert (job.state, job.attempts) == ("failed", 1)
    assert "took longer than `training.deadline`, 0.1 s" in job.reason


@pytest.mark.slow
def test_missing_labels_wait_and_what_is_too_late_fails_with_what_there_was(
    tmp_path: Path, benches: list[Bench]
) -> None:
    made = bench(
        benches, tmp_path, {"data": {"patience": "0s", "features": world.RECIPE["data"]["features"]}}, n_events=0
    )
    assert "labels did not come in time: the prediction log holds no event yet" in made.step().reason


@pytest.mark.slow
def test_a_job_that_waits_for_labels_goes_on_when_they_come(tmp_path: Path, benches: list[Bench]) -> None:
    made = bench(benches, tmp_path, {}, n_events=300)
    job = made.step()
    assert job.state == "waiting_for_labels"
    assert "`data.min_rows` asks for 600" in job.reason
    world.write_events(tmp_path / "log" / "predictions.jsonl", 2000, 3, start_s=START_S + 30, changed=True)
    made.database.execute("UPDATE jobs SET due_s = 0")
    job = made.step()
    assert (job.state, job.new_version) == ("rolling_out", 2), job
    assert job.reason.startswith("promotable")


@pytest.mark.slow
def test_too_little_memory_fails_with_the_setting_to_change(tmp_path: Path, benches: list[Bench]) -> None:
    made = bench(benches, tmp_path, {"training": {"memory_mib": 256, "attempts": 1}}, n_events=1200)
    job = made.step()
    assert job.state == "failed"
    assert "memory" in job.reason.lower()


@pytest.mark.slow
def test_a_changed_champion_is_not_compared_with(tmp_path: Path, benches: list[Bench]) -> None:
    made = bench(benches, tmp_path, {}, n_events=1200)
    (made.config.state.folder / "artifacts" / "1" / "model.skops").write_bytes(b"PK another")
    job = made.step()
    assert job.state == "rejected"
    assert "must be what was registered; its hash differs" in job.reason


@pytest.mark.slow
def test_a_broken_contract_stops_the_job_with_the_rows(tmp_path: Path, benches: list[Bench]) -> None:
    made = bench(benches, tmp_path, {"contract": {"columns": {"age": {"between": [0, 50]}}}}, n_events=1200)
    job = made.step()
    assert job.state == "rejected"
    assert "validity: age lies between 0 and 50 fails in" in job.reason
    assert job.done == ("snapshot",)


@pytest.mark.slow
def test_prior_drift_ends_in_a_recalibrated_version(tmp_path: Path, benches: list[Bench]) -> None:
    made = bench(benches, tmp_path, {}, n_events=0, kind="prior", action="recalibrate")
    log = tmp_path / "log" / "predictions.jsonl"
    world.write_events(log, 4000, 2, start_s=START_S, changed=False)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    kept = [event for i, event in enumerate(events) if event["label"] == 1 or i % 5 == 0]
    log.write_text("".join(json.dumps(event) + "\n" for event in kept))
    job = made.step()
    assert (job.state, job.new_version) == ("rolling_out", 2), job
    assert "log likelihood on new rows" in job.reason
    registry = Registry(made.database, made.config.database)
    old, new = (registry.get("credit", number) for number in (1, 2))
    before, after = (artifact.load(Path(v.artifact), v.sha256) for v in (old, new))
    assert after.shift > 0.5
    rows = after.encoding.rows(world.features(200, 3))
    assert (np.argsort(before.predict(rows)) == np.argsort(after.predict(rows))).mean() > 0.9

"""OpenLineage's events of a job, read back: what was read, what was written, how it ended."""

import http.server
import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("openlineage.client", reason="needs the extra modelops")
pytest.importorskip("skops", reason="needs the extra modelops")

from modelops import recipe as recipes
from modelops.errors import TooFewLabels, TrainingError
from modelops.registry import Registry
from modelops.steps import Work
from tests.modelops import world
from tests.modelops.job_bench import START_S, Bench


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.close()


def work(bench: Bench, *, attempts: int = 0) -> Work:
    """The job's steps in this process."""
    job = msgspec.structs.replace(bench.queue.get("the-job"), attempts=attempts)
    recipe = recipes.load(bench.config.model("credit").recipe)
    made = Work(bench.config, job, recipe, Registry(bench.database, bench.config.database))
    made.folder.mkdir(parents=True, exist_ok=True)
    return made


def events(folder: Path) -> list[dict[str, Any]]:
    path = folder / "state" / "lineage.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def said(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["job"]["name"], event["eventType"]) for event in found]


def test_snapshot_and_training_say_what_they_read_and_wrote(tmp_path: Path, benches: list[Bench]) -> None:
    bench = Bench(tmp_path, {"contract": {"columns": {"age": {"max_missing": 0.5}}}}, n_events=1200)
    benches.append(bench)
    steps = work(bench)
    trained, snapshot = steps.train(), steps.snapshot()
    work(bench).train()  # what is done is not done, nor said, again
    found = events(tmp_path)
    assert said(found) == [
        ("credit.snapshot", "START"), ("credit.snapshot", "COMPLETE"),
        ("credit.training", "START"), ("credit.training", "COMPLETE"),
    ]  # fmt: skip
    for event in found:
        assert uuid.UUID(event["run"]["runId"])
        assert (event["job"]["namespace"], event["schemaURL"].rpartition("/")[2]) == ("modelops", "RunEvent")
        assert event["eventTime"].endswith("+00:00")
        described = [event["run"]["facets"], event["job"]["facets"]]
        for dataset in event["inputs"] + event["outputs"]:
            described += [dataset["facets"], dataset.get("inputFacets") or dataset.get("outputFacets")]
        assert all(facet["_schemaURL"] and facet["_producer"] for facets in described for facet in facets.values())
    first, made, _, learnt = found
    assert first["run"]["runId"] == made["run"]["runId"] != learnt["run"]["runId"]
    assert first["run"]["facets"]["parent"]["run"] == learnt["run"]["facets"]["parent"]["run"]
    assert "SELECT" in first["job"]["facets"]["sql"]["query"]
    log = tmp_path / "log" / "predictions.jsonl"
    assert [d["name"] for d in made["inputs"]] == [str(log), str(log.with_name("labels.jsonl"))]
    assert made["inputs"][0]["inputFacets"]["inputStatistics"]["size"] == log.stat().st_size
    (written,) = made["outputs"]
    assert (written["name"], written["facets"]["version"]["datasetVersion"]) == (snapshot.path, snapshot.id)
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == snapshot.n_rows
    assert {"name": "age", "type": "numeric"}.items() <= written["facets"]["schema"]["fields"][0].items()
    read, champion = learnt["inputs"]
    assert (read["name"], read["facets"]["version"]) == (written["name"], written["facets"]["version"])
    rules = {a["assertion"]: a["success"] for a in read["inputFacets"]["dataQualityAssertions"]["assertions"]}
    assert rules["completeness: at most 50.0% of age is missing"] is True
    assert champion["name"] == str(bench.config.state.folder / "artifacts" / "1")
    assert learnt["outputs"][0]["name"] == trained.artifact
    assert learnt["outputs"][0]["facets"]["version"]["datasetVersion"] == trained.sha256


def test_waiting_goes_on_as_one_run_and_a_failure_ends_one(tmp_path: Path, benches: list[Bench]) -> None:
    bench = Bench(
        tmp_path,
        {"model": {"kind": "lightgbm", "parameters": {}}, "training": {"retraining": "transfer"}},
        n_events=300,
    )
    benches.append(bench)
    for _ in range(2):
        with pytest.raises(TooFewLabels):
            work(bench).snapshot()
    assert said(events(tmp_path)) == [("credit.snapshot", "START")]
    world.write_events(tmp_path / "log" / "predictions.jsonl", 1200, 3, start_s=START_S + 30, changed=True)
    for attempt in range(2):
        with pytest.raises(TrainingError):
            work(bench, attempts=attempt).train()
    found = events(tmp_path)
    assert said(found)[1:] == [
        ("credit.snapshot", "COMPLETE"),
        *[("credit.training", t) for t in ("START", "FAIL")] * 2,
    ]
    assert found[0]["run"]["runId"] == found[1]["run"]["runId"]
    assert found[2]["run"]["runId"] == found[3]["run"]["runId"] != found[4]["run"]["runId"]
    assert "must go on from a champion of the kind lightgbm" in found[3]["run"]["facets"]["errorMessage"]["message"]


def test_what_cannot_be_delivered_stops_nothing(
    tmp_path: Path, benches: list[Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, {}, n_events=1200)
    benches.append(bench)
    (bench.config.state.folder / "lineage.jsonl").mkdir()
    assert work(bench).snapshot().n_rows > 600
    assert "the lineage event COMPLETE of snapshot is not delivered" in caplog.text


def test_the_environment_says_where_events_go(
    tmp_path: Path, benches: list[Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[dict[str, Any]] = []

    class Desk(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Desk) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", f"http://127.0.0.1:{server.server_address[1]}")
        bench = Bench(tmp_path, {}, n_events=1200)
        benches.append(bench)
        work(bench).snapshot()
        server.shutdown()
        thread.join()
    assert said(bodies) == [("credit.snapshot", "START"), ("credit.snapshot", "COMPLETE")]
    assert events(tmp_path) == []

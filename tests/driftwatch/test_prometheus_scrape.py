"""A real Prometheus scrapes the server and answers queries about what it read."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry

from driftwatch.decision import AlarmFeature, AlarmLine, Decision, ScoreLine, Transition, WindowLine
from driftwatch.metrics import Metrics
from driftwatch.server import Health, Server
from driftwatch.sinks.prometheus import PrometheusSink

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="the prometheus server (Debian: prometheus) is not installed"
)

WHO = {"model": "credit", "version": "3"}
Ask = Callable[..., Any]


def decision(*, undetermined: bool) -> Decision:
    window = WindowLine("credit", "3", None, "2024-01-01T00:00:00Z", "2024-01-01T00:05:00Z", 100)
    score = ScoreLine("age", "ks", 0.25, 1e-9, 0.25, 1000, 100, "drift", None)
    no_score = ScoreLine("age", "ks", None, None, None, 1000, 3, "undetermined", "too_few_records")
    feature = AlarmFeature("age", "ks", 0.25, 1e-9, 1.0, 0.25, None)
    transition: Transition = "continuing" if undetermined else "opened"
    what = ("0123456789abcdef", transition, "covariate", None, window.start, (feature,))
    alarm = AlarmLine(*what, "drift", (), "watch")
    return Decision(
        window=window,
        verdict="undetermined" if undetermined else "drift",
        scores=(no_score if undetermined else score,),
        quality=(),
        alarms=(alarm,),
        part=1,
        partial=False,
        share=None,
        revision=0,
        p_value=None,
        threshold=None,
        caution=(),
    )


@pytest.fixture
def metrics_and_port() -> Iterator[tuple[Metrics, int]]:
    registry = CollectorRegistry()
    metrics = Metrics(registry, **WHO)
    with closing(Server("127.0.0.1", 0, registry, Health())) as server:
        yield metrics, server.port


@pytest.fixture
def ask(metrics_and_port: tuple[Metrics, int], tmp_path: Path) -> Iterator[Ask]:
    """Asks Prometheus' HTTP API; what it scrapes four times a second is the server."""
    config = {
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"},
        "scrape_configs": [
            {"job_name": "driftwatch", "static_configs": [{"targets": [f"127.0.0.1:{metrics_and_port[1]}"]}]}
        ],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        "--log.level=error",
    ]

    def ask(path: str, **parameters: str) -> Any:
        with urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as response:
            return json.load(response)["data"]

    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield ask
        finally:
            process.terminate()


def eventually(question: Callable[[], object], wanted: Callable[[object], bool]) -> object:
    """The first answer that is wanted, else the last one after 30 s."""
    deadline_s = time.monotonic() + 30
    answer: object = None
    while time.monotonic() < deadline_s:
        try:
            answer = question()
        except URLError as error:  # Prometheus is still starting
            answer = error
        if not isinstance(answer, URLError) and wanted(answer):
            break
        time.sleep(0.1)
    return answer


def test_prometheus_reads_counts_gauges_and_exemplars_and_drops_what_a_window_no_longer_says(
    metrics_and_port: tuple[Metrics, int], ask: Ask
) -> None:
    metrics, _ = metrics_and_port
    sink = PrometheusSink(metrics)

    def series(query: str) -> dict[tuple[tuple[str, str], ...], float]:
        result = ask("query", query=query)["result"]
        of_prometheus = {"job", "instance"}
        return {
            tuple(sorted((k, v) for k, v in one["metric"].items() if k not in of_prometheus)): float(one["value"][1])
            for one in result
        }

    def labels(name: str, **others: str) -> tuple[tuple[str, str], ...]:
        return tuple(sorted({"__name__": name, **WHO, **others}.items()))

    metrics.judged_in(0.02, "2024-01-01T00:00:00Z/2024-01-01T00:05:00Z")
    sink.write(decision(undetermined=False), b"")
    metrics.records("used", 1000)  # last: a scrape that has it has the rest
    used = labels("driftwatch_records_total", outcome="used")
    records = eventually(lambda: series('driftwatch_records_total{model="credit",version="3"} > 0'), bool)
    assert records == {used: 1000}
    assert series("up") == {(("__name__", "up"),): 1}

    score = labels("driftwatch_score", feature="age", detector="ks")
    assert series("driftwatch_score") == {score: 0.25}
    active = labels("driftwatch_drift_active", kind="covariate", pattern="none")
    assert series("driftwatch_drift_active == 1") == {active: 1}
    exemplars = ask("query_exemplars", query="driftwatch_window_duration_seconds_bucket", start="0", end="1e11")
    assert [e["labels"] for one in exemplars for e in one["exemplars"]] == [
        {"window": "2024-01-01T00:00:00Z/2024-01-01T00:05:00Z"}
    ]

    sink.write(decision(undetermined=True), b"")
    assert eventually(lambda: series("driftwatch_score"), lambda found: not found) == {}
    assert series("driftwatch_drift_active == 1") == {active: 1}

"""The metric families, read back through both formats by the client library's own parsers and by promtool."""

import math
import re
import shutil
import subprocess
import sys
from itertools import product

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from series import Series, read, value

from driftwatch.metrics import ALARMS, MAX_VERSIONS, Metrics, WindowGauges

FEATURES = [f"feature_{i}" for i in range(200)]
DETECTORS = (
    *("ks", "wasserstein", "psi", "chi_square", "location", "scale", "largest_cell"),
    *("missing", "invalid", "unseen", "mmd", "correlation"),
)
SCORES = dict.fromkeys(product(FEATURES, DETECTORS), 0.25)
FULL = WindowGauges(
    score=SCORES,
    p_value=SCORES,
    effect=SCORES,
    quality=dict.fromkeys(product(FEATURES, ("missing", "invalid", "unseen")), 0.1),
    drift_active=dict.fromkeys(ALARMS, 1.0),
    feature_drift_active={(feature,): 1.0 for feature in FEATURES},
    caution={(feature,): 0.0 for feature in FEATURES},
)
SMALL = WindowGauges(score={("age", "ks"): 0.25}, drift_active=dict.fromkeys(ALARMS, 0.0))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, model="credit", version="3")


def names(registry: CollectorRegistry) -> set[str]:
    return {name for name, _ in read(registry) if not name.endswith("_created")}


def test_every_outcome_of_a_record_is_there_with_zero_from_the_start_and_their_sum_rises(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    line = re.compile(r"^driftwatch_records_total(?:\{[^}]*\})? (\S+)", re.MULTILINE)
    at_start = [float(x) for x in line.findall(generate_latest(registry).decode())]
    assert at_start == [0.0] * 7
    metrics.records("used", 990)
    metrics.records("late", 10)
    assert sum(float(x) for x in line.findall(generate_latest(registry).decode())) == 1000


def test_the_names_are_the_documented_ones(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.judged("3", "drift", [("covariate", "none")], FULL)
    metrics.profiles({"3": "a1b2"})
    counters = {
        *("driftwatch_records_total", "driftwatch_records_discarded_total", "driftwatch_records_lost_total"),
        *("driftwatch_dead_letters_dropped_total", "driftwatch_windows_total", "driftwatch_alarms_total"),
        "driftwatch_webhook_deliveries_total",
    }
    gauges = {
        *("driftwatch_score", "driftwatch_p_value", "driftwatch_effect", "driftwatch_quality", "driftwatch_caution"),
        *("driftwatch_drift_active", "driftwatch_feature_drift_active", "driftwatch_watermark_lag_seconds"),
        *("driftwatch_consumer_lag_records", "driftwatch_shards", "driftwatch_open_panes", "driftwatch_build_info"),
        *("driftwatch_learning_ratio", "driftwatch_profile_info"),
    }
    histogram = {f"driftwatch_window_duration_seconds_{part}" for part in ("bucket", "sum", "count")}
    assert names(registry) == counters | gauges | histogram
    metrics.add_http(lambda: 7, 8)
    http = {"driftwatch_http_requests_total", "driftwatch_spool_bytes", "driftwatch_spool_max_bytes"}
    assert names(registry) == counters | gauges | histogram | http


def test_an_http_source_shows_its_spool_and_its_answers(registry: CollectorRegistry, metrics: Metrics) -> None:
    n_bytes = 7
    metrics.add_http(lambda: n_bytes, 8)
    metrics.http_answers({200: 3, 503: 1})
    metrics.http_answers({200: 2})
    n_bytes = 6
    assert value(registry, "driftwatch_spool_bytes") == 6
    assert value(registry, "driftwatch_spool_max_bytes") == 8
    found = {
        status: value(registry, "driftwatch_http_requests_total", status=status) for status in ("200", "413", "503")
    }
    assert found == {"200": 5, "413": 0, "503": 1}


def test_every_series_carries_model_and_version(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.judged("3", "drift", [("covariate", "none")], FULL)
    for name, labels in read(registry):
        assert {"model": "credit", "version": "3"}.items() <= dict(labels).items(), name


def test_both_formats_say_the_same(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.judged("3", "drift", [("covariate", "none")], FULL)
    metrics.records("used", 123_456_789)
    metrics.watermark_lag_seconds.set(3.5)
    metrics.consumer_lag_records.set(0)
    metrics.learning(0.25)
    metrics.judged_in(0.004, "2024-01-01T00:00:00Z/2024-01-01T00:05:00Z")
    openmetrics: Series = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_openmetrics(generate_openmetrics(registry).decode())
        for sample in family.samples
    }
    assert openmetrics == read(registry)


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "größe", "x{y}=,z", "名前 # 1"])
def test_any_feature_or_model_name_survives_both_formats(registry: CollectorRegistry, name: str) -> None:
    gauges = WindowGauges(score={(name, "ks"): 0.25})
    Metrics(registry, model=name, version=name).judged(name, "ok", [], gauges)
    key = ("driftwatch_score", frozenset({"model": name, "version": name, "feature": name, "detector": "ks"}.items()))
    assert read(registry)[key] == 0.25
    families = parse_openmetrics(generate_openmetrics(registry).decode())
    assert [s.labels["feature"] for f in families if f.name == "driftwatch_score" for s in f.samples] == [name]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_promtool_finds_nothing_to_complain_about(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.judged("3", "drift", [("covariate", "none")], FULL)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(registry), capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "", "")


def test_the_number_of_series_is_bounded_whatever_comes(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.judged("3", "drift", [("covariate", "none")], FULL)
    n_full = len(read(registry))
    assert n_full < 3 * len(SCORES) + 5 * len(FEATURES) + 300
    for i in range(5):
        metrics.judged("3", "drift", [("covariate", "none")], FULL)
        metrics.discarded("decode", f"reason {i}")
        metrics.discarded(f"stage {i}", "time")
        metrics.lost(f"reason {i}", 1)
        metrics.shards({"active": i, f"state {i}": 1})
        metrics.judged_in(0.01, f"window {i}")
    assert len(read(registry)) == n_full


def test_versions_that_events_make_up_keep_series_only_while_they_are_among_the_last_judged(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    sizes = []
    for i in range(3 * MAX_VERSIONS):
        metrics.judged(f"v{i}", "ok", [], SMALL)
        metrics.judged("current", "ok", [], SMALL)
        sizes.append(len(read(registry)))
    assert max(sizes) == sizes[-1] == sizes[MAX_VERSIONS]
    shown = {dict(labels)["version"] for name, labels in read(registry) if name == "driftwatch_score"}
    newest = {f"v{i}" for i in range(2 * MAX_VERSIONS + 1, 3 * MAX_VERSIONS)}
    assert shown == newest | {"current"}
    assert value(registry, "driftwatch_windows_total", version="current", verdict="ok") == 3 * MAX_VERSIONS


def test_an_unlisted_reason_counts_as_other(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.discarded("decode", "time", 2)
    metrics.discarded("decode", "user 4711 said no", 3)
    metrics.discarded("window", "time", 4)  # no reason of that stage
    metrics.discarded("elsewhere", "time", 5)
    metrics.lost("retention", 6)
    metrics.lost("cosmic rays", 7)
    discarded = "driftwatch_records_discarded_total"
    assert value(registry, discarded, stage="decode", reason="time") == 2
    assert value(registry, discarded, stage="decode", reason="other") == 3
    assert value(registry, discarded, stage="window", reason="other") == 4
    assert value(registry, discarded, stage="other", reason="other") == 5
    assert value(registry, "driftwatch_records_lost_total", reason="retention") == 6
    assert value(registry, "driftwatch_records_lost_total", reason="other") == 7


def test_an_unknown_lag_is_no_number_rather_than_zero(registry: CollectorRegistry, metrics: Metrics) -> None:
    lags = ("driftwatch_watermark_lag_seconds", "driftwatch_consumer_lag_records")
    unknown = [value(registry, name) for name in lags]
    assert all(lag is not None and math.isnan(lag) for lag in unknown)
    metrics.watermark_lag_seconds.set(31.5)
    metrics.consumer_lag_records.set(7)
    assert [value(registry, name) for name in lags] == [31.5, 7]


def test_a_shard_state_that_is_not_named_has_no_shards(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.shards({"active": 3, "paused": 1})
    metrics.shards({"idle": 4})
    states = ("active", "idle", "stalled", "paused")
    assert [value(registry, "driftwatch_shards", state=state) for state in states] == [0, 4, 0, 0]


def test_deliveries_and_empty_windows_are_counted(registry: CollectorRegistry, metrics: Metrics) -> None:
    for outcome in ("retried", "retried", "delivered"):
        metrics.delivery(outcome)
    metrics.empty_windows(5)
    metrics.dead_letters_dropped_total.inc(2)
    outcomes = ("delivered", "retried", "set_aside")
    counted = [value(registry, "driftwatch_webhook_deliveries_total", outcome=outcome) for outcome in outcomes]
    assert counted == [1, 2, 0]
    assert value(registry, "driftwatch_windows_total", verdict="empty") == 5
    assert value(registry, "driftwatch_dead_letters_dropped_total") == 2


@pytest.mark.parametrize("window", ["2024-01-01T00:00:00Z/2024-01-01T00:05:00Z", "w" * 500])
def test_the_exemplar_names_the_window_within_the_128_characters_that_openmetrics_allows(
    registry: CollectorRegistry, metrics: Metrics, window: str
) -> None:
    metrics.judged_in(0.03, window)
    families = parse_openmetrics(generate_openmetrics(registry).decode())
    samples = [s for f in families if f.name == "driftwatch_window_duration_seconds" for s in f.samples]
    exemplars = [s.exemplar for s in samples if s.exemplar is not None]
    assert [(e.labels, e.value) for e in exemplars] == [({"window": window[:122]}, 0.03)]


def test_metrics_and_server_import_nothing_heavy() -> None:
    code = "import sys, driftwatch.metrics, driftwatch.server; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60)
    heavy = {"twisted", "aiohttp", "django", "numpy", "scipy", "pandas", "pydantic", "asyncio"}
    assert heavy.isdisjoint(done.stdout.split())

"""Fields of an event: figures in every window, judged where the reference has them, and the model's own metrics."""

import csv
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import LABEL, apart, labelled, merged
from sidecar import (
    FEATURES,
    TIME,
    WINDOW,
    build,
    decided,
    events,
    replayed,
    rounded,
    said,
    write_config,
    write_events,
    write_reference,
)
from test_http import Sender, Sidecar, sidecar, until

FIELDS = {"amount": "order.amount", "took_s": "took_s", "failed": "failed"}
EVENTS: dict[str, object] = {"features": FEATURES, "prediction": {"kind": "probability"}, "fields": FIELDS}
PERFORMANCE: dict[str, object] = {
    "business": {"revenue": {"field": "amount", "is": "sum"}, "basket": {"field": "amount", "is": "mean"}},
    "system": {"latency": {"field": "took_s", "is": "quantiles"}, "errors": {"field": "failed", "is": "rate"}},
}


def fields(n: int, seed: int) -> dict[str, np.ndarray]:
    """Money, seconds, and whether it failed."""
    rng = np.random.default_rng(seed)
    return {"amount": rng.gamma(2, 20, n), "took_s": rng.lognormal(-3, 0.5, n), "failed": 1.0 * (rng.random(n) < 0.02)}


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The profile of a reference without the fields, and of one that holds them."""
    found = []
    for is_wide in (False, True):
        folder = tmp_path_factory.mktemp("wide" if is_wide else "narrow")
        path = write_reference(folder / "reference.csv")
        if is_wide:
            with path.open(newline="") as file:
                head, *rows = csv.reader(file)
            more = fields(len(rows), 8)
            with path.open("w", newline="") as file:
                columns = zip(*more.values(), strict=True)
                csv.writer(file).writerows([[*head, *more], *([*r, *c] for r, c in zip(rows, columns, strict=True))])
        found.append(build(folder, events=EVENTS, window=TIME))
    return found[0], found[1]


def stream(n_windows: int, *, slow_from: int | None = None) -> list[dict[str, Any]]:
    """Events with fields; from some window on they take three times as long. Every seventh has no field."""
    found = events(WINDOW * n_windows)
    for i, (event, amount, took_s, failed) in enumerate(
        zip(found, *(column.tolist() for column in fields(len(found), 9).values()), strict=True)
    ):
        if i % 7:
            times = 3 if slow_from is not None and i >= slow_from * WINDOW else 1
            event |= {"order": {"amount": amount}, "took_s": took_s * times, "failed": failed}
    return found


def settings(folder: Path, profile: bytes, **changed: Any) -> Path:
    (folder / "reference.profile").write_bytes(profile)
    return write_config(folder, **({"window": TIME, "events": EVENTS, "performance": PERFORMANCE} | changed))


@pytest.mark.parametrize("is_wide", [False, True])
def test_figures_are_those_of_the_rows_and_judged_where_the_reference_has_them(
    tmp_path: Path, profiles: tuple[bytes, bytes], is_wide: bool
) -> None:
    some = stream(4, slow_from=2)
    found = replayed(settings(tmp_path, profiles[is_wide]), write_events(tmp_path / "events.jsonl", some))
    assert len(found) == 4
    for i, decision in enumerate(found):
        rows = [e for e in some[i * WINDOW : (i + 1) * WINDOW] if "order" in e]
        lines = {line["metric"]: line for line in decision["performance"] if line["source"] == "fields"}
        amounts, seconds = np.array([e["order"]["amount"] for e in rows]), np.array([e["took_s"] for e in rows])
        assert set(lines) == {"revenue", "basket", "latency_p50", "latency_p95", "latency_p99", "errors"}
        assert {line["n"] for line in lines.values()} == {len(rows)}
        assert lines["revenue"]["value"] == pytest.approx(amounts.sum())
        assert (lines["revenue"]["low"], lines["revenue"]["high"]) == (None, None)
        assert lines["basket"]["value"] == pytest.approx(amounts.mean())
        half = 1.96 * amounts.std(ddof=1) / np.sqrt(len(rows))
        assert lines["basket"]["high"] == pytest.approx(amounts.mean() + half, rel=1e-3)
        assert lines["errors"]["value"] == pytest.approx(np.mean([e["failed"] for e in rows]))
        for name, q in (("latency_p50", 0.5), ("latency_p95", 0.95), ("latency_p99", 0.99)):
            exact = np.quantile(seconds, q, method="inverted_cdf")
            assert lines[name]["value"] == pytest.approx(exact, rel=0.0225)
            assert lines[name]["low"] <= lines[name]["value"] <= lines[name]["high"]
        slow = ("drift" if i >= 2 else "ok") if is_wide else "undetermined"
        assert {lines[name]["verdict"] for name in lines if name.startswith("latency")} == {slow}
        assert lines["basket"]["verdict"] == ("ok" if is_wide else "undetermined")
        assert decision["verdict"] == ("drift" if slow == "drift" else "ok")
    named = {f["feature"] for d in found for alarm in d["alarms"] for f in alarm["features"]}
    assert ("took_s" in named) == is_wide


def test_labels_beside_predictions_and_numbers_of_predictions(tmp_path: Path, profiles: tuple[bytes, bytes]) -> None:
    measures = {"conversion": {"field": "label", "is": "rate"}, "said": {"field": "prediction", "is": "mean"}}
    config = settings(tmp_path, profiles[0], events=EVENTS | {"label": LABEL}, performance={"business": measures})
    some = labelled(events(2 * WINDOW))
    found = replayed(config, write_events(tmp_path / "events.jsonl", some))
    lines = [
        [(d["revision"], line) for d in found for line in d["performance"] if line["metric"] == n] for n in measures
    ]
    for i in range(2):
        rows = some[i * WINDOW : (i + 1) * WINDOW]
        for told, want, key in ((lines[0], 1, "label"), (lines[1], 0, "prediction")):
            revision, line = told[i]
            assert (revision, line["n"], line["source"]) == (want, WINDOW, "fields")
            assert line["value"] == pytest.approx(np.mean([e[key] for e in rows]))


def test_figures_survive_a_kill(tmp_path: Path, profiles: tuple[bytes, bytes]) -> None:
    some = stream(6)
    want = replayed(settings(tmp_path, profiles[1]), write_events(tmp_path / "events.jsonl", some))
    (tmp_path / "reference.profile").write_bytes(profiles[1])
    with sidecar(tmp_path, events=EVENTS, performance=PERFORMANCE) as running:
        sender = Sender(running.port)
        for start in range(0, len(some), 110):
            body = b"\n".join(json.dumps(e).encode() for e in some[start : start + 110])
            sender.send("/v1/predictions", body, {"content-type": "application/x-ndjson"})
            if start in (440, 990):
                until(lambda n=start // WINDOW - 1: len(decided(running.config)) >= n)
                running.end(signal.SIGKILL)
                running.live()
        sender.close()
        until(lambda: len(decided(running.config)) >= 5)
        found = decided(running.config)
    assert rounded(found) == rounded(want)[: len(found)]


def test_a_field_that_no_event_has_is_undefined(tmp_path: Path, profiles: tuple[bytes, bytes]) -> None:
    found = replayed(settings(tmp_path, profiles[0]), write_events(tmp_path / "events.jsonl", events(WINDOW)))
    lines = found[0]["performance"]
    assert len(lines) == 6
    assert {(line["value"], line["n"], line["verdict"]) for line in lines} == {(None, 0, "undetermined")}


def test_a_label_event_may_hold_fields(tmp_path: Path, profiles: tuple[bytes, bytes]) -> None:
    predictions, labels = apart(labelled(stream(3)))
    with_fields = [label | {"order": {"amount": 1e9}} for label in labels]
    performance = {"business": {"conversion": {"field": "label", "is": "rate"}}}
    config = settings(tmp_path, profiles[0], events=EVENTS | {"label": LABEL}, performance=performance)
    want = replayed(config, write_events(tmp_path / "events.jsonl", merged(predictions, labels)))
    second = [d for d in want if d["revision"] == 1]
    assert len(second) == 3
    for i, decision in enumerate(second):
        (line,) = (line for line in decision["performance"] if line["metric"] == "conversion")
        of_window = {e["id"] for e in predictions[i * WINDOW : (i + 1) * WINDOW]}
        truths = [label["label"] for label in labels if label["id"] in of_window]
        assert 0.95 * WINDOW <= line["n"] <= WINDOW
        # Of some windows the last labels come after it was judged; they may hold either class.
        n_positive = round(line["value"] * line["n"])
        assert sum(truths) - (WINDOW - line["n"]) <= n_positive <= sum(truths)
        assert line["low"] < line["value"] < line["high"]
    assert want == replayed(config, write_events(tmp_path / "events.jsonl", merged(predictions, with_fields)))


@pytest.mark.parametrize(
    ("where", "what", "told"),
    [
        (
            "performance",
            {"business": {"sales": {"field": "label", "is": "rate"}}},
            "failed, prediction, took_s; got 'l",
        ),
        ("events", EVENTS | {"label": LABEL, "fields": FIELDS | {"label": "l"}}, "and from prediction, label and loss"),
        (
            "performance",
            PERFORMANCE | {"business": {"latency": {"field": "amount", "is": "sum"}}},
            "differ from the names in `business`",
        ),
        ("events", EVENTS | {"fields": {"x": "a.b"}}, "must differ from every feature's name"),
        ("events", EVENTS | {"fields": FIELDS | {"other": "took_s"}}, "a path of its own"),
    ],
)
def test_what_a_configuration_is_told(
    tmp_path: Path, profiles: tuple[bytes, bytes], where: str, what: object, told: str
) -> None:
    found = said("check", "-c", settings(tmp_path, profiles[0], **{where: what}))
    assert found.code == 2
    assert told in found.err


def shown_accuracy(running: Sidecar, source: str) -> float | None:
    """The accuracy that is shown of a source."""
    series = f'driftwatch_performance{{metric="accuracy",model="credit",source="{source}",version="1"}} '
    lines = [line for line in running.get("/metrics")[1].splitlines() if line.startswith(series)]
    return float(lines[0].split()[-1]) if lines else None


@pytest.mark.parametrize("is_on", [True, False])
def test_the_models_own_metrics_and_provisional_figures(
    tmp_path: Path, profiles: tuple[bytes, bytes], is_on: bool
) -> None:
    (tmp_path / "reference.profile").write_bytes(profiles[0])
    some = labelled(stream(6))
    late = [e for i, e in enumerate(some) if i < 2 * WINDOW or i % 2]  # of later windows every second label is there
    labels = [{"id": e["id"], "time": e["time"] + 1, "label": e["label"]} for e in late]
    predictions = [{k: v for k, v in e.items() if k != "label"} for e in some]
    shown = {"events": EVENTS | {"label": LABEL}, "performance": PERFORMANCE | {"model_metrics": is_on}}
    with sidecar(tmp_path, **shown) as running:
        sender = Sender(running.port)
        for path, bodies in (("/v1/predictions", predictions), ("/v1/labels", labels)):
            body = b"\n".join(json.dumps(e).encode() for e in bodies)
            sender.send(path, body, {"content-type": "application/x-ndjson"})
        sender.close()
        # What is shown on the way, while labels are still read, is not looked at.
        newest = [e for i, e in enumerate(some[4 * WINDOW : 5 * WINDOW], 4 * WINDOW) if i % 2]
        second = some[WINDOW : 2 * WINDOW]
        came, ended = (np.mean([(e["prediction"] >= 0.5) == e["label"] for e in rows]) for rows in (newest, second))
        until(lambda: shown_accuracy(running, "provisional") == pytest.approx(came))
        until(lambda: shown_accuracy(running, "labels") == pytest.approx(ended, abs=0.02))
        text = running.get("/metrics")[1]
        assert 'driftwatch_performance{metric="revenue",model="credit",source="fields",version="1"}' in text
        assert running.counted("model_predictions_total") == (len(some) if is_on else 0)
        seconds = [e["took_s"] for e in some if "took_s" in e]
        assert running.counted("prediction_latency_seconds_count") == (len(seconds) if is_on else 0)
        assert running.counted("prediction_latency_seconds_sum") == pytest.approx(sum(seconds) if is_on else 0)
        assert ("# TYPE prediction_latency_seconds histogram" in text) == is_on
        assert ("# TYPE model_accuracy gauge" in text) == is_on
        assert running.counted("model_accuracy") == pytest.approx(ended if is_on else 0, abs=0.02)

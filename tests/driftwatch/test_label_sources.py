"""Labels from a file of their own, from a Kafka topic and over HTTP come to the judgements of one merged stream."""

import csv
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from labelled import EVENTS, LABEL, apart, labelled, merged
from sidecar import COUNT, TIME, WINDOW, decided, events, replayed, rounded, run, said, write_config, write_events
from test_http import Sender, sidecar, until

from driftwatch import late_labels
from driftwatch.sources.files import JsonLinesSource

WRONG = (0, 0, 0.5, 0.5, 0, 0)


@pytest.fixture
def parts(tmp_path: Path, labelled_profile: bytes) -> tuple[list[Any], list[Any]]:
    """Predictions and labels; the profile lies in the folder."""
    (tmp_path / "reference.profile").write_bytes(labelled_profile)
    return apart(labelled(events(WINDOW * len(WRONG)), wrong=WRONG))


def second(decisions: list[Any]) -> list[Any]:
    """The second judgements, in their order."""
    return rounded([d for d in decisions if d["revision"] == 1])


def settings(folder: Path, **changed: Any) -> Path:
    return write_config(folder, **({"window": TIME, "events": EVENTS} | changed))


def write_csv(path: Path, labels: list[Any]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "time", "defaulted"], *([e["id"], e["time"], e["label"]] for e in labels)])
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_file_of_labels_beside_one_of_predictions(tmp_path: Path, parts: Any, kind: str) -> None:
    predictions, labels = parts
    path = {"predictions": "predictions.jsonl", "labels": f"labels.{kind}"}
    config = settings(tmp_path, source={"kind": "file", "path": path})
    some = [
        write_events(tmp_path / "predictions.jsonl", predictions),
        write_events(tmp_path / "labels.jsonl", labels)
        if kind == "jsonl"
        else write_csv(tmp_path / "labels.csv", labels),
    ]
    want = replayed(config, write_events(tmp_path / "both.jsonl", merged(predictions, labels)))
    found = said("replay", *some, "-c", config, "--json").lines
    assert second(found) == second(want)
    assert [d["verdict"] for d in second(found)] == ["drift" if wrong else "ok" for wrong in WRONG]
    run(config)
    assert rounded(decided(config)) == rounded(found)


@pytest.mark.parametrize("apart_", [True, False], ids=["two files", "one file"])
@pytest.mark.parametrize("window", [TIME, COUNT], ids=["time", "count"])
def test_how_much_is_read_at_a_time_changes_no_decision(
    tmp_path: Path, parts: Any, window: Any, apart_: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are older than their predictions by up to three times the wait, or younger by up to once."""
    predictions, labels = parts
    dice, shown_s = Random(1), {event["id"]: event["time"] for event in predictions}
    moved = [label | {"time": shown_s[label["id"]] + round(dice.uniform(-1500, 500), 2)} for label in labels]
    changed = {"events": EVENTS | {"label": LABEL | {"wait": "500s"}}, "window": window}
    config = settings(tmp_path, **changed)
    some = [predictions, sorted(moved, key=lambda label: label["time"])] if apart_ else [merged(predictions, moved)]
    paths = [write_events(tmp_path / f"{i}.jsonl", events) for i, events in enumerate(some)]
    found = []
    for batch_size, joined_together in ((3, 1), (100, 70), (2000, 4096)):
        monkeypatch.setitem(JsonLinesSource.__init__.__kwdefaults__, "batch_size", batch_size)
        monkeypatch.setattr(late_labels, "JOINED_TOGETHER", joined_together)
        found.append(said("replay", *paths, "-c", config, "--json").lines)
    assert [second(one) for one in found] == [second(found[0])] * 3
    assert all(0.45 * WINDOW < d["performance"][0]["n"] < 0.65 * WINDOW for d in second(found[0]))


def test_a_file_of_labels_needs_events_label(tmp_path: Path, parts: Any) -> None:
    path = {"predictions": "predictions.jsonl", "labels": "labels.jsonl"}
    write_events(tmp_path / "predictions.jsonl", parts[0])
    write_events(tmp_path / "labels.jsonl", parts[1])
    without = {key: value for key, value in EVENTS.items() if key != "label"}
    config = settings(tmp_path, source={"kind": "file", "path": path}, events=without, reference=None)
    found = said("run", "-c", config)
    assert found.code == 2
    assert "`events.label`" in found.err


@pytest.mark.parametrize("decode", ["json", "cloudevents"])
def test_labels_over_http(tmp_path: Path, parts: Any, decode: str) -> None:
    """Their path says that bodies are plain events, whatever messages without headers are."""
    predictions, labels = parts
    stream = merged(predictions, labels)
    want = replayed(settings(tmp_path), write_events(tmp_path / "events.jsonl", stream))
    with sidecar(tmp_path, events=EVENTS | {"decode": decode}) as running:
        sender = Sender(running.port)
        for start in range(0, len(stream), 50):
            for is_label in (False, True):
                some = [e for e in stream[start : start + 50] if ("label" in e) == is_label]
                body = b"\n".join(json.dumps(e).encode() for e in some)
                path = "/v1/labels" if is_label else "/v1/predictions"
                sender.send(path, body, {"content-type": "application/x-ndjson"})
        until(lambda: len(second(decided(running.config))) >= len(WRONG) - 2)
        sender.close()
        found = second(decided(running.config))
    assert found == second(want)[: len(found)]

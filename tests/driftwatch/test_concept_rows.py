"""Concept drift row by row through the whole pipeline: late labels, labels beside, kills, and what a decision tells."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from crash_trials import Trial, driving, kill_at_every_save
from labelled import EVENTS, LABEL, apart, labelled, merged, set_up
from sidecar import (
    COUNT,
    T0,
    TIME,
    WINDOW,
    Event,
    Receiver,
    decided,
    events,
    receiving,
    replayed,
    rounded,
    run,
    said,
    transitions,
    write_events,
)

BEGAN = 3 * WINDOW + 170  # the row with which half of the labels are turned round
N = 9 * WINDOW


def stream() -> list[Event]:
    """A label beside each prediction; from a row on every second one is wrong."""
    some = labelled(events(N))
    for event in some[BEGAN::2]:
        event["label"] = 1 - event["label"]
    return some


def half_late(some: list[Event]) -> list[Event]:
    """Of some rows the label is an event of its own, minutes later."""
    late, labels = apart([event for i, event in enumerate(some) if i % 5 < 2])
    return merged([*(event for i, event in enumerate(some) if i % 5 >= 2), *late], labels)


def in_turn(some: list[Event]) -> list[Event]:
    """Labels as events of their own that come in the order of their predictions."""
    labels = [{"id": e["id"], "time": e["time"] + 400, "label": e["label"]} for e in some]
    return merged([{k: v for k, v in e.items() if k != "label"} for e in some], labels)


def opened(decisions: list[Any]) -> tuple[Any, Any]:
    """The first window with an alarm, and the alarm."""
    return next((d, a) for d in decisions for a in d["alarms"] if a["transition"] == "opened")


def rows_of(decision: Any) -> list[Any]:
    """The score of the losses row by row."""
    return [score for score in decision["scores"] if score["detector"] == "glr"]


@pytest.mark.parametrize("how", ["beside", "late", "half"])
def test_a_changed_rule_is_dated_to_its_row(tmp_path: Path, labelled_profile: bytes, how: str) -> None:
    some = {"beside": stream(), "late": merged(*apart(stream())), "half": half_late(stream())}[how]
    found = replayed(set_up(tmp_path, labelled_profile), write_events(tmp_path / "events.jsonl", some))
    decision, alarm = opened(found)
    assert (decision["revision"], alarm["class"], alarm["kind"]) == (1, "performance", "concept")
    assert alarm["suggestion"] == "retrain"
    began_s = datetime.fromisoformat(alarm["started_at"]).timestamp() - T0
    assert began_s == pytest.approx(BEGAN, abs=40)
    assert decision["window"]["start"] <= alarm["started_at"] or began_s < 4 * WINDOW
    (score,) = rows_of(decision)
    assert (score["feature"], score["verdict"]) == ("loss", "drift")
    assert score["detail"] in alarm["evidence"]
    assert score["detail"].endswith(f"at {alarm['started_at']}")
    assert {line["verdict"] for line in decision["performance"] if line["source"] == "labels"} == {"drift"}
    assert transitions(found)[0][1] == "opened"
    assert all(len(rows_of(d)) == (d["revision"] == 1) for d in found)


def test_beside_or_late_the_same_labels_come_to_the_same_rows(tmp_path: Path, labelled_profile: bytes) -> None:
    events_ = stream()
    settings = set_up(tmp_path, labelled_profile, events={**EVENTS, "label": {**LABEL, "complete": 1.0}})
    statistics = [
        [rows_of(d) for d in replayed(settings, write_events(tmp_path / "events.jsonl", some)) if d["revision"]]
        for some in (events_, in_turn(events_))
    ]
    assert statistics[0] == statistics[1]
    assert len(statistics[0]) == 9


@pytest.mark.parametrize("window", [TIME, COUNT])
def test_run_and_replay_agree_byte_for_byte_and_number_for_number(
    tmp_path: Path, labelled_profile: bytes, window: Any
) -> None:
    settings = set_up(tmp_path, labelled_profile, window=window)
    some = write_events(tmp_path / "events.jsonl", half_late(stream()))
    out = [said("replay", some, "-c", settings, "--json").out for _ in range(2)]
    assert out[0] == out[1]
    want = replayed(settings, some)
    assert opened(want)[1]["kind"] == "concept"
    run(settings)
    assert rounded(decided(settings)) == rounded(want)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, labelled_profile: bytes) -> Iterator[Trial]:
    """Half of the labels late, some twice."""
    folder = tmp_path_factory.mktemp("killed")
    some = half_late(stream())
    settings = set_up(folder, labelled_profile)
    write_events(folder / "events.jsonl", some)
    want = replayed(settings, folder / "events.jsonl")
    assert opened(want)[1]["kind"] == "concept"
    with receiving(Receiver([200])) as receiver, driving(folder / "driver.log") as driver:
        yield Trial(folder, TIME, receiver, driver, want, {"events": EVENTS})


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before a save", "after a save"])
def test_killed_at_any_write_the_losses_go_on_where_they_were(trial: Trial, point: str) -> None:
    kill_at_every_save(trial, point, least=N // WINDOW)  # a window's first judgement, with an earlier one's second

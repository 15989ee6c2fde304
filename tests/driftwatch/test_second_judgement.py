"""A window is judged once more when its labels are there: through files, the store and the webhooks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash_trials import Trial, driving, kill_at_every_save
from labelled import EVENTS, LABEL, apart, labelled, merged, set_up
from sidecar import (
    COUNT,
    TIME,
    WINDOW,
    Receiver,
    decided,
    events,
    receiving,
    replayed,
    rounded,
    run,
    transitions,
    write_config,
    write_events,
)

from driftwatch.labels import LabelBook
from driftwatch.time_window import TimeWindower

WRONG = (0, 0, 0, 0.5, 0.5, 0, 0, 0, 0)  # of each window the share of labels that are turned round


def second(decisions: list[Any]) -> list[Any]:
    """The second judgements."""
    return [d for d in decisions if d["revision"] == 1]


@pytest.fixture
def stream() -> list[dict[str, Any]]:
    """Nine windows whose labels are wrong in two of them."""
    return labelled(events(WINDOW * len(WRONG)), wrong=WRONG)


def test_labels_beside_predictions_are_judged_right_after_the_window(
    tmp_path: Path, labelled_profile: bytes, stream: Any
) -> None:
    found = replayed(set_up(tmp_path, labelled_profile), write_events(tmp_path / "events.jsonl", stream))
    assert [d["revision"] for d in found] == [0, 1] * len(WRONG)
    assert [d["window"] for d in found[::2]] == [d["window"] for d in found[1::2]]
    assert [d["verdict"] for d in found[1::2]] == ["drift" if wrong else "ok" for wrong in WRONG]
    assert {d["verdict"] for d in found[::2]} == {"ok"}
    assert {s["feature"] for d in found[1::2] for s in d["scores"]} == {"defaulted", "loss"}
    assert not {"defaulted", "loss"} & {s["feature"] for d in found[::2] for s in d["scores"]}
    assert [what for _, what in transitions(found)] == ["opened", "resolved"]
    for one, rows in zip(found[1::2], (stream[i : i + WINDOW] for i in range(0, len(stream), WINDOW)), strict=True):
        by_name = {line["metric"]: line for line in one["performance"]}
        right = sum((e["prediction"] >= 0.5) == e["label"] for e in rows) / WINDOW
        brier = sum((e["prediction"] - e["label"]) ** 2 for e in rows) / WINDOW
        assert by_name["accuracy"]["value"] == pytest.approx(right)
        assert by_name["brier"]["value"] == pytest.approx(brier)
        assert by_name["accuracy"]["n"] == WINDOW
        assert by_name["accuracy"]["source"] == "labels"
        assert by_name["accuracy"]["reference"] == pytest.approx(0.75, abs=0.03)
        assert by_name["accuracy"]["low"] < right < by_name["accuracy"]["high"]


def test_a_log_that_is_read_in_one_go_loses_no_label_of_count_windows(
    tmp_path: Path, labelled_profile: bytes, stream: Any
) -> None:
    log = write_events(tmp_path / "events.jsonl", merged(*apart(stream)))
    found = second(replayed(set_up(tmp_path, labelled_profile, window=COUNT), log))
    assert len(found) == len(WRONG)
    assert all(d["performance"][0]["n"] >= 0.95 * WINDOW for d in found)


def test_late_labels_come_to_the_same_verdicts_from_enough_of_them(
    tmp_path: Path, labelled_profile: bytes, stream: Any
) -> None:
    predictions, labels = apart(stream)
    settings = set_up(tmp_path, labelled_profile)
    found = replayed(settings, write_events(tmp_path / "events.jsonl", merged(predictions, labels)))
    late = second(found)
    assert [d["window"] for d in late] == [d["window"] for d in found if d["revision"] == 0]
    assert [d["verdict"] for d in late] == ["drift" if wrong else "ok" for wrong in WRONG]
    for one in late[:-1]:
        n = one["performance"][0]["n"]
        assert 0.95 * WINDOW <= n < WINDOW
    again = replayed(settings, tmp_path / "events.jsonl")
    assert again == found


@pytest.mark.parametrize("window", [TIME, COUNT])
def test_run_and_replay_agree_on_late_labels(tmp_path: Path, labelled_profile: bytes, stream: Any, window: Any) -> None:
    settings = set_up(tmp_path, labelled_profile, window=window)
    write_events(tmp_path / "events.jsonl", merged(*apart(stream)))
    want = replayed(settings, tmp_path / "events.jsonl")
    run(settings)
    assert rounded(decided(settings)) == rounded(want)
    assert len(second(want)) == len(WRONG)


def test_without_labels_nothing_is_said_to_be_well(tmp_path: Path, labelled_profile: bytes, stream: Any) -> None:
    predictions, labels = apart(stream)
    some = write_events(tmp_path / "events.jsonl", merged(predictions, labels[:60]))
    found = second(replayed(set_up(tmp_path, labelled_profile), some))
    assert {(d["verdict"], d["reason"]) for d in found} == {
        ("undetermined", "stale_labels"),
        ("undetermined", "too_few_labels"),
    }


def test_a_reference_without_labels_shows_figures_and_judges_none(folder: Path, stream: Any) -> None:
    settings = write_config(folder, window=TIME, events=EVENTS)
    found = replayed(settings, write_events(folder / "events.jsonl", stream))
    assert {(d["verdict"], d["reason"]) for d in second(found)} == {("undetermined", "no_reference_labels")}
    assert all(d["performance"] for d in second(found))
    assert transitions(found) == []


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, labelled_profile: bytes) -> Iterator[Trial]:
    """Late labels in the stream, some of them twice, some that differ, some for nobody."""
    folder = tmp_path_factory.mktemp("killed")
    predictions, labels = apart(labelled(events(WINDOW * len(WRONG)), wrong=WRONG))
    labels += [label | {"time": label["time"] + 40} for label in labels[::7]]
    labels += [label | {"time": label["time"] + 80, "label": 1 - label["label"]} for label in labels[::11]]
    labels += [label | {"id": f"nobody {i}"} for i, label in enumerate(labels[::13])]
    settings = set_up(folder, labelled_profile)
    write_events(folder / "events.jsonl", merged(predictions, labels))
    want = replayed(settings, folder / "events.jsonl")
    assert [what for _, what in transitions(want)] == ["opened", "resolved"]
    with receiving(Receiver([503, 200, 503])) as receiver, driving(folder / "driver.log") as driver:
        yield Trial(folder, TIME, receiver, driver, want, {"events": EVENTS})


def test_killed_after_any_write_no_label_is_lost_or_joined_twice(trial: Trial) -> None:
    kill_at_every_save(trial, "after a save")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before a save", "amid a save"])
def test_killed_around_any_write_no_label_is_lost_or_joined_twice(trial: Trial, point: str) -> None:
    kill_at_every_save(trial, point)


def test_killed_after_each_single_write_it_comes_to_the_same_judgements(trial: Trial) -> None:
    state, lives = trial.fresh(), 0
    while not state.is_decided():
        state.live("after a save", 1)
        lives += 1
        assert lives < 100
    assert state.live() == 0
    state.agrees()


@pytest.mark.parametrize(
    "changed", [{"window": TIME | {"length": "125s"}}, {"events": EVENTS | {"label": LABEL | {"wait": "2h"}}}]
)
def test_after_a_change_of_windows_or_wait_what_waits_is_judged_on_what_is_there(
    tmp_path: Path, labelled_profile: bytes, stream: Any, changed: dict[str, Any]
) -> None:
    predictions, labels = apart(stream)
    some = merged(predictions, labels)
    settings = set_up(tmp_path, labelled_profile)
    write_events(tmp_path / "events.jsonl", some[: len(some) // 2])
    with pytest.MonkeyPatch.context() as patch:  # as if it had been killed at the end
        patch.setattr(TimeWindower, "finish", lambda self: [])
        patch.setattr(LabelBook, "due", due_unfinished)
        run(settings)
    before = decided(settings)
    waited = [d["window"] for d in before if d["revision"] == 0][len(second(before)) :]
    assert waited
    write_events(tmp_path / "events.jsonl", some)
    run(set_up(tmp_path, labelled_profile, **changed))
    found = decided(settings)
    settled = [d for d in second(found) if d["partial"] and d["window"] in waited]
    assert [d["window"] for d in settled] == waited
    assert len({json.dumps(d["window"]) for d in second(found)}) == len(second(found))


def due_unfinished(book: LabelBook, watermark_s: float, *, finish: bool = False) -> Any:
    """`due` of a sidecar that does not get to its end."""
    return DUE(book, watermark_s)


DUE = LabelBook.due

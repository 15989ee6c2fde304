"""The sidecar as a whole: runs, restarts, changes of its configuration, and what it tells."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sidecar import (
    TIME,
    TWO_DRIFTS,
    WINDOW,
    Receiver,
    build,
    decided,
    drifting,
    events,
    receiving,
    replayed,
    rounded,
    run,
    said,
    transitions,
    webhook_ids,
    write_config,
    write_events,
    write_reference,
)

from driftwatch import profiles


def n_records(decisions: list[Any]) -> list[int]:
    return [d["window"]["n_records"] for d in decisions]


def reasons(decisions: list[Any]) -> list[str | None]:
    return [d["reason"] for d in decisions]


@pytest.mark.parametrize("window", [None, TIME], ids=["count windows", "time windows"])
def test_run_decides_what_replay_does_and_sends_its_webhooks(folder: Path, window: Any) -> None:
    write_events(folder / "events.jsonl", drifting(TWO_DRIFTS))
    changed = {} if window is None else {"window": window}
    with receiving(Receiver()) as receiver:
        settings = write_config(folder, sinks=[receiver.sink(), {"kind": "log"}], **changed)
        told = run(settings)
    found = decided(settings)
    assert rounded(found) == rounded(replayed(settings, folder / "events.jsonl"))
    assert told.lines == found  # the log sink
    assert set(receiver.taken["/"]) == webhook_ids(found)
    assert len(receiver.taken["/"]) == 4
    assert receiver.faults == []


def test_a_finished_file_is_judged_once_and_what_it_grew_by_makes_a_further_part(folder: Path) -> None:
    stream = events(4 * WINDOW)
    settings = write_config(folder, window=TIME)
    write_events(folder / "events.jsonl", stream[: 2 * WINDOW + 100])
    run(settings)
    first = decided(settings)
    assert [(n, d["part"], d["partial"]) for n, d in zip(n_records(first), first, strict=True)] == [
        (WINDOW, 1, False),
        (WINDOW, 1, False),
        (100, 1, True),
    ]
    run(settings)
    assert decided(settings) == first
    write_events(folder / "events.jsonl", stream[2 * WINDOW + 100 :], "ab")
    run(settings)
    grown = decided(settings)
    assert grown[:3] == first
    assert [(n, d["part"]) for n, d in zip(n_records(grown[3:]), grown[3:], strict=True)] == [
        (WINDOW - 100, 2),
        (WINDOW, 1),
    ]


def test_nothing_is_sent_where_notify_is_false(folder: Path) -> None:
    write_events(folder / "events.jsonl", drifting((0, 2)))
    with receiving(Receiver()) as receiver:
        settings = write_config(
            folder, sinks=[receiver.sink()], alarms={"budget": "1 per 100 windows", "notify": False}
        )
        run(settings)
    assert transitions(decided(settings)) == [(1, "opened")]
    assert receiver.posts == {}


def test_only_the_transitions_named_are_sent(folder: Path) -> None:
    write_events(folder / "events.jsonl", drifting((2, 0, 0, 0)))
    with receiving(Receiver()) as receiver:
        settings = write_config(folder, sinks=[receiver.sink(on=["*.resolved"])])
        run(settings)
    assert transitions(decided(settings)) == [(0, "opened"), (3, "resolved")]
    assert [name.rpartition(":")[2] for name in receiver.taken["/"]] == ["resolved"]


# Followed files and signals -------------------------------------------------------------------------------------------


def wait_until(question: Callable[[], bool], what: str) -> None:
    """Asks until the answer is yes; a minute is for a machine that has much else to do."""
    until_s = time.monotonic() + 60
    while not question():
        assert time.monotonic() < until_s, f"waited in vain: {what}"
        time.sleep(0.05)


def stored(settings: Path) -> list[Any]:
    """The decisions so far; none while the file is being made."""
    return said("decisions", "-c", settings, "--json").lines


def test_sigterm_ends_a_followed_file_with_exit_code_0_and_a_restart_goes_on(folder: Path) -> None:
    stream = drifting(TWO_DRIFTS)
    file = write_events(folder / "events.jsonl", stream[: 4 * WINDOW + 70])
    settings = write_config(folder, source={"kind": "file", "path": "events.jsonl", "follow": True})
    command = [sys.executable, "-m", "driftwatch", "run", "-c", str(settings)]

    def live(n_windows: int, more: list[Any]) -> None:
        child = subprocess.Popen(command, stderr=subprocess.PIPE)
        write_events(file, more, "ab")
        wait_until(lambda: len(stored(settings)) >= n_windows, "the decisions")
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors.decode()

    live(4, [])
    assert n_records(decided(settings)) == [WINDOW] * 4  # the open window waits
    live(len(TWO_DRIFTS), stream[4 * WINDOW + 70 :])
    assert rounded(decided(settings)) == rounded(replayed(settings, file))


def test_a_second_sidecar_beside_a_running_one_is_refused_and_reading_commands_are_not(folder: Path) -> None:
    write_events(folder / "events.jsonl", events(2 * WINDOW))
    settings = write_config(folder, source={"kind": "file", "path": "events.jsonl", "follow": True})
    child = subprocess.Popen([sys.executable, "-m", "driftwatch", "run", "-c", str(settings)], stderr=subprocess.PIPE)
    try:
        wait_until(lambda: len(stored(settings)) == 2, "the decisions")
        told = said("run", "-c", settings)
        assert told.code == 3
        assert f"held by process {child.pid} on {os.uname().nodename}" in told.err
        assert said("dlq", "list", "-c", settings).code == 0
    finally:
        child.terminate()
        child.communicate(timeout=60)
    assert child.returncode == 0


# Changes between two starts -------------------------------------------------------------------------------------------


def test_a_row_of_an_open_window_survives_a_change_of_features(tmp_path: Path) -> None:
    """The open window is judged as it is, on the profile it was counted on, marked partial; the next on the new one."""
    write_reference(tmp_path / "reference.csv")
    (tmp_path / "reference.profile").write_bytes(build(tmp_path))
    stream = events(4 * WINDOW)
    stop_after(tmp_path, stream, WINDOW + 100)
    fewer = {"events": {"features": {"x": "numeric", "c": "categorical"}, "prediction": {"kind": "numeric"}}}
    (tmp_path / "reference.profile").write_bytes(build(tmp_path, **fewer))
    run(write_config(tmp_path, **fewer))
    found = decided(write_config(tmp_path, **fewer))
    assert sum(n_records(found)) == len(stream)
    assert reasons(found[:3]) == [None, None, None]
    assert (found[1]["partial"], n_records(found)[1]) == (True, 100)
    assert {s["feature"] for s in found[1]["scores"]} >= {"y"}
    assert {s["feature"] for s in found[2]["scores"]} & {"y"} == set()


ROWS: dict[str, object] = {"count": WINDOW, "min_records": 80}
CHANGES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "longer": (TIME, {**TIME, "length": "500s"}),
    "shorter": (TIME, {**TIME, "length": "125s"}),
    "from time to rows": (TIME, ROWS),
    "from rows to time": (ROWS, TIME),
    "fewer rows than are open": (ROWS, {"count": 90, "min_records": 80}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_windows_judges_what_was_open_as_it_is_and_loses_no_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(profiles, "fits", lambda *_: True)  # thresholds for other windows are not the matter here
    old, new = CHANGES[change]
    stream = events(6 * WINDOW)
    stop_after(folder, stream, 2 * WINDOW + 100, window=old)
    before = decided(write_config(folder, window=old))
    run(write_config(folder, window=new))
    found = decided(write_config(folder, window=new))
    assert found[: len(before)] == before
    open_then = found[len(before)]
    assert (open_then["window"]["n_records"], open_then["partial"]) == (100, True)
    assert open_then["reason"] is None
    assert sum(n_records(found)) == len(stream)


def test_windows_that_only_grow_by_panes_or_rows_go_on_with_what_is_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "fits", lambda *_: True)
    stream = events(6 * WINDOW)
    stop_after(folder, stream, 2 * WINDOW + 100)
    settings = write_config(folder, window={"count": 400, "min_records": 80})
    run(settings)
    assert n_records(decided(settings)) == [WINDOW, WINDOW, 400, 400, 200]


def stop_after(folder: Path, stream: list[Any], n: int, **changed: Any) -> None:
    """Reads so many rows of a followed file and stops as SIGTERM does, in this process; then the file is whole."""
    from driftwatch.pipeline import Pipeline

    settings = write_config(folder, source={"kind": "file", "path": "events.jsonl", "follow": True}, **changed)
    write_events(folder / "events.jsonl", stream[:n])
    with pytest.MonkeyPatch.context() as patch:
        take = Pipeline._take

        def take_and_stop(pipeline: Pipeline, event: Any) -> bool:
            taken = take(pipeline, event)
            if type(event).__name__ == "AtEnd":
                os.kill(os.getpid(), signal.SIGTERM)
            return taken

        patch.setattr(Pipeline, "_take", take_and_stop)
        run(settings)
    write_events(folder / "events.jsonl", stream[n:], "ab")


def test_a_changed_profile_counts_from_the_next_window_on(folder: Path) -> None:
    stream = events(4 * WINDOW)
    stop_after(folder, stream, WINDOW + 100)
    (folder / "b").mkdir()
    write_reference(folder / "b" / "reference.csv", seed=9)
    (folder / "reference.profile").write_bytes(build(folder / "b"))
    settings = write_config(folder)
    run(settings)
    found = decided(settings)
    assert n_records(found) == [WINDOW, 100, WINDOW, WINDOW, 2 * WINDOW - WINDOW - 100]
    assert [d["partial"] for d in found] == [False, True, False, False, True]


# Versions -------------------------------------------------------------------------------------------------------------


def test_each_version_has_its_profile_from_a_folder_and_an_unknown_one_is_undetermined(tmp_path: Path) -> None:
    made = tmp_path / "profiles"
    made.mkdir()
    for version, seed in (("1", 1), ("2", 2)):
        write_reference(tmp_path / "reference.csv", seed=seed)
        model = {"name": "credit", "version": version}
        (made / f"{version}.profile").write_bytes(build(tmp_path, model=model))
    stream = [{**event, "version": str(1 + i % 3)} for i, event in enumerate(events(3 * WINDOW))]
    settings = write_config(tmp_path, reference={"profile": "profiles"})
    found = replayed(settings, write_events(tmp_path / "events.jsonl", stream))
    assert [(d["window"]["version"], d["verdict"], d["reason"]) for d in found] == [
        ("1", "ok", None),
        ("2", "ok", None),
        ("3", "undetermined", "no_profile"),
    ]
    run(settings)
    assert rounded(decided(settings)) == rounded(found)


def test_without_a_reference_rows_are_counted_and_nothing_is_decided(tmp_path: Path) -> None:
    settings = write_config(tmp_path, reference=None)
    found = replayed(settings, write_events(tmp_path / "events.jsonl", events(2 * WINDOW)))
    assert [(d["verdict"], d["reason"]) for d in found] == [("undetermined", "no_profile")] * 2
    run(settings)
    assert decided(settings) == found


def test_events_of_another_model_are_none_of_ours(folder: Path) -> None:
    ours = events(2 * WINDOW)
    others = [{**event, "id": f"o{i}", "model": "fraud"} for i, event in enumerate(drifting((3, 3)))]
    settings = write_config(folder)
    want = replayed(settings, write_events(folder / "events.jsonl", ours))
    mixed = [event for pair in zip(ours, others, strict=True) for event in pair]
    assert replayed(settings, write_events(folder / "events.jsonl", mixed)) == want


def test_the_lock_names_this_process_while_it_runs(folder: Path) -> None:
    write_events(folder / "events.jsonl", events(10))
    run(write_config(folder))
    holder = json.loads((folder / "state" / "state.db.lock").read_text())
    assert holder["pid"] == os.getpid()

"""The command line: exit codes, what it prints and where, and the words of its errors."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sidecar import (
    T0,
    TIME,
    WINDOW,
    decided,
    drifting,
    events,
    replayed,
    run,
    said,
    transitions,
    write_config,
    write_events,
    write_reference,
)

ROOT = Path(__file__).parents[2]


def test_jsonl_csv_and_parquet_of_the_same_rows_give_the_same_decisions(folder: Path) -> None:
    stream = drifting((0, 2, 0))
    settings = write_config(folder)
    flat = [{"id": e["id"], "time": e["time"], **e["features"], "prediction": e["prediction"]} for e in stream]
    table = pd.DataFrame(flat)
    table.to_csv(folder / "events.csv", index=False)
    table.to_parquet(folder / "events.parquet", index=False)
    want = replayed(settings, write_events(folder / "events.jsonl", stream))
    assert transitions(want) == [(1, "opened")]
    assert replayed(settings, folder / "events.csv") == want
    assert replayed(settings, folder / "events.parquet") == want


def test_two_replays_are_equal_byte_for_byte(folder: Path) -> None:
    settings = write_config(folder, window=TIME)
    write_events(folder / "events.jsonl", drifting((0, 2, 0)))
    command = [
        sys.executable,
        "-m",
        "driftwatch",
        "replay",
        str(folder / "events.jsonl"),
        "-c",
        str(settings),
        "--json",
    ]
    first = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(first.splitlines()) == 3
    assert subprocess.run(command, capture_output=True, check=True).stdout == first
    with (folder / "events.jsonl").open("rb") as file:
        piped = [word if word != str(folder / "events.jsonl") else "-" for word in command]
        assert subprocess.run(piped, stdin=file, capture_output=True, check=True).stdout == first


def test_replay_touches_no_state_and_writes_no_dead_letter(folder: Path) -> None:
    settings = write_config(folder)
    write_events(folder / "events.jsonl", [b"{", *events(WINDOW)])
    before = sorted(folder.iterdir())
    told = said("replay", folder / "events.jsonl", "-c", settings)
    assert sorted(folder.iterdir()) == before
    assert told.err.splitlines()[-1] == "driftwatch: 250 used, 1 poison; 1 windows judged, 0 alarms opened"


@pytest.mark.parametrize(("shift", "code"), [(0.0, 0), (2.0, 1)])
def test_fail_on_drift_makes_an_alarm_the_exit_code(folder: Path, shift: float, code: int) -> None:
    settings = write_config(folder)
    write_events(folder / "events.jsonl", drifting((0, shift)))
    assert said("replay", folder / "events.jsonl", "-c", settings, "--fail-on-drift").code == code
    assert said("replay", folder / "events.jsonl", "-c", settings).code == 0


def test_the_table_says_what_drifted_and_when_an_alarm_opened_and_was_resolved(folder: Path) -> None:
    settings = write_config(folder, window=TIME)
    write_events(folder / "events.jsonl", drifting((0, 2, 0, 0, 0)))
    printed = said("replay", folder / "events.jsonl", "-c", settings).out.splitlines()
    (alarm,) = replayed(settings, folder / "events.jsonl")[1]["alarms"]
    assert printed[0].split() == ["window", "end", "records", "verdict", "p", "what"]
    assert printed[1].split()[:4] == ["2023-11-14", "22:17:30", "250", "ok"]
    assert printed[2].split()[3] == "drift"
    assert printed[2].split()[5].startswith("x")
    assert printed[3].strip().startswith(f"alarm {alarm['id']} opened: x (")
    assert printed[4].strip() == f"covariate: {alarm['evidence'][0]}"
    assert printed[-1].strip().startswith(f"alarm {alarm['id']} resolved: x (")
    run(settings)
    assert said("decisions", "-c", settings).out.splitlines() == printed


def test_decisions_since_a_time_are_those_of_windows_that_end_after_it(folder: Path) -> None:
    settings = write_config(folder, window=TIME)
    write_events(folder / "events.jsonl", events(4 * WINDOW))
    run(settings)
    everything = decided(settings)
    for since in (str(T0 + 2 * WINDOW), "2023-11-14T22:21:40Z", "2023-11-14T22:21:40"):
        assert said("decisions", "-c", settings, "--json", "--since", since).lines == everything[2:]
    told = said("decisions", "-c", settings, "--since", "last week")
    assert (told.code, told.err) == (
        2,
        "driftwatch: `--since` must be a time such as 2026-11-25T08:00:00Z; got 'last week'.\n",
    )


def test_without_a_state_decisions_prints_nothing_and_says_so(folder: Path) -> None:
    told = said("decisions", "-c", write_config(folder))
    assert (told.code, told.out) == (0, "")
    assert told.err == f"driftwatch: no state yet at {folder}/state/state.db; `driftwatch run` makes it\n"
    assert not (folder / "state").exists()
    assert said("dlq", "list", "-c", write_config(folder)).err == "driftwatch: nothing was set aside\n"


def test_a_webhook_that_was_not_set_aside_cannot_be_put_back(folder: Path) -> None:
    told = said("dlq", "replay", "-c", write_config(folder), "--webhook", "abc:opened")
    assert (told.code, told.err) == (
        2,
        "driftwatch: `--webhook` must be the id of a webhook that was set aside; got 'abc:opened'. "
        "See `driftwatch dlq list`.\n",
    )


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no source": ({"source": None}, "`source` must say where events come from; got none. Add it to the configuration."),
    "a folder without profiles": (
        {"reference": {"profile": "."}, "model": {"name": "credit", "version": "1"}},
        "`reference.profile` must hold *.profile files; got none in {folder}.",
    ),
    "a reference that is not there": (
        {"reference": {"path": "nowhere.csv"}},
        "`reference.path` must name a file that can be read; got {folder}/nowhere.csv: "
        "[Errno 2] No such file or directory: '{folder}/nowhere.csv'.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_run_ends_with_2_and_says_what_to_do(tmp_path: Path, case: str) -> None:
    changed, words = WRONG[case]
    if case == "no source":
        changed = {**changed, "reference": None}
    write_events(tmp_path / "events.jsonl", events(1))
    told = said("run", "-c", write_config(tmp_path, **changed))
    assert told.code == 2
    assert told.err.splitlines()[-1] == f"driftwatch: {words.format(folder=tmp_path)}"


def test_a_stream_that_is_not_there_ends_with_3_or_2_and_its_name(folder: Path) -> None:
    told = said("replay", folder / "nowhere.jsonl", "-c", write_config(folder))
    assert told.code in {2, 3}
    assert str(folder / "nowhere.jsonl") in told.err


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run"], ["replay", "-c", "config.yaml"], ["dlq"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    told = said(*arguments)
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("usage: driftwatch")


def test_help_fits_one_screen() -> None:
    told = said("--help")
    assert told.code == 0
    assert len(told.out.splitlines()) <= 40
    assert max(map(len, told.out.splitlines())) <= 120


def test_the_schema_is_json_and_knows_the_sections() -> None:
    document = json.loads(said("schema").out)
    assert {"model", "source", "events", "window", "alarms", "state"} <= document["properties"].keys()


def test_a_reader_that_has_seen_enough_is_no_failure(folder: Path) -> None:
    settings = write_config(folder)
    write_events(folder / "events.jsonl", events(20 * WINDOW))
    command = [
        sys.executable,
        "-m",
        "driftwatch",
        "replay",
        str(folder / "events.jsonl"),
        "-c",
        str(settings),
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        errors = child.stderr.read()
        assert child.wait() == 0
    assert b"Traceback" not in errors


def test_init_writes_a_config_that_replays_the_sample_it_was_made_from(tmp_path: Path) -> None:
    sample, made = ROOT / "sample_streams" / "no_drift.jsonl", tmp_path / "config.yaml"
    assert said("init", sample, "-o", made).code == 0
    told = said("replay", sample, "-c", made)
    assert told.code == 0
    assert "4,000 used" in told.err
    again = said("init", sample, "-o", made)
    assert (again.code, again.err) == (
        2,
        f"driftwatch: {made}: the file exists. Choose another name, or remove it.\n",
    )


def test_profile_writes_a_file_that_replay_takes_and_warns_of_what_is_weak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detectors import calibration

    monkeypatch.setattr(calibration, "DRAWS_FIT", 500)
    monkeypatch.setattr(calibration, "DRAWS_THRESHOLD", 1000)
    write_reference(tmp_path / "reference.csv", n=400)
    settings = write_config(tmp_path)
    told = said("profile", tmp_path / "reference.csv", "-c", settings, "-o", tmp_path / "reference.profile")
    assert told.code == 0
    assert "windows of 250 rows are large beside a reference of 400" in told.err
    assert len(replayed(settings, write_events(tmp_path / "events.jsonl", events(WINDOW)))) == 1
    told = said("profile", tmp_path / "reference.csv", "-c", settings, "-o", tmp_path / "no" / "where.profile")
    assert told.code == 2
    assert "cannot be written" in told.err

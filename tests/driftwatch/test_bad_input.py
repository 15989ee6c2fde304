"""Whatever comes in, the stream goes on: what can be counted is counted, the rest is set aside with its bytes."""

import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sidecar import (
    T0,
    TIME,
    TWO_DRIFTS,
    WINDOW,
    Event,
    build,
    columns,
    decided,
    drifting,
    events,
    fill,
    replayed,
    rounded,
    run,
    said,
    transitions,
    write_config,
    write_events,
    write_reference,
)

from driftwatch import app, dead_letters, lock
from driftwatch.store import Remembered, Store
from driftwatch.store_schema import SCHEMA_VERSION

POISON: dict[str, tuple[bytes, str]] = {
    "truncated JSON": (b'{"id": "p", "time": 1700000', "structure"),
    "no object": (b"[1, 2]", "structure"),
    "no JSON at all": (b"\x00\x01 what is this", "structure"),
    "no UTF-8": (b'{"id": "\xff\xfe", "time": 1700000000}', "encoding"),
    "no id": (b'{"time": 1700000000, "features": {"x": 1.0}}', "id"),
    "an id of a wrong type": (b'{"id": {"a": 1}, "time": 1700000000, "features": {"x": 1.0}}', "id"),
    "no time": (b'{"id": "p", "features": {"x": 1.0}}', "time"),
    "a time in another unit": (b'{"id": "p", "time": 1700000000000, "features": {"x": 1.0}}', "time"),
    "a time that is none": (b'{"id": "p", "time": "yesterday", "features": {"x": 1.0}}', "time"),
    "a time that is NaN": (b'{"id": "p", "time": NaN, "features": {"x": 1.0}}', "time"),
    "deep nesting": (b'{"id": "p", "time": 1700000000, "features": ' + b"[" * 100_000, "depth"),
    "an open string of 10 MB": (b'{"id": "' + b"z" * 10_000_000, "structure"),
}


def quality(decision: Any, feature: str, check: str) -> float:
    """The share of a feature's broken values in a window."""
    (found,) = [q["value"] for q in decision["quality"] if (q["feature"], q["check"]) == (feature, check)]
    return float(found)


def test_poison_is_set_aside_with_its_bytes_and_the_stream_goes_on(folder: Path) -> None:
    clean = drifting(TWO_DRIFTS)
    dirty: list[Event | bytes] = list(clean)
    for i, (payload, _) in enumerate(POISON.values()):
        dirty.insert(100 + 200 * i, payload)
    write_events(folder / "clean.jsonl", clean)
    write_events(folder / "events.jsonl", dirty)
    settings = write_config(folder)
    want = replayed(settings, folder / "clean.jsonl")

    run(settings)
    assert rounded(decided(settings)) == rounded(want)
    letters = list(dead_letters.entries(folder / "state" / "dead"))
    assert [(letter.payload, letter.reason) for letter in letters] == list(POISON.values())

    listed = said("dlq", "list", "-c", settings, "--json")
    assert [line["message"]["reason"] for line in listed.lines] == [reason for _, reason in POISON.values()]
    assert len(said("dlq", "list", "-c", settings).out.splitlines()) == len(POISON)
    command = [sys.executable, "-m", "driftwatch", "dlq", "replay", "-c", str(settings)]
    printed = subprocess.run(command, capture_output=True, check=True).stdout
    assert printed == b"".join(payload + b"\n" for payload, _ in POISON.values())

    told = said("replay", folder / "events.jsonl", "-c", settings, "--json")
    assert told.lines == want
    assert f"{len(POISON)} poison" in told.err


def test_a_time_in_another_unit_is_told_from_its_size(folder: Path) -> None:
    write_events(folder / "events.jsonl", [POISON["a time in another unit"][0]])
    run(write_config(folder))
    (letter,) = dead_letters.entries(folder / "state" / "dead")
    assert "set `events.time_unit: ms`" in letter.detail


SPOILT: dict[str, tuple[str, Any, str]] = {  # feature, what stands in a third of the rows, the check that finds it
    "null": ("x", None, "missing"),
    "NaN": ("x", math.nan, "missing"),
    "a number as a string": ("x", "12.5", "invalid"),
    "true": ("x", True, "invalid"),
    "a list": ("y", [1.0], "invalid"),
    "an object": ("c", {"name": "red"}, "invalid"),
    "an unknown category": ("c", "violet", "unseen"),
    "half a surrogate pair": ("c", "\ud83d", "unseen"),
    "a category of 10 kB": ("c", "z" * 10_000, "unseen"),
    "a number for a category": ("c", 7, "unseen"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_third_of_broken_values_is_counted_for_what_it_is_and_opens_an_alarm(folder: Path, what: str) -> None:
    feature, value, check = SPOILT[what]
    stream = events(3 * WINDOW)
    for event in stream[2 * WINDOW :: 3]:
        event["features"][feature] = value
    found = replayed(write_config(folder), write_events(folder / "events.jsonl", stream))
    assert [d["window"]["n_records"] for d in found] == [WINDOW] * 3  # none of them is lost to the others
    assert transitions(found) == [(2, "opened")]
    assert quality(found[2], feature, check) == pytest.approx(1 / 3, abs=0.005)
    assert found[2]["alarms"][0]["features"][0]["feature"] == feature


def test_a_missing_field_is_missing_and_an_unknown_one_is_ignored(folder: Path) -> None:
    stream = events(2 * WINDOW)
    plain = replayed(write_config(folder), write_events(folder / "events.jsonl", stream))
    for event in stream:
        event["features"]["colour"], event["trace"] = "red", {"deep": [1, {"deeper": None}]}
    extra = replayed(write_config(folder), write_events(folder / "events.jsonl", stream))
    assert extra == plain
    for event in stream[WINDOW:]:
        del event["features"]["y"]
    lacking = replayed(write_config(folder), write_events(folder / "events.jsonl", stream))
    assert quality(lacking[1], "y", "missing") == 1.0
    assert transitions(lacking) == [(1, "opened")]


OUTLIERS = {
    "1e9": "1e9",
    "-1e9": "-1e9",
    "1e308": "1e308",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "1e999": "1e999",
    "an integer of 400 digits": "1" + "0" * 400,
    "an integer of 5000 digits": "-1" + "0" * 5000,
}


@pytest.mark.parametrize("text", OUTLIERS.values(), ids=OUTLIERS)
def test_a_few_outliers_of_any_size_are_no_drift(folder: Path, text: str) -> None:
    stream = events(2 * WINDOW)
    for event in stream[7::WINDOW]:
        event["features"]["x"] = "here"
    lines = [json.dumps(event).replace('"here"', text) for event in stream]
    found = replayed(write_config(folder), write_events(folder / "events.jsonl", lines))
    assert [(d["verdict"], d["window"]["n_records"]) for d in found] == [("ok", WINDOW)] * 2
    assert quality(found[0], "x", "invalid") == quality(found[0], "x", "missing") == 0.0


@pytest.mark.parametrize("place", ["id", "category", "version"])
def test_strings_of_10_mb_and_halves_of_surrogate_pairs_pass_through(folder: Path, place: str) -> None:
    stream = events(2 * WINDOW)
    for i, text in ((300, "z" * 10_000_000), (301, "\ud83d half a pair"), (302, "\udc00")):
        if place == "id":
            stream[i]["id"] = text
        elif place == "category":
            stream[i]["features"]["c"] = text
        else:
            stream[i]["version"] = text
    settings = write_config(folder)
    want = replayed(settings, write_events(folder / "events.jsonl", stream))
    run(settings)
    assert rounded(decided(settings)) == rounded(want)
    assert sum(d["window"]["n_records"] for d in want) == 2 * WINDOW
    assert list(dead_letters.entries(folder / "state" / "dead")) == []


def test_an_id_that_came_before_is_a_duplicate_also_across_a_restart(folder: Path) -> None:
    stream = drifting((0, 0, 0))
    settings = write_config(folder)
    want = replayed(settings, write_events(folder / "events.jsonl", stream))
    twice = [event for event in stream for _ in range(2)]
    assert replayed(settings, write_events(folder / "events.jsonl", twice)) == want
    write_events(folder / "events.jsonl", twice[:WINDOW])
    run(settings)
    write_events(folder / "events.jsonl", [*stream[:40], *stream], "ab")
    run(settings)
    assert sum(d["window"]["n_records"] for d in decided(settings)) == len(stream)


def test_one_row_and_none_and_an_interval_without_rows_are_no_error(folder: Path) -> None:
    settings = write_config(folder, window=TIME)
    assert replayed(settings, write_events(folder / "events.jsonl", [])) == []
    (one,) = replayed(settings, write_events(folder / "events.jsonl", events(1)))
    assert (one["verdict"], one["reason"], one["partial"]) == ("undetermined", "too_few_records", True)
    gap = [*events(WINDOW), *({**e, "time": e["time"] + 20 * WINDOW} for e in events(WINDOW, start=WINDOW))]
    found = replayed(settings, write_events(folder / "events.jsonl", gap))
    assert [d["window"]["n_records"] for d in found] == [WINDOW, WINDOW]


def test_a_clock_that_jumps_a_year_ahead_for_two_rows_moves_nothing(folder: Path) -> None:
    stream = drifting(TWO_DRIFTS)
    settings = write_config(folder, window=TIME)
    want = replayed(settings, write_events(folder / "events.jsonl", stream))
    jumped = [{**stream[i], "id": f"jump{i}", "time": stream[i]["time"] + 366 * 86_400} for i in (700, 701)]
    write_events(folder / "events.jsonl", [*stream[:700], *jumped, *stream[700:]])
    run(settings)
    assert rounded(decided(settings)) == rounded(want)
    letters = list(dead_letters.entries(folder / "state" / "dead"))
    assert [(letter.reason, json.loads(letter.payload)) for letter in letters] == [("ahead", e) for e in jumped]


def test_a_clock_that_jumps_back_makes_late_rows_which_are_counted(folder: Path) -> None:
    stream = events(4 * WINDOW)
    back = [{**event, "id": f"b{i}", "time": event["time"] - 3600} for i, event in enumerate(stream[:50])]
    settings = write_config(folder, window=TIME)
    want = replayed(settings, write_events(folder / "events.jsonl", stream))
    told = said(
        "replay", write_events(folder / "events.jsonl", [*stream[:900], *back, *stream[900:]]), "-c", settings, "--json"
    )
    assert told.lines == want
    assert "50 late" in told.err


# References -----------------------------------------------------------------------------------------------------------


def test_constant_and_empty_columns_of_a_reference_are_watched_for_a_change(tmp_path: Path) -> None:
    rows = columns(1500, 1)
    rows["x"][:] = 3.0
    rows["y"] = np.full(1500, "")
    with (tmp_path / "reference.csv").open("w") as file:
        file.write(",".join(rows) + "\n")
        file.writelines(",".join(map(str, row)) + "\n" for row in zip(*rows.values(), strict=True))
    (tmp_path / "reference.profile").write_bytes(build(tmp_path))
    stream = events(3 * WINDOW)
    for event in stream:
        event["features"] |= {"x": 3.0, "y": None}
    settings = write_config(tmp_path)
    quiet = replayed(settings, write_events(tmp_path / "events.jsonl", stream))
    assert [d["verdict"] for d in quiet] == ["ok"] * 3
    for event in stream[2 * WINDOW :]:
        event["features"] |= {"x": 3.5}
    moved = replayed(settings, write_events(tmp_path / "events.jsonl", stream))
    assert [a["features"][0]["feature"] for a in moved[2]["alarms"]] == ["x"]
    for event in stream[2 * WINDOW :]:
        event["features"] |= {"x": 3.0, "y": 1.0}
    filled = replayed(settings, write_events(tmp_path / "events.jsonl", stream))
    assert [a["features"][0]["feature"] for a in filled[2]["alarms"]] == ["y"]


def test_a_reference_of_too_few_rows_is_refused(tmp_path: Path) -> None:
    write_reference(tmp_path / "reference.csv", n=30)
    told = said("profile", tmp_path / "reference.csv", "-c", write_config(tmp_path), "-o", tmp_path / "made.profile")
    assert (told.code, told.err.splitlines()[-1]) == (
        2,
        "driftwatch: `reference.csv` must hold at least 50 rows; got 30. A reference of some thousands of rows, "
        "ten times a window, keeps an alarm budget.",
    )
    assert not (tmp_path / "made.profile").exists()


def test_a_reference_without_a_configured_feature_is_refused_by_its_name(tmp_path: Path) -> None:
    text = write_reference(tmp_path / "reference.csv", n=100).read_text().replace("y,", "why,", 1)
    (tmp_path / "reference.csv").write_text(text)
    told = said("profile", tmp_path / "reference.csv", "-c", write_config(tmp_path), "-o", tmp_path / "made.profile")
    assert told.code == 2
    assert "'y'" in told.err


def test_a_profile_of_other_features_is_refused_by_their_names(folder: Path) -> None:
    features = {"x": "categorical", "z": "numeric", "c": "categorical"}
    settings = write_config(folder, events={"features": features, "prediction": {"kind": "numeric"}})
    write_events(folder / "events.jsonl", events(10))
    for told in (said("replay", folder / "events.jsonl", "-c", settings), said("run", "-c", settings)):
        assert told.code == 2
        assert told.err.splitlines()[-1] == (
            f"driftwatch: {folder}/reference.profile: the profile must be of the features in `events`: x is numeric "
            "there, categorical here; y is not configured; z is not in the profile. Build it again with "
            "`driftwatch profile`."
        )


@pytest.mark.parametrize("damage", ["cut", "other bytes", "missing"])
def test_a_damaged_profile_is_refused(folder: Path, damage: str) -> None:
    file = folder / "reference.profile"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:5000] if damage == "cut" else b"something else")
    told = said("replay", write_events(folder / "events.jsonl", events(1)), "-c", write_config(folder))
    assert told.code == 2
    assert str(file) in told.err


# State ----------------------------------------------------------------------------------------------------------------


def test_a_state_file_that_is_none_is_refused_and_left_alone(folder: Path) -> None:
    settings = write_config(folder, state={"path": "state.db"})
    write_events(folder / "events.jsonl", events(10))
    (folder / "state.db").write_bytes(b"my diary, not a database" * 100)
    for command in ("run", "decisions"):
        told = said(command, "-c", settings)
        assert told.code == 3
        assert "`state.path` must be a sound driftwatch state" in told.err
        assert "Move the file away to begin anew" in told.err
    assert (folder / "state.db").read_bytes() == b"my diary, not a database" * 100


@pytest.mark.parametrize(("step", "word"), [(-1, "older"), (1, "newer")])
def test_a_state_file_of_another_version_is_refused_with_what_to_use(folder: Path, step: int, word: str) -> None:
    settings = write_config(folder, state={"path": "state.db"})
    write_events(folder / "events.jsonl", events(10))
    run(settings)
    database = sqlite3.connect(folder / "state.db")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + step}")
    database.close()
    told = said("run", "-c", settings)
    assert told.code == 3
    assert f"Use the {word} driftwatch that wrote it, or another file." in told.err


def test_the_state_of_another_model_is_refused(folder: Path) -> None:
    write_events(folder / "events.jsonl", events(10))
    run(write_config(folder))
    told = said("run", "-c", write_config(folder, model={"name": "fraud", "version": "1"}))
    assert told.code == 3
    assert "must belong to the model 'fraud'" in told.err


def test_a_second_process_on_one_state_file_ends_and_quotes_the_first(folder: Path) -> None:
    settings = write_config(folder)
    write_events(folder / "events.jsonl", events(10))
    first = lock.acquire(folder / "state" / "state.db", now_s=T0)
    told = said("run", "-c", settings)
    first.close()
    assert told.code == 3
    assert f"held by process {os.getpid()} on " in told.err
    assert "since 2023-11-14T22:13:20Z" in told.err
    run(settings)


def wait_until(question: Any, what: str) -> None:
    """Asks until the answer is yes; half a minute is for a machine that has much else to do."""
    until_s = time.monotonic() + 30
    while not question():
        assert time.monotonic() < until_s, f"waited in vain: {what}"
        time.sleep(0.01)


def test_a_full_disk_makes_it_not_ready_until_there_is_room_and_loses_nothing(
    folder: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "RETRY_S", 0.05)
    readiness: list[str | None] = []
    ready = app.Health.ready

    def noted(self: app.Health, *missing: str | None, beside: str | None = None) -> None:
        readiness.append(next(filter(None, missing), None))
        ready(self, *missing, beside=beside)

    monkeypatch.setattr(app.Health, "ready", noted)
    stream = drifting(TWO_DRIFTS)
    settings = write_config(folder, state={"path": str(tiny_folder / "state.db")})
    want = replayed(settings, write_events(folder / "events.jsonl", stream))
    write_events(folder / "events.jsonl", stream[:100])
    run(settings)  # makes the file, with the profile in it
    write_events(folder / "events.jsonl", stream)
    ballast = tiny_folder / "ballast"
    load = Store.load

    def load_and_fill(store: Store) -> Remembered:
        remembered = load(store)
        fill(ballast)
        return remembered

    monkeypatch.setattr(Store, "load", load_and_fill)

    def make_room() -> None:
        try:
            wait_until(lambda: any(reason and "full" in reason for reason in readiness), "the sidecar is not ready")
        finally:
            ballast.unlink()

    friend = threading.Thread(target=make_room)
    friend.start()
    run(settings)
    friend.join()
    assert readiness[-1] is None
    found = decided(settings)
    assert sum(d["window"]["n_records"] for d in found) == len(stream)
    assert len(found) >= len(want)

"""The prediction log: whole lines of several processes, over rotations, of which driftwatch misses and doubles none."""

import fcntl
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from modelops.errors import StateUnavailable
from modelops.prediction_log import PredictionLog, delete, open_numbered, rotated, steady
from tests.modelops import world
from tests.modelops.service import wait_for

FULL = 1 << 16


def events(name: str, n: int) -> list[dict[str, Any]]:
    return [
        {"id": f"{name}-{i}", "time": 1.8e9 + i, "model": "credit", "version": "1", "features": row, "prediction": 0.5}
        for i, row in enumerate(world.features(n, 3))
    ]


def write(path: Path, name: str, n: int) -> None:
    """n events in batches of 7, as a model server writes them."""
    log, made = PredictionLog(path, FULL), events(name, n)
    for start in range(0, n, 7):
        log.append(made[start : start + 7])
    log.close()


def written_by(path: Path, names: list[str], n: int) -> None:
    """Each name's events, by a process of its own."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write, args=(path, name, n)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def ids(path: Path) -> list[str]:
    with steady(path) as files:
        return [json.loads(line)["id"] for file in files if file.exists() for line in file.read_bytes().splitlines()]


def test_three_processes_write_one_log_over_its_rotations(tmp_path: Path) -> None:
    """While others always write, a file may grow beyond its bound; one that writes alone rotates each that is full."""
    path = tmp_path / "log" / "predictions.jsonl"
    written_by(path, ["a", "b", "c"], 2000)
    write(path, "d", 2000)
    found = ids(path)
    assert len(found) == 8000
    for name in "abcd":
        assert [id for id in found if id.startswith(name)] == [f"{name}-{i}" for i in range(2000)]
    sizes = [file.stat().st_size for file in rotated(path).values()]
    assert len(sizes) > 3
    assert min(sizes) >= FULL


def test_while_somebody_reads_no_file_is_renamed_or_deleted(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    log = PredictionLog(path, 1000)
    with steady(path) as files:
        for i in range(20):
            log.append(events(str(i), 5))
        assert files == [path]
        assert rotated(path) == {}
    log.append(events("then", 1))
    log.append(events("next", 1))
    assert [file.name for file in rotated(path).values()] == ["predictions.000001.jsonl"]
    (old,) = rotated(path).values()
    with steady(path):
        assert not delete(path, old)
    assert delete(path, old)
    assert not delete(path, old)
    assert rotated(path) == {}
    log.close()


def test_a_file_has_its_number_before_and_after_it_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    assert open_numbered(path, 1) == (1, None, True)
    log = PredictionLog(path, 500)
    found = []
    for name, n in (("a", 5), ("b", 1)):  # the first five fill a file
        log.append(events(name, n))
        for number in (1, 2):
            at, file, is_open = open_numbered(path, number)
            found.append((at, is_open, "" if file is None else json.loads(file.readline())["id"]))
            if file is not None:
                file.close()
    assert found == [(1, False, "a-0"), (2, True, ""), (1, False, "a-0"), (2, True, "b-0")]
    log.close()


def test_a_lock_that_is_never_given_back_costs_the_rows_and_not_the_answers(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    log = PredictionLog(path, 1000)
    with (tmp_path / ".predictions.jsonl.lock").open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StateUnavailable, match="another process holds its lock"):
            log.append(events("a", 1))
    log.append(events("b", 1))
    assert ids(path) == ["b-0"]
    log.close()


def test_a_log_that_somebody_else_rotated_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    log = PredictionLog(path)
    log.append(events("a", 2))
    os.rename(path, tmp_path / "taken-away.jsonl")
    log.append(events("b", 1))
    assert ids(path) == ["b-0"]
    log.close()


@pytest.mark.slow
def test_driftwatch_follows_the_rotations_and_loses_and_doubles_no_row(tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="needs the extra modelops")
    from tests.modelops.watching import WINDOW, Watching

    path = tmp_path / "log" / "predictions.jsonl"
    path.parent.mkdir()
    path.touch()
    watching = Watching(tmp_path, {"kind": "file", "path": "log/predictions.jsonl", "follow": True})
    watching.up()
    try:
        sent = 0
        for turn in range(6):
            written_by(path, [f"{turn}{name}" for name in "abc"], 150)
            sent += 450
            wait_for(lambda n=sent: watching.counts().get("used", 0) >= n, lambda: (watching.counts(), watching.said()))
        assert len(rotated(path)) >= 5
        assert {name: n for name, n in watching.counts().items() if n} == {"used": sent}
    finally:
        watching.down()
    assert watching.decided() == sent // WINDOW * WINDOW

"""The sidecar is killed while its log grows and is rotated: its decisions are those of one whole file."""

import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from following import following
from sidecar import COUNT, TIME, WINDOW, build, events, replayed, rounded, write_config, write_events, write_reference

N_ROWS = 4000
KEYS = ("start", "end", "n_records")


def told(decisions: list[Any]) -> list[Any]:
    """What a decision says, but for which rows of which shard."""
    return [rounded([*(d["window"][key] for key in KEYS), d["p_value"], d["verdict"], d["part"]]) for d in decisions]


def position(state: Path) -> int | None:
    """How far the one shard was read, as it is stored."""
    if not state.exists():
        return None
    with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as database:
        row = database.execute("SELECT position FROM shards").fetchone()
    return None if row is None else int(row[0])


@pytest.mark.slow
@pytest.mark.parametrize("window", [TIME, COUNT], ids=["time", "count"])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_row_is_lost_or_doubled_by_kills_and_rotations(tmp_path: Path, window: dict[str, Any], seed: int) -> None:
    rng = random.Random(seed)
    folder = tmp_path / "run"
    folder.mkdir()
    write_reference(folder / "reference.csv")
    (folder / "reference.profile").write_bytes(build(folder, window=window))
    rows = events(N_ROWS)
    for event in rows[N_ROWS // 2 :]:
        event["features"]["x"] += 15
    whole = write_events(tmp_path / "whole.jsonl", rows)
    log, written, generation = folder / "events.jsonl", 0, 0

    def add(most: int) -> None:
        nonlocal written
        n = rng.randint(1, most)
        write_events(log, rows[written : written + n], "ab")
        written = min(written + n, N_ROWS)

    def rotate() -> None:
        nonlocal generation
        if log.exists() and log.stat().st_size:
            generation += 1
            log.rename(folder / f"events.{generation:06}.jsonl")

    with following(folder, window=window) as sidecar:
        add(50)  # what was rotated before a log was ever read is not looked for
        sidecar.wait(lambda: position(folder / "state" / "state.db"), "a first transaction")
        while written < N_ROWS:
            add(600)
            if rng.random() < 0.5:
                rotate()
                add(200)
            time.sleep(rng.random())  # killed wherever it is
            sidecar.kill()
            for _ in range(rng.randint(0, 3)):
                rotate()
                add(200)
            sidecar.start()
        settings = write_config(tmp_path, window=window, reference={"profile": str(folder / "reference.profile")})
        closed = told(replayed(settings, whole))[: N_ROWS // WINDOW - 1]
        sidecar.wait_for_windows(len(closed))
        assert told(sidecar.decisions())[: len(closed)] == closed
        assert generation > 4


@pytest.mark.slow
def test_what_is_gone_is_said_and_what_was_counted_of_it_is_judged(tmp_path: Path) -> None:
    write_reference(tmp_path / "reference.csv")
    (tmp_path / "reference.profile").write_bytes(build(tmp_path, window=TIME))
    rows, log = events(1200), tmp_path / "events.jsonl"
    with following(tmp_path, window=TIME) as sidecar:
        sidecar.add(rows[:400])
        size = log.stat().st_size
        sidecar.wait(lambda: position(tmp_path / "state" / "state.db") == size, "a transaction with all rows")
        sidecar.kill()
        log.unlink()
        sidecar.add(rows[600:])
        sidecar.start()
        found = sidecar.wait_for_windows(4)
    assert [d["window"]["n_records"] for d in found] == [250, 150, 150, 250]
    assert "what was read before is not there any more (events.jsonl#" in sidecar.said()

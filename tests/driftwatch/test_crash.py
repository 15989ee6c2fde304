"""A sidecar that is killed, at every write or at any time, comes to the decisions and webhooks of one that is not."""

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sidecar import (
    COUNT,
    TIME,
    TWO_DRIFTS,
    Event,
    Receiver,
    decided,
    drifting,
    receiving,
    replayed,
    rounded,
    transitions,
    webhook_ids,
    write_config,
    write_events,
)

KILLED = -9
REFUSALS = [503 if n % 10 in (1, 4, 8) else 200 for n in range(40)]  # three of ten


@dataclass
class Trial:
    """A stream, what an uninterrupted replay says of it, and a driver that kills sidecars on it."""

    folder: Path
    window: dict[str, object]
    receiver: Receiver
    driver: "subprocess.Popen[str]"
    want: list[Any] = field(default_factory=list)
    _n: int = 0

    def fresh(self) -> "State":
        """A sidecar without any state, with a path at the receiver of its own."""
        self._n += 1
        folder = self.folder / f"{self._n}"
        folder.mkdir()
        settings = write_config(
            folder,
            window=self.window,
            source={"kind": "file", "path": "../events.jsonl"},
            reference={"profile": "../reference.profile"},
            sinks=[self.receiver.sink(f"/{self._n}")],
        )
        return State(self, settings, f"/{self._n}")


@dataclass
class State:
    """One state file and what comes of it."""

    trial: Trial
    config: Path
    path: str

    def live(self, point: str | None = None, number: int = 0, delay_s: float | None = None) -> int:
        """One life; its exit code."""
        order = {"config": str(self.config), "point": point, "number": number, "delay_s": delay_s}
        driver = self.trial.driver
        assert driver.stdin is not None
        assert driver.stdout is not None
        driver.stdin.write(json.dumps(order) + "\n")
        driver.stdin.flush()
        return int(driver.stdout.readline())

    def is_decided(self) -> bool:
        """Whether every decision is stored."""
        return len(decided(self.config)) == len(self.trial.want)

    def agrees(self) -> None:
        """Stored decisions and webhooks are those of the uninterrupted replay."""
        receiver, found = self.trial.receiver, decided(self.config)
        assert rounded(found) == rounded(self.trial.want)
        assert set(receiver.taken[self.path]) == webhook_ids(found)
        assert receiver.faults == []


def disordered(events: list[Event], seconds: float, seed: int = 3) -> list[Event]:
    """The events as they come when each is late by up to so many seconds."""
    delay = np.random.default_rng(seed).uniform(0, seconds, len(events))
    return [events[i] for i in np.argsort(np.arange(len(events)) + delay, kind="stable")]


@contextlib.contextmanager
def driving(log: Path) -> Iterator["subprocess.Popen[str]"]:
    """The driver of forks, ended afterwards."""
    command = [sys.executable, str(Path(__file__).with_name("crash_driver.py"))]
    with log.open("w") as errors:
        driver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        with driver:
            yield driver


@contextlib.contextmanager
def trying(folder: Path, window: dict[str, object], profile: bytes) -> Iterator[Trial]:
    """Two drifts; with time windows the events are out of order, within the lateness."""
    (folder / "reference.profile").write_bytes(profile)
    stream = drifting(TWO_DRIFTS)
    write_events(folder / "events.jsonl", stream if window is COUNT else disordered(stream, 50))
    want = replayed(write_config(folder, window=window), folder / "events.jsonl")
    assert [what for _, what in transitions(want)] == ["opened", "resolved"] * 2
    with receiving(Receiver(REFUSALS)) as receiver, driving(folder / "driver.log") as driver:
        yield Trial(folder, window, receiver, driver, want)


@pytest.fixture(scope="module")
def over_rows(tmp_path_factory: pytest.TempPathFactory, profile_bytes: bytes) -> Iterator[Trial]:
    """Count windows."""
    with trying(tmp_path_factory.mktemp("rows"), COUNT, profile_bytes) as trial:
        yield trial


@pytest.fixture(scope="module")
def over_time(tmp_path_factory: pytest.TempPathFactory, profile_bytes: bytes) -> Iterator[Trial]:
    """Time windows over events out of order."""
    with trying(tmp_path_factory.mktemp("time"), TIME, profile_bytes) as trial:
        yield trial


def kill_at_every_save(trial: Trial, point: str) -> None:
    """Once at the first save, once at the second … until there is none left to be killed at."""
    n_saves = 0
    state = trial.fresh()
    while state.live(point, n_saves + 1) == KILLED:
        n_saves += 1
        assert state.live() == 0
        state.agrees()
        state = trial.fresh()
    state.agrees()
    assert n_saves > len(trial.want)  # every window's save, and the end's


def test_killed_before_any_write_of_the_store_it_goes_on_as_if_nothing_had_been(over_rows: Trial) -> None:
    kill_at_every_save(over_rows, "before a save")


def test_killed_after_any_write_before_any_sink_has_heard_of_it_nothing_is_lost(over_time: Trial) -> None:
    kill_at_every_save(over_time, "after a save")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before a save", "amid a save", "after a save"])
def test_killed_around_any_write_with_either_kind_of_window_it_goes_on(
    over_rows: Trial, over_time: Trial, point: str
) -> None:
    kill_at_every_save(over_rows, point)
    kill_at_every_save(over_time, point)


def test_killed_after_each_single_write_it_still_comes_to_its_end(over_time: Trial) -> None:
    state, lives = over_time.fresh(), 0
    while not state.is_decided():
        assert state.live("after a save", 1) == KILLED
        lives += 1
        assert lives < 50
    assert lives > len(over_time.want)
    assert state.live() == 0
    state.agrees()


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    "point", ["before a post", "after a post", "before a retry is recorded", "after a delivery is recorded"]
)
def test_killed_at_any_step_of_a_delivery_every_webhook_comes(over_rows: Trial, point: str, number: int) -> None:
    state = over_rows.fresh()
    assert state.live(point, number) == KILLED
    assert state.live() == 0
    state.agrees()
    posts = over_rows.receiver.taken[state.path]
    assert len(posts) == len(set(posts)) + (point == "after a post")  # under its id, the one that was not recorded


def kill_at_random(trial: Trial, times: int, dice: random.Random) -> None:
    """So many lives that end early, then one to the end."""
    state = trial.fresh()
    codes = [state.live(delay_s=dice.uniform(0.05, 0.5)) for _ in range(times)]
    assert set(codes) <= {0, KILLED}
    assert state.live() == 0
    state.agrees()


def test_killed_at_random_times_it_comes_to_the_same_end(over_rows: Trial, over_time: Trial) -> None:
    for trial in (over_rows, over_time):
        kill_at_random(trial, 3, random.Random(0))


@pytest.mark.slow
def test_killed_at_many_random_times_it_comes_to_the_same_end(over_rows: Trial, over_time: Trial) -> None:
    for trial in (over_rows, over_time):
        for seed in range(25):
            kill_at_random(trial, 4, random.Random(100 + seed))

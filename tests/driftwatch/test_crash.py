"""A sidecar that is killed, at every write or at any time, comes to the decisions and webhooks of one that is not."""

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from crash_trials import KILLED, Trial, driving, kill_at_every_save
from sidecar import (
    COUNT,
    TIME,
    TWO_DRIFTS,
    Event,
    Receiver,
    drifting,
    receiving,
    replayed,
    transitions,
    write_config,
    write_events,
)

REFUSALS = [503 if n % 10 in (1, 4, 8) else 200 for n in range(40)]  # three of ten


def disordered(events: list[Event], seconds: float, seed: int = 3) -> list[Event]:
    """The events as they come when each is late by up to so many seconds."""
    delay = np.random.default_rng(seed).uniform(0, seconds, len(events))
    return [events[i] for i in np.argsort(np.arange(len(events)) + delay, kind="stable")]


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

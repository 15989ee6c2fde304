"""A sidecar that learns, killed at every write or at any time, comes to the profile of one that is not."""

import json
import random
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sidecar import COUNT, TIME, decided, events, rounded, write_config, write_events
from test_crash import KILLED, disordered, driving

from driftwatch.store import Store

LEARN_S = 1000


@dataclass
class Trial:
    """A stream longer than what is learned, and a driver that kills sidecars on it."""

    folder: Path
    window: dict[str, object]
    driver: "subprocess.Popen[str]"
    want: str = ""
    decisions: list[Any] = field(default_factory=list)
    _n: int = 0

    def fresh(self) -> Path:
        """The configuration of a sidecar without any state."""
        self._n += 1
        folder = self.folder / f"{self._n}"
        folder.mkdir()
        return write_config(
            folder,
            window=self.window,
            source={"kind": "file", "path": "../events.jsonl"},
            reference={"learn": f"{LEARN_S}s", "save": "saved.profile"},
            detectors={"mmd": {"rows": 0}},
        )

    def live(self, settings: Path, point: str | None = None, number: int = 0, delay_s: float | None = None) -> int:
        """One life; its exit code."""
        order = {"config": str(settings), "point": point, "number": number, "delay_s": delay_s}
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        self.driver.stdin.write(json.dumps(order) + "\n")
        self.driver.stdin.flush()
        return int(self.driver.stdout.readline())

    def agrees(self, settings: Path) -> None:
        """The profile is the one of the undisturbed sidecar, and no window was lost or judged otherwise meanwhile."""
        assert frozen(settings) == self.want
        found = decided(settings)
        assert [d["window"] for d in found] == [d["window"] for d in self.decisions]
        reasons = [d["reason"] for d in found]
        assert reasons == sorted(reasons, key=lambda reason: reason is None)  # once it judges, it goes on so
        for one, other in zip(found, self.decisions, strict=True):  # which window is the first judged is up to saves
            assert one["reason"] != other["reason"] or rounded(one) == rounded(other)


def frozen(settings: Path) -> str:
    """The content hash of the profile that was learned, in the state and in the file."""
    with closing(Store.open(settings.parent / "state" / "state.db", model="credit", read_only=True)) as store:
        (given,) = store.given()
        assert store.learned() == []
        assert store.learning() is None
        assert given.in_use
        assert store.given_body("1") == (settings.parent / "saved.profile").read_bytes()
        return given.hash


@pytest.fixture(scope="module", params=["time", pytest.param("count", marks=pytest.mark.slow)])
def trial(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    folder = tmp_path_factory.mktemp("learn")
    stream = events(1600)
    write_events(folder / "events.jsonl", disordered(stream, 50))
    with driving(folder / "driver.log") as driver:
        made = Trial(folder, COUNT if request.param == "count" else TIME, driver)
        settings = made.fresh()
        assert made.live(settings) == 0, (folder / "driver.log").read_text()
        made.want, made.decisions = frozen(settings), decided(settings)
        assert {d["reason"] for d in made.decisions} == {"learning", None}
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("point", ["amid a save", "after a save"])
def test_killed_at_every_write_it_learns_the_same_profile(trial: Trial, point: str) -> None:
    n_saves = 0
    settings = trial.fresh()
    while trial.live(settings, point, n_saves + 1) == KILLED:
        n_saves += 1
        assert trial.live(settings) == 0
        trial.agrees(settings)
        settings = trial.fresh()
    trial.agrees(settings)
    assert n_saves >= len(trial.decisions)


def test_killed_after_each_single_write_it_learns_the_same_profile(trial: Trial) -> None:
    settings, lives = trial.fresh(), 0
    while len(decided(settings)) < len(trial.decisions):
        assert trial.live(settings, "after a save", 1) == KILLED
        lives += 1
        assert lives < 50
    assert lives > len(trial.decisions)
    assert trial.live(settings) == 0
    trial.agrees(settings)


@pytest.mark.parametrize("point", ["before it is learned", "amid its learning", "after it is learned"])
def test_killed_as_it_is_frozen_it_freezes_the_same_profile(trial: Trial, point: str) -> None:
    settings = trial.fresh()
    assert trial.live(settings, point, 1) == KILLED
    assert trial.live(settings) == 0
    trial.agrees(settings)


@pytest.mark.slow
def test_killed_at_random_times_it_learns_the_same_profile(trial: Trial) -> None:
    dice = random.Random(0)
    for _ in range(3):
        settings = trial.fresh()
        codes = [trial.live(settings, delay_s=dice.uniform(0.05, 0.6)) for _ in range(3)]
        assert set(codes) <= {0, KILLED}
        assert trial.live(settings) == 0
        trial.agrees(settings)

"""Sidecars that are killed, beside a replay that nobody disturbs."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar import Receiver, decided, rounded, webhook_ids, write_config

KILLED = -9


@dataclass
class Trial:
    """A stream, what an uninterrupted replay says of it, and a driver that kills sidecars on it."""

    folder: Path
    window: dict[str, object]
    receiver: Receiver
    driver: "subprocess.Popen[str]"
    want: list[Any] = field(default_factory=list)
    changed: dict[str, Any] = field(default_factory=dict)  # of the configuration
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
            **self.changed,
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


@contextlib.contextmanager
def driving(log: Path) -> Iterator["subprocess.Popen[str]"]:
    """The driver of forks, ended afterwards."""
    command = [sys.executable, str(Path(__file__).with_name("crash_driver.py"))]
    with log.open("w") as errors:
        driver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        with driver:
            yield driver


def kill_at_every_save(trial: Trial, point: str, least: int | None = None) -> None:
    """Once at the first save, once at the second … until there is none left to be killed at; more than `least` times.

    Left out: every decision has a save of its own.
    """
    n_saves = 0
    state = trial.fresh()
    while state.live(point, n_saves + 1) == KILLED:
        n_saves += 1
        assert state.live() == 0
        state.agrees()
        state = trial.fresh()
    state.agrees()
    assert n_saves > (len(trial.want) if least is None else least)  # and the end's

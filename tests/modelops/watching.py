"""driftwatch as a process beside modelops, for tests: its configuration, its counts, what it has decided."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.modelops import served_model, world
from tests.modelops.service import ask, free_port, wait_for

WINDOW = 100


def write_reference(folder: Path) -> Path:
    """A profile of the world's features and scores."""
    from modelops.data import Rows
    from modelops.profile import build_profile
    from modelops.recipe import Profile as Settings

    rows = world.features(1200, 4)
    columns = {
        name: np.array([row[name] for row in rows], object if kind == "categorical" else float)
        for name, kind in served_model.KINDS.items()
    }
    times = 1e9 + np.arange(1200.0)
    labels = np.zeros(1200, np.int8)
    made = build_profile(
        Rows(columns, labels, times, np.arange(1200).astype(object)), served_model.KINDS,
        np.random.default_rng(0).random(1200), Settings(sizes=(WINDOW,), mmd_rows=0, label=None),
        about={"model": "credit", "version": "1"},
    )  # fmt: skip
    path = folder / "credit.profile"
    path.write_bytes(made.to_bytes())
    return path


class Watching:
    """`driftwatch run` on a source; it may be killed and started again."""

    def __init__(self, folder: Path, source: dict[str, Any]) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        write_reference(folder)
        config = {
            "model": {"name": "credit", "version": "1"},
            "source": source,
            "events": {"features": dict(served_model.KINDS), "prediction": {"name": "score", "kind": "probability"}},
            "reference": {"profile": "credit.profile"},
            "window": {"count": WINDOW, "min_records": 50},
            "alarms": {"budget": "1 per 1000 windows"},
            "detectors": {"mmd": {"rows": 0}},
            "sinks": [{"kind": "prometheus", "port": self.port, "host": "127.0.0.1"}],
            "state": {"path": "driftwatch/state.db"},
        }
        self.config = folder / "driftwatch.yaml"
        self.config.write_text(json.dumps(config))

    def up(self) -> None:
        """Starts it and waits until it is ready."""
        with (self.folder / "driftwatch.log").open("ab") as log:
            command = [sys.executable, "-m", "driftwatch", "run", "-c", str(self.config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(lambda: ask(f"http://127.0.0.1:{self.port}/readyz")[0] == 200, self.said)

    def down(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def said(self) -> str:
        """Its log, for a failing test."""
        return (self.folder / "driftwatch.log").read_text()

    def counts(self) -> dict[str, int]:
        """Records by outcome, since it was started."""
        text = ask(f"http://127.0.0.1:{self.port}/metrics")[1] or ""
        found: dict[str, int] = {}
        for labels, value in re.findall(r"^driftwatch_records_total\{(.*)\} (\S+)$", text, re.M):
            outcome = re.search(r'outcome="(\w+)"', labels)
            assert outcome is not None
            found[outcome[1]] = found.get(outcome[1], 0) + int(float(value))
        return found

    def decided(self) -> int:
        """How many records stand in decisions."""
        command = [sys.executable, "-m", "driftwatch", "decisions", "-c", str(self.config), "--json"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return sum(json.loads(line)["window"]["n_records"] for line in found.splitlines())

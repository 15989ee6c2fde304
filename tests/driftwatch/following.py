"""`driftwatch run` as a process on a file that grows; it is put profiles, killed and started again."""

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar import Event, decided, write_config, write_events

TOKEN = "known to the test"
PATIENCE_S = 300.0  # how long a test waits for what must come


@dataclass
class Following:
    """One sidecar in a folder of its own."""

    folder: Path
    config: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Starts it, on its state where it has one, and waits until it answers."""
        with (self.folder / "run.log").open("wb") as log:
            command = [sys.executable, "-m", "driftwatch", "run", "-c", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.wait(lambda: self.ask("GET", "/v1/profile/-")[0] == 404, "an answer")

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def said(self) -> str:
        """The log of this life."""
        return (self.folder / "run.log").read_text("utf-8")

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        """Status and answer of its server; (0, "") where there is none."""
        port = re.findall(r"metrics on http://[^:]+:(\d+)", self.said())
        if not port:
            return 0, ""
        with closing(http.client.HTTPConnection("127.0.0.1", int(port[-1]), timeout=10)) as connection:
            connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}"})
            response = connection.getresponse()
            return response.status, response.read().decode()

    def profile(self, version: str) -> dict[str, str | None]:
        """What it says of a version's profile; empty where there is none."""
        status, text = self.ask("GET", f"/v1/profile/{version}")
        return json.loads(text) if status == 200 else {}

    def add(self, events: Sequence[Event]) -> None:
        """The file grows."""
        write_events(self.folder / "events.jsonl", events, "ab")

    def decisions(self, version: str = "1") -> list[Any]:
        """What it has stored of a version."""
        return [d for d in decided(self.config) if d["window"]["version"] == version]

    def wait(self, true: Callable[[], object], what: str) -> None:
        """Waits until it is so, as long as the process lives."""
        until_s = time.monotonic() + PATIENCE_S
        while not true():
            assert self.process is not None
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < until_s, f"{what} did not come: {self.said()}"
            time.sleep(0.05)

    def wait_for_windows(self, n: int, version: str = "1") -> list[Any]:
        """Waits until so many are decided."""
        self.wait(lambda: len(self.decisions(version)) >= n, f"{n} windows")
        return self.decisions(version)

    def wait_for_use(self, version: str) -> dict[str, str | None]:
        """Waits until the version's profile is in use; what is said of it."""
        self.wait(lambda: self.profile(version).get("state") == "in use", f"a profile for {version}")
        return self.profile(version)


@contextmanager
def following(folder: Path, **changed: Any) -> Iterator[Following]:
    """A sidecar that runs; it is killed at the end."""
    folder.mkdir(exist_ok=True)
    (folder / "events.jsonl").touch()
    (folder / "token").write_text(TOKEN + "\n")
    sink = {"kind": "prometheus", "port": 0, "host": "127.0.0.1", "token_file": "token"}
    source = {"kind": "file", "path": "events.jsonl", "follow": True}
    made = Following(folder, write_config(folder, **({"source": source, "sinks": [sink]} | changed)))
    try:
        made.start()
        yield made
    finally:
        made.kill()

"""modelops as real processes, for tests: its commands, its service, and traffic with labels."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.modelops import world

PATIENCE_S = 300.0


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """A command, to its end."""
    command = [sys.executable, "-m", "modelops", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def ask(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Status and JSON of an answer; status 0 where there was none."""
    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, read_json(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, read_json(error.read())
    except (OSError, http.client.HTTPException):  # no answer, or half of one
        return 0, None


def read_json(body: bytes) -> Any:
    """JSON, or the text where it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def wait_for(what: Callable[[], Any], said: Callable[[], object] = lambda: "") -> Any:
    """What a function returns once it is true."""
    until_s = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < until_s, f"it did not come to be: {said()}"
        time.sleep(0.05)
    return found


HAND_DOWN = """
import fcntl, os, sys
for number, given in enumerate([fcntl.fcntl(int(n), fcntl.F_DUPFD, 100) for n in sys.argv[1].split(",")], 3):
    os.dup2(given, number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "router:api"}
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Service:
    """`modelops serve` on a configuration; it may be killed and started again.

    `listeners`: the router's and the API's sockets, which are kept open meanwhile, as systemd does.
    """

    def __init__(self, config: Path, listeners: tuple[socket.socket, ...] = ()) -> None:
        self.config, self._listeners = config, [listener.fileno() for listener in listeners]
        self.log = config.parent / "serve.log"
        self._process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        """Starts it and waits until it answers."""
        ports = self.config.parent / "state" / "ports.json"
        ports.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "modelops", "serve", "-c", str(self.config)]
            if given := self._listeners:
                command = [sys.executable, "-c", HAND_DOWN, ",".join(map(str, given)), *command[1:]]
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, pass_fds=self._listeners
            )
        wait_for(ports.exists, self.text)
        found = json.loads(ports.read_text())
        self.api, self.router = (f"http://127.0.0.1:{found[name]}" for name in ("api", "router"))
        wait_for(lambda: self.get("/v1/models") is not None, self.text)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Ends it; its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(30)

    def down(self) -> None:
        """Ends it and its model servers."""
        if self._process is not None and self._process.poll() is None:
            self.kill(signal.SIGTERM)

    def get(self, path: str) -> Any:
        """What the API answers."""
        return ask(self.api + path)[1]

    def hook(self, **alarm: Any) -> tuple[int, Any]:
        """Sends a signed webhook."""
        webhook_id, body = world.alarm_body(**alarm)
        headers = world.signed(webhook_id, body, now_s=time.time())
        return ask(f"{self.api}/v1/hooks/driftwatch", body, headers)

    def job(self) -> Any:
        """The newest job."""
        return (self.get("/v1/jobs") or [None])[0]

    def phase(self) -> str:
        """The newest rollout's phase; empty where there is none."""
        found = self.get("/v1/rollouts")
        return found[0]["phase"] if found else ""

    def text(self) -> str:
        """Its log, for a failing test."""
        return self.log.read_text() if self.log.exists() else ""


def servers_of(config: Path) -> list[int]:
    """The processes that serve models for a configuration."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"predict" in words and str(config).encode() in words:
                found.append(int(folder.name))
    return found


def ports(pids: list[int]) -> list[str]:
    """The ports of model servers."""
    words = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in pids]
    return [found[found.index(b"--port") + 1].decode() for found in words]


def ready_servers(made: Service) -> int:
    """How many model servers answer."""
    count = 0
    for pid in servers_of(made.config):
        with suppress(OSError):
            (port,) = ports([pid])
            count += ask(f"http://127.0.0.1:{port}/readyz")[0] == 200
    return count


@contextmanager
def service(config: Path, listeners: tuple[socket.socket, ...] = ()) -> Iterator[Service]:
    """A running service; nothing of it is left at the end."""
    made = Service(config, listeners)
    try:
        made.up()
        yield made
    finally:
        made.down()
        for pid in servers_of(config):
            os.kill(pid, signal.SIGKILL)


class Traffic:
    """Requests one after the other in a thread, each with its label in the labels' log soon after."""

    def __init__(self, url: str, labels: Path, *, changed: bool = True, seed: int = 5) -> None:
        self.sent = 0
        self.failed: list[tuple[int, Any]] = []
        self.versions: list[str] = []
        self.older = 0.0  # how many years the applicants' ages have moved: a test may drift them
        self.changed = changed  # whether labels follow the new concept: a test may turn it
        self._url, self._labels, self._seed = url, labels, seed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Traffic":
        self._labels.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        rng = np.random.default_rng(self._seed + 1)
        rows = world.features(50_000, self._seed)
        with self._labels.open("a", buffering=1) as labels:
            for i, row in enumerate(rows):
                if self._stop.is_set():
                    return
                row["age"] += self.older
                body = json.dumps({"instances": [row], "id": f"r{self._seed}-{i}"}).encode()
                status, answer = ask(f"{self._url}/v1/models/credit:predict", body)
                self.sent += 1
                if status != 200:
                    self.failed.append((status, answer))
                    continue
                self.versions.append(answer["model_version"])
                said = {
                    "id": f"r{self._seed}-{i}",
                    "time": time.time(),
                    "label": world.label(row, rng, changed=self.changed),
                }
                labels.write(json.dumps(said) + "\n")
                self._stop.wait(0.01)

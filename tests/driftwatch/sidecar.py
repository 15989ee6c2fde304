"""A small model with a reference, a stream that drifts twice, and the sidecar's commands in this process."""

import base64
import contextlib
import io
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors import calibration
from driftwatch import cli, config, profiles
from driftwatch.sinks.webhook import verify

T0 = 1_700_000_000  # epoch seconds; an edge of windows of 250 s
WINDOW = 250  # rows, and seconds
SECRET = base64.b64encode(b"not a secret outside the tests").decode()
COUNT: dict[str, object] = {"count": WINDOW, "min_records": 80}
TIME: dict[str, object] = {"length": f"{WINDOW}s", "lateness": "60s", "min_records": 80}
FEATURES = {"x": "numeric", "y": "numeric", "c": "categorical"}

Event = dict[str, Any]


def columns(n: int, seed: int) -> dict[str, np.ndarray]:
    """n rows without drift: a normal, a whole number with many ties, four categories, a prediction."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(50, 10, n).round(3),
        "y": rng.poisson(3, n).astype(float),
        "c": rng.choice(["red", "green", "blue", "grey"], n, p=[0.5, 0.3, 0.15, 0.05]),
        "prediction": rng.uniform(0, 1, n).round(4),
    }


def events(n: int, *, seed: int = 2, start: int = 0, shift: float = 0.0) -> list[Event]:
    """One event a second; `shift` moves x, in its standard deviations."""
    rows = columns(n, seed)
    return [
        {
            "id": f"r{i}",
            "time": T0 + i,
            "features": {"x": x + 10 * shift, "y": y, "c": c},
            "prediction": p,
        }
        for i, (x, y, c, p) in enumerate(zip(*(column.tolist() for column in rows.values()), strict=True), start)
    ]


def drifting(windows: Sequence[float], seed: int = 2) -> list[Event]:
    """Events of so many windows, x moved by so many standard deviations in each."""
    found = events(WINDOW * len(windows), seed=seed)
    for i, event in enumerate(found):
        event["features"]["x"] += 10 * windows[i // WINDOW]
    return found


TWO_DRIFTS = (0, 0, 1.5, 1.5, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0)


def write_events(path: Path, some: Sequence[Event | str | bytes], mode: str = "wb") -> Path:
    """JSON lines; text and bytes go in as they are."""
    with path.open(mode) as file:
        for event in some:
            line = event if isinstance(event, str | bytes) else json.dumps(event)
            file.write((line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line) + b"\n")
    return path


def write_reference(path: Path, n: int = 3000, seed: int = 1) -> Path:
    """A CSV reference of n rows before the stream, one a second."""
    rows = columns(n, seed)
    with path.open("w") as file:
        file.write(",".join(["time", *rows]) + "\n")
        for i, row in enumerate(zip(*rows.values(), strict=True)):
            file.write(",".join(map(str, (T0 - n + i, *row))) + "\n")
    return path


def write_config(folder: Path, **changed: Any) -> Path:
    """config.yaml in a folder: count windows over events.jsonl, no sinks. A value of None takes the key out."""
    settings: dict[str, Any] = {
        "model": {"name": "credit", "version": "1"},
        "source": {"kind": "file", "path": "events.jsonl"},
        "events": {"features": FEATURES, "prediction": {"kind": "numeric"}},
        "reference": {"profile": "reference.profile"},
        "window": COUNT,
        "alarms": {"budget": "1 per 100 windows"},
        "sinks": [],
        "state": {"path": "state/state.db"},
    } | changed
    path = folder / "config.yaml"
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}), "utf-8")
    return path


def build(folder: Path, **changed: Any) -> bytes:
    """A profile for a configuration, with fewer draws: thresholds are coarse, which no test here depends on."""
    settings = config.load(write_config(folder, **changed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "DRAWS_FIT", 1000)
        patch.setattr(calibration, "DRAWS_THRESHOLD", 4000)
        return profiles.build_profile(settings, folder / "reference.csv").to_bytes()


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """Its JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def said(*arguments: str | Path) -> Said:
    """Runs a command in this process, and leaves signals and threads as they were."""
    raw, err = io.BytesIO(), io.StringIO()
    out = io.TextIOWrapper(raw, "utf-8")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    interval = sys.getswitchinterval()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
    finally:
        sys.setswitchinterval(interval)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    out.flush()
    code = ended.value.code
    assert isinstance(code, int)
    return Said(code, raw.getvalue().decode(), err.getvalue())


def replayed(settings: Path, stream: Path) -> list[Any]:
    """The decisions of `replay --json`."""
    found = said("replay", stream, "-c", settings, "--json")
    assert found.code == 0, found.err
    return found.lines


def run(settings: Path) -> Said:
    """`run` to the end of its file."""
    found = said("run", "-c", settings)
    assert found.code == 0, found.err
    return found


def decided(settings: Path) -> list[Any]:
    """The decisions of `decisions --json`."""
    found = said("decisions", "-c", settings, "--json")
    assert found.code == 0, found.err
    return found.lines


def rounded(value: Any) -> Any:
    """The same with numbers to six digits: sums in another order differ in the last ones."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value


def fill(file: Path) -> None:
    """Writes until there is no room."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


def transitions(decisions: Sequence[Any]) -> list[tuple[int, str]]:
    """(window, transition) of every alarm that opened or was resolved."""
    return [
        (i, a["transition"]) for i, d in enumerate(decisions) for a in d["alarms"] if a["transition"] != "continuing"
    ]


def webhook_ids(decisions: Sequence[Any]) -> set[str]:
    """The ids of the webhooks that decisions call for, where a target asks for no more than by default."""
    alarms = [a for d in decisions for a in d["alarms"]]
    return {f"{a['id']}:{a['transition']}" for a in alarms if a["transition"] in ("opened", "resolved")}


@dataclass
class Receiver:
    """A local receiver of webhooks. `answers` are the statuses of the first posts, then 200; each path has its own."""

    answers: Sequence[int] = ()
    headers: dict[str, str] = field(default_factory=dict)  # of every answer
    taken: dict[str, list[str]] = field(default_factory=dict)  # by path: ids answered with 200
    posts: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    port: int = 0

    def post(self, path: str, headers: Any, body: bytes) -> int:
        """The status of one delivery."""
        name, at, signature = (headers[f"webhook-{what}"] for what in ("id", "timestamp", "signature"))
        if not verify([SECRET], name, at, body, signature, now_s=time.time()):
            self.faults.append(f"{name}: wrong signature")
        if json.loads(body)["id"] != name:
            self.faults.append(f"{name}: carries {json.loads(body)['id']}")
        n = self.posts[path] = self.posts.get(path, 0) + 1
        status = self.answers[n - 1] if n <= len(self.answers) else 200
        if status == 200:
            self.taken.setdefault(path, []).append(name)
        return status

    def sink(self, path: str = "/", **changed: Any) -> dict[str, Any]:
        """The configuration of a sink that posts here."""
        made = {"kind": "webhook", "url": f"http://127.0.0.1:{self.port}{path}", "secret": SECRET}
        return made | {"allow_http": True, "allow_private": ["127.0.0.0/8"]} | changed


@contextlib.contextmanager
def receiving(receiver: Receiver) -> Iterator[Receiver]:
    """Listens until the end of the block."""
    lock = threading.Lock()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = self.rfile.read(length)
            if len(body) < length:  # the sender was killed amid the body: there is no delivery to judge
                return
            with lock:
                status = receiver.post(self.path, self.headers, body)
            with contextlib.suppress(OSError):  # the sender may be killed meanwhile
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""The sidecar fed over HTTP: what was answered with 200 is in the decisions, also after a SIGKILL at any time."""

import contextlib
import http.client
import json
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sidecar import (
    TIME,
    Event,
    Receiver,
    decided,
    drifting,
    fill,
    receiving,
    replayed,
    rounded,
    said,
    webhook_ids,
    write_config,
    write_events,
)

from driftwatch import dead_letters

FEW_DRIFTS = (0, 1.5, 1.5, 0, 0, 0, 0, 0)
KSERVE = "org.kubeflow.serving.inference."
Body = tuple[str, bytes, dict[str, str]]


@dataclass
class Sidecar:
    """`driftwatch run` as a process; `live` starts it, again and again on the same port."""

    config: Path
    port: int
    metrics_port: int
    log: Path
    lives: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def live(self) -> None:
        """Starts it."""
        with self.log.open("ab") as errors:
            command = [sys.executable, "-m", "driftwatch", "run", "-c", str(self.config)]
            self.lives.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors))

    def end(self, number: int) -> int:
        """Ends it by a signal; its exit code."""
        self.lives[-1].send_signal(number)
        return self.lives[-1].wait()

    def get(self, path: str) -> tuple[int, str]:
        """What the probes' port answers."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=10)) as client:
            client.request("GET", path)
            reply = client.getresponse()
            return reply.status, reply.read().decode()

    def counted(self, series: str) -> float:
        """A figure of /metrics, summed over its series."""
        found = re.findall(rf"^{series}\S* (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return sum(map(float, found))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def sidecar(folder: Path, source: dict[str, Any] | None = None, **changed: Any) -> Iterator[Sidecar]:
    port, metrics_port = free_port(), free_port()
    config = write_config(
        folder,
        source={"kind": "http", "port": port, "host": "127.0.0.1"} | (source or {}),
        sinks=[{"kind": "prometheus", "port": metrics_port, "host": "127.0.0.1"}, *changed.pop("sinks", ())],
        window=TIME,
        **changed,
    )
    found = Sidecar(config, port, metrics_port, folder / "run.log")
    found.live()
    try:
        yield found
    finally:
        if found.lives[-1].poll() is None:
            found.end(signal.SIGKILL)


class Sender:
    """Posts bodies one after the other over one connection; says it again until it is answered with 200."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._client: http.client.HTTPConnection | None = None

    def send(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        """Says it again until it is taken."""
        while self.once(path, body, headers) != 200:
            time.sleep(0.02)

    def once(self, path: str, body: bytes, headers: dict[str, str]) -> int | None:
        """The answer's status; None where none came."""
        try:
            if self._client is None:
                self._client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            self._client.request("POST", path, body, headers)
            reply = self._client.getresponse()
            reply.read()
            return reply.status
        except (OSError, http.client.HTTPException):
            self.close()
            return None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def plain(events: Sequence[Event]) -> list[Body]:
    return [("/v1/predictions", json.dumps(e).encode(), {"content-type": "application/json"}) for e in events]


def lines(events: Sequence[Event], n: int = 50) -> list[Body]:
    """So many events a body."""
    bodies = [b"\n".join(json.dumps(e).encode() for e in events[i : i + n]) for i in range(0, len(events), n)]
    return [("/v1/predictions", body, {"content-type": "application/x-ndjson"}) for body in bodies]


def logged(events: Sequence[Event]) -> list[Body]:
    """As a model server's logger sends them, a request and a response each, some responses long after."""
    dice = random.Random(1)
    bodies: list[tuple[float, Body]] = []
    for at, event in enumerate(events):
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event["time"]))
        for type, data, lag in (
            ("request", {"instances": [list(event["features"].values())]}, 0.0),
            ("response", {"predictions": [event["prediction"]]}, dice.uniform(-3, 20)),
        ):
            headers = {"ce-specversion": "1.0", "ce-id": event["id"], "ce-source": "http://localhost:9081/"}
            headers |= {"ce-type": KSERVE + type, "ce-time": stamp, "content-type": "application/json"}
            bodies.append((at + lag, ("/", json.dumps(data).encode(), headers)))
    return [body for _, body in sorted(bodies, key=lambda b: b[0])]


def until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.05)


def judged(config: Path, n: int) -> Callable[[], bool]:
    """Whether so many windows are decided."""
    return lambda: (config.parent / "state" / "state.db").exists() and len(decided(config)) >= n


@pytest.mark.parametrize("form", [plain, lines, logged])
def test_decisions_are_those_of_a_replay_of_the_same_events_as_a_file(
    folder: Path, form: Callable[[Sequence[Event]], list[Body]]
) -> None:
    stream = drifting(FEW_DRIFTS)
    want = replayed(write_config(folder, window=TIME), write_events(folder / "events.jsonl", stream))
    with sidecar(folder) as running, contextlib.closing(Sender(running.port)) as sender:
        for body in form(stream):
            sender.send(*body)
        until(judged(running.config, len(want) - 1))
        assert running.end(signal.SIGTERM) == 0
        # The last window is open: more may come.
        assert rounded(decided(running.config)) == rounded(want[:-1])


def kill_at_random(
    folder: Path, form: Callable[[Sequence[Event]], list[Body]], times: int, dice: random.Random
) -> None:
    """Bodies are sent on and on while the sidecar is killed so many times; then all of them are in its decisions."""
    stream = drifting(FEW_DRIFTS)
    want = replayed(write_config(folder, window=TIME), write_events(folder / "events.jsonl", stream))[:-1]
    bodies = form(stream)
    with receiving(Receiver([503, 200, 503])) as receiver, sidecar(folder, sinks=[receiver.sink()]) as running:
        sender, n_killed = Sender(running.port), 0

        def send() -> None:
            for i, body in enumerate(bodies):
                while i * (times + 1) // len(bodies) > n_killed:  # each life is sent its share
                    time.sleep(0.01)
                sender.send(*body)

        thread = threading.Thread(target=send)
        thread.start()
        for _ in range(times):
            until(lambda: listens(running.port))
            time.sleep(dice.uniform(0.0, 0.5))
            assert running.end(signal.SIGKILL) == -signal.SIGKILL
            n_killed += 1
            running.live()
        thread.join()
        sender.close()
        until(judged(running.config, len(want)))
        until(lambda: webhook_ids(want) <= set(receiver.taken.get("/", [])))
        assert running.end(signal.SIGTERM) == 0
        assert rounded(decided(running.config)) == rounded(want)
        assert set(receiver.taken["/"]) == webhook_ids(want)
        assert receiver.faults == []


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_killed_at_random_times_every_acknowledged_body_is_in_the_decisions(folder: Path) -> None:
    kill_at_random(folder, logged, 5, random.Random(1))


@pytest.mark.slow
@pytest.mark.parametrize("form", [plain, lines, logged])
def test_killed_many_times_every_acknowledged_body_is_in_the_decisions(
    folder: Path, form: Callable[[Sequence[Event]], list[Body]]
) -> None:
    kill_at_random(folder, form, 17, random.Random(2))


def test_what_cannot_be_used_lies_in_the_dead_letters_and_is_counted(folder: Path) -> None:
    tokens = {"tokens_file": str(write_tokens(folder))}
    with sidecar(folder, tokens) as running, contextlib.closing(Sender(running.port)) as sender:
        head = {"authorization": "Bearer s3cret"}
        sender.send("/v1/predictions", b"{broken", head)
        far = b'{"id": 2, "time": 1790000000}'
        deep = b'{"id": 1, "time": 1700000000, "deep": ' + b"[" * 32 + b"]" * 32 + b"}"
        lines = b"\n".join([b'{"id": 1, "time": 1700000000}', b"no", far, deep])
        sender.send("/v1/predictions", lines, head | {"content-type": "application/x-ndjson"})
        attributes = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "io.other"}
        sender.send("/", b"{}", head | attributes)
        until(lambda: running.counted('driftwatch_records_discarded_total{.*reason="unknown_type"') == 1)  # the last
        assert running.counted('driftwatch_records_total{.*outcome="poison"') == 3
        assert running.counted('driftwatch_records_total{.*outcome="used"') == 1
        assert running.get("/readyz")[0] == 200
        (folder / "tokens").write_text("another")
        until(lambda: sender.once("/v1/predictions", b"[]", {"authorization": "Bearer another"}) == 200)
        assert sender.once("/v1/predictions", b"[]", head) == 401
        assert running.end(signal.SIGTERM) == 0
    found = [(entry.reason, entry.payload) for entry in dead_letters.entries(folder / "state" / "dead")]
    assert found == [("structure", b"{broken"), ("structure", b"no"), ("depth", deep), ("ahead", far)]


def write_tokens(folder: Path) -> Path:
    path = folder / "tokens"
    path.write_text("other\n\ns3cret\n")
    return path


def test_a_spool_that_is_full_refuses_and_is_not_ready_until_there_is_room(folder: Path) -> None:
    stream = drifting(FEW_DRIFTS)
    want = replayed(write_config(folder, window=TIME), write_events(folder / "events.jsonl", stream))[:-1]
    bodies = plain(stream)
    with (
        sidecar(folder, {"spool": {"max_bytes": "100KiB"}}) as running,
        contextlib.closing(Sender(running.port)) as sender,
    ):
        until(lambda: listens(running.port))
        until(lambda: running.get("/readyz")[0] == 200)
        with contextlib.closing(sqlite3.connect(folder / "state" / "state.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # nothing can be judged while another holds the state
            n_sent = 0
            while (status := sender.once(*bodies[n_sent])) == 200:
                n_sent += 1
            assert status == 503
            until(lambda: "spool.max_bytes" in running.get("/readyz")[1])
            assert running.get("/readyz")[0] == 503
            until(lambda: running.counted('driftwatch_http_requests_total{.*status="503"') == 1)
            assert (
                running.counted("driftwatch_spool_max_bytes") == 100 * 1024 >= running.counted("driftwatch_spool_bytes")
            )
        until(lambda: running.get("/readyz")[0] == 200)
        for body in bodies[n_sent:]:
            sender.send(*body)
        until(judged(running.config, len(want)))
        assert rounded(decided(running.config)) == rounded(want)


def test_a_disk_that_is_full_refuses_and_is_not_ready_until_there_is_room(folder: Path, tiny_folder: Path) -> None:
    stream = drifting(FEW_DRIFTS)
    want = replayed(write_config(folder, window=TIME), write_events(folder / "events.jsonl", stream))[:-1]
    bodies, ballast = plain(stream), tiny_folder / "ballast"
    with (
        sidecar(folder, {"durable": "fsync"}, state={"path": str(tiny_folder / "state.db")}) as running,
        contextlib.closing(Sender(running.port)) as sender,
    ):
        until(lambda: listens(running.port))
        until(lambda: running.get("/readyz")[0] == 200)
        n_sent = 0
        while (status := sender.once(*bodies[n_sent])) == 200:
            n_sent += 1
            if n_sent == 300:
                fill(ballast)
        assert status == 503
        until(lambda: "the spool cannot be read or written: No space left" in running.get("/readyz")[1])
        assert running.get("/readyz")[0] == 503
        ballast.unlink()
        until(lambda: running.get("/readyz")[0] == 200)
        for body in bodies[n_sent:]:
            sender.send(*body)
        until(lambda: len(decided(running.config)) >= len(want))
        assert running.end(signal.SIGTERM) == 0
        assert rounded(decided(running.config)) == rounded(want)


def test_a_port_that_is_taken_is_said_at_once(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        settings = write_config(folder, source={"kind": "http", "port": port, "host": "127.0.0.1"}, window=TIME)
        found = said("run", "-c", settings)
    assert found.code == 2
    assert "`port` must be free" in found.err

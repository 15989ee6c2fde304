"""What the HTTP source takes: requests a second and how long each waits, beside a server that keeps nothing.

`python -m benchmarks.http` writes docs/http_speed.md. The server and its pipeline run on one core, the sender on the
others; a request is one event of a model server's logger, requests and responses in turn, 25 features, about 700 bytes.
"""

import argparse
import asyncio
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import yaml

from benchmarks import document, speed
from driftwatch.sources.connection import OK, Answer, Connection, Request

RATE, SECONDS, CONNECTIONS = 5000, 20, 32
EVENTS = 40_000  # different ones; they are sent again under other ids
EVENT_RATE = 2500  # rows a second of event time
WINDOW_S = 5
BURST = 60_000  # requests sent as fast as they are answered


def request_bytes(number: int, features: list[object]) -> bytes:
    """One request of the logger: request and response of a row in turn."""
    row, is_response = divmod(number, 2)
    kind = "response" if is_response else "request"
    body = msgspec.json.encode({"predictions": [0.5]} if is_response else {"instances": [features]})
    stamp = np.datetime64(int((speed.T0_S + row / EVENT_RATE) * 1e6), "us")
    head = (
        "POST / HTTP/1.1\r\nHost: driftwatch:8080\r\nUser-Agent: Go-http-client/1.1\r\n"
        f"Content-Length: {len(body)}\r\nCe-Component: predictor\r\nCe-Endpoint: default\r\nCe-Id: r{row}\r\n"
        "Ce-Inferenceservicename: speed\r\nCe-Namespace: models\r\nCe-Source: http://localhost:9081/\r\n"
        f"Ce-Specversion: 1.0\r\nCe-Time: {stamp}Z\r\nCe-Type: org.kubeflow.serving.inference.{kind}\r\n"
        "Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    return head.encode() + body


def requests(start: int) -> Iterator[bytes]:
    """Requests from a number on, without end."""
    drawn = [column.tolist() for column in speed.columns(EVENTS, np.random.default_rng(3)).values()]
    rows = list(zip(*drawn, strict=True))
    while True:
        yield request_bytes(start, list(rows[start // 2 % EVENTS]))
        start += 1


@dataclass
class Client(asyncio.Protocol):
    """One connection: sends one request at a time, notes how long the answer took."""

    done: "Callable[[Client], None]"
    transport: asyncio.Transport | None = None
    due_s: float = 0.0
    waits_s: list[float] = field(default_factory=list)
    failed: int = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, data: bytes, due_s: float) -> None:
        """A request that was due at a time."""
        assert self.transport is not None
        self.due_s = due_s
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self.waits_s.append(time.perf_counter() - self.due_s)
        self.failed += not data.startswith(b"HTTP/1.1 200")
        self.done(self)


async def load(port: int, prepared: list[bytes], rate: float | None) -> tuple[np.ndarray, float, int]:
    """Sends all, so many a second (None: as fast as they are answered) → waits, seconds it took, failures.

    A wait counts from when the request was due, not from when a connection was free for it.
    """
    loop = asyncio.get_running_loop()
    free: asyncio.Queue[Client] = asyncio.Queue()
    clients = []
    for _ in range(CONNECTIONS):
        _, client = await loop.create_connection(lambda: Client(free.put_nowait), "127.0.0.1", port)
        clients.append(client)
        free.put_nowait(client)
    began = time.perf_counter()
    for i, data in enumerate(prepared):
        due_s = time.perf_counter() if rate is None else began + i / rate
        if (wait_s := due_s - time.perf_counter()) > 0.001:
            await asyncio.sleep(wait_s)
        client = await free.get()
        client.send(data, max(due_s, 0.0))
    for _ in clients:
        await free.get()
    took_s = time.perf_counter() - began
    for client in clients:
        assert client.transport is not None
        client.transport.close()
    return np.concatenate([c.waits_s for c in clients]), took_s, sum(c.failed for c in clients)


class Bare:
    """Answers 200 and keeps nothing."""

    def opened(self, connection: Connection) -> Answer | None:
        return None

    def closed(self, connection: Connection) -> None: ...

    def held(self, n_bytes: int) -> None: ...

    def refused(self, request: Request) -> Answer | None:
        return None

    def take(self, request: Request, connection: Connection) -> Answer | None:
        return OK

    def answered(self, status: int) -> None: ...


def serve_bare(port: int) -> None:
    """The server without anything behind it."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(Bare(), loop.time()), "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(serve())


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def configure(folder: Path, port: int, metrics_port: int) -> Path:
    """The configuration of a sidecar, and its profile."""
    path = speed.configure(folder)
    settings = yaml.safe_load(path.read_text("utf-8"))
    settings["window"] = {"length": f"{WINDOW_S}s", "lateness": "2s"}
    settings["events"]["prediction"] = {"kind": "numeric"}
    settings["alarms"] = {"budget": "1 per 1000 windows"}
    settings["source"] = {"kind": "http", "port": port, "host": "127.0.0.1"}
    settings["sinks"] = [{"kind": "prometheus", "port": metrics_port, "host": "127.0.0.1"}]
    settings["state"] = {"path": "state/state.db"}
    with (folder / "reference.csv").open("r+", encoding="utf-8") as file:
        head, *rows = file.read().splitlines()
        file.seek(0)
        dice = np.random.default_rng(4).random(len(rows))
        file.write("\n".join([f"{head},prediction", *(f"{r},{d}" for r, d in zip(rows, dice, strict=True))]) + "\n")
    path.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    command = [sys.executable, "-m", "driftwatch", "profile", str(folder / "reference.csv"), "-c", str(path)]
    subprocess.run([*command, "-o", str(folder / "reference.profile")], check=True, capture_output=True)
    return path


@contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """A process on the first core until it listens and to the end of the block; its id."""
    cores = os.sched_getaffinity(0)
    first = {min(cores)}
    os.sched_setaffinity(0, first)  # a child begins where its parent is
    child = subprocess.Popen(command)
    os.sched_setaffinity(0, cores - first or cores)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield child.pid
    finally:
        child.terminate()
        child.wait()
        os.sched_setaffinity(0, cores)


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def core_s(pid: int) -> float:
    """CPU seconds that the core of a process has given, to whomever."""
    core = f"cpu{min(os.sched_getaffinity(pid))} "
    line = next(line for line in Path("/proc/stat").read_text("utf-8").splitlines() if line.startswith(core))
    user, nice, system, _, _, *interrupts = map(int, line.split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGESIZE") / speed.MB


def used(metrics_port: int) -> int:
    """Rows that the sidecar has used."""
    with closing(http.client.HTTPConnection("127.0.0.1", metrics_port, timeout=30)) as client:
        client.request("GET", "/metrics")
        text = client.getresponse().read().decode()
    return sum(int(float(line.rpartition(" ")[2])) for line in text.splitlines() if 'outcome="used"' in line)


def row(what: str, pid: int, port: int, start: int, rate: float | None) -> list[str]:
    """One line of the table."""
    n = BURST if rate is None else int(rate * SECONDS)
    stream = requests(start)
    prepared = [next(stream) for _ in range(n)]
    before_s, core_before_s, before_mb = cpu_s(pid), core_s(pid), rss_mb(pid)
    waits_s, took_s, failed = asyncio.run(load(port, prepared, rate))
    p50, p99 = np.quantile(waits_s, [0.5, 0.99]) * 1e3
    spent_s = cpu_s(pid) - before_s
    others = max(0.0, core_s(pid) - core_before_s - spent_s) / took_s
    figures = [f"{n / took_s:,.0f}", f"{p50:.1f}", f"{p99:.1f}", f"{spent_s / n * 1e6:.0f}", f"{100 * others:.0f}"]
    return [what, *figures, f"{before_mb:.0f} → {rss_mb(pid):.0f}", str(failed)]


def main() -> None:
    """Measures and writes the document."""
    parser = document.parser(__doc__)
    parser.add_argument("--bare", type=int, metavar="PORT", help=argparse.SUPPRESS)
    if port := parser.parse_args().bare:
        serve_bare(port)
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port, metrics_port = free_port(), free_port()
        config = configure(folder, port, metrics_port)
        bare_port = free_port()
        with running([sys.executable, "-m", "benchmarks.http", "--bare", str(bare_port)], bare_port) as pid:
            rows.append(row("bare, as fast as it goes", pid, bare_port, 0, None))
            rows.append(row(f"bare, {RATE:,}/s", pid, bare_port, 0, RATE))
        with running([sys.executable, "-m", "driftwatch", "run", "-c", str(config)], port) as pid:
            time.sleep(3)
            rows.append(row(f"driftwatch, {RATE:,}/s", pid, port, 0, RATE))
            rows.append(row(f"driftwatch, {RATE:,}/s again", pid, port, RATE * SECONDS, RATE))
            rows.append(row("driftwatch, as fast as it goes", pid, port, 2 * RATE * SECONDS, None))
            sent, began = (2 * RATE * SECONDS + BURST) // 2, time.monotonic()
            while (found := used(metrics_port)) < sent and time.monotonic() - began < 60:
                time.sleep(0.2)
    head = ["server", "requests/s", "p50 ms", "p99 ms", "CPU µs a request", "others %", "RSS MB", "not 200"]
    body = [
        "Requests of a model server's logger, request and response of a row in turn, 25 features, over "
        f"{CONNECTIONS} connections; the server on one core, the sender on the others. Bare: our server with an answer "
        "and nothing kept. driftwatch judges what it takes meanwhile, in the same process. The bar: 5,000 requests a "
        "second, p99 under 10 ms, nothing lost. Others: the share of the server's core that other programs of the "
        "machine had meanwhile; with much more than a third 5,000 requests a second do not fit into what is left, and "
        "the waits grow to a second: they are the machine's.",
        document.table(head, rows),
        f"{sent:,} rows sent to driftwatch, {found:,} used.",
    ]
    document.write("http_speed", "Speed over HTTP", document.command(), body)
    print("\n\n".join(body))


if __name__ == "__main__":
    main()

"""What batching and a shadow cost and bring: python -m benchmarks.modelops_serving

Real processes on loopback: model servers (HistGradientBoosting), the router, this client. Ratios within one run, as all
share the machine. Batching: closed loop, 64 clients, `max_batch: 1` against 64. Shadow: open loop at a quarter of the
router's capacity, latency from the intended time of sending, pairs in alternation. Writes docs/modelops_serving.md.
"""

import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import numpy as np

from benchmarks import document
from modelops.asgi import listen, server
from modelops.metrics import ServiceMetrics
from modelops.router import Router, Table, Target
from tests.modelops import served_model, world
from tests.modelops.service import free_port

SECONDS = 5.0
CLIENTS = 64
PAIRS = 10


@asynccontextmanager
async def model_server(config: Path, version: int) -> AsyncIterator[str]:
    """`modelops predict` of a version."""
    port = free_port()
    words = ["predict", "-c", str(config), "--model", "credit", "--version", str(version), "--port", str(port)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "modelops", *words, stderr=asyncio.subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    await until_ready(f"{url}/readyz")
    try:
        yield url
    finally:
        process.terminate()
        await process.wait()


async def until_ready(url: str) -> None:
    """Waits for a 200."""
    async with aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientError):
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)


def bodies(n: int) -> list[bytes]:
    """Requests of one row."""
    return [json.dumps({"instances": [row]}).encode() for row in world.features(n, 3)]


async def closed_loop(url: str) -> tuple[float, float]:
    """Requests a second of CLIENTS that ask one after the other, and p99 in milliseconds."""
    asked, latencies = bodies(1000), []
    until_s = time.perf_counter() + SECONDS
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client(number: int) -> None:
            i = number
            while (began_s := time.perf_counter()) < until_s:
                async with session.post(f"{url}/v1/models/credit:predict", data=asked[i % 1000]) as answer:
                    await answer.read()
                    assert answer.status == 200
                latencies.append(time.perf_counter() - began_s)
                i += CLIENTS

        await asyncio.gather(*(client(i) for i in range(CLIENTS)))
    return len(latencies) / SECONDS, 1000 * float(np.quantile(latencies, 0.99))


async def open_loop(url: str, rate: float) -> list[float]:
    """Latencies in milliseconds from the intended time of sending."""
    asked, latencies = bodies(1000), []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began_s = time.perf_counter()

        async def ask(i: int, due_s: float) -> None:
            async with session.post(f"{url}/v1/models/credit:predict", data=asked[i % 1000]) as answer:
                await answer.read()
            latencies.append(1000 * (time.perf_counter() - due_s))

        tasks = []
        for i in range(int(rate * SECONDS)):
            due_s = began_s + i / rate
            await asyncio.sleep(max(due_s - time.perf_counter(), 0))
            tasks.append(asyncio.create_task(ask(i, due_s)))
        await asyncio.gather(*tasks)
    return latencies


def made(folder: Path, max_batch: int) -> Path:
    """A configuration with two registered versions."""
    entry = {"server": {"max_batch": max_batch, "max_wait_ms": 2.0 if max_batch > 1 else 0.0}}
    config = world.make_folder(folder, entry=entry)
    served_model.register(config, n_versions=2, kind="hist_gradient_boosting")
    return config


async def batching(folder: Path) -> str:
    """One by one against batches, as a table."""
    found = {}
    for max_batch in (1, 64):
        async with model_server(made(folder / str(max_batch), max_batch), 1) as url:
            await closed_loop(url)
            found[max_batch] = await closed_loop(url)
    one, many = found[1], found[64]
    rows = [[f"`max_batch: {n}`", f"{rate:,.0f}", f"{p99_ms:.0f}"] for n, (rate, p99_ms) in found.items()]
    rows.append(["ratio", f"{many[0] / one[0]:.1f}", f"{many[1] / one[1]:.2f}"])
    return document.table(["", "requests/s", "p99, ms"], rows)


def route(port: int, tables: Connection) -> None:
    """The router as a process of its own, which takes its tables from a pipe."""

    async def serve() -> None:
        router = Router(ServiceMetrics())
        http = server(router)
        loop = asyncio.get_running_loop()
        loop.add_reader(tables.fileno(), lambda: router.switch("credit", tables.recv()))
        await http.serve(sockets=[listen("127.0.0.1", port)])

    asyncio.run(serve())


async def shadow(folder: Path) -> list[str]:
    """The router without and with copies to a second version: capacity in words, a table."""
    config = made(folder / "shadow", 64)
    port, (ours, theirs) = free_port(), multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=route, args=(port, theirs), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{port}"
    try:
        async with model_server(config, 1) as first, model_server(config, 2) as second:
            plain = Table((Target(1, first, 1.0),))
            copied = Table((Target(1, first, 1.0),), mirror=Target(2, second, 0.0))
            ours.send(plain)
            await until_ready(f"{url}/readyz")
            await closed_loop(url)
            capacity, _ = await closed_loop(url)
            ratios: dict[float, list[float]] = {0.5: [], 0.99: []}
            for i in range(PAIRS):
                found = {}
                for table in (plain, copied) if i % 2 else (copied, plain):
                    ours.send(table)
                    found[table] = await open_loop(url, capacity / 4)
                for q, kept in ratios.items():
                    kept.append(float(np.quantile(found[copied], q) / np.quantile(found[plain], q)))
    finally:
        process.kill()
    rows = [
        [f"p{100 * q:.0f}", f"{statistics.median(kept):.2f}", f"{min(kept):.2f} to {max(kept):.2f}"]
        for q, kept in ratios.items()
    ]
    said = f"The router's capacity was {capacity:,.0f} requests a second, so {capacity / 4:,.0f} were sent."
    return [said, document.table(["latency with a shadow / without", f"median of {PAIRS} pairs", "range"], rows)]


def main() -> None:
    """Both, in a folder that goes."""
    document.parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        batches = asyncio.run(batching(Path(folder)))
        copies = asyncio.run(shadow(Path(folder)))
    heads = (
        "## Dynamic batching\n\nOne model server, 64 clients that ask one after the other for one row each.",
        "## A shadow\n\nThe router sends copies of all requests to a second version. Open loop, latency from the "
        "intended time of sending; with and without copies in alternation.",
    )
    body = [heads[0], batches, heads[1], *copies]
    print("\n\n".join(body))
    document.write("modelops_serving", "Serving: batches and shadows", document.command(), body)


if __name__ == "__main__":
    main()

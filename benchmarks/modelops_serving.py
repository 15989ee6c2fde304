"""What batching and a shadow cost and bring: python -m benchmarks.modelops_serving

Real processes on loopback, a HistGradientBoosting model of 100 trees, requests of one row. Ratios within one run: the
client shares the machine with the servers. Batching: closed loop, 64 clients, `max_batch: 1` against 64. Shadow: open
loop at a quarter of the router's capacity, latency from the intended time of sending, pairs in alternation.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np

from modelops.asgi import listen, server
from modelops.metrics import ServiceMetrics
from modelops.router import Router, Table, Target
from tests.modelops import served_model, world

SECONDS = 5.0
CLIENTS = 64
PAIRS = 5


@asynccontextmanager
async def model_server(config: Path, version: int) -> AsyncIterator[str]:
    """`modelops predict` of a version."""
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    words = ["predict", "-c", str(config), "--model", "credit", "--version", str(version), "--port", str(port)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "modelops", *words, stderr=asyncio.subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        break
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
    try:
        yield url
    finally:
        process.terminate()
        await process.wait()


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


async def batching(folder: Path, say: Callable[[str], None]) -> None:
    """One by one against batches."""
    found = {}
    for max_batch in (1, 64):
        async with model_server(made(folder / str(max_batch), max_batch), 1) as url:
            await closed_loop(url)
            found[max_batch] = await closed_loop(url)
            rate, p99_ms = found[max_batch]
            say(f"max_batch {max_batch:3}: {rate:7.0f} requests/s, p99 {p99_ms:6.1f} ms")
    say(f"throughput {found[64][0] / found[1][0]:.1f} times, p99 {found[64][1] / found[1][1]:.2f} times")


async def shadow(folder: Path, say: Callable[[str], None]) -> None:
    """The router without and with copies to a second version."""
    config = made(folder / "shadow", 64)
    router = Router(ServiceMetrics())
    listener = listen("127.0.0.1", 0)
    http = server(router)
    task = asyncio.create_task(http.serve(sockets=[listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with model_server(config, 1) as first, model_server(config, 2) as second:
        plain = Table((Target(1, first, 1.0),))
        copied = Table((Target(1, first, 1.0),), mirror=Target(2, second, 0.0))
        router.switch("credit", plain)
        capacity, _ = await closed_loop(url)
        say(f"router: {capacity:.0f} requests/s; open loop at {capacity / 4:.0f}")
        ratios: dict[float, list[float]] = {0.5: [], 0.99: []}
        for i in range(PAIRS):
            found = {}
            for table in (plain, copied) if i % 2 else (copied, plain):
                router.switch("credit", table)
                found[table] = await open_loop(url, capacity / 4)
            for q, kept in ratios.items():
                kept.append(float(np.quantile(found[copied], q) / np.quantile(found[plain], q)))
        for q, kept in ratios.items():
            say(f"shadow: p{100 * q:.0f} {statistics.median(kept):.2f} times (median of {PAIRS} pairs)")
    http.should_exit = True
    await task
    await router.close()


def main() -> None:
    """Both, in a folder that goes."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(batching(Path(folder), print))
        asyncio.run(shadow(Path(folder), print))


if __name__ == "__main__":
    main()

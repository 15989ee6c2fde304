"""Open-loop load: requests at a fixed rate, each at its intended time, whatever became of those before it."""

import asyncio
import json
import threading
import time
from typing import Any, NamedTuple

import aiohttp
import numpy as np

from tests.modelops import world
from tests.modelops.service import wait_for

LEFT_S = 30.0  # for the answers to the last requests


class Answered(NamedTuple):
    """One request: its id, when it was to be sent (s since the load began), how long it took from then, the answer.

    `status` 0: there was no answer. `version`: who answered; empty where nobody did.
    """

    id: str
    due_s: float
    took_ms: float
    status: int
    version: str


class Load:
    """Sends from a thread of its own until it is left. `done` is what was answered so far.

    `keeps`: whether connections are used again.
    """

    def __init__(self, url: str, rate: float, *, name: str = "o", seed: int = 7, keeps: bool = True) -> None:
        self.done: list[Answered] = []
        self._url, self._rate, self._name = f"{url}/v1/models/credit:predict", rate, name
        self._rows = world.features(2000, seed)
        self._began_s, self._keeps = 0.0, keeps
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def failed(self) -> list[Answered]:
        """What was not answered with 200."""
        return [one for one in self.done if one.status != 200]

    @property
    def versions(self) -> dict[str, int]:
        """How many each version answered."""
        found: dict[str, int] = {}
        for one in self.done:
            if one.version:
                found[one.version] = found.get(one.version, 0) + 1
        return dict(sorted(found.items()))

    def wait_for_more(self, n: int) -> None:
        """Waits until n more requests were answered."""
        so_far = len(self.done)
        wait_for(lambda: len(self.done) >= so_far + n)

    def quantile_ms(self, q: float) -> float:
        """A quantile of the time to an answer, from the intended time of sending."""
        return float(np.quantile([one.took_ms for one in self.done if one.status == 200], q))

    def outage_s(self) -> float:
        """From the first request that failed to the last one."""
        due_s = [one.due_s for one in self.failed]
        return max(due_s) - min(due_s) if due_s else 0.0

    def now_s(self) -> float:
        """How long the load lasts, as `due_s` counts."""
        return time.perf_counter() - self._began_s

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=LEFT_S)
        kept: dict[str, Any] = {"keepalive_timeout": 30} if self._keeps else {"force_close": True}
        connector = aiohttp.TCPConnector(limit=0, **kept)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            self._began_s = began_s = time.perf_counter()
            tasks, i = set(), 0
            while not self._stop.is_set():
                due_s = i / self._rate
                await asyncio.sleep(max(began_s + due_s - time.perf_counter(), 0))
                task = asyncio.create_task(self._ask(session, i, began_s, due_s))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                i += 1
            await asyncio.gather(*tasks)

    async def _ask(self, session: aiohttp.ClientSession, i: int, began_s: float, due_s: float) -> None:
        id = f"{self._name}-{i}"
        body = json.dumps({"instances": [self._rows[i % len(self._rows)]], "id": id}).encode()
        status, version = 0, ""
        try:
            async with session.post(self._url, data=body) as answer:
                said = await answer.json(content_type=None)
                status, version = answer.status, said.get("model_version", "") if answer.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass  # status 0
        self.done.append(Answered(id, due_s, 1000 * (time.perf_counter() - began_s - due_s), status, version))

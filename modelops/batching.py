"""Dynamic batching: requests that wait are predicted together, and none waits longer than a bound for others."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")

MOST_WAITING = 2000


class Batcher(Generic[Request, Answer]):
    """Collects requests into batches for one function, which runs in a thread.

    A batch closes when it holds `max_rows`, or when its first request has waited `max_wait_s`. While one batch is
    predicted, the next one fills: under load batches grow by themselves.
    """

    def __init__(
        self,
        predict: Callable[[Sequence[Request]], Sequence[Answer]],
        thread: Executor,
        *,
        max_rows: int,
        max_wait_s: float,
        size: Callable[[Request], int],
    ) -> None:
        self._predict = predict
        self._thread = thread
        self._max_rows, self._max_wait_s = max_rows, max_wait_s
        self._size = size
        self._waiting: asyncio.Queue[tuple[Request, asyncio.Future[Answer]]] = asyncio.Queue()

    def is_full(self) -> bool:
        """Whether so many wait that another one had better be refused."""
        return self._waiting.qsize() >= MOST_WAITING

    async def submit(self, request: Request) -> Answer:
        """The answer to one request. Raises what the function raised for its batch."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((request, future))
        return await future

    async def run(self) -> None:
        """Predicts batch after batch, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            until_s = loop.time() + self._max_wait_s
            n_rows = self._size(batch[0][0])
            while n_rows < self._max_rows:
                try:
                    left_s = until_s - loop.time()
                    if self._waiting.empty() and left_s <= 0:
                        break
                    async with asyncio.timeout(max(left_s, 0) if self._waiting.empty() else None):
                        batch.append(await self._waiting.get())
                except TimeoutError:
                    break
                n_rows += self._size(batch[-1][0])
            predicted = loop.run_in_executor(self._thread, self._predict, [request for request, _ in batch])
            await asyncio.wait([predicted])
            error = predicted.exception()
            if error is not None:
                for _, future in batch:
                    if not future.cancelled():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(batch, predicted.result(), strict=True):
                if not future.cancelled():
                    future.set_result(answer)

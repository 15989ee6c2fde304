"""The model server: answers with one version's predictions and logs them as driftwatch reads them.

A request is answered once its predictions are in the log. A new version is loaded and warmed up beside the old one, and
then takes its place between two batches: no request fails.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec
from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from modelops import artifact, asgi, copies, inference
from modelops.batching import Batcher
from modelops.config import ModelEntry
from modelops.delivery.worker import TIDY_S, Tidying, deliveries
from modelops.errors import ModelopsError, Refused, StateUnavailable
from modelops.inference import Asked
from modelops.metrics import ServerMetrics
from modelops.models import Model
from modelops.prediction_log import PredictionLog, shadow_log
from modelops.registry import Registry, Version
from modelops.state import state_errors

MAX_BODY = 8 << 20
RELOAD_S = 0.5
log = logging.getLogger("modelops")


class Loaded(NamedTuple):
    """A version with its model, ready to predict."""

    version: str
    model: Model


class Work(NamedTuple):
    """A request with its id and when it came; a copy goes to another log."""

    asked: Asked
    id: str
    time_s: float
    is_copy: bool


class Scored(NamedTuple):
    """The answer to a request, and which version gave it."""

    scores: list[float]
    version: str


def load(version: Version) -> Loaded:
    """A version's model, loaded and warmed up. Raises ArtifactError."""
    model = artifact.load(Path(version.artifact), version.sha256)
    for n in (1, 64):
        model.predict(model.encoding.rows([{}] * n))
    return Loaded(str(version.version), model)


def give_way() -> None:
    """Lets every other thread of the machine go before this one: on Linux a priority is a thread's."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


class ModelServer:
    """One model's server, an ASGI app in `app`. `wanted`, asked again and again, says which version is to answer."""

    def __init__(self, name: str, entry: ModelEntry, wanted: Callable[[], Version | None]) -> None:
        self.name = name
        self.metrics = ServerMetrics()
        self._wanted = wanted
        self._loaded: Loaded | None = None
        self._log = PredictionLog(entry.predictions, entry.rotation.max_bytes)
        self._shadow = PredictionLog(shadow_log(entry.predictions), entry.rotation.max_bytes)
        self._deliveries = deliveries(name, entry, self.metrics)
        self._tidying = Tidying(name, entry, self._deliveries, self.metrics)
        self._thread = ThreadPoolExecutor(1, "predict")
        self._copies_thread = ThreadPoolExecutor(1, "copies", initializer=give_way)
        self._is_stopping = False
        self.batcher: Batcher[Work, Scored] = Batcher(
            self._predict,
            self._thread,
            max_rows=entry.server.max_batch,
            max_wait_s=entry.server.max_wait_ms / 1000,
            size=lambda work: len(work.asked.rows),
        )
        self.app = Starlette(
            routes=[
                Route("/v1/models/{name}:predict", self._v1, methods=["POST"]),
                Route("/v2/models/{name}/infer", self._v2, methods=["POST"]),
                Route(copies.PATH, self._copies, methods=["POST"]),
                Route("/v1/models/{name}", self._described),
                Route("/v2/models/{name}", self._described),
                Route("/v2/models/{name}/ready", self._readyz),
                Route("/v2/health/ready", self._readyz),
                Route("/v2/health/live", self._livez),
                Route("/readyz", self._readyz),
                Route("/livez", self._livez),
                Route("/metrics", self._metrics),
            ]
        )

    def load(self) -> bool:
        """Loads the version that is wanted, where it is another one. Raises ModelopsError."""
        version = self._wanted()
        if version is None or (self._loaded is not None and self._loaded.version == str(version.version)):
            return False
        self._loaded = load(version)
        log.info("version %s of %s answers", version.version, self.name)
        return True

    async def keep_loaded(self) -> None:
        """Looks for another version until it is cancelled; one that cannot be loaded leaves the old one in place."""
        while True:
            await asyncio.sleep(RELOAD_S)
            try:
                await asyncio.to_thread(self.load)
            except ModelopsError as error:
                log.warning("%s; the version before it answers on", error)

    async def keep_log(self) -> None:
        """Delivers the log, and deletes its oldest files, until it is cancelled."""
        for delivery in self._deliveries:
            delivery.start()
        while True:
            try:
                await asyncio.to_thread(self._tidying.once)
            except (ModelopsError, OSError) as error:
                log.warning("old prediction logs are not deleted: %s", error)
            await asyncio.sleep(TIDY_S)

    def stop(self) -> None:
        """From now on it is not ready; requests are still answered."""
        self._is_stopping = True

    def close(self) -> None:
        """Closes the logs; what is not delivered lies in them for the next start."""
        self._thread.shutdown()
        self._copies_thread.shutdown()
        for delivery in self._deliveries:
            delivery.stop()
        self._log.close()
        self._shadow.close()

    def _predict(self, batch: Sequence[Work]) -> list[Scored]:
        """One batch on the version that is loaded now, logged."""
        loaded = self._loaded
        if loaded is None:
            raise Refused(503, "no version is loaded yet.")
        rows = [row for work in batch for row in work.asked.rows]
        scores = loaded.model.predict(loaded.model.encoding.rows(rows)).tolist()
        self.metrics.batch.labels(self.name, loaded.version).observe(len(rows))
        answers, start = [], 0
        for work in batch:
            stop = start + len(work.asked.rows)
            answers.append(Scored(scores[start:stop], loaded.version))
            start = stop
        for is_copy, file in ((False, self._log), (True, self._shadow)):
            events = [
                {"id": id, "time": work.time_s, "model": self.name, "version": loaded.version, "features": row,
                 "prediction": score}
                for work, answer in zip(batch, answers, strict=True)
                if work.is_copy == is_copy
                for id, row, score in zip(
                    inference.row_ids(work.id, len(answer.scores)), work.asked.rows, answer.scores, strict=True
                )
            ]  # fmt: skip
            if events:
                self._append(file, events, loaded.version)
        return answers

    def _append(self, file: PredictionLog, events: list[dict[str, object]], version: str) -> None:
        try:
            file.append(events)
        except StateUnavailable as error:  # an answer without a log is worth more than none: it is counted
            self.metrics.unlogged.labels(self.name, version).inc(len(events))
            log.warning("%s", error)

    async def _v1(self, request: Request) -> Response:
        return await self._answered(request, inference.read_v1, is_v2=False)

    async def _v2(self, request: Request) -> Response:
        return await self._answered(request, inference.read_v2, is_v2=True)

    async def _answered(
        self, request: Request, read: Callable[[bytes, Sequence[str]], Asked], *, is_v2: bool
    ) -> Response:
        began_s = time.perf_counter()
        try:
            loaded = self._loaded
            if request.path_params["name"] != self.name:
                raise Refused(404, f"this server has the model {self.name!r} only.")
            if loaded is None or self.batcher.is_full():
                raise Refused(503, "no version is loaded yet, or too many requests wait.", retry_after_s=1)
            time_s = time.time()
            asked = read(await asgi.body_of(request, MAX_BODY), list(loaded.model.encoding.kinds))
            given = asked.id or request.headers.get("x-request-id") or uuid.uuid4().hex
            scored = await self.batcher.submit(Work(asked, given, round(time_s, 6), is_copy=False))
        except Refused as refused:
            self.metrics.errors.labels(self.name, str(refused.status)).inc()
            return asgi.problem(refused)
        self.metrics.predictions.labels(self.name, scored.version).inc(len(scored.scores))
        self.metrics.latency.labels(self.name, scored.version).observe(time.perf_counter() - began_s)
        body = (
            inference.answer_v2(scored.scores, given, self.name, scored.version)
            if is_v2
            else inference.answer_v1(scored.scores, given, scored.version)
        )
        return Response(body, media_type="application/json")

    async def _copies(self, request: Request) -> Response:
        """A bundle of copies: predicted together and logged apart, by a thread that gives way to all others."""
        try:
            if self._loaded is None:
                raise Refused(503, "no version is loaded yet.")
            body = await asgi.body_of(request, copies.MOST_BYTES)
            loop = asyncio.get_running_loop()
            copied = await loop.run_in_executor(self._copies_thread, self._predict_copies, self._loaded, body)
        except Refused as refused:
            return asgi.problem(refused)
        return asgi.json_response(copied)

    def _predict_copies(self, loaded: Loaded, body: bytes) -> copies.Copied:
        try:
            bundle = copies.decode(body)
        except msgspec.MsgspecError as error:
            raise Refused(400, f"the body must be a bundle of copies: {error}") from error
        features, time_s, works = list(loaded.model.encoding.kinds), round(time.time(), 6), []
        for copy in bundle:
            read = inference.read_v2 if copy.path.startswith("/v2/") else inference.read_v1
            with contextlib.suppress(Refused):  # the champion refused it too
                asked = read(copy.body, features)
                works.append(Work(asked, asked.id or copy.id, time_s, is_copy=True))
        if works:
            self._predict(works)
            self.metrics.predictions.labels(self.name, loaded.version).inc(sum(len(w.asked.rows) for w in works))
        return copies.Copied(len(works), 0)

    async def _described(self, request: Request) -> Response:
        if request.path_params["name"] != self.name:
            return asgi.problem(Refused(404, f"this server has the model {self.name!r} only."))
        loaded = self._loaded
        kinds = {} if loaded is None else loaded.model.encoding.kinds
        inputs = [
            {"name": n, "datatype": "FP64" if k == "numeric" else "BYTES", "shape": [-1]} for n, k in kinds.items()
        ]
        versions = [] if loaded is None else [loaded.version]
        outputs = [{"name": "score", "datatype": "FP64", "shape": [-1]}]
        described = {"name": self.name, "versions": versions, "platform": "modelops", "inputs": inputs}
        return asgi.json_response({**described, "outputs": outputs})

    async def _readyz(self, request: Request) -> Response:
        if self._loaded is None or self._is_stopping:
            return asgi.json_response({"model": self.name, "version": None}, 503)
        return asgi.json_response({"model": self.name, "version": self._loaded.version})

    async def _livez(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _metrics(self, request: Request) -> Response:
        return PlainTextResponse(generate_latest(self.metrics.registry))


def wanted_version(registry: Registry, model: str, version: int | None) -> Callable[[], Version | None]:
    """Which version a server answers with: a fixed one, or whichever is the champion."""

    def wanted() -> Version | None:
        number = registry.alias(model, "champion") if version is None else version
        return None if number is None else registry.get(model, number)

    return wanted


def is_named(database: sqlite3.Connection, path: Path, model: str, version: int, port: int) -> bool:
    """Whether the service knows a server under this port: one that it does not know any more ends by itself."""
    with state_errors(path):
        row = database.execute("SELECT port FROM servers WHERE model = ? AND version = ?", (model, version)).fetchone()
    return row is not None and row[0] == port


async def serve(
    server: ModelServer, *, host: str, port: int, said: Callable[[int], None], is_needed: Callable[[], bool]
) -> None:
    """Serves until SIGTERM, SIGINT or until it is not needed; then not ready, and requests in progress are answered.

    `said` is told the port.
    """
    listener = asgi.listen(host, port)
    http = asgi.server(server.app)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.stop()
        http.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await asyncio.to_thread(server.load)

    async def look() -> None:
        while is_needed():
            await asyncio.sleep(1.0)
        stop()

    loops = (server.batcher.run(), server.keep_loaded(), server.keep_log(), look())
    tasks = [asyncio.create_task(job) for job in loops]
    said(listener.getsockname()[1])
    try:
        await http.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        server.close()

"""The ingest server: what is answered to a body, and the thread that takes them in.

A body is answered with 200 once it lies in the spool, whatever it holds: decoding comes later, and a model server that
logs its traffic must not wait for it. Other answers are problem+json.
"""

import asyncio
import logging
import resource
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Literal, NamedTuple

import msgspec

from driftwatch.errors import ConfigError, StoreUnavailable
from driftwatch.media_types import CLOUD_EVENT, CLOUD_EVENTS, JSON, LINES, media_type
from driftwatch.sources import inflation
from driftwatch.sources.connection import OK, STORED, Answer, Connection, Request
from driftwatch.sources.inflation import Inflation
from driftwatch.sources.spool import Body, Spool, SpoolFull
from driftwatch.sources.tokens import Tokens

MAX_INFLATED_BYTES = 64 * 2**20
MAX_HELD_BYTES = 64 * 2**20  # of bodies that are coming in, over all connections
MAX_CONNECTIONS = 1000
REQUEST_S, IDLE_S = 30.0, 120.0  # how long a request may take to come, a connection may stay without one
SYNC_S = 0.002  # bodies of so long share one fsync
SWEEP_S = 1.0
GROUP_BYTES = 8 * 2**20  # of bodies that wait for their common write
_PATHS = frozenset({"/", "/v1/events", "/v1/predictions", "/v1/labels"})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms bodies are taken; `tokens` None: from anyone."""

    max_body: int = 8 * 2**20
    tokens: Tokens | None = None
    full: Literal["refuse", "shed"] = "refuse"
    durable: Literal["write", "fsync"] = "write"
    labels: bool = False  # whether anybody reads them
    predictions: bool = True  # the same


class Taken(NamedTuple):
    """A body on its way into the spool, and who waits for the answer."""

    connection: Connection
    request: Request
    headers: dict[str, str]
    arrived_s: float


class Intake:
    """Decides what becomes of a request; lives in the server's thread.

    Bodies that came in one turn of the loop go into the spool with one write: each write gives the interpreter away,
    and beside a busy pipeline it takes a while to get it back.

    `on_trouble`: told why bodies are refused at present, and None once they are not. `on_answers`: told about once a
    second how many answers of each status were given since. `on_shed`: told of each body that was acknowledged and
    dropped.
    """

    def __init__(
        self,
        spool: Spool,
        terms: Terms,
        *,
        on_trouble: Callable[[str | None], object],
        on_answers: Callable[[Mapping[int, int]], object],
        on_shed: Callable[[], object],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._spool = spool
        self._terms = terms
        self._on_trouble = on_trouble
        self._on_answers = on_answers
        self._on_shed = on_shed
        self._now = now
        self._held_bytes = 0
        self._group: list[tuple[Taken, Body]] = []
        self._group_bytes = 0
        self._inflating: deque[tuple[Taken, Inflation]] = deque()
        self._unsynced: list[Taken] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._n_answers: Counter[int] = Counter()
        self._in_trouble = False
        self.connections: set[Connection] = set()

    # What connections ask -------------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> Answer | None:
        """One too many is told so."""
        self.connections.add(connection)
        most = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)  # the rest is for files
        return _unavailable(f"at most {most} connections are served at once.") if len(self.connections) > most else None

    def closed(self, connection: Connection) -> None:
        """It is served no longer."""
        self.connections.discard(connection)

    def held(self, n_bytes: int) -> None:
        """Bodies in memory, over all connections."""
        self._held_bytes += n_bytes

    def answered(self, status: int) -> None:
        """It is counted."""
        self._n_answers[status] += 1

    def refused(self, request: Request) -> Answer | None:
        """What is wrong with the head, or with the length of what has come."""
        n_bytes = len(request.body)
        if n_bytes == 0:
            wrong = self._refused_head(request)
            if wrong is not None:
                return wrong
            declared = request.headers.get("content-length", "")
            n_bytes = int(declared) if declared.isdecimal() else 0
        if n_bytes > self._terms.max_body:
            return _too_large(f"a body must have at most {self._terms.max_body} bytes (`max_body`).")
        if self._held_bytes > MAX_HELD_BYTES:
            return _unavailable("too many bodies are coming in at once.")
        return None

    def take(self, request: Request, connection: Connection) -> Answer | None:
        """Puts the body into the spool."""
        headers = {name: value for name, value in request.headers.items() if name in STORED}
        wrong = self._misfit(request, headers)
        if wrong is not None:
            return wrong
        taken = Taken(connection, request, headers, self._now())
        if request.body[:2] != inflation.MARK:
            self._add(taken, Body(headers, [request.body], taken.arrived_s))
            return None
        inflating = Inflation(request.body, MAX_INFLATED_BYTES)
        if inflating.step():
            return self._add_inflated(taken, inflating)
        self._inflating.append((taken, inflating))
        self._start("inflate", self._inflate)
        return None

    # --------------------------------------------------------------------------------------------------------------

    def _refused_head(self, request: Request) -> Answer | None:
        if request.path not in _PATHS:
            return Answer(HTTPStatus.NOT_FOUND, "there are /, /v1/events, /v1/predictions and /v1/labels.")
        if request.method != "POST":
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, "only POST.", (("allow", "POST"),))
        tokens = self._terms.tokens
        if tokens is not None and not tokens.admit(request.headers.get("authorization", "")):
            detail = "`Authorization` must be `Bearer` and a token that is known here."
            return Answer(HTTPStatus.UNAUTHORIZED, detail, (("www-authenticate", "Bearer"),))
        if request.path == "/v1/labels" and not self._terms.labels:
            return Answer(HTTPStatus.NOT_IMPLEMENTED, "nobody reads labels here: `events.label` says none.")
        if request.path != "/v1/labels" and not self._terms.predictions:
            detail = "only labels are read here (`labels` in the configuration): they go to /v1/labels."
            return Answer(HTTPStatus.NOT_IMPLEMENTED, detail)
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in {"identity", "gzip", "x-gzip"}:
            return _unsupported(f"`Content-Encoding` must be gzip or absent; got {encoding!r}.")
        return None

    def _misfit(self, request: Request, headers: dict[str, str]) -> Answer | None:
        """What is wrong with what the headers say of the body; drops those that say nothing on this path."""
        said = media_type(headers.get("content-type", ""))
        if request.path in {"/v1/predictions", "/v1/labels"}:
            for name in [name for name in headers if name.startswith("ce-")]:
                del headers[name]
            if said not in JSON | LINES:
                return _unsupported(f"`Content-Type` must be application/json or application/x-ndjson; got {said!r}.")
            return None
        if said in {CLOUD_EVENT, CLOUD_EVENTS}:
            return None
        if said.startswith("application/cloudevents"):
            return _unsupported(f"`Content-Type` must be one of {CLOUD_EVENT}, {CLOUD_EVENTS}; got {said!r}.")
        for name in ("ce-specversion", "ce-id", "ce-source", "ce-type"):
            if not headers.get(name):
                return _bad(f"a CloudEvent must have the header `{name}`; plain JSON goes to /v1/predictions.")
        if headers["ce-specversion"] != "1.0":
            return _bad(f"`ce-specversion` must be 1.0; got {headers['ce-specversion']!r}.")
        if "ce-time" in headers:
            try:
                msgspec.convert(headers["ce-time"], datetime)
            except msgspec.ValidationError:
                return _bad(f"`ce-time` must be RFC 3339; got {headers['ce-time']!r}.")
        return None

    # Into the spool -------------------------------------------------------------------------------------------------

    def _add_inflated(self, taken: Taken, inflating: Inflation) -> Answer | None:
        if inflating.pieces is None:
            return _too_large(f"a body must have at most {MAX_INFLATED_BYTES} bytes once it is inflated.", False)
        self._add(taken, Body(taken.headers, inflating.pieces, taken.arrived_s))
        return None

    def _add(self, taken: Taken, body: Body) -> None:
        if not self._group:
            asyncio.get_running_loop().call_soon(self._write)
        self._group.append((taken, body))
        self._group_bytes += sum(map(len, body.pieces))
        if self._group_bytes > GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        """Writes the bodies of this turn and answers them."""
        group, self._group, self._group_bytes = self._group, [], 0
        if not group:
            return
        answer = OK
        try:
            self._spool.append(*(body for _, body in group))
        except StoreUnavailable as error:
            answer = self._unwritten(error, len(group))
        else:
            if self._in_trouble:
                self._recovered()
            if self._terms.durable == "fsync":
                self._unsynced += [taken for taken, _ in group]
                self._start("sync", self._sync)
                return
        for taken, _ in group:
            taken.connection.finish(taken.request, answer)

    async def _inflate(self) -> None:
        """Goes on with one long body after the other: so many bytes at once would be too much memory."""
        try:
            while self._inflating:
                taken, inflating = self._inflating.popleft()
                while not inflating.step():
                    await asyncio.sleep(0)
                answer = self._add_inflated(taken, inflating)
                if answer is not None:
                    taken.connection.finish(taken.request, answer)
        finally:
            del self._tasks["inflate"]

    async def _sync(self) -> None:
        """Answers what waits for the platter, a group at a time."""
        loop = asyncio.get_running_loop()
        try:
            while self._unsynced:
                await asyncio.sleep(SYNC_S)
                group, self._unsynced = self._unsynced, []
                answer = OK
                try:
                    await loop.run_in_executor(None, self._spool.sync)
                except StoreUnavailable as error:
                    answer = self._unwritten(error, len(group))
                for taken in group:
                    taken.connection.finish(taken.request, answer)
        finally:
            del self._tasks["sync"]

    def _start(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Starts a task unless it runs; it takes itself out at its end."""
        if name not in self._tasks:
            self._tasks[name] = asyncio.get_running_loop().create_task(work())

    def _recovered(self) -> None:
        self._in_trouble = False
        self._on_trouble(None)
        _log.info("bodies are taken again")

    def _unwritten(self, error: StoreUnavailable, n_bodies: int) -> Answer:
        if not self._in_trouble:
            self._in_trouble = True
            self._on_trouble(str(error))
            _log.error("%s", error)
        if isinstance(error, SpoolFull) and self._terms.full == "shed":
            for _ in range(n_bodies):
                self._on_shed()
            return OK
        return _unavailable(str(error))

    def sweep(self, now_s: float) -> None:
        """Ends connections that are too slow, and looks whether a trouble is over and the tokens are others."""
        for connection in list(self.connections):
            if now_s - connection.since_s > (IDLE_S if connection.is_idle else REQUEST_S):
                connection.close()
        if self._in_trouble:
            with suppress(StoreUnavailable):  # then it goes on
                self._spool.probe()
                self._recovered()
        if self._terms.tokens is not None:
            self._terms.tokens.refresh()
        if self._n_answers:
            self._on_answers(self._n_answers)
            self._n_answers = Counter()


class IngestServer:
    """Listens from a daemon thread until `close`. Raises ConfigError where it cannot. Port 0 takes a free one."""

    def __init__(self, host: str, port: int, intake: Intake) -> None:
        try:
            self._socket = socket.create_server((host, port), backlog=1024)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"`port` must be free to listen on at {host!r}; got {port} ({error}). "
                "Stop the process that holds it or choose another port."
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self._intake = intake
        self._loop = asyncio.new_event_loop()
        self._over: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="driftwatch-ingest", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening and answering; what was answered lies in the spool."""
        if not self._over.done():
            self._over.set_result(None)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self._intake, loop.time()), sock=self._socket)
        over = asyncio.wrap_future(self._over)
        while not over.done():
            await asyncio.wait([over], timeout=SWEEP_S)
            self._intake.sweep(loop.time())
        server.close()
        for connection in list(self._intake.connections):
            connection.close()
        await asyncio.sleep(0)


def _bad(detail: str) -> Answer:
    return Answer(HTTPStatus.BAD_REQUEST, detail)


def _unsupported(detail: str) -> Answer:
    return Answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)


def _too_large(detail: str, closes: bool = True) -> Answer:
    return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, closes=closes)


def _unavailable(detail: str) -> Answer:
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, detail, (("retry-after", "1"),), closes=True)

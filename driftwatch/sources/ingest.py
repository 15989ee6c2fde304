"""The ingest server: what is answered to a body, and the thread that takes them in.

A body is answered with 200 once it lies in the spool, whatever it holds: decoding comes later, and a model server that
logs its traffic must not wait for it. Other answers are problem+json.
"""

import asyncio
import hmac
import logging
import socket
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Literal

import msgspec

from driftwatch.errors import ConfigError, StoreUnavailable
from driftwatch.sources.connection import OK, Answer, Connection, Request
from driftwatch.sources.spool import Spool, SpoolFull

MAX_INFLATED_BYTES = 64 * 2**20
MAX_HELD_BYTES = 64 * 2**20  # of bodies that are coming in, over all connections
MAX_CONNECTIONS = 1000
REQUEST_S, IDLE_S = 30.0, 120.0  # how long a request may take to come, a connection may stay without one
SYNC_S = 0.002  # bodies of so long share one fsync
SWEEP_S = 1.0
GZIP = b"\x1f\x8b"
JSON_TYPES = frozenset({"", "application/json", "text/json"})
LINES_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})
CLOUD_EVENTS = frozenset({"application/cloudevents+json", "application/cloudevents-batch+json"})
_PATHS = frozenset({"/", "/v1/events", "/v1/predictions", "/v1/labels"})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms bodies are taken; `tokens` empty: from anyone."""

    max_body: int = 8 * 2**20
    tokens: Sequence[str] = ()
    full: Literal["refuse", "shed"] = "refuse"
    durable: Literal["write", "fsync"] = "write"
    labels: bool = False  # whether anybody reads them


class Intake:
    """Decides what becomes of a request; lives in the server's thread.

    `on_trouble`: told why bodies are refused at present, and None once they are not. `on_shed`: told of each body that
    was acknowledged and dropped.
    """

    def __init__(
        self,
        spool: Spool,
        terms: Terms,
        *,
        on_trouble: Callable[[str | None], object],
        on_shed: Callable[[], object],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._spool = spool
        self._terms = terms
        self._on_trouble = on_trouble
        self._on_shed = on_shed
        self._now = now
        self._tokens = [f"Bearer {token}".encode() for token in terms.tokens]
        self._held_bytes = 0
        self._unsynced: list[tuple[Connection, Request]] = []
        self._syncing: asyncio.Task[None] | None = None
        self.connections: set[Connection] = set()
        self._in_trouble = False

    # What connections ask -------------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> Answer | None:
        """One too many is told so."""
        self.connections.add(connection)
        if len(self.connections) > MAX_CONNECTIONS:
            return _unavailable(f"at most {MAX_CONNECTIONS} connections are served at once.")
        return None

    def closed(self, connection: Connection) -> None:
        """It is served no longer."""
        self.connections.discard(connection)

    def held(self, n_bytes: int) -> None:
        """Bodies in memory, over all connections."""
        self._held_bytes += n_bytes

    def refused(self, request: Request) -> Answer | None:
        """What is wrong with the head, or with the length of what has come."""
        if request.n_bytes == 0:
            wrong = self._refused_head(request)
            if wrong is not None:
                return wrong
        declared = request.headers.get("content-length", "")
        n_bytes = max(request.n_bytes, int(declared) if declared.isdecimal() else 0)
        if n_bytes > self._terms.max_body:
            return _too_large(f"a body must have at most {self._terms.max_body} bytes (`source.max_body`).")
        if self._held_bytes > MAX_HELD_BYTES:
            return _unavailable("too many bodies are coming in at once.")
        return None

    def take(self, request: Request, connection: Connection) -> Answer | None:
        """Puts the body into the spool."""
        headers = {k: v for k, v in request.headers.items() if k == "content-type" or k.startswith("ce-")}
        wrong = self._misfit(request, headers)
        if wrong is not None:
            return wrong
        body = request.body
        if body.startswith(GZIP):
            inflated = _inflated(body)
            if inflated is None:
                return _too_large(f"a body must have at most {MAX_INFLATED_BYTES} bytes once it is inflated.", False)
            body = inflated
        try:
            self._spool.append(headers, body, self._now())
        except StoreUnavailable as error:
            return self._unwritten(error)
        if self._in_trouble:
            self._recovered()
        if self._terms.durable == "write":
            return OK
        self._unsynced.append((connection, request))
        if self._syncing is None:
            self._syncing = asyncio.get_running_loop().create_task(self._sync())
        return None

    # --------------------------------------------------------------------------------------------------------------

    def _refused_head(self, request: Request) -> Answer | None:
        if request.path not in _PATHS:
            return Answer(HTTPStatus.NOT_FOUND, "there are /, /v1/events, /v1/predictions and /v1/labels.")
        if request.method != "POST":
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, "only POST.", (("allow", "POST"),))
        if self._tokens:
            given = request.headers.get("authorization", "").encode()
            if not any(hmac.compare_digest(given, token) for token in self._tokens):
                detail = "`Authorization` must be `Bearer` and a token that is known here."
                return Answer(HTTPStatus.UNAUTHORIZED, detail, (("www-authenticate", "Bearer"),))
        if request.path == "/v1/labels" and not self._terms.labels:
            return Answer(HTTPStatus.NOT_IMPLEMENTED, "nobody reads labels here: `events.label` says none.")
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in {"identity", "gzip", "x-gzip"}:
            return _unsupported(f"`Content-Encoding` must be gzip or absent; got {encoding!r}.")
        return None

    def _misfit(self, request: Request, headers: dict[str, str]) -> Answer | None:
        """What is wrong with what the headers say of the body; drops those that say nothing on this path."""
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.path in {"/v1/predictions", "/v1/labels"}:
            for name in [name for name in headers if name.startswith("ce-")]:
                del headers[name]
            if media_type not in JSON_TYPES | LINES_TYPES:
                return _unsupported(
                    f"`Content-Type` must be application/json or application/x-ndjson; got {media_type!r}."
                )
            return None
        if media_type in CLOUD_EVENTS:
            return None
        if media_type.startswith("application/cloudevents"):
            return _unsupported(f"`Content-Type` must be one of {', '.join(sorted(CLOUD_EVENTS))}; got {media_type!r}.")
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

    def _recovered(self) -> None:
        self._in_trouble = False
        self._on_trouble(None)
        _log.info("bodies are taken again")

    def _unwritten(self, error: StoreUnavailable) -> Answer:
        if not self._in_trouble:
            self._in_trouble = True
            self._on_trouble(str(error))
            _log.error("%s", error)
        if isinstance(error, SpoolFull) and self._terms.full == "shed":
            self._on_shed()
            return OK
        return _unavailable(str(error))

    async def _sync(self) -> None:
        """Answers what waits for the platter, a group at a time."""
        loop = asyncio.get_running_loop()
        while self._unsynced:
            await asyncio.sleep(SYNC_S)
            group, self._unsynced = self._unsynced, []
            answer = OK
            try:
                await loop.run_in_executor(None, self._spool.sync)
            except StoreUnavailable as error:
                answer = self._unwritten(error)
            for connection, request in group:
                connection.finish(request, answer)
        self._syncing = None

    def sweep(self, now_s: float) -> None:
        """Ends connections that are too slow, and looks whether a trouble is over."""
        for connection in list(self.connections):
            if now_s - connection.since_s > (IDLE_S if connection.is_idle else REQUEST_S):
                connection.close()
        if self._in_trouble:
            with suppress(StoreUnavailable):  # then it goes on
                self._spool.probe()
                self._recovered()


class IngestServer:
    """Listens from a daemon thread until `close`. Raises ConfigError where it cannot. Port 0 takes a free one."""

    def __init__(self, host: str, port: int, intake: Intake) -> None:
        try:
            self._socket = socket.create_server((host, port), backlog=1024)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"`source.port` must be free to listen on at {host!r}; got {port} ({error}). "
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


def _inflated(body: bytes) -> bytes | None:
    """What a gzip body holds, None where that is too much; as it came where it is none: its decoder says so."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        data = inflater.decompress(body, MAX_INFLATED_BYTES + 1)
    except zlib.error:
        return body
    if len(data) > MAX_INFLATED_BYTES:
        return None
    return data if inflater.eof and not inflater.unused_data else body


def _bad(detail: str) -> Answer:
    return Answer(HTTPStatus.BAD_REQUEST, detail)


def _unsupported(detail: str) -> Answer:
    return Answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)


def _too_large(detail: str, closes: bool = True) -> Answer:
    return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, closes=closes)


def _unavailable(detail: str) -> Answer:
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, detail, (("retry-after", "1"),), closes=True)

"""The embedded router: splits requests over versions by a sticky hash, sends copies, is switched between two.

A table is one immutable value: a request that has begun keeps the one it began with. A prediction changes nothing, so a
request whose server is gone is sent to another version's. `switch`, `restart` and `tally` may be called from another
thread than the one that serves.
"""

import asyncio
import contextlib
import hashlib
import io
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import aiohttp
import msgspec

from modelops import copies
from modelops.asgi import Message, Receive, Send
from modelops.copies import Copy
from modelops.metrics import ServiceMetrics
from modelops.rollout import Traffic

MAX_BODY = 8 << 20
TIMEOUT_S = 30.0
GONE_S = 0.5
KEPT_LATENCIES = 2000
LARGE = 1 << 20  # bytes that are sent in parts, so that the loop turns meanwhile
PASSED_ON = (b"content-type", b"accept", b"traceparent")


class Target(NamedTuple):
    """A version's model server and its share of the requests."""

    version: int
    url: str
    share: float


class Table(NamedTuple):
    """Where a model's requests go. `spares`, in order, are asked where their own server is gone, or none is ready."""

    targets: tuple[Target, ...]
    spares: tuple[Target, ...] = ()
    mirror: Target | None = None


@dataclass
class Tally:
    """A version's requests since some moment."""

    requests: int = 0
    errors: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_LATENCIES))

    def traffic(self) -> Traffic:
        """As the rollout sees it."""
        ordered = sorted(self.latencies_ms)
        p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] if ordered else 0.0
        return Traffic(self.requests, self.errors, p99)


@dataclass
class Bundle:
    """Copies that wait to be sent together."""

    copies: list[Copy] = field(default_factory=list)
    n_bytes: int = 0


class _Identified(msgspec.Struct):
    id: str | int | None = None


class Router:
    """An ASGI app. `switch` replaces a model's table; `tally` is what its versions answered since `restart`."""

    def __init__(self, metrics: ServiceMetrics) -> None:
        self._metrics = metrics
        self._tables: Mapping[str, Table] = {}
        self._tallies: dict[tuple[str, int], Tally] = {}
        self._session: aiohttp.ClientSession | None = None
        self._copies: dict[tuple[str, Target], Bundle] = {}
        self._bundles: set[asyncio.Task[None]] = set()
        self._gone: dict[str, float] = {}  # by URL, until when a server that gave no answer is the last to be asked

    def switch(self, model: str, table: Table) -> None:
        """Requests that come from now on go by this table."""
        if self._tables.get(model) != table:
            self._tables = {**self._tables, model: table}

    def serves(self, model: str) -> bool:
        """Whether a version of a model is ready."""
        table = self._tables.get(model)
        return table is not None and bool(table.targets)

    def restart(self, model: str) -> None:
        """Counts a model's traffic anew, as at the beginning of a phase."""
        self._tallies = {key: tally for key, tally in self._tallies.copy().items() if key[0] != model}

    def tally(self, model: str) -> dict[int, Traffic]:
        """By version, what was answered since `restart`."""
        return {version: tally.traffic() for (name, version), tally in self._tallies.copy().items() if name == model}

    async def close(self) -> None:
        """Ends copies and connections."""
        for task in self._bundles:
            task.cancel()
        if self._session is not None:
            await self._session.close()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers one request."""
        path = scope["path"]
        if path in ("/livez", "/readyz"):
            missing = path == "/readyz" and not any(table.targets for table in self._tables.values())
            await _send(
                send, 503 if missing else 200, b"no model is served yet\n" if missing else b"ok\n", b"text/plain"
            )
            return
        model = _model_of(path)
        table = None if model is None else self._tables.get(model)
        if model is None or table is None:
            detail = f"there is no model at {path!r}; ask /v1/models/NAME:predict or /v2/models/NAME/infer."
            await _problem(send, 404, detail)
            return
        body = await _body(receive)
        if body is None:
            await _problem(send, 413, f"the body must have at most {MAX_BODY} bytes.")
            return
        if not (table.targets or table.spares):
            await _problem(send, 503, f"no version of {model!r} is ready.")
            return
        headers, key = _headers(scope, body)
        chosen = choose(table.targets or table.spares[:1], key)
        path = scope["raw_path"].decode("ascii", "replace") if scope.get("raw_path") else path
        status, answer, content_type = await self._forward(model, table, chosen, scope["method"], path, headers, body)
        await _send(send, status, answer, content_type)
        if table.mirror is not None and scope["method"] == "POST":
            self._copy(model, table.mirror, Copy(path, headers["x-request-id"], body))

    async def _forward(
        self, model: str, table: Table, chosen: Target, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, bytes]:
        """The answer of the chosen version's server; of another one where its server is gone."""
        others = [t for t in (*table.targets, *table.spares) if t.version != chosen.version]
        now_s = time.monotonic()
        for target in sorted((chosen, *others), key=lambda t: self._gone.get(t.url, now_s) > now_s):
            answer = await self._answer(model, target, method, path, headers, body)
            if answer is not None:
                return answer
        detail = f"no model server of {model!r} answers; they are started again. Try again in a second."
        return 503, _problem_body(503, detail), b"application/problem+json"

    async def _answer(
        self, model: str, target: Target, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, bytes] | None:
        """A server's answer; None where it is gone: it is then the last one to be asked for a while."""
        for attempt in range(2):  # a connection that the server just closed is no reason to leave it
            try:
                return await self._ask(model, target, method, path, headers, body)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if attempt or isinstance(error, TimeoutError):
                    break
        tally = self._tallies.setdefault((model, target.version), Tally())
        tally.requests += 1
        tally.errors += 1
        self._metrics.requests.labels(model, str(target.version), "no_answer").inc()
        self._gone[target.url] = time.monotonic() + GONE_S
        return None

    async def _ask(
        self, model: str, target: Target, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, bytes]:
        """Asks a server once. Raises what aiohttp raises where there is no answer."""
        began_s = time.perf_counter()
        data_out = body if len(body) < LARGE else io.BytesIO(body)
        async with self._connected().request(method, f"{target.url}{path}", data=data_out, headers=headers) as answer:
            data = await answer.read()
        taken_s = time.perf_counter() - began_s
        self._gone.pop(target.url, None)
        tally = self._tallies.setdefault((model, target.version), Tally())
        tally.requests += 1
        tally.errors += answer.status >= 500
        tally.latencies_ms.append(taken_s * 1000)
        outcome = "ok" if answer.status < 400 else "refused" if answer.status < 500 else "error"
        self._metrics.requests.labels(model, str(target.version), outcome).inc()
        self._metrics.latency.labels(model, str(target.version)).observe(taken_s)
        return answer.status, data, answer.headers.get("content-type", "application/json").encode()

    def _copy(self, model: str, target: Target, copy: Copy) -> None:
        """Keeps a copy for the next bundle, once the answer is out; nobody waits for it."""
        waiting = self._copies.get((model, target))
        if waiting is None:
            waiting = self._copies[model, target] = Bundle()
            task = asyncio.create_task(self._bundles_of(model, target, waiting))
            self._bundles.add(task)
            task.add_done_callback(self._bundles.discard)
        if len(waiting.copies) >= copies.MOST or waiting.n_bytes + len(copy.body) > copies.MOST_BYTES // 2:
            self._metrics.mirrored.labels(model, "dropped").inc()
            return
        waiting.copies.append(copy)
        waiting.n_bytes += len(copy.body)

    async def _bundles_of(self, model: str, target: Target, waiting: Bundle) -> None:
        """Sends what has gathered, one bundle after another, until nothing has.

        So a server that hangs holds one bundle, and no more than the next one waits.
        """
        while True:
            await asyncio.sleep(copies.WAIT_S)
            bundle, waiting.copies, waiting.n_bytes = waiting.copies, [], 0
            if not bundle:
                del self._copies[model, target]
                return
            failed = len(bundle)
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError):  # all failed
                data = io.BytesIO(copies.encode(bundle))
                async with self._connected().post(f"{target.url}{copies.PATH}", data=data) as answer:
                    if answer.status == 200:
                        failed = copies.decode_copied(await answer.read()).failed
            tally = self._tallies.setdefault((model, target.version), Tally())
            tally.requests += len(bundle)
            tally.errors += failed
            self._metrics.mirrored.labels(model, "ok").inc(len(bundle) - failed)
            self._metrics.mirrored.labels(model, "error").inc(failed)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), auto_decompress=False
            )
        return self._session


def choose(targets: tuple[Target, ...], key: str) -> Target:
    """The target of a key: the same one as long as the shares are the same, and a growing share keeps its keys."""
    place = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) / 2**64
    below = 0.0
    for target in sorted(targets, key=lambda t: -t.version):  # the newest first: what it has, it keeps as it grows
        below += target.share
        if place < below:
            return target
    return min(targets, key=lambda t: t.version)


def _headers(scope: Message, body: bytes) -> tuple[dict[str, str], str]:
    """What is sent on, with an id in any case, and the key that decides the version."""
    given = {name.lower(): value for name, value in scope["headers"]}
    headers = {name.decode(): given[name].decode("latin-1") for name in PASSED_ON if name in given}
    try:
        in_body = _identified.decode(body).id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        in_body = None
    request_id = given.get(b"x-request-id", b"").decode("latin-1") or uuid.uuid4().hex
    headers["x-request-id"] = request_id
    key = given.get(b"x-routing-key", b"").decode("latin-1")
    return headers, key or (request_id if in_body is None else str(in_body))


def _model_of(path: str) -> str | None:
    parts = path.split("/")
    if len(parts) >= 4 and parts[1] in ("v1", "v2") and parts[2] == "models":
        return parts[3].partition(":")[0]
    return None


async def _body(receive: Receive) -> bytes | None:
    """A request's body; None where it is too large, or its sender has gone: what came of it is no request."""
    parts: list[bytes] = []
    n_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        n_bytes += len(part)
        if n_bytes > MAX_BODY:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _send(send: Send, status: int, body: bytes, content_type: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _problem(send: Send, status: int, detail: str) -> None:
    await _send(send, status, _problem_body(status, detail), b"application/problem+json")


def _problem_body(status: int, detail: str) -> bytes:
    return msgspec.json.encode({"type": "about:blank", "status": status, "detail": detail})


_identified = msgspec.json.Decoder(_Identified)

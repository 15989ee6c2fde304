"""One HTTP/1.1 connection of the ingest server: httptools parses, this bounds and keeps order."""

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from http import HTTPStatus
from time import monotonic
from typing import Protocol, cast

import httptools
import msgspec

MAX_HEAD_BYTES = 64 * 1024
LINGER_S = 0.5
STORED = frozenset(
    {"content-type"} | {f"ce-{n}" for n in ("specversion", "id", "source", "type", "time", "statuscode")}
)
"""Headers that say what a body is; they are kept with it."""
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})
_KEPT = STORED | _FRAMING | {"content-encoding", "authorization", "expect"}
_NAMES = {form: name for name in _KEPT for form in (name.encode(), name.title().encode())}  # as they mostly come
_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and, unless it is 200, what is wrong; `closes`: the rest of the request is not read."""

    status: HTTPStatus
    detail: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    closes: bool = False

    def to_bytes(self, *, keep_alive: bool) -> bytes:
        """The whole response."""
        body = b""
        headers = dict(self.headers)
        if self.status != HTTPStatus.OK:
            problem = {"type": "about:blank", "title": self.status.phrase, "status": self.status.value}
            body = msgspec.json.encode(problem | {"detail": self.detail})
            headers["content-type"] = "application/problem+json"
        headers["content-length"] = str(len(body))
        if not keep_alive:
            headers["connection"] = "close"
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


OK = Answer(HTTPStatus.OK)
_OK_BYTES = {keep: OK.to_bytes(keep_alive=keep) for keep in (True, False)}


@dataclass(slots=True)
class Request:
    """A request as far as it has come; `headers` in lower case, only those that matter here."""

    method: str
    path: str
    headers: dict[str, str]
    keep_alive: bool
    body: bytes | bytearray = b""
    refusal: Answer | None = None

    @property
    def n_bytes(self) -> int:
        """Of the body, as far as it has come."""
        return len(self.body)


class Endpoint(Protocol):
    """What the connections of a server share."""

    def opened(self, connection: "Connection") -> Answer | None:
        """A connection came; an answer: it is one too many."""
        ...

    def closed(self, connection: "Connection") -> None:
        """A connection is gone."""
        ...

    def refused(self, request: Request) -> Answer | None:
        """What is wrong with a request, by its head and by as much of its body as has come."""
        ...

    def held(self, n_bytes: int) -> None:
        """So many more bytes of bodies are in memory (negative: fewer)."""
        ...

    def take(self, request: Request, connection: "Connection") -> Answer | None:
        """What to answer to a whole request; None: `connection.finish` will be called with it."""
        ...

    def answered(self, status: int) -> None:
        """An answer was given."""
        ...


class Connection(asyncio.Protocol):
    """Answers the requests of one connection in their order; reads no further while an answer is outstanding."""

    def __init__(self, endpoint: Endpoint, now_s: float) -> None:
        self._endpoint = endpoint
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._has_offer = False  # the head that is complete asks for another protocol
        self._request: Request | None = None  # whose body is coming
        self._waiting: deque[Request] = deque()
        self._is_outstanding = False
        self._is_closing = False
        self._has_ended = False  # the sender sends no more
        self.transport: asyncio.Transport | None = None
        self.is_idle = True  # it waits for the first byte of a request
        self.since_s = now_s  # since when it does, or does not

    # What asyncio calls ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        answer = self._endpoint.opened(self)
        if answer is not None:
            self._write(answer, keep_alive=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        for request in (*self._waiting, *([self._request] if self._request else [])):
            self._endpoint.held(-request.n_bytes)
        self._waiting.clear()
        self._request = None
        self._endpoint.closed(self)
        self.transport = self._parser = None  # it holds this: a cycle, and the collector of cycles may be off

    def data_received(self, data: bytes) -> None:
        if self._is_closing or self._parser is None:
            return
        if self.is_idle:
            self.is_idle, self.since_s = False, monotonic()
        self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except httptools.HttpParserError as error:
            self._break_off(f"the request must be HTTP/1.1; {error}.")
        if self._request is None and self._head_bytes > MAX_HEAD_BYTES:
            self._break_off(f"the head of a request must be at most {MAX_HEAD_BYTES} bytes.")
        if self._is_outstanding and self.transport is not None:
            # Not before more comes: most senders wait for their answer, and a pause costs as much as a read.
            self.transport.pause_reading()
        self._answer_waiting()

    def _feed(self, data: bytes) -> None:
        """Parses; an offer to speak another protocol (as Java's clients make by default) is not taken up.

        The parser stops at such a request and would never give its body: another one gets its head without the offer.
        """
        while self._parser is not None:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                if not self._has_offer:  # CONNECT, which was refused when its head was complete
                    return
                data = self._head_without_offer() + data[offer.args[0] :]
                self._has_offer = False
                self._parser = httptools.HttpRequestParser(self)

    def _head_without_offer(self) -> bytes:
        assert self._parser is not None
        method, version = self._parser.get_method(), self._parser.get_http_version().encode()
        tokens = [token.strip() for token in self._headers.get("connection", "").split(",")]
        self._headers["connection"] = ", ".join(token for token in tokens if token.lower() != "upgrade")
        lines = [b"%s %s HTTP/%s" % (method, self._target, version)]
        lines += [f"{name}: {value}".encode() for name, value in self._headers.items() if value]
        return b"\r\n".join([*lines, b"", b""])

    def eof_received(self) -> bool:
        self._has_ended = True
        return self._is_outstanding  # True keeps the transport open for the answer

    def pause_writing(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.transport is not None and not self._is_outstanding:
            self.transport.resume_reading()

    # What httptools calls -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._target, self._headers, self._request = b"", {}, None

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = _NAMES.get(name) or _NAMES.get(name.lower())
        if key is not None and self._request is None:  # else a trailer
            self._headers[key] = value.decode("utf-8", "replace")

    def on_headers_complete(self) -> None:
        if self._parser is None:
            return
        path = self._target.partition(b"?")[0].decode("latin-1")
        method = self._parser.get_method().decode("latin-1")
        self._has_offer = self._parser.should_upgrade() and method != "CONNECT"
        if self._has_offer:
            return
        request = Request(method, path, self._headers, self._parser.should_keep_alive())
        self._request = request
        if method == "CONNECT":  # the parser would take the body for another protocol's
            detail = "only HTTP/1.1 is spoken here, and no CONNECT."
            request.refusal = Answer(HTTPStatus.BAD_REQUEST, detail, closes=True)
        else:
            request.refusal = self._endpoint.refused(request)
        if request.refusal is not None and not self._headers.get("content-length", "").isdecimal():
            request.refusal = replace(request.refusal, closes=True)  # the body may be endless
        if request.refusal is None:
            if self._headers.get("expect", "").lower() == "100-continue" and self.transport is not None:
                self.transport.write(_GO_ON)
        elif request.refusal.closes:
            self._waiting.append(request)
            self._request = None

    def on_body(self, body: bytes) -> None:
        request = self._request
        if request is None or request.refusal is not None:
            return
        if not request.body:
            request.body = body
        else:  # not a list of pieces: a sender may make them as short as a byte
            if isinstance(request.body, bytes):
                request.body = bytearray(request.body)
            request.body += body
        self._endpoint.held(len(body))
        request.refusal = self._endpoint.refused(request)
        if request.refusal is not None and request.refusal.closes:
            self._waiting.append(request)
            self._request = None

    def on_message_complete(self) -> None:
        if self._request is not None:
            self._waiting.append(self._request)
        self._request = None
        self._head_bytes = 0

    # Answers --------------------------------------------------------------------------------------------------------

    def finish(self, request: Request, answer: Answer) -> None:
        """The outstanding answer is there."""
        self._is_outstanding = False
        if self._is_closing or self.transport is None:
            self._endpoint.held(-request.n_bytes)
            return
        self._settle(request, answer)
        if not self._is_closing:
            self.transport.resume_reading()
            self._answer_waiting()

    def close(self) -> None:
        """Ends the connection; what is outstanding is not answered."""
        if self.transport is not None:
            self.transport.abort()

    def _answer_waiting(self) -> None:
        while self._waiting and not self._is_outstanding and not self._is_closing:
            request = self._waiting.popleft()
            answer = request.refusal or self._endpoint.take(request, self)
            if answer is None:
                self._is_outstanding = True
            else:
                self._settle(request, answer)

    def _settle(self, request: Request, answer: Answer) -> None:
        self._endpoint.held(-request.n_bytes)
        is_last = self._has_ended and not self._waiting
        self._write(answer, keep_alive=request.keep_alive and not answer.closes and not is_last)

    def _break_off(self, detail: str) -> None:
        if not self._is_closing:
            refusal = Answer(HTTPStatus.BAD_REQUEST, detail, closes=True)
            self._waiting.append(Request("", "", {}, False, refusal=refusal))

    def _write(self, answer: Answer, *, keep_alive: bool) -> None:
        if self.transport is None:
            return
        self._endpoint.answered(answer.status)
        self.transport.write(_OK_BYTES[keep_alive] if answer is OK else answer.to_bytes(keep_alive=keep_alive))
        self.since_s = monotonic()
        self.is_idle = self._request is None and not self._waiting
        if not keep_alive:
            self._is_closing = True
            self._linger()

    def _linger(self) -> None:
        """Reads on for a moment before it closes: a close with unread bytes resets, and the answer may be lost."""
        transport = self.transport
        if transport is not None:
            if transport.can_write_eof():
                transport.write_eof()
            transport.resume_reading()
            asyncio.get_running_loop().call_later(LINGER_S, transport.close)

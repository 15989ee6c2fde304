"""The sidecar's HTTP server: metrics for Prometheus, probes for the kubelet, profiles for whoever deploys a model."""

import gzip
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from driftwatch.errors import ConfigError
from driftwatch.profile_answers import Answer, Desk, refusal, version_of

TURN_LIMIT_S = 30.0
"""A loop that has not turned for longer counts as dead."""

PATHS = {"/metrics", "/livez", "/readyz"}
_CONNECTION_LIMIT_S = 10.0
_MAX_CONNECTIONS = 32
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How the loop is: when it last turned (seconds of the clock given), and what keeps it from being ready.

    `beside`: what is missing as well, and keeps it from nothing but the labels.
    """

    turned_s: float
    missing: tuple[str, ...]
    beside: str | None = None


class Health:
    """What the loop tells the probes. Safe between threads: one frozen snapshot is replaced by another.

    The time before the first turn counts from the making of this object.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._snapshot = Snapshot(clock(), ("starting",))

    def turned(self) -> None:
        """The loop has turned just now."""
        with self._lock:
            self._snapshot = replace(self._snapshot, turned_s=self._clock())

    def ready(self, *missing: str | None, beside: str | None = None) -> None:
        """State what is missing, all of it each time; `ready()` and `ready(None)` = nothing is.

        `beside`: why no labels come from a source of their own. Events are judged without them.
        """
        with self._lock:
            there = tuple(m for m in missing if m is not None)
            self._snapshot = replace(self._snapshot, missing=there, beside=beside)

    def snapshot(self) -> Snapshot:
        """The state now."""
        return self._snapshot

    def still_s(self) -> float:
        """Seconds since the loop last turned."""
        return self._clock() - self._snapshot.turned_s


class Server:
    """Serves `/metrics`, `/livez`, `/readyz` and `/v1/profile` from a daemon thread until `close`.

    Raises ConfigError where it cannot listen. Port 0 takes a free one; `port` says which. `token`: who may put a
    profile; None = nobody.
    """

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, health: Health, *, token: str | None = None
    ) -> None:
        try:
            self._listener = _Listener(host, port, registry, health, token)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"`port` must be free to listen on at {host!r}; got {port} ({error}). "
                "Stop the process that holds it or choose another port."
            ) from error
        self.port: int = self._listener.server_address[1]
        self._thread = threading.Thread(
            target=self._listener.serve_forever, args=(0.1,), name="driftwatch-server", daemon=True
        )
        self._thread.start()

    def answer_profiles(self, desk: Desk) -> None:
        """From now on there are profiles to ask for."""
        self._listener.desk = desk

    def close(self) -> None:
        """Stop listening; requests in progress are cut off."""
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()
        self._listener.cut_off(older_than_s=0.0)


class _Listener(ThreadingMixIn, TCPServer):
    """One thread a connection, at most 32, each with 10 s in all: a slow client cannot starve the probes for longer.

    Not http.server's own HTTPServer: that one looks up the host's name in DNS before it listens.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health, token: str | None) -> None:
        self.token = token
        self.desk: Desk | None = None  # None until profiles are loaded
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.registry, self.health = registry, health
        self._since_s: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return len(self._since_s) < _MAX_CONNECTIONS  # False: closed unanswered

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._since_s[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since_s.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        self.cut_off(older_than_s=_CONNECTION_LIMIT_S)

    def cut_off(self, *, older_than_s: float) -> None:
        """End connections of that age; their threads then find them closed."""
        before_s = time.monotonic() - older_than_s
        with self._lock:
            late = [connection for connection, since_s in self._since_s.items() if since_s <= before_s]
        for connection in late:
            with suppress(OSError):  # its own thread was faster
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):  # a client that left is no news
            _log.exception("a request could not be answered")


class _Handler(BaseHTTPRequestHandler):
    """Answers one request and closes: HTTP/1.0, so that no idle connection holds a thread."""

    server: _Listener
    timeout = _CONNECTION_LIMIT_S
    default_request_version = "HTTP/1.0"  # not 0.9, whose answers have no status and no headers

    def do_GET(self) -> None:
        """Answer the three paths there are."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._metrics()
        elif path == "/livez":
            still_s = self.server.health.still_s()
            if still_s <= TURN_LIMIT_S:
                self._text(HTTPStatus.OK, "ok")
            else:
                why = f"the loop has not turned for {still_s:.0f} s; the limit is {TURN_LIMIT_S:.0f} s"
                self._text(HTTPStatus.SERVICE_UNAVAILABLE, why)
        elif path == "/readyz":
            found = self.server.health.snapshot()
            status = HTTPStatus.SERVICE_UNAVAILABLE if found.missing else HTTPStatus.OK
            beside = [] if found.beside is None else [f"labels: {found.beside}"]
            self._text(status, "\n".join([*(found.missing or ("ok",)), *beside]))
        else:
            self._show_profile()

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        """Takes a profile."""
        version, desk = version_of(self.path.partition("?")[0]), self.server.desk
        if version is None or desk is None:
            self._no_profile(version)
        else:
            length = self.headers.get("Content-Length")
            refused = refusal(self.server.token, self.headers.get("Authorization"), length)
            if refused is None:
                self._answer(desk.put(version, self.rfile.read(int(length or 0))))
                return
            self._answer(refused)
        self._read_the_rest()

    def _show_profile(self) -> None:
        version, desk = version_of(self.path.partition("?")[0]), self.server.desk
        if version is None or desk is None:
            self._no_profile(version)
        else:
            self._answer(desk.get(version))

    def _no_profile(self, version: str | None) -> None:
        if version is not None:
            self._problem(HTTPStatus.SERVICE_UNAVAILABLE, "The profiles are not loaded yet.", {"Retry-After": "1"})
        elif self.path.partition("?")[0] in PATHS:
            self._problem(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD.", {"Allow": "GET, HEAD"})
        else:
            self._problem(HTTPStatus.NOT_FOUND, "There are /metrics, /livez, /readyz and /v1/profile/VERSION.")

    def _answer(self, answer: Answer) -> None:
        if answer.detail is not None:
            self._problem(answer.status, answer.detail, dict(answer.headers))
        else:
            headers = {"Content-Type": "application/json"}
            self._send(answer.status, headers, msgspec.json.encode(answer.body) + b"\n")

    def _metrics(self) -> None:
        try:
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        except TypeError:  # a version that is no number
            self._problem(HTTPStatus.BAD_REQUEST, "`Accept` must name versions as numbers, such as version=1.0.0.")
            return
        body = encode(self.server.registry)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if gzip_accepted(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, compresslevel=1)  # the text repeats itself: level 9 takes longer, gains little
            headers["Content-Encoding"] = "gzip"
        self._send(HTTPStatus.OK, headers, body)

    def _text(self, status: HTTPStatus, text: str) -> None:
        self._send(status, {"Content-Type": "text/plain; charset=utf-8"}, f"{text}\n".encode())

    def _problem(self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> None:
        problem = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
        headers = {"Content-Type": "application/problem+json"} | (headers or {})
        self._send(status, headers, msgspec.json.encode(problem))

    def _send(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what http.server itself cannot take: a method without a `do_` function (501), a bad or long head."""
        if code != HTTPStatus.NOT_IMPLEMENTED:
            self._problem(HTTPStatus(code), message or "The request cannot be read.")
        elif version_of(self.path.partition("?")[0]) is not None:
            self._problem(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET, HEAD and PUT.", {"Allow": "GET, HEAD, PUT"})
        else:
            self._no_profile(None)
        self._read_the_rest()

    def _read_the_rest(self) -> None:
        """A close with unread bytes resets the connection, and the client may lose the answer: reads some of them."""
        with suppress(OSError):  # gone or too slow: it has had its answer
            self.connection.shutdown(socket.SHUT_WR)
            self.rfile.read(65_536)

    def version_string(self) -> str:
        return "driftwatch"

    def log_message(self, format: str, *args: Any) -> None:
        """A probe every few seconds is not worth a line."""

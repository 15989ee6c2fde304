"""The demo's receiver of webhooks: on this machine only, and it believes none without a valid signature."""

import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

import msgspec

from driftwatch.sinks.webhook import verify

MOST_BYTES = 1 << 20
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook that came: its id, the CloudEvent's type, and whether its signature was valid."""

    id: str
    type: str
    is_verified: bool


class Receiver:
    """Listens on a free port of 127.0.0.1 while it is entered, and hands each delivery on, from a thread of its own.

    A delivery that is signed is answered 204, any other 401. One that comes again comes again: `Delivery.id` tells.
    """

    def __init__(self, secret: str, take: Callable[[Delivery], None]) -> None:
        self._listener = _Listener(secret, take)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.1,), name="receiver", daemon=True)
        self.url = f"http://127.0.0.1:{self._listener.server_address[1]}/alarms"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()


class _Listener(socketserver.ThreadingTCPServer):
    """Not http.server's own server: that one looks up the host's name in DNS before it listens."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, secret: str, take: Callable[[Delivery], None]) -> None:
        self.secret, self.take = secret, take
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    timeout = TIMEOUT_S

    def do_POST(self) -> None:
        """Checks the signature over the bytes as they came, before anything is read from them."""
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MOST_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(int(length))
        said = self.headers
        id, timestamp, signature = (said.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
        is_verified = verify([self.server.secret], id, timestamp, body, signature, now_s=time.time())
        type = str(msgspec.json.decode(body)["type"]) if is_verified else "unsigned"
        self._answer(HTTPStatus.NO_CONTENT if is_verified else HTTPStatus.UNAUTHORIZED)
        self.server.take(Delivery(id, type.removeprefix("driftwatch."), is_verified))

    def _answer(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the demo's terminal shows what came."""

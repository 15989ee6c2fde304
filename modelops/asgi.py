"""What both of our HTTP servers share: sockets, problems as JSON, bodies under a limit, uvicorn without its signals."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from http import HTTPStatus
from typing import Any

import msgspec
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from modelops.errors import ConfigError, Refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

GRACE_S = 10
LEAVE_S, LAST_S = 5.0, 5.0


class Server(uvicorn.Server):
    """uvicorn, told to stop by `should_exit` alone: the process's signals are its owner's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more connections; one just taken has a while to send its request before it is closed."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        until_s = time.monotonic() + LAST_S
        while any(_is_fresh(c) for c in self.server_state.connections.copy()) and time.monotonic() < until_s:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    async def leave(self) -> None:
        """Ends connections by their next answer: one that we close may just be used. At most LEAVE_S are waited for."""
        if not self.config.loaded:  # it has not begun
            return
        last = (b"connection", b"close")
        self.config.encoded_headers.append(last)  # what uvicorn makes of it anew every second
        self.server_state.default_headers = [*self.server_state.default_headers, last]
        before, until_s = self.server_state.connections.copy(), time.monotonic() + LEAVE_S  # another thread's
        while before & self.server_state.connections.copy() and time.monotonic() < until_s:
            await asyncio.sleep(0.05)


def _is_fresh(connection: Any) -> bool:
    """Whether nothing was asked on a connection yet."""
    return connection.cycle is None


def server(app: App) -> Server:
    """A server for an app that serves until its `should_exit`; requests in progress are answered first."""
    return Server(
        uvicorn.Config(
            app, http="httptools", ws="none", lifespan="off", log_level="warning", access_log=False,
            timeout_graceful_shutdown=GRACE_S, timeout_keep_alive=75, server_header=False,
        )
    )  # fmt: skip


def handed_down() -> dict[str, socket.socket]:
    """Listening sockets that a parent has opened and keeps open, by name, as systemd's socket units hand them down.

    While we are restarted, connections wait in them. Raises ConfigError where one is not what it is said to be.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found = {}
    for number, name in enumerate(names[: int(os.environ.get("LISTEN_FDS", "0"))], 3):
        try:
            found[name] = socket.socket(fileno=number)
        except OSError as error:
            raise ConfigError(f"`LISTEN_FDS`: {name!r} must be a listening socket; {error}.") from error
        found[name].set_inheritable(False)  # model servers must not keep it open
    return found


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError where the address cannot be had.

    The protocol is named: asyncio sets TCP_NODELAY only where it is, and without it each answer waits 40 ms for the
    peer's delayed acknowledgement.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(512)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"`port` must be free to listen on at {host!r}; got {port} ({error}). Choose another."
        ) from error
    return listener


def json_response(value: object, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def problem(refused: Refused) -> Response:
    """A refusal as problem+json."""
    title = HTTPStatus(refused.status).phrase
    body = {"type": "about:blank", "title": title, "status": refused.status, "detail": str(refused)}
    headers = {} if refused.retry_after_s is None else {"Retry-After": str(refused.retry_after_s)}
    return Response(msgspec.json.encode(body), refused.status, headers, media_type="application/problem+json")


async def body_of(request: Request, most_bytes: int) -> bytes:
    """A request's body. Raises Refused (413) as soon as it is over the limit."""
    parts, n_bytes = [], 0
    async for part in request.stream():
        n_bytes += len(part)
        if n_bytes > most_bytes:
            raise Refused(413, f"the body must have at most {most_bytes} bytes.")
        parts.append(part)
    return b"".join(parts)

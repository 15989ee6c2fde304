"""A webhook: a CloudEvents body, signed as Standard Webhooks says, and one attempt to deliver it.

Delivery guarantee: `WebhookTarget.post` is one attempt. Repeating it, and giving up, is the business of `Delivery`.
Proxies from the environment are ignored and redirects never followed: both would send a signed message to a place that
nobody configured or checked.
"""

import base64
import hashlib
import hmac
import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import msgspec

from driftwatch.errors import ConfigError, SinkError
from driftwatch.sinks.guard import Network, Resolver, connect, is_permitted, resolve

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ANSWER_MAX_BYTES = 65_536
EXCERPT_CHARACTERS = 200  # of an answer, in the error
RETRY_AFTER_MAX_S = 3600.0
REPLAY_TOLERANCE_S = 300.0
RECOVERABLE = frozenset({408, 425, 429})
ALREADY_DONE = 409


def cloud_event(*, id: str, type: str, source: str, time: str, subject: str, data: Mapping[str, object]) -> bytes:
    """A CloudEvents 1.0 structured JSON body; equal arguments give equal bytes."""
    event = {"specversion": "1.0", "id": id, "type": type, "source": source, "time": time, "subject": subject}
    return msgspec.json.encode(event | {"datacontenttype": "application/json", "data": data}, order="sorted")


def sign(secrets: Sequence[str], id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header: a `v1,…` for each secret, separated by spaces, so that secrets can be rotated.

    A secret is base64, with or without `whsec_` in front. Raises ConfigError, which does not show the secret.
    """
    signed = b"%s.%d.%s" % (id.encode(), timestamp, body)
    macs = (hmac.digest(_key(secret), signed, hashlib.sha256) for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(mac).decode()}" for mac in macs)


def verify(secrets: Sequence[str], id: str, timestamp: str, body: bytes, signature: str, *, now_s: float) -> bool:
    """Whether one of the secrets signed the message, not more than 5 minutes from `now_s` (epoch seconds).

    `id`, `timestamp` and `signature` are the headers' texts. Compares in constant time.
    """
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15):
        return False
    if abs(now_s - int(timestamp)) > REPLAY_TOLERANCE_S:
        return False
    expected = sign(secrets, id, int(timestamp), body).encode().split()
    given = signature.encode().split()
    return any(hmac.compare_digest(ours, theirs) for ours in expected for theirs in given)


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except ValueError as error:
        raise ConfigError(_BAD_SECRET) from error
    if not key:
        raise ConfigError(_BAD_SECRET)
    return key


_BAD_SECRET = (
    "`secret` must be base64, with or without `whsec_` in front; got something else (not shown). "
    "Make one with `openssl rand -base64 32`."
)


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """A receiver of webhooks. Making one checks the address and the secrets (ConfigError) and sends nothing.

    Parameters
    ----------
    url : https, or http where `allow_http`; ASCII, without user or password.
    secrets : each signs every message: while a secret is changed, the old and the new one.
    timeout_s : bounds an attempt as a whole, name resolution and the answer's last byte included.
    max_age_s : a message older than this is not tried again after a failure.
    allow_private : networks that are reachable although they are not public.
    context : verifies certificate and host name; None trusts the system's authorities, or the file that the environment
        variable SSL_CERT_FILE names, and reads them anew for each attempt: they are replaced while we run.
    """

    url: str = field(repr=False)  # a path or query often holds a token
    secrets: Sequence[str] = field(repr=False)
    timeout_s: float = 10.0
    max_age_s: float = 86_400.0
    allow_http: bool = False
    allow_private: Sequence[Network] = ()
    resolver: Resolver = resolve
    context: ssl.SSLContext | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.secrets:
            raise ConfigError("`secrets` must hold at least one secret; got none. Name a `secret_file`.")
        for secret in self.secrets:
            _key(secret)
        host, _ = _endpoint(_split(self.url, allow_http=self.allow_http))
        with suppress(ValueError):  # a name: its addresses are checked each time they are resolved
            address = ip_address(host)
            if not is_permitted(address, self.allow_private):
                raise ConfigError(
                    f"`url` must lead to a public address; got {address}. "
                    f"To send there all the same, name its network in `allow_private`."
                )

    def post(self, id: str, body: bytes, now_s: float) -> None:
        """One attempt. `now_s` (epoch seconds) dates the signature.

        2xx and 409 (already done) are success. Raises SinkError: recoverable for 408, 425, 429, 5xx, no connection,
        no answer in time, a failed TLS handshake or name resolution; not for other statuses, redirects among them, and
        for an address that is not permitted.
        """
        place = urlsplit(self.url).netloc
        timestamp = int(now_s)
        headers = {
            "host": place,
            "user-agent": "driftwatch",
            "content-type": "application/cloudevents+json",
            "connection": "close",
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self.secrets, id, timestamp, body),
        }
        try:
            answer = self._exchange(headers, body)
        except (OSError, http.client.HTTPException) as error:
            what = str(error) or type(error).__name__
            raise SinkError(f"webhook to {place}: no answer: {what}", recoverable=True) from error
        except ValueError as error:  # http.client refuses a header that would break the request apart
            raise SinkError(f"webhook to {place}: {error}", recoverable=False) from error
        if 200 <= answer.status < 300 or answer.status == ALREADY_DONE:
            return
        raise SinkError(
            f"webhook to {place}: expected a 2xx status; got {answer.status} {answer.excerpt!r}",
            recoverable=answer.status in RECOVERABLE or 500 <= answer.status < 600,
            retry_after_s=retry_after_s(answer.retry_after, now_s),
        )

    def _exchange(self, headers: Mapping[str, str], body: bytes) -> "_Answer":
        deadline_s = time.monotonic() + self.timeout_s
        url = urlsplit(self.url)
        host, port = _endpoint(url)
        allow_private, resolver = self.allow_private, self.resolver
        raw = connect(host, port, allow_private=allow_private, resolver=resolver, deadline_s=deadline_s)
        with raw:
            if url.scheme == "http":
                return _request(_Wire(raw, deadline_s), url, headers, body)
            context = self.context or ssl.create_default_context()
            raw.settimeout(_left_s(deadline_s))  # bounds the handshake as a whole
            with context.wrap_socket(raw, server_hostname=host) as wrapped:
                return _request(_Wire(wrapped, deadline_s), url, headers, body)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: str | None
    excerpt: str


def _request(wire: "_Wire", url: SplitResult, headers: Mapping[str, str], body: bytes) -> _Answer:
    connection = http.client.HTTPConnection(url.netloc)
    connection.sock = wire
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    connection.request("POST", path, body, dict(headers))
    response = connection.getresponse()
    text = b""
    with suppress(OSError, http.client.HTTPException):  # the status has decided; a cut body changes nothing
        text = response.read(ANSWER_MAX_BYTES)
    excerpt = text[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace")[:EXCERPT_CHARACTERS]
    return _Answer(response.status, response.headers.get("retry-after"), excerpt)


class _Wire:
    """A connected socket under one deadline for the whole exchange; looks to http.client like the socket.

    A socket's own timeout starts anew with each read, so that a receiver who drips a byte at a time could hold the
    thread for ever.
    """

    def __init__(self, connection: socket.socket, deadline_s: float) -> None:
        self._connection = connection
        self._deadline_s = deadline_s

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._connection.settimeout(_left_s(self._deadline_s))
            view = view[self._connection.send(view) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._connection, self._deadline_s))

    def close(self) -> None:
        """Does nothing: http.client closes before it has read the answer, and the socket is its owner's to close."""


class _Reader(io.RawIOBase):
    """What comes in, until the deadline and up to the limit; then it looks like the end."""

    def __init__(self, connection: socket.socket, deadline_s: float) -> None:
        self._connection = connection
        self._deadline_s = deadline_s
        self._left_bytes = ANSWER_MAX_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        if self._left_bytes == 0:
            return 0
        self._connection.settimeout(_left_s(self._deadline_s))
        n_bytes = self._connection.recv_into(memoryview(buffer)[: self._left_bytes])
        self._left_bytes -= n_bytes
        return n_bytes


def _left_s(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    return left_s


def _split(url: str, *, allow_http: bool) -> SplitResult:
    """The parts of a URL that may be posted to; the errors show none of it but scheme and host."""
    if not url.isascii() or any(c <= " " or c == "\x7f" for c in url):
        raise ConfigError(
            "`url` must be ASCII without blanks; got other characters. "
            "Write the host name in its xn-- form and percent-encode the rest."
        )
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ConfigError(f"`url` must be a URL; got a malformed one: {error}.") from error
    if "@" in parts.netloc:
        raise ConfigError("`url` must hold no user or password; got one. The receiver knows us by the signature.")
    if parts.scheme not in ("https", "http") or not usable:
        raise ConfigError(f"`url` must be https://HOST[:PORT]/…; got scheme {parts.scheme!r}, host {parts.hostname!r}.")
    if parts.scheme == "http" and not allow_http:
        raise ConfigError("`url` must be https; got http. To send in the clear all the same, set `allow_http: true`.")
    return parts


def _endpoint(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "", url.port or {"https": 443, "http": 80}[url.scheme]


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Seconds that a `Retry-After` header asks for, at most an hour; None where it is absent or unreadable."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), RETRY_AFTER_MAX_S)
    try:
        until = datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return None
    return min(max(until.timestamp() - now_s, 0.0), RETRY_AFTER_MAX_S)

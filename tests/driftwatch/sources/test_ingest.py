"""The ingest server over real sockets: each answer, each limit, and what lies in the spool after a 200."""

import contextlib
import gc
import gzip
import http.client
import json
import os
import random
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools
import pytest

from driftwatch.errors import ConfigError
from driftwatch.sources import connection, ingest
from driftwatch.sources.connection import Connection
from driftwatch.sources.ingest import IngestServer, Intake, Terms
from driftwatch.sources.spool import Entry, Spool

BINARY = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "http://here/",
    "ce-type": "org.kubeflow.serving.inference.request",
    "content-type": "application/json",
}


@dataclass
class Served:
    """A server over a spool."""

    spool: Spool
    intake: Intake
    server: IngestServer
    shed: list[None] = field(default_factory=list)
    troubles: list[str | None] = field(default_factory=list)

    @property
    def entries(self) -> list[Entry]:
        """What lies in the spool."""
        return self.spool.read(0, most=10_000, most_bytes=2**30)

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None, method: str = "POST") -> "Reply":
        """One request on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)) as client:
            client.request(method, path, body, headers or {})
            return Reply.of(client.getresponse())

    def raw(self, data: bytes) -> bytes:
        """Sends bytes as they are, and no more; what comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65_536), b""))


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, response: http.client.HTTPResponse) -> "Reply":
        return cls(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    @property
    def detail(self) -> str:
        """What is wrong, from the problem."""
        assert self.headers["content-type"] == "application/problem+json"
        problem = json.loads(self.body)
        assert problem["status"] == self.status
        return str(problem["detail"])


@contextlib.contextmanager
def serving(folder: Path, *, max_bytes: int = 2**30, **terms: Any) -> Iterator[Served]:
    spool = Spool(folder / "spool", position=0, max_bytes=max_bytes)
    shed: list[None] = []
    troubles: list[str | None] = []
    intake = Intake(spool, Terms(**terms), on_trouble=troubles.append, on_shed=lambda: shed.append(None))
    server = IngestServer("127.0.0.1", 0, intake)
    try:
        yield Served(spool, intake, server, shed, troubles)
    finally:
        server.close()
        spool.close()


def statuses(answers: bytes) -> list[int]:
    """Of each answer among bytes that came back."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answers)]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as found:
        yield found


@pytest.mark.parametrize("path", ["/", "/v1/events"])
def test_a_binary_cloud_event_lies_in_the_spool_with_its_headers_once_it_is_answered(served: Served, path: str) -> None:
    before = time.time()
    reply = served.post(path, b'{"instances": []}', BINARY | {"user-agent": "Go-http-client/1.1"})
    assert (reply.status, reply.body) == (200, b"")
    (entry,) = served.entries
    assert entry.headers == BINARY
    assert entry.body == b'{"instances": []}'
    assert before <= entry.arrived_s <= time.time()


@pytest.mark.parametrize(
    "media_type", ["application/cloudevents+json", "application/cloudevents-batch+json; charset=utf-8"]
)
def test_structured_cloud_events_are_taken_whatever_they_hold(served: Served, media_type: str) -> None:
    assert served.post("/", b"no JSON", {"content-type": media_type}).status == 200
    assert served.entries[0].headers == {"content-type": media_type}


@pytest.mark.parametrize("media_type", ["application/json", "application/x-ndjson", None])
def test_plain_events_are_taken_and_headers_of_cloud_events_say_nothing_there(
    served: Served, media_type: str | None
) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    assert served.post("/v1/predictions?x=1", b"{}", headers | {"ce-id": "1"}).status == 200
    assert served.entries[0].headers == headers


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"ce-id": None}, "ce-id"),
        ({"ce-source": ""}, "ce-source"),
        ({"ce-type": None}, "ce-type"),
        ({"ce-specversion": None}, "ce-specversion"),
        ({"ce-specversion": "0.3"}, "ce-specversion"),
        ({"ce-time": "yesterday"}, "ce-time"),
    ],
)
def test_malformed_headers_of_a_cloud_event_are_named(served: Served, changed: dict[str, Any], names: str) -> None:
    headers = {k: v for k, v in (BINARY | changed).items() if v is not None}
    reply = served.post("/", b"{}", headers)
    assert (reply.status, served.entries) == (400, [])
    assert names in reply.detail


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/predictions", {"content-type": "text/csv"}),
        ("/v1/predictions", {"content-encoding": "br"}),
        ("/", {"content-type": "application/cloudevents+avro"}),
    ],
)
def test_a_form_that_is_not_read_here_is_refused(served: Served, path: str, headers: dict[str, str]) -> None:
    reply = served.post(path, b"{}", headers)
    assert (reply.status, served.entries) == (415, [])
    assert "must be" in reply.detail


def test_other_paths_and_methods_and_labels_are_refused(served: Served) -> None:
    assert served.post("/v2/models", b"{}").status == 404
    reply = served.post("/", b"", method="GET")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    reply = served.post("/v1/labels", b"{}")
    assert reply.status == 501
    assert "nobody reads labels" in reply.detail


def test_with_tokens_only_a_known_one_is_let_in(tmp_path: Path) -> None:
    with serving(tmp_path, tokens=("one", "zwei")) as served:
        for token in ("one", "zwei"):
            assert served.post("/v1/predictions", b"{}", {"authorization": f"Bearer {token}"}).status == 200
        for header in ({}, {"authorization": "Bearer on"}, {"authorization": "one"}, {"authorization": "Basic one"}):
            reply = served.post("/v1/predictions", b"{}", header)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert "token" in reply.detail
        assert len(served.entries) == 2


def test_a_body_that_is_too_long_is_refused_by_its_head_or_as_it_comes(tmp_path: Path) -> None:
    with serving(tmp_path, max_body=1000) as served:
        assert served.post("/v1/predictions", b"x" * 1000).status == 200
        reply = served.post("/v1/predictions", b"x" * 1001)
        assert (reply.status, reply.headers["connection"]) == (413, "close")
        assert "source.max_body" in reply.detail
        chunk = b"1f4\r\n" + b"x" * 500 + b"\r\n"
        head = b"POST /v1/predictions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        assert served.raw(head + 2 * chunk + b"0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        assert served.raw(head + 3 * chunk + b"0\r\n\r\n").startswith(b"HTTP/1.1 413 ")
        assert [len(entry.body) for entry in served.entries] == [1000, 1000]


@pytest.mark.parametrize("said", [{}, {"content-encoding": "gzip"}])
def test_gzip_is_inflated_whether_it_says_so_or_not(served: Served, said: dict[str, str]) -> None:
    assert served.post("/v1/predictions", gzip.compress(b'{"id": 1}'), said).status == 200
    assert served.entries[0].body == b'{"id": 1}'


def test_broken_gzip_is_kept_as_it_came_for_the_dead_letters(served: Served) -> None:
    body = gzip.compress(os.urandom(1000))[:-9]
    assert served.post("/v1/predictions", body).status == 200
    assert served.entries[0].body == body


def test_gzip_that_inflates_beyond_its_limit_is_refused(served: Served) -> None:
    assert served.post("/v1/predictions", gzip.compress(bytes(ingest.MAX_INFLATED_BYTES))).status == 200
    reply = served.post("/v1/predictions", gzip.compress(bytes(ingest.MAX_INFLATED_BYTES + 1)))
    assert reply.status == 413
    assert "inflated" in reply.detail
    assert len(served.spool.read(0, most=2, most_bytes=2**30)) == 1


def test_a_full_spool_refuses_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "SWEEP_S", 0.01)
    with serving(tmp_path, max_bytes=20_000) as served:
        while (reply := served.post("/v1/predictions", b"x" * 900)).status == 200:
            pass
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert "source.spool.max_bytes" in reply.detail
        (trouble,) = served.troubles
        assert "max_bytes" in str(trouble)
        served.spool.forget(served.spool.end)
        while len(served.troubles) == 1:
            time.sleep(0.01)
        assert served.troubles[1:] == [None]
        assert served.post("/v1/predictions", b"x").status == 200
        assert served.shed == []


def test_a_full_spool_may_shed_and_count_instead(tmp_path: Path) -> None:
    with serving(tmp_path, max_bytes=2000, full="shed") as served:
        replies = [served.post("/v1/predictions", b"x" * 400).status for _ in range(10)]
        assert replies == [200] * 10
        assert len(served.entries) + len(served.shed) == 10
        assert served.shed


def test_a_disk_error_is_told_and_passes(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: int, parts: list[bytes]) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", fail)
        reply = served.post("/v1/predictions", b"{}")
    assert reply.status == 503
    assert "No space left" in reply.detail
    assert served.post("/v1/predictions", b"{}").status == 200
    assert len(served.entries) == 1


def test_with_fsync_many_senders_are_answered_in_order_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def note(file: int) -> None:
        synced.append(file)
        fsync(file)

    monkeypatch.setattr(os, "fsync", note)
    one = b"POST /v1/predictions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n%d"
    with serving(tmp_path, durable="fsync") as served:
        answers = served.raw(b"".join(one % i for i in range(10, 30)))
        assert statuses(answers) == [200] * 20
        assert [int(entry.body) for entry in served.entries] == list(range(10, 30))
    assert len(synced) == 20  # a sender that waits for each answer gets a sync for each


def test_requests_in_one_packet_and_bytes_one_by_one_are_the_same(served: Served) -> None:
    good = b"POST /v1/predictions HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n[1]"
    bad = b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n[2]"
    answers = served.raw(good + bad + good)
    assert statuses(answers) == [200, 404, 200]
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in good:
            client.send(bytes([byte]))
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert [entry.body for entry in served.entries] == [b"[1]"] * 3


def test_a_connection_stays_for_the_next_request_unless_it_was_told_otherwise(served: Served) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=10)) as client:
        for _ in range(3):
            client.request("POST", "/v1/predictions", b"{}")
            reply = Reply.of(client.getresponse())
            assert (reply.status, reply.headers.get("connection")) == (200, None)
        own_port = client.sock.getsockname()[1]
        client.request("POST", "/v1/predictions", b"{}", {"connection": "close"})
        assert client.sock.getsockname()[1] == own_port
        assert Reply.of(client.getresponse()).headers["connection"] == "close"
    old = b"POST /v1/predictions HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}"
    assert b"connection: close" in served.raw(old)
    assert len(served.entries) == 5


def test_a_sender_that_waits_to_be_told_to_go_on_is_told(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=10) as client:
        head = b"POST /v1/predictions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
        client.sendall(head)
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\n{}",
        b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nlong: " + b"x" * 100_000,
    ],
)
def test_what_is_no_http_1_1_is_answered_400_and_cut_off(served: Served, data: bytes) -> None:
    answer = served.raw(data)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert statuses(answer) == [400]
    assert served.post("/v1/predictions", b"{}").status == 200
    assert len(served.entries) == 1


def test_a_sender_that_goes_away_amid_a_body_leaves_nothing(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.server.port)) as client:
        client.sendall(b"POST /v1/predictions HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n" + b"x" * 99)
    assert served.post("/v1/predictions", b"{}").status == 200
    assert [entry.body for entry in served.entries] == [b"{}"]


def test_slow_and_idle_connections_are_ended(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "REQUEST_S", 0.05)
    monkeypatch.setattr(ingest, "SWEEP_S", 0.02)
    monkeypatch.setattr(ingest, "IDLE_S", 0.05)
    with contextlib.ExitStack() as stack:
        for sent in (b"", b"POST / HTTP/1.1\r\nhost: a\r\n"):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", served.server.port), timeout=10))
            client.sendall(sent)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(10) == b""


def test_one_connection_too_many_is_told_so(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_CONNECTIONS", 0)
    assert served.raw(b"").startswith(b"HTTP/1.1 503 ")


def test_too_many_bodies_at_once_are_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_HELD_BYTES", 10_000)
    assert served.post("/v1/predictions", b"x" * 10_001).status == 503
    assert served.post("/v1/predictions", b"x" * 9_000).status == 200
    assert served.post("/v1/predictions", b"x" * 9_000).status == 200  # what was held is let go


def test_connections_leave_nothing_behind_where_the_collector_of_cycles_is_off(served: Served) -> None:
    gc.collect()
    gc.disable()
    try:
        for body in (b"{}", b"{}", b"x" * 9_000_000, b"{}"):
            with contextlib.suppress(OSError):  # the answer may come, and the end, amid the sending
                served.post("/v1/predictions", body)
        served.raw(b"nonsense\r\n\r\n")
        while served.intake.connections:
            time.sleep(0.01)
        left = [thing for thing in gc.get_objects() if isinstance(thing, Connection | httptools.HttpRequestParser)]
        assert len(left) <= 1  # the loop's last callback may hold one
    finally:
        gc.enable()


def torn(dice: random.Random) -> bytes:
    """A request with a few bytes changed, cut or doubled."""
    head = "".join(f"{k}: {v}\r\n" for k, v in BINARY.items())
    sent = bytearray(f"POST / HTTP/1.1\r\nhost: a\r\n{head}content-length: 2\r\n\r\n{{}}".encode())
    for _ in range(dice.choice((1, 1, 2, 5))):
        at = dice.randrange(len(sent) + 1)
        what = dice.randrange(3)
        if what == 0:
            sent[at : at + 1] = bytes([dice.randrange(256)])
        elif what == 1:
            del sent[at : at + dice.randrange(30)]
        else:
            sent[at:at] = sent[at : at + dice.randrange(60)]
    return bytes(sent)


def fuzz(served: Served, n: int, caplog: pytest.LogCaptureFixture) -> None:
    """So many torn requests: each gets an answer that HTTP knows or none, and the server goes on."""
    dice = random.Random(5)
    n_taken = 0
    for _ in range(n):
        with contextlib.suppress(ConnectionResetError):
            found = statuses(served.raw(torn(dice)))
            assert set(found) <= {200, 400, 404, 405, 413, 415}
            n_taken += found.count(200)
    assert served.post("/v1/predictions", b"{}").status == 200
    assert len(served.spool.read(0, most=n, most_bytes=2**30)) == n_taken + 1 > 2
    assert caplog.records == []


def test_torn_requests_stop_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "LINGER_S", 0.0)
    fuzz(served, 500, caplog)


@pytest.mark.slow
def test_many_torn_requests_stop_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "LINGER_S", 0.0)
    fuzz(served, 20_000, caplog)


def test_a_port_that_is_taken_is_named(served: Served) -> None:
    with pytest.raises(ConfigError, match=r"`source\.port` must be free"):
        IngestServer("127.0.0.1", served.server.port, served.intake)

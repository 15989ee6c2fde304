"""Connections to the ingest server: HTTP/1.1 in any packets, and an end to whoever is slow or many."""

import contextlib
import gc
import http.client
import random
import resource
import socket
import time

import httptools
import pytest
from served import BINARY, Reply, Served, statuses

from driftwatch.sources import connection, ingest
from driftwatch.sources.connection import Connection


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
        b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nlong: " + b"x" * 100_000,
        b"POST / HTTP/1.1\r\n" + b"many: x\r\n" * 10_000,
        b"POST /" + b"x" * 100_000,
    ],
)
def test_what_is_no_http_1_1_is_answered_400_and_cut_off(served: Served, data: bytes) -> None:
    answer = served.raw(data)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert statuses(answer) == [400]
    assert served.post("/v1/predictions", b"{}").status == 200
    assert len(served.entries) == 1


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_an_offer_to_upgrade_is_ignored_and_the_connection_goes_on(served: Served, size: int) -> None:
    """As Java's clients send it by default."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAA\r\nUpgrade: h2c\r\nHost: a\r\n"
    head = b"POST /v1/predictions?a=1 HTTP/1.1\r\n" + offer + b"Content-Type: application/json\r\n"
    sent = head + b"Content-Length: 3\r\n\r\n[1]" + head + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[2]\r\n0\r\n\r\n"
    sent += b"POST /v1/predictions HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n[3]"
    sent += head.replace(b"Upgrade, ", b"Upgrade, close, ") + b"Content-Length: 3\r\n\r\n[4]"
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(sent), size):
            client.send(sent[at : at + size])
        answers = b"".join(iter(lambda: client.recv(65_536), b""))
    assert statuses(answers) == [200] * 4
    assert answers.count(b"connection: close") == 1
    assert [entry.body for entry in served.entries] == [b"[1]", b"[2]", b"[3]", b"[4]"]
    assert served.entries[0].headers == {"content-type": "application/json"}


def test_a_sender_that_goes_away_amid_a_body_leaves_nothing(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.server.port)) as client:
        client.sendall(b"POST /v1/predictions HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n" + b"x" * 99)
    assert served.post("/v1/predictions", b"{}").status == 200
    assert [entry.body for entry in served.entries] == [b"{}"]


BEGUN = b"POST /v1/predictions HTTP/1.1\r\nhost: a\r\n"


@pytest.mark.parametrize(
    ("begun", "drop"),
    [
        (b"", b"P"),
        (b"P", b"O"),
        (BEGUN, b"x"),
        (BEGUN + b"content-length: 100000\r\n\r\n", b"x"),
        (BEGUN + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n0\r\n"),
        (BEGUN + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    ],
)
def test_a_sender_that_drips_is_ended(
    served: Served, monkeypatch: pytest.MonkeyPatch, begun: bytes, drop: bytes
) -> None:
    """However often a little of its request comes."""
    monkeypatch.setattr(ingest, "REQUEST_S", 0.05)
    monkeypatch.setattr(ingest, "SWEEP_S", 0.02)
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=10) as client:
        client.settimeout(0.005)
        client.sendall(begun)
        with contextlib.suppress(ConnectionError):
            while True:
                client.send(drop[:1])
                drop = drop[1:] + drop[:1]
                with contextlib.suppress(TimeoutError):
                    if not client.recv(100):
                        break
    assert served.post("/v1/predictions", b"{}").status == 200
    assert len(served.entries) == 1


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


def test_one_connection_too_many_is_told_so_until_another_ends(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_CONNECTIONS", 5)
    with contextlib.ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", served.server.port), timeout=10))
            for _ in range(5)
        ]
        reply = served.post("/v1/predictions", b"{}")
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert "at most 5 connections" in reply.detail
        for client in idle:  # those that were let in are served on
            client.sendall(b"POST /v1/predictions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    while served.post("/v1/predictions", b"{}").status != 200:
        time.sleep(0.01)


def test_no_more_connections_are_served_than_the_process_may_have_files(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4, 4))
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(socket.create_connection(("127.0.0.1", served.server.port), timeout=10))
        assert "at most 2 connections" in served.post("/v1/predictions", b"{}").detail


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

"""The HTTP server over real sockets."""

import gzip
import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic
from prometheus_client.registry import Collector

from driftwatch import server as server_module
from driftwatch.errors import ConfigError
from driftwatch.metrics import Metrics
from driftwatch.server import Health, Server


class Clock:
    """A clock that a test turns by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, model="credit", version="3")


@pytest.fixture
def port(registry: CollectorRegistry, health: Health) -> Iterator[int]:
    with closing(Server("127.0.0.1", 0, registry, health)) as server:
        yield server.port


def ask(
    port: int, path: str, *, method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def raw(port: int, data: bytes) -> bytes:
    """Everything that the server answers to these bytes until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def is_cut_off_while_sending(connection: socket.socket) -> bool:
    """Sends half header lines for up to 20 s, none of them late by any time-out between bytes."""
    for _ in range(400):
        try:
            connection.sendall(b"X")
            if connection.recv(1) == b"":
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


def test_metrics_come_in_the_classic_format_unless_openmetrics_is_asked_for(port: int, metrics: Metrics) -> None:
    metrics.records("used", 5)
    metrics.judged_in(0.01, "2024-01-01T00:00:00Z/2024-01-01T00:05:00Z")
    status, headers, body = ask(port, "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    classic = {s.name for family in parse_classic(body.decode()) for s in family.samples}

    accept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"
    status, headers, body = ask(port, "/metrics", headers={"Accept": accept})
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    samples = [s for family in parse_openmetrics(body.decode()) for s in family.samples]
    assert {s.name for s in samples} == classic
    exemplars = [s.exemplar.labels["window"] for s in samples if s.exemplar]
    assert exemplars == ["2024-01-01T00:00:00Z/2024-01-01T00:05:00Z"]


def test_metrics_are_compressed_where_asked(port: int, metrics: Metrics) -> None:
    plain = ask(port, "/metrics")[2]
    _, headers, body = ask(port, "/metrics", headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == plain
    assert len(body) == int(headers["Content-Length"]) < len(plain)


def test_an_accept_header_without_sense_is_refused(port: int) -> None:
    status, headers, body = ask(port, "/metrics", headers={"Accept": "application/openmetrics-text;version=new"})
    assert (status, headers["Content-Type"]) == (400, "application/problem+json")
    assert json.loads(body)["detail"].startswith("`Accept` must")


def test_a_loop_that_stops_turning_is_reported_dead_until_it_turns_again(
    port: int, health: Health, clock: Clock
) -> None:
    health.turned()
    clock.now_s += 30
    assert ask(port, "/livez")[::2] == (200, b"ok\n")
    clock.now_s += 12
    assert ask(port, "/livez")[::2] == (503, b"the loop has not turned for 42 s; the limit is 30 s\n")
    health.turned()
    assert ask(port, "/livez")[::2] == (200, b"ok\n")


def test_readiness_names_everything_that_is_missing(port: int, health: Health) -> None:
    assert ask(port, "/readyz")[::2] == (503, b"starting\n")
    health.ready("the source is not connected", "no profile is loaded")
    assert ask(port, "/readyz")[::2] == (503, b"the source is not connected\nno profile is loaded\n")
    health.ready(None, "no profile is loaded")
    assert ask(port, "/readyz")[::2] == (503, b"no profile is loaded\n")
    health.ready(None, None)
    assert ask(port, "/readyz")[::2] == (200, b"ok\n")


def test_turning_and_being_ready_do_not_undo_each_other(health: Health, clock: Clock) -> None:
    def turn() -> None:
        for _ in range(2000):
            health.turned()

    clock.now_s = 2000.0
    turning = threading.Thread(target=turn)
    turning.start()
    for i in range(2000):
        health.ready(f"{i}")
        assert health.snapshot().missing == (f"{i}",)
    turning.join()
    assert health.snapshot().turned_s == 2000.0


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/elsewhere"])
def test_head_answers_as_get_does_without_a_body(port: int, metrics: Metrics, path: str) -> None:
    status, headers, body = ask(port, path)
    head_status, head_headers, head_body = ask(port, path, method="HEAD")
    assert (head_status, head_body) == (status, b"")
    for name in ("Content-Type", "Content-Length"):
        assert head_headers[name] == headers[name]
    assert int(headers["Content-Length"]) == len(body)


@pytest.mark.parametrize("path", ["/livez", "/livez?verbose=1", "//livez"])
def test_a_query_or_a_doubled_slash_does_not_change_the_path(port: int, path: str) -> None:
    assert ask(port, path)[0] == 200


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/metrics/"), ("POST", "/v1"), ("PUT", "/x")])
def test_an_unknown_path_is_not_found(port: int, method: str, path: str) -> None:
    status, headers, body = ask(port, path, method=method)
    assert (status, headers["Content-Type"]) == (404, "application/problem+json")
    detail = "There are /metrics, /livez, /readyz and /v1/profile/VERSION."
    assert json.loads(body) == {"type": "about:blank", "title": "Not Found", "status": 404, "detail": detail}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "NONSENSE"])
def test_another_method_is_not_allowed_and_its_body_does_not_cost_the_answer(port: int, method: str) -> None:
    status, headers, body = ask(port, "/metrics", method=method, body=b"x" * 50_000)
    assert (status, headers["Content-Type"], headers["Allow"]) == (405, "application/problem+json", "GET, HEAD")
    assert json.loads(body)["status"] == 405


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),  # TLS where none is spoken
        (b"GET /metrics HTTP/9.9\r\n\r\n", 505),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /livez HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /livez HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_a_head_that_cannot_be_read_or_is_too_long_is_refused(port: int, request_bytes: bytes, status: int) -> None:
    answer = raw(port, request_bytes)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 %d " % status)
    assert json.loads(body)["status"] == status
    assert ask(port, "/livez")[0] == 200


def test_no_request_writes_a_line(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    for path in ("/metrics", "/livez", "/nothing"):
        ask(port, path)
    raw(port, b"nonsense\r\n\r\n")
    raw(port, b"GET /met")
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")  # and leaves
    ask(port, "/livez")
    assert capfd.readouterr() == ("", "")


def test_many_scrapes_at_once_are_each_answered_whole(port: int, metrics: Metrics) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: ask(port, "/metrics"), range(48)))
    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, _, body in answers}) == 1


def test_a_slow_client_is_cut_off_though_it_keeps_sending(
    registry: CollectorRegistry, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_CONNECTION_LIMIT_S", 0.3)
    with (
        closing(Server("127.0.0.1", 0, registry, health)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=0.05) as connection,
    ):
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        assert is_cut_off_while_sending(connection)


def test_connections_that_say_nothing_cannot_take_more_than_32_places(
    registry: CollectorRegistry, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Server("127.0.0.1", 0, registry, health)) as server:
        address = ("127.0.0.1", server.port)
        others = threading.enumerate()
        idle = [socket.create_connection(address, timeout=10) for _ in range(32)]
        with socket.create_connection(address, timeout=10) as one_more:
            assert one_more.recv(1) == b""  # closed unanswered
        handlers = [thread for thread in threading.enumerate() if thread not in others]
        assert len(handlers) == 32
        monkeypatch.setattr(server_module, "_CONNECTION_LIMIT_S", 0.0)
        for connection in idle:
            assert connection.recv(1) == b""  # cut off
            connection.close()
        for handler in handlers:
            handler.join()
        monkeypatch.setattr(server_module, "_CONNECTION_LIMIT_S", 10.0)
        assert ask(server.port, "/livez")[0] == 200


def test_a_collector_that_fails_is_logged_and_costs_no_other_request(
    registry: CollectorRegistry, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Collector):
        def collect(self) -> Iterator[Metric]:
            raise RuntimeError("no numbers today")

    registry.register(Broken())
    with caplog.at_level(logging.ERROR), pytest.raises(http.client.RemoteDisconnected):
        ask(port, "/metrics")
    assert "no numbers today" in caplog.text
    assert ask(port, "/livez")[0] == 200


def test_a_port_in_use_is_named(registry: CollectorRegistry, health: Health) -> None:
    with closing(Server("127.0.0.1", 0, registry, health)) as first:
        text = (
            rf"`port` must be free to listen on at '127\.0\.0\.1'; got {first.port} \(.*in use.*\)\. Stop the process"
        )
        with pytest.raises(ConfigError, match=text):
            Server("127.0.0.1", first.port, registry, health)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 65_536), ("192.0.2.1", 0), ("no-such-host.invalid", 0)])
def test_an_address_that_cannot_be_had_is_a_configuration_error(
    registry: CollectorRegistry, health: Health, host: str, port: int
) -> None:
    with pytest.raises(ConfigError, match=f"`port` must be free to listen on at '{host}'; got {port}"):
        Server(host, port, registry, health)


def test_a_closed_server_frees_its_port_at_once(registry: CollectorRegistry, health: Health) -> None:
    with closing(Server("127.0.0.1", 0, registry, health)) as first:
        ask(first.port, "/livez")
    with pytest.raises(ConnectionRefusedError):
        ask(first.port, "/livez")
    with closing(Server("127.0.0.1", first.port, registry, health)) as second:
        assert ask(second.port, "/livez")[0] == 200


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine speaks no IPv6")
def test_an_ipv6_address_is_listened_on(registry: CollectorRegistry, health: Health) -> None:
    with (
        closing(Server("::1", 0, registry, health)) as server,
        closing(http.client.HTTPConnection("::1", server.port, timeout=10)) as connection,
    ):
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200

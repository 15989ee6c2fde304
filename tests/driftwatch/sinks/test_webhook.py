"""One attempt to deliver a webhook, against real sockets."""

import http.server
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftwatch.errors import SinkError
from driftwatch.sinks.webhook import WebhookTarget, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOOPBACK = (ip_network("127.0.0.0/8"),)
NOW_S = 1_700_000_000.5
BODY = b'{"specversion":"1.0"}'


@dataclass
class Receiver:
    """An HTTP server that answers as told and remembers what came."""

    port: int
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    answer: bytes = b""
    received: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.received.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(told.answer)))
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(told.answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.HTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a refused handshake

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        told = Receiver(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as told:
        yield told


@contextmanager
def scripted(script: Callable[[socket.socket], object]) -> Iterator[int]:
    """A port behind which one connection is handled by `script`, which may do what HTTP does not allow."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    script(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def target(port: int, path: str = "/hook", timeout_s: float = 5.0) -> WebhookTarget:
    url = f"http://127.0.0.1:{port}{path}"
    return WebhookTarget(url, [SECRET], timeout_s=timeout_s, allow_http=True, allow_private=LOOPBACK)


def failure(target: WebhookTarget) -> SinkError:
    with pytest.raises(SinkError) as caught:
        target.post("a1:opened", BODY, NOW_S)
    return caught.value


def test_what_arrives_is_the_body_with_headers_that_verify(receiver: Receiver) -> None:
    target(receiver.port, "/hook?token=t").post("a1:opened", BODY, NOW_S)
    ((path, headers, body),) = receiver.received
    assert (path, body) == ("/hook?token=t", BODY)
    assert headers["content-type"] == "application/cloudevents+json"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["user-agent"] == "driftwatch"
    assert headers["webhook-id"] == "a1:opened"
    assert headers["webhook-timestamp"] == "1700000000"
    assert verify([SECRET], "a1:opened", "1700000000", body, headers["webhook-signature"], now_s=NOW_S)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 409])
def test_2xx_and_already_done_are_success(receiver: Receiver, status: int) -> None:
    receiver.status = status
    target(receiver.port).post("a1:opened", BODY, NOW_S)
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 599])
def test_a_status_that_may_pass_is_recoverable(receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert failure(target(receiver.port)).recoverable


@pytest.mark.parametrize("status", [300, 304, 400, 401, 403, 404, 410, 413, 422, 600])
def test_a_status_that_stays_is_not_recoverable(receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert not failure(target(receiver.port)).recoverable


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    receiver.status, receiver.headers = status, {"location": f"http://127.0.0.1:{receiver.port}/elsewhere"}
    assert not failure(target(receiver.port)).recoverable
    assert [path for path, _, _ in receiver.received] == ["/hook"]


def test_the_error_quotes_the_start_of_the_answer_but_no_path_or_query(receiver: Receiver) -> None:
    receiver.status, receiver.answer = 400, b"no such channel" + b"." * 10_000
    text = str(failure(target(receiver.port, "/services/T0/secret?key=k")))
    assert text.startswith(
        f"webhook to 127.0.0.1:{receiver.port}: expected a 2xx status; got 400 'no such channel......"
    )
    assert len(text) < 300
    assert "secret" not in text


def test_the_receivers_wish_is_in_the_error(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 503, {"Retry-After": "17"}
    assert failure(target(receiver.port)).retry_after_s == 17


# Receivers that misbehave


def read_request(connection: socket.socket) -> None:
    received = b""
    while BODY not in received:
        received += connection.recv(65_536)


def test_a_refused_connection_is_recoverable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    error = failure(target(port))
    assert error.recoverable
    assert "refused" in str(error)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nconte"])
def test_a_reset_in_the_middle_of_the_head_is_recoverable(sent: bytes) -> None:
    def reset(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(sent)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with scripted(reset) as port:
        assert failure(target(port)).recoverable


def test_a_reset_in_the_body_changes_nothing_about_the_status() -> None:
    def reset(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        time.sleep(0.05)  # a reset overtakes what was sent
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with scripted(reset) as port:
        target(port).post("a1:opened", BODY, NOW_S)


def dripping(head: bytes, drip: bytes, stop: threading.Event) -> Callable[[socket.socket], None]:
    def drip_on(connection: socket.socket) -> None:
        connection.sendall(head)
        while not stop.wait(0.02):
            connection.sendall(drip)

    return drip_on


def test_an_answer_that_drips_does_not_hold_the_thread_beyond_the_timeout() -> None:
    stop = threading.Event()
    with scripted(dripping(b"HTTP/1.1 200 OK\r\nx-slow: ", b"z", stop)) as port:
        error = failure(target(port, timeout_s=0.3))
        stop.set()
    assert error.recoverable
    assert "timed out" in str(error)


def test_a_body_that_drips_is_left_at_the_timeout_and_the_status_counts() -> None:
    stop = threading.Event()
    with scripted(dripping(b"HTTP/1.1 400 Bad\r\n\r\nno", b"o", stop)) as port:
        error = failure(target(port, timeout_s=0.3))
        stop.set()
    assert not error.recoverable


def test_a_receiver_that_says_nothing_is_left_at_the_timeout() -> None:
    stop = threading.Event()
    with scripted(lambda connection: stop.wait(10)) as port:
        error = failure(target(port, timeout_s=0.1))
        stop.set()
    assert error.recoverable


def test_a_receiver_that_does_not_read_is_left_at_the_timeout() -> None:
    stop = threading.Event()
    with scripted(lambda connection: stop.wait(10)) as port:
        with pytest.raises(SinkError, match="timed out"):
            target(port, timeout_s=0.2).post("a1:opened", bytes(16 * 2**20), NOW_S)
        stop.set()


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: "])
def test_an_endless_answer_is_read_to_64_kib(head: bytes) -> None:
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        read_request(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.sendall(head)
        while True:  # until the reader has gone
            sent += connection.send(b"y" * 4096)

    with scripted(flood) as port, suppress(SinkError):
        target(port).post("a1:opened", BODY, NOW_S)
    assert sent < 16 * 2**20  # what lies in the kernel's buffers; it would go on for ever


@settings(max_examples=40)
@given(
    st.sampled_from(
        [b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"]
    ),
    st.binary(max_size=40),
)
def test_whatever_bytes_come_back_the_answer_is_success_or_a_sink_error(head: bytes, rest: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(head + rest)

    with scripted(answer) as port, suppress(SinkError):
        target(port).post("a1:opened", BODY, NOW_S)


def test_a_name_that_does_not_resolve_is_recoverable() -> None:
    def failing(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    error = failure(WebhookTarget("https://hooks.test/", [SECRET], resolver=failing))
    assert error.recoverable
    assert "name resolution" in str(error)


def test_a_name_that_leads_inside_is_refused_and_not_tried_again(receiver: Receiver) -> None:
    url = f"http://hooks.test:{receiver.port}/"
    inside = WebhookTarget(url, [SECRET], allow_http=True, resolver=lambda *_: ["127.0.0.1"])
    error = failure(inside)
    assert not error.recoverable
    assert "allow_private" in str(error)
    assert receiver.received == []


def test_a_name_is_posted_to_under_its_own_name_at_the_address_that_was_checked(receiver: Receiver) -> None:
    url = f"http://hooks.test:{receiver.port}/"
    named = WebhookTarget(
        url, [SECRET], allow_http=True, allow_private=LOOPBACK, resolver=lambda *_: ["127.0.0.9", "127.0.0.1"]
    )
    named.post("a1:opened", BODY, NOW_S)
    assert receiver.received[0][1]["host"] == f"hooks.test:{receiver.port}"


def test_a_proxy_from_the_environment_is_ignored(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    target(receiver.port).post("a1:opened", BODY, NOW_S)
    assert receiver.received[0][0] == "/hook"


def test_an_id_that_would_break_the_request_apart_is_refused(receiver: Receiver) -> None:
    with pytest.raises(SinkError) as caught:
        target(receiver.port).post("a1\r\nx-injected: 1", BODY, NOW_S)
    assert not caught.value.recoverable
    assert receiver.received == []


@dataclass(frozen=True)
class Certificate:
    path: Path
    server: ssl.SSLContext


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
            *["-keyout", f"{path}.key", "-out", str(path), "-days", "2", "-subj", "/CN=hooks.test"],
            *["-addext", "subjectAltName=DNS:hooks.test"],
        ],
        check=True,
        capture_output=True,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path, f"{path}.key")
    return Certificate(path, server)


def over_tls(host: str, port: int, context: ssl.SSLContext | None = None) -> WebhookTarget:
    url = f"https://{host}:{port}/hook"
    return WebhookTarget(
        url, [SECRET], timeout_s=5.0, allow_private=LOOPBACK, resolver=lambda *_: ["127.0.0.1"], context=context
    )


def test_a_self_signed_certificate_is_refused_and_nothing_sent(certificate: Certificate) -> None:
    with receiving(certificate.server) as receiver:
        error = failure(over_tls("hooks.test", receiver.port))
    assert error.recoverable
    assert "certificate verify failed" in str(error)
    assert receiver.received == []


def test_a_trusted_certificate_of_another_name_is_refused(certificate: Certificate) -> None:
    trusting = ssl.create_default_context(cafile=certificate.path)
    with receiving(certificate.server) as receiver:
        error = failure(over_tls("other.test", receiver.port, context=trusting))
    assert "Hostname mismatch" in str(error)
    assert receiver.received == []


def test_a_trusted_certificate_of_the_name_is_posted_to(certificate: Certificate) -> None:
    trusting = ssl.create_default_context(cafile=certificate.path)
    with receiving(certificate.server) as receiver:
        over_tls("hooks.test", receiver.port, context=trusting).post("a1:opened", BODY, NOW_S)
    assert [body for _, _, body in receiver.received] == [BODY]


def test_the_file_that_ssl_cert_file_names_is_trusted(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
    with receiving(certificate.server) as receiver:
        over_tls("hooks.test", receiver.port).post("a1:opened", BODY, NOW_S)
    assert len(receiver.received) == 1


def test_a_receiver_that_never_finishes_the_handshake_is_left_at_the_timeout() -> None:
    stop = threading.Event()
    with scripted(lambda connection: stop.wait(10)) as port:
        url = f"https://127.0.0.1:{port}/"
        error = failure(WebhookTarget(url, [SECRET], timeout_s=0.1, allow_private=LOOPBACK))
        stop.set()
    assert error.recoverable


def test_a_receiver_that_speaks_no_tls_is_recoverable(receiver: Receiver) -> None:
    url = f"https://127.0.0.1:{receiver.port}/"
    assert failure(WebhookTarget(url, [SECRET], allow_private=LOOPBACK)).recoverable
    assert receiver.received == []

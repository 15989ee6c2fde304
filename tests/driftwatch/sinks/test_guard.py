"""The guard: which addresses a webhook may go to, and that it goes to the address that was checked."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftwatch.errors import SinkError
from driftwatch.sinks import guard
from driftwatch.sinks.guard import Network, Resolver, connect, is_permitted, is_public, resolve

LOOPBACK = (ip_network("127.0.0.0/8"),)

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
INSIDE = [
    *["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "169.254.0.1"],
    *["0.0.0.0", "0.1.2.3", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"],
    *["::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"],
    *["::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1"],
    *["64:ff9b:1::808:808", "2002:7f00:1::1", "2002:a9fe:a9fe::", "100::1", "2001::1", "4000::1"],
]


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_permitted(text: str) -> None:
    assert is_permitted(ip_address(text), ())


@pytest.mark.parametrize("text", INSIDE)
def test_an_address_that_is_not_public_is_refused_until_its_network_is_allowed(text: str) -> None:
    address = ip_address(text)
    assert not is_permitted(address, ())
    plain = ip_address(text.partition("%")[0])
    assert is_permitted(address, (ip_network(plain),))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_however_ipv6_carries_it(address: IPv4Address) -> None:
    mapped = IPv6Address(0xFFFF << 32 | int(address))
    nat64 = IPv6Address(int(IPv6Network("64:ff9b::/96").network_address) | int(address))
    six_to_four = IPv6Address(0x2002 << 112 | int(address) << 80 | 1)
    assert {is_public(a) for a in (mapped, nat64, six_to_four)} == {is_public(address)}


@given(st.ip_addresses())
def test_nothing_that_the_standard_library_calls_local_is_public(address: IPv4Address | IPv6Address) -> None:
    local = address.is_private or address.is_loopback or address.is_link_local or address.is_unspecified
    assert not (is_public(address) and guard.carried(address) == address and local)
    assert not (is_public(address) and address.is_multicast)


def test_an_allowed_ipv4_network_holds_for_the_address_that_ipv6_carries() -> None:
    assert is_permitted(ip_address("::ffff:10.1.2.3"), (ip_network("10.0.0.0/8"),))
    assert not is_permitted(ip_address("::ffff:10.1.2.3"), (ip_network("192.168.0.0/16"),))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def reach(
    port: int, resolver: Resolver, *, allow_private: tuple[Network, ...] = LOOPBACK, within_s: float = 5
) -> socket.socket:
    deadline_s = time.monotonic() + within_s
    return connect("name.test", port, allow_private=allow_private, resolver=resolver, deadline_s=deadline_s)


def test_a_name_that_leads_inside_is_refused_and_not_connected_to(listener: socket.socket) -> None:
    with pytest.raises(SinkError, match=r"`url` must lead to a public address; got 127\.0\.0\.1 for name\.test") as e:
        reach(listener.getsockname()[1], lambda *_: ["127.0.0.1"], allow_private=())
    assert not e.value.recoverable
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("answers", [["127.0.0.1", "169.254.169.254"], ["10.0.0.1", "127.0.0.1"]])
def test_one_address_inside_among_permitted_ones_refuses_the_name(answers: list[str], listener: socket.socket) -> None:
    with pytest.raises(SinkError, match="public address"):
        reach(listener.getsockname()[1], lambda *_: answers)


def test_the_next_address_is_tried_where_one_does_not_answer(listener: socket.socket) -> None:
    with reach(listener.getsockname()[1], lambda *_: ["127.0.0.9", "127.0.0.1"]) as connection:
        assert connection.getpeername()[0] == "127.0.0.1"


def test_an_address_that_swallows_packets_leaves_time_for_the_next(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.9", port), backlog=0))
        for _ in range(4):  # nobody accepts: once the queue is full, the kernel drops what asks to connect
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with reach(port, lambda *_: ["127.0.0.9", "127.0.0.1"], within_s=0.6) as connection:
            assert connection.getpeername()[0] == "127.0.0.1"


def test_no_address_that_answers_is_the_last_ones_error(listener: socket.socket) -> None:
    with pytest.raises(ConnectionRefusedError):
        reach(listener.getsockname()[1], lambda *_: ["127.0.0.8", "127.0.0.9"])


def test_a_name_without_an_address_is_an_error() -> None:
    with pytest.raises(OSError, match=r"name\.test has no address"):
        reach(443, lambda *_: [])


def test_the_name_is_resolved_once_and_the_second_answer_of_a_rebinding_never_used(listener: socket.socket) -> None:
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    asked = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    with reach(listener.getsockname()[1], rebinding) as connection:
        assert connection.getpeername()[0] == "127.0.0.1"
    assert asked == ["name.test"]
    with pytest.raises(SinkError, match=r"got 10\.0\.0\.1"):
        reach(listener.getsockname()[1], rebinding)


def test_a_peer_that_is_not_what_was_checked_is_refused(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, create = listener.getsockname()[1], socket.create_connection
    diverted: list[socket.socket] = []

    def divert(address: tuple[str, int], timeout: float) -> socket.socket:
        diverted.append(create(("127.0.0.1", port), timeout))
        return diverted[-1]

    monkeypatch.setattr(socket, "create_connection", divert)
    with pytest.raises(SinkError, match=r"got 127\.0\.0\.1"):
        reach(port, lambda *_: ["8.8.8.8"], allow_private=())
    assert [connection.fileno() for connection in diverted] == [-1]


def test_a_resolver_that_hangs_is_left_behind_at_the_deadline() -> None:
    release = threading.Event()

    def hanging(host: str, port: int) -> list[str]:
        release.wait(30)
        return ["127.0.0.1"]

    with pytest.raises(TimeoutError, match="no answer from the resolver"):
        reach(443, hanging, within_s=0.05)
    release.set()


def test_a_resolver_that_fails_is_an_os_error() -> None:
    def failing(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    with pytest.raises(socket.gaierror):
        reach(443, failing)


@pytest.mark.parametrize("spelling", ["127.1", "2130706433", "0x7f.0.0.1", "127.0.0.1"])
def test_every_spelling_of_the_loopback_address_is_seen_through(spelling: str) -> None:
    assert [is_public(ip_address(text)) for text in resolve(spelling, 443)] == [False]

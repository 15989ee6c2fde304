"""Connects to public addresses only (against server-side request forgery), unless a network is allowed by name.

A name is resolved once; every address that it answers is checked before the first is connected to; the connection goes
to the address that was checked, and the peer is checked again. A name that changes its answer between check and use
(DNS rebinding) therefore gains nothing. Proxies from the environment are ignored: a proxy would resolve and connect
out of our sight.
"""

import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from driftwatch.errors import SinkError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Sequence[str]]
"""Host and port to addresses in text, in the order to try them; raises OSError. Blocks for as long as it likes."""

GLOBAL_UNICAST = IPv6Network("2000::/3")  # what IANA has handed out of IPv6; all else is local, reserved or multicast
NAT64 = IPv6Network("64:ff9b::/96")


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host as the system resolves them, each once, in the system's order."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def carried(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped, NAT64 or 6to4 one, where the packets really go; else the address."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_public(address: Address) -> bool:
    """Whether the address is one of the internet's, and of one host: nothing private, local, reserved or multicast."""
    target = carried(address)
    if isinstance(target, IPv6Address) and target not in GLOBAL_UNICAST:
        return False
    return target.is_global and not (target.is_multicast or target.is_reserved)


def is_permitted(address: Address, allow_private: Sequence[Network]) -> bool:
    """Whether a webhook may go to the address: it is public, or it lies in a network that is allowed."""
    return is_public(address) or any(a in network for network in allow_private for a in (address, carried(address)))


def connect(
    host: str, port: int, *, allow_private: Sequence[Network], resolver: Resolver, deadline_s: float
) -> socket.socket:
    """A TCP connection to a permitted address of the host, before `deadline_s` (monotonic).

    Raises OSError where no address answers (TimeoutError past the deadline), and SinkError, not recoverable, where one
    of the host's addresses is not permitted: a name that points inside as well as outside is not to be trusted.
    """
    addresses = [ip_address(text) for text in _resolve_by(deadline_s, resolver, host, port)]
    if not addresses:
        raise OSError(f"{host} has no address")
    for address in addresses:
        _check(address, host, allow_private)
    failure: OSError = TimeoutError("timed out")
    for tried, address in enumerate(addresses):
        share_s = (deadline_s - time.monotonic()) / (len(addresses) - tried)  # one dead address must not take it all
        if share_s <= 0:
            break
        try:
            connection = socket.create_connection((str(address), port), timeout=share_s)
        except OSError as error:
            failure = error
            continue
        try:
            _check(ip_address(connection.getpeername()[0]), host, allow_private)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, SinkError):
            connection.close()
            raise
        return connection
    raise failure


def _check(address: Address, host: str, allow_private: Sequence[Network]) -> None:
    if not is_permitted(address, allow_private):
        raise SinkError(
            f"`url` must lead to a public address; got {address} for {host}. "
            f"To send there all the same, name its network in `allow_private`.",
            recoverable=False,
        )


def _resolve_by(deadline_s: float, resolver: Resolver, host: str, port: int) -> Sequence[str]:
    """Resolves in a thread of its own: nothing interrupts the system's resolver, so a slow one is left behind."""
    answer: queue.SimpleQueue[Sequence[str] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(resolver(host, port))
        except OSError as error:
            answer.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        got = answer.get(timeout=max(deadline_s - time.monotonic(), 0.0))
    except queue.Empty as error:
        raise TimeoutError(f"no answer from the resolver for {host}") from error
    if isinstance(got, OSError):
        raise got
    return got

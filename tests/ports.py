"""Ports for servers of tests."""

import contextlib
import random
import socket


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on, outside of the range that the system gives away by itself."""
    found: list[int] = []
    while len(found) < n:
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", random.randint(20_000, 32_000)))
            found.append(free.getsockname()[1])
    return found

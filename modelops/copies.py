"""Copies of requests for a shadow, in bundles: one message for all of a quarter of a second.

A request of its own for each copy would cost the router and the machine as much as the request itself did.
"""

import msgspec

PATH = "/modelops/copies"
WAIT_S = 0.25
MOST = 2000  # copies that wait; more are dropped and counted
MOST_BYTES = 32 << 20


class Copy(msgspec.Struct, frozen=True, array_like=True):
    """A request that was answered: where it was asked, its id, its body."""

    path: str
    id: str
    body: bytes


class Copied(msgspec.Struct, frozen=True):
    """What became of a bundle."""

    answered: int
    failed: int


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(list[Copy]).decode
decode_copied = msgspec.json.Decoder(Copied).decode

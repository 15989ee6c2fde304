"""Reads, field by field, a message that no struct decoder takes."""

import json
from typing import Any

import msgspec

from driftwatch.decode.cells import shown
from driftwatch.decode.layout import Node
from driftwatch.errors import DecodeError


class Unreadable(DecodeError):
    """A message is no event: `reason` is the stable word, the text is for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read(message: bytes, root: Node) -> msgspec.Struct:
    """The event as the wide decoder would have returned it; Unreadable where it has no structure."""
    document = read_json(message)
    if not isinstance(document, dict):
        raise Unreadable("structure", f"expected an object; got {shown(document)}.")
    return root.read(document)


def read_json(message: bytes) -> Any:
    """A JSON document. Raises Unreadable.

    The standard library takes what msgspec does not: NaN, Infinity, 1e999, lone surrogates, a byte order mark.
    """
    try:
        return json.loads(message.decode("utf-8-sig"), parse_int=_integer)
    except UnicodeDecodeError as error:
        raise Unreadable("encoding", f"expected UTF-8; {error.reason} at byte {error.start}.") from error
    except RecursionError as error:
        raise Unreadable("depth", "expected an event; got one that is nested too deeply to be read.") from error
    except ValueError as error:
        raise Unreadable("structure", f"expected JSON; {error}.") from error


def _integer(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:  # more digits than Python converts
        return float(text)

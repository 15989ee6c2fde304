"""Reads, field by field, a message that no struct decoder takes."""

import json

import msgspec

from driftwatch.decode import cells
from driftwatch.decode.layout import Node


def read(message: bytes, root: Node) -> msgspec.Struct:
    """The event as the wide decoder would have returned it; Refused where the message is poison.

    The standard library takes what msgspec does not: NaN, Infinity, 1e999, lone surrogates, a byte order mark.
    """
    try:
        document = json.loads(message.decode("utf-8-sig"), parse_int=_integer)
    except UnicodeDecodeError as error:
        raise cells.Refused("encoding", f"expected UTF-8; {error.reason} at byte {error.start}.") from error
    except RecursionError as error:
        raise cells.Refused("depth", "expected an event; got one that is nested too deeply to be read.") from error
    except ValueError as error:
        raise cells.Refused("structure", f"expected JSON; {error}.") from error
    if not isinstance(document, dict):
        raise cells.Refused("structure", f"expected an object; got {cells.shown(document)}.")
    return root.read(document)


def _integer(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:  # more digits than Python converts
        return float(text)

"""Tensors that follow a V2 body's JSON as raw bytes: the binary extension of the Open Inference Protocol.

A tensor then has no `data` but `parameters.binary_data_size`; the bytes of all tensors follow the JSON in their order,
little-endian and row by row. How long the JSON is stands in the header `Inference-Header-Content-Length`, which a
logger need not pass on: it is found from the JSON itself, and every byte behind it must belong to a tensor.
"""

import json
from typing import Any

import numpy as np

from driftwatch.decode.cells import shown
from driftwatch.decode.depth import shallow
from driftwatch.decode.lenient import Unreadable

MARK = b'"binary_data_size"'
_TYPES = {
    "BOOL": "?",
    **{f"{kind}{8 * n}": f"<{letter}{n}" for kind, letter in (("INT", "i"), ("UINT", "u")) for n in (1, 2, 4, 8)},
    **{f"FP{8 * n}": f"<f{n}" for n in (2, 4, 8)},
}
_scan = json.JSONDecoder().raw_decode


def json_part(body: bytes) -> bytes:
    """The JSON that a body begins with. Raises Unreadable."""
    try:
        end = _scan(body.decode("latin-1"))[1]  # a character a byte: its place is the byte's
    except RecursionError as error:
        raise Unreadable("depth", "expected a body; got one that is nested too deeply to be read.") from error
    except ValueError as error:
        raise Unreadable("structure", f"expected JSON before the tensors' bytes; {error}.") from error
    return shallow(body[:end])


def fill(tensors: list[Any], tail: bytes) -> None:
    """Gives each tensor that was sent as bytes its `data`. Raises Unreadable."""
    at = 0
    for tensor in tensors:
        size = _size(tensor)
        if size is not None:
            tensor["data"] = _values(tensor, tail[at : at + size])
            at += size
    if at != len(tail):
        raise Unreadable("structure", f"expected {at} bytes of tensors behind the JSON; got {len(tail)}.")


def _size(tensor: Any) -> int | None:
    parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and (type(size) is not int or size < 0):
        raise Unreadable("structure", f"expected `binary_data_size` as a number of bytes; got {shown(size)}.")
    return size


def _values(tensor: dict[str, Any], data: bytes) -> list[Any]:
    datatype = tensor.get("datatype")
    if datatype == "BYTES":
        return _texts(data)
    if datatype == "BF16":  # the upper half of an FP32
        if len(data) % 2:
            raise Unreadable("structure", f"expected whole values of BF16; got {len(data)} bytes.")
        return list((np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").tolist())
    kind = _TYPES.get(datatype) if isinstance(datatype, str) else None
    if kind is None:
        raise Unreadable("structure", f"expected a tensor's `datatype` of the protocol; got {shown(datatype)}.")
    if len(data) % np.dtype(kind).itemsize:
        raise Unreadable("structure", f"expected whole values of {datatype}; got {len(data)} bytes.")
    return list(np.frombuffer(data, kind).tolist())


def _texts(data: bytes) -> list[str]:
    """Each value has its length before it, in four bytes."""
    found: list[str] = []
    at = 0
    while at < len(data):
        start = at + 4
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data):
            raise Unreadable("structure", "expected whole values of BYTES, each with its length; got a cut one.")
        try:
            found.append(data[start:at].decode())
        except UnicodeDecodeError as error:
            raise Unreadable("encoding", f"expected UTF-8 in a tensor of BYTES; {error.reason}.") from error
    return found

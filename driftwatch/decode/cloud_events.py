"""CloudEvents 1.0 in their three forms: attributes in headers (binary), one JSON envelope (structured), a batch."""

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from urllib.parse import unquote

import msgspec

from driftwatch.decode.cells import bounded, shown, time_s
from driftwatch.decode.lenient import Unreadable, read_json

NAMED = ("specversion", "id", "source", "type")


class CloudEvent(NamedTuple):
    """One event: `time_s` None where it states none, `status` the extension `statuscode`, `data` JSON.

    `id` and `source` of more than 256 characters are replaced by their stand-ins.
    """

    id: str
    source: str
    type: str
    time_s: float | None
    status: str | None
    data: bytes


class _Envelope(msgspec.Struct):
    specversion: str
    id: str
    source: str
    type: str
    time: datetime | None = None
    statuscode: str | int | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str | None = None


_PREFIXES = frozenset({"ce-", "ce_"})
_envelope = msgspec.json.Decoder(_Envelope)
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])


def from_headers(headers: Mapping[str, str], data: bytes) -> CloudEvent | None:
    """A binary event, from headers `ce-…` (HTTP) or `ce_…` (Kafka); None where there are none. Raises Unreadable."""
    attributes = {name[3:]: value for name, value in headers.items() if name[:3] in _PREFIXES}
    if not attributes:
        return None
    if "%" in "".join(attributes.values()):
        attributes = {name: unquote(value) for name, value in attributes.items()}
    get = attributes.get
    id, source, type = get("id", ""), get("source", ""), get("type", "")
    if not (id and source and type and get("specversion")):
        absent = next(name for name in NAMED if not get(name))
        raise Unreadable("structure", f"expected a CloudEvent with `{absent}`; got none.")
    stated = get("time")
    time: float | None = None
    if stated is not None:
        try:
            time = time_s(msgspec.convert(stated, datetime), "s")
        except msgspec.ValidationError as error:
            raise Unreadable("time", f"expected RFC 3339 as the CloudEvent's time; got {shown(stated)}.") from error
    return CloudEvent(bounded(id), bounded(source), type, time, get("statuscode"), data)


def from_envelope(document: bytes) -> CloudEvent:
    """A structured event. Raises Unreadable."""
    try:
        found = _envelope.decode(document)
        data = bytes(found.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found, data = _read_leniently(document)
    for name in NAMED:
        if not getattr(found, name):
            raise Unreadable("structure", f"expected a CloudEvent with `{name}`; got an empty one.")
    if found.data_base64 is not None:
        try:
            data = base64.b64decode(found.data_base64, validate=True)
        except ValueError as error:  # binascii.Error is one, and so is what a character beyond ASCII raises
            raise Unreadable("encoding", f"expected base64 at $.data_base64; {error}.") from error
    time = None if found.time is None else time_s(found.time, "s")
    status = None if found.statuscode is None else str(found.statuscode)
    return CloudEvent(bounded(found.id), bounded(found.source), found.type, time, status, data)


def _read_leniently(document: bytes) -> tuple[_Envelope, bytes]:
    """What the strict decoder does not take: NaN and Infinity in the data."""
    values = read_json(document)
    if not isinstance(values, dict):
        raise Unreadable("structure", f"expected a CloudEvent; got {shown(values)}.")
    data = json.dumps(values.pop("data")).encode() if "data" in values else b""
    try:
        return msgspec.convert(values, _Envelope), data
    except (msgspec.ValidationError, UnicodeEncodeError, RecursionError) as error:
        raise Unreadable("structure", f"expected a CloudEvent; {error}.") from error


def items(document: bytes) -> list[bytes]:
    """The values of a JSON array, each as JSON. Raises Unreadable."""
    try:
        return [bytes(item) for item in _raw_list.decode(document)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        values = read_json(document)
        if not isinstance(values, list):
            raise Unreadable("structure", f"expected an array; got {shown(values)}.") from None
        return [json.dumps(value).encode() for value in values]

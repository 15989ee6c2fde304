"""Bodies with their headers → single plain events → records.

A body is one event or many: a JSON object, lines, an array, a CloudEvent in one of its three forms, a request or a
response of a model server. What it holds becomes plain JSON events, which the JSON decoder reads like any other.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from math import isfinite, nan
from typing import Any, Literal

import msgspec
import numpy as np

from driftwatch.decode import cloud_events
from driftwatch.decode.cells import bounded
from driftwatch.decode.cloud_events import CloudEvent
from driftwatch.decode.depth import shallow
from driftwatch.decode.inference import InferenceRows, Rows
from driftwatch.decode.json import JsonDecoder
from driftwatch.decode.lenient import Unreadable, read_json
from driftwatch.decode.plain_rows import Events, Ready
from driftwatch.halves import Half, HalfKey, Halves
from driftwatch.media_types import CLOUD_EVENT, CLOUD_EVENTS, LINES, media_type
from driftwatch.records import Decoded, Frames, Poison, Schema

REQUEST, RESPONSE = "org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response"
MAX_EVENTS = 10_000
RECENT = 5000  # halves whose rows are kept beside their bodies until the twin comes
Form = Literal["json", "cloudevents", "open-inference"]


class _Inference(msgspec.Struct):
    id: str | int | None = None
    inputs: Any = msgspec.UNSET
    instances: Any = msgspec.UNSET
    outputs: Any = msgspec.UNSET
    predictions: Any = msgspec.UNSET


_inference_body = msgspec.json.Decoder(_Inference)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(slots=True)
class _Expanded:
    """The single events of a batch of bodies so far."""

    frames: Frames
    arrived_s: Sequence[float]
    splits: bool  # what a body holds has places of its own inside
    bounds: list[int]  # the frames' positions
    items: list[bytes | Ready] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)
    discarded: Counter[str] = field(default_factory=Counter)
    waiting_s: list[float] = field(default_factory=list)
    at: int = 0  # which body is being looked at
    n_from_it: int = 0  # how many places of it are taken

    def turn_to(self, at: int) -> None:
        """Body `at` is looked at now."""
        self.at, self.n_from_it = at, 0

    def place(self) -> int:
        """The position of the next thing that the body holds: one of its own, as long as the body has bytes."""
        start, stop = self.bounds[self.at : self.at + 2]
        if not self.splits:
            return start
        self.n_from_it += 1
        return min(start + self.n_from_it, stop) - 1

    def add(self, item: bytes | Ready, time_s: float | None) -> None:
        """One event; `time_s` None: the arrival stands for a time that it does not state."""
        self.items.append(item)
        self.positions.append(self.place())
        self.times_s.append(self.arrived_s[self.at] if time_s is None else time_s)

    def refuse(self, error: Unreadable, payload: bytes) -> None:
        """It holds something that cannot be used."""
        self.poison.append(Poison(self.frames.shard, self.place(), error.reason, str(error), payload))

    def events(self, write: Callable[[Ready], bytes]) -> Frames:
        """The events as frames."""
        positions = np.array([*self.positions, self.bounds[-1]], np.int64)
        return Frames(self.frames.shard, Events(self.items, write), positions, np.array(self.times_s, np.float64))


class BodyDecoder:
    """Decodes bodies by a schema; raises nothing for what one holds.

    `halves` keeps requests and responses until they meet; who saves it saves it with the positions. Discarded on
    purpose, beside what the JSON decoder discards: unknown_type (CloudEvents of a type that says nothing here),
    error_response, unused (a side that no column comes from), duplicate_half. `unmatched` counts what is used alone.

    `form`: what a body is whose headers do not say it: plain `json` events, one of `cloudevents` with its attributes
    around it, or a request or response of `open-inference`, whose id stands in it. `splits`: positions count bytes, so
    that several events of one body can have one each; else all have the body's.
    """

    def __init__(self, schema: Schema, halves: Halves, form: Form = "json", *, splits: bool = True) -> None:
        self._form, self._splits = form, splits
        self._json = JsonDecoder(schema)
        self._rows = InferenceRows(schema, self._json.root)
        self._halves = halves
        self._recent: dict[HalfKey, Rows] = {}
        self._roots = {c.path[0] for c in schema.columns} | {"label" if schema.label is None else schema.label.path[0]}
        self._id_key = schema.id_path[0] if len(schema.id_path) == 1 else None

    def decode(self, frames: Frames) -> Decoded:
        """The rows, the poison and the discarded of a batch of bodies."""
        if frames.headers is None and self._form == "json":
            return self._json.decode(frames)
        n = len(frames.messages)
        arrived_s = [nan] * n if frames.arrived_s is None else frames.arrived_s.tolist()
        expanded = _Expanded(frames, arrived_s, self._splits, frames.positions.tolist())
        for at, (body, headers) in enumerate(zip(frames.messages, frames.headers or repeat({}, n), strict=True)):
            expanded.turn_to(at)
            try:
                self._expand(expanded, body, headers)
            except Unreadable as error:
                expanded.refuse(error, body)
        events = expanded.events(self._rows.written)
        decoded = self._json.decode(events)
        poison = sorted((*decoded.poison, *expanded.poison), key=lambda p: p.position)
        discarded = Counter(decoded.discarded) + expanded.discarded
        end = expanded.bounds[-1]
        labels, n_invalid = decoded.labels, decoded.invalid_labels
        return Decoded(
            decoded.records, tuple(poison), end, dict(discarded), events, expanded.waiting_s, labels, n_invalid
        )

    def _expand(self, expanded: _Expanded, body: bytes, headers: Mapping[str, str]) -> None:
        if not body:
            expanded.add(body, None)  # a tombstone, whatever is said of it
            return
        said = media_type(headers.get("content-type", ""))
        if said == CLOUD_EVENT:
            self._take(expanded, cloud_events.from_envelope(shallow(body)))
        elif said == CLOUD_EVENTS:
            for document in _bounded(cloud_events.items(shallow(body))):
                try:
                    self._take(expanded, cloud_events.from_envelope(document))
                except Unreadable as error:
                    expanded.refuse(error, document)
        elif (event := cloud_events.from_headers(headers, body)) is not None:
            self._take(expanded, event)
        elif said in LINES:
            for line in _bounded([line for line in map(bytes.strip, body.split(b"\n")) if line]):
                try:
                    expanded.add(shallow(line), None)
                except Unreadable as error:
                    expanded.refuse(error, line)
        elif body[:64].lstrip().startswith(b"["):
            for item in _bounded(cloud_events.items(shallow(body))):
                expanded.add(item, None)
        elif self._form == "cloudevents":
            self._take(expanded, cloud_events.from_envelope(body))
        elif self._form == "open-inference":
            self._take(expanded, _inference(body))
        else:
            expanded.add(shallow(body), None)

    # CloudEvents ----------------------------------------------------------------------------------------------------

    def _take(self, expanded: _Expanded, event: CloudEvent) -> None:
        if event.type in {REQUEST, RESPONSE}:
            self._take_half(expanded, event)
            return
        message = self._plain(event)
        if message is None:
            expanded.discarded["unknown_type"] += 1
        else:
            expanded.add(message, event.time_s)

    def _plain(self, event: CloudEvent) -> bytes | None:
        """The plain event in a CloudEvent's data, with the CloudEvent's id where it has none; None: it is no such."""
        try:
            fields: dict[str, object] = dict(_fields.decode(shallow(event.data)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            fields = read_json(event.data)
            if not isinstance(fields, dict):
                return None
        if self._roots.isdisjoint(fields):
            return None
        if self._id_key is None or self._id_key in fields:
            return event.data
        if all(isinstance(value, msgspec.Raw) for value in fields.values()):
            return msgspec.json.encode(fields | {self._id_key: event.id})
        return json.dumps(fields | {self._id_key: event.id}).encode()

    def _take_half(self, expanded: _Expanded, event: CloudEvent) -> None:
        is_request = event.type == REQUEST
        if not is_request and event.status is not None and not event.status.startswith("2"):
            expanded.discarded["error_response"] += 1
            return
        if not (self._rows.needs_request if is_request else self._rows.needs_response):
            expanded.discarded["unused"] += 1
            return
        time_s = expanded.arrived_s[expanded.at] if event.time_s is None else event.time_s
        shard, position = expanded.frames.shard, expanded.bounds[expanded.at]
        half = Half("request" if is_request else "response", time_s, event.data, shard, position)
        rows = self._read(half)
        if not (self._rows.needs_request and self._rows.needs_response):
            self._emit(expanded, event.id, rows, time_s)
            return
        key = HalfKey(event.source, event.id)
        twin = self._halves.meet(key, half)
        if twin is None:
            self._recent[key] = rows
            if len(self._recent) > RECENT:
                del self._recent[next(iter(self._recent))]
            if isfinite(time_s):
                expanded.waiting_s.append(time_s)
        elif twin.kind == half.kind:
            expanded.discarded["duplicate_half"] += 1
        else:
            known = self._recent.pop(key, None)
            known = self._read(twin) if known is None else known
            both = (rows, known) if is_request else (known, rows)
            self._emit(expanded, event.id, self._rows.joined(*both), half.time_s if is_request else twin.time_s)
        for key, alone in self._halves.overdue():
            expanded.discarded["unmatched"] += 1
            try:
                self._emit(expanded, key.id, self._read(alone), alone.time_s)
            except Unreadable as error:  # it was read before, by other features
                expanded.refuse(error, alone.data)

    def _read(self, half: Half) -> Rows:
        return self._rows.of_request(half.data) if half.kind == "request" else self._rows.of_response(half.data)

    def _emit(self, expanded: _Expanded, id: str, rows: Rows, time_s: float) -> None:
        if not len(rows):
            expanded.discarded["empty"] += 1  # a request or response of no row
        for event in self._rows.events(rows, id):
            expanded.add(event, time_s)


def _inference(body: bytes) -> CloudEvent:
    """A request or response of a model server, alone. Raises Unreadable."""
    try:
        found = _inference_body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        values = read_json(body)
        try:
            found = msgspec.convert(values, _Inference)
        except (msgspec.ValidationError, UnicodeEncodeError, RecursionError) as error:
            raise Unreadable("structure", f"expected a request or response of a model; {error}.") from error
    if found.id is None or found.id == "":
        raise Unreadable("id", "expected an id at $.id, which a response has in common with its request; got none.")
    is_request = found.inputs is not msgspec.UNSET or found.instances is not msgspec.UNSET
    if not is_request and found.outputs is msgspec.UNSET and found.predictions is msgspec.UNSET:
        raise Unreadable("structure", "expected $.inputs or $.instances, or $.outputs or $.predictions; got none.")
    return CloudEvent(bounded(str(found.id)), "", REQUEST if is_request else RESPONSE, None, None, body)


def _bounded(events: list[bytes]) -> list[bytes]:
    if len(events) > MAX_EVENTS:
        raise Unreadable("structure", f"expected at most {MAX_EVENTS} events; got {len(events)}.")
    return events

"""Requests and responses of the KServe inference protocols, V1 and V2 → rows of values by column."""

import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from math import inf, prod
from typing import Any

import msgspec

from driftwatch.decode import binary_tensors
from driftwatch.decode.cells import bounded, shown
from driftwatch.decode.depth import shallow
from driftwatch.decode.layout import Node
from driftwatch.decode.lenient import Unreadable, read_json
from driftwatch.decode.plain_rows import MAX_ROWS, PlainBodies, PlainRows, Ready
from driftwatch.records import Column, Schema

Row = dict[str, Any]  # values by the name of their column
Rows = PlainRows | list[Row]
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


class InferenceRows:
    """Reads bodies by a schema: features from requests, the prediction from responses.

    V1: an instance is an object by the features' names, or a list in the order of the features. V2: tensors by the
    features' names, or one tensor of as many columns as there are features. `root`: of the schema's layout.
    """

    def __init__(self, schema: Schema, root: Node) -> None:
        self._plain = PlainBodies(schema, root)
        self._features = [c for c in schema.columns if c.group == "features"]
        self._predictions = [c for c in schema.columns if c.group == "prediction"]
        self._id_path = schema.id_path
        self._places: dict[tuple[str, ...], list[tuple[str, str]]] = {}  # by container: (column, key in it)
        for column in schema.columns:
            self._places.setdefault(column.path[:-1], []).append((column.name, column.path[-1]))

    @property
    def needs_request(self) -> bool:
        """Whether there is anything to look at in a request."""
        return bool(self._features)

    @property
    def needs_response(self) -> bool:
        """Whether there is anything to look at in a response."""
        return bool(self._predictions)

    def of_request(self, data: bytes) -> Rows:
        """One row an instance. Raises Unreadable."""
        is_json = binary_tensors.MARK not in data
        if is_json and (plain := self._plain.of_request(shallow(data))) is not None:
            return plain
        body = _document(data)
        if "instances" in body:
            return [self._instance(value) for value in _bounded(body["instances"], "instances")]
        return self._tensors(body, "inputs", self._features)

    def of_response(self, data: bytes) -> Rows:
        """One row a prediction. Raises Unreadable."""
        is_json = binary_tensors.MARK not in data
        if is_json and (plain := self._plain.of_response(shallow(data))) is not None:
            return plain
        body = _document(data)
        (column,) = self._predictions
        if "predictions" in body:
            return [{column.name: _prediction(v, column)} for v in _bounded(body["predictions"], "predictions")]
        rows = self._tensors(body, "outputs", self._predictions)
        return [{column.name: _prediction(row[column.name], column)} for row in rows]

    def joined(self, request: Rows, response: Rows) -> Rows:
        """Rows that were asked and answered, one by one. Raises Unreadable."""
        if (n := len(request)) != (m := len(response)):
            raise Unreadable("structure", f"expected as many predictions as rows; got {m} for {n}.")
        if isinstance(request, PlainRows) and isinstance(response, PlainRows):
            return self._plain.joined(request, response)
        asked, answered = (rows.named() if isinstance(rows, PlainRows) else rows for rows in (request, response))
        return [a | b for a, b in zip(asked, answered, strict=True)]

    def events(self, rows: Rows, id: str) -> list[bytes | Ready]:
        """Rows as events with ids of their own: that of their body, or numbered ones where there are several."""
        n = len(rows)
        ids = [id] if n == 1 else [bounded(f"{id}/{i}") for i in range(n)]
        if isinstance(rows, PlainRows):
            return [rows.event(i, ids[i]) for i in range(n)]
        return [self._written(row, row_id) for row, row_id in zip(rows, ids, strict=True)]

    def written(self, ready: Ready) -> bytes:
        """A ready event as JSON."""
        return self._written(dict(zip(ready.names, ready.values, strict=True)), ready.id)

    def _written(self, row: Row, id: str) -> bytes:
        """A row as a plain event, each value at its column's path."""
        event: dict[str, Any] = {}
        _inside(event, self._id_path[:-1])[self._id_path[-1]] = id
        for container, columns in self._places.items():
            values = {key: row[name] for name, key in columns if name in row}
            if values:
                _inside(event, container).update(values)
        if inf not in row.values() and -inf not in row.values():
            with suppress(ValueError, OverflowError):  # half a surrogate pair, say
                return _encode(event)
        return json.dumps(event).encode()  # which, unlike msgspec, writes Infinity

    def _instance(self, value: object) -> Row:
        names = [c.name for c in self._features]
        if isinstance(value, dict):
            return {name: value[name] for name in names if name in value} or {names[0]: None}
        values = value if isinstance(value, list) else [value]
        if len(values) != len(names):
            raise Unreadable("structure", f"expected {len(names)} values, as `events.features`; got {len(values)}.")
        return dict(zip(names, values, strict=True))

    def _tensors(self, body: dict[str, Any], key: str, columns: Sequence[Column]) -> list[Row]:
        tensors = _bounded(body.get(key), key)
        if not tensors or not all(isinstance(t, dict) for t in tensors):
            raise Unreadable("structure", f"expected tensors at $.{key}; got {shown(tensors)}.")
        by_name = {t["name"]: t for t in tensors if isinstance(t.get("name"), str)}
        named = {c.name: _tensor_rows(by_name[c.name]) for c in columns if c.name in by_name}
        if not named:
            if len(tensors) > 1:
                raise Unreadable("structure", f"expected a tensor named as a column; got {shown(sorted(by_name))}.")
            rows = _tensor_rows(tensors[0])
            if len(columns) == 1:
                return [{columns[0].name: _unwrapped(row)} for row in rows]
            if any(len(row) != len(columns) for row in rows):
                raise Unreadable("structure", f"expected {len(columns)} columns, as `events.features`; got others.")
            names = [c.name for c in columns]
            return [dict(zip(names, row, strict=True)) for row in rows]
        lengths = set(map(len, named.values()))
        if len(lengths) > 1:
            raise Unreadable("structure", f"expected tensors of as many rows; got {sorted(lengths)}.")
        (n,) = lengths
        return [{name: _unwrapped(rows[i]) for name, rows in named.items()} for i in range(n)]


def _document(data: bytes) -> dict[str, Any]:
    text = binary_tensors.json_part(data) if binary_tensors.MARK in data else shallow(data)
    try:
        body = _any.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = read_json(text)
    if not isinstance(body, dict):
        raise Unreadable("structure", f"expected an object; got {shown(body)}.")
    if len(text) < len(data):
        tensors = body.get("inputs", body.get("outputs"))
        binary_tensors.fill(_bounded(tensors, "inputs or $.outputs"), data[len(text) :])
    return body


def _bounded(values: object, key: str) -> list[Any]:
    if not isinstance(values, list):
        raise Unreadable("structure", f"expected a list at $.{key}; got {shown(values)}.")
    if len(values) > MAX_ROWS:
        raise Unreadable("structure", f"expected at most {MAX_ROWS} rows; got {len(values)}.")
    return values


def _tensor_rows(tensor: dict[str, Any]) -> list[list[Any]]:
    """The rows of a tensor [n, …], each flat; the data may be flat or nested."""
    shape, values = tensor.get("shape"), tensor.get("data")
    if not isinstance(shape, list) or not shape or not all(type(n) is int and n >= 0 for n in shape):
        raise Unreadable("structure", f"expected a tensor's `shape` as a list of numbers; got {shown(shape)}.")
    if not isinstance(values, list):
        raise Unreadable("structure", "expected a tensor's `data` as a list, or as binary data; got neither.")
    n, width = shape[0], prod(shape[1:])
    if n > MAX_ROWS:
        raise Unreadable("structure", f"expected at most {MAX_ROWS} rows; got {n}.")
    for _ in shape[1:]:
        if len(values) == n * width and not all(isinstance(v, list) for v in values):
            break
        if not all(isinstance(v, list) for v in values):
            break
        values = list(chain.from_iterable(values))
    if len(values) != n * width:
        raise Unreadable("structure", f"expected {n * width} values, as `shape` says; got {len(values)}.")
    return [values[i * width : (i + 1) * width] for i in range(n)]


def _unwrapped(row: list[Any]) -> Any:
    return row[0] if len(row) == 1 else row


def _prediction(value: object, column: Column) -> object:
    """A prediction may stand in a list of one, or under its name."""
    if isinstance(value, dict) and column.name in value:
        value = value[column.name]
    return _unwrapped(value) if isinstance(value, list) else value


def _inside(event: dict[str, Any], container: tuple[str, ...]) -> dict[str, Any]:
    for key in container:
        event = event.setdefault(key, {})
    return event

"""Events as JSON bytes, and what was decoded from them as values that compare by ==."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache

import numpy as np

from driftwatch.decode.json import JsonDecoder
from driftwatch.records import Column, Decoded, Frames, Kind, Schema, Shard

TIME = "2024-05-01T12:00:00Z"
TIME_S = datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()


def feature(
    name: str,
    kind: Kind = "numeric",
    path: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
    length: int = 0,
) -> Column:
    return Column(name, kind, path or ("features", name), "features", categories, length)


COLUMNS = (
    feature("age"),
    feature("region", "categorical", categories=("north", "south")),
    feature("income"),
    feature("code", "categorical", categories=("1", "2", "true")),
    feature("free", "categorical"),
    Column("score", "numeric", ("prediction",), "prediction"),
)
SCHEMA = Schema("credit", "3", COLUMNS)


def frames(messages: Sequence[bytes], start: int = 100, arrived_s: Sequence[float] | None = None) -> Frames:
    positions = start + 10 * np.arange(len(messages) + 1, dtype=np.int64)
    arrived = None if arrived_s is None else np.array(arrived_s, np.float64)
    return Frames(Shard("predictions[0]"), list(messages), positions, arrived)


decoder_of = cache(JsonDecoder)


def decode(*messages: bytes, schema: Schema = SCHEMA, arrived_s: Sequence[float] | None = None) -> Decoded:
    return decoder_of(schema).decode(frames(messages, arrived_s=arrived_s))


def event(**changes: object) -> bytes:
    """A clean event with changes; `...` takes a key away."""
    features = {"age": 40.5, "region": "north", "income": 1e5, "code": 1, "free": "x"}
    whole: dict[str, object] = {"id": "a", "time": TIME, "features": features, "prediction": 0.25} | changes
    return json.dumps({k: v for k, v in whole.items() if v is not ...}).encode()


def with_feature(name: str, text: str) -> bytes:
    """A clean event in which the feature is written as the JSON text."""
    return event(features={name: "HERE"}).replace(b'"HERE"', text.encode("utf-8", "surrogatepass"))


def marks(decoded: Decoded) -> dict[tuple[int, int], int]:
    records = decoded.records
    return {(int(r), int(c)): int(m) for (r, c), m in zip(records.marked, records.marks, strict=True)}


def rows(decoded: Decoded, n_numeric: int | None = None) -> list[object]:
    """Each row as plain values that compare by ==, NaN as a word; of the numeric columns the first ones."""
    records, mark = decoded.records, marks(decoded)
    n_numeric = records.numeric.shape[1] if n_numeric is None else n_numeric
    versions = records.versions or [SCHEMA.version] * len(records)
    return [
        (
            int(records.positions[i]),
            float(records.times_s[i]),
            records.ids[i],
            [repr(float(v)) for v in records.numeric[i, :n_numeric]],
            [mark.get((i, j), 0) for j in range(n_numeric)],
            [texts[i] for texts in records.categories],
            [repr(matrix[i].tolist()) for matrix in records.embeddings],
            [int(states[i]) for states in records.embedding_states],
            versions[i],
        )
        for i in range(len(records))
    ]

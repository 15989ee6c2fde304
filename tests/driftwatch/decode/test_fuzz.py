"""A hundred thousand broken messages of every kind: nothing is raised, each is counted or set aside, good ones pass."""

import base64
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_bodies import (
    BATCH,
    JSON,
    LINES,
    REQUEST,
    RESPONSE,
    SCHEMA,
    STRUCTURED,
    T0,
    V1_LISTS,
    V1_NAMED_OUT,
    V1_OBJECTS,
    V1_OUT,
    V2_FLAT,
    V2_NAMED,
    V2_NAMED_OUT,
    V2_NESTED,
    V2_OUT,
    Body,
    binary,
    event,
    frames,
    mutated,
    structured,
)

from driftwatch import app_sources, config
from driftwatch.decode.bodies import BodyDecoder
from driftwatch.halves import Halves
from driftwatch.protocols import Decoder
from driftwatch.records import Decoded, Frames, Schema, Shard
from driftwatch.store import Remembered

AT_ONCE = 50
SCORED = "com.example.scored"
OF_REQUESTS = Schema("credit", "1", SCHEMA.columns[:3])  # with one side only nothing waits for its other half
OF_RESPONSES = Schema("credit", "1", SCHEMA.columns[3:])

KINDS: dict[str, tuple[Schema, list[Body]]] = {
    "plain JSON": (SCHEMA, [(event(), JSON), (event("é\U0001f600", version=2), {}), (event(label=1), JSON)]),
    "arrays": (SCHEMA, [(b"[" + event() + b"," + event("b") + b"]", JSON)]),
    "NDJSON": (SCHEMA, [(event() + b"\n" + event("b") + b"\n", LINES)]),
    "CloudEvents, binary": (SCHEMA, [binary(SCORED, event()), binary(SCORED, event(None))]),
    "CloudEvents, structured": (
        SCHEMA,
        [
            (structured(json.loads(event())), STRUCTURED),
            (structured(None, data_base64=base64.b64encode(event()).decode()), STRUCTURED),
        ],
    ),
    "CloudEvents, batch": (
        SCHEMA,
        [(b"[" + structured(json.loads(event())) + b"," + structured(json.loads(event("b"))) + b"]", BATCH)],
    ),
    "V1 requests": (OF_REQUESTS, [binary(REQUEST, V1_OBJECTS), binary(REQUEST, V1_LISTS)]),
    "V2 requests": (OF_REQUESTS, [binary(REQUEST, V2_NAMED), binary(REQUEST, V2_NESTED), binary(REQUEST, V2_FLAT)]),
    "V1 responses": (OF_RESPONSES, [binary(RESPONSE, V1_OUT), binary(RESPONSE, V1_NAMED_OUT)]),
    "V2 responses": (OF_RESPONSES, [binary(RESPONSE, V2_OUT), binary(RESPONSE, V2_NAMED_OUT)]),
}
HOW_MANY = [pytest.param(100_000, marks=pytest.mark.slow), 2_000]


def broken(dice: random.Random, samples: list[Body]) -> Body:
    """A sample with damage to its bytes, and now and then to what its headers say."""
    body, headers = dice.choice(samples)
    if headers and dice.random() < 0.1:
        name = dice.choice(list(headers))
        headers = {**headers, name: dice.choice(["", "%zz", "\x00", "x" * 300, "application/json", headers[name][1:]])}
    return mutated(dice, body), headers


def accounted(decoded: Decoded, sent: Frames) -> None:
    """Every message left a row, a dead letter or a count; the dead letters hold its bytes or a piece of them."""
    places = np.array([*decoded.records.positions, *(p.position for p in decoded.poison)], np.int64)
    owners = np.searchsorted(sent.positions, places, side="right") - 1
    without = len(sent.messages) - len(np.unique(owners))
    assert without <= sum(decoded.discarded.values()), (without, decoded.discarded, sent.messages)
    assert (np.diff(decoded.records.positions) >= 0).all()
    assert decoded.end == sent.positions[-1]
    rows = len(decoded.records)
    assert rows == len(decoded.records.positions) == len(decoded.records.times_s) == len(decoded.records.numeric)
    assert all(len(column) == rows for column in decoded.records.categories)


def fuzz(make: Callable[[Schema], Decoder], kind: str, n: int, framed: Callable[..., Frames] = frames) -> None:
    """So many broken messages of a kind through a decoder, among good ones."""
    schema, samples = KINDS[kind]
    decoder, dice, outcomes = make(schema), random.Random(f"{kind}/{n}"), Counter[str]()
    good = [samples[0]] * 2
    want = decoder.decode(framed(*good))
    for _ in range(0, n, AT_ONCE):
        sent = framed(good[0], *(broken(dice, samples) for _ in range(AT_ONCE)), good[1])
        decoded = decoder.decode(sent)
        accounted(decoded, sent)
        k = len(want.records) // 2
        assert [*decoded.records.ids[:k], *decoded.records.ids[-k:]] == want.records.ids
        outcomes.update(p.reason for p in decoded.poison)
        outcomes["used"] += len(decoded.records) - 2 * k
    assert outcomes["structure"] > 0.1 * n
    assert outcomes["used"] > 0.05 * n or framed is not frames


@pytest.mark.parametrize("n", HOW_MANY)
@pytest.mark.parametrize("kind", KINDS)
def test_broken_messages_over_http_are_each_counted_or_set_aside(kind: str, n: int) -> None:
    fuzz(lambda schema: BodyDecoder(schema, Halves(60.0)), kind, n)


def of_a_topic(*bodies: Body) -> Frames:
    """Messages as they come from Kafka, with the headers of its binding for CloudEvents."""
    headers = [{k.replace("ce-", "ce_"): v for k, v in found.items()} for _, found in bodies]
    positions = np.arange(100, 101 + len(bodies))
    arrived_s = np.full(len(bodies), T0 + 86_400)
    return Frames(Shard("predictions/0"), [body for body, _ in bodies], positions, arrived_s, headers)


@pytest.fixture
def kafka_config(tmp_path: Path) -> config.Config:
    """Events from Kafka."""
    settings = {
        "model": {"name": "credit", "version": "1"},
        "source": {"kind": "kafka", "brokers": ["127.0.0.1:1"], "topics": ["predictions"]},
        "events": {"features": {"x": "numeric", "y": "numeric", "c": "categorical"}, "prediction": {"kind": "numeric"}},
        "reference": {"profile": "reference.profile"},
        "window": {"count": 1000},
        "alarms": {"budget": "1 per 100 windows"},
        "sinks": [],
        "state": {"path": "state.db"},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(settings))
    return config.load(tmp_path / "config.yaml")


@pytest.mark.parametrize("n", HOW_MANY)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"arrays", "NDJSON", "CloudEvents, batch"}])
def test_broken_messages_over_kafka_are_each_counted_or_set_aside(
    kind: str, n: int, kafka_config: config.Config, tmp_path: Path
) -> None:
    def made(schema: Schema) -> Decoder:
        nothing = Remembered({}, {}, [], None, {})
        feed = app_sources.make_feed(
            kafka_config,
            tmp_path / "config.yaml",
            schema,
            nothing,
            None,
            member="m",
            lacks=app_sources.Lacks(print, print),
        )
        return feed.decoder

    fuzz(made, kind, n, of_a_topic)

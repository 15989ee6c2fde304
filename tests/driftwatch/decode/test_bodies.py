"""Bodies in every form come to the rows of the plain events that they hold; what cannot be used is counted."""

import base64
import json
import random
from typing import Any

import numpy as np
import pytest

from driftwatch.decode.bodies import MAX_EVENTS, REQUEST, RESPONSE, BodyDecoder
from driftwatch.decode.json import JsonDecoder
from driftwatch.halves import Halves, HalvesState
from driftwatch.records import Column, Decoded, Frames, Mark, Schema, Shard

SCHEMA = Schema(
    "credit",
    "1",
    (
        Column("x", "numeric", ("features", "x")),
        Column("y", "numeric", ("features", "y")),
        Column("c", "categorical", ("features", "c")),
        Column("score", "numeric", ("prediction",), group="prediction"),
    ),
)
JSON = {"content-type": "application/json"}
LINES = {"content-type": "application/x-ndjson"}
STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
BATCH = {"content-type": "application/cloudevents-batch+json"}
T0 = 1_700_000_000.0
STAMP = "2023-11-14T22:13:20Z"  # T0
Body = tuple[bytes, dict[str, str]]


def frames(*bodies: Body, start: int = 100) -> Frames:
    """Bodies that arrived a day later, each in a record of 50 bytes more than its length."""
    ends = start + np.cumsum([0, *(len(body) + 50 for body, _ in bodies)])
    arrived_s = np.full(len(bodies), T0 + 86_400)
    return Frames(Shard("http"), [b for b, _ in bodies], ends.astype(np.int64), arrived_s, [h for _, h in bodies])


def decode(*bodies: Body, schema: Schema = SCHEMA, halves: Halves | None = None) -> Decoded:
    return BodyDecoder(schema, halves or Halves(60.0)).decode(frames(*bodies))


def rows(decoded: Decoded) -> list[tuple[Any, ...]]:
    """Every row: id, seconds after T0, and its values."""
    found = decoded.records
    return [
        (id, time_s - T0, *(None if np.isnan(v) else float(v) for v in found.numeric[i]), found.categories[0][i])
        for i, (id, time_s) in enumerate(zip(found.ids, found.times_s, strict=True))
    ]


def event(id: str | None = "a", **changed: Any) -> bytes:
    found = {"id": id, "time": T0, "features": {"x": 1.5, "y": 2, "c": "red"}, "prediction": 0.25} | changed
    return json.dumps({k: v for k, v in found.items() if v is not None}).encode()


def binary(type: str, data: Any, id: str = "a", *, at_s: float = 0.0, **more: str) -> Body:
    """As KServe's logger sends it."""
    stamp = np.datetime_as_string(np.datetime64(int((T0 + at_s) * 1000), "ms")) + "Z"
    attributes = {"specversion": "1.0", "id": id, "source": "http://svc/", "type": type, "time": str(stamp)} | more
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return body, JSON | {f"ce-{k}": v for k, v in attributes.items()}


DEEP: Any = json.loads("[" * 33 + "]" * 33)


def asked(*instances: Any, id: str = "a", at_s: float = 0.0) -> Body:
    return binary(REQUEST, {"instances": list(instances)}, id, at_s=at_s)


def answered(*predictions: Any, id: str = "a", at_s: float = 0.1, **more: str) -> Body:
    return binary(RESPONSE, {"predictions": list(predictions)}, id, at_s=at_s, **more)


PLAIN = ("a", 0.0, 1.5, 2.0, 0.25, "red")


def enveloped(data: Any, **changed: Any) -> dict[str, Any]:
    made = {"specversion": "1.0", "id": "ce", "source": "/s", "type": "com.example.scored", "time": STAMP, "data": data}
    return {k: v for k, v in (made | changed).items() if v is not None}


def structured(data: Any, **changed: Any) -> bytes:
    return json.dumps(enveloped(data, **changed)).encode()


@pytest.mark.parametrize(
    "body",
    [
        (event(), JSON),
        (event(), {}),
        (b"\n " + event() + b"\r\n\n", LINES),
        (b"[" + event() + b"]", JSON),
        binary("com.example.scored", event()),
        (structured(json.loads(event())), STRUCTURED),
        (structured(None, data_base64=base64.b64encode(event()).decode()), STRUCTURED),
        (b"[" + structured(json.loads(event())) + b"]", BATCH),
    ],
)
def test_each_form_of_one_event_is_the_row_of_the_plain_event(body: Body) -> None:
    decoded = decode(body)
    assert rows(decoded) == [PLAIN]
    assert (decoded.poison, decoded.discarded) == ((), {})
    assert decoded.end == 100 + len(body[0]) + 50


def test_time_falls_back_to_the_cloud_events_and_then_to_the_arrival_and_the_id_to_the_cloud_events() -> None:
    bare = event(None, time=None)
    decoded = decode(
        binary("com.example.scored", bare, "%C3%A4", at_s=7.0),
        (structured(json.loads(bare)), STRUCTURED),
        (structured(json.loads(bare), time=None), STRUCTURED),
        (event("p", time=None), JSON),
    )
    assert [row[:2] for row in rows(decoded)] == [("ä", 7.0), ("ce", 0.0), ("ce", 86_400.0), ("p", 86_400.0)]


def test_many_events_of_a_body_have_places_of_their_own_inside_it() -> None:
    lines = [event("a"), b"{broken", event("b"), b"[]", event("c")]
    decoded = decode((event("0"), JSON), (b"\n".join(lines), LINES), (event("1"), JSON))
    assert [row[0] for row in rows(decoded)] == ["0", "a", "b", "c", "1"]
    assert [(p.reason, p.payload) for p in decoded.poison] == [("structure", b"{broken"), ("structure", b"[]")]
    second, third = frames((event("0"), JSON), (b"\n".join(lines), LINES)).positions[1:]
    places = [*decoded.records.positions[1:4].tolist(), *(p.position for p in decoded.poison)]
    assert sorted(places) == list(range(second, second + 5))
    assert decoded.records.positions[4] == third
    assert decoded.events is not None
    assert np.isin(decoded.records.positions, decoded.events.positions).all()


def test_not_a_number_and_infinity_come_through_every_form() -> None:
    data = '{"id": "a", "time": 1700000000, "features": {"x": NaN, "y": 1e999, "c": "red"}, "prediction": 1}'
    envelope = structured(0)[:-2] + data.encode() + b"}"
    for body in [
        (data.encode(), JSON),
        (f"[{data}]".encode(), JSON),
        (envelope, STRUCTURED),
        (b"[" + envelope + b"]", BATCH),
        binary("com.example.scored", data.encode()),
    ]:
        assert rows(decode(body)) == [("a", 0.0, None, float("inf"), 1.0, "red")]
    both = decode(binary(REQUEST, b'{"instances": [[NaN, 1e999, "red"]]}'), answered(1))
    assert rows(both) == [("a", 0.0, None, float("inf"), 1.0, "red")]


V1_OBJECTS = {"instances": [{"x": 1.5, "y": 2, "c": "red", "z": 0}, {"x": 2.5, "c": "green"}]}
V1_LISTS = {"instances": [[1.5, 2, "red"], [2.5, None, "green"]]}
V2_NAMED = {
    "inputs": [
        {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.5, 2.5]},
        {"name": "y", "shape": [2, 1], "datatype": "FP64", "data": [[2], [None]]},
        {"name": "c", "shape": [2, 1], "datatype": "BYTES", "data": ["red", "green"]},
        {"name": "z", "shape": [7], "datatype": "FP64", "data": []},
    ]
}
V2_NESTED = {
    "inputs": [{"name": "in", "shape": [2, 3], "datatype": "BYTES", "data": [[1.5, 2, "red"], [2.5, None, "green"]]}]
}
V2_FLAT = {
    "inputs": [{"name": "in", "shape": [2, 3], "datatype": "BYTES", "data": [1.5, 2, "red", 2.5, None, "green"]}]
}
V1_OUT = {"predictions": [0.25, [0.5]]}
V1_NAMED_OUT = {"predictions": [{"score": 0.25}, {"score": 0.5}]}
V2_OUT = {
    "model_name": "credit",
    "outputs": [{"name": "predict", "shape": [2], "datatype": "FP64", "data": [0.25, 0.5]}],
}
V2_NAMED_OUT = {
    "outputs": [
        {"name": "class", "shape": [2], "datatype": "INT64", "data": [0, 1]},
        {"name": "score", "shape": [2, 1], "datatype": "FP64", "data": [0.25, 0.5]},
    ]
}


@pytest.mark.parametrize("request_body", [V1_OBJECTS, V1_LISTS, V2_NAMED, V2_NESTED, V2_FLAT])
@pytest.mark.parametrize("response_body", [V1_OUT, V1_NAMED_OUT, V2_OUT, V2_NAMED_OUT])
@pytest.mark.parametrize("turned", [False, True])
def test_a_request_and_its_response_are_one_row_an_instance_in_either_order(
    request_body: Any, response_body: Any, turned: bool
) -> None:
    bodies = [binary(REQUEST, request_body, "q"), binary(RESPONSE, response_body, "q", at_s=0.5)]
    decoded = decode(*(reversed(bodies) if turned else bodies))
    assert rows(decoded) == [("q/0", 0.0, 1.5, 2.0, 0.25, "red"), ("q/1", 0.0, 2.5, None, 0.5, "green")]
    assert (decoded.poison, decoded.discarded) == ((), {})


def test_requests_of_two_services_under_one_id_do_not_meet() -> None:
    decoded = decode(asked([1, 2, "red"]), binary(RESPONSE, {"predictions": [1]}, source="http://other/"))
    assert rows(decoded) == []


def test_either_side_alone_is_used_for_what_it_holds_once_it_waited_too_long() -> None:
    later = [body for i in range(3) for body in (asked([0, 0, "x"], id=f"l{i}", at_s=100), answered(0, id=f"l{i}"))]
    first = [asked([1.5, 2, "red"], id="r", at_s=1), answered(0.25, id="p", at_s=2)]
    decoded = decode(*first, *later, asked([0, 0, "x"], id="z", at_s=100))
    alone = [row for row in rows(decoded) if row[0] in {"r", "p"}]
    assert alone == [("r", 1.0, 1.5, 2.0, None, "red"), ("p", 2.0, None, None, 0.25, Mark.ABSENT)]
    assert decoded.discarded == {"unmatched": 2}


def test_the_same_half_twice_is_counted_and_used_once() -> None:
    decoded = decode(asked([1.5, 2, "red"]), asked([1.5, 2, "red"]), answered(0.25))
    assert rows(decoded) == [PLAIN]
    assert decoded.discarded == {"duplicate_half": 1}


def test_no_more_halves_wait_than_the_bound() -> None:
    halves = Halves(60.0, most=10)
    decoded = decode(*(asked([1, 2, "c"], id=str(i)) for i in range(15)), halves=halves)
    assert [row[0] for row in rows(decoded)] == ["0", "1", "2", "3", "4"]


def test_a_failed_response_is_counted_and_is_no_prediction() -> None:
    decoded = decode(answered(0.25, statuscode="500"), answered(0.5, statuscode="200"), asked([1, 2, "c"]))
    assert [row[4] for row in rows(decoded)] == [0.5]
    assert decoded.discarded == {"error_response": 1}


@pytest.mark.parametrize("data", [b'{"jsonData": {}}', b"[1]", b"3"])
def test_cloud_events_that_say_nothing_here_are_counted(data: bytes) -> None:
    decoded = decode(binary("io.seldon.serving.inference.request", data))
    assert (rows(decoded), decoded.poison, decoded.discarded) == ([], (), {"unknown_type": 1})


def test_a_side_that_no_column_comes_from_is_not_waited_for() -> None:
    features = Schema("credit", "1", SCHEMA.columns[:3])
    decoded = decode(asked([1.5, 2, "red"]), answered(1), schema=features)
    assert rows(decoded) == [("a", 0.0, 1.5, 2.0, "red")]
    assert decoded.discarded == {"unused": 1}
    prediction = Schema("credit", "1", SCHEMA.columns[3:])
    decoded = decode(asked([1.5, 2, "red"]), answered(0.25), schema=prediction)
    assert decoded.records.numeric.tolist() == [[0.25]]


@pytest.mark.parametrize(
    ("body", "reason", "says"),
    [
        (binary(REQUEST, {"instances": [[1, 2]]}), "structure", "expected 3 values"),
        (binary(REQUEST, {"inputs": []}), "structure", "expected tensors"),
        (binary(REQUEST, {"inputs": [{"name": "in", "shape": [1, 2], "data": [1, 2]}]}), "structure", "3 columns"),
        (binary(REQUEST, {"inputs": [{"name": "in", "shape": [2, 3], "data": [1, 2]}]}), "structure", "6 values"),
        (binary(REQUEST, {"inputs": [{"name": "in", "shape": [1, 3]}]}), "structure", "binary"),
        (binary(REQUEST, {"inputs": [{"name": "in", "shape": "3", "data": []}]}), "structure", "`shape`"),
        (binary(REQUEST, {"instances": [[1, 2, 3]] * 10_001}), "structure", "10000 rows"),
        (binary(REQUEST, {"text": 1}), "structure", "$.inputs"),
        (binary(RESPONSE, {"outputs": 3}), "structure", "list"),
        (binary(REQUEST, b"\xff\xfe"), "encoding", "UTF-8"),
        (binary(REQUEST, b"[" * 100_000), "depth", "nested"),
        (binary(REQUEST, {"inputs": [{"shape": [10_001, 0], "data": []}]}), "structure", "10000 rows"),
        (binary(REQUEST, {"instances": DEEP}), "depth", "32"),
        (binary("t", {"features": DEEP}), "depth", "32"),
        ((structured(DEEP), STRUCTURED), "depth", "32"),
        ((structured(None, data_base64=base64.b64encode(event(deep=DEEP)).decode()), STRUCTURED), "depth", "32"),
        ((b"[" + structured(DEEP) + b"]", BATCH), "depth", "32"),
        ((event(deep=DEEP), JSON), "depth", "32"),
        ((b"[" + event(deep=DEEP) + b"]", JSON), "depth", "32"),
        ((event(deep=DEEP), LINES), "depth", "32"),
        (binary("t", b"{"), "structure", "JSON"),
        ((b"{}", STRUCTURED), "structure", "CloudEvent"),
        ((structured({}, source=""), STRUCTURED), "structure", "`source`"),
        ((structured(None, data_base64="?"), STRUCTURED), "encoding", "base64"),
        ((b"{}", BATCH), "structure", "array"),
        ((b"{}", {"ce_id": "1"}), "structure", "`specversion`"),
        (binary("t", b"{}", time="noon"), "time", "RFC 3339"),
        ((b"{}\n" * (MAX_EVENTS + 1), LINES), "structure", "at most 10000"),
        ((b"\x1f\x8b", JSON), "encoding", "UTF-8"),
    ],
)
def test_what_cannot_be_used_is_set_aside_with_its_bytes(body: Body, reason: str, says: str) -> None:
    decoded = decode(body, (event("b"), JSON))
    assert [row[0] for row in rows(decoded)] == ["b"]
    (poison,) = decoded.poison
    assert (poison.reason, poison.position, poison.payload) == (reason, 100, body[0])
    assert says in poison.detail


def test_as_many_predictions_as_rows_are_expected() -> None:
    (poison,) = decode(asked([1, 2, "c"], [1, 2, "c"]), answered(1)).poison
    assert "got 1 for 2" in poison.detail


def test_one_bad_event_of_a_batch_is_set_aside_alone() -> None:
    bad = structured({}, type="")
    decoded = decode((b"[" + b",".join([structured(json.loads(event("1"))), bad]) + b"]", BATCH))
    assert [row[0] for row in rows(decoded)] == ["1"]
    assert [p.payload for p in decoded.poison] == [bad]


def test_halves_that_were_stored_go_on_as_if_nothing_had_been() -> None:
    """The store's part is played by a dict that takes the changes as the store's tables do."""
    dice = random.Random(0)
    bodies: list[Body] = []
    for i in range(300):
        pair = [asked([i, 0, "c"], id=str(i), at_s=i), answered(i, id=str(i), at_s=i + 0.5)]
        bodies += pair if dice.random() < 0.8 else pair[:1]
    order = sorted(range(len(bodies)), key=lambda i: i + dice.uniform(0, 30))
    bodies = [bodies[i] for i in order]
    straight = BodyDecoder(SCHEMA, Halves(60.0)).decode(frames(*bodies))
    found, at = [], 0
    table, times_s = {}, ()
    while at < len(bodies):
        halves = Halves(60.0)
        halves.restore(HalvesState(dict(table), times_s))
        decoder = BodyDecoder(SCHEMA, halves)
        for _ in range(dice.randint(0, 3)):
            n = dice.randint(1, 20)
            found += rows(decoder.decode(frames(*bodies[at : at + n]))) if at < len(bodies) else []
            at += n
            changes = halves.changes()
            for key in changes.gone:
                del table[key]
            assert table.keys().isdisjoint(changes.waiting)
            table, times_s = table | changes.waiting, changes.times_s
        if at < len(bodies):
            decoder.decode(frames(*bodies[at : at + 10]))  # and is killed before it is stored
    assert found == rows(straight)
    assert straight.discarded["unmatched"] > 20


def mutated(dice: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(dice.choice((1, 1, 2, 5, 30))):
        at = dice.randrange(len(changed) + 1)
        what = dice.randrange(4)
        if what == 0:
            changed[at : at + 1] = bytes([dice.randrange(256)])
        elif what == 1:
            del changed[at : at + dice.randrange(20)]
        elif what == 2:
            changed[at:at] = dice.choice(
                (b"null", b"[", b"{", b'"', b"NaN", b"1e999", b"\\ud800", b"\x00", b"-1", b",")
            )
        else:
            changed[at:at] = changed[at : at + dice.randrange(30)]
    return bytes(changed)


def fuzz(n: int) -> None:
    """So many broken bodies among good ones of every kind: nothing is raised, the good rows come as always."""
    dice = random.Random(7)
    samples = [
        (event(), JSON),
        (event() + b"\n" + event("b"), LINES),
        (b"[" + event() + b"]", JSON),
        binary("com.example.scored", event()),
        (structured(json.loads(event())), STRUCTURED),
        (b"[" + structured(json.loads(event())) + b"]", BATCH),
        binary(REQUEST, V1_OBJECTS),
        binary(REQUEST, V2_NAMED),
        binary(REQUEST, V2_FLAT),
        binary(RESPONSE, V1_OUT),
        binary(RESPONSE, V2_NAMED_OUT),
    ]
    decoder, plain = BodyDecoder(SCHEMA, Halves(60.0, most=50)), JsonDecoder(SCHEMA)
    good = [(event(f"good{i}"), JSON) for i in range(2)]
    want = plain.decode(frames(*good))
    for _ in range(0, n, 20):
        broken = [(mutated(dice, body), headers) for body, headers in dice.choices(samples, k=20)]
        decoded = decoder.decode(frames(good[0], *broken, good[1]))
        assert len(decoded.records) + len(decoded.poison) + sum(decoded.discarded.values()) >= 2
        assert [rows(decoded)[0], rows(decoded)[-1]] == rows(want)
        assert (np.diff(decoded.records.positions) >= 0).all()
        assert decoded.end == frames(good[0], *broken, good[1]).positions[-1]


def test_broken_bodies_stop_nothing() -> None:
    fuzz(4000)


@pytest.mark.slow
def test_a_hundred_thousand_broken_bodies_stop_nothing() -> None:
    fuzz(100_000)

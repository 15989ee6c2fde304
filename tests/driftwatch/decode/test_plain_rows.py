"""Plain V1 bodies, straight into events, come to what the long way, over events written as JSON, makes of them."""

import json
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftwatch.decode.bodies import REQUEST, RESPONSE, BodyDecoder
from driftwatch.decode.json import JsonDecoder
from driftwatch.decode.plain_rows import Events, PlainBodies, Ready
from driftwatch.halves import Halves
from driftwatch.records import Column, Decoded, Frames, LabelColumn, Schema, Shard

X = Column("x", "numeric", ("features", "x"))
COLOUR = Column("colour", "categorical", ("features", "c"), categories=("red", "7", "true"))
CITY = Column("city", "categorical", ("features", "city"), categories=("Rom", "grün"))
VECTOR = Column("v", "embedding", ("features", "deep", "v"), length=2)
SCORE = Column("score", "numeric", ("prediction",), group="prediction")
CLASS = Column("class", "categorical", ("out", "class"), group="prediction", categories=("a", "b"))
LABEL = LabelColumn("label", "numeric", prediction="score", judged_as="numeric")
SCHEMAS = [
    Schema("m", "1", (X, COLOUR, CITY, SCORE)),
    Schema("m", "1", (X, SCORE), label=LABEL),
    Schema("m", "1", (COLOUR, VECTOR, X, CLASS), id_path=("key", "id")),
    Schema("m", "1", (Column("x", "numeric", ("x",)), Column("c", "categorical", ("c",)), SCORE)),
    Schema("m", "1", (X, COLOUR)),
    Schema("m", "1", (CLASS,)),
    Schema("m", "1", (Column("model", "categorical", ("model",)), Column("label", "numeric", ("label",)), SCORE)),
]
VALUES = st.one_of(
    st.sampled_from(["red", "Rom", "grün", "a", "7", "true", "True", "other", "", "\\ud800", "x" * 300]).map(
        lambda text: f'"{text}"'
    ),
    st.sampled_from(
        ["null", "7", "7.0", "1e3", "-0.0", "1e999", "NaN", "true", "[]", "[1, 2]", "[1.5]", "{}", "2" * 30]
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)
ROWS = st.lists(VALUES, max_size=5).map(lambda values: f"[{', '.join(values)}]")
NAMED = st.dictionaries(st.sampled_from(["x", "colour", "c", "city", "v", "model", "other"]), VALUES, max_size=4).map(
    lambda values: "{" + ", ".join(f'"{key}": {value}' for key, value in values.items()) + "}"
)
REQUESTS = st.lists(st.one_of(ROWS, NAMED, VALUES), max_size=3).map(
    lambda rows: f'{{"instances": [{", ".join(rows)}]}}'
)
RESPONSES = st.lists(VALUES, max_size=3).map(lambda values: f'{{"predictions": [{", ".join(values)}], "more": 1}}')
NUMBERS = st.sampled_from(["0", "1", "2", "3", "1.0", "null", "-1"])
TENSORS = st.tuples(
    st.sampled_from(["x", "colour", "city", "model", "label", "c", "score", "class", "other"]),
    st.lists(NUMBERS, max_size=3),
    st.lists(st.one_of(VALUES, ROWS), max_size=4),
    st.booleans(),
).map(lambda t: _tensor(*t))
TENSOR_LISTS = st.lists(TENSORS, max_size=4).map(lambda tensors: f"[{', '.join(tensors)}]")
REQUESTS |= TENSOR_LISTS.map(lambda tensors: f'{{"inputs": {tensors}}}')
RESPONSES |= TENSOR_LISTS.map(lambda tensors: f'{{"outputs": {tensors}}}')
BODIES = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.one_of(REQUESTS.map(lambda b: (REQUEST, b)), RESPONSES.map(lambda b: (RESPONSE, b)))
    ),
    min_size=1,
    max_size=8,
)


def _tensor(name: str, shape: list[str], data: list[str], fits: bool) -> str:
    dimensions = [str(len(data)), *["1"][: len(shape) % 2]] if fits else shape
    return f'{{"name": "{name}", "shape": [{", ".join(dimensions)}], "datatype": "FP64", "data": [{", ".join(data)}]}}'


def frames(bodies: list[tuple[str, tuple[str, str]]]) -> Frames:
    messages = [body.encode("utf-8", "surrogatepass") for _, (_, body) in bodies]
    headers = [
        {"ce-specversion": "1.0", "ce-id": id, "ce-source": "/s", "ce-type": type, "ce-time": "2023-11-14T22:13:20Z"}
        for id, (type, _) in bodies
    ]
    return Frames(Shard("http"), messages, np.arange(len(bodies) + 1) * 100, np.zeros(len(bodies)), headers)


def shown(decoded: Decoded) -> list[Any]:
    """Everything that was decoded; ids and numbers bit for bit."""
    found = decoded.records
    return [
        found.ids,
        found.positions.tolist(),
        found.times_s.tolist(),
        found.numeric.shape,
        np.ascontiguousarray(found.numeric).view(np.uint64).tolist(),
        found.marked.tolist(),
        found.marks.tolist(),
        found.categories,
        [np.nan_to_num(matrix, nan=-1.0).tolist() for matrix in found.embeddings],
        [states.tolist() for states in found.embedding_states],
        found.labels,
        found.versions,
        decoded.poison,
        decoded.discarded,
        decoded.waiting_s,
        decoded.labels,
    ]


def decoded(schema: Schema, bodies: list[tuple[str, tuple[str, str]]]) -> Decoded:
    return BodyDecoder(schema, Halves(60.0)).decode(frames(bodies))


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: "-".join(c.name for c in schema.columns))
@given(bodies=BODIES)
def test_a_body_says_the_same_on_both_ways(schema: Schema, bodies: list[tuple[str, tuple[str, str]]]) -> None:
    straight = decoded(schema, bodies)
    with (
        patch.object(PlainBodies, "of_request", lambda *_: None),
        patch.object(PlainBodies, "of_response", lambda *_: None),
    ):
        long = decoded(schema, bodies)
    assert shown(straight) == shown(long)
    assert straight.events is not None
    written = replace(straight.events, messages=list(straight.events.messages))
    assert shown(JsonDecoder(schema).decode(written))[:12] == shown(straight)[:12]


def v2(*tensors: tuple[str, list[int], list[Any]]) -> str:
    key = "outputs" if tensors[0][0] in {"out", "score"} else "inputs"
    return json.dumps({key: [{"name": n, "shape": s, "datatype": "FP64", "data": d} for n, s, d in tensors]})


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ('{"instances": [[1.5, "red", "Rom"], [2, 7, null]]}', '{"predictions": [0.5, null]}'),
        (
            v2(("city", [2, 1], ["Rom", None]), ("x", [2], [1.5, 2]), ("colour", [2], ["red", 7])),
            v2(("out", [2, 1], [0.5, None])),
        ),
        (v2(("in", [2, 3], [1.5, "red", "Rom", 2, 7, None])), v2(("score", [2], [0.5, None]))),
    ],
)
def test_tensors_that_lie_flat_are_plain_too(asked: str, answered: str) -> None:
    found = decoded(SCHEMAS[0], [("a", (REQUEST, asked)), ("a", (RESPONSE, answered))])
    assert found.events is not None
    assert isinstance(found.events.messages, Events)
    assert [type(item) for item in found.events.messages.items] == [Ready, Ready]
    assert found.records.numeric.tolist()[0] == [1.5, 0.5]
    assert found.records.categories == (["red", "7"], ["Rom", None])


def test_a_plain_body_needs_no_event_in_between() -> None:
    bodies = [
        ("a", (REQUEST, '{"instances": [[1.5, "red", "Rom"], {"x": 2, "colour": 7}]}')),
        ("a", (RESPONSE, '{"predictions": [0.5, null]}')),
    ]
    found = decoded(SCHEMAS[0], bodies)
    assert found.events is not None
    events = found.events.messages
    assert isinstance(events, Events)
    assert [type(item) for item in events.items] == [Ready, Ready]
    assert found.records.ids == ["a/0", "a/1"]
    assert found.records.categories == (["red", "7"], ["Rom", None])
    assert json.loads(events[0]) == {"id": "a/0", "features": {"x": 1.5, "c": "red", "city": "Rom"}, "prediction": 0.5}
    assert events[-1:] == [events[1]]

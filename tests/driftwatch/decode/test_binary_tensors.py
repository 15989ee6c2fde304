"""V2 bodies whose tensors follow the JSON as bytes come to the rows of the same body in JSON."""

import json
from typing import Any

import numpy as np
import pytest

from driftwatch.decode.inference import InferenceRows
from driftwatch.decode.layout import layout
from driftwatch.decode.lenient import Unreadable
from driftwatch.records import Column, Schema

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
ROWS = InferenceRows(SCHEMA, layout(SCHEMA))
TEXTS = b"".join(len(t).to_bytes(4, "little") + t for t in (b'rot ]]{"', "grün".encode()))


def body(key: str, *tensors: tuple[dict[str, Any], bytes | None]) -> bytes:
    """Each tensor with its bytes, or None where it has its `data` in the JSON."""
    described = [t if data is None else t | {"parameters": {"binary_data_size": len(data)}} for t, data in tensors]
    head = json.dumps({"id": "1", key: described, "parameters": {"binary_data_output": True}}).encode()
    return head + b"".join(data for _, data in tensors if data is not None)


def tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


NUMBERS = [
    ("FP64", "<f8", [1.5, -2.25]),
    ("FP32", "<f4", [1.5, -2.25]),
    ("FP16", "<f2", [1.5, -2.25]),
    ("INT8", "<i1", [1, -2]),
    ("INT16", "<i2", [1, -2]),
    ("INT32", "<i4", [1, -2]),
    ("INT64", "<i8", [1, -(2**60)]),
    ("UINT8", "<u1", [1, 255]),
    ("UINT16", "<u2", [1, 2**16 - 1]),
    ("UINT32", "<u4", [1, 2**32 - 1]),
    ("UINT64", "<u8", [1, 2**64 - 1]),
    ("BOOL", "?", [True, False]),
]


@pytest.mark.parametrize(("datatype", "kind", "values"), NUMBERS)
def test_every_number_of_the_protocol_is_read(datatype: str, kind: str, values: list[Any]) -> None:
    data = np.array(values, kind).tobytes()
    found = ROWS.of_request(body("inputs", (tensor("x", datatype, 2, 1), data)))
    assert found == [{"x": value} for value in values]


def test_the_short_float_is_read() -> None:
    data = (np.array([1.5, -2.25], "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    assert ROWS.of_request(body("inputs", (tensor("x", "BF16", 2), data))) == [{"x": 1.5}, {"x": -2.25}]


def test_tensors_in_json_and_in_bytes_stand_beside_each_other() -> None:
    found = ROWS.of_request(
        body(
            "inputs",
            (tensor("c", "BYTES", 2), TEXTS),
            (tensor("y", "INT64", 2) | {"data": [3, 4]}, None),
            (tensor("x", "FP64", 2, 1), np.array([1.0, np.nan]).tobytes()),
        )
    )
    assert [(row["c"], row["y"]) for row in found] == [('rot ]]{"', 3), ("grün", 4)]
    assert found[0]["x"] == 1.0
    assert np.isnan(found[1]["x"])
    (event,) = ROWS.events([found[1]], "a")
    assert isinstance(event, bytes)
    assert json.loads(event)["features"] == {"x": None, "y": 4, "c": "grün"}


def test_bytes_that_look_like_brackets_nest_nothing() -> None:
    found = ROWS.of_request(body("inputs", (tensor("x", "UINT8", 200), b"[" * 200)))
    assert found == [{"x": 91}] * 200


def test_one_tensor_of_all_features_and_a_response_are_read() -> None:
    matrix = np.arange(6, dtype="<f4")
    names = ["x", "y", "c"]
    found = ROWS.of_request(body("inputs", (tensor("in", "FP32", 2, 3), matrix.tobytes())))
    assert found == [dict(zip(names, row, strict=True)) for row in ([0.0, 1.0, 2.0], [3.0, 4.0, 5.0])]
    answered = ROWS.of_response(body("outputs", (tensor("p", "FP64", 2), np.array([0.25, 0.5]).tobytes())))
    assert answered == [{"score": 0.25}, {"score": 0.5}]


@pytest.mark.parametrize(
    ("sent", "reason", "says"),
    [
        (body("inputs", (tensor("x", "FP64", 1), bytes(8)))[:-1], "structure", "whole values of FP64"),
        (body("inputs", (tensor("x", "FP64", 1), bytes(8))) + b"?", "structure", "expected 8 bytes"),
        (body("inputs", (tensor("x", "FP64", 3), bytes(16))), "structure", "expected 3 values"),
        (body("inputs", (tensor("x", "BF16", 1), bytes(3))), "structure", "BF16"),
        (body("inputs", (tensor("x", "FP128", 1), bytes(16))), "structure", "`datatype`"),
        (body("inputs", (tensor("c", "BYTES", 1), b"\x09\x00\x00\x00abc")), "structure", "BYTES"),
        (body("inputs", (tensor("c", "BYTES", 1), b"\x01\x00\x00\x00\xff")), "encoding", "UTF-8"),
        (b'{"inputs": [{"parameters": {"binary_data_size": "8"}}]}' + bytes(8), "structure", "binary_data_size"),
        (b'{"binary_data_size": 3' + bytes(8), "structure", "JSON before"),
        (b'{"x": 1, "binary_data_size": 3}' + bytes(8), "structure", "$.inputs"),
        (b'{"binary_data_size":' + b"[" * 40 + b"]" * 40 + b"}", "depth", "32 deep"),
        (b'{"binary_data_size":' + b"[" * 100_000, "depth", "deep"),
    ],
)
def test_bytes_that_do_not_fit_are_told(sent: bytes, reason: str, says: str) -> None:
    with pytest.raises(Unreadable) as told:
        ROWS.of_request(sent)
    assert told.value.reason == reason
    assert says in str(told.value)

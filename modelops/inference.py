"""Requests and answers of the model server: V1 (`instances`) and V2 (the Open Inference Protocol)."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modelops.errors import Refused

MOST_ROWS = 10_000


class Asked(msgspec.Struct, frozen=True):
    """Rows to predict, as mappings by feature, and the request's id where it has one."""

    rows: tuple[Mapping[str, Any], ...]
    id: str | None


class V1Request(msgspec.Struct):
    """`{"instances": [{"age": 42, …}, …]}`; a row may also be a list in the order of the features."""

    instances: list[dict[str, Any] | list[Any]]
    id: str | None = None


class Tensor(msgspec.Struct):
    """One input of V2: a feature of all rows, or a matrix of all features."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class V2Request(msgspec.Struct):
    """`{"inputs": [{"name": "age", "shape": [2], "datatype": "FP64", "data": [42, 43]}, …]}`."""

    inputs: list[Tensor]
    id: str | None = None


def read_v1(body: bytes, features: Sequence[str]) -> Asked:
    """The rows of a V1 body. Raises Refused (400)."""
    try:
        request = _v1.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"the body must be a V1 request, an object with `instances`: {error}") from error
    rows: list[Mapping[str, Any]] = []
    for i, row in enumerate(request.instances):
        if isinstance(row, dict):
            rows.append(row)
        elif len(row) == len(features):
            rows.append(dict(zip(features, row, strict=True)))
        else:
            raise Refused(400, f"`instances[{i}]` must have {len(features)} values; got {len(row)}.")
    return _asked(rows, request.id)


def read_v2(body: bytes, features: Sequence[str]) -> Asked:
    """The rows of a V2 body: a tensor for each feature, or one of shape [n, features]. Raises Refused (400)."""
    try:
        request = _v2.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"the body must be a V2 request, an object with `inputs`: {error}") from error
    if not request.inputs:
        raise Refused(400, "`inputs` must hold at least one tensor; got none.")
    n = request.inputs[0].shape[0] if request.inputs[0].shape else 0
    first = request.inputs[0]
    if len(request.inputs) == 1 and first.name not in features:
        flat = [v for row in first.data for v in row] if first.data and isinstance(first.data[0], list) else first.data
        if len(first.shape) != 2 or first.shape[1] != len(features) or len(flat) != n * len(features):
            raise Refused(
                400, f"`inputs[0]` must have shape [n, {len(features)}] and as many values; got {first.shape}."
            )
        width = len(features)
        return _asked(
            [dict(zip(features, flat[i * width : (i + 1) * width], strict=True)) for i in range(n)], request.id
        )
    for tensor in request.inputs:
        if tensor.name not in features:
            raise Refused(400, f"`inputs` must name features; got {tensor.name!r}. There are {', '.join(features)}.")
        if len(tensor.data) != n:
            raise Refused(400, f"`{tensor.name}` must have {n} values, as the first tensor; got {len(tensor.data)}.")
    return _asked([{t.name: t.data[i] for t in request.inputs} for i in range(n)], request.id)


def row_ids(request_id: str, n: int) -> list[str]:
    """The ids of a request's rows: its own, or `ID/0`, `ID/1`, … where it has several. Labels use them."""
    return [request_id] if n == 1 else [f"{request_id}/{i}" for i in range(n)]


def answer_v1(scores: Sequence[float], request_id: str, version: str) -> bytes:
    """The V1 answer."""
    return msgspec.json.encode({"predictions": scores, "id": request_id, "model_version": version})


def answer_v2(scores: Sequence[float], request_id: str, model: str, version: str) -> bytes:
    """The V2 answer."""
    output = {"name": "score", "shape": [len(scores)], "datatype": "FP64", "data": scores}
    return msgspec.json.encode({"model_name": model, "model_version": version, "id": request_id, "outputs": [output]})


def _asked(rows: list[Mapping[str, Any]], request_id: str | None) -> Asked:
    if not 1 <= len(rows) <= MOST_ROWS:
        raise Refused(400, f"a request must have 1 to {MOST_ROWS:,} rows; got {len(rows):,}.")
    return Asked(tuple(rows), request_id)


_v1 = msgspec.json.Decoder(V1Request, strict=False)
_v2 = msgspec.json.Decoder(V2Request, strict=False)

"""Batching: everything is answered, in its own place, in batches within their bounds."""

import asyncio
import functools
import operator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelops import inference
from modelops.batching import Batcher
from modelops.errors import Refused

FEATURES = ("age", "region")


def answered(requests: Sequence[int], *, max_rows: int, max_wait_s: float) -> tuple[list[object], list[list[int]]]:
    """The answers to requests that come at once, and the batches; 13 fails its batch."""
    batches: list[list[int]] = []

    def double(batch: Sequence[int]) -> list[int]:
        batches.append(list(batch))
        if 13 in batch:
            raise ValueError("unlucky")
        return [2 * n for n in batch]

    async def run() -> list[object]:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher[int, int](double, thread, max_rows=max_rows, max_wait_s=max_wait_s, size=lambda n: 1)
            task = asyncio.create_task(batcher.run())
            found = await asyncio.gather(*(batcher.submit(n) for n in requests), return_exceptions=True)
            task.cancel()
            return list(found)

    return asyncio.run(run()), batches


@pytest.mark.parametrize("max_wait_s", [0.0, 0.01])
@pytest.mark.parametrize("max_rows", [1, 7, 100])
def test_every_request_gets_its_own_answer(max_rows: int, max_wait_s: float) -> None:
    requests = [n for n in range(50) if n != 13]
    found, batches = answered(requests, max_rows=max_rows, max_wait_s=max_wait_s)
    assert found == [2 * n for n in requests]
    assert functools.reduce(operator.iadd, batches, []) == requests
    assert max(len(batch) for batch in batches) <= max_rows


def test_requests_that_wait_are_predicted_together() -> None:
    _, batches = answered(range(12), max_rows=64, max_wait_s=0.0)
    assert len(batches) == 1


def test_a_failing_batch_fails_its_own_requests_only() -> None:
    found, _ = answered([1, 13, 2, 3], max_rows=2, max_wait_s=0.0)
    assert isinstance(found[0], ValueError)
    assert isinstance(found[1], ValueError)
    assert found[2:] == [4, 6]


def test_both_protocols_read_the_same_rows() -> None:
    bodies = [
        inference.read_v1(b'{"instances": [{"age": 4, "region": "a"}, [5, null]], "id": "x"}', FEATURES),
        inference.read_v2(
            b'{"id": "x", "inputs": [{"name": "age", "shape": [2], "datatype": "FP64", "data": [4, 5]},'
            b' {"name": "region", "shape": [2], "datatype": "BYTES", "data": ["a", null]}]}',
            FEATURES,
        ),
        inference.read_v2(
            b'{"id": "x", "inputs": [{"name": "all", "shape": [2, 2], "datatype": "X", "data": [4, "a", 5, null]}]}',
            FEATURES,
        ),
        inference.read_v2(
            b'{"id": "x", "inputs": [{"name": "all", "shape": [2, 2], "datatype": "X", "data": [[4,"a"],[5,null]]}]}',
            FEATURES,
        ),
    ]
    assert all(asked == bodies[0] for asked in bodies)
    assert bodies[0].rows == ({"age": 4, "region": "a"}, {"age": 5, "region": None})
    assert inference.row_ids("x", 1) == ["x"]
    assert inference.row_ids("x", 2) == ["x/0", "x/1"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "must be a V1 request"),
        (b'{"instances": []}', "1 to 10,000 rows; got 0"),
        (b'{"instances": [[1]]}', r"`instances\[0\]` must have 2 values; got 1"),
        (b'{"instances": 5}', "must be a V1 request"),
        (b"[" * 100_000, "must be a V1 request"),
        (b"\xff\xfe", "must be a V1 request"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_the_reason(body: bytes, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        inference.read_v1(body, FEATURES)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (b"[]", "at least one tensor"),
        (b'[{"name": "age", "shape": [1], "datatype": "FP64", "data": [1]},'
         b' {"name": "pay", "shape": [1], "datatype": "FP64", "data": [1]}]', "must name features; got 'pay'"),
        (b'[{"name": "age", "shape": [2], "datatype": "FP64", "data": [1]}]', "`age` must have 2 values"),
        (b'[{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]', r"must have shape \[n, 2\]"),
        (b'[{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [1, 2, 3]}]', r"must have shape \[n, 2\]"),
    ],
)  # fmt: skip
def test_tensors_that_fit_nothing_are_refused(inputs: bytes, says: str) -> None:
    with pytest.raises(Refused, match=says):
        inference.read_v2(b'{"inputs": ' + inputs + b"}", FEATURES)

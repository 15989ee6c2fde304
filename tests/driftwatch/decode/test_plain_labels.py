"""A batch of labels alone is decoded at once, and comes to what its messages come to one by one."""

import json
from typing import Any

import numpy as np
import pytest

from driftwatch.decode.json import JsonDecoder
from driftwatch.decode.labels import PlainLabels
from driftwatch.decode.layout import layout
from driftwatch.records import Column, Frames, LabelColumn, Schema, Shard

COLUMNS = (Column("x", "numeric", ("features", "x")), Column("p", "numeric", ("prediction",), "prediction"))
SCHEMA = Schema("credit", "1", COLUMNS, label=LabelColumn("y", "categorical"))
LABELS: list[dict[str, Any]] = [{"id": f"r{i}", "time": 1_700_000_000 + i, "label": i % 2} for i in range(12)]


def frames(some: list[dict[str, Any]]) -> Frames:
    return Frames(Shard("s"), [json.dumps(one).encode() for one in some], np.arange(len(some) + 1))


@pytest.mark.parametrize(
    ("odd", "is_plain"),
    [
        ({}, True),
        ({"label": None}, True),
        ({"label": [1]}, True),
        ({"label": "yes"}, True),
        ({"id": 7}, True),
        ({"time": "2026-11-25T08:00:00Z"}, True),
        ({"time": -5}, True),
        ({"model": "credit", "version": "2", "more": {"a": 1}}, True),
        ({"id": "x" * 300}, False),
        ({"id": None}, False),
        ({"time": "soon"}, False),
        ({"model": "other"}, False),
        ({"prediction": None}, False),
        ({"prediction": 0.5}, False),
        ({"features": {}}, False),
        ({"features": {"x": 1}}, False),
    ],
)
def test_a_batch_comes_to_what_its_messages_come_to(odd: dict[str, Any], is_plain: bool) -> None:
    some = [*LABELS[:5], LABELS[5] | odd, *LABELS[6:]]
    assert (PlainLabels(layout(SCHEMA), SCHEMA)(frames(some).messages) is not None) == is_plain
    decoder = JsonDecoder(SCHEMA)
    together, single = decoder.decode(frames(some)), [decoder.decode(frames([one])) for one in some]
    assert together.labels is not None
    assert together.labels.ids == [i for one in single if one.labels for i in one.labels.ids]
    for column in ("times_s", "values"):
        apart = [getattr(one.labels, column) for one in single if one.labels]
        assert getattr(together.labels, column).tolist() == np.concatenate(apart).tolist()
    assert len(together.records) == sum(len(one.records) for one in single)
    assert together.invalid_labels == sum(one.invalid_labels for one in single)
    assert [(p.reason, p.detail) for p in together.poison] == [(p.reason, p.detail) for o in single for p in o.poison]
    assert together.discarded.get("other_model", 0) == sum(o.discarded.get("other_model", 0) for o in single)

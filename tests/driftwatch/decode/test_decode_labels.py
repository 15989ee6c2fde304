"""Labels in events: beside predictions, in events of their own, of wrong types, nested."""

import json
from typing import Any

import numpy as np
import pytest

from driftwatch.decode.json import JsonDecoder
from driftwatch.records import Column, Decoded, Frames, LabelColumn, Schema, Shard, class_code

COLUMNS = (Column("age", "numeric", ("features", "age")), Column("score", "numeric", ("prediction",), "prediction"))


def decode(*events: Any, kind: Any = "numeric", path: tuple[str, ...] = ("label",), columns: Any = COLUMNS) -> Decoded:
    schema = Schema("credit", "3", columns, label=LabelColumn("y", kind, path))
    messages = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    return JsonDecoder(schema).decode(Frames(Shard("s"), messages, np.arange(len(messages) + 1)))


def row(**more: Any) -> dict[str, Any]:
    return {"id": "a", "time": 5, "features": {"age": 1}, "prediction": 0.5} | more


def test_labels_beside_predictions_and_events_that_are_labels() -> None:
    decoded = decode(row(label=2), row(), {"id": "b", "time": 9, "label": 3.5}, {"id": 7, "time": 8, "label": 4})
    assert decoded.records.labels is not None
    np.testing.assert_array_equal(decoded.records.labels, [2.0, np.nan])
    assert decoded.labels is not None
    assert decoded.labels.ids == ["b", "7"]
    assert decoded.labels.times_s.tolist() == [9.0, 8.0]
    assert decoded.labels.values.tolist() == [3.5, 4.0]
    assert decoded.discarded == {}


@pytest.mark.parametrize("event", [row(), {"id": "a", "time": 5, "prediction": None}, {"id": "a", "time": 5}])
def test_where_no_event_holds_a_label_there_is_none(event: dict[str, Any]) -> None:
    decoded = decode(event)
    assert (decoded.labels, decoded.records.labels, len(decoded.records)) == (None, None, 1)


@pytest.mark.parametrize("beside", [{"features": {}}, {"features": None}, {"prediction": 1}, {"prediction": None}])
def test_an_event_with_features_or_a_prediction_is_none_of_labels(beside: dict[str, Any]) -> None:
    decoded = decode({"id": "a", "time": 5, "label": 1} | beside)
    assert decoded.labels is None
    assert decoded.records.labels is not None
    assert decoded.records.labels.tolist() == [1.0]


@pytest.mark.parametrize("value", ["1", True, [1], {"a": 1}, None, 10**400])
def test_what_is_no_number_is_no_numeric_label(value: Any) -> None:
    decoded = decode({"id": "a", "time": 5, "label": value}, row(label=value))
    assert decoded.labels is not None
    assert len(decoded.labels) == 0
    assert decoded.invalid_labels == (1 if value is None else 2)  # a prediction without a label is no fault
    assert len(decoded.records) == 1


def test_classes_are_told_apart_by_their_text() -> None:
    values = [1, "1", 1.0, True, "true", "yes", False]
    decoded = decode(*({"id": str(i), "time": 5, "label": v} for i, v in enumerate(values)), kind="categorical")
    assert decoded.labels is not None
    texts = ["1", "1", "1", "true", "true", "yes", "false"]
    assert decoded.labels.values.tolist() == [class_code(text) for text in texts]
    assert decode({"id": "a", "time": 5, "label": [1]}, kind="categorical").invalid_labels == 1


@pytest.mark.parametrize("values", [(0, 1, 1), (0, 255), (1, 256), (-1, 1), (10**30, 2), (0, None, 1)])
def test_whole_numbers_are_classes_too(values: tuple[int | None, ...]) -> None:
    decoded = decode(*({"id": str(i), "time": 5, "label": v} for i, v in enumerate(values)), kind="categorical")
    assert decoded.labels is not None
    assert decoded.labels.values.tolist() == [class_code(str(v)) for v in values if v is not None]
    assert decoded.invalid_labels == values.count(None)


@pytest.mark.parametrize("wide", [{}, {"features": {"age": "no number"}}])
def test_labels_lie_where_the_schema_says(wide: dict[str, Any]) -> None:
    columns = (Column("age", "numeric", ("data", "features", "age")),)
    events = [{"id": "a", "time": 5, "data": {"truth": 1}}, {"id": "b", "time": 6, "data": {"truth": 2} | wide}]
    decoded = decode(*events, path=("data", "truth"), columns=columns)
    assert decoded.labels is not None
    assert decoded.labels.ids == (["a"] if wide else ["a", "b"])


def test_labels_of_other_models_and_without_id_or_time_are_none() -> None:
    label = {"id": "a", "time": 5, "label": 1}
    decoded = decode(label | {"model": "other"}, label | {"id": [1]}, label | {"time": "soon"}, label)
    assert decoded.labels is not None
    assert decoded.labels.ids == ["a"]
    assert decoded.discarded == {"other_model": 1}
    assert [p.reason for p in decoded.poison] == ["id", "time"]


@pytest.mark.parametrize("path", [("amount",), ("order", "amount"), ("features", "amount")])
def test_a_field_is_a_column_but_makes_no_record_of_a_label(path: tuple[str, ...]) -> None:
    def held(event: dict[str, Any], value: Any) -> dict[str, Any]:
        inner = {path[-1]: value}
        return event | ({path[0]: {**event.get(path[0], {}), **inner}} if len(path) > 1 else inner)

    columns = (*COLUMNS, Column("amount", "numeric", path, "fields"))
    prediction = {"id": "a", "time": 5, "prediction": 0.5}
    label = {"id": "b", "time": 5, "label": 1}
    some = [held(row(), 3), row(), held(row(), None), held(row(), "3")]
    decoded = decode(*some, held(prediction, 7), prediction, columns=columns)
    assert decoded.labels is None
    np.testing.assert_array_equal(decoded.records.numeric[:, 2], [3, np.nan, np.nan, np.nan, 7, np.nan])
    marks = {int(r): int(m) for (r, c), m in zip(decoded.records.marked, decoded.records.marks, strict=True) if c == 2}
    assert marks == {1: 2, 3: 1, 5: 2}  # 1 = invalid, 2 = absent; the third is missing
    if path[0] != "features":
        decoded = decode(held(label, 3), label, columns=columns)
        assert decoded.labels is not None
        assert (decoded.labels.ids, len(decoded.records)) == (["b", "b"], 0)

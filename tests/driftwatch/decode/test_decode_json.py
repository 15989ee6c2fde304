"""Plain JSON events → records: what each kind of value, time, id and message becomes."""

import json
import time
from collections.abc import Iterator

import numpy as np
import pytest
from json_events import SCHEMA, TIME, TIME_S, decode, event, feature, marks, rows, with_feature

from driftwatch.decode.json import JsonDecoder
from driftwatch.errors import ConfigError
from driftwatch.records import Column, Decoded, Mark, Poison, Schema


def only_poison(decoded: Decoded) -> Poison:
    assert len(decoded.records) == 0
    assert not decoded.discarded
    (poison,) = decoded.poison
    return poison


def number_of(text: str) -> tuple[float, int]:
    """What a numeric feature written as this JSON text becomes: value and mark."""
    decoded = decode(with_feature("age", text))
    return float(decoded.records.numeric[0, 0]), marks(decoded).get((0, 0), 0)


def category_of(text: str, name: str = "free") -> object:
    records = decode(with_feature(name, text)).records
    return records.categories[[c.name for c in SCHEMA.of_kind("categorical")].index(name)][0]


def test_a_clean_event_becomes_a_row() -> None:
    decoded = decode(event(), event(id=7, time=1_700_000_000.5))
    records = decoded.records
    assert records.ids == ["a", "7"]
    assert records.positions.tolist() == [100, 110]
    assert decoded.end == 120
    assert records.times_s.tolist() == [TIME_S, 1_700_000_000.5]
    assert records.numeric.tolist() == [[40.5, 1e5, 0.25]] * 2
    assert records.categories == (["north"] * 2, ["1"] * 2, ["x"] * 2)
    assert records.versions is None
    assert len(records.marked) == 0
    assert not decoded.poison
    assert not decoded.discarded


def test_a_batch_without_messages_has_no_rows_and_ends_where_it_began() -> None:
    decoded = decode()
    assert len(decoded.records) == 0
    assert decoded.records.numeric.shape == (0, 3)
    assert decoded.end == 100


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3.0),
        ("-0.0", 0.0),
        ("1e-400", 0.0),
        ("Infinity", np.inf),
        ("-Infinity", -np.inf),
        ("1e999", np.inf),
        ("-1e999", -np.inf),
        ("123456789012345678901234567890", 1.2345678901234568e29),
        ("9" * 400, np.inf),
        ("-" + "9" * 400, -np.inf),
        ("9" * 5000, np.inf),
    ],
)
def test_numbers_of_any_size_are_numbers(text: str, value: float) -> None:
    assert number_of(text) == (value, 0)


@pytest.mark.parametrize("text", ["null", "NaN"])
def test_null_and_nan_are_missing(text: str) -> None:
    value, mark = number_of(text)
    assert np.isnan(value)
    assert mark == 0
    assert category_of(text) is None


@pytest.mark.parametrize("text", ['"12"', '""', "true", "false", "[1]", "{}", '{"a": 1}', '"NaN"'])
def test_a_number_of_the_wrong_type_is_invalid_and_the_rest_of_the_row_counts(text: str) -> None:
    value, mark = number_of(text)
    assert np.isnan(value)
    assert mark == 1
    assert decode(with_feature("age", text)).records.numeric[0, 2] == 0.25


@pytest.mark.parametrize("name", ["code", "free", "region"])
@pytest.mark.parametrize(
    ("texts", "category"),
    [
        (["3", "3.0", '"3"', "30e-1"], "3"),
        (["1", "1.0", '"1"'], "1"),
        (["true", '"true"', '"True"'], "true"),
        (["false", '"false"', '"False"'], "false"),
        (["-0.0", "0", "-0"], "0"),
        (["1e2", "100"], "100"),
        (["2.5"], "2.5"),
        (["1e20", "100000000000000000000"], "100000000000000000000"),
        (["1e999"], "inf"),
        (['"north"', '"n\\u006frth"'], "north"),
        (['""'], ""),
        (["null"], None),
        (["[]", '{"a": 1}', '["north"]'], Mark.INVALID),
    ],
)
def test_a_category_is_its_json_text(name: str, texts: list[str], category: object) -> None:
    assert {category_of(text, name) for text in texts} == {category}


def test_true_and_1_stay_apart_within_a_batch() -> None:
    values = ["1", "true", "1.0", "false", "0", '"1"', "null"]
    for name, column in (("code", 1), ("free", 2)):
        records = decode(*[with_feature(name, v) for v in values]).records
        assert records.categories[column] == ["1", "true", "1", "false", "0", "1", None]


def test_a_long_category_or_id_is_replaced_by_a_short_stand_in_that_tells_texts_apart() -> None:
    long, other = "é" * 300, "é" * 299 + "e"
    features = [{"region": t, "free": t} for t in (long, long, other, "é" * 256)]
    records = decode(*[event(id=f["free"], features=f) for f in features]).records
    for texts in (records.ids, records.categories[0], records.categories[2]):
        assert texts[0] == texts[1] != texts[2]
        assert isinstance(texts[0], str)
        assert len(texts[0]) < 100
        assert texts[0].startswith("é" * 64)
        assert texts[3] == "é" * 256
    assert records.categories[0] == records.categories[2] == records.ids


def test_lone_surrogates_become_text_that_can_be_stored() -> None:
    records = decode(b'{"id": "\\ud800", "time": 1, "features": {"free": "a\\udfff"}}').records
    assert records.ids == ["\\ud800"]
    assert records.categories[2] == ["a\\udfff"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])  # only the standard library takes a byte order mark
def test_a_field_absent_in_present_features_is_missing_and_absent_features_say_nothing(mark: bytes) -> None:
    decoded = decode(*[mark + event(features=f) for f in ({}, ..., None)])
    assert np.isnan(decoded.records.numeric[:, :2]).all()
    assert marks(decoded) == {(1, 0): 2, (1, 1): 2}
    assert all(c == [None, Mark.ABSENT, None] for c in decoded.records.categories)


@pytest.mark.parametrize("features", [[1, 2], "text", 5, True])
def test_features_that_are_no_object_are_invalid(features: object) -> None:
    decoded = decode(event(features=features))
    assert marks(decoded) == {(0, 0): 1, (0, 1): 1}
    assert all(c == [Mark.INVALID] for c in decoded.records.categories)
    assert decoded.records.numeric[0, 2] == 0.25


def test_an_absent_prediction_is_absent_and_a_null_one_missing() -> None:
    decoded = decode(event(prediction=...), event(prediction=None), event(prediction="high"))
    assert np.isnan(decoded.records.numeric[:, 2]).all()
    assert marks(decoded) == {(0, 2): 2, (2, 2): 1}
    schema = Schema("credit", "3", (Column("class", "categorical", ("prediction",), "prediction"),))
    texts = decode(event(prediction=...), event(prediction=None), event(prediction=2), schema=schema)
    assert texts.records.categories == ([Mark.ABSENT, None, "2"],)


def test_marks_leave_plain_nans_in_the_matrix() -> None:
    decoded = decode(event(features={"age": "x"}), event(features=...), event(features={"age": None}))
    assert len({decoded.records.numeric[:, 0].tobytes()[i : i + 8] for i in (0, 8, 16)}) == 1


def test_paths_may_share_their_beginning_and_hold_any_name() -> None:
    columns = (
        feature("a", path=("data", "in", "é b")),
        feature("b", path=("data", "in", "class", "x")),
        Column("p", "numeric", ("data", "out"), "prediction"),
    )
    schema = Schema("m", "1", columns, id_path=("data", "id"), time_path=("meta", "t"), time_unit="ms")
    message = {"data": {"id": 5, "in": {"é b": 1, "class": {"x": 2}}, "out": 3}, "meta": {"t": 1_700_000_000_000}}
    without = {"data": {"id": 6, "in": {}}, "meta": {"t": 1_700_000_000_001}}
    decoded = decode(json.dumps(message).encode(), json.dumps(without).encode(), schema=schema)
    assert decoded.records.ids == ["5", "6"]
    assert decoded.records.times_s.tolist() == [1.7e9, 1_700_000_000.001]
    assert decoded.records.numeric[0].tolist() == [1, 2, 3]
    assert marks(decoded) == {(1, 2): 2}


def test_features_outside_one_container_are_absent_only_together() -> None:
    columns = (
        feature("age", path=("age",)),
        feature("region", "categorical", path=("region",)),
        feature("e", "embedding", path=("e",), length=1),
        Column("p", "numeric", ("prediction",), "prediction"),
    )
    schema = Schema("m", "1", columns)
    head = {"id": 1, "time": 1}
    messages = [head, head | {"age": None}, head | {"region": "x"}, head | {"e": [1]}, head | {"prediction": 1}]
    decoded = decode(*[json.dumps(m).encode() for m in messages], schema=schema)
    assert marks(decoded) == {(0, 0): 2, (4, 0): 2} | {(row, 1): 2 for row in range(4)}
    assert decoded.records.categories == ([Mark.ABSENT, None, "x", None, Mark.ABSENT],)
    assert decoded.records.embedding_states[0].tolist() == [2, 3, 3, 0, 2]


def test_a_column_may_be_called_model_version_or_label() -> None:
    columns = tuple(feature(n, "categorical", path=(n,)) for n in ("model", "version", "label"))
    decoded = decode(b'{"id":1,"time":1,"model":"T","version":"x","label":"y"}', schema=Schema("m", "1", columns))
    assert decoded.records.categories == (["T"], ["x"], ["y"])
    assert decoded.records.versions is None


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ((feature("a", path=("x",)), feature("b", path=("x",))), "one column only"),
        ((feature("a", path=("x",)), feature("b", path=("x", "y"))), "inside another"),
        ((feature("b", path=("x", "y")), feature("a", path=("x",))), "inside another"),
        ((feature("a", path=("id",)),), "one column only"),
        ((feature("a", path=('a"b',)),), "no quote"),
        ((feature("a", "embedding"),), "`length`"),
    ],
)
def test_a_schema_whose_paths_cannot_be_told_apart_is_a_config_error(columns: tuple[Column, ...], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        JsonDecoder(Schema("m", "1", columns))


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        (TIME, TIME_S),
        ("2024-05-01T12:00:00", TIME_S),
        ("2024-05-01 14:00:00+02:00", TIME_S),
        ("2024-05-01T06:30:00.25-05:30", TIME_S + 0.25),
        ("2024-05-01T12:00:00.123456Z", TIME_S + 0.123456),
        (0, 0.0),
        (1714564800, TIME_S),
        ("1970-01-01T00:00:00Z", 0.0),
        ("2200-12-31T23:59:59Z", 7289654399.0),
    ],
)
@pytest.mark.usefixtures("far_from_utc")
def test_a_time_is_rfc_3339_or_a_number_and_naive_means_utc(time: object, seconds: float) -> None:
    assert decode(event(time=time)).records.times_s.tolist() == [seconds]
    assert decode(event(time=time), event()).records.times_s.tolist() == [seconds, TIME_S]


@pytest.mark.parametrize(
    ("time", "detail"),
    [
        (..., "got none"),
        (None, "got none"),
        ("yesterday", "'yesterday'"),
        ("1714564800", "'1714564800'"),
        ("2024-02-30T00:00:00Z", "RFC 3339"),
        (True, "got True"),
        ({"s": 1}, "got {'s': 1}"),
        ("1969-12-31T23:59:59Z", "1970–2200"),
        ("2201-01-01T00:00:00Z", "1970–2200"),
        ("0001-01-01T00:00:00+23:59", "1970–2200"),
        (-1, "1970–2200"),
        (1714564800000, "`events.time_unit: ms`"),
        (1714564800000000, "`events.time_unit: us`"),
        (1714564800000000000, "`events.time_unit: ns`"),
        (10**400, "got inf"),
        (float("nan"), "got nan"),
    ],
)
def test_a_time_that_is_absent_unreadable_or_far_away_is_poison(time: object, detail: str) -> None:
    message = event(time=time)
    poison = only_poison(decode(message))
    assert poison.reason == "time"
    assert detail in poison.detail
    assert poison.payload == message
    assert (poison.shard, poison.position) == ("predictions[0]", 100)


def test_the_arrival_time_stands_in_for_an_absent_time_only() -> None:
    messages = [event(time=...), event(), event(time=None), event(time="x"), b"", event(time=...)]
    decoded = decode(*messages, arrived_s=[10, 11, 12, 13, 14, 15])
    assert decoded.records.times_s.tolist() == [10, TIME_S, 12, 15]
    assert [p.reason for p in decoded.poison] == ["time"]


@pytest.mark.parametrize("id_", [..., None, True, 1.5, [], {}])
def test_an_event_without_a_usable_id_is_poison(id_: object) -> None:
    assert only_poison(decode(event(id=id_))).reason == "id"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"{}", "id"),
        (b"[]", "structure"),
        (b"7", "structure"),
        (b"null", "structure"),
        (b'"text"', "structure"),
        (b" \n", "structure"),
        (b"not json", "structure"),
        (event()[:-1], "structure"),
        (event() + b"}", "structure"),
        (event() + b"\n" + event(), "structure"),
        (b"\x00" * 20, "structure"),
        (event().replace(b"north", b"no\x00th"), "structure"),
        (event(version=[3]), "structure"),
        (event(model={}), "structure"),
        (b"[" * 100_000, "depth"),
        (b'{"a":' * 100_000, "depth"),
        (event()[:-1] + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "depth"),
        (event().replace(b"north", b"n\xffrth"), "encoding"),
        (b"\xff\xfe{\x00}\x00", "encoding"),
        (b"\x80", "encoding"),
    ],
)
def test_what_has_no_readable_structure_is_poison_with_its_bytes(message: bytes, reason: str) -> None:
    decoded = decode(event(), message, event())
    assert len(decoded.records) == 2
    (poison,) = decoded.poison
    assert (poison.reason, poison.position, poison.payload) == (reason, 110, message)
    assert len(poison.detail) < 300


def test_a_byte_order_mark_unknown_fields_and_white_space_do_no_harm() -> None:
    clean = rows(decode(event()))
    assert rows(decode(b"\xef\xbb\xbf" + event())) == clean
    assert rows(decode(json.dumps(json.loads(event()) | {"more": [{"a": None}]}, indent=2).encode())) == clean
    assert rows(decode(event()[:-1] + b', "more": NaN}')) == clean


def test_the_last_of_duplicate_keys_wins() -> None:
    message = b'{"id":1,"time":1,"features":{"age":9},"features":{"age":"x","age":1,"age":2},"id":"b"}'
    decoded = decode(message)
    assert decoded.records.ids == ["b"]
    assert decoded.records.numeric[0, 0] == 2


def test_tombstones_other_models_and_labels_are_counted_and_are_no_rows() -> None:
    silent = {"features": ..., "prediction": ...}
    messages = [
        b"",
        event(model="credit", id="kept"),
        event(model="fraud"),
        event(model="fraud", id=None, time="x"),
        event(model=5, features={"age": "x"}),
        event(label=1, **silent),
        event(label=None, **silent),
        event(label=1, id="also kept"),
        event(id="says nothing", **silent),
        event(model=None, id="null model"),
        event(label=1, time=..., **silent),
    ]
    decoded = decode(*messages)
    assert decoded.discarded == {"tombstone": 1, "other_model": 3, "label": 2}
    assert decoded.records.ids == ["kept", "also kept", "says nothing", "null model"]
    assert decoded.records.positions.tolist() == [110, 170, 180, 190]
    assert [(p.reason, p.position) for p in decoded.poison] == [("time", 200)]


def test_versions_are_given_where_a_row_is_of_another() -> None:
    assert (
        decode(event(version="3"), event(version=3), event(version=3.0), event(version=None)).records.versions is None
    )
    versions = decode(event(), event(version=4), event(version="x"), event(version=1.5)).records.versions
    assert versions == ["3", "4", "x", "1.5"]
    assert decode(event(), event(version="4", time="x")).records.versions is None


def test_an_embedding_is_a_list_of_finite_numbers_of_its_length() -> None:
    schema = Schema("m", "1", (feature("e", "embedding", path=("embedding",), length=2), feature("age")))
    values = [
        "[1, 2.5]",
        "null",
        "[1]",
        "[1, null]",
        '[1, "2"]',
        "[1, true]",
        '"x"',
        "[1, NaN]",
        "[1, 1e39]",
        "{}",
        "5",
    ]
    messages = [b'{"id":1,"time":1,"features":{},"embedding":' + v.encode() + b"}" for v in values]
    records = decode(*messages, schema=schema).records
    assert records.embedding_states[0].tolist() == [0, 3] + [1] * 9
    assert records.embeddings[0].dtype == np.float32
    assert records.embeddings[0][0].tolist() == [1, 2.5]
    assert np.isnan(records.embeddings[0][1:]).all()
    typed = decode(*messages[:3], schema=schema).records
    assert typed.embedding_states[0].tolist() == [0, 3, 1]

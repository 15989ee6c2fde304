"""A reference's columns: the same rows give the same columns from every kind of file, and as the decoder reads them."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftwatch.decode.json import JsonDecoder
from driftwatch.errors import ConfigError
from driftwatch.records import Column, Frames, Mark, Schema, Shard
from driftwatch.reference import Reference, read

AGE = Column("age", "numeric", ("features", "age"))
REGION = Column("region", "categorical", ("features", "region"))
SCORE = Column("score", "numeric", ("prediction",), "prediction")
VECTOR = Column("vector", "embedding", ("embedding",))


def jsonl(path: Path, *events: object) -> Path:
    text = "".join(event if isinstance(event, str) else json.dumps(event) + "\n" for event in events)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def flat(tmp_path: Path, name: str, **columns: list[object]) -> Path:
    return jsonl(
        tmp_path / name, *(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    )


def same(one: Reference, other: Reference) -> None:
    assert one.columns.keys() == other.columns.keys()
    for name, values in one.columns.items():
        np.testing.assert_equal(values, other.columns[name])
        np.testing.assert_equal(one.invalid[name], other.invalid[name])
    np.testing.assert_equal(one.times_s, other.times_s)
    assert (one.n_rows, one.was_sorted) == (other.n_rows, other.was_sorted)


def test_every_kind_of_file_gives_the_same_columns(tmp_path):
    times = [1_540_922_400.0 + i for i in range(9000)]
    ages = [None if i % 7 == 0 else i / 4 for i in range(9000)]
    regions = [None if i % 11 == 0 else f"r{i % 5}" for i in range(9000)]
    frame = pd.DataFrame({"time": times, "age": ages, "region": regions, "score": times})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.csv.gz", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    columns = (AGE, REGION, SCORE)
    events = [
        {"id": str(i), "time": t, "features": {"age": a, "region": r}, "prediction": t}
        for i, (t, a, r) in enumerate(zip(times, ages, regions, strict=True))
    ]
    jsonl(tmp_path / "events.jsonl", *events)
    flat(tmp_path, "flat.jsonl.gz", time=times, age=ages, region=regions, prediction=times)
    reference = read(tmp_path / "a.csv", columns)
    np.testing.assert_array_equal(reference.columns["age"], np.array(ages, float))
    assert reference.columns["region"] == regions
    np.testing.assert_array_equal(reference.times_s, times)
    assert (reference.n_rows, reference.was_sorted) == (9000, True)
    assert not any(marks.any() for marks in reference.invalid.values())
    for name in ("a.csv.gz", "a.parquet", "events.jsonl", "flat.jsonl.gz"):
        same(reference, read(tmp_path / name, columns))


json_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.sampled_from(["True", "False", "3", "3.0", "NA", "", "é" * 300, [1], {"a": 1}, 3.0, 10**400, -(10**400)]),
    st.text(max_size=5),
)


@settings(max_examples=100)
@given(st.lists(st.tuples(json_values, json_values), min_size=2, max_size=8))
def test_a_reference_says_of_any_value_what_the_decoder_says_of_it(tmp_path_factory, pairs):
    events = [{"id": i, "time": i, "features": {"age": age, "region": region}} for i, (age, region) in enumerate(pairs)]
    path = jsonl(tmp_path_factory.mktemp("any") / "a.jsonl", *events)
    reference = read(path, (AGE, REGION))
    lines = path.read_bytes().splitlines()
    records = (
        JsonDecoder(Schema("m", "1", (AGE, REGION)))
        .decode(Frames(Shard("a"), lines, np.arange(len(lines) + 1)))
        .records
    )
    np.testing.assert_array_equal(reference.columns["age"], records.numeric[:, 0])
    assert reference.columns["region"] == records.categories[0]
    assert np.flatnonzero(reference.invalid["age"]).tolist() == records.marked[:, 0].tolist()
    assert reference.invalid["region"].tolist() == [text is Mark.INVALID for text in records.categories[0]]


def test_wrong_types_are_invalid_and_not_missing(tmp_path):
    path = flat(tmp_path, "a.jsonl", age=[1, "2", True, None, [3]], region=["a", 3.0, True, None, {}])
    reference = read(path, (AGE, REGION))
    np.testing.assert_array_equal(reference.columns["age"], [1, np.nan, np.nan, np.nan, np.nan])
    assert reference.invalid["age"].tolist() == [False, True, True, False, True]
    assert reference.columns["region"] == ["a", "3", "true", None, Mark.INVALID]
    assert reference.invalid["region"].tolist() == [False, False, False, False, True]


def test_csv_numbers_and_categories(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("age,region\n1,NA\nNA,\n,3\ninf,3.0\nnan,True\n")
    reference = read(path, (AGE, REGION))
    np.testing.assert_array_equal(reference.columns["age"], [1, np.nan, np.nan, np.inf, np.nan])
    assert reference.invalid["age"].tolist() == [False, True, False, False, False]
    assert reference.columns["region"] == ["NA", None, "3", "3.0", "true"]
    assert reference.times_s is None


def test_embeddings_take_the_commonest_length_or_the_configured_one(tmp_path):
    vectors = [[1.5, 2], None, [3, 4], [5], ["x", 1], [1e300, 0]]
    path = flat(tmp_path, "a.jsonl", vector=vectors)
    reference = read(path, (VECTOR,))
    nothing = [np.nan, np.nan]
    expected = np.array([[1.5, 2], nothing, [3, 4], nothing, nothing, [np.inf, 0]], np.float32)
    np.testing.assert_array_equal(reference.columns["vector"], expected)
    assert reference.columns["vector"].dtype == np.float32
    assert reference.invalid["vector"].tolist() == [False, False, False, True, True, False]
    one = read(path, (Column("vector", "embedding", ("embedding",), length=1),))
    np.testing.assert_array_equal(one.columns["vector"][3], [5])
    pd.DataFrame({"vector": [json.dumps(v) if v else "" for v in vectors]}).to_csv(tmp_path / "a.csv", index=False)
    same(reference, read(tmp_path / "a.csv", (VECTOR,)))


def test_an_embedding_that_no_row_has_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="`vector` must hold a list of numbers in some row of the reference"):
        read(flat(tmp_path, "a.jsonl", vector=[None, "x"]), (VECTOR,))


def test_rows_out_of_time_order_are_sorted_stably_and_said_to_be(tmp_path):
    path = flat(tmp_path, "a.jsonl", time=[3, 1, 2, 1], age=[30, "x", 20, 11], region=["c", "a", "b", "a2"])
    reference = read(path, (AGE, REGION))
    assert not reference.was_sorted
    assert reference.times_s.tolist() == [1, 1, 2, 3]
    np.testing.assert_array_equal(reference.columns["age"], [np.nan, 11, 20, 30])
    assert reference.columns["region"] == ["a", "a2", "b", "c"]
    assert reference.invalid["age"].tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("time", "unit"),
    [
        (1_540_922_400, "s"),
        (1_540_922_400_000, "ms"),
        ("2018-10-30T18:00:00Z", "s"),
        ("2018-10-30T20:00:00+02:00", "ms"),
    ],
)
def test_times_are_epoch_seconds_whatever_they_are_written_as(tmp_path, time, unit):
    reference = read(flat(tmp_path, "a.jsonl", at=[time] * 2, age=[1, 2]), (AGE,), time_path=("at",), time_unit=unit)
    assert reference.times_s.tolist() == [1_540_922_400.0] * 2
    flat(tmp_path, "b.jsonl", at=[time] * 2, age=[1, 2])
    pd.DataFrame({"x.at": [time] * 2, "age": [1, 2]}).to_csv(tmp_path / "a.csv", index=False)
    same(reference, read(tmp_path / "a.csv", (AGE,), time_path=("x", "at"), time_unit=unit))


@pytest.mark.parametrize("written", ["2018-10-30 18:00:00.000", "2018-10-30T18:00", "1540922400"])
def test_csv_times(tmp_path, written):
    path = tmp_path / "a.csv"
    path.write_text(f"time,age\n{written},1\n{written},2\n")
    assert read(path, (AGE,)).times_s.tolist() == [1_540_922_400.0] * 2


@pytest.mark.parametrize("times", [[1, "yesterday"], [1, None], [1, True], [1, 1_540_922_400_000]])
def test_a_time_that_cannot_be_read_is_an_error_with_its_row(tmp_path, times):
    with pytest.raises(ConfigError, match=r"row 1\b") as error:
        read(flat(tmp_path, "a.jsonl", time=times, age=[1, 2]), (AGE,))
    assert "a.jsonl" in str(error.value)
    if times[1] == 1_540_922_400_000:
        assert "`events.time_unit: ms`" in str(error.value)


def test_every_column_that_is_lacking_is_named(tmp_path):
    path = flat(tmp_path, "a.jsonl", agee=[1, 2], place=["a", "b"])
    expected = "`a.jsonl` must hold every configured column; got none for 'age' (nearest: 'agee'), 'region', 'score'."
    with pytest.raises(ConfigError, match=re.escape(expected)):
        read(path, (AGE, REGION, SCORE))


def test_a_feature_of_an_event_comes_before_the_events_own_field_of_that_name(tmp_path):
    model = Column("model", "categorical", ("features", "model"))
    path = jsonl(tmp_path / "a.jsonl", *[{"model": "credit", "features": {"model": "T"}}] * 2)
    assert read(path, (model,)).columns["model"] == ["T", "T"]


def test_a_key_of_a_flat_object_may_be_the_dotted_path(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", *[{"features.age": 4, "features.region": "T"}] * 2)
    reference = read(path, (AGE, REGION))
    assert (reference.columns["age"].tolist(), reference.columns["region"]) == ([4, 4], ["T", "T"])


def test_many_rows_of_one_time_keep_their_order(tmp_path):
    path = flat(tmp_path, "a.jsonl", time=[i % 2 for i in range(200)], age=list(range(200)))
    assert read(path, (AGE,)).columns["age"].tolist() == [*range(0, 200, 2), *range(1, 200, 2)]


def test_label_events_are_no_rows(tmp_path):
    event = {"id": 1, "time": 1, "features": {"age": 4}, "label": 1}
    path = jsonl(tmp_path / "a.jsonl", event, {"id": 1, "time": 2, "label": 1}, "\n", event)
    assert read(path, (AGE,)).columns["age"].tolist() == [4, 4]


@pytest.mark.parametrize("line", ["{", "7", '["a"]', "[" * 100_000, '{"age": 01}'])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    path = jsonl(tmp_path / "a.jsonl", {"age": 1}, "\n", line + "\n")
    with pytest.raises(ConfigError, match=r"line 3 of `a\.jsonl` must be a JSON object; got b'"):
        read(path, (AGE,))


def test_a_row_of_another_width_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("age,region\n1,a\n1\n1,b\n")
    with pytest.raises(ConfigError, match=r"row 1 of `a\.csv` must have the header's 2 cells; got 1\."):
        read(path, (AGE, REGION))


@pytest.mark.parametrize("content", ["age\n", "age\n1\n"])
def test_fewer_than_two_rows_are_no_reference(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"must hold at least 2 rows; got [01]\."):
        read(path, (AGE,))


def test_an_empty_and_a_missing_file_and_another_kind_are_config_errors(tmp_path):
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        (tmp_path / name).touch()
        with pytest.raises(ConfigError, match=re.escape(name)):
            read(tmp_path / name, (AGE,))
    with pytest.raises(ConfigError, match=r"must name a file that exists; got '.*none\.csv'"):
        read(tmp_path / "none.csv", (AGE,))
    with pytest.raises(ConfigError, match=r"`reference.path` must end in one of \.jsonl.*; got '.*a\.xlsx'"):
        read(tmp_path / "a.xlsx", (AGE,))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a.jsonl"])
def test_progress_adds_up_to_the_files_size(tmp_path, name):
    frame = pd.DataFrame({"age": np.random.default_rng(0).normal(size=30_000)})
    path = tmp_path / name
    if name.endswith("parquet"):
        frame.to_parquet(path)
    elif name.endswith("jsonl"):
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    steps: list[int] = []
    read(path, (AGE,), progress=steps.append)
    assert sum(steps) == path.stat().st_size
    assert len(steps) > 2
    assert min(steps) >= 0

"""Tables as events: what a cell means, where a column is found, and that JSON lines of the same rows say the same."""

import gzip
import json
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftwatch.errors import ConfigError, SourceError
from driftwatch.protocols import Assigned, AtEnd, Tick
from driftwatch.records import Column, Frames, Schema
from driftwatch.sources.files import JsonLinesSource
from driftwatch.sources.tabular import TabularSource, open_file_source

AGE = Column("age", "numeric", ("features", "age"))
REGION = Column("region", "categorical", ("features", "region"))
SCORE = Column("score", "numeric", ("prediction",), "prediction")
VECTOR = Column("vector", "embedding", ("embedding",), length=2)


def schema(*columns: Column, **changes) -> Schema:
    return Schema("credit", "3", columns or (AGE, REGION, SCORE), **changes)


def csv_file(folder: Path, text: str, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    return path


def parquet_file(folder: Path, **columns) -> Path:
    path = folder / "a.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def read(source: TabularSource, position: int = 0) -> list[object]:
    events = []
    for event in source.events():
        if isinstance(event, Assigned):
            source.begin(event.shard, position)
        events.append(event)
    return events


def raw_messages(path: Path, of: Schema | None = None) -> list[bytes]:
    events = read(TabularSource(path, of or schema()))
    return [message for event in events if isinstance(event, Frames) for message in event.messages]


def rows(path: Path, of: Schema | None = None) -> list[dict]:
    return [json.loads(message) for message in raw_messages(path, of)]


def test_a_row_is_a_plain_event(tmp_path):
    path = csv_file(tmp_path, "id,time,age,region,score,version,label,other\nr1,12.5,41,north,0.25,3,1,x\n")
    assert rows(path) == [
        {
            "id": "r1", "time": 12.5, "features": {"age": 41, "region": "north"},
            "prediction": 0.25, "version": "3", "label": 1,
        }
    ]  # fmt: skip


def test_columns_are_found_by_dotted_path_and_by_prediction(tmp_path):
    path = csv_file(tmp_path, "meta.id,meta.at,features.age,region,prediction\nr1,7,41,north,0.5\n")
    of = schema(id_path=("meta", "id"), time_path=("meta", "at"))
    assert rows(path, of) == [
        {"meta": {"id": "r1", "at": 7}, "features": {"age": 41, "region": "north"}, "prediction": 0.5}
    ]


def test_without_an_id_a_rows_number_is_its_id_also_after_resuming(tmp_path):
    path = csv_file(tmp_path, "time,age,region,score\n" + "1,2,a,3\n" * 5)
    assert [row["id"] for row in rows(path)] == [0, 1, 2, 3, 4]
    frames = read(TabularSource(path, schema()), 3)[1]
    assert [json.loads(m)["id"] for m in frames.messages] == [3, 4]
    assert frames.positions.tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1.5", "1.5"), ("-3", "-3.0"), ("1e3", "1000.0"), (" 7", "7.0"), ("+3", "3.0"), (".5", "0.5"),
        ("", "null"), ("nan", "null"), ("NaN", "null"), ("inf", "1e999"), ("-Infinity", "-1e999"), ("1e999", "1e999"),
        ("NA", '"NA"'), ("null", '"null"'), ("true", '"true"'), ("1_000", '"1_000"'), ("12a", '"12a"'),
        ('"1,2"', '"1,2"'), ("[1]", '"[1]"'), ("9007199254740993", "9007199254740992.0"), ("�", '"�"'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("neighbour", ["2", "x"], ids=["clean column", "dirty column"])
def test_a_numeric_cell(tmp_path, cell, value, neighbour):
    path = csv_file(tmp_path, f"time,age\n1,{cell}\n1,{neighbour}\n")
    message = raw_messages(path, schema(AGE))[0].decode()
    assert message == f'{{"time":1.0,"id":0,"features":{{"age":{value}}}}}'


@pytest.mark.parametrize(
    ("cell", "value"), [("", None), ("NA", "NA"), ("3", "3"), ("3.0", "3.0"), ("True", "True"), ('" a,b"', " a,b")]
)
def test_a_categorical_cell_is_its_text(tmp_path, cell, value):
    path = csv_file(tmp_path, f"time,region\n1,{cell}\n")
    assert rows(path, schema(REGION))[0]["features"]["region"] == value


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1540922400", 1540922400), ("1540922400.25", 1540922400.25), ("", None),
        ("2018-10-30T18:00:00Z", "2018-10-30T18:00:00Z"), ("2018-10-30 18:00:00.000", "2018-10-30T18:00:00Z"),
        ("2018-10-30 18:00:00+02:00", "2018-10-30T18:00:00+02:00"), ("2018-10-30", "2018-10-30T00:00:00Z"),
        ("30/10/2018", "30/10/2018"), ("yesterday", "yesterday"),
    ],
)  # fmt: skip
def test_a_time_cell(tmp_path, cell, value):
    assert rows(csv_file(tmp_path, f"time,age\n{cell},1\n"), schema(AGE))[0]["time"] == value


def test_an_embedding_cell_is_json_text(tmp_path):
    path = csv_file(tmp_path, 'time,vector\n1,"[1.5, 2]"\n1,\n1,oops\n')
    assert [row["embedding"] for row in rows(path, schema(VECTOR))] == [[1.5, 2], None, "oops"]


def test_a_ragged_row_is_no_event_and_stops_nothing(tmp_path):
    path = csv_file(tmp_path, "time,age,region\n1,2,a\n1,2\n1,2,a,b\n\n1,3,b\n")
    first, short, long, last = rows(path, schema(AGE, REGION))
    assert (short, long) == (["1", "2"], ["1", "2", "a", "b"])
    assert (first["id"], last["id"]) == (0, 3)


def test_bytes_that_are_no_utf_8_and_a_byte_order_mark_stop_nothing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbftime,region\n1,\xff\x00\n")
    assert rows(path, schema(REGION))[0]["features"]["region"] == "\ufffd\0"


def test_a_packed_csv_says_the_same(tmp_path):
    text = "time,age,region,score\n" + "1,2,a,3\n" * 3000
    plain, packed = csv_file(tmp_path, text), csv_file(tmp_path, text, "a.csv.gz")
    assert raw_messages(plain) == raw_messages(packed)
    assert len(raw_messages(plain)) == 3000


def test_what_is_lacking_is_named_with_what_is_there(tmp_path):
    path = csv_file(tmp_path, "time,agee,score\n")
    with pytest.raises(ConfigError, match=r"got none for 'age' \(nearest: 'agee'\), 'region'. Its columns are 'time'"):
        TabularSource(path, schema())
    with pytest.raises(ConfigError, match=r"`events.time` names; got none for 'at'. Its columns are 'time', 'agee'"):
        TabularSource(path, schema(SCORE, time_path=("at",)))
    with pytest.raises(ConfigError, match="got 'age' twice"):
        TabularSource(csv_file(tmp_path, "time,age,age\n"), schema(AGE))


def test_an_empty_version_or_label_says_nothing(tmp_path):
    path = csv_file(tmp_path, "time,age,version,label\n1,2,,\n1,2,4,yes\n")
    first, second = rows(path, schema(AGE))
    assert first.keys() == {"id", "time", "features"}
    assert (second["version"], second["label"]) == ("4", "yes")


def test_a_configured_column_may_be_called_label(tmp_path):
    label = Column("label", "categorical", ("features", "label"))
    path = csv_file(tmp_path, "time,label\n1,7\n1,\n")
    assert [row["features"] for row in rows(path, schema(label))] == [{"label": "7"}, {"label": None}]
    assert "label" not in rows(path, schema(label))[0]


def test_parquet_values_keep_their_json_kinds(tmp_path):
    path = parquet_file(
        tmp_path,
        time=[datetime(2018, 10, 30, 18, tzinfo=UTC), datetime(2018, 10, 30, 18, 0, 0, 250, tzinfo=UTC)],
        age=[1.5, None],
        region=pa.array(["a", None]).dictionary_encode(),
        score=[True, False],
        vector=[[1.0, 2.0], None],
    )
    first, second = rows(path, schema(AGE, REGION, SCORE, VECTOR))
    assert first == {
        "id": 0, "time": "2018-10-30T18:00:00Z", "features": {"age": 1.5, "region": "a"},
        "prediction": True, "embedding": [1, 2],
    }  # fmt: skip
    assert second["time"] == "2018-10-30T18:00:00.000250Z"
    assert (second["features"], second["embedding"]) == ({"age": None, "region": None}, None)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pa.array([1_540_922_400_123_456_789], pa.timestamp("ns")), "2018-10-30T18:00:00.123456Z"),
        (pa.array([datetime(2018, 10, 30, 20, tzinfo=timezone(timedelta(hours=2)))]), "2018-10-30T18:00:00Z"),
        (pa.array([date(2018, 10, 30)]), "2018-10-30T00:00:00Z"),
        (pa.array([1540922400]), 1540922400),
        (pa.array(["2018-10-30 18:00"]), "2018-10-30 18:00"),
    ],
    ids=["ns", "zone", "date", "integer", "text"],
)
def test_parquet_times(tmp_path, times, expected):
    assert rows(parquet_file(tmp_path, time=times, age=[1]), schema(AGE))[0]["time"] == expected


def test_parquet_numbers_of_every_kind(tmp_path):
    path = parquet_file(
        tmp_path,
        time=[1, 1, 1, 1],
        age=pa.array([np.inf, -np.inf, np.nan, 2.0], pa.float32()),
        score=[Decimal("1.50"), None, Decimal("-2.25"), Decimal(3)],
    )
    messages = [message.decode() for message in raw_messages(path, schema(AGE, SCORE))]
    assert ['"age":1e999' in messages[0], '"age":-1e999' in messages[1]] == [True, True]
    assert [json.loads(m)["features"]["age"] for m in messages[2:]] == [None, 2]
    assert [json.loads(m)["prediction"] for m in messages] == [1.5, None, -2.25, 3]


def test_parquet_structs_are_found_by_dotted_path(tmp_path):
    path = parquet_file(tmp_path, time=[1], features=[{"age": 7, "region": "a"}], prediction=[0.5])
    assert rows(path) == [{"id": 0, "time": 1, "features": {"age": 7, "region": "a"}, "prediction": 0.5}]


def test_a_parquet_file_that_is_none_is_a_source_error(tmp_path):
    path = tmp_path / "a.parquet"
    for content in (b"", b"PAR1 no parquet PAR1"):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=r"Parquet file that can be read; got '.*a\.parquet'"):
            TabularSource(path, schema())


def test_without_pyarrow_parquet_says_what_to_install(tmp_path, monkeypatch):
    path = parquet_file(tmp_path, time=[1], age=[1])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'driftwatch-sidecar\[files\]'"):
        TabularSource(path, schema(AGE))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"must name a file that exists; got '.*none\.csv'"):
        TabularSource(tmp_path / "none.csv", schema())


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_batches_positions_resume_and_end(tmp_path, suffix):
    columns = {"time": [1] * 10, "age": list(range(10))}
    if suffix == "parquet":
        path = parquet_file(tmp_path, **columns)
    else:
        path = csv_file(tmp_path, "time,age\n" + "".join(f"1,{age}\n" for age in range(10)))
    for position in range(11):
        assigned, *frames, end = read(TabularSource(path, schema(AGE), batch_size=4), position)
        assert end == AtEnd(assigned.shard, final=True)
        ages = [json.loads(m)["features"]["age"] for batch in frames for m in batch.messages]
        assert ages == list(range(position, 10))
        assert [p for batch in frames for p in batch.positions[:-1]] == ages
        assert all(len(batch.messages) <= 4 for batch in frames)
    with pytest.raises(SourceError, match="at least the 11 rows that were read of it before; got 10"):
        read(TabularSource(path, schema(AGE)), 11)


def test_a_csv_keeps_its_shard_as_it_grows_and_files_of_one_header_differ(tmp_path):
    def shard(text: str) -> str:
        return next(TabularSource(csv_file(tmp_path, text), schema(AGE)).events()).shard

    first = shard("time,age\n1,2\n")
    assert shard("time,age\n1,2\n" + "1,3\n" * 1000) == first
    assert shard("time,age\n1,3\n") != first


def test_a_parquet_shard_is_named_by_its_content(tmp_path):
    def shard(*ages: int) -> str:
        path = parquet_file(tmp_path, time=[1] * len(ages), age=list(ages))
        return next(TabularSource(path, schema(AGE)).events()).shard

    assert shard(1, 2) == shard(1, 2)
    assert len({shard(1, 2), shard(1, 3), shard(1, 2, 2)}) == 3


def test_a_paused_table_is_not_read_and_a_closed_one_ends(tmp_path):
    path = csv_file(tmp_path, "time,age\n1,2\n1,3\n1,4\n")
    source = TabularSource(path, schema(AGE), batch_size=1, sleep=lambda _: None)
    events = source.events()
    shard = next(events).shard
    source.begin(shard, 0)
    source.pause({shard})
    assert [next(events), next(events)] == [Tick(), Tick()]
    source.pause(frozenset())
    assert isinstance(next(events), Frames)
    source.close()
    assert list(events) == []


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.jsonl.gz", "-"])
def test_json_lines_are_told_by_the_name(name):
    assert isinstance(open_file_source(name if name == "-" else Path(name), schema()), JsonLinesSource)


def test_a_name_that_says_nothing_is_refused_with_those_that_do(tmp_path):
    with pytest.raises(ConfigError, match=r"must end in one of \.jsonl, .*\.parquet, \.pq, or be `-`; got 'a\.xlsx'"):
        open_file_source(Path("a.xlsx"), schema())
    with pytest.raises(ConfigError, match=r"`follow` must be false"):
        open_file_source(Path("a.csv"), schema(), follow=True)
    path = csv_file(tmp_path, "time,age\n1,2\n")
    assert isinstance(open_file_source(path, schema(AGE)), TabularSource)

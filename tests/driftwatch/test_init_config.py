"""The first configuration: it loads whatever the sample, and its guesses are the stated ones."""

import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftwatch.config import Config, load
from driftwatch.errors import ConfigError
from driftwatch.init_config import starting_config
from driftwatch.records import Column

EVENT = {
    "id": "a1",
    "time": "2026-01-01T00:00:00Z",
    "model": "credit",
    "version": 3,
    "features": {"age": 31, "region": "north", "customer": {"income": 3.5}, "a.b": 1, "ok": True, "tags": ["a"]},
    "prediction": 0.4,
    "label": 1,
    "embedding": [0.1, 0.2],
    "trace": "x",
}


def first(tmp_path: Path, sample: Path | None) -> tuple[Config, str]:
    """The configuration that the starting text loads as, and the text."""
    text = starting_config(sample)
    file = tmp_path / "config.yaml"
    file.write_text(text, "utf-8")
    return load(file), text


def lines(tmp_path: Path, rows: Sequence[object], name: str = "sample.jsonl") -> Path:
    sample = tmp_path / name
    sample.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return sample


def features(config: Config) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {c.name: (c.kind, c.path) for c in config.event_schema().columns if c.group == "features"}


def test_without_a_sample_the_template_loads_and_every_section_of_it_is_commented(tmp_path: Path) -> None:
    config, text = first(tmp_path, None)
    assert set(features(config)) == {"age", "region", "income"}
    sections = text.split("\n\n")
    assert len(sections) == 9
    assert all("# " in section.splitlines()[0] or "  # " in section for section in sections)


def test_plain_events_give_their_features_paths_and_answers(tmp_path: Path) -> None:
    sample = lines(tmp_path, [EVENT])
    config, text = first(tmp_path, sample)
    assert config.event_schema().columns == (
        Column("age", "numeric", ("features", "age")),
        Column("region", "categorical", ("features", "region")),
        Column("customer.income", "numeric", ("features", "customer", "income")),
        Column("a.b", "numeric", ("features", "a.b")),
        Column("ok", "categorical", ("features", "ok")),
        Column("embedding", "embedding", ("embedding",)),
        Column("prediction", "numeric", ("prediction",), group="prediction"),
    )
    assert (config.model.name, config.model.version) == ("credit", "3")
    assert config.events.prediction is not None
    assert config.events.prediction.kind == "probability"
    assert config.events.label is not None
    assert config.events.label.kind == "binary"
    assert config.source is not None
    assert config.source.kind == "file"
    assert config.source.path.predictions == sample.resolve()
    assert "# tags is left out: it is no number, text or list of numbers of one length." in text
    assert "# trace is left out: it lies outside `features`." in text


def test_flat_objects_give_dotted_paths(tmp_path: Path) -> None:
    row = {"request_id": 7, "ts": 1767225600000, "age": 31, "geo": {"region": "north"}, "score": "high", "y": 2.5}
    config, text = first(tmp_path, lines(tmp_path, [row, {**row, "score": "low", "x.y": 1}, {**row, "score": "mid"}]))
    assert features(config) == {"age": ("numeric", ("age",)), "geo.region": ("categorical", ("geo", "region"))}
    assert (config.events.id, config.events.time, config.events.time_unit) == (("request_id",), ("ts",), "ms")
    assert config.events.prediction is not None
    assert (config.events.prediction.name, config.events.prediction.kind) == ("score", "categorical")
    assert config.events.prediction.path == ("score",)
    assert config.events.label is not None
    assert (config.events.label.kind, config.events.label.path) == ("numeric", ("y",))
    assert "# x.y is left out: the configuration cannot name it." in text


def test_an_event_inside_an_envelope_is_found(tmp_path: Path) -> None:
    row = {
        "specversion": "1.0",
        "id": "1",
        "time": "2026-01-01T00:00:00Z",
        "data": {"features": {"age": 1}, "score": 3},
    }
    config, _ = first(tmp_path, lines(tmp_path, [row]))
    assert features(config) == {"age": ("numeric", ("data", "features", "age"))}
    assert config.events.prediction is not None
    assert config.events.prediction.path == ("data", "score")


@pytest.mark.parametrize(("time", "unit"), [(1.7e9, "s"), (1.7e12, "ms"), (1.7e15, "us"), (1.7e18, "ns")])
def test_the_unit_of_time_is_told_by_its_size(tmp_path: Path, time: float, unit: str) -> None:
    config, _ = first(tmp_path, lines(tmp_path, [{"time": time, "age": 1}]))
    assert config.events.time_unit == unit


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 3], "numeric"),
        ([1.5, None, float("nan")], "numeric"),
        ([1, 2, "?"], "numeric"),
        (["a", "b", 3], "categorical"),
        ([True, False], "categorical"),
        ([[1, 2], [3, 4.5]], "embedding"),
        ([[1, 2], [3]], None),
        ([["a"], ["b"]], None),
        ([None, None], None),
        ([f"id-{i}" for i in range(60)], None),
        ([f"city-{i % 59}" for i in range(60)], "categorical"),
        ([f"few-{i}" for i in range(49)], "categorical"),
    ],
)
def test_a_kind_follows_from_the_values(tmp_path: Path, values: list[object], kind: str | None) -> None:
    config, _ = first(tmp_path, lines(tmp_path, [{"features": {"x": value, "age": 1}} for value in values]))
    found = features(config)
    assert found.pop("age")[0] == "numeric"
    assert [k for k, _ in found.values()] == ([] if kind is None else [kind])


@pytest.mark.parametrize(
    ("key", "values", "kind"),
    [
        ("prediction", [0, 1, 1], "binary"),
        ("prediction", [0.2, 1], "probability"),
        ("prediction", [0.2, 1.1], "numeric"),
        ("prediction", ["a", "b"], "binary"),
        ("prediction", ["a", "b", "c"], "categorical"),
        ("prediction", [[0.1, 0.9]], None),
        ("label", [0.2, 0.3], "numeric"),
        ("label", [True, False], "binary"),
        ("label", ["a", "b", "c"], "categorical"),
    ],
)
def test_the_kind_of_an_answer_follows_from_its_values(
    tmp_path: Path, key: str, values: list[object], kind: str | None
) -> None:
    config, _ = first(tmp_path, lines(tmp_path, [{"features": {"age": 1}, key: value} for value in values]))
    answer = config.events.prediction if key == "prediction" else config.events.label
    assert (answer and answer.kind) == kind


@pytest.mark.parametrize("compressed", [False, True])
def test_a_csv_reference_gives_its_columns_and_becomes_the_reference(tmp_path: Path, compressed: bool) -> None:
    text = 'time,age,zip,vector,target,score,empty\n1,2,007,"[1, 2]",0,a,\n2,3.5,010,"[3, 4]",1,b,\n'
    sample = tmp_path / ("reference.csv.gz" if compressed else "reference.csv")
    sample.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    config, written = first(tmp_path, sample)
    assert features(config) == {
        "age": ("numeric", ("features", "age")),
        "zip": ("categorical", ("features", "zip")),
        "vector": ("embedding", ("vector",)),
    }
    assert config.reference is not None
    assert config.reference.path == sample.resolve()
    assert config.events.label is not None
    assert (config.events.label.name, config.events.label.kind) == ("target", "binary")
    assert "id: id  # not found in the sample: say where it lies" in written
    assert "# empty is left out: it is always null." in written


def test_a_parquet_reference_gives_its_columns(tmp_path: Path) -> None:
    sample = tmp_path / "reference.parquet"
    table = {
        "event_time": [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)],
        "age": [1, None],
        "price": pa.array([1, 2], pa.decimal128(5, 2)),
        "region": pa.array(["a", "b"]).dictionary_encode(),
        "blob": [b"x", b"y"],
        "probability": [0.1, 0.7],
    }
    pq.write_table(pa.table(table), sample)
    config, text = first(tmp_path, sample)
    assert {name: kind for name, (kind, _) in features(config).items()} == {
        "age": "numeric",
        "price": "numeric",
        "region": "categorical",
    }
    assert config.events.time == ("event_time",)
    assert "time_unit" not in text.split("events:")[1].split("features:")[0].replace("`time_unit: ms`", "")
    assert config.events.prediction is not None
    assert config.events.prediction.name == "probability"


def test_an_answer_named_like_a_feature_gets_a_name_of_its_own(tmp_path: Path) -> None:
    row = {"features": {"score": 3, "label": 2}, "score": 0.5, "label": 1}
    config, _ = first(tmp_path, lines(tmp_path, [row]))
    assert config.events.prediction is not None
    assert config.events.label is not None
    assert (config.events.prediction.name, config.events.label.name) == ("score_", "label_")


def test_only_the_first_thousand_rows_are_read(tmp_path: Path) -> None:
    sample = lines(tmp_path, [{"age": 1}] * 1000)
    sample.write_text(sample.read_text() + "not JSON\n")
    assert features(first(tmp_path, sample)[0]) == {"age": ("numeric", ("age",))}


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("s.jsonl", b"", "must hold a feature or a prediction; got no row."),
        ("s.jsonl", b'{"id": 1}\n', "must hold a feature or a prediction; got id."),
        ("s.jsonl", b'\n{"age": 1}\n{"age": \n', r":3: must be one JSON object a line: Expecting value"),
        ("s.jsonl", b"[1, 2]\n", r":1: must be one JSON object a line; got '\[1, 2\]'."),
        ("s.jsonl", b"\xff", "must be UTF-8 text; byte 0 is not."),
        ("s.jsonl.gz", b"no gzip", "cannot be read: Not a gzipped file"),
        ("s.csv", b"a,b\n", "must hold a feature or a prediction; got no row."),
        ("s.csv", b'age\n"' + b"x" * 200_000, "must be CSV: field larger than field limit"),
        ("s.parquet", b"no parquet", "must be a Parquet file"),
        ("s.xlsx", b"", r"must end in \.jsonl, \.ndjson, \.json, \.csv, \.parquet or \.pq; it ends in '\.xlsx'"),
    ],
)
def test_a_sample_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, name: str, content: bytes, error: str
) -> None:
    csv.field_size_limit(131_072)  # Python's own, which reading a table raises for the whole process
    sample = tmp_path / name
    sample.write_bytes(content)
    with pytest.raises(ConfigError, match=error) as raised:
        starting_config(sample)
    assert str(raised.value).startswith(str(sample))


def test_a_missing_sample_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv: cannot be read: No such file"):
        starting_config(tmp_path / "none.csv")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    sample = tmp_path / "s.parquet"
    sample.write_bytes(b"")
    script = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\n"
        "from driftwatch.errors import ConfigError\n"
        "from driftwatch.init_config import starting_config\n"
        "try:\n    starting_config(Path(sys.argv[1]))\n"
        "except ConfigError as error:\n    sys.exit(str(error))\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(sample)], capture_output=True, text=True, check=False)
    assert run.stderr.strip() == f"{sample}: needs pyarrow to be read. Run: pip install 'driftwatch-sidecar[files]'"


def test_importing_the_configuration_loads_neither_pandas_nor_pyarrow() -> None:
    script = "import sys, driftwatch.config, driftwatch.init_config; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"pandas", "pyarrow", "prometheus_client"} & set(run.stdout.split()) == set()


KEYS = st.text(max_size=6) | st.sampled_from(
    ["id", "time", "features", "prediction", "score", "label", "y", "age", "a.b", "", "*", "null", "on", "${X}", "é\n'"]
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**60) | st.floats() | st.text(max_size=5)
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS | st.lists(st.floats(0, 1), max_size=3),
    lambda below: st.dictionaries(KEYS, below, max_size=4) | st.lists(below, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(KEYS, JSON, max_size=6), min_size=1, max_size=4))
def test_what_is_written_for_any_events_loads(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    sample = lines(tmp_path, rows)
    try:
        text = starting_config(sample)
    except ConfigError as error:
        reason = str(error)
    else:
        reason = ""
    if reason:
        assert "must hold a feature or a prediction" in reason
        return
    (tmp_path / "config.yaml").write_text(text, "utf-8")
    config = load(tmp_path / "config.yaml")
    for column in config.event_schema().columns:
        assert any(holds(row, column.path) for row in rows), column


def holds(row: object, path: Sequence[str]) -> bool:
    """Whether there is something, be it null, at the path."""
    for key in path:
        if not isinstance(row, dict) or key not in row:
            return False
        row = row[key]
    return True

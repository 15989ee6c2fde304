"""Snapshots: which rows they hold, how they are named, what they cost the second time."""

import contextlib
import json
import math
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("duckdb", reason="needs the extra modelops")

from modelops import data as data_module
from modelops.data import Selection, Warehouse, read_classes, read_rows
from modelops.errors import DataError, TooFewLabels
from modelops.log_chunks import chunks
from modelops.recipe import Data
from tests.modelops import world

START_S = 1_800_000_000.0
RECIPE = {"features": {"age": "numeric", "region": "categorical"}, "window": "100s", "min_rows": 20, "min_of_class": 5}


def recipe(**more: Any) -> Data:
    return Data.model_validate(RECIPE | more)


def write(path: Path, events: list[dict[str, Any]]) -> Path:
    with path.open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    return path


def predictions(n: int, *, first: int = 0, step_s: float = 1.0) -> list[dict[str, Any]]:
    return [
        {"id": f"r{i}", "time": START_S + i * step_s, "model": "credit", "version": "1", "prediction": 0.5,
         "features": {"age": float(i), "region": "north"}}
        for i in range(first, first + n)
    ]  # fmt: skip


def labels(n: int, *, first: int = 0, delay_s: float = 5.0, step_s: float = 1.0) -> list[dict[str, Any]]:
    return [
        {"id": f"r{i}", "time": START_S + i * step_s + delay_s, "label": int(i % 4 == 0)}
        for i in range(first, first + n)
    ]


def ids(snapshot: data_module.Snapshot) -> list[str]:
    return list(read_rows(Path(snapshot.path), recipe().features).ids)


def test_a_snapshot_holds_the_labelled_rows_of_complete_windows_after_the_change(tmp_path: Path) -> None:
    log = write(tmp_path / "p.jsonl", predictions(450))
    answers = write(tmp_path / "l.jsonl", labels(450))
    found = Warehouse(tmp_path / "w").snapshot([log, answers], recipe(), Selection("credit", START_S + 100))
    assert ids(found) == [f"r{i}" for i in range(100, 400)]  # the last window is open
    assert (found.n_rows, found.n_positive, found.from_s, found.to_s) == (300, 75, START_S + 100, START_S + 399)
    assert found.log_end_s == START_S + 449


def test_a_profile_with_labels_needs_two_classes_of_them(tmp_path: Path) -> None:
    log = write(tmp_path / "p.jsonl", predictions(400))
    for others in (["no"], ["no", "maybe"]):
        said = [
            event | {"label": "yes" if i % 4 == 0 else others[i % len(others)]} for i, event in enumerate(labels(400))
        ]
        answers = write(tmp_path / f"l{len(others)}.jsonl", said)
        positive = recipe(label={"positive": "yes"})
        path = Path(Warehouse(tmp_path / "w").snapshot([log, answers], positive, Selection("credit", START_S)).path)
        if len(others) == 1:
            assert read_classes(path, "yes") == ("no", "yes")
        else:
            with pytest.raises(DataError, match=r"two classes.*'maybe', 'no'\. Set `profile.label` to null"):
                read_classes(path, "yes")


def test_a_window_is_complete_by_its_share_of_labels_or_by_its_wait(tmp_path: Path) -> None:
    log = write(tmp_path / "p.jsonl", predictions(401))
    half = [event for event in labels(400) if event["id"] < "r2" or int(event["id"][1:]) % 2]
    answers = write(tmp_path / "l.jsonl", half)
    wait = {"label": {"wait": "250s"}}
    found = Warehouse(tmp_path / "w").snapshot([log, answers], recipe(**wait), Selection("credit", START_S))
    said = {int(i[1:]) // 100 for i in ids(found)}
    assert said == {0, 1}  # 0: its wait is over; 1: all labels came; 2 and 3: half came and more may come
    whole = {"label": {"wait": "250s", "complete": 0.5}}
    found = Warehouse(tmp_path / "w").snapshot([log, answers], recipe(**whole), Selection("credit", START_S))
    assert {int(i[1:]) // 100 for i in ids(found)} == {0, 1, 2, 3}


def test_too_few_rows_are_a_report_and_no_guess(tmp_path: Path) -> None:
    warehouse, chosen = Warehouse(tmp_path / "w"), Selection("credit", START_S)
    missing = [tmp_path / "p.jsonl", tmp_path / "l.jsonl"]
    with pytest.raises(TooFewLabels, match="no event yet"):
        warehouse.snapshot(missing, recipe(), chosen)
    log = write(tmp_path / "p.jsonl", predictions(450))
    with pytest.raises(TooFewLabels, match=r"0 labelled rows.*450 predictions 0 have labels.*asks for 20"):
        warehouse.snapshot([log, tmp_path / "l.jsonl"], recipe(), chosen)
    one_class = [event | {"label": 0} for event in labels(450)]
    answers = write(tmp_path / "l.jsonl", one_class)
    with pytest.raises(TooFewLabels, match="min_of_class"):
        warehouse.snapshot([log, answers], recipe(), chosen)
    assert list((tmp_path / "w").glob("snapshots/*")) == []


def test_values_are_read_as_driftwatch_reads_them(tmp_path: Path) -> None:
    odd: list[dict[str, Any]] = [
        {"age": 1, "region": "a"}, {"age": "12", "region": 3}, {"age": None, "region": 3.0}, {"region": True},
        {"age": True, "region": {"x": 1}}, {"age": 2.5, "region": None}, {"age": [1], "region": ["a"]},
    ]  # fmt: skip
    events = [
        {"id": i, "time": "2027-01-15T08:00:00Z", "features": odd[i % len(odd)], "label": i % 2} for i in range(70)
    ]
    log = write(tmp_path / "p.jsonl", events)
    log.write_text(log.read_text() + '{"broken\n{"id": null, "time": 5}\nnull\n')
    found = Warehouse(tmp_path / "w").snapshot([log], recipe(), Selection("credit", 0.0, must_be_complete=False))
    rows = read_rows(Path(found.path), recipe().features)
    assert (found.n_rows, found.from_s) == (70, START_S)
    by_id = dict(zip(rows.ids, zip(rows.columns["age"], rows.columns["region"], strict=True), strict=True))
    said = [(None if math.isnan(by_id[str(i)][0]) else by_id[str(i)][0], by_id[str(i)][1]) for i in range(7)]
    assert said == [(1.0, "a"), (None, "3"), (None, "3"), (None, "true"), (None, None), (2.5, None), (None, None)]


def test_the_first_of_two_rows_and_the_last_of_two_labels_count(tmp_path: Path) -> None:
    log = write(tmp_path / "p.jsonl", predictions(101) + predictions(101))
    answers = write(tmp_path / "l.jsonl", [*labels(101), {"id": "r1", "time": START_S + 9, "label": "1"}])
    found = Warehouse(tmp_path / "w").snapshot([log, answers], recipe(), Selection("credit", START_S))
    rows = read_rows(Path(found.path), recipe().features)
    assert len(rows.ids) == 100
    assert rows.y[list(rows.ids).index("r1")] == 1


def test_another_models_rows_are_left_out(tmp_path: Path) -> None:
    others = [event | {"model": "other"} for event in predictions(200, first=1000, step_s=0.1)]
    log = write(tmp_path / "p.jsonl", predictions(101) + others)
    answers = write(tmp_path / "l.jsonl", labels(1200))
    found = Warehouse(tmp_path / "w").snapshot([log, answers], recipe(), Selection("credit", START_S))
    assert len(ids(found)) == 100


def test_the_same_inputs_have_the_same_name_and_others_another(tmp_path: Path) -> None:
    log = write(tmp_path / "p.jsonl", predictions(450))
    answers = write(tmp_path / "l.jsonl", labels(450))
    chosen = Selection("credit", START_S)
    first = Warehouse(tmp_path / "w").snapshot([log, answers], recipe(), chosen)
    (tmp_path / "elsewhere").mkdir()
    moved = [Path(p.rename(tmp_path / "elsewhere" / f"x{p.name}")) for p in (log, answers)]
    second = Warehouse(tmp_path / "w2").snapshot(moved, recipe(), chosen)
    assert first.id == second.id
    assert Path(first.path).read_bytes() == Path(second.path).read_bytes()
    assert Warehouse(tmp_path / "w").snapshot(moved, recipe(), Selection("credit", START_S + 1)).id != first.id
    write(moved[0], predictions(1, first=900))
    assert Warehouse(tmp_path / "w").snapshot(moved, recipe(), chosen).id != first.id


def test_etl_and_elt_give_the_same_table(tmp_path: Path) -> None:
    log = tmp_path / "p.jsonl"
    world.write_events(log, 500, 3, start_s=START_S, changed=False)
    said = []
    for order in ("etl", "elt"):
        chosen = recipe(order=order, features={"age": "numeric", "income": "numeric", "region": "categorical"})
        warehouse = Warehouse(tmp_path / order, chunk_bytes=10_000)
        found = warehouse.snapshot([log], chosen, Selection("credit", START_S, must_be_complete=False))
        rows = read_rows(Path(found.path), chosen.features)
        said.append(
            (rows.ids.tolist(), rows.y.tolist(), rows.columns["income"].tolist(), rows.columns["region"].tolist())
        )
        said[-1][3].sort()
    assert said[0] == said[1]
    assert len(said[0][0]) == 500


def test_a_log_that_grew_is_not_converted_again_and_gives_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write(tmp_path / "p.jsonl", predictions(5000))
    answers = write(tmp_path / "l.jsonl", labels(5000))
    chosen = Selection("credit", START_S)
    converted: list[int] = []
    convert = Warehouse._convert

    def counted(self: Warehouse, *arguments: Any) -> None:
        converted.append(1)
        convert(self, *arguments)

    monkeypatch.setattr(Warehouse, "_convert", counted)
    warehouse = Warehouse(tmp_path / "w", chunk_bytes=20_000)
    warehouse.snapshot([log, answers], recipe(), chosen)
    n_whole = len(converted)
    converted.clear()
    write(log, predictions(50, first=5000))
    write(answers, labels(50, first=5000))
    grown = warehouse.snapshot([log, answers], recipe(), chosen)
    assert n_whole > 30
    assert len(converted) <= 4
    fresh = Warehouse(tmp_path / "fresh", chunk_bytes=20_000).snapshot([log, answers], recipe(), chosen)
    assert grown.id == fresh.id
    assert ids(grown) == ids(fresh)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_first_model_is_trained_from_a_table(tmp_path: Path, suffix: str) -> None:
    import duckdb

    table = tmp_path / f"ref{suffix}"
    rows = "SELECT 'p' || i AS x, i::DOUBLE AS age, CASE WHEN i % 3 = 0 THEN 'north' END AS region, i % 4 = 0 AS label"
    duckdb.sql(f"COPY ({rows} FROM range(200) t(i)) TO '{table}'")
    chosen = recipe(label={"positive": True})
    found = Warehouse(tmp_path / "w").snapshot([table], chosen, Selection("credit", 0.0, must_be_complete=False))
    read = read_rows(Path(found.path), chosen.features)
    assert read.columns["age"].tolist() == [float(i) for i in range(200)]
    assert read.y.tolist() == [int(i % 4 == 0) for i in range(200)]
    assert [v is None for v in read.columns["region"]] == [i % 3 != 0 for i in range(200)]
    wrong = recipe(features={"salary": "numeric"})
    with pytest.raises(DataError, match="must have the columns salary"):
        Warehouse(tmp_path / "w").snapshot([table], wrong, Selection("credit", 0.0, must_be_complete=False))


@pytest.mark.parametrize("shape", ["features", "text", "flat"])
def test_parquet_logs_in_a_folder_give_the_rows_of_jsonl(tmp_path: Path, shape: str) -> None:
    import duckdb

    log = write(tmp_path / "p.jsonl", predictions(450))
    answers = write(tmp_path / "l.jsonl", labels(450))
    chosen = Selection("credit", START_S + 100)
    expected = Warehouse(tmp_path / "w").snapshot([log, answers], recipe(), chosen)
    values = {"features": "features", "text": "features::JSON::VARCHAR AS features", "flat": "features.*"}[shape]
    (tmp_path / "log").mkdir()
    for part in range(3):
        rows = f"SELECT id, to_timestamp(time) AS time, model, version, {values}, prediction FROM '{log}'"
        where = f"WHERE time >= {START_S + 150 * part} AND time < {START_S + 150 * (part + 1)}"
        duckdb.sql(f"COPY ({rows} {where}) TO '{tmp_path}/log/{part}.parquet'")
    duckdb.sql(f"COPY (SELECT * FROM '{answers}') TO '{tmp_path}/labels.parquet'")
    (tmp_path / "log" / ".3.parquet").write_bytes(b"half a file, still being written")
    found = Warehouse(tmp_path / "w2").snapshot([tmp_path / "log", tmp_path / "labels.parquet"], recipe(), chosen)
    assert (found.n_rows, found.from_s, found.to_s, found.report) == (
        300,
        expected.from_s,
        expected.to_s,
        expected.report,
    )
    one, other = (read_rows(Path(snapshot.path), recipe().features) for snapshot in (expected, found))
    assert one.ids.tolist() == other.ids.tolist()
    assert one.columns["age"].tolist() == other.columns["age"].tolist()
    assert one.columns["region"].tolist() == other.columns["region"].tolist()
    assert one.y.tolist() == other.y.tolist()
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="must hold Parquet, CSV or JSONL files"):
        Warehouse(tmp_path / "w2").snapshot([tmp_path / "none"], recipe(), chosen)


@contextlib.contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """No file can grow beyond a size: a write in the middle of it fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_no_half_of_a_snapshot_and_the_next_try_makes_it(tmp_path: Path) -> None:
    log = write(tmp_path / "p.jsonl", predictions(9000))
    answers = write(tmp_path / "l.jsonl", labels(9000))
    warehouse, chosen = Warehouse(tmp_path / "w", chunk_bytes=200_000), Selection("credit", START_S)
    with full_disk(50_000), pytest.raises(DataError, match=r"(cannot be written|written: ).*"):
        warehouse.snapshot([log, answers], recipe(), chosen)  # while a chunk is converted
    whole = warehouse.snapshot([log, answers], recipe(), chosen)
    size = Path(whole.path).stat().st_size
    Path(whole.path).unlink()
    with full_disk(size // 2), pytest.raises(DataError, match=r"cannot be read or written.*"):
        warehouse.snapshot([log, answers], recipe(), chosen)
    assert list((tmp_path / "w" / "snapshots").iterdir()) == []
    assert not [path for path in (tmp_path / "w" / "chunks").iterdir() if path.suffix != ".parquet"]
    assert warehouse.snapshot([log, answers], recipe(), chosen) == whole


def test_live_scores_are_joined_by_version(tmp_path: Path) -> None:
    events = [event | {"version": "12"[i % 2], "prediction": i / 1000} for i, event in enumerate(predictions(100))]
    log, answers = write(tmp_path / "p.jsonl", events), write(tmp_path / "l.jsonl", labels(80))
    found = Warehouse(tmp_path / "w").live_scores([log, answers], recipe(), Selection("credit", START_S + 10))
    assert {version: len(rows) for version, rows in found.items()} == {"1": 35, "2": 35}
    assert sorted(found["1"][:, 0]) == [i / 1000 for i in range(10, 80, 2)]
    assert found["1"][np.argsort(found["1"][:, 0]), 1].tolist() == [float(i % 4 == 0) for i in range(10, 80, 2)]


@pytest.mark.parametrize("size", [1, 7, 10, 100, 1000])
def test_chunks_are_whole_lines_and_do_not_move_as_a_file_grows(tmp_path: Path, size: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    lines = [b"x" * (i * 7 % 23) + b"\n" for i in range(60)]
    before: list[Any] = []
    for i, line in enumerate(lines):
        with path.open("ab") as file:
            file.write(line[:-1])
        assert b"".join(c.read() for c in chunks(path, size)) == b"".join(lines[:i])
        with path.open("ab") as file:
            file.write(b"\n")
        found = list(chunks(path, size))
        assert b"".join(c.read() for c in found) == b"".join(lines[: i + 1])
        assert found[: max(len(before) - 1, 0)] == before[:-1]
        before = found


def test_a_log_that_was_changed_in_place_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    (chunk,) = chunks(path)
    path.write_bytes(b"two\n")
    with pytest.raises(DataError, match="may only grow"):
        chunk.read()

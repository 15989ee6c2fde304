"""Snapshots: labelled rows after a change, from the prediction log and labels, as Parquet named by its making.

A snapshot's name is the hash of the inputs' bytes, the SQL, its parameters and the code's version: the same inputs give
the same name on every machine. What was made of a full chunk of a log is kept, so a log that grew is not read again.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np

from modelops import data_sql
from modelops.errors import DataError, TooFewLabels
from modelops.log_chunks import CHUNK_BYTES, Chunk, chunks
from modelops.recipe import Data, Kind
from modelops.times import rfc3339

TABULAR = {".csv": "read_csv", ".parquet": "read_parquet"}


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot and what it was made of. Times are event time, epoch seconds; `log_end_s` is the log's newest."""

    id: str
    path: str
    n_rows: int
    n_positive: int
    from_s: float
    to_s: float
    log_end_s: float
    report: str


class Selection(msgspec.Struct, frozen=True):
    """Which rows: of a model, from a time on; without `must_be_complete` every labelled row, as for a first model."""

    model: str
    since_s: float
    must_be_complete: bool = True


class Rows(msgspec.Struct, frozen=True):
    """Rows in the order of time: columns by feature (floats with NaN, texts with None), labels, times, predictions."""

    columns: Mapping[str, np.ndarray]
    y: np.ndarray
    times_s: np.ndarray
    ids: np.ndarray

    def part(self, rows: slice) -> "Rows":
        """Some of the rows."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Rows(columns, self.y[rows], self.times_s[rows], self.ids[rows])


def label_text(value: str | int | bool) -> str:
    """A label as the SQL's text: `true`, `1`, `yes`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class Warehouse:
    """The folder of snapshots and of typed chunks. Every method raises DataError."""

    def __init__(self, folder: Path, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.folder = folder
        self._chunk_bytes = chunk_bytes

    def snapshot(self, files: Sequence[Path], recipe: Data, selection: Selection) -> Snapshot:
        """The snapshot of these logs, made or found. Raises TooFewLabels where it would be too small."""
        inputs = list(self._inputs(files))
        positive = label_text(recipe.label.positive)
        parameters: dict[str, Any] = {
            "model": selection.model,
            "since": selection.since_s,
            "span": recipe.window,
            "complete": recipe.label.complete,
            "wait": recipe.label.wait,
            "must_be_complete": selection.must_be_complete,
            "positive": positive,
            "max_rows": recipe.max_rows,
        }
        statements = [data_sql.joined(recipe.features), data_sql.WINDOWS, data_sql.labelled(recipe.features)]
        typed = data_sql.typed("events", recipe.features)
        named = json.dumps([data_sql.CODE_VERSION, [c.sha256 for c in inputs], typed, statements, parameters])
        name = hashlib.sha256(named.encode()).hexdigest()[:24]
        path = self.folder / "snapshots" / f"{name}.parquet"
        with _database() as database:
            self._events(database, inputs, recipe)
            report = _build(database, statements, parameters)
            made = _checked(report, recipe, selection, Snapshot(name, str(path), 0, 0, 0.0, 0.0, 0.0, ""))
            if not path.exists():
                _write(database, "SELECT * FROM snapshot", path)
        return made

    def live_scores(self, files: Sequence[Path], recipe: Data, selection: Selection) -> dict[str, np.ndarray]:
        """By version, (n, 2): scores and labels of requests since a time, of those that have labels."""
        with _database() as database:
            self._events(database, list(self._inputs(files)), recipe)
            rows = database.execute(
                data_sql.LIVE_SCORES,
                {
                    "model": selection.model,
                    "since": selection.since_s,
                    "positive": label_text(recipe.label.positive),
                },
            ).fetchnumpy()
        versions = np.asarray(np.ma.filled(rows["$version"], ""), str)
        pairs = np.column_stack([np.asarray(rows["$prediction"], float), np.asarray(rows["y"], float)])
        return {str(version): pairs[versions == version] for version in np.unique(versions)}

    def _inputs(self, files: Sequence[Path]) -> Iterator[Chunk]:
        for file in files:
            if not file.exists():
                continue  # nothing was logged yet: that is too few rows, not an error
            if file.suffix in TABULAR:
                yield from _whole(file)
            else:
                yield from chunks(file, self._chunk_bytes)

    def _events(self, database: duckdb.DuckDBPyConnection, inputs: Sequence[Chunk], recipe: Data) -> None:
        """Makes the view `events`: typed columns, whichever way they come to be typed."""
        made = [self._chunk(database, chunk, recipe) for chunk in inputs]
        if not made:
            raise TooFewLabels("the prediction log holds no event yet.")
        source = f"read_parquet({data_sql.paths([str(path) for path in made])})"
        query = f"SELECT * FROM {source}" if recipe.order == "etl" else data_sql.typed(source, recipe.features)
        with _data_errors():
            database.execute(f"CREATE TEMP TABLE events AS {query}")

    def _chunk(self, database: duckdb.DuckDBPyConnection, chunk: Chunk, recipe: Data) -> Path:
        """A chunk as Parquet: typed (etl) or raw (elt), made where it is not there."""
        typed = data_sql.typed("{source}", recipe.features)
        key = json.dumps([data_sql.CODE_VERSION, recipe.order, typed, chunk.path.suffix])
        name = hashlib.sha256(f"{chunk.sha256}{key}".encode()).hexdigest()[:32]
        path = self.folder / "chunks" / f"{name}.parquet"
        if path.exists():
            return path
        if chunk.path.suffix in TABULAR:
            raw = _table(database, chunk.path, recipe.features)
            self._convert(database, raw, path, recipe)
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(suffix=".jsonl", dir=path.parent) as lines:
            try:
                lines.write(chunk.read())
                lines.flush()
            except OSError as error:
                raise DataError(f"{path.parent}: cannot be written: {error.strerror}. Free space there.") from error
            options = f"format = 'newline_delimited', columns = {data_sql.EVENT_COLUMNS}, ignore_errors = true"
            source = f"read_json({data_sql.text(lines.name)}, {options}, maximum_object_size = 33554432)"
            self._convert(database, data_sql.RAW.format(source=source), path, recipe)
        return path

    def _convert(self, database: duckdb.DuckDBPyConnection, raw: str, path: Path, recipe: Data) -> None:
        _write(database, data_sql.typed(f"({raw})", recipe.features) if recipe.order == "etl" else raw, path)


def read_rows(path: Path, features: Mapping[str, Kind]) -> Rows:
    """A snapshot's rows."""
    with _database() as database, _data_errors():
        found = database.execute(f"SELECT * FROM read_parquet({data_sql.text(str(path))})").fetchnumpy()
    columns = {}
    for name, kind in features.items():
        values = found[name]
        if kind == "numeric":
            columns[name] = np.asarray(np.ma.filled(np.ma.asarray(values, float), np.nan), float)
        else:
            present = ~np.ma.getmaskarray(values)
            texts = np.empty(len(values), object)
            texts[present] = np.asarray(values, object)[present]
            columns[name] = texts
    return Rows(
        columns, np.asarray(found["$y"], np.int8), np.asarray(found["$time"], float), np.asarray(found["$id"], object)
    )


def read_classes(path: Path, positive: str | int | bool) -> tuple[str, str]:
    """(the other class, the positive one) of a snapshot's labels, as texts. Raises DataError where there are more."""
    with _database() as database, _data_errors():
        source = f"read_parquet({data_sql.text(str(path))})"
        query = f'SELECT DISTINCT "$label" FROM {source} WHERE "$y" = 0 ORDER BY "$label" LIMIT 5'
        others = [row[0] for row in database.execute(query).fetchall()]
    if len(others) != 1:
        raise DataError(
            f"labels must be of two classes for a profile with labels; beside {label_text(positive)!r} there are "
            f"{', '.join(map(repr, others))}. Set `profile.label` to null."
        )
    return others[0], label_text(positive)


def _build(
    database: duckdb.DuckDBPyConnection, statements: Sequence[str], parameters: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Makes the tables joined, windows and snapshot; the counts of REPORT."""
    with _data_errors():
        for table, statement in zip(("joined", "windows", "snapshot"), statements, strict=True):
            used = {name: value for name, value in parameters.items() if f"${name}" in statement}
            database.execute(f"CREATE TEMP TABLE {table} AS {statement}", used)
        row = database.execute(data_sql.REPORT).fetchone()
    return row or ()


def _checked(report: tuple[Any, ...], recipe: Data, selection: Selection, named: Snapshot) -> Snapshot:
    """The snapshot with its counts. Raises TooFewLabels, whose text says what there is and what is needed."""
    predicted, labelled, windows, complete, n, positive, from_s, to_s, log_end_s = report
    after = f" after {rfc3339(selection.since_s)}" if selection.since_s > 0 else ""
    said = (
        f"{n:,} labelled rows of complete windows{after}, {positive:,} of the positive class; of {predicted:,} "
        f"predictions {labelled:,} have labels, {complete} of {windows} windows are complete."
    )
    fewest = min(positive, n - positive)
    if n < recipe.min_rows:
        raise TooFewLabels(f"{said} `data.min_rows` asks for {recipe.min_rows:,}.")
    if fewest < recipe.min_of_class:
        raise TooFewLabels(f"{said} `data.min_of_class` asks for {recipe.min_of_class:,} of each class.")
    return msgspec.structs.replace(
        named, n_rows=n, n_positive=int(positive), from_s=from_s, to_s=to_s, log_end_s=log_end_s, report=said
    )


def _table(database: duckdb.DuckDBPyConnection, path: Path, features: Mapping[str, Kind]) -> str:
    """A table's rows as raw events; without id or time, rows are numbered."""
    source = f"{TABULAR[path.suffix]}({data_sql.text(str(path))})"
    with _data_errors():
        names = [row[0] for row in database.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
    lacking = [name for name in (*features, "label") if name not in names]
    if lacking:
        raise DataError(f"{path}: must have the columns {', '.join(lacking)}; it has {', '.join(names)}.")
    pairs = ", ".join(f"{data_sql.text(name)}, {data_sql.quoted(name)}" for name in features)
    number = "row_number() OVER ()"
    prediction = "to_json(prediction)" if "prediction" in names else "NULL::JSON"
    return (
        f"SELECT to_json({'id' if 'id' in names else number}) AS id, to_json({'time' if 'time' in names else number})"
        f" AS time, NULL::VARCHAR AS model, NULL::VARCHAR AS version, json_object({pairs}) AS features,"
        f" {prediction} AS prediction, to_json(label) AS label FROM {source}"
    )


def _whole(path: Path) -> Iterator[Chunk]:
    """A file as one chunk."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
            yield Chunk(path, 0, file.tell(), digest.hexdigest())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error


def _write(database: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """A query's rows as a Parquet file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _data_errors():
            database.execute(f"COPY ({query}) TO {data_sql.text(str(beside))} (FORMAT parquet, COMPRESSION zstd)")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as database:
        database.execute(
            "SET threads = 2; SET TimeZone = 'UTC'; SET memory_limit = '1GB'; SET preserve_insertion_order = true"
        )
        yield database


@contextmanager
def _data_errors() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise DataError(f"the rows cannot be read or written: {' '.join(str(error).split())}") from error

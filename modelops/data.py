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
from modelops.errors import ColumnsMissing, DataError, TooFewLabels
from modelops.log_chunks import CHUNK_BYTES, Chunk, chunks
from modelops.recipe import Data, Kind
from modelops.times import rfc3339
from modelops.topic_log import Topics

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

    def snapshot(
        self, files: Sequence[Path], recipe: Data, selection: Selection, topics: Topics | None = None
    ) -> Snapshot:
        """The snapshot of these logs, made or found. Raises TooFewLabels where it would be too small."""
        topics = topics or Topics()
        inputs = list(self._inputs([*files, *topics.files]))
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
        features = recipe.features
        statements = [
            f"CREATE TEMP TABLE joined AS {data_sql.joined(features)}",
            data_sql.once(features),
            f"CREATE TEMP TABLE windows AS {data_sql.WINDOWS}",
            data_sql.labelled(features),
        ]
        typed = data_sql.typed("events", features)
        read = [[chunk.sha256 for chunk in inputs], topics.spans]
        named = json.dumps([data_sql.CODE_VERSION, read, typed, statements, parameters])
        name = hashlib.sha256(named.encode()).hexdigest()[:24]
        path = self.folder / "snapshots" / f"{name}.parquet"
        with _database() as database:
            self._events(database, inputs, recipe)
            for statement in statements[:-1]:
                _execute(database, statement, parameters)
            empty = Snapshot(name, str(path), 0, 0, 0.0, 0.0, 0.0, topics.said)
            if path.exists():
                return _checked(database, path, recipe, selection, empty)
            with _written(database, statements[-1], path, parameters) as beside:
                made = _checked(database, beside, recipe, selection, empty)
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
        for part in (part for file in files for part in _parts(file)):
            if part.suffix in TABULAR:
                yield from _whole(part)
            else:
                yield from chunks(part, self._chunk_bytes)

    def _events(self, database: duckdb.DuckDBPyConnection, inputs: Sequence[Chunk], recipe: Data) -> None:
        """Makes the view `events`: typed columns, whichever way they come to be typed."""
        made = [self._chunk(database, chunk, recipe) for chunk in inputs]
        if not made:
            raise TooFewLabels("the prediction log holds no event yet.")
        source = f"read_parquet({data_sql.paths([str(path) for path in made])})"
        query = f"SELECT * FROM {source}" if recipe.order == "etl" else data_sql.typed(source, recipe.features)
        with _data_errors():
            database.execute(f"CREATE TEMP VIEW events AS {query}")

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


def _checked(
    database: duckdb.DuckDBPyConnection, path: Path, recipe: Data, selection: Selection, named: Snapshot
) -> Snapshot:
    """The snapshot with its counts. Raises TooFewLabels, whose text says what there is and is needed."""
    with _data_errors():
        report = database.execute(data_sql.REPORT.format(source=data_sql.text(str(path)))).fetchone()
    predicted, labelled, windows, complete, n, positive, from_s, to_s, log_end_s = report or ()
    after = f" after {rfc3339(selection.since_s)}" if selection.since_s > 0 else ""
    said = (
        f"{n:,} labelled rows of complete windows{after}, {positive:,} of the positive class; of {predicted:,} "
        f"predictions {labelled:,} have labels, {complete} of {windows} windows are complete.{named.report}"
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
    """A table's rows as raw events: events with a column `features`, rows with a column a feature, or labels.

    Without id or time, rows are numbered: a table to begin with, which has its labels.
    """
    source = f"{TABULAR[path.suffix]}({data_sql.text(str(path))})"
    with _data_errors():
        kinds = {row[0]: row[1] for row in database.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    known = {name: data_sql.quoted(name) for name in kinds}
    is_log, number = {"id", "time"} <= known.keys(), "row_number() OVER ()"
    if is_log and "features" in known and "features" not in features:
        values = "features::JSON" if kinds["features"] in ("VARCHAR", "JSON") else "to_json(features)"
    elif is_log and "label" in known and not known.keys() & features.keys():
        values = "NULL::JSON"
    else:
        needed = (*features,) if is_log else (*features, "label")
        lacking = [name for name in needed if name not in known]
        if lacking:
            said = f"{path}: must have the columns {', '.join(lacking)}; it has {', '.join(known)}."
            raise ColumnsMissing(said, tuple(lacking))
        pairs = ", ".join(f"{data_sql.text(name)}, {known[name]}" for name in features)
        values = f"json_object({pairs})"

    def column(name: str, kind: str, otherwise: str | None = None) -> str:
        if name in known and name not in features:
            return f"to_json({name}) AS {name}" if kind == "JSON" else f"{name}::{kind} AS {name}"
        return f"to_json({otherwise}) AS {name}" if otherwise else f"NULL::{kind} AS {name}"

    return (
        f"SELECT {column('id', 'JSON', number)}, {column('time', 'JSON', number)}, {column('model', 'VARCHAR')},"
        f" {column('version', 'VARCHAR')}, {values} AS features, {column('prediction', 'JSON')},"
        f" {column('label', 'JSON')} FROM {source}"
    )


def _parts(file: Path) -> list[Path]:
    """A file; of a folder its logs in the order of their names."""
    if not file.is_dir():
        return [file] if file.exists() else []  # nothing was logged yet: that is too few rows, not an error
    found = sorted(part for part in file.iterdir() if part.suffix in (".jsonl", *TABULAR) and part.name[0] != ".")
    if not found:
        raise DataError(f"{file}: must hold Parquet, CSV or JSONL files; it holds none.")
    return found


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
    with _written(database, query, path, {}):
        pass


@contextmanager
def _written(
    database: duckdb.DuckDBPyConnection, query: str, path: Path, parameters: Mapping[str, Any]
) -> Iterator[Path]:
    """A query's rows as a Parquet file beside its place, where it is brought unless something is raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        where = f"{data_sql.text(str(beside))} ({data_sql.PARQUET})"
        _execute(database, f"COPY ({query}) TO {where}", parameters)
        yield beside
        beside.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}. Free space there.") from error
    finally:
        beside.unlink(missing_ok=True)


def _execute(database: duckdb.DuckDBPyConnection, statement: str, parameters: Mapping[str, Any]) -> None:
    """A statement with those of the parameters that it names."""
    used = {name: value for name, value in parameters.items() if f"${name}" in statement}
    with _data_errors():
        database.execute(statement, used)


@contextmanager
def _database() -> Iterator[duckdb.DuckDBPyConnection]:
    """One thread: two of them took twice the processor's time to read the chunks, and less than that was gained."""
    with duckdb.connect(":memory:") as database:
        database.execute(
            "SET threads = 1; SET TimeZone = 'UTC'; SET memory_limit = '1GB'; SET preserve_insertion_order = true"
        )
        yield database


@contextmanager
def _data_errors() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise DataError(f"the rows cannot be read or written: {' '.join(str(error).split())}") from error

"""Events from CSV and Parquet, and the choice of a file's source by its name."""

import gzip
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import islice
from math import inf
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from driftwatch.decode.json import JsonDecoder
from driftwatch.errors import ConfigError
from driftwatch.protocols import Assigned, AtEnd, CommitMark, Event, Source, Tick
from driftwatch.records import Column, Frames, Kind, LabelColumn, Schema, Shard
from driftwatch.sources.files import HEAD_BYTES, POLL_S, JsonLinesSource, open_bytes, shard_name
from driftwatch.sources.rotation import ReadBefore
from driftwatch.tables import CSV, JSON_LINES, SUFFIXES, Field, Ragged, Row, candidates, locate, open_table, reading

Place = tuple[str, ...]  # of a value in an event

_OPTIONAL: dict[Place, Kind] = {("model",): "categorical", ("version",): "categorical", ("label",): "numeric"}
LABEL_LINES = 64  # at which a file of JSON lines is looked to tell whether it holds labels alone
_INFINITE = {inf: msgspec.Raw(b"1e999"), -inf: msgspec.Raw(b"-1e999")}  # JSON has no other text for them


def open_file_source(
    path: Path | Literal["-"],
    schema: Schema,
    *,
    follow: bool = False,
    before: ReadBefore | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> Source:
    """The source that reads a file, chosen by how its name ends; `-` is JSON lines on standard input.

    `before`: what an earlier run has read of it; `warn` takes a line for the log.
    """
    if path == "-" or str(path).endswith(JSON_LINES):
        return JsonLinesSource(path, follow=follow, before=before, warn=warn)
    if not str(path).endswith(SUFFIXES):
        raise ConfigError(
            f"`path` must end in one of {', '.join(SUFFIXES)}, or be `-`; got {str(path)!r}. "
            "Rename the file after what it holds."
        )
    if follow:
        raise ConfigError(f"`follow` must be false unless the file holds JSON lines; got {str(path)!r}.")
    return TabularSource(Path(path), schema)


class TabularSource:
    """Yields each row of a CSV or Parquet file as the JSON text of a plain event; a position is a row's number.

    One decoder thus serves every source. A column lies under its feature's name, else under its dotted path; without a
    column for the id, a row's number is its id. `model`, `version` and `label` go along where the file has them. A CSV
    row that has not as many cells as the header becomes a JSON list, which a decoder sets aside. The shard is named
    after the file and a fingerprint of the header and the first row (CSV, which may grow) or of the footer (Parquet).
    """

    def __init__(
        self, path: Path, schema: Schema, *, batch_size: int = 1000, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._path = path
        self._batch_size = batch_size
        self._sleep = sleep
        self._position: int | None = None
        self._paused: Set[Shard] = frozenset()
        self._closed = False
        with open_table(path) as table:
            self._fields = _fields(schema, table.names, path)
        self._shard = _csv_shard(path) if str(path).endswith(CSV) else _parquet_shard(path)
        self._encode = _encoder(tuple(self._fields), schema.id_path)

    def events(self) -> Iterator[Event]:
        yield Assigned(self._shard)
        if self._position is None:
            return
        at = self._position
        with open_table(self._path) as table:
            rows = table.rows(list(self._fields.values()), at)
            while batch := list(islice(rows, self._batch_size)):
                while self._shard in self._paused and not self._closed:
                    self._sleep(POLL_S)
                    yield Tick()
                if self._closed:
                    return
                messages = [self._encode(row, at + i) for i, row in enumerate(batch)]
                yield Frames(self._shard, messages, np.arange(at, at + len(batch) + 1, dtype=np.int64))
                at += len(batch)
        yield AtEnd(self._shard, final=True)

    def begin(self, shard: Shard, position: int) -> None:
        self._position = position

    def pause(self, shards: Set[Shard]) -> None:
        self._paused = shards

    def commit(self, marks: Mapping[Shard, CommitMark]) -> None:
        """A file remembers nothing of its readers."""

    def close(self) -> None:
        self._closed = True


def _fields(schema: Schema, names: list[str], file: Path) -> dict[Place, Field]:
    """Where in an event each column of the file goes."""
    located = locate(schema.columns, names, file)
    fields: dict[Place, Field] = {column.path: Field(located[column.name], column.kind) for column in schema.columns}
    taken = set(located.values())
    time_name = _first((schema.time_path[-1], ".".join(schema.time_path)), names)
    if time_name is None:
        raise ConfigError(
            f"`{file.name}` must hold the column that `events.time` names; got none for "
            f"{'.'.join(schema.time_path)!r}. Its columns are {', '.join(map(repr, names))}: correct `events.time`."
        )
    fields[schema.time_path] = Field(time_name, "time")
    id_name = _first((schema.id_path[-1], ".".join(schema.id_path)), names)
    if id_name is not None:
        fields[schema.id_path] = Field(id_name, "categorical")
    if schema.label is not None and (name := _label_name(schema.label, names)) is not None:
        fields[schema.label.path] = Field(name, "numeric")  # text stays text
        taken.add(name)
    for path, kind in _OPTIONAL.items():
        if path[0] in names and path[0] not in taken and path not in fields:
            fields[path] = Field(path[0], kind)
    return fields


def _label_name(label: LabelColumn, names: Sequence[str]) -> str | None:
    column = Column(label.name, label.kind, label.path, group="label")
    return next((name for name in candidates(column) if name in names), None)


def holds_labels_alone(path: Path, schema: Schema) -> bool:
    """Whether the events of a file are labels: they have one, and nothing of any column. Raises ConfigError."""
    if schema.label is None:
        return False
    if str(path).endswith(JSON_LINES):
        decoder = JsonDecoder(schema)
        with reading(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            lines = [line for line in islice(file, LABEL_LINES) if not line.isspace()]
        decoded = decoder.decode(Frames(Shard("head"), lines, np.arange(len(lines) + 1)))
        return decoded.labels is not None and not len(decoded.records)
    with open_table(path) as table:
        columns = [column for column in schema.columns if column.group != "fields"]
        held = any(set(candidates(column)) & set(table.names) for column in columns)
        return not held and _label_name(schema.label, table.names) is not None


def only_labels(schema: Schema) -> Schema:
    """The schema of a table that holds labels and nothing else."""
    return replace(schema, columns=())


def _first(wanted: tuple[str, ...], names: list[str]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _encoder(paths: Iterable[Place], id_path: Place) -> Callable[[Row | Ragged, int], bytes]:
    """From a row and its number to the JSON text of its event."""
    places = {path: at for at, path in enumerate(paths)}
    places.setdefault(id_path, len(places))  # behind the row's values stands its number
    shape = _shape(places)
    optional = [path[0] for path in places if path in _OPTIONAL]
    to_json = msgspec.json.Encoder().encode

    def encode(row: Row | Ragged, number: int) -> bytes:
        if isinstance(row, Ragged):
            return to_json(row.cells)
        if inf in row or -inf in row:
            row = [_INFINITE.get(value, value) if isinstance(value, float) else value for value in row]
        event = shape((*row, number))
        for key in optional:
            if event[key] is None:
                del event[key]
        return to_json(event)

    return encode


def _shape(places: Mapping[Place, int]) -> Callable[[Sequence[object]], dict[str, object]]:
    """The function that nests a row's values as their paths say."""
    leaves = [(path[0], at) for path, at in places.items() if len(path) == 1]
    inner: dict[str, dict[Place, int]] = {}
    for path, at in places.items():
        if len(path) > 1:
            inner.setdefault(path[0], {})[path[1:]] = at
    nodes = [(key, _shape(below)) for key, below in inner.items()]

    def shape(row: Sequence[object]) -> dict[str, object]:
        event = {key: row[at] for key, at in leaves}
        for key, node in nodes:
            event[key] = node(row)
        return event

    return shape


def _csv_shard(path: Path) -> Shard:
    """Named by header and first row: files of one kind share the header, and a file that grows keeps both."""
    with reading(path), open_bytes(path) as file:
        return shard_name(path, b"\n".join((file.read(HEAD_BYTES) or b"").splitlines()[:2]))


def _parquet_shard(path: Path) -> Shard:
    """Named by the footer, which holds the place and size of every column chunk: it cannot grow."""
    with reading(path), path.open("rb") as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        return shard_name(path, file.read(length))

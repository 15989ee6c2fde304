"""CSV and Parquet files as rows of the values that an event would hold: one meaning of a cell for every reader."""

import csv
import difflib
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import msgspec

from driftwatch.errors import ConfigError, SourceError
from driftwatch.records import Column, Kind

JSON_LINES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
CSV = (".csv", ".csv.gz")
PARQUET = (".parquet", ".pq")
SUFFIXES = JSON_LINES + CSV + PARQUET

_T = TypeVar("_T")
_NUMBER_LIST = msgspec.json.Decoder(list[float | None])

LONGEST_CELL = 64 * 1024 * 1024  # characters; the csv module's own bound of 128 KiB is less than an embedding
CSV_ROWS = 1024  # converted at a time, column by column
PARQUET_ROWS = 8192  # decoded at a time
JSON_ROWS = 8192  # looked at for the names of the columns

_LABEL_EVENT = {"id", "time", "label", "model", "version"}  # an event that holds only these is no row

Row = Sequence[object]


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a table that is wanted: its name in the file and what its cells are to be read as."""

    name: str
    kind: Kind | Literal["time"]


@dataclass(frozen=True, slots=True)
class Ragged:
    """A CSV row that has not as many cells as the header."""

    cells: list[str]


def candidates(column: Column) -> tuple[str, ...]:
    """What a column may be called in a table; the first that is there counts."""
    dotted = ".".join(column.path)
    # A feature `model` of an event is at features.model, not at the event's own `model`.
    if column.group == "features":
        return dotted, column.name
    return (column.name, dotted) if column.group == "fields" else (column.name, dotted, column.group)


def locate(columns: Iterable[Column], names: Sequence[str], path: Path) -> dict[str, str]:
    """Column name → its name in the file. Raises ConfigError that names every column which the file lacks."""
    found: dict[str, str] = {}
    lacking: list[str] = []
    for column in columns:
        name = next((name for name in candidates(column) if name in names), None)
        if name is None:
            nearest = difflib.get_close_matches(column.name, names, n=1)
            lacking.append(f"{column.name!r} (nearest: {nearest[0]!r})" if nearest else repr(column.name))
        elif names.count(name) > 1:
            raise ConfigError(f"`{path.name}` must hold each column once; got {name!r} twice. Rename one of the two.")
        else:
            found[column.name] = name
    if lacking:
        raise ConfigError(
            f"`{path.name}` must hold every configured column; got none for {', '.join(lacking)}. "
            f"Its columns are {', '.join(map(repr, names))}: correct `events`, or the file."
        )
    return found


def _number(text: str) -> float | str | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        return text
    return text if "_" in text else value  # Python's own spelling of numbers, nobody else's


def _numbers(texts: Sequence[str]) -> Sequence[object]:
    """Numeric cells: empty and "nan" are missing, "inf" is a number, other text stays text (the decoder: invalid)."""
    # As one JSON list: a quarter of the time of float(). Not where an "n" may be of "nan", "inf" or "null".
    if "n" not in "".join(texts):
        with suppress(msgspec.DecodeError):
            numbers = _NUMBER_LIST.decode(f"[{','.join([text or 'null' for text in texts])}]")
            if len(numbers) == len(texts):  # else there was a comma in a cell
                return numbers
    return [_number(text) for text in texts]


def _time(text: str) -> float | datetime | str | None:
    value = _number(text)
    if not isinstance(value, str):
        return value
    try:
        parsed = datetime.fromisoformat(value.strip())
    except ValueError:
        return value
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _times(texts: Sequence[str]) -> Sequence[object]:
    """Time cells: a number of `events.time_unit`, ISO 8601 (without an offset: UTC), else text that nothing reads."""
    return [_time(text) for text in texts]


def _categories(texts: Sequence[str]) -> Sequence[object]:
    return [text or None for text in texts]


def _list(text: str) -> object:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return text


def _lists(texts: Sequence[str]) -> Sequence[object]:
    """Cells that hold a list as JSON text."""
    return [_list(text) for text in texts]


_CELLS: dict[str, Callable[[Sequence[str]], Sequence[object]]] = {
    "numeric": _numbers,
    "categorical": _categories,
    "embedding": _lists,
    "time": _times,
}


class CsvTable:
    """An open CSV file; `.gz` is unpacked."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        csv.field_size_limit(LONGEST_CELL)
        self._file = file
        packed = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        # A byte that is no UTF-8 must not stop the stream: it becomes a category that nobody has seen, or no number.
        reader = csv.reader(io.TextIOWrapper(packed, encoding="utf-8-sig", errors="replace", newline=""))
        self.names = next(reader, [])
        self._rows = filter(None, reader)  # a blank line is no row

    def rows(self, fields: Sequence[Field], start: int = 0) -> Iterator[Row | Ragged]:
        """The fields' values of each row from row `start` on."""
        cells = [(_CELLS[field.kind], self.names.index(field.name)) for field in fields]
        width = len(self.names)
        rest = _skipped(self._rows, start)
        while chunk := list(islice(rest, CSV_ROWS)):
            ragged = {i: Ragged(row) for i, row in enumerate(chunk) if len(row) != width}
            for i in ragged:
                chunk[i] = [""] * width
            columns = list(zip(*chunk, strict=True))
            rows: list[Row | Ragged] = list(zip(*(read(columns[at]) for read, at in cells), strict=True))
            for i, row in ragged.items():
                rows[i] = row
            yield from rows

    def bytes_read(self) -> int:
        """How much of the file has been read."""
        return self._file.tell()


class ParquetTable:
    """An open Parquet file; a field of a struct is a column named `struct.field`."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        try:
            import pyarrow as pa
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise ConfigError(
                f"`pyarrow` must be installed to read Parquet; got {path.name!r} without it. "
                "Run: pip install 'driftwatch-sidecar[files]'."
            ) from error
        self._arrow = pa
        self._path = path
        with self._mapped_errors():
            self._parquet = ParquetFile(file)
            self.names = list(self._parquet.schema_arrow.empty_table().flatten().column_names)
        self._n_read = 0

    def rows(self, fields: Sequence[Field], start: int = 0) -> Iterator[Row | Ragged]:
        """The fields' values of each row from row `start` on; times are aware datetimes."""
        return _skipped(self._all_rows([field.name for field in fields]), start)

    def bytes_read(self) -> int:
        """How much of the file has been read, by the share of its rows."""
        n_rows: int = self._parquet.metadata.num_rows
        return self._path.stat().st_size * self._n_read // max(n_rows, 1)

    def _all_rows(self, names: Sequence[str]) -> Iterator[Row]:
        with self._mapped_errors():
            for batch in self._parquet.iter_batches(batch_size=PARQUET_ROWS, columns=names):
                table = self._arrow.Table.from_batches([batch]).flatten()
                self._n_read += len(table)
                yield from zip(*(self._values(table[name]) for name in names), strict=True)

    def _values(self, column: Any) -> list[object]:
        types = self._arrow.types
        if types.is_decimal(column.type):
            column = column.cast(self._arrow.float64())
        if types.is_date(column.type):
            column = column.cast(self._arrow.timestamp("ms"))
        if types.is_timestamp(column.type):  # without a zone: UTC
            column = column.cast(self._arrow.timestamp("us", column.type.tz), safe=False)
            column = column.cast(self._arrow.timestamp("us", "UTC"))
        return list(column.to_pylist())

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except self._arrow.ArrowException as error:
            raise SourceError(
                f"`path` must name a Parquet file that can be read; got {str(self._path)!r}: {error}. Write it again."
            ) from error


class JsonTable:
    """An open file of JSON lines, each an object; a value inside an object is a column named `outer.inner`."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        lines = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        objects = (_object(line, i, path) for i, line in enumerate(lines) if not line.isspace())
        self._events = (event for event in objects if "label" not in event or not event.keys() <= _LABEL_EVENT)
        self._first = list(islice(self._events, JSON_ROWS))
        self.names = list(dict.fromkeys(name for event in self._first for name in _names(event)))

    def rows(self, fields: Sequence[Field], start: int = 0) -> Iterator[Row | Ragged]:
        """The fields' values of each event but label events, from event `start` on; None where it has none."""
        places = [self._place(field.name) for field in fields]
        events = _skipped(chain(self._first, self._events), start)
        return ([_value(event, place) for place in places] for event in events)

    def bytes_read(self) -> int:
        """How much of the file has been read."""
        return self._file.tell()

    def _place(self, name: str) -> tuple[str, ...]:
        return (name,) if any(name in event for event in self._first) else tuple(name.split("."))


Table = CsvTable | ParquetTable | JsonTable


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """The open file, read as what its name says."""
    kind = CsvTable if str(path).endswith(CSV) else JsonTable if str(path).endswith(JSON_LINES) else ParquetTable
    with reading(path), path.open("rb") as file:
        yield kind(file, path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what can go wrong in reading a file into a SourceError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(f"`path` must name a file that exists; got {str(path)!r}. Correct the path.") from error
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise SourceError(
            f"`path` must name a file that can be read; got {str(path)!r}: {error}. Look at the file."
        ) from error


def _object(line: bytes, number: int, path: Path) -> dict[str, object]:
    try:
        try:
            event = msgspec.json.decode(line)
        except msgspec.DecodeError:
            event = json.loads(line)  # which takes NaN, Infinity and 1e999
    except (ValueError, RecursionError) as error:
        raise SourceError(f"line {number + 1} of `{path.name}` must be a JSON object; got {line[:80]!r}.") from error
    if not isinstance(event, dict):
        raise SourceError(f"line {number + 1} of `{path.name}` must be a JSON object; got {line[:80]!r}.")
    return event


def _names(event: dict[str, object], prefix: str = "") -> Iterator[str]:
    for key, value in event.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")


def _value(event: object, place: tuple[str, ...]) -> object:
    for key in place:
        if not isinstance(event, dict):
            return None
        event = event.get(key)
    return event


def _skipped(rows: Iterator[_T], n: int) -> Iterator[_T]:
    """The rows after the first n."""
    n_skipped = sum(1 for _ in islice(rows, n))
    if n_skipped < n:
        raise SourceError(
            f"a file must hold at least the {n} rows that were read of it before; got {n_skipped}. "
            "Put the whole file back, or begin anew under another file name."
        )
    return rows

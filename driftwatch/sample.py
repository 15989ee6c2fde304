"""The first rows of a sample file as plain values by their place, for `driftwatch init`."""

import csv
import gzip
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path

from driftwatch.errors import ConfigError

ROWS = 1000  # that are looked at

Place = tuple[str, ...]
Values = dict[Place, list[object]]
"""The places that rows hold something at, in the order met, with what was found there; nulls are left out."""

_LINES = (".jsonl", ".ndjson", ".json")


def is_table(path: Path) -> bool:
    """Whether the file holds columns (CSV, Parquet), not events (JSON lines)."""
    return not path.name.removesuffix(".gz").endswith(_LINES)


def read(path: Path) -> Values:
    """The values of the first `ROWS` rows. Raises ConfigError where the file cannot be read."""
    values: Values = {}
    try:
        for row in itertools.islice(_rows(path), ROWS):
            _collect(row, (), values)
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: must be UTF-8 text; byte {error.start} is not.") from error
    except csv.Error as error:
        raise ConfigError(f"{path}: must be CSV: {error}.") from error
    return values


def _collect(value: object, place: Place, values: Values) -> None:
    if isinstance(value, Mapping):
        for key, below in value.items():
            _collect(below, (*place, str(key)), values)
        return
    found = values.setdefault(place, [])
    if value is not None and not (isinstance(value, float) and math.isnan(value)):
        found.append(value)


def _rows(path: Path) -> Iterator[object]:
    name = path.name.removesuffix(".gz")
    if name.endswith((".parquet", ".pq")):
        yield from _parquet_rows(path)
    elif name.endswith((".csv", *_LINES)):
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if name != path.name
            else path.open(encoding="utf-8-sig") as file
        ):
            if name.endswith(".csv"):
                for row in csv.DictReader(file, restkey=""):
                    yield {key: _cell(text) for key, text in row.items()}
            else:
                yield from _json_rows(path, file)
    else:
        raise ConfigError(
            f"{path}: must end in .jsonl, .ndjson, .json, .csv, .parquet or .pq; it ends in {path.suffix!r}."
        )


def _json_rows(path: Path, lines: Iterator[str]) -> Iterator[object]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"{path}:{number}: must be one JSON object a line: {error}.") from error
            if not isinstance(row, dict):
                raise ConfigError(f"{path}:{number}: must be one JSON object a line; got {line.strip()[:40]!r}.")
            yield row


def _cell(text: object) -> object:
    """A CSV cell as a number or a list where it is one; 007 and true stay text."""
    if not isinstance(text, str):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text or None
    return value if isinstance(value, int | float | list) and not isinstance(value, bool) else text


def _parquet_rows(path: Path) -> Iterator[object]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError(f"{path}: needs pyarrow to be read. Run: pip install 'driftwatch-sidecar[files]'") from error
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS):
                for row in batch.to_pylist():
                    yield {key: _plain(value) for key, value in row.items()}
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{path}: must be a Parquet file: {error}.") from error


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    return value.isoformat() if isinstance(value, date) else value

"""Reads a prediction log from a kept place on, over its rotations."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from modelops.delivery.receiver import Row
from modelops.errors import DataError
from modelops.prediction_log import open_numbered, rotated

MOST_ROWS = 500
BLOCK_BYTES = 1 << 20
MOST_LINE_BYTES = 16 << 20


class Place(msgspec.Struct, frozen=True):
    """A byte of the log's file of that number. The file that is being written has the number that it will get."""

    number: int = 1
    offset: int = 0


class Part(NamedTuple):
    """Rows, and the place behind them."""

    rows: Sequence[Row]
    end: Place


class _Named(msgspec.Struct):
    id: str


class LogReader:
    """`place` is kept in a file, so that a reader that is killed goes on where it was."""

    def __init__(self, log: Path, kept: Path) -> None:
        self._log, self._kept = log, kept
        self.place = read_place(kept)

    def refresh(self) -> None:
        """Takes the place that another process has kept meanwhile."""
        self.place = read_place(self._kept)

    def next(self) -> Part | None:
        """The next rows; None where there are none yet. Raises DataError."""
        while True:
            number, file, is_open = open_numbered(self._log, self.place.number)
            if file is None:
                return None
            with file:
                offset = self.place.offset if number == self.place.number else 0
                if offset > os.fstat(file.fileno()).st_size:
                    offset = 0  # it was emptied
                file.seek(offset)
                data = _whole_lines(file.read(BLOCK_BYTES), file)
            if data:
                rows, n_bytes = _cut(data)
                return Part(rows, Place(number, offset + n_bytes))
            if is_open:
                self.place = Place(number, offset)
                return None
            self.place = Place(number + 1, 0)

    def keep(self, place: Place) -> None:
        """The rows before this place need not be read again. Raises OSError."""
        beside = self._kept.with_name(f"{self._kept.name}.{os.getpid()}")
        beside.write_bytes(msgspec.json.encode(place))
        beside.replace(self._kept)
        self.place = place

    def behind_bytes(self) -> int:
        """How much of the log is behind the place."""
        files = rotated(self._log)
        sizes = {number: _size(path) for number, path in files.items()} | {max(files, default=0) + 1: _size(self._log)}
        return sum(
            max(size - (self.place.offset if number == self.place.number else 0), 0)
            for number, size in sizes.items()
            if number >= self.place.number
        )


def read_place(kept: Path) -> Place:
    """A kept place; the log's beginning where there is none. Raises DataError."""
    try:
        return msgspec.json.decode(kept.read_bytes(), type=Place)
    except FileNotFoundError:
        return Place()
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{kept}: must be a kept place; {error}. Delete it to deliver the whole log again.") from error


def lines_after(path: Path, offset: int) -> int:
    """How many lines end after an offset."""
    count = 0
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(BLOCK_BYTES):
            count += block.count(b"\n")
    return count


def _whole_lines(data: bytes, file: BinaryIO) -> bytes:
    end = data.rfind(b"\n") + 1
    if not end and len(data) == BLOCK_BYTES:
        data += file.readline(MOST_LINE_BYTES)
        end = data.rfind(b"\n") + 1
    return data[:end]


def _cut(data: bytes) -> tuple[list[Row], int]:
    """At most MOST_ROWS rows, and how many bytes they take; a line that was torn is no row."""
    lines = data.split(b"\n", MOST_ROWS)
    n_bytes = len(data) - len(lines.pop())
    rows = []
    for line in lines:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            rows.append(Row(_named.decode(line).id, line))
    return rows, n_bytes


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


_named = msgspec.json.Decoder(_Named)

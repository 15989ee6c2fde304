"""Reads a prediction log from a kept place on, over its rotations."""

import os
from collections.abc import Sequence
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
    """A byte of the log's file of that number. The file that is being written has the number that it will get.

    `is_amid`: within a line that is too long, whose rest is passed over.
    """

    number: int = 1
    offset: int = 0
    is_amid: bool = False


class Part(NamedTuple):
    """Rows, the place behind them, and how many lines were left out: no event with an id, or too long for one."""

    rows: Sequence[Row]
    end: Place
    unreadable: int = 0
    too_long: int = 0


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
            place = self.place if number == self.place.number else Place(number)
            with file:
                if place.offset > os.fstat(file.fileno()).st_size:
                    place = Place(number)  # it was emptied
                file.seek(place.offset)
                part = _rest_of_line(file, place) if place.is_amid else _read(file, place, is_open=is_open)
            if part is not None:
                return part
            if is_open:
                self.place = place
                return None
            self.place = Place(number + 1)

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


def _read(file: BinaryIO, place: Place, *, is_open: bool) -> Part | None:
    """The next whole lines; None where there are none. What ends a file that is written no more is its last line."""
    data = file.read(BLOCK_BYTES)
    end = data.rfind(b"\n") + 1
    if not end and len(data) == BLOCK_BYTES:
        data += file.readline(MOST_LINE_BYTES)
        if data.endswith(b"\n"):
            end = len(data)
        elif len(data) >= BLOCK_BYTES + MOST_LINE_BYTES:
            return Part((), Place(place.number, place.offset + len(data), is_amid=True), too_long=1)
    if not end and not is_open:
        end = len(data)
    return _cut(data[:end], place) if end else None


def _rest_of_line(file: BinaryIO, place: Place) -> Part | None:
    """Passes over what there is of a line that is too long; None where there is no more yet."""
    data = file.read(BLOCK_BYTES)
    end = data.find(b"\n") + 1
    return Part((), Place(place.number, place.offset + (end or len(data)), is_amid=not end)) if data else None


def _cut(data: bytes, place: Place) -> Part:
    """At most MOST_ROWS lines; one that was torn is no row."""
    lines = data.split(b"\n", MOST_ROWS)
    rest = lines.pop() if len(lines) > MOST_ROWS or not lines[-1] else b""
    rows, unreadable = [], 0
    for line in lines:
        try:
            rows.append(Row(_named.decode(line).id, line))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            unreadable += bool(line.strip())
    return Part(rows, Place(place.number, place.offset + len(data) - len(rest)), unreadable)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


_named = msgspec.json.Decoder(_Named)

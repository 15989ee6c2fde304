"""The spool: an append-only log of bodies on disk, between the sender who was told "200" and the pipeline.

A record is a header (`_RECORD`), the source headers as MessagePack, the body. Records lie one after the other in
segments, `<base>.spool`; a position is a segment's base plus a byte in it, so positions only grow. What `append` has
returned survives SIGKILL, after `sync` a loss of power too. A record that is torn or damaged was never acknowledged: a
start cuts the log before it. (Only damage to the file itself can reach further: then all behind it is cut as well.)

One thread appends, one reads and forgets; they share `end`, which is moved once a record is whole.
"""

import logging
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import msgspec

from driftwatch.errors import StoreUnavailable

SEGMENT_BYTES = 64 * 2**20
MOST_PARTS = 1000  # of one writev: Linux takes 1024
Buffer = bytes | bytearray | memoryview
_RECORD = struct.Struct("<IIId")  # checksum of all that follows, bytes of headers, bytes of body, arrival (epoch s)
_CHECKED = struct.Struct("<IId")
_headers = msgspec.msgpack.Decoder(dict[str, str])
_log = logging.getLogger(__name__)


class SpoolFull(StoreUnavailable):
    """The spool holds as much as it may."""


class Entry(NamedTuple):
    """One record: `position` is its place, `end` that of the next one."""

    position: int
    end: int
    arrived_s: float
    headers: dict[str, str]
    body: bytes


class Body(NamedTuple):
    """What is to be kept: a body in its pieces, the headers it came with, and when."""

    headers: Mapping[str, str]
    pieces: Sequence[Buffer]
    arrived_s: float


class _Segment(NamedTuple):
    base: int
    path: Path


class Spool:
    """Opens the log in a folder, or makes one whose first position is `position`.

    `position`: how far its reader has come; what lies before it may go, and no record is ever put there. Raises
    StateError where the folder cannot be read or written; a failed `append` has changed nothing and may be repeated.
    """

    def __init__(self, folder: Path, *, position: int, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self.max_bytes = max_bytes
        self._segment_bytes = min(segment_bytes, max(max_bytes // 4, 1))
        self._read: _Segment | None = None  # the segment that is being read, and its file
        self._read_file = -1
        self._write_file = -1
        self._is_torn = False  # part of a record that failed may stand behind `end`
        self._lock = Lock()  # over the list of segments, and the file that is written while it is synced or replaced
        self._full: list[Path] = []  # segments that are full and not yet on the platter
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._segments = [_Segment(int(path.stem), path) for path in _paths(folder)]
            self.forget(position)
            ends = [segment.base + _cut_torn(segment.path) for segment in self._segments]
            self.end = max([position, *ends[-1:]])
            if ends and ends[-1] == self.end:
                self._write_file = os.open(self._segments[-1].path, os.O_WRONLY | os.O_APPEND)
            else:  # a new log, or one that lost its tail with the machine's power
                self._open_segment(self.end)
                self.forget(position)
        except OSError as error:
            raise _unusable(folder, error) from error

    @property
    def start(self) -> int:
        """The position of the oldest record that is still there."""
        return self._segments[0].base

    @property
    def n_bytes(self) -> int:
        """How much it holds."""
        return self.end - self.start

    # The writer's ---------------------------------------------------------------------------------------------------

    def append(self, *bodies: Body) -> int:
        """Adds all of them, or none; the position after them.

        Raises SpoolFull, or StoreUnavailable where the disk does not take them. Once it has returned, they survive the
        end of this process; that of the machine only after `sync`.
        """
        parts: list[Buffer] = []
        n_bytes = sum(_add_record(parts, body) for body in bodies)
        if self.n_bytes + n_bytes > self.max_bytes:
            raise SpoolFull(
                f"`spool.max_bytes` must leave room for {n_bytes} bytes; got a spool of {self.n_bytes} of "
                f"{self.max_bytes} bytes that are not judged yet. Send less for a while, or raise it."
            )
        try:
            if self._is_torn:
                self._cut_failed()
            if self.end - self._segments[-1].base >= self._segment_bytes:
                self._open_segment(self.end)
            self._write(parts)
        except OSError as error:
            raise _unusable(self._folder, error) from error
        self.end += n_bytes
        return self.end

    def sync(self) -> None:
        """Brings to the platter what was appended before. May run in another thread than `append`."""
        try:
            with self._lock:
                for path in self._full:
                    with suppress(FileNotFoundError):  # read to its end meanwhile
                        _sync_path(path)
                if self._full:
                    _sync_path(self._folder)
                os.fsync(self._write_file)
                self._full = []
        except OSError as error:
            raise _unusable(self._folder, error) from error

    def probe(self) -> None:
        """Raises what an `append` of some KiB would."""
        path = self._folder / "probe"
        if self.n_bytes + 4096 > self.max_bytes:
            raise SpoolFull(f"`spool.max_bytes` is reached: {self.n_bytes} bytes are not judged yet.")
        try:
            path.write_bytes(b"\0" * 4096)
            path.unlink()
        except OSError as error:
            raise _unusable(self._folder, error) from error

    def close(self) -> None:
        """Closes the files; both threads are done."""
        for file in (self._write_file, self._read_file):
            if file >= 0:
                os.close(file)
        self._write_file = self._read_file = -1

    def _write(self, parts: list[Buffer]) -> None:
        try:
            for at in range(0, len(parts), MOST_PARTS):
                some = parts[at : at + MOST_PARTS]
                written = os.writev(self._write_file, some)
                for part in some:
                    written -= len(part)
                    while written < 0:  # a short write: the disk is full, or a signal came
                        written += os.write(self._write_file, memoryview(part)[written:])
        except OSError:
            self._is_torn = True
            with suppress(OSError):  # the first error is the one to tell; the next `append` tries again, or a start
                self._cut_failed()
            raise

    def _cut_failed(self) -> None:
        os.ftruncate(self._write_file, self.end - self._segments[-1].base)
        self._is_torn = False

    def _open_segment(self, base: int) -> None:
        path = self._folder / f"{base:020d}.spool"
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o640)
        with self._lock:
            if self._write_file >= 0:
                os.close(self._write_file)
                self._full.append(self._segments[-1].path)
            self._write_file = file
            self._segments = [*self._segments, _Segment(base, path)]  # replaced as a whole: the other thread reads it

    # The reader's ---------------------------------------------------------------------------------------------------

    def read(self, position: int, *, most: int, most_bytes: int) -> list[Entry]:
        """The records from a position on, at most so many, and of about so many bytes; [] where there is none yet."""
        end = self.end
        found: list[Entry] = []
        n_bytes = 0
        try:
            while position < end and len(found) < most and n_bytes < most_bytes:
                segment, position, stop = self._place(position, end)
                file = self._file_of(segment)
                block = os.pread(file, max(min(stop - position, most_bytes), _RECORD.size), position - segment.base)
                entries = _entries(block, position, most - len(found))
                if not entries:  # one record is longer than that
                    head_bytes, body_bytes = _RECORD.unpack_from(block)[1:3]
                    length = _RECORD.size + head_bytes + body_bytes
                    entries = _entries(os.pread(file, length, position - segment.base), position, 1)
                    if not entries:
                        raise OSError(f"{segment.path.name} does not hold what was written at byte {position}")
                found += entries
                n_bytes += entries[-1].end - position
                position = entries[-1].end
        except OSError as error:
            raise _unusable(self._folder, error) from error
        return found

    def forget(self, position: int) -> None:
        """Deletes the segments that lie wholly before a position; the one that is written stays."""
        while len(self._segments) > 1 and self._segments[1].base <= position:
            try:
                self._segments[0].path.unlink(missing_ok=True)  # without the lock: it takes a while, and senders wait
            except OSError as error:
                _log.warning("%s cannot be deleted yet: %s", self._segments[0].path, error.strerror)
                return
            with self._lock:
                self._segments = self._segments[1:]

    def _place(self, position: int, end: int) -> tuple[_Segment, int, int]:
        """The segment of the first record at a position or after it, that record's position, and the segment's end.

        Between segments nothing lies, but where a loss of power or a person took it.
        """
        segments = self._segments
        for segment in segments[:-1]:
            stop = segment.base + segment.path.stat().st_size
            if position < stop:
                return segment, max(position, segment.base), stop
        return segments[-1], max(position, segments[-1].base), end

    def _file_of(self, segment: _Segment) -> int:
        if self._read != segment:
            if self._read_file >= 0:
                os.close(self._read_file)
            self._read_file = os.open(segment.path, os.O_RDONLY)
            self._read = segment
        return self._read_file


def _add_record(parts: list[Buffer], body: Body) -> int:
    """Adds the parts of a record; how many bytes it has."""
    head = msgspec.msgpack.encode(body.headers)
    length = sum(map(len, body.pieces))
    checksum = zlib.crc32(head, zlib.crc32(_CHECKED.pack(len(head), length, body.arrived_s)))
    for piece in body.pieces:
        checksum = zlib.crc32(piece, checksum)
    parts.append(_RECORD.pack(checksum, len(head), length, body.arrived_s) + head)
    parts.extend(body.pieces)
    return len(parts[-1 - len(body.pieces)]) + length


def _entries(block: bytes, position: int, most: int) -> list[Entry]:
    """The whole and sound records that a block begins with."""
    found: list[Entry] = []
    view = memoryview(block)
    at = 0
    while len(found) < most and len(block) - at >= _RECORD.size:
        checksum, head_bytes, body_bytes, arrived_s = _RECORD.unpack_from(block, at)
        body_at = at + _RECORD.size + head_bytes
        stop = body_at + body_bytes
        if stop > len(block) or zlib.crc32(view[at + 4 : stop]) != checksum:
            break
        headers = _headers.decode(view[at + _RECORD.size : body_at])
        found.append(Entry(position + at, position + stop, arrived_s, headers, bytes(view[body_at:stop])))
        at = stop
    return found


def _cut_torn(path: Path) -> int:
    """Cuts a segment behind its last whole record; how many bytes it has then."""
    size, at = path.stat().st_size, 0
    with path.open("r+b") as file:
        while size - at >= _RECORD.size:
            header = file.read(_RECORD.size)
            checksum, head_bytes, body_bytes, _ = _RECORD.unpack(header)
            rest = head_bytes + body_bytes
            if rest > size - at - _RECORD.size or zlib.crc32(file.read(rest), zlib.crc32(header[4:])) != checksum:
                break
            at += _RECORD.size + rest
        if at < size:
            _log.warning(
                "%s: cut %d bytes behind its last whole record: one that was being written as the process ended, or a "
                "damaged file",
                path,
                size - at,
            )
            file.truncate(at)
    return at


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]" * 20 + ".spool"))


def _sync_path(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _unusable(folder: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"{folder}: the spool cannot be read or written: {error.strerror or error}")

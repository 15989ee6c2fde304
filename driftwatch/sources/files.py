"""JSON lines from a file, a growing file or standard input."""

import gzip
import hashlib
import io
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from driftwatch.errors import ConfigError, SourceError
from driftwatch.protocols import Assigned, AtEnd, CommitMark, Event, Tick
from driftwatch.records import Frames, Lines, Shard
from driftwatch.sources.rotation import ReadBefore, neighbours
from driftwatch.tables import reading

BLOCK_BYTES = 1024 * 1024  # one read, and a batch of lines where they are not very short
HELD_BYTES = 8 * 1024 * 1024  # lines that wait for their batch to fill: bounds the memory where lines are long
HEAD_BYTES = 64 * 1024  # how much of a first line names the shard
KEPT_BYTES = 16 * 1024 * 1024
POLL_S = 0.2
NEWLINE, RETURN, OPEN, CLOSE = b"\n\r{}"
STDIN = Shard("stdin")

ByteFile = io.RawIOBase | gzip.GzipFile


class JsonLinesSource:
    """Yields the lines of one file (`.gz`: of what it holds) or of standard input (`-`); a position is a byte.

    A message is a line without the white space around it; blank lines are passed over. Without `follow` the last line
    needs no newline and the end is final. With `follow` the file is read on as it grows; a line waits for its newline.

    The shard is named by the file's name and a fingerprint of its first line that is not blank (at most 64 KiB of it),
    not of its first KiB: a first line does not change when a short file grows. A file with another first line is
    another shard, so files that begin with one and the same line are one log. A file that was renamed away is read
    to its end before the file that took its place; one that was truncated ends there and begins anew. A file that is
    shorter than what was read of it, but begins with the same line, is a SourceError: rows may be lost, and only a
    person can say whether they are.

    Files that were renamed away while nobody followed are found beside the log (`before`: what was read then): the one
    that was being read by its first line, under whichever name, so a copy of it will do; those after it by their names
    (`rotation.neighbours`) and the times of their last write. `warn` is told where the first one is gone.
    """

    def __init__(
        self,
        path: Path | Literal["-"],
        *,
        follow: bool = False,
        batch_size: int = 5000,
        sleep: Callable[[float], None] = time.sleep,
        before: ReadBefore | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        if follow and (path == "-" or Path(path).suffix == ".gz"):
            raise ConfigError(
                f"`follow` must be false unless `path` is a plain file of JSON lines; got {str(path)!r}. "
                "Leave `follow` out: standard input is read until it is closed, a compressed file does not grow."
            )
        self._path = None if path == "-" else Path(path)
        self._follow = follow
        self._batch_size = batch_size
        self._sleep = sleep
        self._before = ReadBefore() if before is None else before.of(Path(path))
        self._warn = warn
        self._ended: set[Shard] = set()  # files that this run has read
        self._ended_ns = 0  # when the last one of them was written to last
        self._begun: dict[Shard, int] = {}
        self._paused: Set[Shard] = frozenset()
        self._closed = False

    def events(self) -> Iterator[Event]:
        # glibc gives freed memory back to the system above a threshold that starts at 128 KiB and rises to twice the
        # largest block freed. Without this each batch of lines is faulted in page by page anew: 1.5 instead of 0.3 µs
        # a line of 700 bytes.
        bytes(KEPT_BYTES)
        if self._path is None:
            with reading(Path("-")), open(0, "rb", buffering=0, closefd=False) as file:
                yield from self._shard_events(STDIN, file, _stdin_blocks(file))
            return
        with reading(self._path):
            yield from self._file_events(self._path)

    def begin(self, shard: Shard, position: int) -> None:
        self._begun[shard] = position

    def pause(self, shards: Set[Shard]) -> None:
        self._paused = shards

    def commit(self, marks: Mapping[Shard, CommitMark]) -> None:
        """A file remembers nothing of its readers."""

    def close(self) -> None:
        self._closed = True

    def _file_events(self, path: Path) -> Iterator[Event]:
        if not self._follow:
            with open_bytes(path) as file:
                shard = _shard(path, file, whole_line=False)
                if shard is not None:
                    yield from self._shard_events(shard, file, _blocks(file))
            return
        yield from self._away_events(path)
        while not self._closed:
            if (found := self._next_file(path)) is None:
                self._sleep(POLL_S)
                yield Tick()
                continue
            shard, file, is_log = found
            with file:
                blocks = self._growing_blocks(path, shard, file) if is_log else _blocks(file)
                yield from self._shard_events(shard, file, blocks)
                self._ended.add(shard)
                self._ended_ns = os.fstat(file.fileno()).st_mtime_ns

    def _away_events(self, path: Path) -> Iterator[Event]:
        """Says of each file whose rows wait for their windows' ends, and which is not read on, that it has ended.

        A file that is missing at the start is an error, unless it is found under another name; one that is gone later
        is between a rename and the file that takes its place.
        """
        known, log = self._before.positions, None
        with suppress(FileNotFoundError), open_bytes(path) as file:
            log = _shard(path, file, whole_line=True)
            to_come = {shard for shard, _ in self._earlier(path, file, log)} | {log}
        if log is None:
            to_come = {shard for shard, _ in self._earlier(path, None, None)}
            if not to_come and not path.exists():
                open_bytes(path).close()
        if known and not known.keys() & to_come:
            read = ", ".join(f"{shard} to byte {at}" for shard, at in list(known.items())[-3:])
            self._warn(
                f"{path}: what was read before is not there any more ({read}): what was written behind it is lost. "
                "Leave rotated files beside the log, uncompressed, until they are read."
            )
        for shard in sorted(self._before.waiting - to_come):
            yield Assigned(shard)
            yield AtEnd(shard, final=True)

    def _next_file(self, path: Path) -> tuple[Shard, ByteFile, bool] | None:
        """The file to read next, and whether it is the log itself; None where there is none yet."""
        log = None
        with suppress(FileNotFoundError):
            log = open_bytes(path)
        shard = None if log is None else _shard(path, log, whole_line=True)
        earlier = self._earlier(path, log, shard)
        if log is not None and (earlier or shard is None):
            log.close()
        if earlier:
            with suppress(FileNotFoundError):  # renamed meanwhile
                return earlier[0][0], open_bytes(earlier[0][1]), False
            return None
        return None if log is None or shard is None else (shard, log, True)

    def _earlier(self, path: Path, log: ByteFile | None, shard: Shard | None) -> list[tuple[Shard, Path]]:
        """The files that were renamed away and are to be read before the log, which is open, the oldest first."""
        known = self._before.positions
        found: dict[Shard, tuple[Path, bool, int]] = {}
        for other, is_named in neighbours(path):
            with suppress(FileNotFoundError, PermissionError), open_bytes(other) as file:  # another program's, maybe
                status = os.fstat(file.fileno())
                its = _shard(path, file, whole_line=False)
                if log is not None and os.path.samestat(status, os.fstat(log.fileno())):
                    continue
                if its is None or its in (shard, *self._ended) or status.st_size < max(known.get(its, 0), 1):
                    continue
                found.pop(its, None)
                found[its] = (other, is_named, status.st_mtime_ns)
        if self._ended:
            return [(s, other) for s, (other, is_named, at) in found.items() if is_named and at >= self._ended_ns]
        if not known or shard in known:
            return []
        newest = max((i for i, s in enumerate(found) if s in known), default=0)
        return [(s, other) for s, (other, is_named, _) in list(found.items())[newest:] if is_named or s in known]

    def _shard_events(self, shard: Shard, file: ByteFile, blocks: Iterator[bytes]) -> Iterator[Event]:
        yield Assigned(shard)
        if shard not in self._begun:
            return
        _skip(file, shard, self._begun[shard])
        cutter = _Cutter(shard, self._begun[shard], self._batch_size)
        caught_up = False
        for block in blocks:
            cutter.feed(block)
            yield from self._frames(cutter, flush=not block)
            if self._closed:
                return
            if not block:
                yield Tick() if caught_up else AtEnd(shard, final=False)
            caught_up = not block
        cutter.finish()
        yield from self._frames(cutter, flush=True)
        if not self._closed:
            yield AtEnd(shard, final=True)

    def _frames(self, cutter: "_Cutter", *, flush: bool) -> Iterator[Event]:
        """What the cutter holds in full batches, the rest too where `flush`; waits while the shard is paused."""
        while not self._closed:
            if cutter.shard in self._paused:
                self._sleep(POLL_S)
                yield Tick()
                continue
            frames = cutter.cut(flush=flush)
            if frames is None:
                return
            yield frames

    def _growing_blocks(self, path: Path, shard: Shard, file: ByteFile) -> Iterator[bytes]:
        """Blocks of a file that grows, b"" wherever it has been read to its end; over when the file is."""
        while True:
            block = file.read(BLOCK_BYTES) or b""
            yield block
            if block:
                continue
            self._sleep(POLL_S)
            if _was_rewritten(path, shard, file):
                return
            if _has_successor(path, file):
                yield from _blocks(file)  # what was written before and while it was renamed
                return


class _Cutter:
    """Cuts what is read of a shard into frames."""

    def __init__(self, shard: Shard, position: int, batch_size: int) -> None:
        self.shard = shard
        self._batch_size = batch_size
        self._frames: deque[Frames] = deque()
        self._position = position  # of the first byte of the pieces
        self._pieces: list[bytes] = []  # what was read and is not cut yet
        self._n_bytes = 0  # of the pieces
        self._has_end = False  # whether a line ends in them

    def feed(self, block: bytes) -> None:
        """Takes what was read next; cuts once there is enough of it, or a line of many blocks would cost its square."""
        if block:
            self._pieces.append(block)
            self._n_bytes += len(block)
            self._has_end = self._has_end or b"\n" in block
        if self._n_bytes >= BLOCK_BYTES and self._has_end:
            self._cut_lines()

    def finish(self) -> None:
        """Nothing more comes: what there is of the last line is a message, its decoder says whether a good one."""
        self._cut_up(b"".join(self._pieces))
        self._pieces, self._n_bytes, self._has_end = [], 0, False

    def cut(self, *, flush: bool) -> Frames | None:
        """The next frames; None until enough was read (with `flush`: any line)."""
        if flush and not self._frames and self._has_end:
            self._cut_lines()
        return self._frames.popleft() if self._frames else None

    def _cut_lines(self) -> None:
        """Cuts the whole lines among the pieces."""
        if not self._has_end:
            return
        data = b"".join(self._pieces)
        whole = data.rfind(b"\n") + 1
        rest = data[whole:]
        self._cut_up(data[:whole] if rest else data)
        self._pieces, self._n_bytes, self._has_end = [rest] if rest else [], len(rest), False

    def _cut_up(self, lines: bytes) -> None:
        """Frames of whole lines; the last one may lack its newline."""
        if not lines:
            return
        view = np.frombuffer(lines, np.uint8)
        ends = np.flatnonzero(view == NEWLINE)
        if lines[-1] != NEWLINE:
            ends = np.append(ends, len(lines))
        starts = np.concatenate(([0], ends[:-1] + 1))
        last = ends - 1
        last = last - (view[last] == RETURN)  # at the first line's very start it is some other byte, and no brace
        if bool(np.all(view[starts] == OPEN) and np.all(view[last] == CLOSE)):
            block = memoryview(lines)
            n_batches = -(-len(starts) // self._batch_size)
            for s, e in zip(np.array_split(starts, n_batches), np.array_split(ends, n_batches), strict=True):
                messages = Lines(block[s[0] : e[-1]], s - s[0], e - s[0])
                self._add(messages, np.append(s, min(e[-1] + 1, len(lines))))
        else:
            self._cut_out(lines, starts, ends)
        self._position += len(lines)

    def _cut_out(self, lines: bytes, starts: np.ndarray, ends: np.ndarray) -> None:
        """Frames of lines of which some are blank, or no objects."""
        pairs = zip(starts.tolist(), ends.tolist(), strict=True)
        cut = [
            (start, min(end + 1, len(lines)), message) for start, end in pairs if (message := lines[start:end].strip())
        ]
        n_bytes, batch = 0, []
        for line in cut:
            batch.append(line)
            n_bytes += len(line[2])
            if len(batch) == self._batch_size or n_bytes >= HELD_BYTES:
                self._add_cut(batch)
                n_bytes, batch = 0, []
        self._add_cut(batch)

    def _add_cut(self, batch: list[tuple[int, int, bytes]]) -> None:
        if batch:
            positions = np.array([*(start for start, _, _ in batch), batch[-1][1]], np.int64)
            self._add([message for _, _, message in batch], positions)

    def _add(self, messages: Sequence[bytes], positions: np.ndarray) -> None:
        self._frames.append(Frames(self.shard, messages, positions + self._position))


def shard_name(path: Path, head: bytes) -> Shard:
    """The file's name and a fingerprint of what it begins with."""
    return Shard(f"{path.name}#{hashlib.sha256(head).hexdigest()[:12]}")


def open_bytes(path: Path) -> ByteFile:
    """The file's bytes, unbuffered; of a `.gz` file those that it holds."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb", buffering=0)


def _shard(path: Path, file: ByteFile, *, whole_line: bool) -> Shard | None:
    """The shard that the file is; None while its first line is not there as a whole. Leaves the file at its start."""
    file.seek(0)
    head = (file.read(HEAD_BYTES) or b"").lstrip()
    file.seek(0)
    line, newline, _ = head.partition(b"\n")
    if whole_line and not newline and len(head) < HEAD_BYTES:
        return None
    return shard_name(path, line.rstrip())


def _skip(file: ByteFile, shard: Shard, position: int) -> None:
    """Moves to the position."""
    reached = 0
    if shard != STDIN:
        reached = file.seek(position)
        if isinstance(file, io.FileIO):  # which lets one seek past the end
            reached = min(reached, os.fstat(file.fileno()).st_size)
    while reached < position and (block := file.read(min(BLOCK_BYTES, position - reached))):
        reached += len(block)
    if reached < position:
        raise SourceError(
            f"`{shard}` must hold at least the {position} bytes that were read of it before; got {reached}. "
            "Put the whole file back, or begin anew under another file name."
        )


def _blocks(file: ByteFile) -> Iterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        yield block


def _stdin_blocks(file: ByteFile) -> Iterator[bytes]:
    """Blocks of standard input, b"" wherever none has come yet."""
    waited = False
    while True:
        # Ask at once first: what was read must be yielded before there is any waiting.
        if not select.select([file], [], [], POLL_S if waited else 0)[0]:
            waited = True
            yield b""
            continue
        waited = False
        block = file.read(BLOCK_BYTES)
        if not block:
            return
        yield block


def _was_rewritten(path: Path, shard: Shard, file: ByteFile) -> bool:
    """Whether the open file was truncated: it is shorter than what was read, or it begins otherwise."""
    at = file.tell()
    begins_with = _shard(path, file, whole_line=True)
    file.seek(at)
    return os.fstat(file.fileno()).st_size < at or begins_with != shard


def _has_successor(path: Path, file: ByteFile) -> bool:
    """Whether another file stands at the path and holds a line; until then the old one may still be written to."""
    try:
        with open_bytes(path) as there:
            other = not os.path.samestat(os.fstat(there.fileno()), os.fstat(file.fileno()))
            return other and _shard(path, there, whole_line=True) is not None
    except FileNotFoundError:
        return False

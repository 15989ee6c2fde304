"""The dead letters: messages that cannot be used, kept with their bytes beside the state, as JSON lines.

A line is `{"shard", "position", "reason", "detail", "time", "payload"}`, the payload in base64. Lines are appended to
numbered segments; when the segments hold `max_bytes`, the oldest goes.

**One entry a place.** After a crash a source reads again what no transaction has moved past, and hands in the same
poison. What is remembered of a shard is exactly the positions in the segments that exist, 8 bytes each, read from them
at the start; so memory is bounded by the disk's bound (256 MiB of the shortest lines are about 2 million places), a
restart remembers the same as a process that went on, and poison may come in any order. A highest position alone would
lose what the windower finds in a batch after the decoder, and all of a topic that was made anew.

**Guarantee.** Add before the transaction that moves past the poison. What `add` has written survives SIGKILL; not
flushed to the platter, it may be lost with the machine's power, up to the last half minute of it.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from driftwatch.decision import rfc3339
from driftwatch.errors import StateError, StoreUnavailable
from driftwatch.records import Frames, Poison, Records, Shard

MAX_BYTES = 256 * 2**20
N_SEGMENTS = 16

T = TypeVar("T")


class DeadLetter(msgspec.Struct, frozen=True):
    """One line: a message that could not be used, why, and when that was found (RFC 3339)."""

    shard: str
    position: int
    reason: str
    detail: str
    time: str
    payload: bytes


class _Place(msgspec.Struct, frozen=True):
    shard: str
    position: int


@dataclass(slots=True)
class _Segment:
    """One file and the places that it holds."""

    path: Path
    n_bytes: int = 0
    places: "dict[str, array[int]]" = field(default_factory=dict)  # positions in ascending order

    def holds(self, shard: str, position: int) -> bool:
        positions = self.places.get(shard)
        if positions is None:
            return False
        i = bisect_left(positions, position)
        return i < len(positions) and positions[i] == position

    def remember(self, shard: str, position: int) -> None:
        insort(self.places.setdefault(shard, array("q")), position)

    def __len__(self) -> int:
        return sum(map(len, self.places.values()))


class DeadLetters:
    """Appends poison to the segments of a folder; one process at a time.

    `dropped` counts the entries that went with an oldest segment, or were too large to be kept, since the start.
    Time: a few µs an entry; a start reads what is there. Raises StateError where the folder cannot be read or written;
    an `add` that raised may be repeated, and writes what is missing.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = max_bytes // N_SEGMENTS
        self._encoder = msgspec.json.Encoder()
        self.dropped = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            paths = _paths(folder) or [folder / _name(1)]
            _cut_torn_line(paths[-1])
            self._segments = [_read_places(path) for path in paths]
            self._file = paths[-1].open("ab", buffering=0)
        except OSError as error:
            raise _unusable(folder, error) from error

    def add(self, poison: Sequence[Poison], at: str) -> None:
        """Appends what is not there yet. `at`: when the poison was found, RFC 3339."""
        fresh: dict[tuple[Shard, int], bytes] = {}
        for p in poison:
            place = (p.shard, p.position)
            if not any(s.holds(*place) for s in self._segments):
                fresh[place] = self._line(p, at)
        pending: dict[tuple[Shard, int], bytes] = {}
        n_bytes = self._segments[-1].n_bytes
        try:
            for place, line in fresh.items():
                if len(line) > self._max_bytes:
                    self.dropped += 1
                    continue
                if n_bytes and n_bytes + len(line) > self._segment_bytes:
                    self._append(pending)
                    self._begin_segment()
                    pending, n_bytes = {}, 0
                pending[place] = line
                n_bytes += len(line)
            self._append(pending)
        except OSError as error:
            raise _unusable(self._folder, error) from error

    def close(self) -> None:
        self._file.close()

    def _line(self, p: Poison, at: str) -> bytes:
        detail = p.detail.encode("utf-8", "backslashreplace").decode()  # it may quote half a surrogate pair
        return self._encoder.encode(DeadLetter(p.shard, p.position, p.reason, detail, at, p.payload)) + b"\n"

    def _append(self, lines: dict[tuple[Shard, int], bytes]) -> None:
        """Writes all of the lines or none."""
        data = b"".join(lines.values())
        segment = self._segments[-1]
        self._make_room(len(data))
        try:
            _write(self._file, data)
        except OSError:
            with suppress(OSError):  # the first error is the one to tell; the start cuts what is left
                self._file.truncate(segment.n_bytes)
            raise
        segment.n_bytes += len(data)
        for place in lines:
            segment.remember(*place)

    def _make_room(self, n_bytes: int) -> None:
        """Removes the oldest segments, never the one being written, until so many bytes more fit."""
        while len(self._segments) > 1 and sum(s.n_bytes for s in self._segments) + n_bytes > self._max_bytes:
            self._segments[0].path.unlink(missing_ok=True)
            self.dropped += len(self._segments.pop(0))

    def _begin_segment(self) -> None:
        path = self._folder / _name(int(self._segments[-1].path.stem) + 1)
        file = path.open("ab", buffering=0)
        self._file.close()
        self._file = file
        self._segments.append(_Segment(path))


def entries(folder: Path) -> Iterator[DeadLetter]:
    """The dead letters in a folder, oldest first, one in memory at a time; none where there is no folder.

    Only reads, and may run beside the process that writes: a line that is being written is left out, a segment that
    goes meanwhile too. Raises StateError.
    """
    decoder = msgspec.json.Decoder(DeadLetter)
    try:
        for path in _paths(folder):
            with suppress(FileNotFoundError):
                yield from _decode_lines(path, decoder)
    except OSError as error:
        raise _unusable(folder, error) from error


def _name(number: int) -> str:
    return f"{number:010d}.jsonl"


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]" * 10 + ".jsonl"))


def _decode_lines(path: Path, decoder: msgspec.json.Decoder[T]) -> Iterator[T]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise StateError(
                    f"{path}:{number}: expected a dead letter; got {line[:40]!r}. Move the file away to go on."
                ) from error


def _read_places(path: Path) -> _Segment:
    segment = _Segment(path)
    with suppress(FileNotFoundError):  # the first segment of all is made after this
        for place in _decode_lines(path, msgspec.json.Decoder(_Place)):
            segment.remember(place.shard, place.position)
        segment.n_bytes = path.stat().st_size
    return segment


def _cut_torn_line(path: Path) -> None:
    """Cuts what a kill left of a line: it was never acknowledged, so the source hands it in again."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        while end:
            start = max(end - 65_536, 0)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        file.truncate(end)


def _write(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _unusable(folder: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"{folder}: the dead letters cannot be read or written: {error.strerror or error}")


def ahead(frames: Frames, records: Records, row: int) -> Poison:
    """The poison of a row that lies too far past its shard's clock."""
    position = int(records.positions[row])
    payload = frames.messages[int(np.searchsorted(frames.positions, position))]
    detail = f"event time {rfc3339(float(records.times_s[row]))} is far past what the shard has shown"
    return Poison(frames.shard, position, "ahead", detail, payload)

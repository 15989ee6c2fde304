"""Kafka topics as files: what was read of a partition lies beside the state, with the offset to go on from.

A partition's files hold an event a line and are named by the offset that each begins with. They depend on nothing but
the messages: two machines that have read the same offsets have the same bytes, so snapshots of the same name. Lines are
on disk before the offset behind them is kept: after a kill what is over is cut off and read again.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from modelops.config import KafkaSource, Rotation
from modelops.errors import DataError
from modelops.results import write
from modelops.times import rfc3339
from modelops.topic_reader import Part, Partition, Span, TopicReader

PLACE, LOCK = "place.json", "lock"


class File(msgspec.Struct, frozen=True):
    """A file by the offset that it begins with, and when the first message in it came, epoch seconds."""

    offset: int
    time_s: float


class Place(msgspec.Struct, frozen=True):
    """What of a partition is there: messages from `begin` to before `next`, in files; `size` is the last one's.

    `lost_to_s`: messages until then may have been deleted before they were read. `tombstones`, `torn`: messages that
    hold no event.
    """

    begin: int
    next: int
    files: tuple[File, ...] = ()
    size: int = 0
    lost_to_s: float | None = None
    tombstones: int = 0
    torn: int = 0


class Topics(NamedTuple):
    """What was read: files in the order of partitions and offsets, the offsets, and what was left out, in words."""

    files: tuple[Path, ...] = ()
    spans: tuple[tuple[str, int, int, int], ...] = ()
    said: str = ""


class _Event(msgspec.Struct):
    """What every event has; one without a time takes its message's."""

    id: msgspec.Raw
    time: msgspec.Raw = msgspec.Raw(b"")


class TopicLog:
    """The topics of a model, in a folder of its own. One process at a time reads them; another one waits."""

    def __init__(self, source: KafkaSource, folder: Path, rotation: Rotation) -> None:
        self._source, self._folder, self._rotation = source, folder, rotation

    @contextmanager
    def read(
        self, topics: Sequence[str], since_s: float, progress: Callable[[float], None] = lambda _share: None
    ) -> Iterator[Topics]:
        """Reads on to the topics' end of now; meanwhile the files stay as they are.

        Raises InputsUnavailable where the broker does not answer; DataError where messages since `since_s` were deleted
        before they were read (0: what is left will do), where a topic is not there, or where it is another one.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise DataError(f"{self._folder}: cannot be written: {error.strerror}. Free space there.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            places = self._read_on(topics, progress)
            for partition, place in places.items():
                self._has_all(partition, place, since_s)
            yield self._found(places)
        finally:
            os.close(descriptor)

    def _read_on(self, topics: Sequence[str], progress: Callable[[float], None]) -> dict[Partition, Place]:
        with closing(TopicReader(self._source.brokers, self._source.client_settings())) as reader:
            held = reader.spans(topics)
            places = {partition: self._start(partition, span) for partition, span in held.items()}
            spans = {partition: Span(place.next, held[partition].end) for partition, place in places.items()}
            n_all, n_read = sum(span.end - span.begin for span in spans.values()), 0
            for part in reader.read(spans):
                before = places[part.partition]
                places[part.partition] = self._append(part, before, was_begun=spans[part.partition].begin < before.next)
                n_read += part.next - before.next
                progress(n_read / n_all)
        return places

    def _start(self, partition: Partition, span: Span) -> Place:
        """The place to go on from: what is over in the last file is cut off, a gap is noted."""
        folder = self._folder_of(partition)
        place = _read_place(folder / PLACE)
        if place is None:
            return Place(span.begin, span.begin, lost_to_s=time.time() if span.begin else None)
        if place.next > span.end:
            raise DataError(
                f"{_named(partition)}: must go on from offset {place.next}; it ends with {span.end}, so it is another "
                f"topic of the same name. Delete {self._folder / partition.topic} to read it from its beginning."
            )
        try:
            noted = {_name(file.offset) for file in place.files}
            for path in folder.glob("*.jsonl"):
                if path.name not in noted:  # a kill came between its writing or deletion and the note of it
                    path.unlink()
            if place.files:
                _cut(folder / _name(place.files[-1].offset), place.size)
        except OSError as error:
            raise DataError(
                f"{folder}: must hold what was read: {error.strerror}. Delete {folder} to read all again."
            ) from error
        if place.next < span.begin:
            return msgspec.structs.replace(place, next=span.begin, lost_to_s=time.time())
        return place

    def _append(self, part: Part, place: Place, *, was_begun: bool) -> Place:
        """Writes the events of messages, then the place behind them."""
        folder = self._folder_of(part.partition)
        lines, tombstones, torn = [], 0, 0
        for message in part.messages:
            line = None if message.value is None else _line(message.value, message.time_s)
            tombstones += message.value is None
            torn += message.value is not None and line is None
            if line is not None:
                lines.append((message.offset, message.time_s, line))
        if part.messages and place.lost_to_s is not None and not was_begun:  # what is lost came before the first
            place = msgspec.structs.replace(place, lost_to_s=min(place.lost_to_s, part.messages[0].time_s))
        files, size = list(place.files), place.size
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while lines:
                if not files or size >= self._rotation.max_bytes:
                    files, size = [*files, File(lines[0][0], lines[0][1])], 0
                n = _fitting(lines, self._rotation.max_bytes - size)
                data = b"".join(line for _, _, line in lines[:n])
                size += _append(folder / _name(files[-1].offset), data, "ab" if size else "wb")
                lines = lines[n:]
            gone, files = files[: -self._rotation.keep - 1], files[-self._rotation.keep - 1 :]
            place = msgspec.structs.replace(
                place,
                begin=files[0].offset if gone else place.begin,
                next=part.next,
                files=tuple(files),
                size=size,
                lost_to_s=files[0].time_s if gone else place.lost_to_s,
                tombstones=place.tombstones + tombstones,
                torn=place.torn + torn,
            )
            write(folder / PLACE, msgspec.json.encode(place))
            for file in gone:
                (folder / _name(file.offset)).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written: {error.strerror}. Free space there.") from error
        return place

    def _has_all(self, partition: Partition, place: Place, since_s: float) -> None:
        if since_s > 0 and place.lost_to_s is not None and place.lost_to_s >= since_s:
            raise DataError(
                f"{_named(partition)}: must hold the rows since {rfc3339(since_s)}; messages until "
                f"{rfc3339(place.lost_to_s)} were deleted before they were read. Raise the topic's `retention.ms`, and "
                "`modelops train` on what is left."
            )

    def _found(self, places: Mapping[Partition, Place]) -> Topics:
        files = [self._folder_of(at) / _name(file.offset) for at, place in places.items() for file in place.files]
        spans = [(at.topic, at.number, place.begin, place.next) for at, place in places.items()]
        tombstones, torn = (sum(getattr(p, name) for p in places.values()) for name in ("tombstones", "torn"))
        said = [f"{n:,} {what}" for n, what in ((tombstones, "tombstones"), (torn, "messages without an event")) if n]
        return Topics(tuple(files), tuple(spans), f" {' and '.join(said)} were left out." if said else "")

    def _folder_of(self, partition: Partition) -> Path:
        return self._folder / partition.topic / str(partition.number)


def _line(value: bytes, time_s: float) -> bytes | None:
    """An event as a line; None where it is none: a JSON object with `id`, and no `time` of null."""
    try:
        event = _event.decode(value)
        value.decode()
        if b"null" in (bytes(event.id), bytes(event.time)):
            return None
        line = msgspec.json.format(value, indent=-1) if b"\n" in value else value
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not bytes(event.time):
        line = b'{"time":%r,' % time_s + line.lstrip()[1:]
    return line + b"\n"


def _fitting(lines: Sequence[tuple[int, float, bytes]], n_bytes: int) -> int:
    """How many lines go to a file that takes so many bytes more; the last one may go beyond."""
    total = 0
    for i, (_, _, line) in enumerate(lines):
        total += len(line)
        if total >= n_bytes:
            return i + 1
    return len(lines)


def _cut(path: Path, size: int) -> None:
    """Cuts off what was written and not noted."""
    if path.stat().st_size < size:
        raise OSError(0, f"{path.name} is shorter than it was")
    os.truncate(path, size)


def _append(path: Path, data: bytes, mode: Literal["ab", "wb"]) -> int:
    with path.open(mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return len(data)


def _read_place(path: Path) -> Place | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Place)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{path}: must hold a kept place; {error}. Delete {path.parent} to read all again.") from error


def _name(offset: int) -> str:
    return f"{offset:020}.jsonl"


def _named(partition: Partition) -> str:
    return f"topic {partition.topic}, partition {partition.number}"


_event = msgspec.json.Decoder(_Event)

"""Kafka's record batches (message format 2) taken apart as arrays, all records of a poll at once.

kafka-python makes three objects of each record, in Python; that would be most of what a record costs. So its fetcher is
given batches that each pass for one record, whose value is the batch. Its own code still checks checksums, unpacks, and
leaves out what was aborted or is a control record.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError

from driftwatch.records import Lines
from driftwatch.sources.kafka_client import BATCH, Batch, Partition, telling

OPEN, CLOSE, SPACE, NEWLINE = b"{} \n"


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """The records of a batch, unpacked; `times_ms`: of the first one, or of all where the broker wrote them."""

    data: bytearray
    n: int
    offset: int
    time_ms: int
    is_append_time: bool

    def __len__(self) -> int:
        return len(self.data)


class _OneRecord:
    """A batch in the place of a record."""

    key, headers, checksum = None, (), None

    def __init__(self, batch: Any) -> None:
        batch._maybe_uncompress()
        is_append_time = batch.timestamp_type == batch.LOG_APPEND_TIME
        self.timestamp = batch.max_timestamp if is_append_time else batch.first_timestamp
        data = batch._buffer[batch._pos :]
        self.value = RecordBatch(data, batch.records_count, batch.base_offset, self.timestamp, is_append_time)
        self.offset, self.timestamp_type, self.size_in_bytes = batch.last_offset, batch.timestamp_type, len(data)

    def validate_crc(self) -> bool:
        """The batch was checked."""
        return True


class _Whole:
    """A record batch of the client's that yields itself as its only record."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[_OneRecord]:
        if self._batch.records_count:
            yield _OneRecord(self._batch)

    def __next__(self) -> Any:
        return next(self._batch)  # a control record


class _Batches:
    """The batches of a fetch; those of older formats stay what they are."""

    def __init__(self, records: Any) -> None:
        self._records = records

    def next_batch(self) -> Any:
        """The next one; None after the last."""
        batch = self._records.next_batch()
        return _Whole(batch) if batch is not None and batch.magic == 2 else batch


def fetch_batches(consumer: Any) -> None:
    """Has a KafkaConsumer return batches: records whose values are each a RecordBatch."""
    consumer._fetcher.PartitionRecords = partial(_partition_records, consumer._fetcher)


def _partition_records(fetcher: Fetcher, offset: int, partition: Any, records: Any, **options: Any) -> Any:
    return type(fetcher).PartitionRecords(offset, partition, _Batches(records), **options)


def unpacked(partition: Partition, batches: Sequence[RecordBatch], begin: int) -> Iterator[Batch]:
    """Their records from offset `begin` on, some thousands at a time. Raises CorruptRecordError."""
    few: list[RecordBatch] = []
    n = 0
    for batch in batches:
        few.append(batch)
        n += batch.n
        if n >= BATCH:
            yield from _unpacked(partition, few, begin)
            few, n = [], 0
    if few:
        yield from _unpacked(partition, few, begin)


def _unpacked(partition: Partition, batches: Sequence[RecordBatch], begin: int) -> Iterator[Batch]:
    data = batches[0].data if len(batches) == 1 else bytearray().join(batch.data for batch in batches)
    view = np.frombuffer(data, np.uint8)
    try:
        first, end = _bounds(data, batches)
        times_ms, at = _numbers(view, first + 1)  # after the attributes, of which there are none yet
        offsets, at = _numbers(view, at)
        key_size, at = _numbers(view, at)
        size, starts = _numbers(view, at + np.maximum(key_size, 0))
        ends = starts + np.maximum(size, 0)
        n_headers, at = _numbers(view, ends)
        headers = None
        if n_headers.any():
            places = zip(at.tolist(), n_headers.tolist(), end.tolist(), strict=True)
            headers = telling([_headers(data, *place) for place in places])
    except IndexError as error:
        raise CorruptRecordError("a record ends before its fields do") from error
    if not n_headers.any() and not np.array_equal(at, end):
        raise CorruptRecordError("a record's fields are shorter or longer than it says")
    of_batch = np.repeat(np.arange(len(batches)), [batch.n for batch in batches])
    offsets += np.array([batch.offset for batch in batches], np.int64)[of_batch]
    times_ms[np.array([batch.is_append_time for batch in batches])[of_batch]] = 0
    times_ms += np.array([batch.time_ms for batch in batches], np.int64)[of_batch]
    # A fetch may begin inside a batch. What lies before as a whole is another log's, which the source has to see.
    skip = int(np.searchsorted(offsets, begin)) if offsets[-1] >= begin else 0
    is_of_lines = bool((size > 1).all() and (view[starts] == OPEN).all() and (view[ends - 1] == CLOSE).all())
    if is_of_lines:
        _blank(view, ends[:-1], starts[1:])
    whole = b"" if is_of_lines else bytes(data)
    for i in range(skip, len(starts), BATCH):
        rows = slice(i, i + BATCH)
        s, e = starts[rows], ends[rows]
        yield Batch(
            partition,
            Lines(memoryview(data)[s[0] : e[-1]], s - s[0], e - s[0])
            if is_of_lines
            else [whole[a:b] for a, b in zip(s.tolist(), e.tolist(), strict=True)],
            offsets[rows],
            times_ms[rows],
            None if headers is None else headers[rows],
        )


def _bounds(data: bytearray, batches: Sequence[RecordBatch]) -> tuple[np.ndarray, np.ndarray]:
    """Where each record's fields begin and end: each is as long as it says, so that only a loop can tell."""
    first: list[int] = []
    sizes: list[int] = []
    at = 0
    for batch in batches:
        end = at + len(batch.data)
        for _ in range(batch.n):
            size = data[at]
            at += 1
            if size > 127:
                shift, more = 7, 128
                size &= 127
                while more > 127:
                    more = data[at]
                    at += 1
                    size |= (more & 127) << shift
                    shift += 7
            size >>= 1
            first.append(at)
            sizes.append(size)
            at += size
        if at != end:
            raise CorruptRecordError("a batch's records are shorter or longer than it says")
    begun = np.array(first, np.int64)
    return begun, begun + np.array(sizes, np.int64)


def _numbers(view: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The variable-length numbers that lie at some places, int64, and where each one ends. Raises IndexError."""
    byte = view[at]
    value = (byte & 127).astype(np.int64)
    more = byte > 127
    at = at + 1
    shift = 7
    while more.any():
        byte = view[at[more]]
        value[more] |= (byte & 127).astype(np.int64) << shift
        at[more] += 1
        more[more] = byte > 127
        shift += 7
    return (value >> 1) ^ -(value & 1), at


def _blank(view: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> None:
    """Makes what lies between the values a line's end and white space, so that they are lines."""
    sizes = ends - begins
    before = np.cumsum(sizes) - sizes
    view[np.repeat(begins - before, sizes) + np.arange(int(sizes.sum()))] = SPACE
    view[begins] = NEWLINE


def _headers(data: bytearray, at: int, n: int, end: int) -> list[tuple[str, bytes | None]]:
    """The n headers of a record, which end it. Raises IndexError and CorruptRecordError."""
    found: list[tuple[str, bytes | None]] = []
    for _ in range(n):
        size, at = _number(data, at)
        name = data[at : at + size].decode("utf-8", "replace")
        size, at = _number(data, at + size)
        found.append((name, None if size < 0 else bytes(data[at : at + size])))
        at += max(size, 0)
    if at != end:
        raise CorruptRecordError("a record's headers are shorter or longer than it says")
    return found


def _number(data: bytearray, at: int) -> tuple[int, int]:
    """One variable-length number, and where it ends. Raises IndexError."""
    value = shift = 0
    more = 128
    while more > 127:
        more = data[at]
        value |= (more & 127) << shift
        at, shift = at + 1, shift + 7
    return (value >> 1) ^ -(value & 1), at

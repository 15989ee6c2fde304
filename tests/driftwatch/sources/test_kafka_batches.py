"""Record batches taken apart as arrays hold what kafka-python itself reads of them."""

import random
import struct
import warnings
from typing import Any

import numpy as np
import pytest

from driftwatch.records import Lines
from driftwatch.sources.kafka_client import BATCH, Batch, Partition, telling

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python's, as it reads its schemas
    from kafka.errors import CorruptRecordError
    from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

    from driftwatch.sources.kafka_batches import RecordBatch, _Batches, unpacked

P = Partition("t", 0)
T0_MS = 1_700_000_000_000
Message = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def fetched(*batches: list[Message], codec: int = 0, offset: int = 0) -> bytes:
    """Batches as a broker sends them, each a list of (time_ms, key, value, headers)."""
    data = b""
    for messages in batches:
        builder = MemoryRecordsBuilder(magic=2, compression_type=codec, batch_size=1 << 24)
        for message in messages:
            assert builder.append(*message) is not None
        builder.close()
        data += struct.pack(">q", offset) + bytes(builder.buffer())[8:]  # which is the broker's to say
        offset += len(messages)
    return data


def chunks(data: bytes) -> list[RecordBatch]:
    """What the client makes of them."""
    batches, found = _Batches(MemoryRecords(data)), []
    while (batch := batches.next_batch()) is not None:
        assert batch.validate_crc()
        (record,) = batch
        assert record.offset == batch.last_offset
        found.append(record.value)
    return found


def read(data: bytes, begin: int = 0) -> list[tuple[Any, ...]]:
    """Every record: offset, time, value, headers."""
    found = []
    for batch in unpacked(P, chunks(data), begin):
        headers = batch.headers or [{}] * len(batch.messages)
        assert len(batch.messages) <= BATCH
        found += zip(map(int, batch.offsets), map(int, batch.times_ms), batch.messages, headers, strict=True)
    return found


def read_by_library(data: bytes) -> list[tuple[Any, ...]]:
    """The same, record by record."""
    records = MemoryRecords(data)
    return [
        (r.offset, r.timestamp, r.value or b"", (telling([r.headers]) or [{}])[0])
        for batch in iter(records.next_batch, None)
        for r in batch
    ]


def message(dice: random.Random, *, is_object: bool) -> Message:
    size = dice.choice([0, 1, 50, 63, 64, 700, 8191, 8192, 20_000])
    value = b"{" + bytes(dice.randrange(256) for _ in range(min(size, 80))) * (size // 80 + 1) + b"}"
    if not is_object:
        value = dice.choice([None, b"", b"[1]", value])
    headers: list[tuple[str, bytes | None]] = []
    if dice.random() < 0.2:
        names = ["ce_id", "Content-Type", "trace", "ce_type"]
        headers = [(dice.choice(names), dice.choice([None, b"", b"x" * 200])) for _ in range(dice.randint(1, 4))]
    return T0_MS + dice.randint(-(10**12), 10**12), dice.choice([None, b"", b"k" * dice.randint(1, 99)]), value, headers


@pytest.mark.parametrize("codec", range(5))
@pytest.mark.parametrize("is_object", [True, False])
def test_every_record_is_what_the_library_reads(codec: int, is_object: bool) -> None:
    dice = random.Random(codec)
    sizes = [dice.choice([1, 2, 3, 40]) for _ in range(dice.randint(1, 9))]
    batches = [[message(dice, is_object=is_object) for _ in range(size)] for size in sizes]
    data = fetched(*batches, codec=codec, offset=10**10)
    assert read(data) == read_by_library(data)


def events(n: int) -> list[Message]:
    return [(T0_MS + i, f"{i}".encode(), b'{"id": %d}' % i, []) for i in range(n)]


def lines(batch: Batch) -> Lines:
    assert isinstance(batch.messages, Lines)
    return batch.messages


def test_objects_are_the_lines_of_a_block_and_no_more_than_some_thousands_of_it() -> None:
    found = list(unpacked(P, chunks(fetched(events(3), events(2 * BATCH + 1), events(2))), 0))
    assert [len(batch.messages) for batch in found] == [BATCH, BATCH, 4, 2]
    for batch in found:
        assert bytes(lines(batch).block).split() == [w for m in lines(batch) for w in m.split()]
    assert found[0].headers is None


def test_reading_may_begin_inside_of_a_batch_and_a_log_of_lower_offsets_shows() -> None:
    data = fetched(events(5), events(5), offset=100)
    assert [r[0] for r in read(data, 103)] == list(range(103, 110))
    assert [r[0] for r in read(data, 200)] == list(range(100, 110))


def test_what_is_broken_is_said() -> None:
    (whole,) = chunks(fetched(events(3)))
    dice = random.Random(0)
    for _ in range(500):
        data = bytearray(whole.data)
        for _ in range(dice.randint(1, 3)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        broken = RecordBatch(data[: dice.randint(1, len(data))], 3, 0, T0_MS, False)
        try:
            assert all(np.diff(batch.offsets).size < 3 for batch in unpacked(P, [broken], 0))
        except CorruptRecordError:
            continue


def test_an_append_time_is_that_of_all_records() -> None:
    (whole,) = chunks(fetched(events(3)))
    (batch,) = unpacked(P, [RecordBatch(whole.data, 3, 7, 99, True)], 0)
    assert (list(batch.times_ms), list(batch.offsets)) == ([99] * 3, [7, 8, 9])

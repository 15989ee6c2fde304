"""Logs that were rotated while nobody followed, or faster than they were read: nothing is left out or read twice."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftwatch.errors import SourceError
from driftwatch.protocols import Assigned, AtEnd, Event
from driftwatch.records import Frames, Shard
from driftwatch.sources.files import JsonLinesSource
from driftwatch.sources.rotation import ReadBefore, neighbours

NAMES = {
    "number behind": "log.jsonl.{:03}",
    "number before": "log.{:06}.jsonl",
    "date": "log.jsonl-20270115T0{}",
    "logrotate": "log.jsonl.{}",
}


class Reader:
    """Follows a log over several lives, each from the positions that the last one has kept."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.positions: dict[Shard, int] = {}
        self.waiting: set[Shard] = set()
        self.said: list[str] = []
        self.ended: list[Shard] = []

    def life(self, most: int = 10**9) -> list[bytes]:
        """What it reads until it has all there is, or a number of lines."""
        before = ReadBefore(dict(self.positions), set(self.waiting))
        idle = 0

        def sleep(_: float) -> None:
            nonlocal idle
            idle += 1
            if idle > 2:
                source.close()

        source = JsonLinesSource(self.log, follow=True, batch_size=3, before=before, sleep=sleep, warn=self.said.append)
        read: list[bytes] = []
        for event in self._begun(source):
            if isinstance(event, AtEnd) and event.final:
                self.ended.append(event.shard)
            if isinstance(event, Frames):
                read += event.messages
                self.positions[event.shard] = int(event.positions[-1])
                if len(read) >= most:
                    break
        return read

    def _begun(self, source: JsonLinesSource) -> Iterator[Event]:
        for event in source.events():
            if isinstance(event, Assigned):
                source.begin(event.shard, self.positions.get(event.shard, 0))
            yield event


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path / "log.jsonl")


WRITTEN = iter(range(1_700_000_000, 2_000_000_000))


def write(path: Path, first: int, n: int) -> list[bytes]:
    """Appends n lines; each call is later than the one before, however fast the test is."""
    lines = [b'{"id": %d}' % number for number in range(first, first + n)]
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))
    at = next(WRITTEN)
    os.utime(path, (at, at))
    return lines


@pytest.mark.parametrize("naming", NAMES)
@pytest.mark.parametrize("rotations", [1, 2, 5])
def test_what_was_renamed_while_nobody_followed_is_read_to_its_end_first(
    reader: Reader, naming: str, rotations: int
) -> None:
    lines = write(reader.log, 0, 10)
    assert reader.life(most=4) == lines[:6]
    lines += write(reader.log, 10, 10)
    for generation in range(rotations):
        name = NAMES[naming].format(rotations - generation if naming == "logrotate" else generation)
        reader.log.rename(reader.log.with_name(name))
        lines += write(reader.log, 100 * (generation + 1), 10)
    assert reader.life() == lines[6:]
    assert reader.said == []
    assert len(reader.ended) == rotations
    assert reader.life() == []


def test_older_files_than_the_first_one_that_was_read_are_not_read(reader: Reader) -> None:
    write(reader.log.with_name("log.jsonl.2"), 0, 5)
    write(reader.log.with_name("log.jsonl.1"), 10, 5)
    lines = write(reader.log, 20, 5)
    assert reader.life() == lines
    reader.log.rename(reader.log.with_name("log.jsonl.0"))
    lines = write(reader.log, 30, 5)
    assert reader.life() == lines


def test_files_of_other_names_are_no_part_of_the_log(reader: Reader) -> None:
    lines = write(reader.log, 0, 5)
    assert reader.life() == lines
    reader.log.rename(reader.log.with_name("log.jsonl.old"))  # found by its first line
    lines = write(reader.log.with_name("log.jsonl.old"), 5, 5)
    write(reader.log.with_name("log.shadow.jsonl"), 50, 5)
    write(reader.log.with_name("log.jsonl.lock"), 60, 5)
    write(reader.log.with_name("logistic.jsonl"), 70, 5)
    lines += write(reader.log, 10, 5)
    assert reader.life() == lines
    assert [path.name for path, is_named in neighbours(reader.log) if is_named] == []


def test_a_copy_of_a_log_that_was_truncated_is_read_to_its_end(reader: Reader) -> None:
    lines = write(reader.log, 0, 10)
    assert reader.life(most=3) == lines[:3]
    shutil.copy2(reader.log, reader.log.with_name("log.jsonl.1"))  # another inode, the same first line
    os.truncate(reader.log, 0)
    lines += write(reader.log, 10, 10)
    assert reader.life() == lines[3:]


def test_a_log_that_is_rotated_twice_before_the_reader_looks_loses_no_file(reader: Reader) -> None:
    lines = write(reader.log, 0, 10)
    assert reader.life(most=3) == lines[:3]
    seen: list[bytes] = []
    source = JsonLinesSource(reader.log, follow=True, batch_size=3, sleep=lambda _: None)
    for event in reader._begun(source):
        if isinstance(event, Frames):
            seen += event.messages
        if isinstance(event, AtEnd) and not event.final and len(lines) == 10:
            for generation in range(3):
                reader.log.rename(reader.log.with_name(f"log.{generation:06}.jsonl"))
                lines += write(reader.log, 100 * (generation + 1), 10)
        if len(seen) == 37:
            source.close()
    assert seen == lines[3:]


def test_a_file_that_is_gone_is_said_and_the_log_is_read_on(reader: Reader) -> None:
    lines = write(reader.log, 0, 10)
    assert reader.life() == lines
    (shard,) = reader.positions
    reader.waiting = {shard}
    reader.log.unlink()
    later = write(reader.log.with_name("log.jsonl.1"), 50, 5)  # rotated meanwhile, and the older one was deleted
    later += write(reader.log, 60, 5)
    assert reader.life() == later
    assert len(reader.said) == 1
    assert f"({shard} to byte {reader.positions[shard]})" in reader.said[0]
    assert reader.ended[0] == shard  # so that what was counted of it is judged
    assert reader.life() == []
    assert len(reader.said) == 1


def test_a_log_that_is_missing_at_the_start_is_waited_for_where_its_earlier_file_is_there(reader: Reader) -> None:
    lines = write(reader.log, 0, 10)
    assert reader.life(most=3) == lines[:3]
    reader.log.rename(reader.log.with_name("log.000001.jsonl"))
    assert reader.life() == lines[3:]
    reader.log.with_name("log.000001.jsonl").unlink()
    with pytest.raises(SourceError, match="must name a file that exists"):
        reader.life()


def test_times_of_the_last_write_put_files_in_order_and_a_name_does_where_they_are_equal(tmp_path: Path) -> None:
    now_s = time.time()
    for name, at in (("log.jsonl.2", 5), ("log.jsonl.1", 7), ("log.jsonl.4", 3), ("log.jsonl.3", 3)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now_s + at, now_s + at))
    (tmp_path / "log.jsonl.0.gz").touch()
    (tmp_path / "log.jsonl.d").mkdir()
    found = [path.name for path, _ in neighbours(tmp_path / "log.jsonl")]
    assert found == ["log.jsonl.3", "log.jsonl.4", "log.jsonl.2", "log.jsonl.1"]

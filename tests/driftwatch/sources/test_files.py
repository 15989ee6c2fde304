"""JSON lines from real files, real pipes and files that grow, are renamed and truncated under the reader."""

import gzip
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from driftwatch.errors import ConfigError, SourceError
from driftwatch.protocols import Assigned, AtEnd, Event, Tick
from driftwatch.records import Frames, Shard
from driftwatch.sources import files
from driftwatch.sources.files import JsonLinesSource


def read(source: JsonLinesSource, position: int = 0) -> Iterator[Event]:
    for event in source.events():
        if isinstance(event, Assigned):
            source.begin(event.shard, position)
        yield event


def messages(events: Iterator[Event]) -> list[bytes]:
    return [message for event in events if isinstance(event, Frames) for message in event.messages]


def shard_of(path: Path) -> Shard:
    return next(JsonLinesSource(path).events()).shard


def no_sleep(_: float) -> None:
    pass


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


lines = st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"n")), max_size=30)


@settings(max_examples=60, deadline=None)
@given(lines, st.booleans(), st.sampled_from([1, 2, 7, 1000]), st.sampled_from([1, 3, 16, 1 << 20]))
@example([b"", b" \t", b"a\r", b"\r", b" b "], True, 2, 3)
def test_any_bytes_are_cut_into_lines_that_lie_where_the_positions_say(
    tmp_path_factory, lines, ends, batch_size, block_bytes
):
    data = b"\n".join(lines) + (b"\n" if ends else b"")
    path = written(tmp_path_factory.mktemp("any") / "any.jsonl", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK_BYTES", block_bytes)
        events = list(read(JsonLinesSource(path, batch_size=batch_size)))
    frames = [e for e in events if isinstance(e, Frames)]
    assert messages(iter(events)) == [line.strip() for line in data.split(b"\n") if line.strip()]
    assert events[-1] == AtEnd(events[0].shard, final=True)
    for batch in frames:
        assert len(batch.messages) <= batch_size
        assert batch.positions.dtype == np.int64
        for message, (start, end) in zip(batch.messages, pairwise(batch.positions.tolist()), strict=True):
            assert data[start:end].strip() == message
    for before, after in pairwise(frames):
        assert before.positions[-1] <= after.positions[0]
        assert data[before.positions[-1] : after.positions[0]].strip() == b""
    if frames and ends:
        assert data[frames[-1].positions[-1] :].strip() == b""


@settings(max_examples=40)
@given(st.lists(st.sampled_from([b'{"id":1}', b"", b"  ", b"x\r", b"long" * 9]), max_size=12), st.data())
def test_reading_on_from_any_position_gives_exactly_the_rest(tmp_path_factory, lines, data):
    content = b"\n".join(lines)
    name = data.draw(st.sampled_from(["a.jsonl", "a.jsonl.gz"]))
    path = written(tmp_path_factory.mktemp("resume") / name, gzip.compress(content) if name.endswith("gz") else content)
    frames = [e for e in read(JsonLinesSource(path, batch_size=1)) if isinstance(e, Frames)]
    for i, batch in enumerate(frames):
        rest = messages(read(JsonLinesSource(path, batch_size=3), int(batch.positions[1])))
        assert rest == [b.messages[0] for b in frames[i + 1 :]]


def test_a_line_of_ten_megabytes_is_a_message_and_does_not_wait_for_its_batch(log):
    big = b"x" * 10_000_000
    events = list(read(JsonLinesSource(written(log, b"\n".join([b"a", big, b"b", big, b"c"])))))
    assert messages(iter(events)) == [b"a", big, b"b", big, b"c"]
    assert max(sum(map(len, e.messages)) for e in events if isinstance(e, Frames)) < 2 * len(big)


def test_a_file_keeps_its_shard_as_it_grows_and_another_first_line_is_another_shard(log):
    shard = shard_of(written(log, b'{"id": 1}\n'))
    assert shard.startswith("log.jsonl#")
    assert len(shard) == len("log.jsonl#") + 12
    assert shard_of(written(log, b'{"id": 1}\n' + b'{"id": 2}\n' * 1000)) == shard
    assert shard_of(written(log, b'{"id": 2}\n')) != shard


def test_a_missing_file_is_named(log):
    with pytest.raises(SourceError, match=r"`path` must name a file that exists; got '.*log\.jsonl'"):
        next(JsonLinesSource(log).events())


def test_a_folder_and_a_broken_gzip_file_are_source_errors(tmp_path):
    with pytest.raises(SourceError, match="can be read"):
        next(JsonLinesSource(tmp_path).events())
    whole = gzip.compress(b'{"id": 1}\n' * 100)
    for content in (whole[:-12], b"no gzip", whole[:20] + b"\xff" * 20):
        with pytest.raises(SourceError, match=r"can be read; got '.*a\.jsonl\.gz'"):
            list(read(JsonLinesSource(written(tmp_path / "a.jsonl.gz", content))))


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_a_file_shorter_than_what_was_read_of_it_is_an_error(tmp_path, name):
    data = b'{"id": 1}\n'
    path = written(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data)
    assert messages(read(JsonLinesSource(path), 10)) == []
    with pytest.raises(SourceError, match=r"must hold at least the 11 bytes that were read of it before; got 10\."):
        list(read(JsonLinesSource(path), 11))


def test_a_shard_that_nobody_begins_is_not_read(log):
    assert len(list(JsonLinesSource(written(log, b"1\n")).events())) == 1


@pytest.mark.parametrize("path", ["-", Path("a.jsonl.gz")])
def test_only_a_plain_file_can_be_followed(path):
    with pytest.raises(ConfigError, match=r"`follow` must be false"):
        JsonLinesSource(path, follow=True)


def test_a_paused_shard_is_not_read_until_it_goes_on(log):
    written(log, b"1\n2\n3\n")
    slept: list[float] = []
    source = JsonLinesSource(log, batch_size=1, sleep=slept.append)
    events = read(source)
    shard = next(events).shard
    assert next(events).messages == [b"1"]
    source.pause({shard})
    assert [next(events) for _ in range(3)] == [Tick()] * 3
    assert len(slept) == 3
    source.pause(frozenset())
    assert messages(events) == [b"2", b"3"]


def test_a_closed_source_ends_without_a_word_about_the_end(log):
    source = JsonLinesSource(written(log, b"1\n2\n"), batch_size=1)
    events = read(source)
    next(events), next(events)
    source.close()
    assert list(events) == []
    paused = JsonLinesSource(log, batch_size=1, sleep=no_sleep)
    events = read(paused)
    paused.pause({next(events).shard})
    assert next(events) == Tick()
    paused.close()
    assert list(events) == []


class Script:
    """Follows a file; each wait runs the next step of the story, after the last step the source is closed."""

    def __init__(self, path: Path, *steps: Callable[[], object], position: int = 0) -> None:
        self._steps = list(steps)
        self.source = JsonLinesSource(path, follow=True, sleep=self._step)
        self.events = list(read(self.source, position))

    def _step(self, _: float) -> None:
        if not self._steps:
            self.source.close()
        else:
            self._steps.pop(0)()

    @property
    def told(self) -> list[object]:
        """The events in short, ticks left out."""
        words: list[object] = []
        for event in self.events:
            match event:
                case Frames():
                    words.append(list(event.messages))
                case AtEnd():
                    words.append("final" if event.final else "caught up")
                case Assigned():
                    words.append("assigned")
        return words


def append(path: Path, data: bytes) -> Callable[[], object]:
    def step() -> None:
        with path.open("ab") as file:
            file.write(data)

    return step


def nothing() -> None:
    pass


def test_following_reads_on_as_the_file_grows_and_waits_for_newlines(log):
    written(log, b"1\n2")
    script = Script(log, nothing, append(log, b"2\n3\n"), nothing, append(log, b"4"), nothing, append(log, b"\n"))
    assert script.told == [
        "assigned",
        [b"1"],
        "caught up",
        [b"22", b"3"],
        "caught up",
        "caught up",
        [b"4"],
        "caught up",
    ]
    assert Tick() in script.events
    frames = [e for e in script.events if isinstance(e, Frames)]
    assert [e.positions.tolist() for e in frames] == [[0, 2], [2, 5, 7], [7, 9]]


def test_following_waits_for_the_first_line_before_it_names_the_shard(log):
    written(log, b"")
    script = Script(log, append(log, b'{"id"'), nothing, append(log, b": 1}\n"))
    assert script.told == ["assigned", [b'{"id": 1}'], "caught up"]
    assert next(e for e in script.events if isinstance(e, Assigned)).shard == shard_of(log)


def test_following_again_from_a_position_finds_the_same_shard_and_only_what_is_new(log):
    first = Script(written(log, b"1\n2\n"))
    append(log, b"3\n")()
    second = Script(log, position=4)
    shards = {e.shard for e in first.events + second.events if isinstance(e, Assigned)}
    assert second.told == ["assigned", [b"3"], "caught up"]
    assert len(shards) == 1


def test_a_renamed_file_is_read_to_its_end_before_its_successor(log):
    old = log.with_suffix(".1")
    script = Script(
        written(log, b"1\n"),
        lambda: log.rename(old),
        append(old, b"2\n"),  # a writer that has not noticed yet
        log.touch,
        append(old, b"3\n4"),  # nor when the new file is there but empty
        append(log, b"5\n"),
        append(log, b"6\n"),
    )
    assert script.told[:3] == ["assigned", [b"1"], "caught up"]
    assert [w for w in script.told if w != "caught up"] == [
        "assigned", [b"1"], [b"2"], [b"3"], [b"4"], "final", "assigned", [b"5"], [b"6"],
    ]  # fmt: skip
    shards = [e.shard for e in script.events if isinstance(e, Assigned)]
    assert len(set(shards)) == 2
    assert {e.shard for e in script.events if isinstance(e, AtEnd) and e.final} == {shards[0]}


def test_what_was_written_to_a_renamed_file_just_before_its_successor_is_read_first(log):
    old = log.with_suffix(".1")

    def rotate() -> None:
        log.rename(old)
        append(old, b"2\n3")()
        append(log, b"4\n")()

    told = Script(written(log, b"1\n"), rotate).told
    assert told == ["assigned", [b"1"], "caught up", [b"2", b"3"], "final", "assigned", [b"4"], "caught up"]


@pytest.mark.parametrize("anew", [b"7\n", b"7\n8\n9\n10\n"], ids=["shorter", "longer"])
def test_a_truncated_file_ends_its_shard_and_begins_another(log, anew):
    def truncate() -> None:
        with log.open("r+b") as file:  # the same inode, as logrotate's copytruncate leaves it
            file.truncate(0)
            file.write(anew)

    script = Script(written(log, b"1\n2\n3\n"), truncate)
    assert script.told == [
        "assigned", [b"1", b"2", b"3"], "caught up", "final", "assigned", anew.split(), "caught up",
    ]  # fmt: skip


WRITER = """
import os, sys
path, number = sys.argv[1], 0
for generation in range(3):
    with open(path, "ab", buffering=0) as file:
        for _ in range(2000):
            line = b'{"id": %d}\\n' % number
            file.write(line[:4])
            file.write(line[4:])
            number += 1
        sys.stdin.readline()
    os.rename(path, f"{path}.{generation}")
"""


def test_each_line_of_a_process_that_writes_and_rotates_is_read_once(log):
    log.touch()
    source = JsonLinesSource(log, follow=True, sleep=lambda _: time.sleep(0.002))
    seen: list[bytes] = []
    finals = 0
    with subprocess.Popen([sys.executable, "-c", WRITER, str(log)], stdin=subprocess.PIPE) as child:
        for event in read(source):
            if isinstance(event, AtEnd):
                finals += event.final
            if isinstance(event, Frames):
                seen += event.messages
                if len(seen) % 2000 == 0:  # the writer waits to be told to rotate
                    child.stdin.write(b"\n")
                    child.stdin.flush()
            if len(seen) == 6000:
                source.close()
    assert seen == [b'{"id": %d}' % number for number in range(6000)]
    assert finals == 2


READER = """
from driftwatch.protocols import Assigned
from driftwatch.records import Frames
from driftwatch.sources.files import JsonLinesSource
import sys
source = JsonLinesSource("-")
for event in source.events():
    if isinstance(event, Assigned):
        source.begin(event.shard, int(sys.argv[1]))
    if isinstance(event, Frames):
        sys.stdout.buffer.write(b"|".join(event.messages) + repr(event.positions.tolist()).encode() + b"\\n")
        sys.stdout.flush()
    else:
        print(type(event).__name__, getattr(event, "final", ""), flush=True)
"""


def test_standard_input_gives_lines_as_they_come_and_ends_with_the_pipe():
    with subprocess.Popen([sys.executable, "-c", READER, "3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdin.write(b"ab\nc\nd")
        child.stdin.flush()
        said = [child.stdout.readline() for _ in range(2)]
        while said[-1] != b"c[3, 5]\n":  # while the pipe stays open
            said.append(child.stdout.readline())
        child.stdin.write(b"e\nf")
        child.stdin.close()
        rest = child.stdout.read()
    assert said[0] == b"Assigned \n"
    assert rest.endswith(b"AtEnd True\n")
    assert b"de[5, 8]" in rest or b"de|f[5, 8, 9]" in rest
    assert child.returncode == 0


def test_standard_input_may_be_a_file(log):
    with written(log, b"1\n2\n").open("rb") as stdin:
        said = subprocess.run([sys.executable, "-c", READER, "2"], stdin=stdin, capture_output=True, check=True).stdout
    assert said.split() == [b"Assigned", b"2[2,", b"4]", b"AtEnd", b"True"]


@pytest.mark.skipif(not Path("/proc/self/fdinfo").exists(), reason="asks Linux how far the file was read")
def test_what_is_read_ahead_is_bounded(log):
    written(log, b"x\n" * 3_000_000)
    source = JsonLinesSource(log, batch_size=10)
    events = read(source)
    assert next(events).shard
    first = next(events)
    descriptors = {os.readlink(f"/proc/self/fd/{fd}"): fd for fd in os.listdir("/proc/self/fd") if fd_exists(fd)}
    with open(f"/proc/self/fdinfo/{descriptors[str(log)]}") as info:
        read_bytes = int(info.readline().split()[1])
    assert read_bytes - first.positions[-1] <= files.BLOCK_BYTES
    source.close()
    assert list(events) == []


def fd_exists(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")

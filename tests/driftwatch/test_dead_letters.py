"""Dead letters: one entry a place, whole lines only, a bound on the disk, a reader beside the writer."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftwatch.dead_letters import MAX_BYTES, DeadLetters, entries
from driftwatch.errors import StateError
from driftwatch.records import Poison, Shard

AT = "2026-01-01T00:00:00Z"


def poison(position: int, shard: str = "events/0", payload: bytes = b"{", detail: str = "unexpected end") -> Poison:
    return Poison(Shard(shard), position, "structure", detail, payload)


def write(folder: Path, *poison: Poison, max_bytes: int = MAX_BYTES) -> int:
    """Adds in a process of its own, as it were; the number of entries that were dropped."""
    with closing(DeadLetters(folder, max_bytes)) as letters:
        letters.add(poison, AT)
        return letters.dropped


def places(folder: Path) -> list[tuple[str, int]]:
    return [(letter.shard, letter.position) for letter in entries(folder)]


def bytes_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_a_dead_letter_keeps_place_reason_detail_time_and_the_exact_bytes(tmp_path: Path) -> None:
    payload = bytes(range(256))
    write(tmp_path / "dead", poison(7, payload=payload))
    (letter,) = entries(tmp_path / "dead")
    assert msgspec.structs.asdict(letter) == {
        "shard": "events/0",
        "position": 7,
        "reason": "structure",
        "detail": "unexpected end",
        "time": AT,
        "payload": payload,
    }


def test_a_line_is_json_with_the_payload_in_base64(tmp_path: Path) -> None:
    write(tmp_path, poison(7, payload=b"\xff\x00"))
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == (
        b'{"shard":"events/0","position":7,"reason":"structure","detail":"unexpected end",'
        b'"time":"2026-01-01T00:00:00Z","payload":"/wA="}\n'
    )


def test_a_detail_that_quotes_half_a_surrogate_pair_is_kept(tmp_path: Path) -> None:
    write(tmp_path, poison(1, detail="got '\ud800'"))
    assert [letter.detail for letter in entries(tmp_path)] == ["got '\\ud800'"]


def test_a_folder_without_dead_letters_has_no_entries(tmp_path: Path) -> None:
    assert list(entries(tmp_path / "absent")) == []
    DeadLetters(tmp_path / "dead").close()
    assert list(entries(tmp_path / "dead")) == []


batches = st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), max_size=8), max_size=8)


@settings(max_examples=60)
@given(batches, st.sets(st.integers(0, 7)))
def test_each_place_has_one_entry_in_the_order_of_its_first_coming_whatever_restarts(
    added: list[list[tuple[str, int]]], restart_after: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        letters = DeadLetters(folder, max_bytes=16 * 600)  # segments of three or four lines
        for i, batch in enumerate(added):
            letters.add([poison(position, shard) for shard, position in batch], AT)
            if i in restart_after:
                letters.close()
                letters = DeadLetters(folder, max_bytes=16 * 600)
        letters.close()
        assert places(folder) == list(dict.fromkeys(place for batch in added for place in batch))


def test_poison_of_an_earlier_position_that_comes_late_is_kept(tmp_path: Path) -> None:
    with closing(DeadLetters(tmp_path)) as letters:
        letters.add([poison(5), poison(9)], AT)
        letters.add([poison(7)], AT)
    assert places(tmp_path) == [("events/0", 5), ("events/0", 9), ("events/0", 7)]


@pytest.mark.parametrize("n_a_start", [7, 500])
def test_the_oldest_segment_goes_first_and_its_entries_are_counted(n_a_start: int, tmp_path: Path) -> None:
    max_bytes = 16_000
    dropped = 0
    for start in range(0, 500, n_a_start):
        added = map(poison, range(start, min(start + n_a_start, 500)))
        dropped += write(tmp_path, *added, max_bytes=max_bytes)
        assert bytes_on_disk(tmp_path) <= max_bytes
        assert all(path.stat().st_size <= max_bytes / 16 for path in tmp_path.iterdir())
    assert dropped > 0
    assert [position for _, position in places(tmp_path)] == list(range(dropped, 500))
    assert bytes_on_disk(tmp_path) > max_bytes * 14 / 16


def test_a_place_whose_entry_went_with_its_segment_may_be_written_again(tmp_path: Path) -> None:
    with closing(DeadLetters(tmp_path, 16_000)) as letters:
        letters.add([poison(position) for position in range(500)], AT)
        assert ("events/0", 0) not in places(tmp_path)
        letters.add([poison(0), poison(499)], AT)
    assert [position for _, position in places(tmp_path)].count(0) == 1
    assert [position for _, position in places(tmp_path)].count(499) == 1


def test_a_payload_over_the_whole_bound_is_counted_as_dropped_and_removes_nothing(tmp_path: Path) -> None:
    dropped = write(tmp_path, poison(1), poison(2, payload=bytes(20_000)), poison(3), max_bytes=16_000)
    assert places(tmp_path) == [("events/0", 1), ("events/0", 3)]
    assert dropped == 1


def test_a_payload_over_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, poison(1), poison(2, payload=bytes(3_000)), poison(3), max_bytes=16_000)
    assert [position for _, position in places(tmp_path)] == [1, 2, 3]
    assert len(list(tmp_path.iterdir())) == 3


@settings(max_examples=40)
@given(st.data())
def test_a_torn_last_line_is_cut_at_the_start_and_its_place_written_again(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, poison(1), poison(2, payload=bytes(data.draw(st.sampled_from([1, 70_000])))))
        (path,) = folder.iterdir()
        whole = path.read_bytes()
        first = whole.index(b"\n") + 1
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        n_whole = path.read_bytes().count(b"\n")
        assert len(list(entries(folder))) == n_whole  # a reader leaves a torn line out
        with closing(DeadLetters(folder)) as letters:
            assert path.stat().st_size == (first if n_whole else 0)
            letters.add([poison(1), poison(2)], AT)
        assert [position for _, position in places(folder)] == [1, 2]


WRITER = """
import sys
from pathlib import Path
from driftwatch.dead_letters import DeadLetters
from driftwatch.records import Poison
letters = DeadLetters(Path(sys.argv[1]), 16 * 20_000)
n = 0
while True:
    letters.add([Poison("s", n + i, "structure", "", bytes(200)) for i in range(5)], "now")
    n += 5
    print(n, flush=True)
"""


def test_what_was_added_survives_sigkill_and_is_not_written_twice(tmp_path: Path) -> None:
    for n_lines in (3, 40, 150):
        folder = tmp_path / str(n_lines)
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE)
        with child:
            assert child.stdout is not None
            acknowledged = [int(child.stdout.readline()) for _ in range(n_lines)][-1]
            os.kill(child.pid, signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, child.stdout.read().split())])
        survived = [letter.position for letter in entries(folder)]
        assert survived == list(range(survived[0], survived[-1] + 1))
        assert survived[-1] >= acknowledged - 1
        write(folder, *(poison(i, "s") for i in survived), max_bytes=16 * 20_000)  # the source reads again
        assert [letter.position for letter in entries(folder)] == survived


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from driftwatch.dead_letters import DeadLetters, entries
from driftwatch.errors import StateError
from driftwatch.records import Poison
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
letters = DeadLetters(folder)
letters.add([Poison("s", 0, "structure", "", b"x")], "now")
size = sum(p.stat().st_size for p in folder.iterdir())
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 150, hard))
try:
    letters.add([Poison("s", i, "structure", "", b"x") for i in range(1, 9)], "now")
except StateError as error:
    assert str(folder) in str(error), error
else:
    sys.exit("no StateError")
assert sum(p.stat().st_size for p in folder.iterdir()) == size, "something is half written"
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
letters.add([Poison("s", i, "structure", "", b"x") for i in range(9)], "now")
assert [e.position for e in entries(folder)] == list(range(9))
"""


def test_a_write_that_fails_half_way_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_folder_that_cannot_be_made_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"dead letters cannot be read or written"):
        DeadLetters(tmp_path / "file" / "dead")


def test_a_line_that_is_no_dead_letter_is_named_with_its_file_and_number(tmp_path: Path) -> None:
    write(tmp_path, poison(1))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + b"\x00\x00\n")
    with pytest.raises(StateError, match=r"0000000001\.jsonl:2: expected a dead letter"):
        list(entries(tmp_path))
    with pytest.raises(StateError, match=r"0000000001\.jsonl:2: expected a dead letter"):
        DeadLetters(tmp_path)


def test_a_reader_goes_on_when_the_writer_drops_segments_under_it(tmp_path: Path) -> None:
    write(tmp_path, *map(poison, range(100)), max_bytes=16_000)
    reading = entries(tmp_path)
    seen = [next(reading).position]
    write(tmp_path, *map(poison, range(100, 500)), max_bytes=16_000)
    seen += [letter.position for letter in reading]
    assert seen[0] == 0
    assert seen == sorted(set(seen))

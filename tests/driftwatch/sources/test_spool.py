"""The spool gives back what it acknowledged, in order, whatever happens to the process, the tail and the disk."""

import os
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftwatch.errors import StoreUnavailable
from driftwatch.sources.spool import MOST_PARTS, Body, Entry, Spool, SpoolFull

SMALL = 300  # bytes of a segment: most sequences fill several

appends = st.tuples(st.just("append"), st.binary(max_size=200), st.integers(0, 3))
reopens = st.tuples(st.just("reopen"), st.binary(max_size=60), st.just(0))  # behind these torn bytes
cuts = st.tuples(st.just("cut"), st.just(b""), st.integers(1, 250))  # so many bytes of the last segment are lost
reads = st.tuples(st.just("read"), st.just(b""), st.integers(0, 4))  # so many records, which are then judged
operations = st.lists(st.one_of(appends, appends, reopens, cuts, reads), max_size=40)


def opened(folder: Path, position: int = 0, **changed: Any) -> Spool:
    return Spool(folder, **{"position": position, "max_bytes": 2**30, "segment_bytes": SMALL} | changed)


def everything(spool: Spool, position: int = 0) -> list[Entry]:
    found: list[Entry] = []
    while some := spool.read(found[-1].end if found else position, most=3, most_bytes=500):
        found += some
    return found


def last_segment(folder: Path) -> Path:
    return max(folder.glob("*.spool"))


@settings(max_examples=100)
@given(operations)
def test_any_sequence_of_appends_ends_and_losses_gives_back_what_was_acknowledged(sequence: list[Any]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        spool, kept, position = opened(folder), list[Entry](), 0
        for what, data, number in sequence:
            if what == "append":
                start = max(spool.end, position)
                headers = {"ce-id": str(number)} if number else {}
                kept.append(
                    Entry(start, spool.append(Body(headers, [data], float(number))), float(number), headers, data)
                )
            elif what == "read":
                for entry in spool.read(position, most=number, most_bytes=400):
                    assert entry == next(e for e in kept if e.position >= position)
                    position = entry.end
                spool.forget(position)
            else:
                spool.close()
                path = last_segment(folder)
                if what == "cut":
                    size = max(path.stat().st_size - number, 0)
                    os.truncate(path, size)
                    kept = [e for e in kept if e.end <= int(path.stem) + size or e.position < int(path.stem)]
                else:
                    with path.open("ab") as file:
                        file.write(data)
                spool = opened(folder, position)
        assert everything(spool, position) == [e for e in kept if e.position >= position]
        spool.close()


def test_positions_only_grow_even_where_the_folder_was_lost(tmp_path: Path) -> None:
    spool = opened(tmp_path, position=1000)
    assert spool.append(Body({}, [b"a"], 1.0)) > 1000
    assert [e.body for e in everything(spool, 1000)] == [b"a"]
    spool.close()


def test_what_is_judged_is_deleted_and_makes_room(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_bytes=1000, segment_bytes=100)
    for _ in range(9):
        spool.append(Body({}, [b"x" * 80], 0.0))
    with pytest.raises(SpoolFull, match=r"`spool\.max_bytes` must leave room"):
        spool.append(Body({}, [b"x" * 80], 0.0))
    with pytest.raises(SpoolFull):
        spool.probe()
    n_before = len(list(tmp_path.glob("*.spool")))
    spool.forget(spool.end)
    assert len(list(tmp_path.glob("*.spool"))) == 1 < n_before
    spool.append(Body({}, [b"x" * 80], 0.0))
    spool.close()


def test_a_disk_that_is_full_changes_nothing_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path)
    spool.append(Body({}, [b"kept"], 0.0))
    write = os.writev

    def half(file: int, parts: list[bytes]) -> int:
        os.write(file, b"".join(parts)[:7])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "writev", half)
    with pytest.raises(StoreUnavailable, match="No space left"):
        spool.append(Body({}, [b"not kept"], 0.0))
    monkeypatch.setattr(os, "writev", write)
    spool.append(Body({}, [b"kept too"], 0.0))
    assert [e.body for e in everything(spool)] == [b"kept", b"kept too"]
    spool.close()
    again = opened(tmp_path)
    assert [e.body for e in everything(again)] == [b"kept", b"kept too"]
    again.close()


def test_many_bodies_of_many_pieces_go_in_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = opened(tmp_path, max_bytes=400_000, segment_bytes=2**20)
    write = os.writev
    monkeypatch.setattr(os, "writev", lambda file, parts: write(file, parts[: len(parts) // 2]))  # short writes
    many = [Body({}, [b"%d" % i, bytearray(b"abc"), memoryview(b"def")], float(i)) for i in range(2 * MOST_PARTS)]
    spool.append(*many)
    assert [e.body for e in everything(spool)] == [b"%dabcdef" % i for i in range(len(many))]
    with pytest.raises(SpoolFull):
        spool.append(Body({}, [b"fits"], 0.0), Body({}, [bytes(400_000)], 0.0))
    assert len(everything(spool)) == len(many)
    spool.close()


def test_a_body_larger_than_a_read_and_a_segment_comes_whole(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    bodies = [b"a", b"b" * 5000, b"c"]
    for body in bodies:
        spool.append(Body({"content-type": "application/json"}, [body], 1.0))
        spool.sync()
    assert [e.body for e in everything(spool)] == bodies
    spool.close()


def test_a_damaged_record_is_cut_with_what_follows_it_at_a_start(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment_bytes=2**20)
    ends = [spool.append(Body({}, [bytes([i]) * 50], 0.0)) for i in range(4)]
    spool.close()
    with last_segment(tmp_path).open("r+b") as file:
        file.seek(ends[1] + 30)
        file.write(b"?")
    again = opened(tmp_path, segment_bytes=2**20)
    assert len(everything(again)) == 2
    again.close()


def test_one_thread_may_append_while_another_reads_and_forgets(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    n = 3000

    def write() -> None:
        for i in range(n):
            spool.append(Body({}, [b"%d" % i], 0.0))
            if i % 50 == 0:
                spool.sync()

    thread = threading.Thread(target=write)
    thread.start()
    found: list[bytes] = []
    position = 0
    while len(found) < n:
        for entry in spool.read(position, most=100, most_bytes=10_000):
            found.append(entry.body)
            position = entry.end
        spool.forget(position)
    thread.join()
    assert found == [b"%d" % i for i in range(n)]
    assert len(list(tmp_path.glob("*.spool"))) == 1
    spool.close()

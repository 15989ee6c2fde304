"""A block of lines is decoded as its lines are one by one, whatever stands in them."""

import json
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from driftwatch.decode.json import JsonDecoder
from driftwatch.protocols import Assigned
from driftwatch.records import Column, Decoded, Frames, Lines, Schema, Shard
from driftwatch.sources.files import JsonLinesSource

SCHEMA = Schema("m", "1", (Column("a", "numeric", ("features", "a")), Column("c", "categorical", ("features", "c"))))


def event(number: int, a: object = 1.5, c: object = "x") -> bytes:
    return json.dumps({"id": f"r{number}", "time": 1e9 + number, "features": {"a": a, "c": c}}).encode()


odd = st.sampled_from(
    [
        b"{}",
        b'{"id":',
        b"}",
        b"{",
        b"{}{}",
        b'{"id": 1}\r',
        b"",
        b"   ",
        b"[1]",
        b'{"id":"a","time":1}{}',
        b"\xff{}",
        b"{\0}",
    ]
)
lines = st.lists(
    st.builds(event, st.integers(0, 99), st.sampled_from([1.0, None, "1", 2]), st.sampled_from("xy")) | odd
)


def frames_of(path: Path, batch_size: int) -> list[Frames]:
    source = JsonLinesSource(path, batch_size=batch_size)
    found = []
    for told in source.events():
        if isinstance(told, Assigned):
            source.begin(told.shard, 0)
        if isinstance(told, Frames):
            found.append(told)
    return found


def rows(decoded: Decoded) -> object:
    r = decoded.records
    cells = [
        r.numeric.tolist().__repr__(),
        r.marked.tolist(),
        r.marks.tolist(),
        r.categories,
        r.ids,
        r.times_s.tolist(),
    ]
    return [cells, r.positions.tolist(), decoded.poison, decoded.end, decoded.discarded]


@settings(max_examples=150)
@given(lines, st.sampled_from([1, 2, 1000]), st.booleans())
@example([event(1), b"{}{}", b'{"id":', event(2)], 1000, True)
def test_lines_of_a_block_are_decoded_as_messages_of_their_own(
    tmp_path_factory, lines: list[bytes], batch_size: int, ends: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "events.jsonl"
    path.write_bytes(b"\n".join(lines) + (b"\n" if ends else b""))
    decoder = JsonDecoder(SCHEMA)
    for frames in frames_of(path, batch_size):
        alone = Frames(frames.shard, list(frames.messages), frames.positions)
        assert rows(decoder.decode(frames)) == rows(decoder.decode(alone))


def test_lines_from_brace_to_brace_are_not_cut_out_and_can_be_asked_for(tmp_path: Path) -> None:
    events = [event(i) for i in range(5)]
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\r\n".join(events))
    (frames,) = frames_of(path, 1000)
    assert isinstance(frames.messages, Lines)
    assert list(map(bytes.strip, frames.messages)) == events
    assert [m.strip() for m in frames.messages[1:3]] == events[1:3]
    decoded = JsonDecoder(SCHEMA).decode(frames)
    assert decoded.records.ids == [f"r{i}" for i in range(5)]
    assert decoded.records.positions.tolist() == frames.positions[:-1].tolist()


def test_as_many_values_as_lines_are_no_proof_where_a_line_is_no_object() -> None:
    block = event(1) + event(2) + b'\n{"id": "r3", "time": 1e9,\n"features": {}}'
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
    messages = block.split(b"\n")
    assert len(messages) == 3
    assert len(ends) == 2
    decoded = JsonDecoder(SCHEMA).decode(Frames(Shard("s"), messages, np.arange(4)))
    assert (len(decoded.records), len(decoded.poison)) == (0, 3)

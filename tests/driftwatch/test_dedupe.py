import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftwatch.dedupe import Chunk, Seen, take
from driftwatch.records import Mark, Records, Shard

ids_of_a_shard = st.lists(st.integers(0, 30).map(str), max_size=80)


def fresh_rows(ids: list[str], size: int) -> list[int]:
    """The definition, row by row."""
    return [i for i, key in enumerate(ids) if key not in ids[max(0, i - size) : i]]


@given(ids_of_a_shard, st.integers(1, 25), st.data())
def test_a_duplicate_is_an_id_among_the_last_n_however_the_rows_are_batched_and_restarted(
    ids: list[str], size: int, data: st.DataObject
):
    seen, stored, found, at = Seen(size), dict[int, Chunk](), [], 0
    while at < len(ids):
        n = data.draw(st.integers(1, len(ids) - at))
        rows = seen.fresh(ids[at : at + n])
        found += range(at, at + n) if rows is None else (at + rows).tolist()
        at += n
        if data.draw(st.booleans()) and (chunk := seen.new_chunk()) is not None:
            stored[chunk.first] = chunk
            stored = {first: c for first, c in stored.items() if first + len(c.ids) > seen.oldest}
            if data.draw(st.booleans()):
                seen = Seen(size)
                seen.restore(reversed(stored.values()))
                assert seen.new_chunk() is None  # what came from the store need not go there again
    assert found == fresh_rows(ids, size)


def test_a_batch_without_a_duplicate_needs_no_indices():
    seen = Seen(10)
    assert seen.fresh(["a", "b"]) is None
    assert seen.fresh([]) is None
    assert seen.fresh(["c", "a"]).tolist() == [0]


def test_size_0_is_off():
    seen = Seen(0)
    assert seen.fresh(["a", "a"]) is None
    assert seen.fresh(["a"]) is None
    assert seen.new_chunk() is None


@given(st.integers(1, 50), st.integers(1, 200))
def test_what_is_kept_is_bounded(size: int, batch_size: int):
    seen = Seen(size)
    for start in range(0, 2000, batch_size):
        seen.fresh([str(i) for i in range(start, start + batch_size)])
    runs = [seen._before, seen._now]
    assert sum(len(run.ids) for run in runs) <= 2 * size
    assert sum(len(run.known) for run in runs) <= 2 * size
    assert len(seen.new_chunk().ids) <= size
    assert seen.new_chunk() is None


def _records(versions: list[str] | None) -> Records:
    return Records(
        shard=Shard("s"),
        positions=np.arange(10, 15),
        times_s=np.arange(5.0),
        ids=["a", "b", "c", "d", "e"],
        numeric=np.arange(10.0).reshape(5, 2),
        marked=np.array([[1, 0], [3, 1], [4, 0]]),
        marks=np.array([1, 2, 1], dtype=np.uint8),
        categories=(["x", None, Mark.INVALID, "y", "z"],),
        embeddings=(np.arange(15, dtype=np.float32).reshape(5, 3),),
        embedding_states=(np.array([0, 1, 2, 3, 0]),),
        versions=versions,
    )


def _rows(records: Records) -> list[tuple[object, ...]]:
    """Every row as one value."""
    marks = {(int(r), int(c)): int(m) for (r, c), m in zip(records.marked, records.marks, strict=True)}
    return [
        (
            int(records.positions[i]),
            float(records.times_s[i]),
            records.ids[i],
            tuple(records.numeric[i]),
            tuple(marks.get((i, c)) for c in range(2)),
            tuple(column[i] for column in records.categories),
            tuple(tuple(matrix[i]) for matrix in records.embeddings),
            tuple(int(state[i]) for state in records.embedding_states),
            records.versions[i] if records.versions else None,
        )
        for i in range(len(records))
    ]


@given(st.permutations(range(5)), st.integers(0, 5), st.sampled_from([None, ["1", "2", "1", "2", "3"]]))
def test_taking_rows_takes_every_column_and_mark_of_them(order: list[int], n: int, versions: list[str] | None):
    records = _records(versions)
    rows = np.array(order[:n], dtype=np.intp)
    assert _rows(take(records, rows)) == [_rows(records)[i] for i in order[:n]]
    assert _rows(take(records, slice(1, n))) == _rows(records)[1:n]
    assert len(take(records, rows).marked) == sum(r in (1, 3, 4) for r in order[:n])


def test_an_id_of_a_run_long_past_is_no_longer_held_in_memory():
    seen = Seen(4)
    key = "".join(["only", "here"])
    before = sys.getrefcount(key)
    seen.fresh([key])
    seen.fresh([str(i) for i in range(20)])
    assert sys.getrefcount(key) == before

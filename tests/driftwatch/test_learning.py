"""Which rows are learned from: the same ones however batches are cut, and wherever it was ended and begun again."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftwatch import learned, learning
from driftwatch.learned_rows import LearningChanges, Rows, joined
from driftwatch.learning import Learner, kept_of
from driftwatch.records import Category, Column, Mark, Records, Schema, Shard

SCHEMA = Schema(
    "credit",
    "1",
    (
        Column("x", "numeric", ("features", "x")),
        Column("c", "categorical", ("features", "c")),
        Column("score", "numeric", ("prediction",), group="prediction"),
    ),
)
A, B = Shard("a"), Shard("b")
NOTHING = np.empty(0, np.intp)


def records(times_s: list[float], shard: Shard = A, start: int = 0, versions: list[str] | None = None) -> Records:
    """Rows whose x is their position; every fifth x is invalid, every seventh category missing."""
    positions = np.arange(start, start + len(times_s))
    invalid = np.flatnonzero(positions % 5 == 4)
    x = positions.astype(float)
    x[invalid] = np.nan
    categories: list[Category] = [None if p % 7 == 6 else f"c{p % 3}" for p in positions.tolist()]
    return Records(
        shard=shard,
        positions=positions,
        times_s=np.array(times_s),
        ids=[f"{shard}{p}" for p in positions],
        numeric=np.column_stack([x, positions / 2]),
        marked=np.column_stack([invalid, np.zeros_like(invalid)]),
        marks=np.ones(len(invalid), np.uint8),
        categories=(categories,),
        versions=versions,
    )


@dataclass
class Disk:
    """What a store would hold of learning."""

    state: bytes | None = None
    pieces: dict[tuple[str, int], tuple[int, bytes]] = field(default_factory=dict)

    def save(self, changes: LearningChanges | None) -> None:
        if changes is None:
            return
        self.state = changes.state
        if changes.every is not None:
            self.pieces = {key: piece for key, piece in self.pieces.items() if piece[0] % changes.every == 0}
        for piece in changes.pieces:
            assert (piece.shard, piece.first) not in self.pieces
            self.pieces[piece.shard, piece.first] = piece.run, piece.body

    def rows(self) -> Rows:
        state = learning.decoded_state(self.state or b"")
        return learned.within(joined([Rows.from_bytes(self.pieces[key][1]) for key in sorted(self.pieces)]), state, 5.0)

    def learner(self, learn_s: float = 100.0, lateness_s: float = 5.0) -> Learner:
        return Learner.of(SCHEMA, learn_s, lateness_s, 3, self.state)


def learn(batches: list[Records], disk: Disk, learner: Learner, *, save_each: bool = False) -> Learner:
    for batch in batches:
        learner.assign(batch.shard, anew=False)
        learner.add(batch, ahead=NOTHING, end=int(batch.positions[-1]) + 1)
        if save_each:
            disk.save(learner.changes())
    disk.save(learner.changes())
    return learner


def values(disk: Disk) -> list[float]:
    return [float(2 * score) for score in disk.rows().numeric[:, 1]]


def test_rows_of_the_stretch_are_kept_and_those_after_it_are_not() -> None:
    disk = Disk()
    learner = learn([records([float(t) for t in range(200)])], disk, disk.learner())
    assert learner.is_complete
    assert values(disk) == list(range(101))  # from the middle one of the first three rows on, and what is not late
    assert learner.state.share(100.0) == pytest.approx(0.99)


def test_one_stray_time_at_the_beginning_neither_ends_the_stretch_nor_moves_it() -> None:
    for stray in (-1e6, 1e6):
        times_s = [stray, *(float(t) for t in range(1, 200))]
        disk = Disk()
        learner = learn([records(times_s)], disk, disk.learner())
        assert learner.is_complete
        assert learner.state.start_s in (1.0, 2.0)
        assert 0.0 not in values(disk)
        assert len(values(disk)) in (100, 101)


@pytest.mark.parametrize("first_times_s", [[0.0, 1.0, 2.0], [3.0, 0.0, -9.0], [-900.0, 0.0, 4.0]])
def test_of_shards_that_begin_together_the_rows_are_the_same_whichever_comes_first(first_times_s: list[float]) -> None:
    other = [*first_times_s, *(float(t) for t in range(3, 150))]
    found = []
    for order in (slice(None), slice(None, None, -1)):
        disk = Disk()
        batches = [records([t + 2.0 for t in range(150)], A), records(other, B)][order]
        learner = learn(batches, disk, disk.learner())
        assert learner.is_complete
        found.append((values(disk), learner.state.start_s, learner.state.end_s))
    assert found[0] == found[1]


def cut(times_s: list[float], sizes: list[int]) -> list[Records]:
    """The rows in batches of so many, and a last one of what is left."""
    edges = [0, *np.cumsum(sizes).tolist()]
    edges = [e for e in edges if e < len(times_s)] + [len(times_s)]
    return [records(times_s[a:b], start=a) for a, b in pairwise(edges) if b > a]


@settings(max_examples=60)
@given(
    st.lists(st.integers(-20, 20), min_size=40, max_size=120),
    st.lists(st.integers(1, 40), max_size=8),
    st.integers(5, 40),
    st.data(),
)
def test_any_cut_into_batches_and_any_end_between_saves_give_the_same_rows(
    jitter: list[int], sizes: list[int], most: int, data: st.DataObject
) -> None:
    times_s = [float(i + 2 * j // 5) for i, j in enumerate(jitter)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "RUN_ROWS", 4)
        patch.setattr(learning, "MOST_ROWS", most)
        whole = Disk()
        learn(cut(times_s, []), whole, whole.learner(learn_s=60.0))
        disk, at, batches = Disk(), 0, cut(times_s, sizes)
        learner = disk.learner(learn_s=60.0)
        while at < len(batches):
            learn(batches[at : at + 1], disk, learner) if data.draw(st.booleans()) else learner.add(
                batches[at], ahead=NOTHING, end=int(batches[at].positions[-1]) + 1
            )
            at += 1
            if data.draw(st.booleans()):  # killed: what was not saved is read again
                learner = disk.learner(learn_s=60.0)
                read_to = learner.state.shards[A].read_to if A in learner.state.shards else 0
                at = next((i for i, b in enumerate(batches) if int(b.positions[0]) >= read_to), len(batches))
        disk.save(learner.changes())
    if whole.pieces:
        assert values(disk) == values(whole)
        assert len(values(disk)) <= most
    assert learner.state.n_rows == learning.decoded_state(whole.state or b"").n_rows


def test_beyond_the_most_rows_every_second_run_goes_and_what_stays_are_runs_of_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learning, "RUN_ROWS", 10)
    monkeypatch.setattr(learning, "MOST_ROWS", 100)
    disk = Disk()
    learner = learn(cut([float(t) for t in range(1000)], [7] * 200), disk, disk.learner(learn_s=1e6), save_each=True)
    assert learner.state.every == 16
    assert values(disk) == [p for p in range(1000) if p // 10 % 16 == 0]
    assert learner.state.n_kept == len(values(disk)) == kept_of(1000, 16)


def test_rows_of_other_versions_of_events_without_features_and_far_ahead_are_not_learned() -> None:
    batch = records([float(t) for t in range(10)], versions=["1", "2"] * 5)
    absent = np.array([[0, 0], [2, 0], [2, 1]])
    marked = np.concatenate([absent, batch.marked])
    marks = np.concatenate([[learning.ABSENT, 0, 2], batch.marks]).astype(np.uint8)
    some = replace(batch, marked=marked, marks=marks)
    disk = Disk()
    learner = disk.learner()
    learner.add(some, ahead=np.array([8]), end=10)
    disk.save(learner.changes())
    assert values(disk) == [2, 4, 6]  # row 0 has no features, row 8 is far ahead


def test_a_shard_that_went_away_and_came_back_is_not_learned_twice() -> None:
    disk = Disk()
    learner = learn([records([float(t) for t in range(20)])], disk, disk.learner())
    learner.revoke(A)
    learn([records([float(t) for t in range(5, 30)], start=5)], disk, learner)
    assert values(disk) == list(range(30))
    learner.assign(A, anew=True)  # the log was made anew: its positions begin again
    learn([records([float(t) for t in range(30, 34)])], disk, learner)
    assert len(values(disk)) == 34


def test_every_shard_held_must_have_passed_the_stretch_unless_it_has_no_more_rows() -> None:
    disk = Disk()
    learner = disk.learner()
    learner.assign(B, anew=False)
    learn([records([float(t) for t in range(200)])], disk, learner)
    assert not learner.is_complete
    learner.at_end(B)
    assert learner.is_complete
    learn([records([0.0, 1.0], B)], disk, learner)
    assert not learner.is_complete
    again = disk.learner()  # at a start, before any shard is assigned
    assert not again.is_complete
    again.revoke(B)
    assert again.is_complete


def test_too_few_rows_in_the_stretch_make_it_go_on_for_as_long_again() -> None:
    disk = Disk()
    learner = Learner.of(SCHEMA, 100.0, 5.0, 50, None)
    learn([records([0.0, 1.0, 2.0, 300.0, 301.0, 302.0])], disk, learner)
    assert learner.is_too_short
    assert not learner.is_complete
    learner.go_on()
    assert not learner.is_too_short
    assert learner.state.end_s == 201.0


def test_other_features_or_another_version_begin_anew() -> None:
    disk = Disk()
    learn([records([0.0, 1.0, 2.0])], disk, disk.learner())
    assert disk.learner().state.n_rows == 3
    fewer = Schema("credit", "1", SCHEMA.columns[:1])
    newer = Schema("credit", "2", SCHEMA.columns)
    assert [Learner.of(s, 100.0, 5.0, 3, disk.state).state.n_rows for s in (fewer, newer)] == [0, 0]
    with pytest.raises(ValueError, match="the state of learning must be whole"):
        Learner.of(SCHEMA, 100.0, 5.0, 3, b"\x00torn")


def test_rows_come_back_from_their_bytes_as_they_were() -> None:
    rows = Rows.of(records([3.0, 1.0, 2.0] * 10), np.arange(2, 30, 3))
    again = Rows.from_bytes(rows.to_bytes())
    for name in ("times_s", "numeric", "marked", "marks"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rows, name))
    assert again.categories == rows.categories
    marks: list[Category] = [Mark.INVALID, Mark.ABSENT, None, "", "None", "\x00", "é" * 70_000]
    odd = Rows(np.zeros(7), np.zeros((7, 0)), np.empty((0, 2), np.intp), np.empty(0, np.uint8), (marks,))
    assert Rows.from_bytes(odd.to_bytes()).categories == (marks,)
    assert Rows.from_bytes(odd.to_bytes()).numeric.shape == (7, 0)
    for torn in (b"", b"abc", rows.to_bytes()[:-4]):
        with pytest.raises(ValueError, match="rows to learn from must be whole"):
            Rows.from_bytes(torn)


def test_pieces_are_joined_in_time_order_with_their_marks() -> None:
    first, second = records([0.0, 2.0, 4.0, 6.0, 8.0]), records([1.0, 3.0, 4.0, 7.0, 9.0], B, start=100)
    rows = joined([Rows.of(r, np.arange(5)) for r in (first, second)])
    assert rows.times_s.tolist() == [0, 1, 2, 3, 4, 4, 6, 7, 8, 9]
    assert (2 * rows.numeric[:, 1]).tolist() == [0, 100, 1, 101, 2, 102, 3, 103, 4, 104]
    assert rows.numeric[learned.marked(rows, 0, learned.INVALID), 1].tolist() == [2, 52]


def test_a_prediction_is_learned_where_most_rows_have_one() -> None:
    state = learn([records([float(t) for t in range(20)])], Disk(), Disk().learner()).state
    rows = Rows.of(records([float(t) for t in range(20)]), np.arange(20))
    for n_absent, n_rows in ((5, 15), (12, 20)):
        absent = np.column_stack([np.arange(n_absent), np.ones(n_absent, np.intp)])
        marks = np.full(n_absent, learning.ABSENT, np.uint8)
        some = Rows(rows.times_s, rows.numeric, absent, marks, rows.categories)
        material = learned.material(SCHEMA, state, some)
        assert ("score" in material.columns) == (n_absent == 5)
        assert material.n_rows == len(material.columns["x"]) == n_rows
        assert material.rows_per_second == pytest.approx(20 / 19)

"""Rows on a profile: the same table as the plain path, whatever is missing, marked or left out, in any batches."""

from typing import Any
from unittest.mock import patch
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.grid import INVALID, MISSING, SPECIAL, UNSEEN, FeatureKind
from detectors.profile import Profile
from detectors.reference import build
from detectors.scoring import score
from detectors.summary import Table, total
from driftwatch.count import ProfileCounter, RowCounter
from driftwatch.records import Column, Mark, Records, Schema, Shard

KINDS: dict[str, FeatureKind] = {"a": "numeric", "c": "categorical", "b": "numeric", "e": "embedding", "k": "numeric"}
WATCHED = ("a", "b")  # k is a constant: it has no pairs
WIDTH, INVALID_MARK, ABSENT_MARK = 3, 1, 2


def reference_columns(n: int = 600) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "a": rng.normal(size=n),
        "c": rng.choice(np.array(["x", "y", "true", "3"], object), n),
        "b": rng.lognormal(size=n),
        "e": rng.normal(size=(n, WIDTH)).astype(np.float32),
        "k": np.ones(n),
    }


def profile_of(columns: dict[str, Any]) -> Profile:
    with patch("detectors.calibration.DRAWS_FIT", 400), patch("detectors.calibration.DRAWS_THRESHOLD", 800):
        return build(columns, {name: KINDS[name] for name in columns}, sizes=(100,), mmd_rows=40)


@pytest.fixture(scope="module")
def profile() -> Profile:
    return profile_of(reference_columns())


def schema_of(*names: str) -> Schema:
    """Columns of the kinds in KINDS; others are numeric features that no profile knows."""
    columns = [Column(name, KINDS.get(name, "numeric"), ("features", name)) for name in names]
    return Schema("credit", "1", tuple(columns))


SCHEMA = schema_of(*KINDS)


def records(seed: int, n: int, *, numeric: int = 3, clean: bool = False) -> Records:
    """Rows with values of every state: numbers, ±inf, missing, invalid, absent, unseen."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, numeric))
    states = np.zeros((n, numeric)) if clean else rng.choice(4, (n, numeric), p=[0.7, 0.1, 0.1, 0.1])
    values[states > 0] = np.nan
    if n and not clean:
        values[rng.integers(0, n), rng.integers(0, numeric)] = np.inf
        states[np.isinf(values)] = 0
    marked = np.argwhere(states >= 2)
    choices = np.array(["x", "y", "true", "3", "new", None, Mark.INVALID, Mark.ABSENT], object)
    categories = rng.choice(choices[:4] if clean else choices, n).tolist()
    embeddings = rng.normal(size=(n, WIDTH)).astype(np.float32)
    embedding_states = np.zeros(n, np.uint8) if clean else rng.choice(4, n, p=[0.7, 0.1, 0.1, 0.1]).astype(np.uint8)
    embeddings[embedding_states > 0] = np.nan
    return Records(
        shard=Shard("s"),
        positions=np.arange(n),
        times_s=np.arange(n, dtype=np.float64),
        ids=[f"{seed}-{i}" for i in range(n)],
        numeric=values,
        marked=marked.astype(np.intp),
        marks=(states[tuple(marked.T)] - 1).astype(np.uint8),
        categories=(categories,),
        embeddings=(embeddings,),
        embedding_states=(embedding_states,),
    )


def row_by_row(profile: Profile, rows: Records, names: tuple[str, ...] = ("a", "b", "k")) -> list[int]:
    """The counts, one value after the other."""
    grid = profile.grid
    counts = [0] * grid.n_cells
    marks = {(int(r), int(c)): int(m) for (r, c), m in zip(rows.marked, rows.marks, strict=True)}
    for c, name in enumerate(names):
        if name not in grid.names:
            continue
        j = grid.names.index(name)
        edges = grid.features[j].edges
        assert edges is not None
        for r, value in enumerate(rows.numeric[:, c].tolist()):
            mark = marks.get((r, c))
            if mark == INVALID_MARK:
                counts[SPECIAL * j + INVALID] += 1
            elif mark is None and np.isnan(value):
                counts[SPECIAL * j + MISSING] += 1
            elif mark is None:
                counts[grid.slice(j).start + sum(value > edge for edge in edges.tolist())] += 1
    j = grid.names.index("c")
    for category in rows.categories[0]:
        if category is Mark.INVALID:
            counts[SPECIAL * j + INVALID] += 1
        elif category is None:
            counts[SPECIAL * j + MISSING] += 1
        elif category is not Mark.ABSENT:
            known = grid.features[j].categories
            unseen = SPECIAL * j + UNSEEN
            counts[grid.slice(j).start + known.index(category) if category in known else unseen] += 1
    j = grid.names.index("e")
    cells = {0: grid.slice(j).start, 1: SPECIAL * j + INVALID, 3: SPECIAL * j + MISSING}
    for state in rows.embedding_states[0].tolist():
        if state != 2:
            counts[cells[state]] += 1
    return counts


EVERY = slice(None)


def table_of(counter: ProfileCounter | RowCounter, rows: Records, part: Any = EVERY) -> Table:
    """A fresh table of some rows."""
    table = counter.empty()
    counter.count(table, rows, part)
    return table


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 60))
def test_counts_are_those_of_the_rows_one_by_one(profile: Profile, seed: int, n: int) -> None:
    rows = records(seed, n)
    table = table_of(ProfileCounter(profile, SCHEMA), rows)
    assert table.counts.dtype == np.int64
    assert table.counts.tolist() == row_by_row(profile, rows)


def test_the_references_own_rows_count_as_the_profile_says(profile: Profile) -> None:
    columns = reference_columns()
    n = len(columns["a"])
    rows = Records(
        shard=Shard("s"),
        positions=np.arange(n),
        times_s=np.zeros(n),
        ids=[str(i) for i in range(n)],
        numeric=np.stack([columns["a"], columns["b"], columns["k"]], axis=1),
        marked=np.empty((0, 2), np.intp),
        marks=np.empty(0, np.uint8),
        categories=(columns["c"].tolist(),),
        embeddings=(columns["e"],),
        embedding_states=(np.zeros(n, np.uint8),),
    )
    table = table_of(ProfileCounter(profile, SCHEMA), rows)
    assert table.counts.tolist() == profile.counts.tolist()
    np.testing.assert_allclose(table.sums[1:] / n, profile.joint_means[: profile.n_pairs], atol=1e-5)
    assert max(score(profile, table).terms) < profile.calibration.threshold(1 / 20, n)


def present(rows: Records) -> np.ndarray:
    """Rows whose event says something of the first watched feature."""
    absent = rows.marked[(rows.marks == ABSENT_MARK) & (rows.marked[:, 1] == 0), 0]
    return np.setdiff1d(np.arange(len(rows)), absent)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 60))
def test_products_are_summed_over_rows_that_are_not_absent(profile: Profile, seed: int, n: int) -> None:
    rows = records(seed, n)
    table = table_of(ProfileCounter(profile, SCHEMA), rows)
    grid, scores = profile.grid, profile.normal_scores
    columns = [np.where(np.isnan(rows.numeric[:, c]), 0.0, rows.numeric[:, c]) for c in (0, 1)]
    z = []
    for c, name in enumerate(WATCHED):
        j = grid.names.index(name)
        edges = grid.features[j].edges
        assert edges is not None
        score_of = scores.by_cell[grid.slice(j).start + np.searchsorted(edges, columns[c], "left")]
        z.append(np.where(np.isnan(rows.numeric[:, c]), 0.0, score_of))
    assert table.sums[0] == len(present(rows))
    assert table.sums[1] == pytest.approx(float((z[0] * z[1]).sum()), abs=1e-3)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 150), data=st.data())
def test_any_split_into_batches_and_any_order_give_the_same_table(
    profile: Profile, seed: int, n: int, data: st.DataObject
) -> None:
    rows = records(seed, n)
    counter = ProfileCounter(profile, SCHEMA)
    order = np.random.default_rng(seed).permutation(n)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=5)))
    whole = table_of(counter, rows)
    parts = total([table_of(counter, rows, part) for part in np.split(order, cuts)])
    assert parts.counts.tolist() == whole.counts.tolist()
    assert parts.sums.tolist() == whole.sums.tolist()  # to the last bit
    for found, expected in zip(parts.samples, whole.samples, strict=True):
        assert (found.level, found.counts.tolist()) == (expected.level, expected.counts.tolist())
        np.testing.assert_allclose(found.sums, expected.sums, atol=1e-3)
        assert found.n <= 40


def test_samples_hold_the_embedding_where_it_is_present_and_the_numbers_where_they_are(profile: Profile) -> None:
    rows = records(3, 30)
    embedding, joint = table_of(ProfileCounter(profile, SCHEMA), rows).samples
    here = rows.embedding_states[0] == 0
    assert (embedding.n, joint.n) == (here.sum(), len(present(rows)))
    expected = profile.random_features["e"](rows.embeddings[0][here]).astype(float).sum(axis=0)
    np.testing.assert_allclose(embedding.sums.sum(axis=0), expected, atol=1e-3)


def test_which_rows_a_sample_keeps_depends_on_their_ids_alone(profile: Profile) -> None:
    rows = records(4, 300, clean=True)
    counter = ProfileCounter(profile, SCHEMA)
    first, second = table_of(counter, rows).samples
    assert 0 < first.n <= 40
    assert first.counts.tolist() == second.counts.tolist()
    assert len({crc32(i.encode()) for i in rows.ids}) == 300


@pytest.mark.parametrize("part", [slice(0, 0), slice(3, 9), np.array([5, 1, 7])])
def test_only_the_rows_asked_for_are_counted(profile: Profile, part: Any) -> None:
    rows = records(5, 20)
    counter = ProfileCounter(profile, SCHEMA)
    table = table_of(counter, rows, part)
    kept = np.arange(20)[part]
    assert (
        table.counts.tolist()
        == sum((table_of(counter, rows, np.array([i])) for i in kept), counter.empty()).counts.tolist()
    )


def test_columns_that_the_profile_does_not_know_are_left_out_with_their_marks(profile: Profile) -> None:
    rows = records(6, 50, numeric=5)
    wide = table_of(ProfileCounter(profile, schema_of("u", "a", "c", "b", "e", "v", "k")), rows)
    assert wide.counts.tolist() == row_by_row(profile, rows, ("u", "a", "b", "v", "k"))


def test_a_table_of_no_row_is_zero_and_adds_nothing(profile: Profile) -> None:
    counter = ProfileCounter(profile, SCHEMA)
    nothing, some = table_of(counter, records(0, 0)), table_of(counter, records(1, 30))
    assert not nothing.counts.any()
    assert not nothing.sums.any()
    assert (nothing + some).counts.tolist() == some.counts.tolist()
    assert Table.from_bytes(nothing.to_bytes()).counts.tolist() == nothing.counts.tolist()


def test_a_table_of_the_counter_is_scored_without_loss(profile: Profile) -> None:
    scored = score(profile, table_of(ProfileCounter(profile, SCHEMA), records(7, 400, clean=True)))
    assert scored.n == 400
    assert all(s.reason in (None, "no_null") for s in scored.scores)


@pytest.mark.parametrize("kept", [("c",), ("e",), ("k", "c"), ("a", "b")])
def test_profiles_of_some_kinds_only_count_their_own_columns(kept: tuple[str, ...]) -> None:
    columns = {name: values for name, values in reference_columns().items() if name in kept}
    partial = profile_of(columns)
    rows = records(8, 40)
    table = table_of(ProfileCounter(partial, SCHEMA), rows)
    whole = profile_of(reference_columns())
    full = table_of(ProfileCounter(whole, SCHEMA), rows)
    for name in kept:
        j, k = partial.grid.names.index(name), whole.grid.names.index(name)
        assert (
            table.counts[SPECIAL * j : SPECIAL * j + 3].tolist() == full.counts[SPECIAL * k : SPECIAL * k + 3].tolist()
        )
        assert table.counts[partial.grid.slice(j)].tolist() == full.counts[whole.grid.slice(k)].tolist()


def test_without_a_profile_nothing_is_counted() -> None:
    table = table_of(RowCounter(), records(9, 10))
    assert (len(table.counts), len(table.sums), table.samples) == (0, 0, ())


def test_counting_goes_on_in_a_table_that_holds_rows(profile: Profile) -> None:
    counter = ProfileCounter(profile, SCHEMA)
    first, second = records(10, 90), records(11, 70)
    table = table_of(counter, first)
    counter.count(table, second, EVERY)
    added = table_of(counter, first) + table_of(counter, second)
    assert (table.counts.tolist(), table.sums.tolist()) == (added.counts.tolist(), added.sums.tolist())
    assert [s.counts.tolist() for s in table.samples] == [s.counts.tolist() for s in added.samples]


def test_where_categories_share_buckets_an_unknown_one_is_in_one_of_them() -> None:
    names = [f"c{i}" for i in range(1200) for _ in range(2)]
    many = profile_of({"c": np.array(names, object)})
    table = table_of(ProfileCounter(many, SCHEMA), records(12, 50))
    rows = records(12, 50).categories[0]
    assert table.counts[many.grid.slice(0)].sum() == sum(isinstance(value, str) for value in rows)
    assert table.counts[[MISSING, INVALID, UNSEEN]].tolist() == [rows.count(None), rows.count(Mark.INVALID), 0]

"""Summaries add: any split, any order, through bytes, and a sample never outgrows its bound."""

from collections.abc import Callable
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import summary
from detectors.summary import LEVELS, Sample, Table, levels_of, total

keys_of_rows = st.lists(st.integers(0, 2**32 - 1), max_size=150).map(lambda v: np.array(v, np.uint32))
bounds = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)


def features_of(keys: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Two features of a row, whole numbers so that sums are exact in any order."""
    rows = np.stack([keys % 1009, keys % 17], axis=1).astype(np.float32)
    return lambda kept: rows[kept]


def sample_of(keys: np.ndarray, bound: int) -> Sample:
    sample = Sample.empty(bound, 2)
    sample.add(keys, features_of(keys))
    return sample


def state(sample: Sample) -> tuple[int, int, list[int], list[list[float]]]:
    return sample.bound, sample.level, sample.counts.tolist(), sample.sums.tolist()


def split(keys: np.ndarray, seed: int) -> list[np.ndarray]:
    """The rows in another order, in batches of random size, some of them empty."""
    rng = np.random.default_rng(seed)
    return np.split(rng.permutation(keys), np.sort(rng.integers(0, len(keys) + 1, rng.integers(0, 7))))


@settings(max_examples=150)
@given(keys=keys_of_rows, bound=bounds, seed=seeds)
def test_a_sample_is_the_same_however_its_rows_are_ordered_and_batched(keys: np.ndarray, bound: int, seed: int) -> None:
    batched = Sample.empty(bound, 2)
    for batch in split(keys, seed):
        batched.add(batch, features_of(batch))
        assert batched.n <= bound
    assert state(batched) == state(sample_of(keys, bound))


def at_once(sample: Sample, keys: np.ndarray, features: np.ndarray) -> None:
    """Adds a batch as it is written down: each kept row's features to the sums of its level, in their order."""
    levels = levels_of(keys)
    sample.counts += np.bincount(levels, minlength=LEVELS)
    while sample.counts[sample.level :].sum() > sample.bound:
        sample.level += 1
    sample.counts[: sample.level] = 0
    for level in range(sample.level, LEVELS):
        if (levels == level).any():
            sample.sums[level] += np.add.reduceat(features[levels == level], [0], axis=0)[0]
    sample.sums[: sample.level] = 0


@settings(max_examples=100)
@given(
    keys=keys_of_rows, bound=bounds, seed=seeds, asked=st.sets(st.integers(0, 6)), most=st.sampled_from([64, 1 << 20])
)
def test_sums_are_the_same_to_the_last_bit_whenever_they_are_asked_for(
    keys: np.ndarray, bound: int, seed: int, asked: set[int], most: int
) -> None:
    batched, expected = Sample.empty(bound, 3), Sample.empty(bound, 3)
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "MOST_WAITING", most)
        for i, batch in enumerate(split(keys, seed)):
            rows = rng.normal(size=(len(batch), 3))
            batched.add(batch, rows.__getitem__, np.exp)
            at_once(expected, batch, np.exp(rows))
            if i in asked:
                assert state(batched) == state(expected)
    assert state(batched) == state(expected)


@settings(max_examples=150)
@given(keys=keys_of_rows, bound=bounds, seed=seeds)
def test_merged_samples_are_the_sample_of_all_rows(keys: np.ndarray, bound: int, seed: int) -> None:
    parts = [sample_of(batch, bound) for batch in split(keys, seed)]
    merged = parts[0].copy()
    for part in parts[1:]:
        before = state(part)
        merged.merge(part)
        assert state(part) == before
        assert merged.n <= bound
    assert state(merged) == state(sample_of(keys, bound))


@settings(max_examples=100)
@given(keys=keys_of_rows, bound=bounds)
def test_a_sample_keeps_the_rows_of_the_highest_levels_that_fit(keys: np.ndarray, bound: int) -> None:
    sample, levels = sample_of(keys, bound), levels_of(keys)
    fitting = [level for level in range(LEVELS + 1) if (levels >= level).sum() <= bound]
    kept = levels >= fitting[0]
    assert (sample.level, sample.n) == (fitting[0], kept.sum())
    assert sample.sums.sum(axis=0).tolist() == features_of(keys)(kept).sum(axis=0).tolist()


def test_features_are_computed_only_for_the_rows_that_are_kept() -> None:
    keys = np.random.default_rng(0).integers(0, 2**32, 10_000, dtype=np.uint64).astype(np.uint32)
    asked: list[int] = []

    def features(kept: np.ndarray) -> np.ndarray:
        asked.append(len(kept))
        return np.ones((len(kept), 1))

    sample = Sample.empty(100, 1)
    sample.add(keys, features)
    assert asked == [sample.n]
    assert 50 <= sample.n <= 100


def test_a_level_is_the_number_of_leading_zeros_of_a_well_mixed_key() -> None:
    rows = np.bincount(levels_of(np.arange(1 << 18, dtype=np.uint32)), minlength=LEVELS)
    for level in range(8):
        expected = (1 << 18) / 2 ** (level + 1)
        assert abs(rows[level] - expected) < 6 * np.sqrt(expected)
    assert levels_of(np.zeros(1, np.uint32)).tolist() == [LEVELS - 1]
    keys = np.array([7, 9], np.uint32)
    levels_of(keys)
    assert keys.tolist() == [7, 9]


def test_one_id_over_and_over_cannot_outgrow_the_bound() -> None:
    sample = sample_of(np.zeros(1000, np.uint32), 10)
    assert sample.n == 0
    sample.add(np.zeros(1000, np.uint32), features_of(np.zeros(1000, np.uint32)))
    assert (sample.n, sample.sums.any()) == (0, False)


def tables(seed: int, n_tables: int) -> list[Table]:
    rng = np.random.default_rng(seed)
    return [
        Table(
            rng.integers(0, 2**40, 5),
            rng.integers(-(2**30), 2**30, 3).astype(float),
            tuple(
                sample_of(rng.integers(0, 2**32, rng.integers(0, 60), dtype=np.uint64).astype(np.uint32), bound)
                for bound in (7, 30)
            ),
        )
        for _ in range(n_tables)
    ]


def content(table: Table) -> tuple[object, ...]:
    return table.counts.tolist(), table.sums.tolist(), [state(sample) for sample in table.samples]


@settings(max_examples=60)
@given(seed=seeds, n_tables=st.integers(1, 6))
def test_tables_add_in_any_order_and_leave_their_terms_alone(seed: int, n_tables: int) -> None:
    terms = tables(seed, n_tables)
    before = [content(term) for term in terms]
    whole = total(terms)
    assert content(whole) == content(reduce(lambda a, b: b + a, terms[::-1]))
    whole += terms[0]  # a total is a table of its own
    assert [content(term) for term in terms] == before
    assert whole.counts.tolist() == (sum(t.counts for t in terms) + terms[0].counts).tolist()


@settings(max_examples=100)
@given(seed=seeds)
def test_bytes_give_back_the_table_and_can_be_added_to(seed: int) -> None:
    table, other = tables(seed, 2)
    again = Table.from_bytes(table.to_bytes())
    assert content(again) == content(table)
    assert (again.counts.dtype, again.sums.dtype) == (np.int64, np.float64)
    again += other
    assert content(again) == content(table + other)
    assert Table.from_bytes(table.to_bytes()).to_bytes() == table.to_bytes()


def test_a_table_of_nothing_has_bytes_and_sums_that_are_no_numbers_survive() -> None:
    assert content(Table.from_bytes(Table(np.zeros(0, np.int64), np.zeros(0)).to_bytes())) == ([], [], [])
    table = Table(np.array([2**62]), np.array([np.inf, np.nan, -0.0, 5e-324]))
    again = Table.from_bytes(table.to_bytes())
    assert again.sums.tobytes() == table.sums.tobytes()
    assert again.counts.tolist() == [2**62]


def test_tables_of_different_samples_cannot_be_added() -> None:
    table = tables(0, 1)[0]
    with pytest.raises(ValueError, match="zip"):
        table += Table(table.counts, table.sums)


def test_figures_add_by_their_numbers_and_pass_through_bytes() -> None:
    empty = Table(np.zeros(3, np.int64), np.zeros(2))
    one, two = empty + empty, empty + empty
    one.add_figures(7, np.array([1.0, 2.5]))
    one.add_figures(7, np.array([1.0, -0.5]))
    two.add_figures(9, np.array([4.0]))
    both = Table.from_bytes((one + two).to_bytes())
    assert {key: sums.tolist() for key, sums in both.figures.items()} == {7: [2.0, 2.0], 9: [4.0]}
    assert both.to_bytes() == (two + one).to_bytes()
    assert (list(one.figures), list(two.figures), list(empty.figures)) == ([7], [9], [])
    assert Table.from_bytes(empty.to_bytes()).figures == {}

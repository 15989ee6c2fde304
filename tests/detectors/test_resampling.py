"""Null draws against the laws they stand for: means, variances, blocks, and what ties features together."""

import numpy as np
import pytest
from scipy.signal import lfilter

from detectors.resampling import Draws, Resampler, Rows, base_rows, block_sums, circular_sums

N = 3000


def rows_of(codes: np.ndarray, joint: np.ndarray | None = None, n_reference: int | None = None) -> Rows:
    """Rows of features whose cells are numbered one after the other; joint features, if any, a row each."""
    sizes = codes.max(axis=0) + 1
    flat = (codes + np.concatenate([[0], np.cumsum(sizes)[:-1]])).astype(np.int32)
    n = len(codes)
    joint = np.zeros((n, 0)) if joint is None else joint
    blocks = block_sums(joint, base_rows(n)) if joint.shape[1] else np.zeros((n // base_rows(n), 0), np.float32)
    return Rows(flat, int(sizes.sum()), blocks, n_reference or n)


def drawn(rows: Rows, n_draws: int, n_current: int, *, block: int = 1, segments: bool = False, seed: int = 0) -> Draws:
    parts = list(Resampler(rows, block=block, segments=segments, seed=seed).draws(n_draws, n_current))
    return Draws(
        *(
            np.concatenate([getattr(part, name) for part in parts]).astype(float)
            for name in ("current", "reference", "joint_current", "joint_reference")
        )
    )


def codes_of(n: int, seed: int = 0) -> np.ndarray:
    """Two features that go together: a cell of ten and whether it is large."""
    first = np.random.default_rng(seed).integers(0, 10, n)
    return np.stack([first, (first > 6).astype(int)], axis=1)


@pytest.mark.parametrize(("n_current", "gathered"), [(200, True), (40_000, False)])
def test_independent_rows_give_multinomial_windows_and_references(n_current: int, gathered: bool) -> None:
    codes = codes_of(N)
    assert (n_current * codes.shape[1] <= 60_000) is gathered
    draws = drawn(rows_of(codes), 2000, n_current)
    share = np.bincount(codes[:, 0], minlength=10) / N
    for counts, n in ((draws.current, n_current), (draws.reference[::4], N)):
        cells = counts[:, :10]
        np.testing.assert_allclose(cells.mean(axis=0), n * share, rtol=0.02)
        np.testing.assert_allclose(cells.var(axis=0), n * share * (1 - share), rtol=0.2)
        np.testing.assert_allclose(counts[:, 11], cells[:, 7:].sum(axis=1), rtol=1e-4)  # tied in every draw
        np.testing.assert_allclose(cells.sum(axis=1), n, rtol=1e-4)


def test_each_reference_serves_four_windows_and_all_are_drawn_anew() -> None:
    draws = drawn(rows_of(codes_of(N)), 40, 100)
    assert len(draws.current) == len(draws.reference) == 40
    assert (draws.reference[0] == draws.reference[3]).all()
    assert (draws.reference[3] != draws.reference[4]).any()
    assert len({tuple(row) for row in draws.current.tolist()}) > 30


def test_the_seed_alone_decides_the_draws() -> None:
    rows = rows_of(codes_of(N))
    first, again, other = (drawn(rows, 8, 100, seed=seed) for seed in (1, 1, 2))
    assert first.current.tolist() == again.current.tolist()
    assert first.current.tolist() != other.current.tolist()


def dependent(n: int, phi: float = 0.95, seed: int = 0) -> np.ndarray:
    """One feature of two cells that stay for a while."""
    noise = np.random.default_rng(seed).normal(size=n)
    return (lfilter([1.0], [1.0, -phi], noise) > 0).astype(int)[:, None]


@pytest.mark.parametrize(("block", "n_current"), [(1, 300), (75, 300), (75, 30_100)])
def test_windows_of_blocks_have_the_variance_of_blocks_of_the_reference(block: int, n_current: int) -> None:
    codes = dependent(N)
    draws = drawn(rows_of(codes), 3000, n_current, block=block)
    doubled = np.concatenate([codes[:, 0], codes[:block, 0]])
    sums = np.array([doubled[i : i + block].sum() for i in range(N)])
    expected = sums.var() / block  # of a sum ÷ its rows, blocks being independent of one another
    for counts, n in ((draws.current[:, 1], n_current), (draws.reference[::4, 1], N)):
        assert counts.mean() == pytest.approx(n * codes.mean(), rel=0.02)
        assert counts.var() / n == pytest.approx(expected, rel=0.2)


def test_a_window_shorter_than_a_block_is_a_run_of_the_reference() -> None:
    codes = np.arange(60)[:, None]
    draws = drawn(rows_of(codes), 200, 7, block=20)
    for counts in draws.current:
        cells = np.flatnonzero(counts)
        assert counts.sum() == len(cells) == 7
        assert sorted((cells - cells[0]) % 60)[-1] == 6 or {0, 59} <= set(cells.tolist())


def test_segments_are_around_one_place_and_leave_the_reference_as_it_is() -> None:
    codes = np.arange(2000)[:, None] // 100
    draws = drawn(rows_of(codes), 300, 100, segments=True, block=100)
    assert (draws.reference == np.bincount(codes[:, 0])).all()
    assert (draws.current.sum(axis=1) == 100).all()
    for counts in draws.current:
        held = np.flatnonzero(counts)
        assert held[-1] - held[0] <= 3  # a window of 100 rows, jittered by half its length on both sides
    assert (draws.current.sum(axis=0) > 0).all()


def test_joint_means_vary_as_means_of_that_many_rows() -> None:
    rng = np.random.default_rng(3)
    joint = rng.normal(1, 2, (N, 3))
    rows = rows_of(codes_of(N), joint)
    draws = drawn(rows, 4000, 500)
    np.testing.assert_allclose(draws.joint_current.mean(axis=0), joint.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(draws.joint_current.var(axis=0), joint.var(axis=0) / 500, rtol=0.15)
    np.testing.assert_allclose(draws.joint_reference[::4].var(axis=0), joint.var(axis=0) / N, rtol=0.15)
    found = Resampler(rows, block=1, segments=False, seed=0).joint_variance
    np.testing.assert_allclose(found, joint.var(axis=0), rtol=0.1)


def test_runs_of_a_longer_reference_stand_for_all_of_it() -> None:
    codes = codes_of(N)
    draws = drawn(rows_of(codes, n_reference=10 * N), 2000, 200)
    share = np.bincount(codes[:, 0], minlength=10) / N
    reference = draws.reference[::4, :10]
    np.testing.assert_allclose(reference.mean(axis=0), 10 * N * share, rtol=0.01)
    np.testing.assert_allclose(reference.var(axis=0), 10 * N * share * (1 - share), rtol=0.25)


def test_runs_of_panes_share_one_reference() -> None:
    resampler = Resampler(rows_of(codes_of(N)), block=1, segments=False, seed=0)
    runs = list(resampler.runs(3, 12, 50))
    assert [run.current.shape for run in runs] == [(12, 12)] * 3
    assert [len(run.reference) for run in runs] == [1] * 3
    assert (runs[0].current[:, :10].sum(axis=1) == 50).all()


@pytest.mark.parametrize(("n", "width"), [(7, 1), (7, 3), (7, 7)])
def test_circular_sums_go_round(n: int, width: int) -> None:
    tables = np.arange(n * 2, dtype=np.float32).reshape(n, 2)
    expected = [[sum(tables[(i + k) % n, c] for k in range(width)) for c in range(2)] for i in range(n)]
    assert circular_sums(tables, width).tolist() == expected


@pytest.mark.parametrize(("n", "base"), [(10, 3), (12, 3), (5, 1), (2, 5)])
def test_block_sums_hold_every_row_once(n: int, base: int) -> None:
    rows = np.arange(n * 2, dtype=float).reshape(n, 2)
    sums = block_sums(rows, base)
    assert len(sums) == max(1, n // base)
    assert sums.sum(axis=0).tolist() == rows.sum(axis=0).tolist()
    assert sums[0].tolist() == rows[: base if n >= 2 * base else n].sum(axis=0).tolist()

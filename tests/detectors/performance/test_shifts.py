"""Label shift, loss shift, and how far cells moved: against truth, and under nothing."""

import numpy as np
import pytest
from scipy.stats import chi2, norm

from detectors.basis import basis
from detectors.grid import Grid, numeric_feature
from detectors.performance import label_shift, loss_shift
from detectors.performance.moves import as_z, moves

GIVEN = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])  # prediction cell by label


def test_label_shares_from_predictions_are_those_of_the_inverted_confusion_matrix() -> None:
    rng = np.random.default_rng(1)
    reference = np.array([rng.multinomial(7000, GIVEN[0]), rng.multinomial(3000, GIVEN[1])]).astype(float)
    current = rng.multinomial(200_000, 0.4 * GIVEN[0] + 0.6 * GIVEN[1]).astype(float)
    found = label_shift.from_predictions(reference, current)
    matrix = np.array([reference[:, 0] + reference[:, 1], reference[:, 2]])  # two cells pooled: a square one
    black_box = np.linalg.solve(matrix / 10_000, np.array([current[:2].sum(), current[2]]) / 200_000)
    assert found.now == pytest.approx(black_box * [0.7, 0.3], abs=0.02)
    assert found.now[1] == pytest.approx(0.6, abs=0.02)
    assert found.z > 20
    assert found.source == "estimate"


def test_label_shares_that_did_not_move_are_seldom_said_to_have() -> None:
    rng = np.random.default_rng(2)
    z = []
    for _ in range(400):
        reference = np.array([rng.multinomial(2800, GIVEN[0]), rng.multinomial(1200, GIVEN[1])]).astype(float)
        current = rng.multinomial(1000, 0.7 * GIVEN[0] + 0.3 * GIVEN[1]).astype(float)
        z.append(label_shift.from_predictions(reference, current).z)
    assert np.mean(np.array(z) > as_z(chi2.isf(0.05, 1), 1)) < 0.09
    from_labels = [
        label_shift.from_labels(*(rng.multinomial(n, [0.5, 0.3, 0.2]).astype(float) for n in (4000, 1000))).z
        for _ in range(400)
    ]
    assert 0.02 < np.mean(np.array(from_labels) > as_z(chi2.isf(0.05, 2), 2)) < 0.09


def test_counts_to_expect_under_other_labels_are_a_mixture() -> None:
    counts = np.array([[60.0, 40.0], [10.0, 90.0]])
    shift = label_shift.LabelShift(np.array([0.5, 0.5]), np.array([0.25, 0.75]), 9.0, "labels")
    assert label_shift.expected(shift, counts).tolist() == [45.0, 155.0]


@pytest.mark.parametrize("degrees", [1, 4, 19])
def test_a_chi_square_in_standard_errors_has_the_same_tail(degrees: int) -> None:
    for p in (0.01, 1e-4, 1e-8):
        assert as_z(chi2.isf(p, degrees), degrees) == pytest.approx(norm.isf(p), abs=0.5)
    assert as_z(0.0, degrees) == 0.0


def test_moves_are_told_in_standard_errors_and_are_none_under_nothing() -> None:
    rng = np.random.default_rng(3)
    columns = {"still": rng.normal(size=10_000), "moved": rng.normal(size=10_000)}
    grid = Grid(tuple(numeric_feature(name, values) for name, values in columns.items()))
    codes = grid.encode(columns, {})
    measures = basis(grid, grid.count(codes), columns, n_current=500, codes=codes)
    square = []
    for _ in range(200):
        today = {"still": rng.normal(size=500), "moved": rng.normal(0.5, 1, 500)}
        found = moves(measures, grid.count(codes), grid.count(grid.encode(today, {})), np.arange(2), 10_000)
        assert found.z[1] > 5
        assert found.z[0] < 4.5
        square.append(found.square[0])
    degrees = measures.group_starts[1] - 1
    assert np.mean(square) == pytest.approx(degrees, abs=3 * np.std(square) / np.sqrt(200))


def test_the_parts_of_a_loss_are_its_change_and_their_errors_hold() -> None:
    """The rest, where nothing but X moved, stays within two standard errors in 95 of 100 windows, as its error says."""
    rng = np.random.default_rng(4)
    mean, variance = np.array([1.0, 2.0]), np.array([1.0, 4.0])
    z = []
    for _ in range(300):
        rows = rng.multinomial(3000, [0.5, 0.5]).astype(float)
        told = np.array([rng.normal(m, np.sqrt(v / n)) for m, v, n in zip(mean, variance, rows, strict=True)])
        label = (rng.random(800) < 0.8).astype(int)
        loss = rng.normal(mean[label], np.sqrt(variance[label]))
        found = loss_shift.by_labels(
            np.bincount(label, minlength=2).astype(float),
            loss.sum(),
            (loss**2).sum(),
            mean=told,
            variance=variance,
            rows=rows,
        )
        assert found.now - found.before == pytest.approx(found.explained + found.rest)
        z.append(found.z)
        expected = told[label]
        sums = np.array([f.sum() for f in (np.ones(800), loss, loss**2, expected, expected**2, loss * expected)])
        noise = variance.mean() / (told**2).mean()
        same = loss_shift.by_features(sums, before=found.before, dispersion=noise, n_reference=3000, distance=0.36)
        assert (same.explained, same.rest) == (pytest.approx(found.explained), pytest.approx(found.rest))
        assert same.rest_error == pytest.approx(found.rest_error, rel=0.25)
    assert 0.91 <= np.mean(np.abs(z) < 1.96) <= 0.985

"""Binary performance without labels."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.performance.confidence import Confidence, confidence, steps
from detectors.performance.scores import Scores, score_edges

REALISED = ("accuracy", "precision", "recall", "f1", "specificity", "roc_auc", "pr_auc", "log_loss", "brier")


def rows(n: int, rng: np.random.Generator, a: float = 1.0, b: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are too bold, and labels."""
    p = rng.beta(a, b, n)
    return p, (rng.random(n) < 0.15 + 0.7 * p).astype(float)


def learnt(n: int, rng: np.random.Generator) -> tuple[Scores, Confidence]:
    p, y = rows(n, rng)
    scores = Scores(score_edges(p, 0.5))
    return scores, confidence(scores, scores.count(p, y))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
@settings(deadline=None)
def test_isotonic_shares_equal_the_max_min_formula(cells: list[tuple[int, int]]) -> None:
    hits, rest = (np.array(side, float) for side in zip(*cells, strict=True))
    n = hits + rest
    block = steps(hits, n)
    share = (np.bincount(block, hits) / np.maximum(np.bincount(block, n), 1))[block]
    filled = np.flatnonzero(n)
    for i in filled:
        means = [[hits[a : b + 1].sum() / n[a : b + 1].sum() for b in filled[filled >= i]] for a in filled[filled <= i]]
        assert share[i] == pytest.approx(max(min(row) for row in means))
    assert (np.diff(share) >= -1e-12).all() or not n.all()


def test_estimates_of_the_reference_itself_are_its_realised_metrics() -> None:
    rng = np.random.default_rng(1)
    p, y = rows(20_000, rng)
    scores = Scores(score_edges(p, 0.5))
    sums = scores.count(p, y)
    estimates = confidence(scores, sums).metrics(sum(scores.histogram(sums)[:2], np.zeros(scores.n_cells)))
    realised = {m.metric: m.value for m in scores.metrics(sums)}
    for metric in estimates:
        assert metric.value == pytest.approx(realised[metric.metric], abs=0.004), metric.metric


@pytest.mark.parametrize("n_reference", [1000, 20_000])
def test_under_covariate_shift_the_interval_holds_the_realised_value(n_reference: int) -> None:
    rng = np.random.default_rng(2)
    inside = dict.fromkeys(REALISED, 0)
    n_runs = 150
    for _ in range(n_runs):
        scores, estimator = learnt(n_reference, rng)
        p, y = rows(800, rng, 2.0, 2.0)
        sums = scores.count(p, y)
        realised = {m.metric: m for m in scores.metrics(sums)}
        negatives, positives, _ = scores.histogram(sums)
        for metric in estimator.metrics(negatives + positives):
            value = realised[metric.metric].value
            assert metric.low is not None
            assert metric.high is not None
            assert value is not None
            inside[metric.metric] += metric.low <= value <= metric.high
    assert min(inside.values()) >= 0.88 * n_runs, inside


def test_a_concept_drift_moves_no_estimate() -> None:
    rng = np.random.default_rng(3)
    scores, estimator = learnt(20_000, rng)
    p, _ = rows(2000, rng)
    before, after = (
        estimator.metrics(sum(scores.histogram(scores.count(p, label))[:2], np.zeros(scores.n_cells)))
        for label in (np.zeros(2000), np.ones(2000))
    )
    assert before == after


def test_what_cannot_be_estimated_has_a_reason() -> None:
    rng = np.random.default_rng(4)
    scores, estimator = learnt(2000, rng)
    assert {m.reason for m in estimator.metrics(np.zeros(scores.n_cells))} == {"no_rows"}
    low = np.zeros(scores.n_cells)
    low[5] = 30
    found = {m.metric: m for m in estimator.metrics(low)}
    assert found["precision"].reason == "no_predicted_positives"
    assert found["accuracy"].value is not None
    with pytest.raises(ValueError, match="Give a reference with labels"):
        confidence(scores, np.zeros(scores.size))
    never = confidence(scores, scores.count(np.linspace(0, 1, 50), np.zeros(50)))
    assert {m.reason for m in never.metrics(np.ones(scores.n_cells)) if m.metric == "roc_auc"} == {
        "no_positives_expected"
    }


def car_loan(folder: Path, name: str, *columns: str) -> np.ndarray:
    path = folder / "car_loan" / f"car_loan_{name}.csv.gz"
    if not path.exists():
        pytest.skip("car_loan is not here: DRIFTWATCH_TEST_DATA names the folder of real data")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return np.array([[float(row[c]) for c in columns] for row in csv.DictReader(file)])


def test_the_roc_auc_of_car_loans_is_estimated_within_half_a_percent(data_folder: Path) -> None:
    p, y = car_loan(data_folder, "reference", "y_pred_proba", "repaid").T
    today = car_loan(data_folder, "analysis", "y_pred_proba")[:, 0]
    truth = car_loan(data_folder, "analysis_target", "repaid")[:, 0]
    scores = Scores(score_edges(p, 0.5))
    estimator, errors = confidence(scores, scores.count(p, y)), []
    for first in range(0, 50_000, 5000):
        sums = scores.count(today[first : first + 5000], truth[first : first + 5000])
        negatives, positives, _ = scores.histogram(sums)
        realised = {m.metric: m.value for m in scores.metrics(sums)}["roc_auc"]
        estimate = {m.metric: m.value for m in estimator.metrics(negatives + positives)}["roc_auc"]
        assert estimate is not None
        assert realised is not None
        errors.append(abs(estimate - realised))
    assert np.mean(errors) < 0.005

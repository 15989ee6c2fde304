"""Every metric out of sums: against plain loops, against scikit-learn where it is installed, and as sums that add."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.performance import pr_auc, roc_auc
from detectors.performance.confusion import Confusion
from detectors.performance.metric import Metric
from detectors.performance.multiclass import Multiclass
from detectors.performance.regression import Regression
from detectors.performance.scores import GROUPS, Scores, score_edges
from detectors.performance.tally import Tally, tally_of


def by_name(metrics: tuple[Metric, ...]) -> dict[str, Metric]:
    return {m.metric: m for m in metrics}


def values(tally: Tally, prediction: np.ndarray, label: np.ndarray) -> dict[str, float | None]:
    return {m.metric: m.value for m in tally.metrics(tally.count(prediction, label))}


def scored(n: int, seed: int, decimals: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that are a little off."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(1.2, 2.0, n)
    return np.round(truth**0.8, decimals), (rng.random(n) < truth).astype(float)


def pairwise_auc(p: np.ndarray, y: np.ndarray) -> float:
    gaps = p[y == 1][:, None] - p[y == 0][None, :]
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())


def average_precision(p: np.ndarray, y: np.ndarray) -> float:
    total, before = 0.0, 0.0
    for cut in np.unique(p)[::-1]:
        called = p >= cut
        recall = y[called].sum() / y.sum()
        total += (recall - before) * y[called].mean()
        before = recall
    return total


def test_metrics_of_probabilities_equal_plain_loops_where_every_score_has_a_cell() -> None:
    p, y = scored(800, 1)
    got = values(Scores(score_edges(np.linspace(0, 1, 101).round(2), 0.5)), p, y)
    called = p >= 0.5
    tp, fp, fn = (called & (y == 1)).sum(), (called & (y == 0)).sum(), (~called & (y == 1)).sum()
    assert got["accuracy"] == pytest.approx((called == y).mean())
    assert got["precision"] == pytest.approx(tp / (tp + fp))
    assert got["recall"] == pytest.approx(tp / (tp + fn))
    assert got["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert got["specificity"] == pytest.approx((~called & (y == 0)).sum() / (y == 0).sum())
    assert got["roc_auc"] == pytest.approx(pairwise_auc(p, y))
    assert got["pr_auc"] == pytest.approx(average_precision(p, y))
    assert got["brier"] == pytest.approx(((p - y) ** 2).mean())
    clipped = np.clip(p, 1e-15, 1 - 1e-15)
    assert got["log_loss"] == pytest.approx(-np.mean(y * np.log(clipped) + (1 - y) * np.log(1 - clipped)))


def test_calibration_error_is_the_weighted_gap_of_ten_equal_groups() -> None:
    rng = np.random.default_rng(2)
    p = np.repeat(np.linspace(0.05, 0.95, GROUPS), 50)
    y = (rng.random(len(p)) < p**2).astype(float)
    groups = y.reshape(GROUPS, 50)
    expected = np.abs(groups.mean(axis=1) - np.linspace(0.05, 0.95, GROUPS)).mean()
    assert values(Scores(score_edges(p, 0.5)), p, y)["calibration_error"] == pytest.approx(expected)


@pytest.mark.parametrize("power", [1.0, 4.0])
def test_areas_of_a_histogram_lie_within_their_stated_bounds(power: float) -> None:
    rng = np.random.default_rng(3)
    reference = rng.random(20_000)
    tally = Scores(score_edges(reference, 0.5))
    for _ in range(20):
        p = rng.random(1000) ** rng.uniform(0.5, 2)
        y = (rng.random(1000) < p**power).astype(float)
        negatives, positives, _ = tally.histogram(tally.count(p, y))
        exact, bound = pairwise_auc(p, y), roc_auc.error_bound(positives, negatives)
        assert abs(roc_auc.value(positives, negatives) - exact) <= bound < 0.012
        assert abs(roc_auc.value(positives, negatives) - exact) < 0.0015
        low, high = pr_auc.bounds(positives, negatives)
        assert low <= average_precision(p, y) <= high
        assert low <= pr_auc.value(positives, negatives) <= high


@pytest.mark.parametrize("area", [roc_auc, pr_auc])
def test_the_gradient_of_an_area_is_what_one_row_more_adds(area: Any) -> None:
    rng = np.random.default_rng(4)
    positives, negatives = rng.integers(0, 90, (2, 12)).astype(float)
    up, down = area.gradient(positives, negatives)
    step = 1e-4
    for cell in range(12):
        one = step * (np.arange(12) == cell)
        here = area.value(positives, negatives)
        assert (area.value(positives + one, negatives) - here) / step == pytest.approx(up[cell], rel=1e-3, abs=1e-7)
        assert (area.value(positives, negatives + one) - here) / step == pytest.approx(down[cell], rel=1e-3, abs=1e-7)


def test_metrics_of_a_regression_equal_plain_loops() -> None:
    rng = np.random.default_rng(5)
    y = 1e6 + rng.gamma(2.0, 3.0, 500)
    prediction = y + rng.normal(0.5, 2.0, 500)
    got = values(Regression(1e6), prediction, y)
    e = prediction - y
    assert got["mae"] == pytest.approx(np.abs(e).mean())
    assert got["rmse"] == pytest.approx(np.sqrt((e**2).mean()))
    assert got["bias"] == pytest.approx(e.mean())
    assert got["r2"] == pytest.approx(1 - (e**2).mean() / y.var(), rel=1e-9)


def test_multiclass_metrics_average_over_the_classes_that_occur() -> None:
    tally = Multiclass(("a", "b", "c", "d"))
    truth = ["a"] * 6 + ["b"] * 3 + ["c"] * 2 + ["new"] * 2
    guess = ["a"] * 5 + ["b"] + ["b"] * 2 + ["a"] + ["b"] * 2 + ["new", "other"]
    got = values(tally, tally.codes(guess), tally.codes(truth))
    assert got["accuracy"] == pytest.approx(8 / 13)
    assert got["macro_precision"] == pytest.approx((5 / 6 + 2 / 5 + 0) / 3)
    assert got["macro_recall"] == pytest.approx((5 / 6 + 2 / 3 + 0) / 3)
    assert got["macro_f1"] == pytest.approx((10 / 12 + 4 / 8 + 0) / 3)


def test_metrics_equal_those_of_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    p, y = scored(3000, 6)
    got, called = values(Scores(score_edges(np.linspace(0, 1, 101).round(2), 0.5)), p, y), p >= 0.5
    for name, expected in {
        "accuracy": sk.accuracy_score(y, called),
        "precision": sk.precision_score(y, called),
        "recall": sk.recall_score(y, called),
        "f1": sk.f1_score(y, called),
        "specificity": sk.recall_score(1 - y, ~called),
        "roc_auc": sk.roc_auc_score(y, p),
        "pr_auc": sk.average_precision_score(y, p),
        "log_loss": sk.log_loss(y, np.clip(p, 1e-15, 1 - 1e-15)),
        "brier": sk.brier_score_loss(y, p),
    }.items():
        assert got[name] == pytest.approx(expected, rel=1e-9), name
    rng = np.random.default_rng(7)
    truth, tally = rng.integers(0, 5, 900), Multiclass(tuple("abcdef"))
    guess = np.where(rng.random(900) < 0.6, truth, rng.integers(0, 4, 900))
    classes = values(tally, guess, truth)
    scores = sk.precision_recall_fscore_support(truth, guess, average="macro", zero_division=0)[:3]
    assert [classes[f"macro_{m}"] for m in ("precision", "recall", "f1")] == pytest.approx(list(scores))
    label = rng.gamma(2.0, 3.0, 900)
    guessed = label + rng.normal(size=900)
    number = values(Regression(5.0), guessed, label)
    assert number["r2"] == pytest.approx(sk.r2_score(label, guessed))
    assert number["mae"] == pytest.approx(sk.mean_absolute_error(label, guessed))


def coverage(draw: Any, tally: Tally, metric: str, truth: float) -> float:
    """Share of 400 samples whose interval holds the truth."""
    inside = 0
    for _ in range(400):
        found = by_name(tally.metrics(tally.count(*draw())))[metric]
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= truth <= found.high
    return inside / 400


def test_intervals_hold_what_they_promise() -> None:
    """95 % intervals cover between 92 and 98 % of the time (three standard errors of 400 samples are .033)."""
    rng = np.random.default_rng(8)

    def rows(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
        p = rng.beta(1.0, 2.0, n)
        return p, (rng.random(n) < p**1.3).astype(float)

    scores = Scores(score_edges(rows(50_000)[0], 0.5))
    truth = {m.metric: m.value for m in scores.metrics(scores.count(*rows(2_000_000)))}
    for name in ("accuracy", "precision", "recall", "f1", "specificity", "roc_auc", "pr_auc", "log_loss", "brier"):
        assert 0.92 <= coverage(rows, scores, name, truth[name] or 0.0) <= 0.985, name
    assert coverage(rows, scores, "calibration_error", truth["calibration_error"] or 0.0) >= 0.92

    def numbers(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
        y = rng.gamma(4.0, 1.0, n)
        return y + rng.normal(0.3, 0.4 + 0.2 * y), y

    number = Regression(4.0)
    truth = {m.metric: m.value for m in number.metrics(number.count(*numbers(2_000_000)))}
    for name in ("mae", "rmse", "bias", "r2"):
        assert 0.915 <= coverage(numbers, number, name, truth[name] or 0.0) <= 0.985, name

    def classes(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
        y = rng.choice(4, n, p=[0.5, 0.25, 0.15, 0.1])
        return np.where(rng.random(n) < 0.7, y, rng.integers(0, 4, n)), y

    many = Multiclass(tuple("abcd"))
    truth = {m.metric: m.value for m in many.metrics(many.count(*classes(2_000_000)))}
    for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1"):
        assert 0.92 <= coverage(classes, many, name, truth[name] or 0.0) <= 0.985, name


def test_what_is_not_defined_has_a_reason_and_no_number() -> None:
    scores = Scores(score_edges(np.random.default_rng(9).random(500), 0.5))
    for metric in scores.metrics(np.zeros(scores.size)):
        assert (metric.value, metric.low, metric.high) == (None, None, None)
        assert metric.reason in {"no_labels", "too_few_labels"}
    only_zero = by_name(scores.metrics(scores.count(np.full(9, 0.2), np.zeros(9))))
    assert only_zero["roc_auc"].reason == only_zero["pr_auc"].reason == "no_positives"
    assert only_zero["recall"].reason == "no_positives"
    assert only_zero["precision"].reason == "no_predicted_positives"
    assert only_zero["accuracy"].value == only_zero["specificity"].value == 1.0
    number = by_name(Regression().metrics(Regression().count(np.arange(5.0), np.full(5, 3.0))))
    assert number["r2"].reason == "constant_label"
    assert by_name(Regression().metrics(Regression().count(np.array([1e200, 0.0]), np.zeros(2))))["rmse"].reason
    unknown = Multiclass(("a", "b"))
    metrics = by_name(unknown.metrics(unknown.count(unknown.codes(["x", "y"]), unknown.codes(["x", "x"]))))
    assert metrics["accuracy"].value == 0.5
    assert metrics["macro_f1"].reason == "no_known_class"


def test_perfect_scores_have_an_interval_too() -> None:
    scores = Scores(score_edges(np.linspace(0, 1, 101), 0.5))
    y = np.repeat([0.0, 1.0], 20)
    found = by_name(scores.metrics(scores.count(np.where(y == 1, 0.9, 0.1), y)))
    assert found["roc_auc"].value == found["roc_auc"].high == 1.0
    assert found["roc_auc"].low == pytest.approx(0.839, abs=0.01)


def test_rows_that_cannot_be_compared_are_left_out_and_counted() -> None:
    scores = Scores(score_edges(np.linspace(0, 1, 101), 0.5))
    sums = scores.count(np.array([0.2, np.nan, 1.5, -0.1, 0.7, np.inf]), np.array([0.0, 1.0, 1.0, 0.0, 2.0, 1.0]))
    assert sums[0] == 5
    assert by_name(scores.metrics(sums))["accuracy"].n == 1
    hard = Confusion().count(np.array([1.0, 1.0, 0.0, 0.0, np.nan, 1.0]), np.array([1.0, 0.0, 1.0, 0.0, 1.0, np.nan]))
    assert hard.tolist() == [2, 1, 1, 1, 1]
    assert Regression().count(np.array([1.0, np.inf, 2.0]), np.array([1.0, 1.0, np.nan]))[:2].tolist() == [2, 1]
    many = Multiclass(("a",))
    assert many.count(many.codes(["a", None]), many.codes([None, "a"]))[0] == 2


def test_edges_without_the_threshold_are_refused() -> None:
    with pytest.raises(ValueError, match="make them by `score_edges`"):
        Scores(np.array([0.2, 0.8]), 0.5)


TALLIES: dict[str, Tally] = {
    "scores": Scores(score_edges(np.linspace(0, 1, 50), 0.3), 0.3),
    "confusion": Confusion(),
    "multiclass": Multiclass(("a", "b", "c")),
    "regression": Regression(2.0),
}
ROWS = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0, np.nan]), st.sampled_from([0.0, 1.0, np.nan])))


@pytest.mark.parametrize("name", TALLIES)
@given(rows=ROWS, cut=st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_the_sums_of_two_batches_are_those_of_their_concatenation(
    name: str, rows: list[tuple[float, float]], cut: int
) -> None:
    tally = TALLIES[name]
    sides = np.array(rows, float).reshape(-1, 2).T
    prediction, label = np.nan_to_num(sides, nan=-1.0).astype(int) if name == "multiclass" else sides
    parts = tally.count(prediction[:cut], label[:cut]) + tally.count(prediction[cut:], label[cut:])
    np.testing.assert_allclose(parts, tally.count(prediction, label), rtol=1e-12, atol=1e-12)
    assert len(parts) == tally.size


def test_the_reference_fixes_the_tally() -> None:
    rng = np.random.default_rng(10)
    p, y = rng.random(1000), rng.integers(0, 2, 1000).astype(float)
    assert isinstance(tally_of("probability", p, y, threshold=0.3), Scores)
    assert isinstance(tally_of("binary", y, y), Confusion)
    assert tally_of("categorical", ["b", "a", None], ["a", "a", "c"]) == Multiclass(("a", "b", "c"))
    assert tally_of("numeric", p, np.array([np.nan, 3.0, 5.0])) == Regression(4.0)

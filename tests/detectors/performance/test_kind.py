"""Which kind of drift a window shows."""

from functools import cache

import numpy as np
import pytest
from worlds import WEIGHTS, Columns, Place, answers, features, says

from detectors.performance.kind import Kind, Learnt, kind_of
from detectors.performance.tally import PredictionKind

KINDS: tuple[PredictionKind, ...] = ("probability", "numeric", "binary")


@cache
def place(kind: PredictionKind) -> Place:
    return Place(kind)


def both(at: Place, columns: Columns, label: np.ndarray) -> tuple[Kind, Kind]:
    """Before labels, and with them."""
    counts, labelled = at.window(columns, label)
    return kind_of(at.learnt, counts), kind_of(at.learnt, counts, labelled)


@pytest.mark.parametrize("kind", KINDS)
def test_a_moved_feature_is_covariate_drift(kind: PredictionKind) -> None:
    rng = np.random.default_rng(1)
    columns = features(1500, rng)
    columns["b"] += 5
    early, late = both(place(kind), columns, answers(kind, says(columns), rng))
    assert early.kind == late.kind == "covariate"
    assert early.suggestion == "watch"
    assert early.evidence[0].startswith("`b` moved: ")


@pytest.mark.parametrize("kind", KINDS)
def test_moved_label_shares_are_prior_drift_before_labels_and_with_them(kind: PredictionKind) -> None:
    rng = np.random.default_rng(2)
    pool = features(20_000, rng)
    label = answers(kind, says(pool), rng)
    weight = np.exp(np.clip((label - label.mean()) / label.std(), -3, 3) * 0.6)
    kept = rng.choice(len(label), 1500, p=weight / weight.sum())
    for found in both(place(kind), {name: values[kept] for name, values in pool.items()}, label[kept]):
        assert (found.kind, found.suggestion) == ("prior", "recalibrate")
        assert "in the reference" in found.evidence[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_rule_is_concept_drift_once_labels_are_there(kind: PredictionKind) -> None:
    rng = np.random.default_rng(3)
    columns = features(1500, rng)
    label = answers(kind, says(columns, WEIGHTS * np.array([-1, 1, 1])), rng)
    early, late = both(place(kind), columns, label)
    assert early.evidence == ()
    assert (late.kind, late.suggestion) == ("concept", "retrain")
    assert "is left" in late.evidence[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_column_is_a_matter_of_data_quality_whatever_the_loss_says(kind: PredictionKind) -> None:
    rng = np.random.default_rng(4)
    columns = features(1500, rng)
    label = answers(kind, says(columns), rng)
    for name, values, words in (
        ("c", columns["c"] * 1000, "times the reference's values"),
        ("a", np.where(rng.random(1500) < 0.3, np.nan, columns["a"]), "are missing"),
        ("b", np.full(1500, 3.25), "are between"),
        ("group", np.where(rng.random(1500) < 0.2, "new", columns["group"]).astype(object), "never had"),
    ):
        for found in both(place(kind), {**columns, name: values}, label):
            assert (found.kind, found.suggestion) == ("data_quality", "fix_the_pipeline"), name
            assert words in found.evidence[0]


def test_a_small_fault_does_not_hide_a_concept_drift() -> None:
    rng = np.random.default_rng(5)
    columns = features(1500, rng)
    label = answers("probability", says(columns, -WEIGHTS), rng)
    columns["a"][rng.random(1500) < 0.03] = np.nan
    early, late = both(place("probability"), columns, label)
    assert early.kind == "data_quality"
    assert late.kind == "concept"


def test_covariate_drift_that_hurts_asks_for_retraining() -> None:
    rng = np.random.default_rng(6)
    columns = features(3000, rng)
    columns["a"] = columns["a"] * 0.2 + 0.1
    columns["c"] = columns["c"] ** 0.3
    columns["b"] *= 0.3
    _, late = both(place("probability"), columns, answers("probability", says(columns), rng))
    assert (late.kind, late.suggestion) == ("covariate", "retrain")


def test_a_reference_without_labels_and_a_window_without_rows_are_no_trouble() -> None:
    at = place("probability")
    plain = Learnt(at.learnt.basis, at.learnt.counts, at.learnt.features)
    columns = features(1000, np.random.default_rng(7))
    columns["a"] += 1
    counts, labelled = at.window(columns, np.full(1000, np.nan))
    assert labelled.tolist() == [0.0] * 8
    assert kind_of(plain, counts).kind == "covariate"
    assert kind_of(at.learnt, counts, labelled).kind == "covariate"
    assert kind_of(at.learnt, np.zeros(at.grid.n_cells)) == Kind("covariate", (), "watch")


def test_sums_of_labelled_rows_add() -> None:
    at, rng = place("numeric"), np.random.default_rng(8)
    columns = features(600, rng)
    label = answers("numeric", says(columns), rng)
    halves = [
        at.window({k: v[part] for k, v in columns.items()}, label[part]) for part in (slice(200), slice(200, None))
    ]
    for whole, first, second in zip(at.window(columns, label), *halves, strict=True):
        np.testing.assert_allclose(whole, first + second, rtol=1e-12)

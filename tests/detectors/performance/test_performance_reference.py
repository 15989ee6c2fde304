"""All that performance needs of a reference, and back from plain arrays."""

import io
from functools import cache

import numpy as np
import pytest
from worlds import Place, answers, features, predicted, says

from detectors.performance.kind import Learnt, kind_of
from detectors.performance.reference import PerformanceReference, performance_reference, ranges
from detectors.performance.tally import PredictionKind


@cache
def place(kind: PredictionKind) -> Place:
    return Place(kind)


@pytest.mark.parametrize("kind", ["probability", "numeric", "binary"])
def test_a_reference_is_the_same_after_a_round_through_an_archive_without_pickle(kind: PredictionKind) -> None:
    at, file = place(kind), io.BytesIO()
    np.savez(file, **at.performance.to_arrays())
    file.seek(0)
    back = PerformanceReference.from_arrays(np.load(file, allow_pickle=False))
    rng = np.random.default_rng(1)
    columns = features(500, rng)
    label, prediction = answers(kind, says(columns), rng), predicted(kind, columns)
    assert back.tally.metrics(back.tally.count(prediction, label)) == at.performance.tally.metrics(
        at.performance.tally.count(prediction, label)
    )
    assert back.tally.metrics(back.sums) == at.performance.tally.metrics(at.performance.sums)
    counts, labelled = at.window(columns, label)
    learnt = Learnt(at.learnt.basis, at.learnt.counts, at.learnt.features, at.learnt.prediction, back.labels)
    assert kind_of(learnt, counts, labelled) == kind_of(at.learnt, counts, labelled)
    codes = at.grid.encode({**columns, "prediction": prediction}, {})
    if kind != "probability":
        assert back.direct_loss is not None
        assert at.performance.direct_loss is not None
        np.testing.assert_array_equal(back.direct_loss.rows(codes), at.performance.direct_loss.rows(codes))
    if kind == "probability":
        assert back.confidence is not None
        assert at.performance.confidence is not None
        np.testing.assert_array_equal(back.confidence.share, at.performance.confidence.share)
    else:
        assert back.confidence is None


def test_classes_have_a_group_each_and_others_one() -> None:
    at, rng = place("binary"), np.random.default_rng(2)
    columns = features(800, rng)
    codes = at.grid.encode({**columns, "prediction": predicted("binary", columns)}, {})
    truth = rng.choice(np.array(["cat", "dog", "emu"]), 800)
    made = performance_reference("categorical", truth.tolist(), truth.tolist(), learnt=at.learnt, codes=codes)
    assert made.labels.names == ("cat", "dog", "emu", "others")
    assert made.labels.rows.tolist() == [*((truth == c).sum() for c in ("cat", "dog", "emu")), 0]
    assert made.labels.model.mean == 0
    back = PerformanceReference.from_arrays(made.to_arrays())
    assert back.group(np.array([0, 2, 77, -1])).tolist() == [0, 2, 3, -1]
    assert {m.metric: m.value for m in back.tally.metrics(back.sums)}["macro_f1"] == 1.0


def test_groups_of_numbers_are_told_by_their_range() -> None:
    assert ranges(np.array([1.0, 2.5])) == ("at most 1", "above 1 to 2.5", "above 2.5")
    assert ranges(np.empty(0)) == ("any",)


def test_cells_of_the_grid_that_part_at_the_threshold_are_score_cells_too() -> None:
    at, rng = place("probability"), np.random.default_rng(3)
    columns = features(2000, rng)
    label = answers("probability", says(columns), rng)
    counts, _ = at.window(columns, label)
    assert at.performance.confidence is not None
    found = {m.metric: m for m in at.performance.confidence.metrics(counts[at.grid.slice(4)])}
    tally = at.performance.tally
    for metric in tally.metrics(tally.count(predicted("probability", columns), label)):
        if metric.metric != "calibration_error":
            assert found[metric.metric].value == pytest.approx(metric.value, abs=0.04), metric.metric

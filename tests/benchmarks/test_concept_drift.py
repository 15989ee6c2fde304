"""Handing errors in by blocks, which the benchmark does for speed, gives what a plain loop over rows gives."""

from typing import Any

import numpy as np
import pytest

naive_bayes = pytest.importorskip("river.naive_bayes", reason="needs river: pip install 'driftwatch-sidecar[analysis]'")
drift = pytest.importorskip("river.drift")
synth = pytest.importorskip("river.datasets.synth")

from benchmarks.concept_drift import Stream, alarmed, balanced, judged  # noqa: E402 - without river it cannot be imported
from detectors.score import Score  # noqa: E402
from detectors.sequential import river_detectors  # noqa: E402
from detectors.sequential.change import Answer, Change  # noqa: E402
from detectors.sequential.glr import GLR  # noqa: E402


def small(n: int) -> Stream:
    """SINE, whose classes change places every n rows."""
    parts = [balanced(synth.Sine(classification_function=c, seed=c), n) for c in (0, 1, 0)]
    rows, classes = zip(*(row for part in parts for row in part), strict=True)
    return Stream(
        "small", "abrupto", [{i: float(x) for i, x in enumerate(row.values())} for row in rows], list(classes)
    )


def test_by_blocks_the_alarms_are_those_of_a_loop_over_rows() -> None:
    stream = small(600)
    model, theirs, rows = naive_bayes.GaussianNB(), drift.binary.HDDMA(), []
    for i, (x, y) in enumerate(zip(stream.rows, stream.classes, strict=True)):
        error = float(model.predict_one(x) != y)
        model.learn_one(x, y)
        theirs.update(error)
        if theirs.drift_detected:
            rows.append(i)
            model, theirs = naive_bayes.GaussianNB(), drift.binary.HDDMA()
    assert [row for row, _ in alarmed(stream, river_detectors.HDDMA())] == rows
    assert len(rows) >= 2


def test_both_drifts_are_found_soon_and_dated() -> None:
    said = list(alarmed(small(600), GLR()))
    assert [row // 600 for row, _ in said] == [1, 2]
    assert all(row % 600 < 50 for row, _ in said)
    assert all(abs(began - 600 * (i + 1)) < 20 for i, (_, began) in enumerate(said))


class Fixed:
    """Alarms at given rows after a start, whatever it sees."""

    def __init__(self, *rows: int) -> None:
        self.rows = list(rows)

    def init(self) -> int:
        return 0

    def update(self, state: int, values: np.ndarray, times_s: Any = None) -> tuple[int, Any]:
        found = [row for row in self.rows[:1] if row < state + len(values)]
        if found:
            self.rows.pop(0)
        changes = tuple(Change(row, None, None, None, None, None, None) for row in found)
        return state + len(values), Answer(changes, Score("fixed", None, None, None, 0, 0), 0)


def test_alarms_are_hits_repeats_and_false_by_the_stated_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "errors", lambda self, start, first, end: np.zeros(end - first))
    stream = Stream("flat", "abrupto", [{0: 0.0}] * 40_000, [0] * 40_000)
    result = judged(stream, Fixed(9_999, 0, 5, 11_000))
    assert result.alarms == (9_999, 10_000, 10_006, 21_007)
    assert (result.delays, result.false_alarms, result.repeats) == ((0.0, None, None), 2, 1)

"""What a window keeps of predictions and labels: a vector of sums that adds, and the metrics that come out of it.

The sums are a plain float64 vector, so `+` merges two windows and a store keeps its bytes; what the places mean is the
tally's, which the reference fixes.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from detectors.performance.confusion import Confusion
from detectors.performance.metric import Metric
from detectors.performance.multiclass import MAX_CLASSES, Multiclass
from detectors.performance.regression import Regression
from detectors.performance.scores import Scores, score_edges

PredictionKind = Literal["numeric", "probability", "binary", "categorical"]


class Tally(Protocol):
    """Counts predictions against labels."""

    @property
    def size(self) -> int:
        """Length of the sums. The first is how many rows were left out."""
        ...

    def count(self, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The sums of a batch, float64 (size,); sums of two batches add."""
        ...

    def metrics(self, sums: np.ndarray) -> tuple[Metric, ...]:
        """Every metric that the sums define, and why where they do not."""
        ...


def tally_of(kind: PredictionKind, prediction: Any, label: Any, *, threshold: float = 0.5) -> Tally:
    """The tally for one kind of prediction, its cells, classes or centre from the reference's rows.

    `prediction` and `label` are float64 arrays (numeric, probability, binary; a binary label is 0 or 1) or sequences of
    classes as text (categorical), which `Multiclass.codes` turns into what `count` takes.
    """
    if kind == "probability":
        return Scores(score_edges(prediction, threshold), threshold)
    if kind == "binary":
        return Confusion()
    if kind == "categorical":
        return Multiclass(frequent(prediction, label))
    finite = label[np.isfinite(label)]
    return Regression(float(np.median(finite)) if len(finite) else 0.0)


def frequent(prediction: Sequence[str | None], label: Sequence[str | None]) -> tuple[str, ...]:
    """The classes that have their own row and column: the most frequent ones, in the order of their names."""
    counts = Counter(v for side in (label, prediction) for v in side if v is not None)
    return tuple(sorted(sorted(counts, key=lambda c: (-counts[c], c))[:MAX_CLASSES]))

"""What a reference says of predictions and labels: its tally and sums, and which columns come with the labels."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.performance.confusion import Confusion
from detectors.performance.loss import loss
from detectors.performance.metric import Metric
from detectors.performance.multiclass import MAX_CLASSES, Multiclass
from detectors.performance.regression import Regression
from detectors.performance.scores import Scores
from detectors.performance.tally import PredictionKind, Tally, tally_of

LOSS = "loss"  # the column of the loss of each row
ANY_OTHER = ""  # stands for every class that is not named


@dataclass(frozen=True)
class Outcome:
    """How predictions of one kind are held against their labels, and how they fared in the reference.

    `prediction`, `label`: the columns' names. `classes`: what codes stand for; of a binary label (the other class, the
    positive one). `sums`: the tally's sums over the reference, None where it has no labels.
    """

    kind: PredictionKind
    prediction: str
    label: str
    classes: tuple[str, ...]
    tally: Tally
    sums: np.ndarray | None = None

    def loss(self, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The loss of each row, NaN where a side is missing."""
        return loss(self.kind, prediction, label)

    @property
    def reference(self) -> dict[str, Metric]:
        """The reference's metrics by name; none where it has no labels."""
        return {} if self.sums is None else {m.metric: m for m in self.tally.metrics(self.sums)}

    def to_meta(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What JSON can hold, and the arrays."""
        tally, arrays = self.tally, {}
        meta: dict[str, Any] = {"kind": self.kind, "prediction": self.prediction, "label": self.label}
        meta["classes"] = list(self.classes)
        if isinstance(tally, Scores):
            meta["threshold"], arrays["edges"] = tally.threshold, tally.edges
        elif isinstance(tally, Regression):
            meta["centre"] = tally.centre
        if self.sums is not None:
            arrays["sums"] = self.sums
        return meta, arrays

    @classmethod
    def from_meta(cls, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> "Outcome":
        """The inverse of `to_meta`."""
        kind, classes = meta["kind"], tuple(meta["classes"])
        tally: Tally
        if kind == "probability":
            tally = Scores(arrays["edges"], meta["threshold"])
        elif kind == "numeric":
            tally = Regression(meta["centre"])
        else:
            tally = Confusion() if kind == "binary" else Multiclass(classes)
        return cls(kind, meta["prediction"], meta["label"], classes, tally, arrays.get("sums"))


@dataclass(frozen=True)
class Delayed:
    """What comes with the labels: the columns, and how predictions are held against them."""

    columns: frozenset[str] = frozenset()
    outcome: Outcome | None = None


def outcome_of(
    kind: PredictionKind, *, names: tuple[str, str], classes: tuple[str, str] | None, prediction: Any, label: Any
) -> tuple[Outcome, np.ndarray]:
    """The outcome of a reference's rows, and the loss of each.

    `names`: of the prediction's and the label's column. `classes`: of a binary label (the other, the positive one).
    Predictions and labels are float64 with NaN for missing (numeric, probability), else classes as text with None.
    """
    if kind == "categorical":
        tally = tally_of(kind, prediction, label)
        assert isinstance(tally, Multiclass)
        made, p, y = Outcome(kind, *names, tally.classes, tally), tally.codes(prediction), tally.codes(label)
    else:
        known = classes or ()
        y = label if kind == "numeric" else places(label, known)
        p = places(prediction, known) if kind == "binary" else prediction
        made = Outcome(kind, *names, known, tally_of(kind, p, y))
    sums = made.tally.count(p, y)
    return Outcome(kind, *names, made.classes, made.tally, sums), made.loss(p, y)


def plain_outcome(kind: PredictionKind, *, names: tuple[str, str], classes: tuple[str, ...], positive: str) -> Outcome:
    """The outcome where no reference has labels: figures can be told, and nothing is judged.

    `classes`: those of the prediction that are known. Of a binary label every class but `positive` is the other one.
    """
    if kind == "categorical":
        return Outcome(
            kind, *names, tuple(sorted(classes[:MAX_CLASSES])), Multiclass(tuple(sorted(classes[:MAX_CLASSES])))
        )
    known = () if kind == "numeric" else (ANY_OTHER, positive)
    nothing = np.linspace(0, 1, 1025) if kind == "probability" else np.empty(0)
    return Outcome(kind, *names, known, tally_of(kind, nothing, nothing))


def places(values: Any, classes: tuple[str, ...]) -> np.ndarray:
    """The place of each text among the classes, float64; NaN where it has none."""
    place = {c: float(i) for i, c in enumerate(classes)}
    return np.array([place.get(v, np.nan) for v in values], np.float64)

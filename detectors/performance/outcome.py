"""How predictions are held against labels: which columns, what codes stand for, and what the reference says of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from detectors import grid
from detectors.basis import Basis
from detectors.performance.kind import Learnt
from detectors.performance.loss import loss
from detectors.performance.metric import Metric
from detectors.performance.multiclass import MAX_CLASSES, Multiclass
from detectors.performance.reference import PerformanceReference, performance_reference
from detectors.performance.scores import Scores
from detectors.performance.tally import PredictionKind, Tally, tally_of

LOSS = grid.LOSS
ANY_OTHER = ""  # stands for every class that is not named


@dataclass(frozen=True)
class Outcome:
    """How predictions of one kind are held against their labels, and how they fared in the reference.

    `prediction`, `label`: the columns' names. `classes`: what codes stand for; of a binary label (the other class, the
    positive one). `performance`: None where no reference has labels.
    """

    kind: PredictionKind
    prediction: str
    label: str
    classes: tuple[str, ...]
    tally: Tally
    performance: PerformanceReference | None = None

    def loss(self, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The loss of each row, NaN where a side is missing."""
        return loss(self.kind, prediction, label)

    @property
    def size(self) -> int:
        """Length of a window's sums."""
        return self.tally.size if self.performance is None else self.performance.size

    def count(self, prediction: np.ndarray, label: np.ndarray, loss: np.ndarray) -> np.ndarray:
        """The sums of a batch, (size,); the tally's come first."""
        if self.performance is None:
            return self.tally.count(prediction, label)
        return self.performance.count(prediction, label, loss)

    def metrics(self, sums: np.ndarray) -> tuple[Metric, ...]:
        """Every metric that a window's sums define."""
        return self.tally.metrics(sums[: self.tally.size])

    @cached_property
    def reference(self) -> dict[str, Metric]:
        """The reference's metrics by name; none where it has no labels."""
        return {} if self.performance is None else {m.metric: m for m in self.tally.metrics(self.performance.sums)}

    @property
    def cuts(self) -> dict[str, float]:
        """The edge that the prediction's cells must have, so that they part at the threshold."""
        tally = self.tally
        return {self.prediction: float(np.nextafter(tally.threshold, -np.inf))} if isinstance(tally, Scores) else {}

    def learn(
        self, basis: Basis, counts: np.ndarray, codes: np.ndarray, columns: Mapping[str, Any]
    ) -> "Outcome | None":
        """The outcome with what a reference says, from its cells and columns; None where no row has both sides."""
        prediction, label = columns[self.prediction], columns[self.label]
        if self.kind not in {"numeric", "categorical"}:
            label = places(label, self.classes)
        if self.kind == "binary":
            prediction = places(prediction, self.classes)
        if not np.isfinite(columns[LOSS]).any():
            return None
        performance = performance_reference(
            self.kind, prediction, label, learnt=learnt_of(basis, counts, self.prediction), codes=codes
        )
        return replace(self, tally=performance.tally, performance=performance)

    def to_meta(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What JSON can hold, and the arrays."""
        meta = {"kind": self.kind, "prediction": self.prediction, "label": self.label, "classes": list(self.classes)}
        return meta, {} if self.performance is None else self.performance.to_arrays()

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Outcome":
        """The inverse of `to_meta`, of an outcome that a reference was learnt for."""
        known = PerformanceReference.from_arrays(arrays)
        return cls(meta["kind"], meta["prediction"], meta["label"], tuple(meta["classes"]), known.tally, known)


def learnt_of(basis: Basis, counts: np.ndarray, prediction: str | None) -> Learnt:
    """What the kinds of drift rest on, but for labels: the features that the model sees, and its prediction."""
    grid = basis.grid
    at = grid.names.index(prediction) if prediction in grid.names else None
    seen = ~grid.delayed
    if at is not None:
        seen[at] = False
    return Learnt(basis, counts, np.flatnonzero(seen), at)


@dataclass(frozen=True)
class Delayed:
    """What comes with the labels: the columns, and how predictions are held against them."""

    columns: frozenset[str] = frozenset()
    outcome: Outcome | None = None


def outcome_of(
    kind: PredictionKind, *, names: tuple[str, str], classes: tuple[str, str] | None, prediction: Any, label: Any
) -> tuple[Outcome, np.ndarray]:
    """How a reference's rows are held against their labels, and the loss of each.

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
    return made, made.loss(p, y)


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

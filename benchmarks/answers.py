"""What a model says of the rows of a known distribution, what turns out, and the loss of each row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, ndtr

from detectors.grid import FeatureKind, Grid
from detectors.performance.loss import loss
from detectors.performance.outcome import LOSS, Delayed, outcome_of
from detectors.performance.tally import PredictionKind

PREDICTION, LABEL = "prediction", "label"
CLASSES = ("0", "1")
WEIGHTS = np.array([1.0, -0.8, 0.6, 0.4, -0.2])  # of the first features
WRONG = 0.02  # of the answers of a model that names a class
NOISE = 0.5  # of a number, in standard deviations of a feature
LABELLED = 0.95  # of the rows have their label when a window is judged on labels


@dataclass(slots=True)
class Answers:
    """Predictions and labels as numbers, (rows,); a class is 0 or 1, and a label that has not come NaN."""

    kind: PredictionKind
    prediction: np.ndarray
    label: np.ndarray

    @property
    def loss(self) -> np.ndarray:
        """Of each row, NaN where its label has not come."""
        return loss(self.kind, self.prediction, self.label)

    def columns(self) -> dict[str, Any]:
        """As a profile is built from, the loss left out."""
        sides = {PREDICTION: self.prediction, LABEL: self.label}
        return {
            name: [None if np.isnan(v) else CLASSES[int(v)] for v in side] if is_class else side
            for (name, side), is_class in zip(sides.items(), classes(self.kind), strict=True)
        }

    def codes(self, grid: Grid) -> dict[int, np.ndarray]:
        """The flat cells of prediction, label and loss by feature; one beyond all for a label that has not come."""
        sides = {PREDICTION: self.prediction, LABEL: self.label, LOSS: self.loss}
        found = {}
        for (name, side), is_class in zip(sides.items(), (*classes(self.kind), False), strict=True):
            j = grid.names.index(name)
            if is_class:
                cells = np.array([grid.category_cells(j)[c] for c in CLASSES])[(side == 1).astype(np.intp)]
            else:
                cells = grid.encode_feature(j, side)
            found[j] = np.where(np.isnan(side), grid.n_cells, cells)
        return found


def classes(kind: PredictionKind) -> tuple[bool, bool]:
    """Whether the prediction and the label are classes."""
    return kind == "binary", kind != "numeric"


def kinds(kind: PredictionKind) -> dict[str, FeatureKind]:
    """The columns that come with a model."""
    found: dict[str, FeatureKind] = {
        name: "categorical" if is_class else "numeric"
        for name, is_class in zip((PREDICTION, LABEL), classes(kind), strict=True)
    }
    return {**found, LOSS: "numeric"}


def answered(kind: PredictionKind, z: np.ndarray, noise: np.ndarray) -> Answers:
    """Of rows with these features before they are transformed, and a noise of standard deviation 1."""
    signal = z[:, : len(WEIGHTS)] @ WEIGHTS[: z.shape[1]]
    if kind == "numeric":
        return Answers(kind, signal, signal + NOISE * noise)
    if kind == "binary":
        said = (signal > 0).astype(np.float64)
        return Answers(kind, said, np.where(ndtr(noise) < WRONG, 1 - said, said))
    p = expit(1.5 * signal - 1)
    return Answers(kind, p, (ndtr(noise) < p).astype(np.float64))


def forget(answers: Answers, rng: np.random.Generator) -> None:
    """Some labels have not come."""
    answers.label = np.where(rng.random(len(answers.label)) < LABELLED, answers.label, np.nan)


def with_loss(columns: Mapping[str, Any], kind: PredictionKind) -> tuple[dict[str, Any], Delayed]:
    """The columns of a reference with the loss, and what comes with the labels."""
    outcome, lost = outcome_of(
        kind,
        names=(PREDICTION, LABEL),
        classes=None if kind == "numeric" else CLASSES,
        prediction=columns[PREDICTION],
        label=columns[LABEL],
    )
    return {**columns, LOSS: lost}, Delayed(frozenset({LABEL, LOSS}), outcome)

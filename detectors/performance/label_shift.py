"""Prior shift: how the labels' shares moved, from labels or, while those are late, from predictions.

If P(X | Y) stayed as it was, the prediction's cells of today are a mixture of what the reference showed for each label:
counts of cell × label are the confusion matrix of black-box shift estimation. Its weights by maximum likelihood (EM)
stay shares where the inverse of the matrix need not. `expected` gives the counts that today's features must then show:
neither covariate nor concept drift makes them do so, which is how the premise is checked.

Not to be trusted where predictions hardly depend on the label (the matrix is then nearly singular), nor, unless the
features bear it out, under any other drift.

References: Lipton, Wang & Smola 2018, Detecting and correcting for label shift with black box predictors; Saerens,
Latinne & Decaestecker 2002, Adjusting the outputs of a classifier to new a priori probabilities (EM); Garg, Wu,
Balakrishnan & Lipton 2020, A unified view of label shift estimation.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import xlogy

from detectors.performance.moves import as_z

STEPS = 200


@dataclass(frozen=True)
class LabelShift:
    """Shares of the labels (labels,) in the reference and today; `z`: the change in standard errors, not negative."""

    before: np.ndarray
    now: np.ndarray
    z: float
    source: Literal["labels", "estimate"]


def from_labels(reference: np.ndarray, current: np.ndarray) -> LabelShift:
    """From counts of each label."""
    n_before, n_now = reference.sum(), max(current.sum(), 1)
    pooled = (reference + current) / (n_before + n_now)
    gap = current / n_now - reference / n_before
    square = (gap**2 / np.where(pooled > 0, pooled, 1)).sum() / (1 / n_before + 1 / n_now)
    return LabelShift(reference / n_before, current / n_now, as_z(square, len(reference) - 1), "labels")


def from_predictions(reference: np.ndarray, current: np.ndarray) -> LabelShift:
    """From reference counts of label × prediction cell (labels, cells) and today's counts of the cells (cells,)."""
    by_label, before = reference + 0.5 / reference.shape[1], reference.sum(axis=1)
    given = by_label / by_label.sum(axis=1, keepdims=True)
    start, n = before / before.sum(), current.sum()
    if n == 0:
        return LabelShift(start, start, 0.0, "estimate")
    now = start
    for _ in range(STEPS):
        mixture = now @ given
        now = now * (given @ (current / mixture)) / n
    gain = 2 * (xlogy(current, now @ given) - xlogy(current, start @ given)).sum() / (1 + n / before.sum())
    return LabelShift(start, now, as_z(gain, len(before) - 1), "estimate")


def expected(shift: LabelShift, by_label: np.ndarray) -> np.ndarray:
    """The reference's counts of all cells (labels, cells) re-weighted to today's labels, (cells,)."""
    weight = shift.now / np.where(shift.before > 0, shift.before, 1)
    return np.asarray(weight @ by_label)

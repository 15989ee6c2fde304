"""The loss of every row: one more numeric column of the count tables, calibrated and judged like a feature.

probability: (p − y)², the Brier score of the row: proper and bounded, so that a mean of it, and a sequential detector
with a bounded-loss guarantee, cannot be moved far by one confident miss. binary and categorical: 1 where the prediction
is wrong. numeric: |prediction − label|. On a table its cells are quantiles of the reference, and what is judged is the
mean over the cells' means (`Basis.normal`): performance is a mean.

Blind spot: a loss knows no sign. A bias that is small beside the noise hardly moves it; `residual`, counted in a column
like this one, shows bias in its location and what the loss shows in its scale. Found at 1 % in windows of 300 rows, by
the location of the loss, and by the better of the residual's location and scale: a probability model's third weight
flipped 83 and 95 %, its intercept moved by .5 3 and 83 %; a number's bias of a third of the noise 11 and 100 %.
"""

import numpy as np

from detectors.performance.confusion import is_binary
from detectors.performance.tally import PredictionKind


def loss(kind: PredictionKind, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The loss of each row, float64; NaN where either side is missing or, for probability and binary, out of range.

    Arrays as `Tally.count` takes them: float64, or codes with −1 for missing (categorical).
    """
    if kind == "categorical":
        usable = (prediction >= 0) & (label >= 0)
        wrong = np.full(len(usable), np.nan)
        wrong[usable] = prediction[usable] != label[usable]
        return wrong
    if kind == "numeric":
        return np.asarray(np.abs(residual(kind, prediction, label)))
    return residual(kind, prediction, label) ** 2


def residual(kind: PredictionKind, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
    """prediction − label of each row, float64 with the same NaNs; not for categories."""
    usable = np.isfinite(prediction) & np.isfinite(label)
    if kind == "probability":
        usable &= (prediction >= 0) & (prediction <= 1) & is_binary(label)
    elif kind == "binary":
        usable &= is_binary(prediction) & is_binary(label)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(usable, prediction - label, np.nan)

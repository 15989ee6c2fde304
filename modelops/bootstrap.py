"""The paired bootstrap: how sure the difference of two models on the same rows is.

A resample weights rows. AUC under weights is the weighted share of (positive, negative) pairs in the right order, ties
half; negatives are sorted once for each model, so a thousand resamples of 4,000 rows take a fraction of a second.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(scores (n,), labels (n,), weights (b, n)) → (b,); larger is better."""

BLOCK_CELLS = 4_000_000  # resamples × rows at a time


def roc_auc(scores: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted area under the ROC curve, ties half; NaN where a class has no weight."""
    is_positive = y == 1
    negatives = np.flatnonzero(~is_positive)[np.argsort(scores[~is_positive], kind="stable")]
    sorted_scores, own = scores[negatives], scores[is_positive]
    total = np.zeros((len(weights), len(negatives) + 1))  # weight of the negatives below each place
    np.cumsum(weights[:, negatives], axis=1, out=total[:, 1:])
    below = np.searchsorted(sorted_scores, own, side="left")
    up_to = np.searchsorted(sorted_scores, own, side="right")
    positive = weights[:, is_positive]
    pairs = np.einsum("bp,bp->b", positive, total[:, below] + total[:, up_to]) / 2
    with np.errstate(invalid="ignore"):
        return np.asarray(pairs / (positive.sum(axis=1) * total[:, -1]))


def log_likelihood(scores: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean log likelihood: minus the log loss."""
    clipped = np.clip(scores, 1e-12, 1 - 1e-12)
    values = np.where(y == 1, np.log(clipped), np.log1p(-clipped))
    return np.asarray(weights @ values / weights.sum(axis=1))


def value(metric: Metric, scores: np.ndarray, y: np.ndarray) -> float:
    """A metric on all rows."""
    return float(metric(scores, y, np.ones((1, len(y))))[0])


def differences(
    metric: Metric, ours: np.ndarray, theirs: np.ndarray, y: np.ndarray, *, resamples: int, seed: int
) -> np.ndarray:
    """Resampled differences (ours − theirs), (resamples,): both models on the same resample of each class."""
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(y == 1), np.flatnonzero(y != 1)]
    found = []
    step = max(1, BLOCK_CELLS // max(len(y), 1))
    for start in range(0, resamples, step):
        b = min(step, resamples - start)
        weights = np.zeros((b, len(y)))
        for rows in classes:
            drawn = rng.integers(0, len(rows), size=(b, len(rows))) + len(rows) * np.arange(b)[:, None]
            weights[:, rows] = np.bincount(drawn.ravel(), minlength=b * len(rows)).reshape(b, len(rows))
        found.append(metric(ours, y, weights) - metric(theirs, y, weights))
    return np.concatenate(found)


def auc_with_error(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """AUC and its standard error from the sorted scores of both classes (DeLong, DeLong and Clarke-Pearson, 1988)."""

    def placed(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        below, up_to = (np.searchsorted(other, own, side=side) for side in SIDES)
        return np.asarray((below + up_to) / (2 * len(other)))

    of_positive, of_negative = placed(positive, negative), placed(negative, positive)
    variance = of_positive.var(ddof=1) / len(positive) + of_negative.var(ddof=1) / len(negative)
    return float(of_positive.mean()), float(np.sqrt(variance))


SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")

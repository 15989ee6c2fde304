"""Binary performance from hard predictions: four counts that add."""

from dataclasses import dataclass

import numpy as np

from detectors.performance.metric import Metric, share


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of a 0/1 prediction against a 0/1 label: sums = (left out, TP, FP, FN, TN)."""

    size: int = 5

    def count(self, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The sums of a batch, float64 (size,). Rows in which either side is not 0 or 1 are left out and counted."""
        usable = is_binary(prediction) & is_binary(label)
        cell = np.where(usable, 3 - 2 * prediction - label, 4)
        tp, fp, fn, tn, left_out = np.bincount(np.nan_to_num(cell).astype(np.intp), minlength=5).astype(np.float64)
        return np.array([left_out, tp, fp, fn, tn])

    def metrics(self, sums: np.ndarray) -> tuple[Metric, ...]:
        """Accuracy, precision, recall, F1 and specificity."""
        return confusion_metrics(*sums[1:])


def is_binary(values: np.ndarray) -> np.ndarray:
    """Which numbers are 0 or 1, bool (n,)."""
    return np.asarray((values == 0) | (values == 1))


def confusion_metrics(tp: float, fp: float, fn: float, tn: float) -> tuple[Metric, ...]:
    """The metrics of four counts, each with Wilson's interval.

    F1 = 2j / (1 + j) of the share j of true positives among the rows that are positive on either side.
    """
    n = tp + fp + fn + tn
    no_labels = "no_labels" if n == 0 else None
    jaccard = share("f1", tp, tp + fp + fn, n, no_labels or "no_positives")
    f1 = jaccard
    if jaccard.value is not None and jaccard.low is not None and jaccard.high is not None:
        value, low, high = (2 * j / (1 + j) for j in (jaccard.value, jaccard.low, jaccard.high))
        f1 = Metric("f1", value, low, high, int(n))
    return (
        share("accuracy", tp + tn, n, n, "no_labels"),
        share("precision", tp, tp + fp, n, no_labels or "no_predicted_positives"),
        share("recall", tp, tp + fn, n, no_labels or "no_positives"),
        f1,
        share("specificity", tn, tn + fp, n, no_labels or "no_negatives"),
    )

"""Multiclass performance: a confusion matrix over the known classes and one more for all others."""

from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from detectors.performance.metric import Metric, around, share, undefined

MAX_CLASSES = 50  # with a row and column of their own: 21 KB of sums; rarer ones are counted as others


@dataclass(frozen=True)
class Multiclass:
    """Counts of a predicted class against the true one.

    sums = (left out, right ones among the others, confusion matrix [prediction, label] over the classes and others).
    """

    classes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Length of the sums."""
        return 2 + (len(self.classes) + 1) ** 2

    def codes(self, values: Iterable[str | None]) -> np.ndarray:
        """int64 codes of classes as text: its place, a number beyond all places for an unknown one, −1 for None."""
        place: dict[str | None, int] = {c: i for i, c in enumerate(self.classes)}
        place[None] = -1
        k = len(self.classes)
        return np.array([place[v] if v in place else k + crc32(str(v).encode()) for v in values], np.int64)

    def count(self, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The sums of a batch of codes, float64 (size,). Rows with a negative code are left out and counted."""
        usable = (prediction >= 0) & (label >= 0)
        prediction, label, k = prediction[usable], label[usable], len(self.classes)
        cells = np.minimum(prediction, k) * (k + 1) + np.minimum(label, k)
        right = ((prediction == label) & (label >= k)).sum()
        matrix = np.bincount(cells.astype(np.intp), minlength=(k + 1) ** 2)
        return np.concatenate([[len(usable) - len(label), right], matrix]).astype(np.float64)

    def matrix(self, sums: np.ndarray) -> np.ndarray:
        """Rows by prediction and label, (classes + 1, classes + 1); the last of each are the others."""
        return sums[2:].reshape(len(self.classes) + 1, -1)

    def metrics(self, sums: np.ndarray) -> tuple[Metric, ...]:
        """Accuracy, and macro precision, recall and F1.

        The macro averages are over the known classes that were predicted or true, as scikit-learn's; a class that was
        never predicted has precision 0, one that was never true has recall 0. Intervals by the delta method on the
        matrix's counts (Takahashi et al. 2022, Confidence interval for micro-averaged F1 and macro-averaged F1).
        """
        matrix = self.matrix(sums)
        n, k = matrix.sum(), len(self.classes)
        right = np.diag(matrix)[:k]
        predicted, true = matrix.sum(axis=1)[:k], matrix.sum(axis=0)[:k]
        here = (predicted + true) > 0
        accuracy = share("accuracy", right.sum() + sums[1], n, n, "no_labels")
        names = ("macro_precision", "macro_recall", "macro_f1")
        if not here.any():
            reason = "no_labels" if n == 0 else "no_known_class"
            return (accuracy, *(undefined(name, n, reason) for name in names))
        metrics = [accuracy]
        for name, by_row, by_column in zip(names, (1.0, 0.0, 0.5), (0.0, 1.0, 0.5), strict=True):
            weight = by_row * predicted + by_column * true
            of_class = right / np.where(weight > 0, weight, 1)
            slope = here / np.where(weight > 0, weight, 1) / here.sum()  # of the average, by one more right row
            pull = np.append(of_class * slope, 0.0)  # what a row of the class takes away again
            gradient = -by_row * pull[:, None] - by_column * pull[None, :]
            gradient[np.arange(k), np.arange(k)] += slope
            variance = float((matrix * gradient**2).sum())
            metrics.append(around(name, float(of_class[here].mean()), variance, n, least=0, most=1))
        return tuple(metrics)

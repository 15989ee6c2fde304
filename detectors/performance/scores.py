"""Binary performance from probabilities: a histogram of score cells by label, and sums of the proper losses."""

from dataclasses import dataclass, field

import numpy as np

from detectors.grid import numeric_feature
from detectors.performance import pr_auc, roc_auc
from detectors.performance.confusion import confusion_metrics, is_binary
from detectors.performance.metric import Metric, around, between_0_and_1, mean, undefined

QUANTILES = 128  # score cells: the error of an AUC is then below .004 at even classes, in practice below .0005
SMALLEST = 1e-15  # a probability enters a logarithm as at least this
GROUPS = 10  # of the expected calibration error, by equal numbers of the window's rows
EXTRA = 4  # sums of log-loss, its square, Brier, its square


def score_edges(scores: np.ndarray, threshold: float, *, quantiles: int = QUANTILES) -> np.ndarray:
    """Edges of score cells, from the reference's scores: quantiles, frequent values, and the threshold."""
    edges = numeric_feature("score", scores, quantiles=quantiles).edges
    below = np.nextafter(threshold, -np.inf)
    return np.array([below]) if edges is None else np.unique(np.append(edges, below))


@dataclass(frozen=True)
class Scores:
    """Counts of a probability of class 1 against a 0/1 label.

    `edges`: cell i holds edges[i-1] < p ≤ edges[i], as in a grid; one of them is the largest number below `threshold`,
    so that p ≥ threshold (the positive prediction) is whole cells. sums = (left out, rows with label 0 in each cell,
    with label 1 in each cell, sum of p in each cell, log-loss, its square, Brier, its square).
    """

    edges: np.ndarray
    threshold: float = 0.5
    first_positive: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        if np.nextafter(self.threshold, -np.inf) not in self.edges:
            raise ValueError(
                f"`edges` must hold the number next below the threshold {self.threshold}; make them by `score_edges`."
            )
        object.__setattr__(self, "first_positive", int(self.cells(np.array([self.threshold]))[0]))
        object.__setattr__(self, "size", 1 + 3 * self.n_cells + EXTRA)

    @property
    def n_cells(self) -> int:
        """Score cells."""
        return len(self.edges) + 1

    def cells(self, scores: np.ndarray) -> np.ndarray:
        """The cell of each score, intp."""
        return np.searchsorted(self.edges, scores, "left")

    def count(self, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The sums of a batch, float64 (size,).

        Rows whose prediction is no probability, or whose label is not 0 or 1, are left out and counted.
        """
        with np.errstate(invalid="ignore"):
            usable = (prediction >= 0) & (prediction <= 1) & is_binary(label)
        p, y = prediction[usable], label[usable]
        cells, n = self.cells(p), self.n_cells
        by_label = np.bincount(cells + n * y.astype(np.intp), minlength=2 * n)
        right = np.abs(1 - y - p)  # the probability given to what happened
        log_loss, brier = -np.log(np.maximum(right, SMALLEST)), (1 - right) ** 2
        last = [log_loss.sum(), (log_loss**2).sum(), brier.sum(), (brier**2).sum()]
        return np.concatenate([[len(usable) - len(p)], by_label, np.bincount(cells, p, minlength=n), last])

    def histogram(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of label 0 and of label 1, and the sum of p, in each cell."""
        negatives, positives, p = sums[1 : 1 + 3 * self.n_cells].reshape(3, -1)
        return negatives, positives, p

    def metrics(self, sums: np.ndarray) -> tuple[Metric, ...]:
        """Accuracy, precision, recall, F1, specificity, ROC AUC, PR AUC, log-loss, Brier score, calibration error."""
        negatives, positives, p = self.histogram(sums)
        log_loss, log_loss_2, brier, brier_2 = sums[-EXTRA:]
        n_negative, n_positive = negatives.sum(), positives.sum()
        n, cut = n_negative + n_positive, self.first_positive
        return (
            *confusion_metrics(
                positives[cut:].sum(), negatives[cut:].sum(), positives[:cut].sum(), negatives[:cut].sum()
            ),
            *areas(positives, negatives),
            mean("log_loss", log_loss, log_loss_2, n, least=0),
            mean("brier", brier, brier_2, n, least=0),
            calibration_error(n_rows=positives + negatives, positives=positives, p=p, brier=brier),
        )


def areas(positives: np.ndarray, negatives: np.ndarray) -> tuple[Metric, Metric]:
    """ROC AUC and PR AUC of rows in score cells, with DeLong's and the delta method's interval on the logit scale."""
    n_positive, n_negative = positives.sum(), negatives.sum()
    n = n_positive + n_negative
    if n_positive == 0 or n_negative == 0:
        reason = "no_labels" if n == 0 else "no_positives" if n_positive == 0 else "no_negatives"
        return undefined("roc_auc", n, reason), undefined("pr_auc", n, reason)
    found = []
    for name, area, trials in (("roc_auc", roc_auc, min(n_positive, n_negative)), ("pr_auc", pr_auc, n_positive)):
        up, down = area.gradient(positives, negatives)
        variance = float(positives @ up**2 + negatives @ down**2)
        found.append(between_0_and_1(name, area.value(positives, negatives), variance, n, trials=float(trials)))
    return found[0], found[1]


def calibration_error(*, n_rows: np.ndarray, positives: np.ndarray, p: np.ndarray, brier: float) -> Metric:
    """Expected calibration error: Σ |Σ p − Σ y| ÷ n over ten groups of score cells with about equal rows.

    Well-calibrated scores do not show 0 but about Σ √(2/π · variance of the group's sum) ÷ n; the interval's lower end
    allows for that (Kumar, Liang & Ma 2019, Verified uncertainty calibration; Naeini, Cooper & Hauskrecht 2015).
    """
    n = float(n_rows.sum())
    if n < 2:
        return undefined("calibration_error", n, "too_few_labels")
    group = np.minimum(GROUPS * (np.cumsum(n_rows) - n_rows / 2) / n, GROUPS - 1).astype(np.intp)
    rows, hits, expected = (np.bincount(group, values, minlength=GROUPS) for values in (n_rows, positives, p))
    value = float(np.abs(hits - expected).sum() / n)
    share = expected / np.maximum(rows, 1)
    by_chance = float(np.sqrt(2 / np.pi * rows * share * (1 - share)).sum() / n)
    found = around("calibration_error", value, (brier / n - value**2) / n, n, least=0, most=1)
    low = 0.0 if found.low is None else max(0.0, found.low - by_chance)
    return Metric(found.metric, found.value, low, found.high, found.n, found.reason)

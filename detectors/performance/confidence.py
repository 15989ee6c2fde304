"""Binary performance without labels: confidence-based performance estimation (CBPE).

The reference says which share of each score cell is positive (isotonic: a higher cell has no lower share, so a cell of
few rows does not follow its noise); today's rows in the cells then are expected positives and negatives, and every
metric of a histogram follows. It needs the window's counts of score cells and nothing else.

Not to be trusted under concept drift, nor when the base rate moves (prior shift): both change the share of positives at
a given score, which is all that it relies on. Covariate shift is right as far as the score tells of Y what X does.

References: Białek, Kuberski, Perrakis & Bifet 2024, Estimating model performance under covariate shift without labels
(CBPE); Guillory et al. 2021, Predicting with confidence on unseen distributions.
"""

from dataclasses import dataclass

import numpy as np

from detectors.performance import pr_auc, roc_auc
from detectors.performance.metric import Metric, around, between_0_and_1, undefined
from detectors.performance.scores import SMALLEST, Scores


@dataclass(frozen=True)
class Confidence:
    """The share of positives in every score cell (cells,), as the reference shows it.

    `p`: the mean score of the cell; `block`: cells of one isotonic step have one number; `rows`: reference rows of the
    cell's step.
    """

    scores: Scores
    share: np.ndarray
    p: np.ndarray
    block: np.ndarray
    rows: np.ndarray

    def metrics(self, counts: np.ndarray) -> tuple[Metric, ...]:
        """Estimates from the rows in each score cell; the interval is where the realised value should lie.

        It holds the chance of today's labels and the error of the reference's shares.
        """
        n = float(counts.sum())
        names = ("accuracy", "precision", "recall", "f1", "specificity", "roc_auc", "pr_auc", "log_loss", "brier")
        if n == 0:
            return tuple(undefined(name, 0, "no_rows") for name in names)
        positives, negatives = counts * self.share, counts * (1 - self.share)
        n_positive, n_negative = positives.sum(), negatives.sum()
        called = np.arange(len(counts)) >= self.scores.first_positive
        n_called, tp = counts[called].sum(), positives[called].sum()
        accuracy = (tp + negatives[~called].sum()) / n
        specificity = negatives[~called].sum() / max(n_negative, SMALLEST)
        recall, f1 = tp / max(n_positive, SMALLEST), 2 * tp / max(n_called + n_positive, SMALLEST)
        sign = np.where(called, 1.0, -1.0)
        found = [
            self._share("accuracy", accuracy, sign / n, counts),
            self._share("precision", tp / max(n_called, SMALLEST), called / max(n_called, SMALLEST), counts)
            if n_called
            else undefined("precision", n, "no_predicted_positives"),
        ]
        if not (n_positive > 0 and n_negative > 0):
            reason = "no_positives_expected" if not n_positive > 0 else "no_negatives_expected"
            found += [undefined(name, n, reason) for name in names[2:7]]
        else:
            found += [
                self._share("recall", recall, (called - recall) / n_positive, counts),
                self._share("f1", f1, (2 * called - f1) / (n_called + n_positive), counts),
                self._share("specificity", specificity, (specificity - ~called) / n_negative, counts),
            ]
            for name, area in (("roc_auc", roc_auc), ("pr_auc", pr_auc)):
                up, down = area.gradient(positives, negatives)
                found.append(self._share(name, area.value(positives, negatives), up - down, counts))
        p = np.clip(self.p, SMALLEST, 1 - SMALLEST)
        for name, hit, miss in (("log_loss", -np.log(p), -np.log1p(-p)), ("brier", (1 - p) ** 2, p**2)):
            value = float(positives @ hit + negatives @ miss) / n
            found.append(around(name, value, self._variance((hit - miss) / n, counts), n, least=0))
        return tuple(found)

    def _share(self, name: str, value: float, slope: np.ndarray, counts: np.ndarray) -> Metric:
        n = float(counts.sum())
        return between_0_and_1(name, value, self._variance(slope, counts), n, trials=n)

    def _variance(self, slope: np.ndarray, counts: np.ndarray) -> float:
        """Of a metric that changes by `slope` where a row of the cell turns from negative to positive."""
        share = (self.share * self.rows + 0.5) / (self.rows + 1)
        spread = share * (1 - share)
        labels = slope**2 @ (counts * spread)
        moved = np.bincount(self.block, slope * counts)  # by an error of the step's share
        first = np.flatnonzero(np.diff(self.block, prepend=-1))
        return float(labels + (moved**2 * spread[first] / np.maximum(self.rows[first], 1)).sum())


def confidence(scores: Scores, sums: np.ndarray) -> Confidence:
    """The shares of a reference from its sums; raises ValueError where it has no labelled row."""
    negatives, positives, p = scores.histogram(sums)
    rows = negatives + positives
    if not rows.sum():
        raise ValueError("`sums` must hold rows with labels; got none. Give a reference with labels.")
    block = steps(positives, rows)
    of_block = np.bincount(block, rows)
    share = np.bincount(block, positives) / np.maximum(of_block, 1)
    ends = np.clip(np.concatenate([[0.0], scores.edges, [1.0]]), 0, 1)
    middle = (ends[:-1] + ends[1:]) / 2
    mean = np.where(rows > 0, p / np.maximum(rows, 1), middle)
    return Confidence(scores, share[block], mean, block, of_block[block])


def steps(positives: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The isotonic step of every cell, intp from 0 up: pool adjacent violators until shares rise.

    A cell without rows joins the step before it, the first ones the step after.
    """
    held: list[list[float]] = []  # positives, rows, cells
    for hits, n in zip(positives.tolist(), rows.tolist(), strict=True):
        held.append([hits, n, 1])
        while len(held) > 1 and held[-2][0] * held[-1][1] >= held[-1][0] * held[-2][1]:
            last = held.pop()
            held[-1] = [a + b for a, b in zip(held[-1], last, strict=True)]
    return np.repeat(np.arange(len(held)), [int(cells) for *_, cells in held])

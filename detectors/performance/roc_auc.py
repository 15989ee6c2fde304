"""Area under the ROC curve from a histogram of scores.

AUC = P(score of a positive > score of a negative) + ½ P(equal), where two scores of one cell count as equal. The exact
area differs by at most `error_bound`, ½ Σ pos·neg ÷ (P·N): at even classes 1/(2·cells) of quantile cells, in practice
a tenth of it; it is 0 where every distinct score is a cell. The variance is DeLong's, exact on the cells.

References: DeLong, DeLong & Clarke-Pearson 1988, Comparing the areas under two or more correlated ROC curves.
"""

import numpy as np


def value(positives: np.ndarray, negatives: np.ndarray) -> float:
    """The area; both arguments hold rows in each score cell, from low to high scores, at least one row each."""
    below = np.cumsum(negatives) - negatives / 2
    return float(positives @ below / (positives.sum() * negatives.sum()))


def gradient(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What one more positive, or negative, in a cell adds to the area, two (cells,).

    Σ positives·g² + Σ negatives·g² of these is DeLong's variance.
    """
    p, n = positives.sum(), negatives.sum()
    area = value(positives, negatives)
    below = (np.cumsum(negatives) - negatives / 2) / n
    above = 1 - (np.cumsum(positives) - positives / 2) / p
    return (below - area) / p, (above - area) / n


def error_bound(positives: np.ndarray, negatives: np.ndarray) -> float:
    """The most by which the area of the scores themselves can differ."""
    return float(positives @ negatives / (2 * positives.sum() * negatives.sum()))

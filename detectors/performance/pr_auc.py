"""Area under the precision-recall curve (average precision) from a histogram of scores.

AP = Σ over cells, from the highest score down, of (positives in the cell ÷ all positives) · precision down to the cell:
scikit-learn's `average_precision_score` with the cell as the score. `bounds` says between what the average precision
of the scores themselves lies, whatever their order inside the cells. The variance is by the delta method.

References: Davis & Goadrich 2006, The relationship between precision-recall and ROC curves; Boyd, Eng & Page 2013,
Area under the precision-recall curve: point estimates and confidence intervals.
"""

import numpy as np
from scipy.special import psi


def value(positives: np.ndarray, negatives: np.ndarray) -> float:
    """The area; both arguments hold rows in each score cell, from low to high scores; at least one positive."""
    return float(positives @ _precision(positives, negatives)[0] / positives.sum())


def _precision(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, true and false positives, when all rows of a cell and above are called positive."""
    tp, fp = (np.cumsum(side[::-1])[::-1] for side in (positives, negatives))
    return tp / np.where(tp + fp > 0, tp + fp, 1), tp, fp


def gradient(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What one more positive, or negative, in a cell adds to the area, two (cells,)."""
    precision, tp, fp = _precision(positives, negatives)
    p = positives.sum()
    square = np.where(tp + fp > 0, tp + fp, 1) ** 2
    gain = np.cumsum(positives * fp / square)  # of every cell at or below, whose precision the row enters
    loss = np.cumsum(positives * tp / square)
    return (precision + gain - value(positives, negatives)) / p, -loss / p


def bounds(positives: np.ndarray, negatives: np.ndarray) -> tuple[float, float]:
    """The least and the largest average precision that scores in these cells can have."""
    _, tp, fp = _precision(positives, negatives)
    above = tp - positives  # true positives of higher cells
    least = positives - fp * (psi(above + fp + positives + 1) - psi(above + fp + 1))
    outside = fp - negatives
    largest = positives * tp / np.where(tp + outside > 0, tp + outside, 1)
    return float(least.sum() / positives.sum()), float(largest.sum() / positives.sum())

"""Missing, invalid and unseen values, by the exact conditional binomial test."""

import numpy as np
from scipy.special import betainc, ndtri

from detectors.contrast import Contrast
from detectors.grid import INVALID, MISSING, UNSEEN

CELLS = {"missing": MISSING, "invalid": INVALID, "unseen": UNSEEN}


def statistic(contrast: Contrast, name: str) -> np.ndarray:
    """Normal score of the mid-p that the special cell's share grew, of each feature; shares are of all its rows.

    Given x + y rows in the cell, x of them fell into the window: binomial with p = n/(n+N) where nothing changed. For
    `unseen` the reference's y are its rows with a category of their own: leave-one-out, they would be unseen.

    References: Przyborowski & Wilenski (1940), Homogeneity of results in testing samples from Poisson series,
    Biometrika 31; Lancaster (1961), Significance tests in discrete distributions (mid-p).
    """
    cell = CELLS[name]
    reference, current = (side[..., cell] for side in contrast.special)
    if name == "unseen":
        reference = reference + contrast.basis.singletons
    m, n = contrast.rows
    shape = np.broadcast_shapes(reference.shape, current.shape)
    out = np.zeros(shape)
    touched = np.flatnonzero(
        (np.reshape(reference, (-1, shape[-1])) > 0).any(0) | (np.reshape(current, (-1, shape[-1])) > 0).any(0)
    )
    if len(touched):
        x, y, n, m = (np.broadcast_to(side, shape)[..., touched] for side in (current, reference, n, m))
        out[..., touched] = upper_score(x, y, n, m)
    return out


def change(contrast: Contrast, name: str) -> np.ndarray:
    """Change of the special cell's share of all rows, with its sign."""
    reference, current = (side[..., CELLS[name]] for side in contrast.special)
    m, n = contrast.rows
    return np.asarray(current / np.maximum(n, 1) - reference / np.maximum(m, 1))


def upper_score(x: np.ndarray, y: np.ndarray, n: np.ndarray, m: np.ndarray) -> np.ndarray:
    """−Φ⁻¹ of the mid-p of seeing at least x of x + y rows among n of n + m; 0 where there are none."""
    x, y = np.round(np.asarray(x, np.float64), 6), np.asarray(y, np.float64)
    n, m = np.asarray(n, np.float64), np.asarray(m, np.float64)
    p = n / np.maximum(n + m, 1)
    at_least = np.where(x > 0, betainc(np.maximum(x, 1e-9), y + 1, p), 1.0)
    more = np.where(y > 0, betainc(x + 1, np.maximum(y, 1e-9), p), 0.0)
    return np.where(x + y > 0, -ndtri(np.clip((at_least + more) / 2, 1e-300, 1 - 1e-16)), 0.0)

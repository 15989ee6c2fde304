"""The largest standardised change of a single cell: a stuck value, a new atom, one category that grew."""

import numpy as np

from detectors.contrast import Contrast


def statistic(contrast: Contrast) -> np.ndarray:
    """max over cells of |signed-root two-sample deviance|, counts moved half a row towards the expectation.

    Each cell's root is divided by max(1, its rms in null draws), so that a cell whose rows come in clusters does not
    lead; a cell with too few reference rows under dependence takes no part (its rms is inf).

    References: Feller/McCullagh & Nelder, signed-root deviance; Yates (1934), continuity correction.
    """
    return contrast.largest(np.abs(roots(contrast)) / contrast.basis.cell_rms.astype(contrast.current.dtype))


def change(contrast: Contrast) -> np.ndarray:
    """The largest |change of share| of a single cell, of each feature."""
    return contrast.largest(np.abs(contrast.delta))


def roots(contrast: Contrast) -> np.ndarray:
    """Signed root of the deviance of each regular cell against the pooled share, with half a row of continuity."""
    owner = contrast.basis.grid.owner
    x, y = contrast.regular_current, contrast.regular_reference
    share = contrast.n_current / np.maximum(contrast.n_current + contrast.n_reference, 1)
    total = x + y
    expected = total * share.astype(x.dtype)[..., owner]
    off = np.where(contrast.observed[..., owner], x - expected, 0)
    step = np.clip(off, -0.5, 0.5)
    tiny = x.dtype.type(1e-9)
    x, y = np.maximum(x - step, tiny), np.maximum(y + step, tiny)
    expected, rest = np.maximum(expected, tiny), np.maximum(total - expected, tiny)
    deviance = 2 * (x * np.log(x / expected) + y * np.log(y / rest))
    return np.where(off == 0, 0, np.sqrt(np.maximum(deviance, 0)) * np.sign(off))

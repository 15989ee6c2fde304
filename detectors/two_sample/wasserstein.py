"""Wasserstein-1, the earth mover's distance."""

import numpy as np

from detectors.contrast import Contrast


def statistic(contrast: Contrast) -> np.ndarray:
    """∫|F̂ − Ĝ| dx of each feature, in units of the basis's gaps: reference sd on a grid, raw units on an exact grid.

    On a grid a cell stands for its reference mean, winsorised at .5 and 99.5 %, so that one wild row cannot raise it.
    Sensitive to how far the mass moved; for shifts it is close to the location statistic.

    References: Ramdas, Trillos, Cuturi (2017), On Wasserstein two-sample testing, Entropy 19(2).
    """
    return contrast.sum(contrast.cumulative * contrast.basis.gap.astype(contrast.current.dtype))

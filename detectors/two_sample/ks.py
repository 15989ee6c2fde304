"""Kolmogorov–Smirnov."""

import numpy as np

from detectors.contrast import Contrast


def statistic(contrast: Contrast) -> np.ndarray:
    """The largest distance between the two distribution functions, max |F̂ − Ĝ|, of each feature.

    Sensitive to a shift of the bulk; nearly blind to a change of spread or in the tails. On a grid it is the maximum
    over the cells' upper ends, at most a cell's share below the exact one; on an exact grid it is exact.

    References: Massey (1951), The Kolmogorov-Smirnov test for goodness of fit, JASA 46.
    """
    return contrast.largest(contrast.cumulative)

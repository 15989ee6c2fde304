"""Neyman's smooth terms: location and scale, the two directions in which numeric features usually move."""

import numpy as np

from detectors.contrast import Contrast


def location(contrast: Contrast) -> np.ndarray:
    """Σ Δshare · z of each feature: the change of the mean normal score, in reference sd, with its sign.

    z is the reference's normal score of the cell, so the statistic has the power of a t-test on normal data and that
    of a rank test on heavy tails. Blind to a change of spread alone. Zero for categorical features. Of the loss z is
    the winsorised mean of the cell: then it is the change of the mean loss.

    References: Neyman (1937), "Smooth test" for goodness of fit; van der Waerden (1952), normal-score test.
    """
    return contrast.sum(contrast.delta * contrast.basis.normal.astype(contrast.current.dtype))


def scale(contrast: Contrast) -> np.ndarray:
    """The change of spread in reference sd, with its sign: (∛(1 + σ_s·l) − 1) · 3 / σ_s, l = Σ Δshare · s.

    s = z² − 1 − E[z³]·z is orthogonal to the location; the cube root (Wilson–Hilferty) makes it nearly normal under
    dependence, where the raw term gives 1.4 to 3 times the nominal tail.
    """
    raw = contrast.sum(contrast.delta * contrast.basis.spread.astype(contrast.current.dtype))
    sd = contrast.basis.spread_sd.astype(contrast.current.dtype)
    return np.asarray((np.cbrt(np.maximum(1 + raw * sd, 0.01)) - 1) * 3 / sd)

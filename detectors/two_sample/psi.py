"""Population stability index."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.arrays import Measured, compare, on_reference, permutation_p_value
from detectors.contrast import Contrast
from detectors.score import Score

STABLE, UNSTABLE = 0.1, 0.25


def statistic(contrast: Contrast) -> np.ndarray:
    """Σ (p − q) ln(p / q) over groups of cells, half a row added to each, of each feature.

    Symmetric Kullback–Leibler divergence. Groups come from the reference only: pooled equal-width bins let one outlier
    hide everything. Its mean under no change is about (1/n + 1/N)(groups − 1), which `unbiased` takes away.

    References: Siddiqi (2006), Credit risk scorecards; Yurdakul (2018), Statistical properties of PSI.
    """
    x, y = contrast.pool(contrast.regular_current), contrast.pool(contrast.regular_reference)
    owner = contrast.basis.grid.owner[contrast.basis.groups]
    groups = np.bincount(owner, minlength=len(contrast.basis.grid.features)).astype(x.dtype)
    half = x.dtype.type(0.5)
    p = (x + half) / (contrast.n_current + half * groups)[..., owner]
    q = (y + half) / (contrast.n_reference + half * groups)[..., owner]
    return np.where(contrast.observed, np.maximum(contrast.sum_groups((p - q) * np.log(p / q)), 0), 0)


def unbiased(contrast: Contrast) -> np.ndarray:
    """The statistic less its mean under no change, at least 0: what the bands (stable, caution, unstable) speak of."""
    owner = contrast.basis.grid.owner[contrast.basis.groups]
    groups = np.bincount(owner, minlength=len(contrast.basis.grid.features))
    return np.asarray(np.maximum(statistic(contrast) - (groups - 1) / contrast.size**2, 0))


def band(value: float) -> str:
    """The customary reading of a PSI: stable below .1, unstable above .25, caution between."""
    return "stable" if value < STABLE else "unstable" if value > UNSTABLE else "caution"


@dataclass(frozen=True, slots=True)
class PSI:
    """Detects that shares moved between the groups that the reference makes: 20 quantile groups, or its categories.

    See also: `ChiSquare`, a test of the same table.
    """

    def compare(self, *, reference: Any, current: Any, permutations: int = 0, seed: int = 0) -> Score:
        """The index on groups of the reference; the effect is the index less its mean under no change.

        The p-value is None unless `permutations` are asked for. Raises ValueError or TypeError as `KolmogorovSmirnov`.
        """

        def measure(x: np.ndarray, y: np.ndarray) -> Measured:
            contrast = on_reference(x, y)
            p_value = permutation_p_value(contrast, statistic, permutations, seed) if permutations else None
            return float(statistic(contrast)[0]), p_value, float(unbiased(contrast)[0])

        return compare("psi", reference, current, measure)

"""Pearson's chi-square test of homogeneity of two samples."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import chdtrc

from detectors.arrays import Measured, compare, exact
from detectors.contrast import Contrast
from detectors.score import Score


def statistic(contrast: Contrast) -> np.ndarray:
    """Σ (p − q)² / pooled share ÷ (1/n + 1/N) over groups of cells, of each feature.

    Both samples are random: this is the two-sample form, not the reference's shares taken for the truth (which flags
    a fifth of unchanged windows at equal sizes). Groups are pooled once, from the reference.

    References: Pearson (1911), On the probability that two independent distributions of frequency are really samples
    from the same population, Biometrika 8.
    """
    x, y = contrast.pool(contrast.regular_current), contrast.pool(contrast.regular_reference)
    owner = group_owner(contrast)
    n, m = np.maximum(contrast.n_current, 1)[..., owner], np.maximum(contrast.n_reference, 1)[..., owner]
    share = (x + y) / (n + m)
    terms = (x / n - y / m) ** 2 / np.where(share > 0, share, 1)
    return np.where(contrast.observed, contrast.sum_groups(terms) * contrast.size**2, 0)


def half_l1(contrast: Contrast) -> np.ndarray:
    """Half the L1 distance of the two samples' cell shares less its mean under no change, at least 0.

    The share of rows that would have to move; the mean of |p − q| under no change is √(2/π · share(1−share)(1/n+1/N)).
    """
    x, y = contrast.regular_current, contrast.regular_reference
    owner = contrast.basis.grid.owner
    n, m = np.maximum(contrast.n_current, 1)[..., owner], np.maximum(contrast.n_reference, 1)[..., owner]
    share = np.clip((x + y) / (n + m), 0, 1)  # simulated counts may lie beyond by a rounding
    by_chance = np.sqrt(2 / np.pi * share * (1 - share) * (1 / n + 1 / m))
    return np.asarray(np.maximum(contrast.sum(np.abs(contrast.delta) - by_chance) / 2, 0))


def degrees_of_freedom(contrast: Contrast) -> np.ndarray:
    """Groups less one, of each feature."""
    starts = contrast.basis.group_starts
    return np.asarray(np.diff(starts, append=len(contrast.basis.groups)) - 1)


def group_owner(contrast: Contrast) -> np.ndarray:
    """The feature to which each group belongs."""
    return np.asarray(contrast.basis.grid.owner[contrast.basis.groups])


@dataclass(frozen=True, slots=True)
class ChiSquare:
    """Detects that the shares of categories (or of distinct values) differ between two samples.

    Blind to the order of the values. See also: `PSI`; `KolmogorovSmirnov` for continuous values.
    """

    min_expected: float = 5.0

    def compare(self, *, reference: Any, current: Any) -> Score:
        """The two-sample statistic on values pooled to an expected count of `min_expected`, and its p-value.

        Raises ValueError or TypeError as `KolmogorovSmirnov`.
        """

        def measure(x: np.ndarray, y: np.ndarray) -> Measured:
            contrast = exact(x, y, min_expected=self.min_expected)
            value, degrees = float(statistic(contrast)[0]), int(degrees_of_freedom(contrast)[0])
            return value, float(chdtrc(degrees, value)) if degrees else 1.0, float(half_l1(contrast)[0])

        return compare("chi_square", reference, current, measure)

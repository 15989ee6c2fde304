"""Pearson's chi-square test of homogeneity of two samples."""

import numpy as np

from detectors.contrast import Contrast


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
    share = (x + y) / (n + m)
    by_chance = np.sqrt(2 / np.pi * share * (1 - share) * (1 / n + 1 / m))
    return np.maximum(contrast.sum(np.abs(contrast.delta) - by_chance) / 2, 0)


def degrees_of_freedom(contrast: Contrast) -> np.ndarray:
    """Groups less one, of each feature."""
    starts = contrast.basis.group_starts
    return np.diff(starts, append=len(contrast.basis.groups)) - 1


def group_owner(contrast: Contrast) -> np.ndarray:
    """The feature to which each group belongs."""
    return contrast.basis.grid.owner[contrast.basis.groups]

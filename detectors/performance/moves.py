"""How far each feature's cells are from the counts to be expected, beyond chance."""

from dataclasses import dataclass

import numpy as np

from detectors.basis import Basis


@dataclass(frozen=True)
class Moves:
    """Per feature, (features,): chi-square, the same in standard errors.

    `distance`: Σ (p − q)² / q between the shares, chance taken off; half its root is about the share of rows that
    changed cells.
    """

    square: np.ndarray
    z: np.ndarray
    distance: np.ndarray


def moves(basis: Basis, expected: np.ndarray, current: np.ndarray, features: np.ndarray, n_reference: float) -> Moves:
    """Of some features (indices), between expected and current counts over all cells.

    Only shares of regular cells are compared, pooled to groups that are large enough. `n_reference`: rows that the
    expectation rests on; it widens what chance alone gives.
    """
    n_features, n_special = len(basis.grid.features), basis.grid.n_special
    owner = np.repeat(np.arange(n_features), np.diff(basis.group_starts, append=len(basis.groups)))
    before, now = (np.add.reduceat(side[n_special:], basis.groups) for side in (expected, current))
    n_before, n = (np.maximum(np.bincount(owner, side, minlength=n_features), 1e-9) for side in (before, now))
    share = np.maximum(before / n_before[owner], 0.5 / n_reference)
    square = (now - n[owner] * share) ** 2 / (n[owner] * share * (1 + n[owner] / n_reference))
    whole = np.where(n >= 1, np.bincount(owner, square, minlength=n_features), 0.0)[features]
    degrees = np.maximum(np.bincount(owner, minlength=n_features)[features] - 1, 1)
    z = np.array([as_z(x, k) for x, k in zip(whole.tolist(), degrees.tolist(), strict=True)])
    return Moves(whole, z, np.maximum(whole - degrees, 0) * (1 / n[features] + 1 / n_reference))


def as_z(square: float, degrees: int) -> float:
    """A chi-square as a number of standard errors (Wilson & Hilferty 1931); 0 where it is below what chance gives."""
    k = max(degrees, 1)
    return max(0.0, float((np.cbrt(max(square, 0.0) / k) - (1 - 2 / (9 * k))) / np.sqrt(2 / (9 * k))))

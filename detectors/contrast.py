"""A current and a reference table side by side: what every two-sample statistic starts from."""

from functools import cached_property

import numpy as np

from detectors.basis import Basis
from detectors.grid import SPECIAL


class Contrast:
    """Counts of a reference and of a current sample on one grid; leading axes broadcast.

    Shapes: counts (..., cells); per feature (..., features); per regular cell (..., regular cells). Shares are of the
    observed rows, those in regular cells. A feature that either side never observed shows no difference.
    """

    def __init__(self, basis: Basis, *, reference: np.ndarray, current: np.ndarray) -> None:
        self.basis, self.reference, self.current = basis, reference, current

    @cached_property
    def regular_reference(self) -> np.ndarray:
        """Rows in each regular cell."""
        return self.reference[..., self.basis.grid.n_special :]

    @cached_property
    def regular_current(self) -> np.ndarray:
        """Rows in each regular cell."""
        return self.current[..., self.basis.grid.n_special :]

    @cached_property
    def n_reference(self) -> np.ndarray:
        """Observed rows of each feature."""
        return self.sum(self.regular_reference)

    @cached_property
    def n_current(self) -> np.ndarray:
        """Observed rows of each feature."""
        return self.sum(self.regular_current)

    @cached_property
    def size(self) -> np.ndarray:
        """(1/n + 1/N)^-½: with it, a difference of means has a spread that hardly depends on n and N."""
        n, m = np.maximum(self.n_current, 1), np.maximum(self.n_reference, 1)
        return np.asarray(1 / np.sqrt(1 / n + 1 / m))

    @cached_property
    def observed(self) -> np.ndarray:
        """Whether both sides hold an observed row of the feature."""
        return (self.n_current > 0) & (self.n_reference > 0)

    @cached_property
    def delta(self) -> np.ndarray:
        """Share of the current rows less share of the reference rows, of each regular cell."""
        owner = self.basis.grid.owner
        scale = self.observed / np.maximum(self.n_current, 1), self.observed / np.maximum(self.n_reference, 1)
        dtype = self.current.dtype
        p = self.regular_current * scale[0].astype(dtype)[..., owner]
        q = self.regular_reference * scale[1].astype(dtype)[..., owner]
        return np.asarray(p - q)

    @cached_property
    def cumulative(self) -> np.ndarray:
        """Absolute difference of the two distribution functions at the upper end of each regular cell."""
        return np.asarray(np.abs(np.cumsum(self.delta, axis=-1)))

    @cached_property
    def special(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows in the special cells, reference and current, (..., features, 3)."""
        grid = self.basis.grid
        shape = (len(grid.features), SPECIAL)
        parts = (side[..., : grid.n_special] for side in (self.reference, self.current))
        first, second = (part.reshape(*part.shape[:-1], *shape) for part in parts)
        return first, second

    @cached_property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """All rows of each feature, reference and current: observed and special ones."""
        reference, current = self.special
        return self.n_reference + reference.sum(-1), self.n_current + current.sum(-1)

    def sum(self, cells: np.ndarray) -> np.ndarray:
        """Sums over the regular cells of each feature."""
        return np.add.reduceat(cells, self.basis.grid.starts, axis=-1)

    def largest(self, cells: np.ndarray) -> np.ndarray:
        """Maxima over the regular cells of each feature."""
        return np.maximum.reduceat(cells, self.basis.grid.starts, axis=-1)

    def pool(self, cells: np.ndarray) -> np.ndarray:
        """Sums over the groups of cells that are large enough for chi-square and PSI, (..., groups)."""
        return np.add.reduceat(cells, self.basis.groups, axis=-1)

    def sum_groups(self, groups: np.ndarray) -> np.ndarray:
        """Sums over the groups of each feature."""
        return np.add.reduceat(groups, self.basis.group_starts, axis=-1)

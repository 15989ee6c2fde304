"""Jensen–Shannon distance: a library function, not in the calibrated family."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import rel_entr

from detectors.arrays import Measured, compare, on_reference
from detectors.contrast import Contrast
from detectors.score import Score


def statistic(contrast: Contrast) -> np.ndarray:
    """√ of the Jensen–Shannon divergence (natural logarithm) of the two samples' cell shares, of each feature.

    Bounded by √ln 2. Its mean under no change grows with the number of cells and shrinks with n, so that a fixed
    threshold means another thing at every window size.

    References: Lin (1991), Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37.
    """
    owner = contrast.basis.grid.owner
    p = contrast.regular_current / np.maximum(contrast.n_current, 1)[..., owner]
    q = contrast.regular_reference / np.maximum(contrast.n_reference, 1)[..., owner]
    middle = (p + q) / 2
    divergence = contrast.sum(rel_entr(p, middle) + rel_entr(q, middle)) / 2
    return np.where(contrast.observed, np.sqrt(np.maximum(divergence, 0)), 0)


@dataclass(frozen=True, slots=True)
class JensenShannon:
    """Measures how far two samples' shares differ, between 0 and √ln 2; a description, not a test.

    See also: `ChiSquare`, `PSI`.
    """

    def compare(self, *, reference: Any, current: Any) -> Score:
        """The distance on 20 quantile groups of the reference, or on its categories.

        Raises ValueError or TypeError as `KolmogorovSmirnov`.
        """

        def measure(x: np.ndarray, y: np.ndarray) -> Measured:
            value = float(statistic(on_reference(x, y))[0])
            return value, None, value

        return compare("jensen_shannon", reference, current, measure)

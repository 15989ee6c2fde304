"""Kolmogorov–Smirnov."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.arrays import Measured, compare, exact, require_numbers
from detectors.contrast import Contrast
from detectors.score import Score


def statistic(contrast: Contrast) -> np.ndarray:
    """The largest distance between the two distribution functions, max |F̂ − Ĝ|, of each feature.

    Sensitive to a shift of the bulk; nearly blind to a change of spread or in the tails. On a grid it is the maximum
    over the cells' upper ends, at most a cell's share below the exact one; on an exact grid it is exact.

    References: Massey (1951), The Kolmogorov-Smirnov test for goodness of fit, JASA 46.
    """
    return contrast.largest(contrast.cumulative)


@dataclass(frozen=True, slots=True)
class KolmogorovSmirnov:
    """Detects that two samples come from different continuous distributions, most of all by a shift of the bulk.

    See also: `Wasserstein` where the distance matters, `ChiSquare` for categories.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> score = KolmogorovSmirnov().compare(reference=rng.normal(size=500), current=rng.normal(1, 1, size=500))
    >>> round(score.statistic, 3), score.p_value < 1e-20
    (0.398, True)
    """

    def compare(self, *, reference: Any, current: Any) -> Score:
        """The exact two-sample statistic and its p-value (exact up to 10,000 rows, then asymptotic).

        Cost: a sort of both samples. Raises ValueError or TypeError where a sample is no column of numbers.
        """

        def measure(x: np.ndarray, y: np.ndarray) -> Measured:
            from scipy.stats import ks_2samp  # 95 MB and a second to import: only where a p-value is wanted

            require_numbers(x, y)
            value = float(statistic(exact(x, y))[0])
            return value, float(ks_2samp(x, y).pvalue), value

        return compare("ks", reference, current, measure)

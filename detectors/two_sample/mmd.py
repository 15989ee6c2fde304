"""Maximum mean discrepancy."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.score import Score


@dataclass(frozen=True, slots=True)
class MMD:
    """Detects any change of a joint distribution, with the power to match where it is as wide as the bandwidth.

    Unbiased MMD² with a Gaussian kernel; bandwidth: the median distance between reference rows, unless given. Against a
    mean shift in many columns it is weaker than the columns' own tests.

    See also: `KolmogorovSmirnov` for one column.
    """

    bandwidth: float | None = None

    def compare(self, *, reference: Any, current: Any, permutations: int = 0, seed: int = 0) -> Score:
        """MMD² of two samples (rows, columns); the effect is the MMD. Rows with a missing value are left out.

        The p-value is None unless `permutations` are asked for. Raises ValueError for unequal numbers of columns.
        """
        from detectors.two_sample.exact_mmd import mmd  # scipy.spatial: not in the sidecar's hot process

        x, y = np.asarray(reference, np.float64), np.asarray(current, np.float64)
        found = mmd(x, y, bandwidth=self.bandwidth, permutations=permutations, seed=seed)
        effect = float(np.sqrt(max(found.mmd2, 0.0)))
        return Score("mmd", found.mmd2, found.p_value, effect, found.n_reference, found.n_current)

"""Jensen–Shannon distance: a library function, not in the calibrated family."""

import numpy as np
from scipy.special import rel_entr

from detectors.contrast import Contrast


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

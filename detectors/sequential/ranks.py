"""Real-valued losses brought to [0, 1] by the reference: its share of smaller ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.sequential.change import Floats

N_CUTS = 255


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """Each loss's place among the reference's: the share of cuts below it, and half of those equal to it.

    The cuts are quantiles of the reference's losses, so that one outlier counts no more than any loss above the largest
    cut, and the unit does not matter. Whatever makes the larger of two losses more often the newer one raises the mean
    rank: the scan over ranks is a sequential form of Mann and Whitney's test. It is blind to a change of the largest
    losses alone, beyond the last cut.

    Parameters
    ----------
    cuts
        Ascending, at least one; equal ones stand for a value that is frequent.

    References: Mann & Whitney (1947), On a test of whether one of two random variables is stochastically larger than
    the other, Annals of Mathematical Statistics 18.

    >>> ranks = Ranks.of([3.0, 1.0, 2.0])
    >>> ranks([0.0, 2.0, 99.0, np.nan]).tolist()
    [0.0, 0.5, 1.0, nan]
    """

    cuts: Floats

    @classmethod
    def of(cls, losses: Any) -> "Ranks":
        """Cuts at quantiles of the reference's losses; those that are not finite do not count. Raises ValueError."""
        values = np.asarray(losses, np.float64)
        finite = np.sort(values[np.isfinite(values)])
        if not finite.size:
            raise ValueError("`losses` must hold a finite value; got none. Pass the losses of the reference's rows.")
        n_cuts = min(N_CUTS, len(finite))
        return cls(finite[((np.arange(n_cuts) + 0.5) / n_cuts * len(finite)).astype(np.int64)])

    def __call__(self, losses: Any) -> Floats:
        """The ranks, float64 in [0, 1]; NaN stays NaN."""
        values = np.asarray(losses, np.float64)
        below, until = (np.searchsorted(self.cuts, values, side) for side in ("left", "right"))
        return np.where(np.isnan(values), np.nan, (below + until) / (2 * len(self.cuts)))

"""Performance without labels where there are no probabilities: direct loss estimation.

A model of a row's loss, learnt on the reference, says what to expect of today's rows; MAE, √MSE and the accuracy of
hard predictions follow from sums of what it says. Blind to concept drift: it answers what the losses would be if Y
given X stayed as it was. In cells that the reference hardly knew it falls back on ordinary losses.

Reference: NannyML 2022, Direct loss estimation (its documentation, "How it works").
"""

from dataclasses import dataclass

import numpy as np

from detectors.grid import Grid
from detectors.performance import loss_model
from detectors.performance.loss_model import LossModel
from detectors.performance.metric import Metric, around, between_0_and_1, undefined


@dataclass(frozen=True)
class DirectLoss:
    """A model for each metric: `mae` of |e|, `rmse` of e², `accuracy` of 0/1 errors.

    sums = (rows, then of each model the expected loss and its square).
    """

    models: dict[str, LossModel]

    @property
    def size(self) -> int:
        """Length of the sums."""
        return 1 + 2 * len(self.models)

    def rows(self, codes: np.ndarray) -> np.ndarray:
        """What each row adds to the sums, float64 (rows, size), from the flat cells of its features and prediction.

        Sums over a bounded sample of a window's rows do as well as those over all.
        """
        columns = [np.ones(len(codes))]
        for model in self.models.values():
            expected = model.expected(codes)
            columns += [expected, expected**2]
        return np.column_stack(columns)

    def metrics(self, sums: np.ndarray) -> tuple[Metric, ...]:
        """The estimates; an interval is where the realised value of as many rows should lie.

        It holds the rows' noise and the reference's, not what the model gets wrong where X has moved far.
        """
        n = float(sums[0])
        if n < 2:
            return tuple(undefined(name, n, "too_few_rows") for name in self.models)
        found = []
        for (name, model), (loss, square) in zip(self.models.items(), sums[1:].reshape(-1, 2).tolist(), strict=True):
            mean = loss / n
            variance = model.dispersion * square / n * (1 / n + 1 / model.n_rows)
            if name == "rmse":
                of_root = variance / (4 * mean) if mean > 0 else 0.0
                found.append(around(name, float(np.sqrt(mean)), of_root, n, least=0))
            elif name == "accuracy":
                found.append(between_0_and_1(name, 1 - mean, variance, n, trials=n))
            else:
                found.append(around(name, mean, variance, n, least=0))
        return tuple(found)


def of_numbers(grid: Grid, codes: np.ndarray, residual: np.ndarray, features: np.ndarray) -> DirectLoss:
    """MAE and RMSE, from a reference's flat cells, prediction − label (NaN = unknown), features that may explain it."""
    absolute = np.abs(residual)
    return DirectLoss(
        {
            "mae": loss_model.fit(grid, codes, absolute, features),
            "rmse": loss_model.fit(grid, codes, absolute**2, features),
        }
    )

"""Regression performance without labels: direct loss estimation.

Two models of a row's loss, |e| and e², learnt on the reference, say what to expect of today's rows; MAE and √MSE follow
from sums of what they say. Blind to concept drift: it answers what the errors would be if Y given X stayed as it was.

Reference: NannyML 2022, Direct loss estimation (its documentation, "How it works").
"""

from dataclasses import dataclass

import numpy as np

from detectors.grid import Grid
from detectors.performance import loss_model
from detectors.performance.loss_model import LossModel
from detectors.performance.metric import Metric, around, undefined


@dataclass(frozen=True)
class DirectLoss:
    """sums = (rows, expected |e|, its square, expected e², its square)."""

    absolute: LossModel
    square: LossModel
    size: int = 5

    def rows(self, codes: np.ndarray) -> np.ndarray:
        """What each row adds to the sums, float64 (rows, size), from the flat cells of its features and prediction.

        Sums over a bounded sample of a window's rows do as well as those over all.
        """
        absolute, square = self.absolute.expected(codes), self.square.expected(codes)
        return np.column_stack([np.ones(len(codes)), absolute, absolute**2, square, square**2])

    def metrics(self, sums: np.ndarray) -> tuple[Metric, ...]:
        """Estimated MAE and RMSE; the interval is where the realised one of as many rows should lie."""
        n, absolute, absolute_2, square, square_2 = (float(s) for s in sums)
        if n < 2:
            return undefined("mae", n, "too_few_rows"), undefined("rmse", n, "too_few_rows")
        mse = square / n
        of_mse = self.square.dispersion * square_2 / n * (1 / n + 1 / self.square.n_rows)
        of_mae = self.absolute.dispersion * absolute_2 / n * (1 / n + 1 / self.absolute.n_rows)
        return (
            around("mae", absolute / n, of_mae, n, least=0),
            around("rmse", float(np.sqrt(mse)), of_mse / (4 * mse) if mse > 0 else 0.0, n, least=0),
        )


def direct_loss(grid: Grid, codes: np.ndarray, residual: np.ndarray, features: np.ndarray) -> DirectLoss:
    """The two models of a reference: flat cells, prediction − label (NaN = unknown), features that may explain it."""
    absolute = np.abs(residual)
    return DirectLoss(
        loss_model.fit(grid, codes, absolute, features), loss_model.fit(grid, codes, absolute**2, features)
    )

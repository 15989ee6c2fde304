"""Regression performance: sums of the error's and the label's powers."""

from dataclasses import dataclass

import numpy as np

from detectors.performance.metric import Metric, around, mean, undefined


@dataclass(frozen=True, slots=True)
class Regression:
    """Sums over rows with error e = prediction − label and u = label − `centre`.

    `centre` is about the mean label of the reference: it keeps R² exact where labels are far from 0. sums = (left out,
    n, e, |e|, e², e⁴, u, u², u³, u⁴, e²u, e²u²); those beyond u² are for the intervals of RMSE and R².
    """

    centre: float = 0.0
    size: int = 12

    def count(self, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The sums of a batch, float64 (size,). Rows in which either side is not finite are left out and counted."""
        usable = np.isfinite(prediction) & np.isfinite(label)
        with np.errstate(over="ignore", invalid="ignore"):
            e, u = prediction[usable] - label[usable], label[usable] - self.centre
            e2, u2 = e * e, u * u
            powers = (np.ones_like(e), e, np.abs(e), e2, e2 * e2, u, u2, u2 * u, u2 * u2, e2 * u, e2 * u2)
            return np.array([len(usable) - len(e), *(power.sum() for power in powers)], np.float64)

    def metrics(self, sums: np.ndarray) -> tuple[Metric, ...]:
        """MAE, RMSE, bias (mean of prediction − label) and R²."""
        n, e, absolute, e2 = sums[1:5]
        if n < 2:
            reason = "no_labels" if n == 0 else "too_few_labels"
            return tuple(undefined(name, n, reason) for name in ("mae", "rmse", "bias", "r2"))
        with np.errstate(over="ignore", invalid="ignore"):
            return (
                mean("mae", absolute, e2, n, least=0),
                rmse(sums),
                mean("bias", e, e2, n),
                r2(sums),
            )


def rmse(sums: np.ndarray) -> Metric:
    """√(mean e²), its variance by the delta method: var(e²) ÷ (4 n · mean e²)."""
    n, e2, e4 = sums[1], sums[4], sums[5]
    mse = e2 / n
    variance = (e4 / n - mse**2) / (4 * n * mse) if mse > 0 else 0.0
    return around("rmse", float(np.sqrt(mse)), variance, n, least=0)


def r2(sums: np.ndarray) -> Metric:
    """1 − mean e² ÷ variance of the label; the variance of its influence e²/V − mse·d²/V², d = label − mean."""
    n, e2, e4, u, u2, u3, u4, e2u, e2u2 = (float(s) for s in (sums[1], *sums[4:]))
    m, mse = u / n, e2 / n
    variance = u2 / n - m**2
    if not variance > 1e-12 * u2 / n:
        return undefined("r2", n, "constant_label")
    fourth = (u4 - 4 * m * u3 + 6 * m**2 * u2) / n - 3 * m**4
    cross = (e2u2 - 2 * m * e2u + m**2 * e2) / n
    influence = e4 / n - 2 * mse / variance * cross + (mse / variance) ** 2 * fourth
    return around("r2", 1 - mse / variance, influence / (n * variance**2), n, most=1)

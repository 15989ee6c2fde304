"""How far a reference's rows depend on one another: the block length that resampling needs, and what it misses."""

from dataclasses import dataclass

import numpy as np

LONGEST_LAG = 8000


@dataclass(frozen=True)
class Autocovariance:
    """Flat-top estimate of a series's autocovariances.

    `block`: the block length that the circular block bootstrap needs (Politis–White). `cut`: lag from which the
    autocovariances count as zero. `lags`: R_0 … R_cut.
    """

    block: float
    cut: int
    lags: np.ndarray

    def variance(self, n_rows: float) -> float:
        """Variance of a sum of `n_rows` consecutive rows ÷ n_rows; inf = its limit. At least .05 R_0."""
        k = np.arange(1, min(len(self.lags), int(min(n_rows, len(self.lags)))))
        weights = flat_top(k, self.cut) * (1 - k / n_rows)
        return float(max(self.lags[0] + 2 * weights @ self.lags[k], 0.05 * self.lags[0]))


def flat_top(lags: np.ndarray, cut: int) -> np.ndarray:
    """Weight 1 up to half the cut, falling to 0 at the cut."""
    return np.clip(2 * (1 - lags / max(cut, 1)), 0, 1)


def autocovariance(series: np.ndarray) -> Autocovariance | None:
    """The estimate for one series (rows,); None where it is constant, or has fewer than four rows.

    The bandwidth is twice the smallest lag after which five correlations in a row are insignificant; unlike the
    original, the block length is not capped at 3√N, so that a season shows as a length that no block can have.

    References: Politis & White (2004), Automatic block-length selection for the dependent bootstrap, Econometric
    Reviews 23, with the correction of Patton, Politis & White (2009).
    """
    n = len(series)
    centred = series - series.mean()
    longest = min(n // 4, LONGEST_LAG)
    size = 1 << int(np.ceil(np.log2(2 * n)))
    spectrum = np.fft.rfft(centred, size)
    lags = np.fft.irfft(spectrum * spectrum.conj(), size)[: longest + 1] / n
    if not longest or not lags[0] > 1e-12:
        return None
    quiet = np.abs(lags[1:] / lags[0]) < 2 * np.sqrt(np.log10(n) / n)
    run = max(5, int(np.sqrt(np.log10(n))))
    runs = np.flatnonzero(np.convolve(quiet, np.ones(run, int), "valid") == run)
    last = int(runs[0]) if len(runs) else longest
    cut = min(2 * last, longest)
    k = np.arange(1, cut + 1)
    weights = flat_top(k, cut)
    long_run = max(lags[0] + 2 * weights @ lags[k], 0.05 * lags[0])
    slope = 2 * (weights * k) @ lags[k]
    block = float((2 * slope**2 / (4 / 3 * long_run**2)) ** (1 / 3) * n ** (1 / 3))
    return Autocovariance(block, cut, lags[: cut + 1])


def widening(series: Autocovariance, *, n: float, reference: int, block: int, reference_block: int) -> float:
    """By how much the block bootstrap's draws are too narrow for a window mean less the reference mean, at least 1.

    √ of (what the variance is: n rows against `reference` rows) ÷ (what blocks of these lengths give).
    """
    wanted = series.variance(n) / n + series.variance(np.inf) / reference
    given = series.variance(block) / n + series.variance(reference_block) / reference
    return float(np.sqrt(max(1.0, wanted / (given * (1 - block / reference)))))

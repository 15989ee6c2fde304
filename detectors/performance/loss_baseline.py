"""What a stream of losses is held against row by row: how the reference's rows fared, one after the other."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from detectors.calibration import STUDENT
from detectors.dependence import autocovariance
from detectors.performance.tally import PredictionKind
from detectors.resampling import circular_sums
from detectors.sequential.blocks import dispersion_of
from detectors.sequential.likelihood import chain_skewness
from detectors.sequential.ranks import Ranks

HALF_AN_ERROR = 0.5  # at least, in all rows of a reference


@dataclass(frozen=True, eq=False)
class LossBaseline:
    """The mean of the reference's losses in [0, 1], over how many rows, and their dispersion (`blocks.dispersion_of`).

    `sd`: of one loss, in whose units a rise is told; at least what half an error in all rows would give. `excess`: by
    how much sums of many rows scatter more than those of blocks do, at least 1. `skewness`: by how much they are more
    skewed than those of errors (`likelihood.skewed`). `degrees`: of freedom, of what the reference says of the scatter.
    `cuts`: of losses without a bound, which become ranks among the reference's (`Ranks`); none where they have one.
    """

    mean: float
    sd: float
    n: int
    dispersion: float
    excess: float
    skewness: float
    degrees: float
    cuts: np.ndarray

    @classmethod
    def of(cls, kind: PredictionKind, losses: np.ndarray) -> "LossBaseline":
        """From the losses of a reference's rows in the order of time, NaN where there is none; one must be there."""
        cuts = Ranks.of(losses).cuts if kind == "numeric" else np.empty(0)
        scaled = brought(cuts, losses)
        finite = scaled[np.isfinite(scaled)]
        mean, n, dispersion = float(finite.mean()), len(finite), dispersion_of(finite)
        least = HALF_AN_ERROR / (n + 1)
        sd = float(np.sqrt(max(finite.var(), least * (1 - least))))
        found = autocovariance(finite)
        if found is None:
            return cls(mean, sd, n, dispersion, 1.0, 0.0, STUDENT * n, cuts)
        excess = max(found.variance(np.inf) / (mean * (1 - mean)) / dispersion, 1.0)
        block = max(min(round(found.block), n // 4), 1)
        skewness = skewness_beyond_errors(finite, block, excess * dispersion)
        return cls(mean, sd, n, dispersion, excess, skewness, STUDENT * n / max(found.block, 1.0), cuts)

    def scaled(self, losses: np.ndarray) -> np.ndarray:
        """Losses in [0, 1], NaN where there is none."""
        return brought(self.cuts, losses)

    def to_arrays(self) -> dict[str, Any]:
        """Every part by its name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "LossBaseline":
        """The inverse of `to_arrays`; KeyError where one is missing."""
        mean, sd, dispersion, excess, skewness, degrees = (
            float(arrays[name]) for name in ("mean", "sd", "dispersion", "excess", "skewness", "degrees")
        )
        return cls(mean, sd, int(arrays["n"]), dispersion, excess, skewness, degrees, arrays["cuts"])


def skewness_beyond_errors(losses: np.ndarray, block: int, dispersion: float) -> float:
    """By how much sums of l losses are more skewed than those of errors with that dispersion, × √l; at least 0.

    From the third moment of all circular sums of `block` rows, as moving blocks hold the dependence of the rows in
    them, and one standard error more, that of as many independent sums as blocks fit: too small a value costs more.

    References: Künsch (1989), The jackknife and the bootstrap for general stationary observations, Annals of
    Statistics 17.
    """
    mean = float(losses.mean())
    off = losses - mean
    sums = circular_sums(off[:, None], block)[:, 0].astype(np.float64)
    third = float((sums**3).mean()) / block
    found = third / (mean * (1 - mean) * dispersion) ** 1.5 + block * np.sqrt(6 / len(losses))
    return max(float(found) - chain_skewness(mean, dispersion), 0.0)


def brought(cuts: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Losses as they are, or their ranks among cuts."""
    return Ranks(cuts)(losses) if len(cuts) else losses

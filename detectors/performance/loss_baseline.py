"""What a stream of losses is held against row by row: how the reference's rows fared, one after the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.performance.tally import PredictionKind
from detectors.sequential.blocks import dispersion_of
from detectors.sequential.ranks import Ranks


@dataclass(frozen=True, eq=False)
class LossBaseline:
    """The mean of the reference's losses in [0, 1], over how many rows, and their dispersion (`blocks.dispersion_of`).

    `cuts`: of losses without a bound, which become ranks among the reference's (`Ranks`); none where they have one.
    """

    mean: float
    n: int
    dispersion: float
    cuts: np.ndarray

    @classmethod
    def of(cls, kind: PredictionKind, losses: np.ndarray) -> "LossBaseline":
        """From the losses of a reference's rows in the order of time, NaN where there is none; one must be there."""
        cuts = Ranks.of(losses).cuts if kind == "numeric" else np.empty(0)
        scaled = brought(cuts, losses)
        finite = scaled[np.isfinite(scaled)]
        return cls(float(finite.mean()), len(finite), dispersion_of(finite), cuts)

    def scaled(self, losses: np.ndarray) -> np.ndarray:
        """Losses in [0, 1], NaN where there is none."""
        return brought(self.cuts, losses)

    def to_arrays(self) -> dict[str, Any]:
        """Every part by its name."""
        return {"mean": self.mean, "n": self.n, "dispersion": self.dispersion, "cuts": self.cuts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "LossBaseline":
        """The inverse of `to_arrays`; KeyError where one is missing."""
        return cls(float(arrays["mean"]), int(arrays["n"]), float(arrays["dispersion"]), arrays["cuts"])


def brought(cuts: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Losses as they are, or their ranks among cuts."""
    return Ranks(cuts)(losses) if len(cuts) else losses

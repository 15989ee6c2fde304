"""What single features do not show: sums of products of normal scores, and of random Fourier features."""

from dataclasses import dataclass

import numpy as np

from detectors.basis import Basis

CLIP = 2.45  # of a normal score in a product: ±6 for the product
GRAIN = 1024  # scores are multiples of 1/GRAIN: sums of products are then exact in float64, in any order
RARE = 6.0  # normal score of a value that 1 in 37 rows has where all others have one value
FARTHEST = 64.0  # scaled value that is told apart from larger ones
MAX_FEATURES = 64  # numeric features whose pairs are watched; the first ones of the configuration
N_RANDOM = 128


@dataclass(frozen=True)
class RandomFeatures:
    """cos(x W + φ): the mean over rows embeds a distribution; distances between means approximate the MMD.

    Gaussian kernel exp(−‖x−y‖² / (2·bandwidth²)); rows are first centred and scaled. Scaled values are multiples of
    1/1024 within ±64 and directions multiples of 2⁻¹⁶, so that x W is exact in float64: a row's features do not depend
    on the rows that it is computed with.

    References: Rahimi & Recht (2007), Random features for large-scale kernel machines; Gretton et al. (2012), A kernel
    two-sample test, JMLR 13.
    """

    centre: np.ndarray  # float32, (columns,)
    inverse_scale: np.ndarray  # float32, (columns,)
    directions: np.ndarray  # float64, (columns, random features)
    phases: np.ndarray  # float64, (random features,)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """float32 (rows, random features)."""
        scaled = np.rint(np.clip((rows - self.centre) * self.inverse_scale, -FARTHEST, FARTHEST) * GRAIN) / GRAIN
        angles = scaled @ self.directions + self.phases
        out: np.ndarray = np.cos(angles.astype(np.float32))
        return out


def random_features(rows: np.ndarray, *, scale: bool, seed: int = 0) -> RandomFeatures:
    """Features whose bandwidth is the median distance between (at most 500, evenly spaced) reference rows."""
    rng = np.random.default_rng(seed)
    rows = rows[~np.isnan(rows).any(axis=1)].astype(np.float64)
    n_columns = rows.shape[1]
    centre = rows.mean(axis=0) if scale and len(rows) else np.zeros(n_columns)
    sd = rows.std(axis=0) if scale and len(rows) else np.ones(n_columns)
    inverse = np.where(sd > 0, 1 / np.where(sd > 0, sd, 1), 0.0)
    some = (rows[:: max(1, len(rows) // 500)][:500] - centre) * inverse
    squares = ((some[:, None] - some[None]) ** 2).sum(axis=-1)
    positive = squares[squares > 0]
    bandwidth = float(np.sqrt(np.median(positive))) if len(positive) else 1.0
    directions = np.rint(rng.normal(size=(n_columns, N_RANDOM)) / bandwidth * 2**16) / 2**16
    phases = rng.uniform(0, 2 * np.pi, N_RANDOM)
    f32 = np.float32
    return RandomFeatures(centre.astype(f32), inverse.astype(f32), directions, phases)


@dataclass(frozen=True)
class NormalScores:
    """The clipped normal score of every flat cell of the numeric features whose pairs are watched.

    A missing or invalid value scores 0, the reference's mean.
    """

    features: np.ndarray  # intp: indices into the grid's features
    by_cell: np.ndarray  # float64, (cells + 1,): the last one stands for "not counted"

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """float64 (rows, watched features) of flat cells (rows, watched features)."""
        return self.by_cell.take(codes.T).T  # as both lie in memory

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The watched pairs (i < j), as places among `features`."""
        return np.triu_indices(len(self.features), 1)


def normal_scores(basis: Basis) -> NormalScores:
    """The scores of a reference's numeric features, at most MAX_FEATURES of them.

    Constants are left out, and features with a value so rare among equal ones that its score is beyond RARE: the
    product of two of them rests on a handful of reference rows. What comes with the labels has no pairs: its values
    are there when those of the others are not any more.
    """
    grid = basis.grid
    farthest = np.maximum.reduceat(np.abs(basis.normal), grid.starts)
    numeric = [j for j in grid.kind("numeric") if 0 < farthest[j] < RARE and not grid.delayed[j]]
    by_cell = np.zeros(grid.n_cells + 1)
    by_cell[grid.n_special : -1] = np.rint(np.clip(basis.normal, -CLIP, CLIP) * GRAIN) / GRAIN
    return NormalScores(np.array(numeric[:MAX_FEATURES], np.intp), by_cell)

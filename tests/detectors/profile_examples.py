"""What the tests of profiles share: streams, profiles of them, and tables of windows."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch
from zlib import crc32

import numpy as np

from detectors.family import JOINT
from detectors.grid import FeatureKind
from detectors.profile import Profile
from detectors.reference import build
from detectors.summary import Sample, Table

Columns = dict[str, Any]
Kinds = dict[str, FeatureKind]


@contextmanager
def few_draws(fit: int = 2000, threshold: int = 6000) -> Iterator[None]:
    """Null distributions from fewer draws: rougher thresholds, an eighth of the time."""
    with (
        patch("detectors.calibration.DRAWS_FIT", fit),
        patch("detectors.calibration.DRAWS_THRESHOLD", threshold),
    ):
        yield


@dataclass(frozen=True)
class Built:
    """A reference and its profile."""

    columns: Columns
    kinds: Kinds
    profile: Profile

    def window(self, columns: Columns, invalid: dict[str, np.ndarray] | None = None) -> Table:
        """The table of a window's rows."""
        return table(self.profile, columns, invalid)

    def rows(self, n: int, seed: int) -> Columns:
        """A window of rows of the reference, drawn with replacement."""
        n_rows = len(next(iter(self.columns.values())))
        at = np.random.default_rng(seed).integers(0, n_rows, n)
        return {name: values[at] for name, values in self.columns.items()}


def built(columns: Columns, kinds: Kinds, *, sizes: tuple[int, ...], mmd_rows: int) -> Built:
    """A reference and its profile."""
    return Built(columns, kinds, build(columns, kinds, sizes=sizes, mmd_rows=mmd_rows))


def table(profile: Profile, columns: Columns, invalid: dict[str, np.ndarray] | None = None) -> Table:
    """The table of rows on a profile by `Grid.encode`, the plain path."""
    codes = profile.grid.encode(columns, invalid or {})
    scores = profile.normal_scores
    z = scores(codes[:, scores.features]).astype(np.float64)
    first, second = scores.pairs
    sums = np.concatenate([[float(len(codes))], (z[:, first] * z[:, second]).sum(axis=0)])
    keys = np.array([crc32(str(i).encode()) for i in range(len(codes))], np.uint32)
    samples = []
    for name, features in profile.random_features.items():
        rows = z if name == JOINT else columns[name]
        present = ~np.isnan(rows).any(axis=1)
        sample = Sample.empty(profile.mmd_rows, features.phases.size)
        sample.add(keys[present], features(rows[present]).__getitem__)
        samples.append(sample)
    return Table(profile.grid.count(codes).astype(np.int64), sums, tuple(samples))


def mix(n: int, rng: np.random.Generator, *, shift: float = 0.0) -> tuple[Columns, Kinds]:
    """n rows of eight numeric and three categorical features, independent of one another; x0 shifted."""
    columns: Columns = {f"x{i}": rng.normal(size=n) for i in range(4)}
    columns["x0"] = columns["x0"] + shift
    columns["lognormal"] = rng.lognormal(size=n)
    columns["zeros"] = np.where(rng.random(n) < 0.6, 0.0, rng.lognormal(size=n))
    columns["integers"] = rng.poisson(3, n).astype(float)
    columns["gaps"] = np.where(rng.random(n) < 0.05, np.nan, rng.standard_t(3, n))
    for name, k in (("two", 2), ("ten", 10), ("fifty", 50)):
        weights = 1 / np.arange(1, k + 1)
        columns[name] = rng.choice(np.array([f"c{i}" for i in range(k)], object), n, p=weights / weights.sum())
    kinds: Kinds = {
        name: "numeric" if values.dtype == np.float64 else "categorical" for name, values in columns.items()
    }
    return columns, kinds


def awkward_columns(n: int, rng: np.random.Generator) -> tuple[Columns, Kinds]:
    """n rows of features with which something is the matter."""
    columns: Columns = {
        "x": rng.normal(size=n),
        "constant": np.ones(n),
        "gone": np.full(n, np.nan),
        "half": np.where(rng.random(n) < 0.5, np.nan, rng.normal(size=n)),
        "infinite": np.where(rng.random(n) < 0.03, np.inf, rng.normal(size=n)),
        "y": rng.normal(size=n),
        "c": rng.choice(np.array(["a", "b"], object), n),
        "one": np.array(["only"] * n, object),
        "no": np.array([None] * n, object),
        "ids": np.array([f"id-{i}" for i in range(n)], object),
    }
    kinds: Kinds = {
        name: "numeric" if values.dtype == np.float64 else "categorical" for name, values in columns.items()
    }
    return columns, kinds

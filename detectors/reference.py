"""Builds a profile from a reference's columns."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np

from detectors.basis import Basis, basis
from detectors.calibration import ONCE, Alarm, Dependence, Null, calibrate, with_cell_rms
from detectors.dependence import Autocovariance, autocovariance
from detectors.family import JOINT, Family
from detectors.grid import MISSING, SPECIAL, Feature, FeatureKind, Grid, categorical_feature, numeric_feature
from detectors.joint import NormalScores, RandomFeatures, normal_scores, random_features
from detectors.performance.outcome import Delayed
from detectors.profile import Profile
from detectors.resampling import base_rows, block_sums

MIN_ROWS = 50
MOST_CELLS = 8_000_000  # rows × features kept for simulation; of a longer reference only runs of rows are kept
KEPT_RUNS = 50
SEGMENT_SHARE = 1 / 20  # dependence beyond this share of the reference is too long for blocks
NO_CUTS: Mapping[str, float] = {}
PERIODIC = -0.5  # an autocorrelation as low as this is taken for a season

NOT_DELAYED = Delayed()

Progress = Callable[[float], None]
Columns = Mapping[str, Any]
"""float64 arrays (numeric), sequences of strings or None (categorical), float matrices (embedding), by feature."""


def build(
    columns: Columns,
    kinds: Mapping[str, FeatureKind],
    *,
    sizes: Sequence[int],
    alarm: Alarm = ONCE,
    invalid: Mapping[str, np.ndarray] | None = None,
    mmd_rows: int = 1000,
    delayed: Delayed = NOT_DELAYED,
    progress: Progress = lambda _: None,
) -> Profile:
    """The profile of a reference in time order.

    Parameters
    ----------
    columns
        One array for each feature of `kinds`: float64 with NaN for missing (numeric), strings or None (categorical), a
        float matrix (embedding).
    sizes
        Window sizes, in rows, on which null distributions are simulated; the middle one is what cells are pooled for.
    alarm
        The policy whose openings a budget counts.
    mmd_rows
        Bound of a window's sample for the MMD; 0 leaves it out.
    delayed
        What comes with the labels; what the reference says of it is learnt here.

    Raises ValueError for fewer than 50 rows. Cost: about 5 CPU-seconds a size for 100,000 rows × 25 features.
    """
    invalid = invalid or {}
    names = list(kinds)
    n_rows = len(columns[names[0]])
    if n_rows < MIN_ROWS:
        raise ValueError(f"a reference must have at least {MIN_ROWS} rows; got {n_rows}.")
    n_current = sizes[len(sizes) // 2]
    outcome = delayed.outcome
    cuts = NO_CUTS if outcome is None else outcome.cuts
    plain = make_grid(columns, kinds, need=np.inf, delayed=delayed.columns, cuts=cuts)
    codes = plain.encode(columns, invalid)
    dependence = measure(basis(plain, plain.count(codes), columns, n_current=n_current, codes=codes), codes)
    grid = with_tails(plain, columns, need=dependence.need, cuts=cuts)
    codes = encode_again(codes, plain, grid, columns, invalid)
    counts = grid.count(codes)
    progress(0.05)
    measures = basis(grid, counts, columns, n_current=n_current, codes=codes)
    embed = embeddings(measures, columns, codes, mmd_rows)
    joint = joint_blocks(normal_scores(measures), embed, columns, codes)
    kept = kept_rows(n_rows, len(names))
    null = Null(
        codes=codes if kept is None else codes[kept],
        counts=counts,
        family=Family(measures, len(normal_scores(measures).pairs[0]), tuple(embed)),
        joint=joint if kept is None else joint_blocks(normal_scores(measures), embed, columns, codes, kept),
        n_pairs=len(normal_scores(measures).pairs[0]),
        mmd_rows=mmd_rows,
        dependence=dependence,
        n_rows=n_rows,
    )
    null = with_cell_rms(null, n_current, seed=3)
    progress(0.1)
    return Profile(
        basis=null.family.basis,
        counts=counts,
        random_features=embed,
        joint_means=joint.sum(axis=0, dtype=np.float64) / n_rows,
        joint_blocks=null.joint,
        codes=null.codes,
        mmd_rows=mmd_rows,
        calibration=calibrate(null, list(sizes), alarm, progress=lambda share: progress(0.1 + 0.9 * share)),
        about={},
        n_rows=n_rows,
        need=dependence.need,
        of_feature=dependence.of_feature,
        segments=dependence.segments,
        periodic=dependence.periodic,
        outcome=None if outcome is None else outcome.learn(null.family.basis, counts, codes, columns),
    )


def recalibrate(
    profile: Profile, *, sizes: Sequence[int], alarm: Alarm, progress: Progress = lambda _: None
) -> Profile:
    """The same profile with null distributions for other window sizes and another policy."""
    null = null_of(profile)
    about = {**profile.about, "simulated_from": profile.hash}
    calibration = calibrate(null, list(sizes), alarm, progress=progress)
    return replace(profile, calibration=calibration, about=about, content_hash="")


def null_of(profile: Profile) -> Null:
    """What draws need, from a profile with its codes."""
    measured = measure(profile.basis, profile.codes)
    dependence = replace(
        measured,
        need=profile.need,
        of_feature=profile.of_feature,
        segments=profile.segments,
        periodic=profile.periodic,
    )
    return Null(
        codes=profile.codes,
        counts=profile.counts,
        family=profile.family,
        joint=profile.joint_blocks,
        n_pairs=profile.n_pairs,
        mmd_rows=profile.mmd_rows,
        dependence=dependence,
        n_rows=profile.n_rows,
    )


def make_grid(
    columns: Columns,
    kinds: Mapping[str, FeatureKind],
    *,
    need: float,
    delayed: Set[str] = frozenset(),
    cuts: Mapping[str, float] = NO_CUTS,
) -> Grid:
    """The cells of every feature; `need` rows make a tail cell, and a feature's cut an edge."""
    features = []
    for name, kind in kinds.items():
        if kind == "numeric":
            features.append(numeric_feature(name, columns[name], need=need, cut=cuts.get(name)))
        elif kind == "categorical":
            features.append(categorical_feature(name, columns[name]))
        else:
            features.append(Feature(name, "embedding", length=columns[name].shape[1]))
    return Grid(tuple(replace(f, delayed=f.name in delayed) for f in features))


def with_tails(plain: Grid, columns: Columns, *, need: float, cuts: Mapping[str, float] = NO_CUTS) -> Grid:
    """The grid with the tail cells of its numeric features that hold `need` rows."""
    return Grid(
        tuple(
            f
            if f.edges is None
            else replace(numeric_feature(f.name, columns[f.name], need=need, cut=cuts.get(f.name)), delayed=f.delayed)
            for f in plain.features
        )
    )


def encode_again(
    codes: np.ndarray, plain: Grid, grid: Grid, columns: Columns, invalid: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Codes on a grid that differs in numeric features only: those are encoded, the others moved to their new place."""
    again = np.empty_like(codes)
    for j, feature in enumerate(grid.features):
        if feature.edges is None:
            moved = grid.slice(j).start - plain.slice(j).start
            again[:, j] = codes[:, j] + np.where(codes[:, j] >= grid.n_special, moved, 0)
        else:
            again[:, j] = grid.encode_feature(j, columns[feature.name], invalid.get(feature.name))
    return again


def measure(measures: Basis, codes: np.ndarray) -> Dependence:
    """The dependence of a reference's rows: location and scale of numeric features, the top category, missing."""
    grid = measures.grid
    series: dict[tuple[int, str], Autocovariance] = {}
    for j, feature in enumerate(grid.features):
        cells = codes[:, j]
        regular = np.maximum(cells - grid.n_special, 0)
        observed = cells >= grid.n_special
        views: dict[str, np.ndarray] = {"missing": (cells == SPECIAL * j + MISSING).astype(float)}
        if feature.edges is not None:
            views["location"] = np.where(observed, measures.normal[regular], 0.0)
            views["scale"] = np.where(observed, measures.spread[regular], 0.0)
        elif feature.kind == "categorical":
            views["location"] = (regular == grid.starts[j]).astype(float) * observed
        for what, values in views.items():
            found = autocovariance(values)
            if found is not None:
                series[j, what] = found
    of_feature = np.ones(len(grid.features))
    for (j, _), found in series.items():
        of_feature[j] = max(of_feature[j], found.block)
    need = float(of_feature.max())
    periodic = any(float(found.lags.min()) < PERIODIC * found.lags[0] for found in series.values())
    return Dependence(need, of_feature, series, need > SEGMENT_SHARE * len(codes), periodic)


def embeddings(measures: Basis, columns: Columns, codes: np.ndarray, mmd_rows: int) -> dict[str, RandomFeatures]:
    """Random features of the numeric features together (`*`) and of each embedding; none where the MMD is off."""
    if not mmd_rows:
        return {}
    scores = normal_scores(measures)
    found: dict[str, RandomFeatures] = {}
    for j in measures.grid.kind("embedding"):
        name = measures.grid.features[j].name
        found[name] = random_features(columns[name], scale=True)
    if len(scores.features):
        found[JOINT] = random_features(scores(codes[:: max(1, len(codes) // 500), scores.features]), scale=False)
    return found


def joint_blocks(
    scores: NormalScores,
    embed: Mapping[str, RandomFeatures],
    columns: Columns,
    codes: np.ndarray,
    kept: np.ndarray | None = None,
) -> np.ndarray:
    """Joint features summed over base blocks: products of the pairs, then each sample's random features.

    An embedding that is missing adds the mean of those that are not, so that a block stands for all its rows.
    """
    rows = np.arange(len(codes)) if kept is None else kept
    base = base_rows(len(rows))
    n_blocks = max(1, len(rows) // base)
    first, second = scores.pairs
    parts: list[list[np.ndarray]] = [[] for _ in range(1 + len(embed))]
    stride = max(1, 20_000 // base)
    for start in range(0, n_blocks, stride):
        stop = len(rows) if start + stride >= n_blocks else (start + stride) * base
        some = rows[start * base : stop]
        z = scores(codes[some][:, scores.features])
        parts[0].append(block_sums(z[:, first] * z[:, second], base)[: n_blocks - start])
        for part, (name, features) in zip(parts[1:], embed.items(), strict=True):
            values = features(z if name == JOINT else columns[name][some])
            missing = np.isnan(values).any(axis=1)
            if missing.any():
                values[missing] = values[~missing].mean(axis=0) if not missing.all() else 0.0
            part.append(block_sums(values, base)[: n_blocks - start])
    return np.concatenate([np.concatenate(part) for part in parts], axis=1)


def kept_rows(n_rows: int, n_features: int) -> np.ndarray | None:
    """Rows kept for simulation: all (None), or KEPT_RUNS evenly spaced runs of neighbouring rows."""
    if n_rows * n_features <= MOST_CELLS:
        return None
    length = MOST_CELLS // n_features // KEPT_RUNS
    starts = np.linspace(0, n_rows - length, KEPT_RUNS).astype(np.intp)
    return np.asarray((starts[:, None] + np.arange(length)).ravel())

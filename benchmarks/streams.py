"""Streams whose distribution is known, and tables of their windows in bulk: rows of numbers, no events."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.signal import lfilter
from scipy.special import ndtr

from benchmarks import answers
from benchmarks.answers import Answers
from detectors.contrast import Contrast
from detectors.family import JOINT, JointDifference
from detectors.grid import FeatureKind, Grid
from detectors.lookup import CellLookup
from detectors.performance.outcome import Delayed
from detectors.performance.tally import PredictionKind
from detectors.profile import Profile
from detectors.reference import build
from detectors.summary import Sample, Table

Kind = Literal["normal", "lognormal", "heavy", "ties", "ar1", "season"]

CORRELATION = 0.3  # of every pair of numeric features, before they are transformed
PHI = 0.9
PERIOD, AMPLITUDE = 20_000, 2.0  # of a season, rows and standard deviations
BULK_ROWS = 50_000  # drawn and encoded at once
NO_MARKS = np.empty((0, 2), np.intp), np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class World:
    """What a stream is drawn from.

    `categories`: how many the categorical features have, one after the other; they follow Zipf's law. `dependent`:
    under "ar1" the categories are autocorrelated as well. `correlation` is that of every pair of numeric features.
    `model`: what it predicts from the first features; then labels come, with noise that is distributed as the features
    are, autocorrelated where they are.
    """

    kind: Kind = "normal"
    n_numeric: int = 20
    n_categorical: int = 5
    categories: tuple[int, ...] = (2, 5, 12, 20, 50)
    dependent: bool = False
    correlation: float = CORRELATION
    model: PredictionKind | None = None

    @property
    def kinds(self) -> dict[str, FeatureKind]:
        """The features, numeric ones first, and what comes with a model."""
        numeric: dict[str, FeatureKind] = {f"x{i}": "numeric" for i in range(self.n_numeric)}
        found: dict[str, FeatureKind] = {**numeric, **{f"c{i}": "categorical" for i in range(self.n_categorical)}}
        return found if self.model is None else {**found, **answers.kinds(self.model)}

    def n_categories(self, i: int) -> int:
        """Categories of categorical feature i."""
        return self.categories[i % len(self.categories)]

    def shares(self, i: int) -> np.ndarray:
        """Probabilities of the categories of categorical feature i."""
        weights = 1 / np.arange(1, self.n_categories(i) + 1)
        return np.asarray(weights / weights.sum())


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows: float64 (rows, numeric) and the rank of each category, intp (rows, categorical)."""

    numeric: np.ndarray
    ranks: np.ndarray
    answers: Answers | None = None

    def columns(self) -> dict[str, Any]:
        """As a profile is built from; the loss is not among them."""
        found: dict[str, Any] = {f"x{i}": column for i, column in enumerate(self.numeric.T)}
        found |= {f"c{i}": [f"v{r}" for r in column.tolist()] for i, column in enumerate(self.ranks.T)}
        return found if self.answers is None else {**found, **self.answers.columns()}


class Stream:
    """Draws the rows of a world one after the other; what they depend on is remembered."""

    def __init__(self, world: World, seed: int | tuple[int, ...]) -> None:
        self._world = world
        self._rng = np.random.default_rng(seed)
        self._position = 0
        self._n_latent = world.n_numeric + 1 + world.n_categorical + (world.model is not None)
        self._memory = PHI * self._rng.normal(size=(1, self._n_latent))

    def take(self, n_rows: int) -> Rows:
        """The next rows."""
        world, rng = self._world, self._rng
        latent = rng.normal(size=(n_rows, self._n_latent))
        if world.kind == "ar1":
            scaled = np.sqrt(1 - PHI**2) * latent
            smooth, self._memory = lfilter([1.0], [1.0, -PHI], scaled, axis=0, zi=self._memory)
            latent[:, : world.n_numeric + 1] = smooth[:, : world.n_numeric + 1]
            if world.model is not None:
                latent[:, -1] = smooth[:, -1]
            if world.dependent:
                latent = smooth
        ends = np.cumsum([world.n_numeric, 1, world.n_categorical])
        own, common, chosen, noise = np.split(latent, ends, axis=1)
        z = np.sqrt(1 - world.correlation) * own + np.sqrt(world.correlation) * common
        if world.kind == "season":
            place = self._position + np.arange(n_rows)
            z += AMPLITUDE * np.sin(2 * np.pi * place / PERIOD)[:, None]
        self._position += n_rows
        ranks = np.empty((n_rows, world.n_categorical), np.intp)
        for i, column in enumerate(ndtr(chosen).T):
            ranks[:, i] = np.searchsorted(np.cumsum(world.shares(i))[:-1], column, "right")
        made = None if world.model is None else answers.answered(world.model, z, self._noise(noise[:, 0]))
        return Rows(self._shaped(z), ranks, made)

    def _noise(self, normal: np.ndarray) -> np.ndarray:
        """The noise of a number, of the shape that the features have; of a class it stays normal."""
        if self._world.model == "numeric" and self._world.kind == "lognormal":
            return np.asarray((np.exp(normal) - np.exp(0.5)) / np.sqrt(np.expm1(1) * np.e))
        if self._world.model == "numeric" and self._world.kind == "heavy":
            return np.asarray(normal / np.sqrt(self._rng.exponential(size=normal.shape)))
        return normal

    def _shaped(self, z: np.ndarray) -> np.ndarray:
        if self._world.kind == "lognormal":
            return np.asarray(np.exp(z))
        if self._world.kind == "heavy":  # Student's t with two degrees of freedom
            return np.asarray(z / np.sqrt(self._rng.exponential(size=z.shape)))
        if self._world.kind == "ties":  # halves, integers, zero inflation, a rare 1
            z[:, 0::4] = np.round(2 * z[:, 0::4]) / 2
            z[:, 1::4] = np.round(z[:, 1::4])
            z[:, 2::4] = np.maximum(z[:, 2::4], 0)
            z[:, 3::4] = z[:, 3::4] > 2.3
        return z


def cells_of_ranks(grid: Grid, world: World) -> list[np.ndarray]:
    """The flat cell of every rank of each categorical feature; the rank after the last is a category that is new."""
    n = max((world.n_categories(i) for i in range(world.n_categorical)), default=0) + 1
    one_of_each = Rows(np.full((n, world.n_numeric), np.nan), np.tile(np.arange(n)[:, None], world.n_categorical))
    values = one_of_each.columns()
    codes = [grid.encode_feature(grid.names.index(f"c{i}"), values[f"c{i}"]) for i in range(world.n_categorical)]
    return [cells[: world.n_categories(i) + 1] for i, cells in enumerate(codes)]


class Encoder:
    """Finds the cells of a world's rows on a grid."""

    def __init__(self, grid: Grid, world: World) -> None:
        self._grid = grid
        self._numeric = CellLookup(grid)
        self._has_score = len(self._numeric.features) > world.n_numeric
        self._cells = cells_of_ranks(grid, world)

    def __call__(self, rows: Rows) -> np.ndarray:
        """Flat cells, int64 (rows, features); one beyond all where a label has not come."""
        ranks = [cells[column] for cells, column in zip(self._cells, rows.ranks.T, strict=True)]
        numeric, said = rows.numeric, rows.answers
        if said is not None and self._has_score:
            numeric = np.column_stack([numeric, said.prediction])
        found = self._numeric(numeric, *NO_MARKS)[:, : rows.numeric.shape[1]]
        known = {} if said is None else said.codes(self._grid)
        return np.column_stack([found, *ranks, *(known[j] for j in sorted(known))])


def profile_of(
    stream: Stream, world: World, n_rows: int, sizes: Sequence[int], *, mmd_rows: int = 1000, rows: Rows | None = None
) -> Profile:
    """The profile of the stream's next rows, or of the given ones, as the service would build it."""
    columns, delayed = (stream.take(n_rows) if rows is None else rows).columns(), Delayed()
    if world.model is not None:
        columns, delayed = answers.with_loss(columns, world.model)
    return build(columns, world.kinds, sizes=sizes, mmd_rows=mmd_rows, delayed=delayed)


def windows(
    profile: Profile, stream: Stream, world: World, n_rows: int, n_windows: int, losses: list[np.ndarray] | None = None
) -> Iterator[list[Table]]:
    """Tables of the next windows of a stream, as the service would count them, in portions.

    `losses` is given the loss of each row, NaN where its label has not come.
    """
    encode, rng = Encoder(profile.grid, world), np.random.default_rng(n_rows)
    step = max(1, BULK_ROWS // n_rows)
    for first in range(0, n_windows, step):
        count = min(step, n_windows - first)
        rows = stream.take(count * n_rows)
        if rows.answers is not None:
            answers.forget(rows.answers, rng)
            if losses is not None:
                losses.append(rows.answers.loss)
        codes = encode(rows).reshape(count, n_rows, -1)
        yield tables(profile, codes, rng)


def tables(profile: Profile, codes: np.ndarray, rng: np.random.Generator) -> list[Table]:
    """Tables of windows given their cells (windows, rows, features); ids are drawn at random."""
    n_windows, n_rows, _ = codes.shape
    n_cells = profile.grid.n_cells
    flat = codes + np.arange(n_windows)[:, None, None] * (n_cells + 1)
    counts = np.bincount(flat.ravel(), minlength=n_windows * (n_cells + 1)).reshape(n_windows, n_cells + 1)[:, :-1]
    z = profile.normal_scores(codes[:, :, profile.normal_scores.features])
    first, second = profile.normal_scores.pairs
    products = (z.transpose(0, 2, 1) @ z)[:, first, second]
    keys = rng.integers(0, 1 << 32, (n_windows, n_rows), np.uint32)
    return [
        Table(counts[i], np.concatenate([[float(n_rows)], products[i]]), samples(profile, keys[i], z[i]))
        for i in range(n_windows)
    ]


def samples(profile: Profile, keys: np.ndarray, z: np.ndarray) -> tuple[Sample, ...]:
    """The sample of the numeric features together."""
    if JOINT not in profile.random_features:
        return ()
    features = profile.random_features[JOINT]
    sample = Sample.empty(profile.mmd_rows, features.phases.size)
    sample.add(keys, lambda kept: features(z[kept]))
    return (sample,)


def drawn_tables(
    profile: Profile, world: World, n_rows: int, n_windows: int, rng: np.random.Generator
) -> Iterator[list[Table]]:
    """The same for a world of independent normal features, without drawing its rows.

    Counts are multinomial. Mean products of scores are normal: for independent features those of two pairs are
    uncorrelated up to the reference's error in the mean score, and so are they and the counts. The MMD's sample, at
    most `mmd_rows` of the rows, is drawn row by row.
    """
    grid, scores, cells = profile.grid, profile.normal_scores, cells_of_ranks(profile.grid, world)
    shares = np.zeros(grid.n_cells)
    for j, feature in enumerate(grid.features):
        if feature.edges is not None:
            shares[grid.slice(j)] = np.diff(ndtr(feature.edges), prepend=0.0, append=1.0)
    moments = np.array(
        [[(shares[grid.slice(j)] * scores.by_cell[grid.slice(j)] ** k).sum() for k in (1, 2)] for j in scores.features]
    )
    first, second = scores.pairs
    mean = moments[first, 0] * moments[second, 0]
    sd = np.sqrt(moments[first, 1] * moments[second, 1] - mean**2)
    sampled = windows(profile, Stream(world, int(rng.integers(1 << 30))), world, profile.mmd_rows, n_windows)
    for portion in sampled:
        counts = np.zeros((len(portion), grid.n_cells), np.int64)
        for j, feature in enumerate(grid.features):
            if feature.edges is None:
                i = j - world.n_numeric
                for row in counts:
                    np.add.at(row, cells[i][:-1], rng.multinomial(n_rows, world.shares(i)))
            else:
                counts[:, grid.slice(j)] = rng.multinomial(n_rows, shares[grid.slice(j)], len(portion))
        products = n_rows * mean + np.sqrt(n_rows) * sd * rng.normal(size=(len(portion), len(mean)))
        yield [
            Table(counts[i], np.concatenate([[float(n_rows)], products[i]]), table.samples)
            for i, table in enumerate(portion)
        ]


def terms(profile: Profile, portion: list[Table]) -> np.ndarray:
    """−log p + log weight of every term of windows with equally many rows, (windows, terms), as `scoring.score` has it.

    Only for windows in which every feature was observed: nothing is left out here. What comes with the labels is judged
    apart, but by the same p-values.
    """
    family, n_pairs, n = profile.family, profile.n_pairs, float(portion[0].sums[0])
    current = np.stack([table.counts for table in portion]).astype(np.float64)
    contrast = Contrast(profile.basis, reference=profile.counts, current=current)
    off = np.stack([table.sums[1:] for table in portion]) / n - profile.joint_means[:n_pairs]
    size = 1 / np.sqrt(1 / n + 1 / profile.n_rows)
    correlation = off * size / profile.calibration.pair_sd(n) if n_pairs else off
    squares, sizes = [], []
    if portion[0].samples:
        counts = np.array([table.samples[0].n for table in portion])
        means = np.stack([table.samples[0].sums.sum(axis=0) for table in portion]) / counts[:, None]
        squares.append(2 * np.mean((means - profile.joint_means[n_pairs:]) ** 2, axis=1))
        sizes.append(1 / np.sqrt(1 / counts + 1 / profile.n_rows))
    joint = JointDifference(correlation, tuple(squares), tuple(sizes))
    minus_log_p = profile.calibration.minus_log_p(family, family.pivots(contrast, joint), n)
    return np.asarray(minus_log_p + family.log_weight)

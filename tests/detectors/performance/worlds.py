"""A small world with a model in it, whose reference the tests of kinds learn from."""

from dataclasses import dataclass, field

import numpy as np

from detectors.basis import basis
from detectors.grid import Feature, Grid, categorical_feature, numeric_feature
from detectors.performance.kind import Learnt
from detectors.performance.loss import loss
from detectors.performance.reference import PerformanceReference, performance_reference
from detectors.performance.scores import score_edges
from detectors.performance.tally import PredictionKind

Columns = dict[str, np.ndarray]
WEIGHTS = np.array([1.0, -0.8, 0.6])
NAMES = ("a", "b", "c", "group", "prediction")


def says(columns: Columns, weights: np.ndarray = WEIGHTS, intercept: float = -0.3) -> np.ndarray:
    """What the features say of Y."""
    linear = np.column_stack([columns["a"], columns["b"] / 10, np.log(columns["c"])]) @ weights + intercept
    return np.asarray(linear + 0.5 * (columns["group"] == "x"))


def features(n: int, rng: np.random.Generator) -> Columns:
    """Three numbers and a category."""
    group = rng.choice(np.array(["x", "y", "z"], object), n, p=[0.5, 0.3, 0.2])
    return {"a": rng.normal(size=n), "b": rng.normal(0, 10, n), "c": np.exp(rng.normal(size=n)), "group": group}


def answers(kind: PredictionKind, linear: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels."""
    if kind == "numeric":
        return linear + rng.normal(0, 0.7, len(linear))
    return (rng.random(len(linear)) < 1 / (1 + np.exp(-linear))).astype(np.float64)


def predicted(kind: PredictionKind, columns: Columns) -> np.ndarray:
    """The model: it knows the world of the reference, but not the category."""
    readable = {**columns, "c": np.nan_to_num(np.clip(columns["c"], 1e-9, None), nan=1.0)}
    linear = says({**readable, "a": np.nan_to_num(columns["a"]), "b": np.nan_to_num(columns["b"])}) * 0.95
    if kind == "numeric":
        return linear
    p = 1 / (1 + np.exp(-linear))
    return p if kind == "probability" else (p >= 0.5).astype(np.float64)


@dataclass
class Place:
    """A reference of 8,000 rows, learnt."""

    kind: PredictionKind
    grid: Grid = field(init=False)
    learnt: Learnt = field(init=False)
    performance: PerformanceReference = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(17)
        columns = features(8000, rng)
        label = answers(self.kind, says(columns), rng)
        columns["prediction"] = predicted(self.kind, columns)
        made = [
            categorical_feature(name, columns[name].tolist())
            if name == "group"
            else numeric_feature(name, columns[name])
            for name in NAMES
        ]
        if self.kind == "probability":
            made[-1] = Feature("prediction", "numeric", score_edges(columns["prediction"], 0.5, quantiles=64))
        self.grid = Grid(tuple(made))
        codes = self.grid.encode(columns, {})
        measures = basis(self.grid, self.grid.count(codes), columns, n_current=1000, codes=codes)
        plain = Learnt(measures, self.grid.count(codes), np.arange(4), 4)
        self.performance = performance_reference(self.kind, columns["prediction"], label, learnt=plain, codes=codes)
        self.learnt = Learnt(measures, plain.counts, plain.features, 4, self.performance.labels)

    def window(self, columns: Columns, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A window's counts, and the sums of its labelled rows."""
        prediction = predicted(self.kind, columns)
        codes = self.grid.encode({**columns, "prediction": prediction}, {})
        group = self.performance.group(label)
        return self.grid.count(codes), self.performance.labels.count(codes, group, loss(self.kind, prediction, label))

"""Worlds whose drift is known: features, a model that was fitted on them, labels, and what can go wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from detectors.grid import FeatureKind

NUMERIC = ("income", "amount", "balance", "score", "age")
CATEGORIES: Mapping[str, tuple[str, ...]] = {"region": tuple("ABCDE"), "channel": ("web", "app", "shop")}
FEATURES = (*NUMERIC, *CATEGORIES)
KINDS: Mapping[str, FeatureKind] = {**dict.fromkeys(NUMERIC, "numeric"), **dict.fromkeys(CATEGORIES, "categorical")}
NOISE = 0.5  # of a number to predict, in standard deviations of what the features say
POOL = 12  # rows drawn for one that is kept, where labels are re-weighted

Task = Literal["probability", "numeric"]


@dataclass
class Rows:
    """Latent features (n, 5) standard normal or near it, categories (n, 2) as numbers, and what struck the columns."""

    latent: np.ndarray
    category: np.ndarray
    broken: list[Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], None]] = field(default_factory=list)


@dataclass(frozen=True)
class World:
    """How Y follows from X: weights of the latent features and of the categories, one interaction, an intercept."""

    task: Task
    weights: np.ndarray  # of the latent features
    of_category: tuple[np.ndarray, ...]
    interaction: float
    intercept: float = 0.0

    def rows(self, n: int, rng: np.random.Generator) -> Rows:
        """Ordinary rows."""
        latent = rng.normal(size=(n, len(NUMERIC)))
        latent[:, 3] = 0.6 * latent[:, 0] + 0.8 * latent[:, 3]
        category = np.column_stack(
            [rng.choice(len(c), n, p=np.arange(len(c), 0, -1) / sum(range(len(c) + 1))) for c in CATEGORIES.values()]
        )
        return Rows(latent, category)

    def says(self, rows: Rows) -> np.ndarray:
        """What the features say of Y."""
        linear = rows.latent @ self.weights + self.intercept
        linear = linear + self.interaction * rows.latent[:, 0] * rows.latent[:, 1]
        for k, effects in enumerate(self.of_category):
            linear = linear + effects[rows.category[:, k]]
        return np.asarray(linear)

    def label(self, rows: Rows, rng: np.random.Generator) -> np.ndarray:
        """Y of each row."""
        says = self.says(rows)
        if self.task == "numeric":
            return 100 + 20 * (says + rng.normal(0, NOISE, len(says)))
        return (rng.random(len(says)) < 1 / (1 + np.exp(-says))).astype(np.float64)


def world(task: Task, rng: np.random.Generator) -> World:
    """One at random, in which several features matter."""
    weights = rng.uniform(0.4, 1.2, len(NUMERIC)) * rng.choice([-1, 1], len(NUMERIC))
    of_category = tuple(rng.normal(0, 0.5, len(c)) for c in CATEGORIES.values())
    return World(task, weights, of_category, float(rng.uniform(-0.3, 0.3)), float(rng.uniform(-1, 0.5)))


def columns(rows: Rows) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the producer sends: columns in units of their own, and masks of invalid values; faults included."""
    z = rows.latent
    sent: dict[str, np.ndarray] = {
        "income": np.exp(10 + 0.5 * z[:, 0]),
        "amount": 50 + 10 * z[:, 1],
        "balance": 500 * z[:, 2],
        "score": 600 + 80 * z[:, 3],
        "age": np.round(45 + 12 * z[:, 4]),
    }
    for k, (name, values) in enumerate(CATEGORIES.items()):
        sent[name] = np.array(values, object)[rows.category[:, k]]
    invalid: dict[str, np.ndarray] = {}
    for strike in rows.broken:
        strike(sent, invalid)
    return sent, invalid


@dataclass(frozen=True)
class Model:
    """A linear or logistic regression on what the producer sends; a value that it cannot read is its column's mean."""

    task: Task
    mean: np.ndarray
    sd: np.ndarray
    coefficients: np.ndarray

    @staticmethod
    def matrix(sent: Mapping[str, np.ndarray], invalid: Mapping[str, np.ndarray]) -> np.ndarray:
        """Numbers and indicators, NaN where unreadable."""
        numbers = []
        for name in NUMERIC:
            values = sent[name].astype(np.float64)
            numbers.append(np.where(invalid[name], np.nan, values) if name in invalid else values)
        numbers[0] = np.log(np.maximum(numbers[0], 1e-9))
        indicators = [(sent[name] == c).astype(np.float64) for name, values in CATEGORIES.items() for c in values[1:]]
        return np.column_stack([*numbers, *indicators])

    def predict(self, sent: Mapping[str, np.ndarray], invalid: Mapping[str, np.ndarray]) -> np.ndarray:
        """A probability, or a number."""
        x = np.nan_to_num((self.matrix(sent, invalid) - self.mean) / self.sd)
        linear = np.column_stack([np.ones(len(x)), x]) @ self.coefficients
        return np.asarray(linear if self.task == "numeric" else 1 / (1 + np.exp(-np.clip(linear, -30, 30))))


def fitted(task: Task, sent: Mapping[str, np.ndarray], label: np.ndarray) -> Model:
    """The model of training rows."""
    x = Model.matrix(sent, {})
    mean, sd = x.mean(axis=0), x.std(axis=0)
    x = np.column_stack([np.ones(len(x)), (x - mean) / sd])
    if task == "numeric":
        return Model(task, mean, sd, np.linalg.lstsq(x, label, rcond=None)[0])
    b = np.zeros(x.shape[1])
    for _ in range(12):
        p = 1 / (1 + np.exp(-x @ b))
        b += np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + 1e-3 * np.eye(len(b)), x.T @ (label - p))
    return Model(task, mean, sd, b)

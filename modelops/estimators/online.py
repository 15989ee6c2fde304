"""river's linear models: rows are learnt one by one in the order of time; a champion goes on where it is.

Numbers are standardised by what was seen of them so far; a category is a feature of its own; what is missing is left
out, which is the mean of a standardised feature.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from modelops.errors import TrainingError
from modelops.estimators import archive
from modelops.recipe import Model

ARCHIVE = "model.skops"
TRUSTED = (
    "collections.Counter",
    "river._river_rust.vectordict.VectorDict",
    "river.linear_model.alma.ALMAClassifier",
    "river.linear_model.log_reg.LogisticRegression",
    "river.linear_model.perceptron.Perceptron",
    "river.optim.ada_grad.AdaGrad",
    "river.optim.adam.Adam",
    "river.optim.initializers.Zeros",
    "river.optim.losses.Hinge",
    "river.optim.losses.Log",
    "river.optim.schedulers.Constant",
    "river.optim.sgd.SGD",
    "river.preprocessing.scale.StandardScaler",
)
OPTIMIZERS = ("SGD", "Adam", "AdaGrad")


def version() -> str:
    """Name and version."""
    return f"river {metadata.version('river')}"


def fit(
    chosen: Model, categorical: Sequence[bool], matrix: np.ndarray, y: np.ndarray, champion: Any | None = None
) -> Any:
    """Learns the rows in their order, after those that the champion has learnt."""
    from river import preprocessing

    if champion is None:
        made = {
            "scaler": preprocessing.StandardScaler(),
            "model": _made(chosen),
            "parameters": dict(chosen.parameters),
            "categorical": [bool(c) for c in categorical],
        }
    elif champion["parameters"] != chosen.parameters:
        raise TrainingError(
            f"river's models go on with the parameters they began with, {champion['parameters']}; got "
            f"`model.parameters` {dict(chosen.parameters)}. Give the former, or `training.retraining: full`."
        )
    else:
        made = copy.deepcopy(champion)
    scaler, model = made["scaler"], made["model"]
    for (numbers, categories), label in zip(_rows(made["categorical"], matrix), (y == 1).tolist(), strict=True):
        scaler.learn_one(numbers)
        model.learn_one(scaler.transform_one(numbers) | categories, label)
    return made


def predict(estimator: Mapping[str, Any], matrix: np.ndarray) -> np.ndarray:
    """Probabilities of the positive class."""
    transform, ask = estimator["scaler"].transform_one, estimator["model"].predict_proba_one
    rows = _rows(estimator["categorical"], matrix)
    found = (ask(transform(numbers) | categories)[True] for numbers, categories in rows)
    return np.fromiter(found, float, count=len(matrix))


def dumps(estimator: Any, path: Path) -> bytes:
    """The archive."""
    return archive.dumps(estimator, TRUSTED, path)


def loads(data: bytes, path: Path) -> Any:
    """The estimator of an archive."""
    return archive.loads(data, TRUSTED, path)


def _rows(categorical: Sequence[bool], matrix: np.ndarray) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Each row's numbers and its categories, without what is missing."""
    names = [(str(j), is_category) for j, is_category in enumerate(categorical)]
    for row in matrix.tolist():
        numbers, categories = {}, {}
        for (name, is_category), value in zip(names, row, strict=True):
            if isnan(value):
                continue
            if is_category:
                categories[f"{name}={int(value)}"] = 1.0
            else:
                numbers[name] = value
        yield numbers, categories


def _made(chosen: Model) -> Any:
    """An unfitted model of river."""
    from river import linear_model, optim

    settings: dict[str, Any] = dict(chosen.parameters)
    others: dict[str, Any] = {"river_alma": linear_model.ALMAClassifier, "river_perceptron": linear_model.Perceptron}
    if chosen.kind in others:
        return others[chosen.kind](**settings)
    name, rate = settings.pop("optimizer", "SGD"), settings.pop("learning_rate", 0.05)
    if name not in OPTIMIZERS:
        raise TrainingError(f"`model.parameters.optimizer` must be one of {', '.join(OPTIMIZERS)}; got {name!r}.")
    return linear_model.LogisticRegression(getattr(optim, name)(rate), **settings)

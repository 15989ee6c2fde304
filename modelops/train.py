"""Training: a snapshot's oldest rows are fitted, its newest are held out for the gate."""

from typing import Any

import msgspec
import numpy as np

from modelops import models
from modelops.bootstrap import roc_auc, value
from modelops.data import Rows
from modelops.errors import TrainingError
from modelops.models import Model
from modelops.recipe import Recipe


class Trained(msgspec.Struct, frozen=True):
    """What training leaves. `artifact` is a folder, `sha256` its hash; `predictions` were made on unseen rows."""

    artifact: str
    sha256: str
    n_train: int
    seconds: float
    metrics: dict[str, float]


def train(rows: Rows, recipe: Recipe, *, champion: Model | None = None) -> tuple[Model, int]:
    """The model of a recipe on the snapshot's oldest rows, and how many; a recalibration where a champion is given.

    Raises TrainingError where labels are of one class in either part.
    """
    n_train = len(rows.y) - round(len(rows.y) * recipe.training.hold_out)
    for name, part in (("fitted", slice(0, n_train)), ("held out", slice(n_train, None))):
        if len(np.unique(rows.y[part])) < 2:
            raise TrainingError(f"labels must be of both classes; the rows that are {name} are all of one.")
    old = rows.part(slice(0, n_train))
    if champion is not None:
        return models.recalibrate(champion, old.columns, old.y), n_train
    encoding = models.encoding_of(old.columns, recipe.data.features)
    return models.fit(recipe.model, encoding, old.columns, old.y), n_train


def unseen_predictions(model: Model, rows: Rows, n_train: int) -> np.ndarray:
    """Predictions for all rows, (n,), distributed as the model's are on rows that it has not seen.

    On its own training rows a model is too sure, and a profile of that would differ from every window. So a fitted row
    takes, in the order of the model's predictions, a value that the model gave a held-out row. Values of other models
    (cross-fitting) will not do: trees give few distinct values, each model its own, and cells are counted by value.
    """
    found = model.score(rows.columns)
    held = np.sort(found[n_train:])
    ranks = np.argsort(np.argsort(found[:n_train], kind="stable"), kind="stable")
    found[:n_train] = held[ranks * len(held) // max(n_train, 1)]
    return found


def hold_out_metrics(model: Model, rows: Rows, n_train: int) -> dict[str, Any]:
    """What is tracked of a model: figures on its own hold-out."""
    held = rows.part(slice(n_train, None))
    scores = model.score(held.columns)
    return {
        "roc_auc": value(roc_auc, scores, held.y),
        "brier": float(np.mean((scores - held.y) ** 2)),
        "positive_share": float(held.y.mean()),
    }

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

FOLDS = 4


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


def unseen_predictions(model: Model, rows: Rows, recipe: Recipe, n_train: int) -> np.ndarray:
    """Predictions for all rows as a model makes them on rows that it has not seen, (n,).

    The held-out rows are the model's own; for the fitted ones, models of the same recipe that leave a fold out speak:
    a model's predictions on what it was fitted on are too sure, and a profile of them would call every window drifted.
    """
    found = model.score(rows.columns)
    if model.shift:
        return found  # a recalibration saw one number of these rows
    folds = np.arange(n_train) % FOLDS
    for fold in range(FOLDS):
        kept, left = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if len(np.unique(rows.y[kept])) == 2:
            columns = {name: values[kept] for name, values in rows.columns.items()}
            part = models.fit(recipe.model, model.encoding, columns, rows.y[kept])
            found[left] = part.score({name: values[left] for name, values in rows.columns.items()})
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

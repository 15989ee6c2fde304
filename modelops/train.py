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

FOLDS = 5  # of cross-fitting: fewer make models that are worse than the one they stand for


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


def unseen_predictions(model: Model, rows: Rows, n_fitted: int, recipe: Recipe) -> np.ndarray:
    """Predictions for all rows, (n,), as the model's are on rows that it has not seen: beside labels, too.

    On the rows that it was fitted on a model is too sure, and too often right: a profile of that would differ from
    every window. So each of these rows is predicted by a model of the recipe that was fitted without it (cross-fitting)
    and takes, in the order of those predictions, a value that the model itself gave a held-out row: trees give few
    distinct values, each model its own, and cells are counted by value.
    """
    found = model.score(rows.columns)
    if not n_fitted:
        return found
    fitted, fold = rows.part(slice(0, n_fitted)), np.arange(n_fitted) % FOLDS
    crossed = np.empty(n_fitted)
    for k in range(FOLDS):
        kept = {name: values[fold != k] for name, values in fitted.columns.items()}
        left_out = {name: values[fold == k] for name, values in fitted.columns.items()}
        crossed[fold == k] = models.fit(recipe.model, model.encoding, kept, fitted.y[fold != k]).score(left_out)
    held = np.sort(found[n_fitted:])
    ranks = np.argsort(np.argsort(crossed, kind="stable"), kind="stable")
    found[:n_fitted] = held[ranks * len(held) // n_fitted]
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

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

TOO_SURE = 0.01  # p-value under which predictions of fitted rows are not those of held-out ones: a window finds less
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

    Rows that it was fitted on are too often right: beside that every window's loss would be drift. So each of them is
    predicted by a model of the recipe that was fitted without it (cross-fitting), and takes, in the order of those
    predictions, a value of the model itself: trees give few distinct values, each model its own, and cells are counted
    by value. The values are those of the fitted rows, or, where the model is too sure of those, of the held-out ones;
    they are fewer, so the profile is then as uncertain as so few rows make it.
    """
    from scipy.stats import ks_2samp  # which takes a while, and only training needs it

    found = model.score(rows.columns)
    if not n_fitted:
        return found
    fitted, fold = rows.part(slice(0, n_fitted)), np.arange(n_fitted) % FOLDS
    crossed = np.empty(n_fitted)
    for k in range(FOLDS):
        kept = {name: values[fold != k] for name, values in fitted.columns.items()}
        left_out = {name: values[fold == k] for name, values in fitted.columns.items()}
        crossed[fold == k] = models.fit(recipe.model, model.encoding, kept, fitted.y[fold != k]).score(left_out)
    is_too_sure = ks_2samp(found[:n_fitted], found[n_fitted:]).pvalue < TOO_SURE
    values = np.sort(found[n_fitted:] if is_too_sure else found[:n_fitted])
    ranks = np.argsort(np.argsort(crossed, kind="stable"), kind="stable")
    found[:n_fitted] = values[ranks * len(values) // n_fitted]
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

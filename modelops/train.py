"""Training: a snapshot's oldest rows are learnt, its newest are held out for the gate."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelops import models, search
from modelops.bootstrap import roc_auc, value
from modelops.data import Rows
from modelops.errors import TooFewLabels, TrainingError
from modelops.estimators import onnx_session
from modelops.models import Model
from modelops.recipe import Recipe
from modelops.search import Parameters, Progress
from modelops.times import rfc3339

TOO_SURE = 0.01  # p-value under which predictions of fitted rows are not those of held-out ones: a window finds less
FOLDS = 5  # of cross-fitting: fewer make models that are worse than the one they stand for


class Trained(msgspec.Struct, frozen=True):
    """What training leaves. `artifact` is a folder, `sha256` its hash; `n_train`: the snapshot's rows before the
    hold-out; `learnt_to_s`: the newest row that was learnt; `how`: full, incremental, transfer or recalibration."""

    artifact: str
    sha256: str
    n_train: int
    seconds: float
    metrics: dict[str, float]
    how: str
    learnt_to_s: float | None
    parameters: Parameters


class Champion(msgspec.Struct, frozen=True):
    """The model to go on from, and the event time up to which it has learnt; None: unknown."""

    model: Model
    learnt_to_s: float | None


class Learnt(msgspec.Struct, frozen=True):
    """A model, how it came to be, the rows before the hold-out, and the parameters that a search chose."""

    model: Model
    how: str
    n_train: int
    learnt_to_s: float | None
    parameters: Parameters = {}
    metrics: dict[str, float] = {}


def train(rows: Rows, recipe: Recipe, *, champion: Champion | None, folder: Path, progress: Progress) -> Learnt:
    """The model of a recipe on the snapshot's oldest rows. Without a champion a recipe's first model is a full one.

    A search keeps its trials in the folder. Raises TrainingError; TooFewLabels where waiting for rows helps.
    """
    if recipe.model.format == "onnx":
        onnx_session.require()
    n_train = _split(rows, recipe)
    old = rows.part(slice(0, n_train))
    how = recipe.training.retraining if champion is not None else "full"
    start = None
    if champion is None or how == "full":
        encoding = models.encoding_of(old.columns, recipe.data.features)
    else:
        start = _start(champion.model, recipe)
        if how == "incremental":
            old = _unlearnt(old, champion, recipe)
        grows = recipe.model.kind == "lightgbm" or recipe.model.kind.startswith("river_")
        known = start.encoding
        encoding = models.encoding_of(old.columns, known.kinds, known) if grows else known
    chosen, parameters, metrics = recipe.model, {}, {}
    if recipe.search is not None:
        found = search.search(old, recipe.model, recipe.search, encoding, start, folder=folder, progress=progress)
        parameters, metrics = found.parameters, {"search.roc_auc": found.best, "search.trials": float(found.n_trials)}
        chosen = chosen.model_copy(update={"parameters": chosen.parameters | parameters})
    model = models.fit(chosen, encoding, old.columns, old.y, start)
    if recipe.model.format == "onnx":
        model = models.as_onnx(model, rows.columns)
    return Learnt(model, how, n_train, float(old.times_s[-1]), parameters, metrics)


def recalibrate(rows: Rows, recipe: Recipe, champion: Champion) -> Learnt:
    """The champion with its log odds shifted to the rows' share of positives."""
    if champion.model.encoding.kinds != recipe.data.features:
        raise TrainingError(
            f"a recalibration must go on with the champion's features, {', '.join(champion.model.encoding.kinds)}; the "
            f"recipe has {', '.join(recipe.data.features)}. Train once with `modelops train`."
        )
    n_train = _split(rows, recipe)
    old = rows.part(slice(0, n_train))
    model = models.recalibrate(champion.model, old.columns, old.y)
    return Learnt(model, "recalibration", n_train, champion.learnt_to_s)


def _split(rows: Rows, recipe: Recipe) -> int:
    """How many rows are before the hold-out. Raises TrainingError where a part is of one class."""
    n_train = len(rows.y) - round(len(rows.y) * recipe.training.hold_out)
    for name, part in (("fitted", slice(0, n_train)), ("held out", slice(n_train, None))):
        if len(np.unique(rows.y[part])) < 2:
            raise TrainingError(
                f"labels must be of both classes; the rows that are {name} are all of one. Raise `data.min_of_class`, "
                "or look at how labels are made."
            )
    return n_train


def _start(champion: Model, recipe: Recipe) -> Model:
    """The champion, where the recipe's model can go on from it."""
    how = recipe.training.retraining
    if champion.format == "onnx":
        raise TrainingError(
            f"`training.retraining: {how}` must go on from a champion that can learn; it is kept as ONNX. Train once "
            "with `full`."
        )
    if champion.kind != recipe.model.kind:
        raise TrainingError(
            f"`training.retraining: {how}` must go on from a champion of the kind {recipe.model.kind}; it is "
            f"{champion.kind}. Train once with `full`."
        )
    if champion.encoding.kinds != recipe.data.features:
        raise TrainingError(
            f"`training.retraining: {how}` must go on with the champion's features, "
            f"{', '.join(champion.encoding.kinds)}; the recipe has {', '.join(recipe.data.features)}. "
            "Train once with `full`."
        )
    return champion


def _unlearnt(rows: Rows, champion: Champion, recipe: Recipe) -> Rows:
    """The rows that the champion has not learnt."""
    if champion.learnt_to_s is None:
        raise TrainingError(
            "`training.retraining: incremental` must know up to which row the champion has learnt; it does not say. "
            "Train once with `full`."
        )
    new = rows.part(slice(int(np.searchsorted(rows.times_s, champion.learnt_to_s, side="right")), None))
    n_positive = int(new.y.sum())
    if min(n_positive, len(new.y) - n_positive) < recipe.data.min_of_class:
        raise TooFewLabels(
            f"{len(new.y):,} rows to learn after {rfc3339(champion.learnt_to_s)}, where the champion stopped, "
            f"{n_positive:,} of the positive class; `data.min_of_class` asks for {recipe.data.min_of_class:,} of each."
        )
    return new


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

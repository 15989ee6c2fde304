"""Training: a snapshot's oldest rows are learnt, its newest are held out for the gate."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelops import models, search
from modelops import recipe as recipes
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


def unseen_predictions(
    model: Model, rows: Rows, n_fitted: int, chosen: recipes.Model, start: Model | None = None
) -> np.ndarray:
    """Predictions for all rows, (n,), as the model's are on rows that it has not seen: beside labels, too.

    Rows that it was fitted on are too often right: beside that every window's loss would be drift. So each of them is
    predicted by a model that was fitted without it (cross-fitting; `chosen`: what was fitted; `start`: the champion
    that it went on from), and takes a value of the model itself: trees give few distinct values, each model its own,
    and cells are counted by value. Which value, says the order of those predictions; or, where the model is too sure of
    the rows that it was fitted on, `_moved`.
    """
    from scipy.stats import ks_2samp  # which takes a while, and only training needs it

    found = model.score(rows.columns)
    if not n_fitted:
        return found
    fitted, held, fold = rows.part(slice(0, n_fitted)), rows.part(slice(n_fitted, None)), np.arange(n_fitted) % FOLDS
    own, unseen = found[:n_fitted], found[n_fitted:]
    is_too_sure = ks_2samp(own, unseen).pvalue < TOO_SURE
    crossed = np.empty(n_fitted)
    for k in range(FOLDS):
        kept = {name: values[fold != k] for name, values in fitted.columns.items()}
        left_out = {name: values[fold == k] for name, values in fitted.columns.items()}
        other = models.fit(chosen, model.encoding, kept, fitted.y[fold != k], start)
        crossed[fold == k] = other.score(left_out)
        if is_too_sure:
            crossed[fold == k] = _moved(crossed[fold == k], other.score(held.columns), unseen)
    if is_too_sure:
        return np.concatenate([_nearest(np.unique(found), crossed), unseen])
    ranks = np.argsort(np.argsort(crossed, kind="stable"), kind="stable")
    return np.concatenate([np.sort(own)[ranks], unseen])


def _moved(theirs: np.ndarray, theirs_held: np.ndarray, ours_held: np.ndarray) -> np.ndarray:
    """Another model's predictions, brought to where ours would be.

    Both models' log odds are known on held-out rows, which neither has seen: theirs are shifted and stretched until
    mean and standard deviation there are ours. What is common to both, and that is most, cancels; so what comes out is
    nearly as well known as all rows make it, not as the held-out ones alone would.
    """
    at, to = _log_odds(theirs_held), _log_odds(ours_held)
    stretch = to.std() / at.std() if at.std() > 0 else 1.0
    return np.asarray(1 / (1 + np.exp(-(to.mean() + stretch * (_log_odds(theirs) - at.mean())))))


def _log_odds(p: np.ndarray) -> np.ndarray:
    clipped = np.clip(p, 10.0**-models.DIGITS, 1 - 10.0**-models.DIGITS)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _nearest(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each number the nearest of the sorted known ones."""
    above = np.clip(np.searchsorted(known, wanted), 1, max(len(known) - 1, 1))
    low, high = known[above - 1], known[np.minimum(above, len(known) - 1)]
    return np.where(wanted - low < high - wanted, low, high)


def hold_out_metrics(model: Model, rows: Rows, n_train: int) -> dict[str, Any]:
    """What is tracked of a model: figures on its own hold-out."""
    held = rows.part(slice(n_train, None))
    scores = model.score(held.columns)
    return {
        "roc_auc": value(roc_auc, scores, held.y),
        "brier": float(np.mean((scores - held.y) ** 2)),
        "positive_share": float(held.y.mean()),
    }

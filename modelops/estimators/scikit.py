"""scikit-learn: histogram gradient boosting and logistic regression, kept as skops archives."""

import copy
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from modelops.errors import TrainingError
from modelops.estimators import archive
from modelops.recipe import Model

ARCHIVE = "model.skops"
TRUSTED = (
    "functools.partial",  # of a function that must itself be trusted
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
)
"""What our estimators hold beyond the types that skops trusts by itself."""


def version() -> str:
    """Name and version."""
    return f"scikit-learn {metadata.version('scikit-learn')}"


def fit(
    chosen: Model, categorical: Sequence[bool], matrix: np.ndarray, y: np.ndarray, champion: Any | None = None
) -> Any:
    """Boosting: more trees after the champion's. Logistic: from the champion's weights, in its scaling."""
    if chosen.kind == "logistic":
        return _logistic(chosen, categorical, matrix, y, champion)
    if champion is None:
        return _boosting(chosen, categorical).fit(matrix, y)
    _same_categories(champion, categorical, matrix)
    made = copy.deepcopy(champion)
    asked = _boosting(chosen, categorical).get_params()
    made.set_params(**asked | {"warm_start": True, "max_iter": made.n_iter_ + asked["max_iter"]})
    return made.fit(matrix, y).set_params(warm_start=False)


def predict(estimator: Any, matrix: np.ndarray) -> np.ndarray:
    """Probabilities of the positive class."""
    return np.asarray(estimator.predict_proba(matrix)[:, 1], float)


def dumps(estimator: Any, path: Path) -> bytes:
    """The archive."""
    return archive.dumps(estimator, TRUSTED, path)


def loads(data: bytes, path: Path) -> Any:
    """The estimator of an archive."""
    return archive.loads(data, TRUSTED, path)


def _boosting(chosen: Model, categorical: Sequence[bool]) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        **{"early_stopping": False, "max_iter": 100, "learning_rate": 0.1, "min_samples_leaf": 20}
        | {"categorical_features": np.flatnonzero(categorical).tolist() or None, "random_state": chosen.seed}
        | chosen.parameters
    )


def _same_categories(champion: Any, categorical: Sequence[bool], matrix: np.ndarray) -> None:
    """Raises TrainingError where the rows' categories are not the champion's.

    scikit-learn numbers categories anew at each fit, and the trees that are there would take one for another.
    """
    if not any(categorical):
        return
    known = champion._preprocessor.named_transformers_["encoder"].categories_
    for j, codes in zip(np.flatnonzero(categorical), known, strict=True):
        found = np.unique(matrix[:, j][~np.isnan(matrix[:, j])])
        if not np.array_equal(found, codes[~np.isnan(codes)]):
            raise TrainingError(
                f"hist_gradient_boosting goes on from a champion only where the rows hold the same categories; feature "
                f"{j + 1} holds {len(found)}, the champion learnt {np.sum(~np.isnan(codes))}. Choose `lightgbm`, which "
                "learns new ones, or `training.retraining: full`."
            )


def _logistic(
    chosen: Model, categorical: Sequence[bool], matrix: np.ndarray, y: np.ndarray, champion: Any | None
) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    settings: dict[str, Any] = {"max_iter": 1000, "random_state": chosen.seed} | chosen.parameters
    if champion is not None:
        made = copy.deepcopy(champion)
        regression = made[-1].set_params(**settings, warm_start=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # few iterations keep it near the champion: wanted
            regression.fit(made[:-1].transform(matrix), y)
        regression.set_params(warm_start=False)
        return made
    columns = np.asarray(categorical, bool)
    parts = []
    if not columns.all():
        scaled = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
        parts.append(("numeric", scaled, np.flatnonzero(~columns).tolist()))
    if columns.any():
        encoded = OneHotEncoder(handle_unknown="ignore")
        parts.append(("categorical", encoded, np.flatnonzero(columns).tolist()))
    return make_pipeline(ColumnTransformer(parts), LogisticRegression(**settings)).fit(matrix, y)

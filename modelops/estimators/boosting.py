"""LightGBM, kept as its own text, which is checked before LightGBM reads it (`tree_text`)."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from modelops.errors import ArtifactError, TrainingError
from modelops.estimators import tree_text
from modelops.recipe import Model

ARCHIVE = "model.lightgbm.txt"
PARAMETERS = (
    "bagging_fraction",
    "bagging_freq",
    "cat_l2",
    "cat_smooth",
    "extra_trees",
    "feature_fraction",
    "lambda_l1",
    "lambda_l2",
    "learning_rate",
    "max_bin",
    "max_cat_threshold",
    "max_depth",
    "min_data_in_leaf",
    "min_data_per_group",
    "min_gain_to_split",
    "min_sum_hessian_in_leaf",
    "num_iterations",
    "num_leaves",
    "path_smooth",
    "scale_pos_weight",
)
"""What a recipe may set. LightGBM itself takes every name, and ignores one that it does not know."""


def version() -> str:
    """Name and version."""
    return f"lightgbm {metadata.version('lightgbm')}"


def fit(
    chosen: Model, categorical: Sequence[bool], matrix: np.ndarray, y: np.ndarray, champion: Any | None = None
) -> Any:
    """Trees, after the champion's where there is one."""
    import lightgbm

    unknown = [name for name in chosen.parameters if name not in PARAMETERS]
    if unknown:
        raise TrainingError(
            f"`model.parameters` of lightgbm must be among {', '.join(PARAMETERS)}; got {', '.join(unknown)}."
        )
    fixed = {"objective": "binary", "verbosity": -1, "seed": chosen.seed, "deterministic": True, "force_row_wise": True}
    data = lightgbm.Dataset(matrix, y, categorical_feature=np.flatnonzero(categorical).tolist())
    try:
        made = lightgbm.train({"num_iterations": 100} | chosen.parameters | fixed, data, init_model=champion)
        return lightgbm.Booster(model_str=made.model_to_string())  # without the rows, as it is read from its file
    except lightgbm.basic.LightGBMError as error:
        raise TrainingError(f"lightgbm refuses the rows or `model.parameters`: {error}.") from error


def predict(estimator: Any, matrix: np.ndarray) -> np.ndarray:
    """Probabilities of the positive class."""
    return np.asarray(estimator.predict(matrix), float)


def dumps(estimator: Any, path: Path) -> bytes:
    """LightGBM's text."""
    text: str = estimator.model_to_string()
    tree_text.check(text, path)
    return text.encode()


def loads(data: bytes, path: Path) -> Any:
    """The trees of a text."""
    import lightgbm

    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise ArtifactError(
            f"{path}: must be LightGBM's text; byte {error.start} is none of it. Do not use it."
        ) from error
    tree_text.check(text, path)
    try:
        return lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise ArtifactError(f"{path}: must be LightGBM's text: {error}. Do not use it.") from error

"""What every library of models does: fit, predict, save, load. A library is imported when a model needs it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from modelops.recipe import Format, Model, ModelKind


class Library(Protocol):
    """Fits and keeps estimators of the positive class's probability. A matrix is (n, features), NaN where missing.

    `categorical` says which columns hold codes of categories. Bytes are never a pickle.
    """

    ARCHIVE: str

    def version(self) -> str:
        """Name and version, for the description beside an archive."""

    def fit(
        self, chosen: Model, categorical: Sequence[bool], matrix: np.ndarray, y: np.ndarray, champion: Any | None
    ) -> Any:
        """An estimator; one that goes on from the champion's, which stays as it is, where there is one.

        Raises TrainingError, or what the library raises for parameters that it cannot use: TypeError, ValueError.
        """

    def predict(self, estimator: Any, matrix: np.ndarray) -> np.ndarray:
        """Probabilities of the positive class, (n,)."""

    def dumps(self, estimator: Any, path: Path) -> bytes:
        """The archive. Raises ArtifactError, which names the path, where `loads` would refuse it."""

    def loads(self, data: bytes, path: Path) -> Any:
        """The estimator of an archive. Raises ArtifactError where it is none, or holds what may not be in one."""


def of(kind: ModelKind, kept_as: Format = "native") -> Library:
    """The library of a kind of model, or the one that runs what it is kept as."""
    from modelops.estimators import boosting, online, onnx_session, scikit

    if kept_as == "onnx":
        return onnx_session
    if kind == "lightgbm":
        return boosting
    return online if kind.startswith("river_") else scikit

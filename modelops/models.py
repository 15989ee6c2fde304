"""Models: fit, predict and how rows become numbers. Their libraries are imported when a model is made or loaded.

A model predicts the probability of the positive class. `shift` moves its log odds: that is all a recalibration changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from modelops import recipe
from modelops.errors import TrainingError
from modelops.estimators import library as libraries
from modelops.recipe import Kind

DIGITS = 6
"""Of a prediction, everywhere. Trees give few distinct values, and a profile's cells end at such values: were they
rounded in the log alone, all rows of a value could fall into the neighbouring cell."""

ONNX_TOLERANCE = 1e-9  # of a probability; the two add up a model's trees in another order

MOST_CATEGORIES = 200  # of a feature; rarer ones are one


class Encoding(msgspec.Struct, frozen=True):
    """How rows become a matrix: features in order, and the categories that training saw."""

    kinds: dict[str, Kind]
    categories: dict[str, tuple[str, ...]]

    @property
    def categorical(self) -> list[bool]:
        """Which columns of the matrix hold codes of categories."""
        return [kind == "categorical" for kind in self.kinds.values()]

    def columns(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """The matrix (n, features) of columns; a category that training did not see is missing."""
        n = len(next(iter(columns.values())))
        matrix = np.empty((n, len(self.kinds)))
        for j, (name, kind) in enumerate(self.kinds.items()):
            if kind == "numeric":
                matrix[:, j] = columns[name]
            else:
                codes = {category: float(i) for i, category in enumerate(self.categories[name])}
                matrix[:, j] = [codes.get(value, np.nan) for value in columns[name]]
        return matrix

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """The matrix of rows as requests bring them; what has the wrong type is missing."""
        matrix = np.full((len(rows), len(self.kinds)), np.nan)
        for j, (name, kind) in enumerate(self.kinds.items()):
            if kind == "numeric":
                for i, row in enumerate(rows):
                    value = row.get(name)
                    if isinstance(value, int | float) and not isinstance(value, bool):
                        matrix[i, j] = value
            else:
                codes = {category: float(i) for i, category in enumerate(self.categories[name])}
                for i, row in enumerate(rows):
                    value = row.get(name)
                    if value is not None:
                        matrix[i, j] = codes.get(category_text(value), np.nan)
        return matrix


@dataclass(frozen=True)
class Model:
    """A library's estimator, the encoding of its rows, a shift of its log odds, and as what it is kept and run."""

    estimator: Any
    encoding: Encoding
    kind: recipe.ModelKind
    shift: float = 0.0
    format: recipe.Format = "native"

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Probabilities of the positive class, (n,), of DIGITS digits."""
        raw = libraries.of(self.kind, self.format).predict(self.estimator, matrix)
        if self.shift != 0.0:
            odds = np.clip(raw, 1e-12, 1 - 1e-12)
            raw = np.asarray(1 / (1 + np.exp(-(np.log(odds / (1 - odds)) + self.shift))))
        return raw.round(DIGITS)

    def score(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities for columns, (n,)."""
        return self.predict(self.encoding.columns(columns))


def category_text(value: object) -> str:
    """A category as text: 3, "3" and 3.0 are one; true and True are one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def encoding_of(
    columns: Mapping[str, np.ndarray], kinds: Mapping[str, Kind], known: Encoding | None = None
) -> Encoding:
    """The encoding that rows teach: the most frequent categories of each feature, after those that are known."""
    categories = {}
    for name, kind in kinds.items():
        if kind == "categorical":
            old = () if known is None else known.categories[name]
            seen, counts = np.unique([v for v in columns[name] if v is not None], return_counts=True)
            new = [str(seen[i]) for i in np.lexsort((seen, -counts)) if str(seen[i]) not in old]
            categories[name] = (*old, *new)[:MOST_CATEGORIES]
    return Encoding(dict(kinds), categories)


def fit(
    chosen: recipe.Model,
    encoding: Encoding,
    columns: Mapping[str, np.ndarray],
    y: np.ndarray,
    champion: Model | None = None,
) -> Model:
    """Fits the recipe's model, going on from the champion's where one is given. Raises TrainingError."""
    if len(np.unique(y)) < 2:
        raise TrainingError(f"labels must be of both classes; all {len(y)} rows to train on are of class {y[:1]}.")
    matrix = encoding.columns(columns)
    library = libraries.of(chosen.kind)
    try:
        estimator = library.fit(
            chosen, encoding.categorical, matrix, y, None if champion is None else champion.estimator
        )
    except (TypeError, ValueError) as error:
        raise TrainingError(f"`model` must be one that can be fitted: {' '.join(str(error).split())}") from error
    made = Model(estimator, encoding, chosen.kind)
    if not np.isfinite(made.predict(matrix)).all():
        raise TrainingError(
            "the model predicts what is no number; look for infinities in the features, or lower `learning_rate`."
        )
    return made


def as_onnx(model: Model, columns: Mapping[str, np.ndarray]) -> Model:
    """A model of scikit-learn as ONNX. Raises TrainingError where it predicts these columns otherwise."""
    from modelops.estimators import onnx_session

    made = replace(model, estimator=onnx_session.convert(model.estimator, model.kind), format="onnx")
    matrix = model.encoding.columns(columns)
    before = libraries.of(model.kind).predict(model.estimator, matrix)
    apart = float(np.max(np.abs(onnx_session.predict(made.estimator, matrix) - before)))
    if not apart <= ONNX_TOLERANCE:
        raise TrainingError(
            f"the ONNX graph must predict what the model predicts, to {ONNX_TOLERANCE:g}; it is {apart:g} away. Leave "
            "`model.format` out, and report this."
        )
    return made


def recalibrate(model: Model, columns: Mapping[str, np.ndarray], y: np.ndarray) -> Model:
    """The model with the shift of log odds under which its mean probability is the rows' share of positives.

    Under prior drift the likelihood ratio stays and only the prior moves: that is exactly a shift of the log odds.
    """
    if len(np.unique(y)) < 2:
        raise TrainingError("labels must be of both classes to recalibrate on; they are of one.")
    raw = np.clip(replace(model, shift=0.0).score(columns), 1e-12, 1 - 1e-12)
    odds, share = np.log(raw / (1 - raw)), float(np.mean(y))
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        if float(np.mean(1 / (1 + np.exp(-(odds + middle))))) < share:
            low = middle
        else:
            high = middle
    return replace(model, shift=(low + high) / 2)

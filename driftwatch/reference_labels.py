"""Labels in a reference: their column, and the loss of each row beside it."""

from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np

from detectors.grid import FeatureKind
from detectors.performance.outcome import LOSS, Delayed, outcome_of
from driftwatch import tables
from driftwatch.errors import ConfigError
from driftwatch.records import Column, LabelColumn, Schema


def column(schema: Schema, names: Sequence[str]) -> Column | None:
    """The label's column where the reference has one; `label` is accepted beside its own name."""
    label = schema.label
    if label is None:
        return None
    found = Column(label.name, label.kind, label.path, group="label")
    return found if set(tables.candidates(found)) & set(names) else None


def add_loss(
    label: LabelColumn | None, values: MutableMapping[str, Any], kinds: MutableMapping[str, FeatureKind]
) -> Delayed:
    """Adds the loss of each row where the reference has predictions and labels; what comes with the labels."""
    if label is None or label.name not in values:
        return Delayed()
    if label.kind == "categorical":
        values[label.name] = [None if v is None else plain(v) for v in values[label.name]]
    prediction, judged_as = label.prediction, label.judged_as
    if prediction is None or prediction not in values or judged_as is None:
        return Delayed(frozenset({label.name}))
    if judged_as == "score":
        if not are_probabilities(values[prediction]):
            return Delayed(frozenset({label.name}))
        judged_as = "probability"
    classes = None
    if judged_as in ("probability", "binary"):
        classes = two_classes(label, values[label.name])
    outcome, loss = outcome_of(
        judged_as,
        names=(prediction, label.name),
        classes=classes,
        prediction=values[prediction],
        label=values[label.name],
    )
    values[LOSS], kinds[LOSS] = loss, "numeric"
    return Delayed(frozenset({label.name, LOSS}), outcome)


def are_probabilities(scores: np.ndarray) -> bool:
    """Whether every score lies in [0, 1]: what a loss against a binary label is defined for."""
    known = scores[~np.isnan(scores)]
    return bool(len(known)) and bool(((known >= 0) & (known <= 1)).all())


def plain(text: str) -> str:
    """A class as an event writes it: a table that once lacked a label holds 1.0 for 1."""
    return text.removesuffix(".0") if text.removesuffix(".0").isdecimal() else text


def two_classes(label: LabelColumn, values: Sequence[str | None]) -> tuple[str, str]:
    """(the other class, the positive one) of a binary label. Raises ConfigError."""
    found = sorted({v for v in values if v is not None})
    positive = label.positive
    if positive == "1" and "true" in found:
        positive = "true"
    if len(found) > 2 or (len(found) == 2 and positive not in found):
        raise ConfigError(
            f"the reference must hold two classes of the label {label.name!r}, one of them `performance.positive`, "
            f"{label.positive!r}; got {', '.join(map(repr, found[:5]))}. Correct one of the two."
        )
    other = [c for c in found if c != positive]
    return (other[0] if other else "not " + positive), positive

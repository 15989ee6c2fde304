"""The reference profile that a version carries, in the format of `driftwatch profile`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from detectors.grid import FeatureKind
from detectors.performance.outcome import LOSS, Delayed, outcome_of
from detectors.profile import Profile
from detectors.reference import build
from modelops.data import Rows
from modelops.errors import TrainingError
from modelops.recipe import Kind
from modelops.recipe import Profile as Settings


def build_profile(
    rows: Rows,
    kinds: Mapping[str, Kind],
    predictions: np.ndarray,
    settings: Settings,
    *,
    about: Mapping[str, str],
    classes: tuple[str, str] | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Profile:
    """The profile of a version: its snapshot's features, and predictions that it made on rows it had not seen.

    `classes`: (the other, the positive) texts of the labels, which driftwatch then holds against the predictions.
    """
    columns: dict[str, np.ndarray | Sequence[str | None]] = {
        name: rows.columns[name] if kind == "numeric" else list(rows.columns[name]) for name, kind in kinds.items()
    }
    shapes: dict[str, FeatureKind] = dict(kinds)
    delayed = Delayed()
    if settings.prediction is not None:
        columns[settings.prediction], shapes[settings.prediction] = predictions, "numeric"
        if settings.label is not None and classes is not None:
            labels = [classes[y] for y in rows.y.tolist()]
            names = (settings.prediction, settings.label)
            outcome, losses = outcome_of(
                "probability", names=names, classes=classes, prediction=predictions, label=labels
            )
            columns |= {settings.label: labels, LOSS: losses}
            shapes |= {settings.label: "categorical", LOSS: "numeric"}
            delayed = Delayed(frozenset({settings.label, LOSS}), outcome)
    n = len(rows.y)
    span_s = float(rows.times_s[-1] - rows.times_s[0])
    try:
        made = build(
            columns,
            shapes,
            sizes=sorted({min(size, n) for size in settings.sizes}),
            mmd_rows=settings.mmd_rows,
            delayed=delayed,
            progress=progress,
        )
    except ValueError as error:
        raise TrainingError(f"no profile can be built of the snapshot: {error}") from error
    rate = (n - 1) / span_s if span_s > 0 else None
    return replace(made, about={**about, "rows_per_second": rate, "reference": None})

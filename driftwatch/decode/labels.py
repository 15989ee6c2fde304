"""The values at a label's place → an array: numbers as they are, classes as their codes."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec
import numpy as np

from driftwatch.decode.cells import category
from driftwatch.decode.columns import numbers
from driftwatch.records import class_code

_NONE = (msgspec.UNSET, None)


def number_labels(values: Sequence[object]) -> tuple[np.ndarray, np.ndarray]:
    """Float64 (n,), NaN where there is no label, and which values are no number (n,)."""
    if set(map(type, values)) <= {float}:
        found = numbers([cast(Sequence[float], values)], len(values))[:, 0]
        return found, ~np.isfinite(found)
    found = np.array([_number(value) for value in values], np.float64)
    there = np.array([value not in _NONE for value in values], bool)
    return np.where(np.isfinite(found), found, np.nan), there & ~np.isfinite(found)


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan
    except OverflowError:
        return np.nan


def class_labels(values: Sequence[object]) -> tuple[np.ndarray, np.ndarray]:
    """The codes of classes, float64 (n,), NaN where there is no label, and which values are no class (n,)."""
    try:
        kinds = set(map(type, values))
        together = not (bool in kinds and kinds & {int, float})  # True == 1
        codes = {value: _code(value) for value in set(values)} if together else None
    except TypeError:  # a list or an object
        codes = None
    read = _code if codes is None else codes.__getitem__
    found = np.fromiter(map(read, values), np.float64, len(values))
    if not np.isnan(found).any():
        return found, np.zeros(len(values), bool)
    return found, np.isnan(found) & np.array([value not in _NONE for value in values], bool)


def _code(value: object) -> float:
    if value is msgspec.UNSET:
        return np.nan
    text = category(value)
    return class_code(text) if isinstance(text, str) else np.nan


READ_LABELS: Mapping[str, Callable[[Sequence[object]], tuple[np.ndarray, np.ndarray]]] = {
    "numeric": number_labels,
    "categorical": class_labels,
}
"""How the values of each kind of label are read."""

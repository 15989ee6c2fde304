"""The values at a label's place → an array: numbers as they are, classes as their codes; messages that are labels."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, cast

import msgspec
import numpy as np

from driftwatch.decode.cells import category
from driftwatch.decode.columns import numbers
from driftwatch.decode.layout import ID, LABEL, MODEL, TIME, VERSION, Leaf, Node
from driftwatch.records import Lines, Schema, class_code

_NONE = (msgspec.UNSET, None)
_SMALL_CODES = np.array([class_code(str(number)) for number in range(256)])


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
    kinds = set(map(type, values))
    if kinds == {int}:
        with suppress(ValueError):
            small = np.frombuffer(bytes(cast(Sequence[int], values)), np.uint8)  # one that no byte can hold is refused
            return _SMALL_CODES.take(small), np.zeros(len(values), bool)
    try:
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

_LEAST = 8  # messages that are worth a look
_NOT_THERE = Annotated[int, msgspec.Meta(gt=0, lt=0)] | msgspec.UnsetType  # no value is taken


class PlainLabels:
    """Reads batches in which every message is a label of this model, without fault, and nothing besides.

    What it does not take others have to look at; that is told from the first message as a rule.
    """

    def __init__(self, root: Node, schema: Schema) -> None:
        children = list(zip(root.keys, root.children, strict=True))
        key_of = {child.slot: key for key, child in children if isinstance(child, Leaf)}
        leaf_of = {child.slot: child for child in root.children if isinstance(child, Leaf)}
        self._is_apt = {ID, TIME, LABEL} <= key_of.keys()
        if not self._is_apt:  # they lie further inside
            return
        fields: list[tuple[str, str, Any, Any]] = [
            (name, key_of[slot], leaf_of[slot].typed, msgspec.NODEFAULT)
            for name, slot in (("id", ID), ("time", TIME), ("label", LABEL))
        ]
        if MODEL in key_of:
            fields.append(("model", key_of[MODEL], Literal.__getitem__((schema.model, None)), None))
        if VERSION in key_of:
            fields.append(("version", key_of[VERSION], leaf_of[VERSION].typed, None))
        fields += [
            (f"column{i}", key, _NOT_THERE, msgspec.UNSET)
            for i, (key, child) in enumerate(children)
            if child.holds_columns
        ]
        kind = msgspec.defstruct(
            "PlainLabel",
            [(name, typed, default) for name, _, typed, default in fields],
            rename={name: key for name, key, _, _ in fields},
            gc=False,
            eq=False,
        )
        decoder = msgspec.json.Decoder(kind)
        self._decode, self._decode_lines = decoder.decode, decoder.decode_lines

    def __call__(self, messages: Sequence[bytes]) -> tuple[list[Any], list[Any], list[Any]] | None:
        """Their ids, times and labels as they were sent; None where a message is anything else."""
        n = len(messages)
        if not self._is_apt or n < _LEAST:
            return None
        try:
            self._decode(messages[0])
            self._decode(messages[n - 1])
            if isinstance(messages, Lines):
                events: list[Any] = self._decode_lines(messages.block)
            else:
                events = [self._decode(message) for message in messages]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if len(events) != n:
            return None
        return [e.id for e in events], [e.time for e in events], [e.label for e in events]

"""Builds a profile of the rows that were kept to learn from."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from detectors.profile import Profile
from detectors.reference import MIN_ROWS
from driftwatch import profiles
from driftwatch.config import Config
from driftwatch.decision import rfc3339
from driftwatch.errors import ConfigError, StateError
from driftwatch.learned_rows import Rows, joined
from driftwatch.learning import ABSENT, LearningState, columns_of, decoded_state
from driftwatch.profiles import Material
from driftwatch.records import Category, Mark, Schema
from driftwatch.store import Store

INVALID = 1  # the mark of a value of the wrong type


def build_learned(config: Config, path: Path, progress: Callable[[float], None] = lambda _: None) -> Profile:
    """The profile of the rows that a state file has kept so far. Raises ConfigError and StateError."""
    state, rows = read(config, path)
    return profiles.build_of(config, material(config.event_schema(), state, rows), progress)


def read(config: Config, path: Path) -> tuple[LearningState, Rows]:
    """How far learning is, and the rows that are kept, in time order. Raises ConfigError and StateError."""
    schema = config.event_schema()
    with closing(Store.open(path, model=config.model.name, read_only=True)) as store:
        stored, pieces = store.learning(), store.learned()
    try:
        state = None if stored is None else decoded_state(stored)
        some = [Rows.from_bytes(piece.body) for piece in pieces]
    except ValueError as error:
        raise StateError(f"`state.path`: {error} Begin with another file.") from error
    if state is None or (state.version, state.columns) != (schema.version, columns_of(schema)):
        raise ConfigError(
            f"{path}: the state must hold rows to learn version {schema.version!r} from; got none of these features. "
            "They are there while `driftwatch run` learns."
        )
    rows = None if not some else within(joined(some), state, config.window.lateness)
    if rows is None or len(rows) < MIN_ROWS:
        n = 0 if rows is None else len(rows)
        raise ConfigError(f"{path}: at least {MIN_ROWS} rows make a profile; learning has kept {n} so far. Wait.")
    return state, rows


def within(rows: Rows, state: LearningState, lateness_s: float) -> Rows:
    """The rows of the stretch; in time order, so they are neighbours."""
    start_s = -np.inf if state.start_s is None else state.start_s - lateness_s
    first, last = np.searchsorted(rows.times_s, [start_s, state.end_s])
    at = rows.marked[:, 0]
    kept = (at >= first) & (at < last)
    return Rows(
        rows.times_s[first:last],
        rows.numeric[first:last],
        rows.marked[kept] - [first, 0],
        rows.marks[kept],
        tuple([column[first:last] for column in rows.categories]),
    )


def material(schema: Schema, state: LearningState, rows: Rows) -> Material:
    """The rows as a reference.

    A prediction is part of it where most rows have one; then it is of those alone, else of the features alone.
    """
    present = has_prediction(schema, rows)
    with_prediction = 2 * int(present.sum()) > len(rows)
    kept = present if with_prediction else np.ones(len(rows), bool)
    columns: dict[str, np.ndarray | list[Category]] = {}
    invalid: dict[str, np.ndarray] = {}
    for column in schema.columns:
        # Nobody says which events have a field: an absent one would count as missing here, and nowhere else.
        if column.group == "fields" or (column.group == "prediction" and not with_prediction):
            continue
        k = schema.of_kind(column.kind).index(column)
        if column.kind == "numeric":
            columns[column.name] = rows.numeric[kept, k]
            invalid[column.name] = marked(rows, k, INVALID)[kept]
        else:
            categories = [c for c, keep in zip(rows.categories[k], kept.tolist(), strict=True) if keep]
            columns[column.name] = categories
            invalid[column.name] = np.fromiter((c is Mark.INVALID for c in categories), bool, len(categories))
    times_s = rows.times_s
    seconds, seen = float(times_s[-1] - times_s[0]), float(len(rows) * state.n_rows / state.n_kept)
    rate = seen / seconds if seconds > 0 else None
    about = {"learned_from": rfc3339(float(times_s[0])), "learned_to": rfc3339(float(times_s[-1]))}
    return Material(columns, invalid, int(kept.sum()), rate, {**about, "rows_seen": seen})


def has_prediction(schema: Schema, rows: Rows) -> np.ndarray:
    """Which rows say something of the prediction, bool (n,)."""
    prediction = next((c for c in schema.columns if c.group == "prediction"), None)
    if prediction is None:
        return np.ones(len(rows), bool)
    k = schema.of_kind(prediction.kind).index(prediction)
    if prediction.kind == "numeric":
        return ~marked(rows, k, ABSENT)
    return np.fromiter((c is not Mark.ABSENT for c in rows.categories[k]), bool, len(rows))


def marked(rows: Rows, k: int, mark: int) -> np.ndarray:
    """Which rows carry a mark in their numeric column k, bool (n,)."""
    found = np.zeros(len(rows), bool)
    found[rows.marked[(rows.marks == mark) & (rows.marked[:, 1] == k), 0]] = True
    return found

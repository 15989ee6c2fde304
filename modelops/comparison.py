"""The rows on which a champion of another recipe is judged: the challenger's, with the champion's features."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from modelops.data import Rows, Selection, Snapshot, Warehouse, read_rows
from modelops.errors import ColumnsMissing, DataError
from modelops.recipe import Data, Kind
from modelops.topic_log import Topics


class ChampionRows(msgspec.Struct, frozen=True):
    """A snapshot's path; `lacking`: features of the champion that the rows do not have, so that it is not judged."""

    path: str
    lacking: tuple[str, ...] = ()


def champion_rows(
    warehouse: Warehouse,
    made: Snapshot,
    features: Mapping[str, Kind],
    recipe: Data,
    selection: Selection,
    inputs: tuple[Sequence[Path], Topics],
) -> ChampionRows:
    """The snapshot's rows with the champion's features, from the same inputs."""
    if features == recipe.features:
        return ChampionRows(made.path)
    try:
        found = warehouse.snapshot(inputs[0], recipe.model_copy(update={"features": features}), selection, inputs[1])
    except ColumnsMissing as error:
        return ChampionRows("", error.columns)
    rows = read_rows(Path(found.path), features)
    lacking = [name for name in features if all(_is_missing(value) for value in rows.columns[name])]
    return ChampionRows(found.path, tuple(name for name in lacking if name not in recipe.features))


def read_champion_rows(found: ChampionRows, features: Mapping[str, Kind], rows: Rows) -> Rows:
    """The rows with the champion's features. Raises DataError where they are not the same rows."""
    theirs = read_rows(Path(found.path), features)
    if not np.array_equal(theirs.ids, rows.ids):
        raise DataError(f"{found.path}: must hold the rows of the snapshot beside it. Remove it to make it again.")
    return theirs


def why_not(version: int, lacking: Sequence[str]) -> str:
    """That a champion cannot be judged, why, and what to do."""
    names = ", ".join(lacking)
    return (
        f"not promotable: version {version}, the champion, cannot be judged on these rows: they have no value of "
        f"{names}, which it was fitted to. Send {names} until a version of the new recipe is champion, or give "
        "`modelops train --from` a table with the features of both recipes."
    )


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))

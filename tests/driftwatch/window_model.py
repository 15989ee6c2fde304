"""A windower's definition, row by row: what the tests hold the real one against."""

from dataclasses import dataclass, field

import numpy as np

from detectors.summary import Table
from driftwatch.records import Records, Shard, Stream, Window
from driftwatch.window import Changes, Pane, Parts, ShardState, TimeWindows

MODEL = "credit"
DEFAULT = Stream(MODEL, "1")


@dataclass(frozen=True)
class RowCounter:
    """A table with one cell for each row there is: it shows exactly which rows a window holds, and how often."""

    n_rows: int
    profile: str = "p"

    def empty(self) -> Table:
        return Table(np.zeros(self.n_rows, np.int64), np.zeros(1))

    def count(self, table: Table, records: Records, rows: slice | np.ndarray) -> None:
        numbers = records.numeric[rows, 0].astype(int)
        table += Table(np.bincount(numbers, minlength=self.n_rows), np.array([records.times_s[rows].sum()]))


@dataclass(frozen=True)
class Row:
    """One row of a shard; its number is unique over all shards."""

    number: int
    time_s: float
    version: str = "1"


def rows_of(table: Table) -> list[int]:
    """The numbers of the rows counted, each as often as it was."""
    return np.repeat(np.arange(len(table.counts)), table.counts).tolist()


def batch(shard: str, rows: list[Row], first: int, *, default_version: bool = False) -> Records:
    """Rows as records; the first lies at position `first`."""
    n = len(rows)
    return Records(
        shard=Shard(shard),
        positions=np.arange(first, first + n),
        times_s=np.array([r.time_s for r in rows], dtype=np.float64),
        ids=[str(r.number) for r in rows],
        numeric=np.array([[r.number] for r in rows], dtype=np.float64).reshape(n, 1),
        marked=np.empty((0, 2), dtype=np.intp),
        marks=np.empty(0, dtype=np.uint8),
        categories=(),
        versions=None if default_version else [r.version for r in rows],
    )


@dataclass
class Fate:
    """What becomes of the rows of one shard."""

    used: list[Row] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    ahead: list[int] = field(default_factory=list)
    settled_s: float = -np.inf


def fate(rows: list[Row], settings: TimeWindows) -> Fate:
    """Each row against its shard's clock, which has seen that row already."""
    result, shown = Fate(), list[float]()
    for row in rows:
        shown = sorted([*shown, row.time_s])
        clock_s = shown[-3] if len(shown) >= 3 else shown[0]
        if row.time_s > clock_s + settings.ahead_s:
            result.ahead.append(row.number)
        elif row.time_s // settings.slide_s < (clock_s - settings.lateness_s) // settings.slide_s:
            result.late.append(row.number)
        else:
            result.used.append(row)
    result.settled_s = shown[-3] if len(shown) >= 3 else -np.inf
    return result


def expected(fates: list[Fate], settings: TimeWindows) -> list[tuple[float, str, list[int], int, bool]]:
    """(end, version, rows, part, partial) of every window once all shards have ended, in order."""
    frontier = (max(f.settled_s for f in fates) - settings.lateness_s) // settings.slide_s
    held: dict[tuple[float, str], list[int]] = {}
    for row in [row for f in fates for row in f.used]:
        for step in range(settings.panes):
            window = row.time_s // settings.slide_s + step
            held.setdefault((window, row.version), []).append(row.number)
    return [((w + 1) * settings.slide_s, v, sorted(held[w, v]), 1, not w < frontier) for w, v in sorted(held)]


def seen(window: Window) -> tuple[float, str, list[int], int, bool]:
    """A window in the shape of `expected`."""
    rows = rows_of(window.table)
    assert window.n_records == len(rows)
    return window.end_s, window.stream.version, rows, window.part, window.partial


class PlainStore:
    """Keeps what `changes` says as bytes and values, like a store on disk."""

    def __init__(self) -> None:
        self.shards: dict[Shard, ShardState] = {}
        self.panes: dict[object, tuple[object, ...]] = {}
        self.windows: list[Window] = []

    def save(self, changes: Changes, windows: list[Window]) -> None:
        assert not {p.key for p in changes.panes} & set(changes.dropped)
        self.shards |= changes.shards
        for key in changes.dropped:
            self.panes.pop(key, None)
        for p in changes.panes:
            self.panes[p.key] = (p.key, p.start_s, p.end_s, p.first_position, p.n_records, p.table.to_bytes())
        self.windows += windows

    def load(self) -> tuple[dict[Shard, ShardState], list[Pane], Parts]:
        parts: dict[tuple[Stream, float], int] = {}
        for window in self.windows:
            parts[window.stream, window.end_s] = parts.get((window.stream, window.end_s), 0) + 1
        panes = [Pane(*values, table=Table.from_bytes(table)) for *values, table in self.panes.values()]
        return dict(self.shards), panes, parts

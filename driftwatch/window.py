"""What windowing is made of: panes, the state of a shard, and the seam that both windowers fill.

A windower is a state machine: it reads no clock, file or log. Machine time, which only decides who is idle or
stalled, is an argument; which records a window holds is decided by event times and positions alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from detectors import summary
from detectors.summary import Table
from driftwatch.errors import ConfigError
from driftwatch.gap import Span
from driftwatch.records import Records, Shard, Stream, Window

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class TimeWindows:
    """Intervals of event time: [end − length, end), an end every `slide_s` since the epoch. All in seconds.

    `lateness_s`: how far a row may lie behind its shard's clock. `max_ahead_s`: how far it may lie past it, None = the
    larger of a day and ten windows. `idle_s`, `stall_s`: machine time after which a silent shard holds nothing back.
    `max_open`: windows by which a shard may lead the watermark before it is paused.
    """

    length_s: float
    slide_s: float
    lateness_s: float
    max_ahead_s: float | None = None
    idle_s: float = 60.0
    stall_s: float = 300.0
    max_open: int = 8

    def __post_init__(self) -> None:
        if not (0 < self.slide_s <= self.length_s and abs(self.panes * self.slide_s - self.length_s) < 1e-6):
            raise ConfigError(
                f"`slide_s` must divide `length_s`; got {self.slide_s!r} for {self.length_s!r}. Choose a whole part."
            )

    @property
    def panes(self) -> int:
        """How many panes a window is the sum of."""
        return round(self.length_s / self.slide_s)

    @property
    def ahead_s(self) -> float:
        """`max_ahead_s` with its default filled in."""
        return max(DAY_S, 10 * self.length_s) if self.max_ahead_s is None else self.max_ahead_s


@dataclass(frozen=True, slots=True)
class CountWindows:
    """Windows of exactly `count` rows of a stream, in the order read."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"`count` must be at least 1; got {self.count!r}. Name the rows of a window.")


class Counter(Protocol):
    """Counts rows of one version on one profile."""

    @property
    def profile(self) -> str:
        """The profile's content hash; NO_PROFILE or LEARNING where only rows are counted."""
        ...

    def empty(self) -> Table:
        """A table of no row."""
        ...

    def count(self, table: Table, records: Records, rows: slice | np.ndarray) -> None:
        """Adds these rows to a table of this counter's."""
        ...


class Ledgers(Protocol):
    """Keeps the predictions of panes until their labels come."""

    def open(self, start_s: float, profile: str) -> int:
        """The number of a new pane's ledger; 0 where its predictions are not awaited."""
        ...

    def enter(self, number: int, records: Records, rows: slice | np.ndarray) -> None:
        """Notes these rows of a pane."""
        ...

    def release(self, number: int) -> None:
        """The pane takes no more rows: its windows are judged, or it is another's."""
        ...


class NoLedgers:
    """Where no labels are awaited."""

    def open(self, start_s: float, profile: str) -> int:
        """None."""
        return 0

    def enter(self, number: int, records: Records, rows: slice | np.ndarray) -> None:
        """Notes nothing."""

    def release(self, number: int) -> None:
        """Nothing was held."""


NO_LEDGERS = NoLedgers()

CounterFor = Callable[[Stream, float], Counter]
"""The counter of a stream for the pane that starts at an event time (count windows: inf, the newest)."""


@dataclass(frozen=True, slots=True)
class PaneKey:
    """`index` counts panes since the epoch; it is 0 for count windows, of which each shard has one open."""

    shard: Shard
    stream: Stream
    index: int
    profile: str


@dataclass(slots=True)
class Pane:
    """The summaries of one shard, one stream, one interval, on one profile; grows until its first window is judged.

    `start_s`, `end_s` are the interval's bounds; for count windows the smallest and the largest event time in it.
    `first_position` is that of the first row in it.
    """

    key: PaneKey
    start_s: float
    end_s: float
    first_position: int
    n_records: int
    table: Table
    ledger: int = 0  # the number of its predictions' ledger, 0 = no labels are awaited


@dataclass(frozen=True, slots=True)
class ShardState:
    """What is remembered of a shard.

    `position`: the next row to read, None where the shard is another's now. `read_to`: how far this or an earlier
    holder has read; below it, rows of windows before `open_from_s` (the start of the oldest unjudged window) are
    judged already. `clock_s`: the largest event times it has shown. `gap_s`: where records of it are missing.
    """

    position: int | None
    read_to: int
    clock_s: tuple[float, ...] = ()
    open_from_s: float | None = None
    gap_s: Span | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a batch's rows. `ahead` holds the indices of the rows that belong to the dead letters."""

    used: int
    late: int
    ahead: np.ndarray  # intp, (n_ahead,)
    already_judged: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What to store since the last call, all of it in one transaction.

    `panes` are the live ones: write them before the next `add`. A pane in `dropped` is gone from the store.
    """

    shards: dict[Shard, ShardState]
    panes: list[Pane]
    dropped: list[PaneKey]


Parts = Mapping[tuple[Stream, float], int]
"""How many parts of a window (stream, end_s) have been judged."""

ShardCondition = Literal["active", "idle", "stalled", "paused"]

NO_ROWS: np.ndarray = np.empty(0, dtype=np.intp)


class Windower(Protocol):
    """Turns records into windows. `empty` counts intervals that passed without a row."""

    empty: int
    paused: frozenset[Shard]  # shards not to be read on for now, as of the last `closed`

    def assign(
        self, shard: Shard, position: int, *, read_to: int = 0, open_from_s: float | None = None, now_s: float
    ) -> None:
        """Takes a shard, to be read from `position`.

        Where that is the position in the state restored, it goes on from there. Otherwise the panes of it that are
        still here go, and what lies from `position` on is counted anew, except for what this or an earlier holder (who
        had read to `read_to` and judged up to `open_from_s`) has judged.
        """
        ...

    def revoke(self, shard: Shard) -> None:
        """Lets go of a shard: its unjudged panes and its position are dropped; what was judged is remembered."""
        ...

    def begin_anew(self, shard: Shard, position: int) -> None:
        """Lets go of a shard whose name another log has now, until it is assigned at this position.

        What was counted of the old one and is not judged is kept for then.
        """
        ...

    def gap(self, shard: Shard) -> None:
        """Notes that records between what was read of a shard and what comes next are gone."""
        ...

    def at_end(self, shard: Shard, *, final: bool, now_s: float) -> None:
        """Notes that every row the shard had has been added."""
        ...

    def tick(self, now_s: float) -> None:
        """Moves machine time on, in seconds of any clock that does not jump."""
        ...

    def add(self, records: Records, *, end: int, now_s: float) -> Added:
        """Counts the rows of one shard; `end` is the position after the last message that was read with them."""
        ...

    def show(self, shard: Shard, times_s: Sequence[float]) -> None:
        """Moves a shard's clock on by event times that it has shown and that are no rows, or not yet."""
        ...

    def closed(self) -> list[Window]:
        """The windows due for judgement, each one once, in the order (end, stream, part)."""
        ...

    def finish(self) -> list[Window]:
        """The windows due and the rest of them, `partial` where their end was not reached: the source has ended."""
        ...

    def changes(self) -> Changes:
        """What `restore` needs that has changed since the last call."""
        ...

    def restore(self, shards: Mapping[Shard, ShardState], panes: Iterable[Pane], parts: Parts) -> None:
        """Goes back to a stored state, before any `assign`. A shard counts as held once it is assigned."""
        ...

    def state(self, shard: Shard) -> ShardState | None:
        """What is known of a shard, held or not."""
        ...

    def rewind(self, shard: Shard) -> int:
        """The lowest position of a held shard that stands in a pane of an unjudged window, else its position."""
        ...

    @property
    def reached_s(self) -> float:
        """The event time that every active shard has reached; −inf before that, inf where windows know no time."""
        ...

    @property
    def oldest_s(self) -> float:
        """The event time at which the oldest pane of an unjudged window begins; inf where there is none."""
        ...

    def shard_states(self) -> dict[ShardCondition, int]:
        """How many of the shards held are in which condition."""
        ...

    @property
    def watermark_s(self) -> float | None:
        """The event time up to which windows are closed; None before there is one, and for count windows."""
        ...

    @property
    def open_panes(self) -> int:
        """How many panes are in memory."""
        ...

    @property
    def next_start_s(self) -> float:
        """The event time from which on no pane has been counted: a profile may hold from there; −inf before any row.

        Rows far ahead of their shard's clock do not count.
        """
        ...


def by_stream(
    default: Stream, versions: Sequence[str] | None, rows: slice | np.ndarray
) -> Iterator[tuple[Stream, slice | np.ndarray]]:
    """`rows` of a batch, split by version in the order of the versions' names; rows keep their order.

    `versions` None: all rows are of the `default` stream.
    """
    if versions is None:
        yield default, rows
        return
    row_versions = versions[rows] if isinstance(rows, slice) else [versions[i] for i in rows.tolist()]
    names = sorted(set(row_versions))
    if len(names) == 1:
        yield Stream(default.model, names[0]), rows
        return
    code = {name: i for i, name in enumerate(names)}
    codes = np.fromiter(map(code.__getitem__, row_versions), dtype=np.intp, count=len(row_versions))
    row_numbers = np.arange(len(versions))[rows]
    for i, name in enumerate(names):
        yield Stream(default.model, name), row_numbers[codes == i]


def row_count(records: Records, rows: slice | np.ndarray) -> int:
    """How many rows `rows` stands for."""
    return len(range(*rows.indices(len(records)))) if isinstance(rows, slice) else len(rows)


def total(panes: Sequence[Pane]) -> Table:
    """The sum of the panes' tables, as a table of its own."""
    return summary.total([pane.table for pane in panes])


def ledgers_of(panes: Sequence[Pane]) -> tuple[int, ...]:
    """The numbers of the panes' ledgers."""
    return tuple(pane.ledger for pane in panes if pane.ledger)


def cut_short(stream: Stream, profile: str, panes: Sequence[Pane]) -> Window:
    """What panes hold that fit no window of these settings."""
    start_s, end_s = min(p.start_s for p in panes), max(p.end_s for p in panes)
    n_records, ledgers = sum(p.n_records for p in panes), ledgers_of(panes)
    return Window(stream, start_s, end_s, n_records, total(panes), profile, partial=True, ledgers=ledgers)

"""Windows of exactly N rows of a stream, in the order read: no watermark, nothing late, nothing ahead."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nextafter

import numpy as np

from driftwatch.records import Records, Shard, Stream, Window
from driftwatch.unsaved import Unsaved
from driftwatch.window import (
    NO_LEDGERS,
    NO_ROWS,
    Added,
    Changes,
    Counter,
    CounterFor,
    CountWindows,
    Ledgers,
    Pane,
    PaneKey,
    Parts,
    ShardCondition,
    ShardState,
    by_stream,
    ledgers_of,
    total,
)


@dataclass(slots=True, eq=False)
class _Open:
    """The window of a stream that is filling up: a pane for each shard that has rows in it, on one profile."""

    counter: Counter
    panes: dict[Shard, Pane] = field(default_factory=dict)
    partial: bool = False  # records between its rows are missing

    @property
    def n_records(self) -> int:
        return sum(pane.n_records for pane in self.panes.values())


@dataclass(slots=True)
class _Held:
    """How far a shard was read, by us and by anyone."""

    position: int
    read_to: int
    at_end: bool = False


class CountWindower:
    """A `Windower` over row counts. `stream` is that of records that name no version.

    Of each shard a window holds a run of positions. Rows of one shard are cut at the same places in every replay;
    with several shards the cuts follow the order of arrival. `empty` stays 0, `paused` stays empty.
    """

    def __init__(
        self, settings: CountWindows, stream: Stream, counter_for: CounterFor, ledgers: Ledgers = NO_LEDGERS
    ) -> None:
        self._count = settings.count
        self._stream = stream
        self._counter_for = counter_for
        self._ledgers = ledgers
        self._held: dict[Shard, _Held] = {}
        self._away: dict[Shard, ShardState] = {}
        self._open: dict[Stream, _Open] = {}
        self._full: list[Window] = []
        self._unsaved = Unsaved()
        self._latest_s = -inf  # the largest event time counted
        self.empty = 0
        self.paused: frozenset[Shard] = frozenset()

    def assign(
        self, shard: Shard, position: int, *, read_to: int = 0, open_from_s: float | None = None, now_s: float
    ) -> None:
        known = self._away.get(shard, ShardState(None, 0))
        if known.position != position:
            self.revoke(shard)
        self._away.pop(shard, None)
        self._held[shard] = _Held(position, max(position, read_to, known.read_to))
        self._unsaved.touch(shard)

    def revoke(self, shard: Shard) -> None:
        state = self.state(shard)
        if state is None:
            return
        self._held.pop(shard, None)
        for opened in self._open.values():
            if (pane := opened.panes.pop(shard, None)) is not None:
                self._drop(pane)
        self._away[shard] = ShardState(None, state.read_to)
        self._unsaved.touch(shard)

    def begin_anew(self, shard: Shard, position: int) -> None:
        self._held.pop(shard, None)
        for opened in self._open.values():
            if (pane := opened.panes.get(shard)) is not None:
                pane.first_position = position
                self._unsaved.keep(pane)
        self._away[shard] = ShardState(position, position)

    def gap(self, shard: Shard) -> None:
        for opened in self._open.values():
            opened.partial |= shard in opened.panes
        self._unsaved.touch(shard)

    def at_end(self, shard: Shard, *, final: bool, now_s: float) -> None:
        self._held[shard].at_end = True

    def tick(self, now_s: float) -> None:
        """Nothing here depends on time."""

    def add(self, records: Records, *, end: int, now_s: float) -> Added:
        held = self._held[records.shard]
        held.position, held.read_to, held.at_end = end, max(held.read_to, end), False
        self._unsaved.touch(records.shard)
        if len(records):
            for stream, rows in by_stream(self._stream, records.versions, slice(None)):
                self._fill(records, stream, np.arange(len(records))[rows])
        return Added(len(records), 0, NO_ROWS, 0)

    def show(self, shard: Shard, times_s: Sequence[float]) -> None:
        """Nothing here depends on time."""

    def _fill(self, records: Records, stream: Stream, rows: np.ndarray) -> None:
        while len(rows):
            opened = self._open.get(stream)
            if opened is None:
                opened = self._open[stream] = _Open(self._counter_for(stream, inf))
            chosen, rows = np.split(rows, [self._count - opened.n_records])
            self._count_rows(records, stream, opened, chosen)
            if opened.n_records == self._count:
                self._unsaved.touch(*(opened.panes if opened.partial else ()))
                self._emit(stream, list(opened.panes.values()), partial=opened.partial)
                del self._open[stream]

    def _count_rows(self, records: Records, stream: Stream, opened: _Open, rows: np.ndarray) -> None:
        times_s = records.times_s[rows]
        earliest_s, latest_s = float(times_s.min()), float(times_s.max())
        pane = opened.panes.get(records.shard)
        if pane is None:
            key = PaneKey(records.shard, stream, 0, opened.counter.profile)
            position = int(records.positions[rows[0]])
            pane = Pane(key, earliest_s, latest_s, position, 0, opened.counter.empty())
            opened.panes[records.shard] = pane
        pane.ledger = pane.ledger or self._ledgers.open(earliest_s, pane.key.profile)
        opened.counter.count(pane.table, records, slice(None) if len(rows) == len(records) else rows)
        self._ledgers.enter(pane.ledger, records, slice(None) if len(rows) == len(records) else rows)
        self._latest_s = max(self._latest_s, latest_s)
        pane.n_records += len(rows)
        pane.start_s, pane.end_s = min(pane.start_s, earliest_s), max(pane.end_s, latest_s)
        self._unsaved.keep(pane)

    def _emit(self, stream: Stream, panes: list[Pane], *, partial: bool) -> None:
        panes.sort(key=lambda p: p.key.shard)
        # Where each of them would be read again from has moved.
        self._unsaved.touch(*(p.key.shard for p in panes if p.key.shard in self._held))
        self._full.append(
            Window(
                stream=stream,
                start_s=min(p.start_s for p in panes),
                end_s=max(p.end_s for p in panes),
                n_records=sum(p.n_records for p in panes),
                table=total(panes),
                profile=panes[0].key.profile,
                partial=partial,
                ledgers=ledgers_of(panes),
            )
        )
        for pane in panes:
            self._drop(pane)

    def closed(self) -> list[Window]:
        windows, self._full = self._full, []
        return windows

    def finish(self) -> list[Window]:
        for stream in sorted(self._open, key=lambda s: (s.model, s.version)):
            if panes := list(self._open.pop(stream).panes.values()):
                self._emit(stream, panes, partial=True)
        return self.closed()

    def _drop(self, pane: Pane) -> None:
        self._unsaved.drop(pane)
        self._ledgers.release(pane.ledger)

    def changes(self) -> Changes:
        return self._unsaved.take(self.state)

    def restore(self, shards: Mapping[Shard, ShardState], panes: Iterable[Pane], parts: Parts) -> None:
        self._away = dict(shards)
        of_window: dict[tuple[Stream, str], list[Pane]] = {}
        for pane in panes:
            of_window.setdefault((pane.key.stream, pane.key.profile), []).append(pane)
        for (stream, profile), found in of_window.items():
            n_records = sum(pane.n_records for pane in found)
            self._latest_s = max(self._latest_s, *(pane.end_s for pane in found))
            counter = self._counter_for(stream, inf)
            if counter.profile != profile:  # another holds for the next window, perhaps this one for what lies before
                counter = self._counter_for(stream, min(pane.start_s for pane in found))
            is_of_rows = all(pane.key.index == 0 for pane in found)
            if counter.profile == profile and is_of_rows and n_records < self._count:
                of_shard = {pane.key.shard: pane for pane in found}
                partial = any(shards[shard].gap_s is not None for shard in of_shard)
                self._open[stream] = _Open(counter, of_shard, partial)
            else:  # the profile or the windows were changed meanwhile: what was counted before is judged as it is
                self._emit(stream, found, partial=True)

    def state(self, shard: Shard) -> ShardState | None:
        held = self._held.get(shard)
        if held is None:
            return self._away.get(shard)
        lacks = any(opened.partial and shard in opened.panes for opened in self._open.values())
        return ShardState(held.position, held.read_to, gap_s=(-inf, inf) if lacks else None)

    def rewind(self, shard: Shard) -> int:
        panes = [opened.panes[shard] for opened in self._open.values() if shard in opened.panes]
        return min((pane.first_position for pane in panes), default=self._held[shard].position)

    @property
    def reached_s(self) -> float:
        return inf

    @property
    def oldest_s(self) -> float:
        return min((pane.start_s for opened in self._open.values() for pane in opened.panes.values()), default=inf)

    def shard_states(self) -> dict[ShardCondition, int]:
        idle = sum(held.at_end for held in self._held.values())
        return {"active": len(self._held) - idle, "idle": idle, "stalled": 0, "paused": 0}

    @property
    def watermark_s(self) -> float | None:
        return None

    @property
    def next_start_s(self) -> float:
        return nextafter(self._latest_s, inf)

    @property
    def open_panes(self) -> int:
        return sum(len(opened.panes) for opened in self._open.values())

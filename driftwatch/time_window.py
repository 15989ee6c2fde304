"""Windows of event time: sums of panes, closed by a watermark that the slowest active shard holds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from math import ceil, inf, nextafter

import numpy as np

from driftwatch.clock import Clock
from driftwatch.gap import Gap
from driftwatch.held_shard import NEVER, HeldShard
from driftwatch.records import Records, Shard, Stream, Window
from driftwatch.unsaved import Unsaved
from driftwatch.window import (
    NO_LEDGERS,
    NO_ROWS,
    Added,
    Changes,
    CounterFor,
    Ledgers,
    Pane,
    PaneKey,
    Parts,
    ShardCondition,
    ShardState,
    TimeWindows,
    by_stream,
    cut_short,
    ledgers_of,
    row_count,
    total,
)

_PARTS_KEPT = 10_000  # windows whose number of parts is remembered; the oldest is forgotten first


class TimeWindower:
    """A `Windower` over event time. `stream` is that of records that name no version."""

    def __init__(
        self, settings: TimeWindows, stream: Stream, counter_for: CounterFor, ledgers: Ledgers = NO_LEDGERS
    ) -> None:
        self._settings = settings
        self._stream = stream
        self._counter_for = counter_for
        self._ledgers = ledgers
        self._held: dict[Shard, HeldShard] = {}
        self._away: dict[Shard, ShardState] = {}
        self._away_panes: dict[Shard, dict[PaneKey, Pane]] = {}
        self._outgrown: dict[tuple[Stream, str], list[Pane]] = {}  # of other window settings; gone with the first look
        self._parts: dict[tuple[Stream, int], int] = {}
        self._reached = NEVER  # the highest frontier to which windows were ever judged
        self._now_s = -inf
        self._unsaved = Unsaved()
        self.empty = 0
        self.paused: frozenset[Shard] = frozenset()

    # Shards come and go ---------------------------------------------------------------------------------------------

    def assign(
        self, shard: Shard, position: int, *, read_to: int = 0, open_from_s: float | None = None, now_s: float
    ) -> None:
        self.tick(now_s)
        known = self._away.get(shard, ShardState(None, 0))
        goes_on = known.position == position
        if not goes_on:
            self.revoke(shard)
        self._away.pop(shard, None)
        open_window = max(self._open_window(known.open_from_s), self._open_window(open_from_s))
        held = HeldShard(position, max(position, read_to, known.read_to), Clock(), NEVER, open_window, self._now_s)
        if goes_on:
            held.panes = self._away_panes.pop(shard, {})
            self._set_clock(held, Clock(known.clock_s))
            held.gap = Gap.of_span(known.gap_s, self._settings.slide_s)
        elif position == held.read_to:
            self._catch_up_with_judged(held)
        self._held[shard] = held
        self._reached = max(self._reached, open_window)
        self._unsaved.touch(shard)

    def revoke(self, shard: Shard) -> None:
        state = self.state(shard)
        if state is None:
            return
        held = self._held.pop(shard, None)
        self._drop(list(held.panes.values() if held else self._away_panes.pop(shard, {}).values()), {})
        self._away[shard] = ShardState(None, state.read_to, (), state.open_from_s)
        self._unsaved.touch(shard)

    def begin_anew(self, shard: Shard, position: int) -> None:
        state, held = self.state(shard), self._held.pop(shard, None)
        if held is not None:
            self._away_panes[shard] = held.panes
        for pane in self._away_panes.get(shard, {}).values():
            pane.first_position = position
            self._unsaved.keep(pane)
        self._away[shard] = ShardState(position, position, (), None if state is None else state.open_from_s)

    def gap(self, shard: Shard) -> None:
        held = self._held[shard]
        first = max(held.frontier, held.open_window + 1 - self._settings.panes)
        held.gap = Gap.begun(first if first > NEVER else -inf, held.gap)
        self._unsaved.touch(shard)

    def at_end(self, shard: Shard, *, final: bool, now_s: float) -> None:
        self.tick(now_s)
        self._held[shard].at_end = True
        self._held[shard].final = final

    def tick(self, now_s: float) -> None:
        self._now_s = max(self._now_s, now_s)
        for shard in self.paused & self._held.keys():
            self._held[shard].heard_s = self._now_s  # silent because it was told to be

    # Rows come in ---------------------------------------------------------------------------------------------------

    def add(self, records: Records, *, end: int, now_s: float) -> Added:
        self.tick(now_s)
        held = self._held[records.shard]
        self._unsaved.touch(records.shard)
        held.at_end = False
        n = len(records)
        added = Added(0, 0, NO_ROWS, 0)
        if n:
            held.heard_s = self._now_s
            earliest_s, latest_s = float(records.times_s.min()), float(records.times_s.max())
            first, last = self._pane_of(earliest_s), self._pane_of(latest_s)
            if (
                first >= max(self._frontier_at(latest_s), held.frontier, held.open_window)
                and latest_s <= held.clock.settled_s + self._settings.ahead_s
            ):
                # No order of these rows makes one of them late, ahead or judged already.
                self._set_clock(held, held.clock.after(records.times_s))
                if first == last:
                    self._count(held, records, slice(None), first)
                else:
                    self._count_by_pane(held, records, np.arange(n), records.times_s // self._settings.slide_s)
                added = Added(n, 0, NO_ROWS, 0)
            else:
                added = self._add_row_by_row(held, records)
            if held.gap is not None and held.gap.last == inf:
                held.gap = held.gap.ended(self._pane_of(min(float(records.times_s[0]), held.clock.settled_s)))
        if held.position < held.read_to <= end:
            self._catch_up_with_judged(held)
        held.position = end
        held.read_to = max(held.read_to, end)
        return added

    def show(self, shard: Shard, times_s: Sequence[float]) -> None:
        held = self._held[shard]
        held.heard_s = self._now_s
        self._set_clock(held, held.clock.after(np.array(times_s, np.float64)))

    def _add_row_by_row(self, held: HeldShard, records: Records) -> Added:
        """Judges each row by what the clock reads once it has seen that row, as a loop over the rows would."""
        settings, times_s = self._settings, records.times_s
        index = times_s // settings.slide_s
        clock_s = held.clock.running(times_s)
        known = np.searchsorted(records.positions, held.read_to)  # rows below were read by an earlier holder
        judged = np.zeros(len(records), dtype=bool)
        if held.position < held.read_to:
            judged[:known] = index[:known] + settings.panes <= held.open_window
            clock_s[known:] = np.maximum(clock_s[known:], self._clock_s_at(held.open_window))
        ahead = ~judged & (times_s > clock_s + settings.ahead_s)
        late = ~judged & (index < (clock_s - settings.lateness_s) // settings.slide_s)
        rows = np.flatnonzero(~(judged | ahead | late))
        self._set_clock(held, held.clock.after(times_s))
        if len(fresh := rows[rows >= known]):
            # The log ended, its windows were judged, then it grew: they open again, for a further part.
            held.open_window = min(held.open_window, int(index[fresh].min()))
        if len(rows):
            self._count_by_pane(held, records, rows, index)
        return Added(len(rows), int(late.sum()), np.flatnonzero(ahead), int(judged.sum()))

    def _count_by_pane(self, held: HeldShard, records: Records, rows: np.ndarray, index: np.ndarray) -> None:
        rows = rows[np.argsort(index[rows], kind="stable")]
        for piece in np.split(rows, np.flatnonzero(np.diff(index[rows])) + 1):
            self._count(held, records, piece, int(index[piece[0]]))

    def _count(self, held: HeldShard, records: Records, rows: slice | np.ndarray, index: int) -> None:
        start_s = index * self._settings.slide_s
        for stream, chosen in by_stream(self._stream, records.versions, rows):
            counter = self._counter_for(stream, start_s)
            key = PaneKey(records.shard, stream, index, counter.profile)
            pane = held.panes.get(key)
            if pane is None:
                position = int(records.positions[chosen][0])
                end_s = (index + 1) * self._settings.slide_s
                pane = held.panes[key] = Pane(key, start_s, end_s, position, 0, counter.empty())
            pane.ledger = pane.ledger or self._ledgers.open(start_s, counter.profile)
            counter.count(pane.table, records, chosen)
            self._ledgers.enter(pane.ledger, records, chosen)
            pane.n_records += row_count(records, chosen)
            self._unsaved.keep(pane)

    # Windows go out -------------------------------------------------------------------------------------------------

    def closed(self) -> list[Window]:
        return self._judge_outgrown() + self._judge_due()

    def _judge_due(self) -> list[Window]:
        clock_s = self._watermark_clock_s()
        frontier = self._frontier_at(clock_s)
        due = [h for s, h in self._held.items() if h.open_window < frontier and self._condition(h) != "stalled"]
        windows = self._judge(due, frontier, frontier) if due else []
        for shard, held in self._held.items():
            if held.frontier < frontier and not held.final and self._condition(held) == "idle":
                self._set_clock(held, held.clock.raised(clock_s))
                self._unsaved.touch(shard)
        self.paused = self._too_far_ahead(frontier)
        return windows

    def _judge_outgrown(self) -> list[Window]:
        """What was open under other window settings, as it is: its panes fit no window of these."""
        outgrown, self._outgrown = self._outgrown, {}
        for panes in outgrown.values():
            self._drop(panes, {})
        return [cut_short(*of, panes) for of, panes in outgrown.items()]

    def finish(self) -> list[Window]:
        windows = self.closed()
        frontier = self._frontier_at(self._watermark_clock_s())
        last = max((key.index for held in self._held.values() for key in held.panes), default=None)
        if last is None:
            return windows
        return windows + self._judge(list(self._held.values()), last + self._settings.panes, frontier)

    def _judge(self, due: list[HeldShard], upto: int, whole_to: int) -> list[Window]:
        """Judges the windows below `upto` that are open for the shards `due`; those from `whole_to` on are partial."""
        panes_of: dict[tuple[int, Stream], list[Pane]] = {}
        for held in due:
            for key, pane in held.panes.items():
                for window in range(max(key.index, held.open_window), min(key.index + self._settings.panes, upto)):
                    panes_of.setdefault((window, key.stream), []).append(pane)
        gaps = [held.gap for held in due if held.gap is not None]
        ended = {window for window, _ in panes_of}
        if upto > self._reached and (ended or self._reached > NEVER):  # nothing is empty before the first row
            begin = self._reached if self._reached > NEVER else min(ended)
            self.empty += upto - begin - sum(window >= begin for window in ended)
            self._reached = upto
        for held in due:
            held.open_window = max(held.open_window, upto)
            if held.gap is not None and not held.gap.touches(held.open_window, self._settings.panes):
                held.gap = held.gap if held.open_window < held.gap.first else None
            self._drop([p for p in held.panes.values() if p.key.index + self._settings.panes <= upto], held.panes)
        self._unsaved.touch(*(shard for shard, held in self._held.items() if held in due))
        order = sorted(panes_of, key=lambda w: (w[0], w[1].model, w[1].version))
        touched = {w for w in ended if w >= whole_to or any(gap.touches(w, self._settings.panes) for gap in gaps)}
        return list(chain.from_iterable(self._windows(w, s, panes_of[w, s], w in touched) for w, s in order))

    def _windows(self, window: int, stream: Stream, panes: list[Pane], cut_short: bool) -> Iterator[Window]:
        """One window, or a partial one for each profile where the profile changed inside it."""
        panes.sort(key=lambda p: (p.key.index, p.key.shard))
        by_profile: dict[str, list[Pane]] = {}
        for pane in panes:
            by_profile.setdefault(pane.key.profile, []).append(pane)
        for profile, parts in by_profile.items():
            part = self._parts.pop((stream, window), 0) + 1
            self._parts[stream, window] = part
            if len(self._parts) > _PARTS_KEPT:
                del self._parts[next(iter(self._parts))]
            yield Window(
                stream=stream,
                start_s=(window + 1 - self._settings.panes) * self._settings.slide_s,
                end_s=(window + 1) * self._settings.slide_s,
                n_records=sum(p.n_records for p in parts),
                table=total(parts),
                profile=profile,
                part=part,
                partial=cut_short or len(by_profile) > 1,
                ledgers=ledgers_of(parts),
            )

    # Time -----------------------------------------------------------------------------------------------------------

    def _pane_of(self, time_s: float) -> int:
        return int(time_s // self._settings.slide_s)  # `//` is exact where floor(time / slide) rounds up at an edge

    def _frontier_at(self, clock_s: float) -> int:
        return NEVER if clock_s == -inf else self._pane_of(clock_s - self._settings.lateness_s)

    def _clock_s_at(self, frontier: int) -> float:
        """The least clock, to rounding, at which the panes below `frontier` have ended."""
        if frontier <= NEVER:
            return -inf
        clock_s = frontier * self._settings.slide_s + self._settings.lateness_s
        while self._frontier_at(clock_s) < frontier:
            clock_s = nextafter(clock_s, inf)
        return clock_s

    def _set_clock(self, held: HeldShard, clock: Clock) -> None:
        held.clock = clock
        held.frontier = self._frontier_at(clock.settled_s)

    def _catch_up_with_judged(self, held: HeldShard) -> None:
        """Sets the clock to where an earlier holder's must have been when it judged what is judged."""
        if held.open_window > NEVER:
            self._set_clock(held, held.clock.raised(self._clock_s_at(held.open_window)))

    def _open_window(self, open_from_s: float | None) -> int:
        if open_from_s is None:
            return NEVER
        # A start that another slide left between two panes of this one opens the first window that begins after it.
        return ceil(open_from_s / self._settings.slide_s - 1e-6) + self._settings.panes - 1

    def _condition(self, held: HeldShard) -> ShardCondition:
        silent_s = self._now_s - held.heard_s
        if held.final or (held.at_end and silent_s >= self._settings.idle_s):
            return "idle"
        return "stalled" if not held.at_end and silent_s >= self._settings.stall_s else "active"

    def _watermark_clock_s(self) -> float:
        """The clock that the watermark follows: the slowest active shard's; where none is, the fastest idle one's."""
        clocks: dict[ShardCondition, list[float]] = {"active": [], "idle": [], "stalled": []}
        for held in self._held.values():
            clocks[self._condition(held)].append(held.clock.settled_s)
        return min(clocks["active"]) if clocks["active"] else max(clocks["idle"], default=-inf)

    def _too_far_ahead(self, frontier: int) -> frozenset[Shard]:
        if frontier == NEVER:  # a shard has yet to show where it stands: measure from the oldest pane in memory
            frontier = min((key.index for held in self._held.values() for key in held.panes), default=NEVER)
        limit = frontier + self._settings.max_open * self._settings.panes
        return frozenset(s for s, h in self._held.items() if h.frontier > limit and self._condition(h) == "active")

    # State ----------------------------------------------------------------------------------------------------------

    def _drop(self, panes: list[Pane], out_of: dict[PaneKey, Pane]) -> None:
        for pane in panes:
            out_of.pop(pane.key, None)
            self._unsaved.drop(pane)
            self._ledgers.release(pane.ledger)

    def changes(self) -> Changes:
        return self._unsaved.take(self.state)

    def restore(self, shards: Mapping[Shard, ShardState], panes: Iterable[Pane], parts: Parts) -> None:
        self._away = dict(shards)
        for pane in panes:
            start_s = pane.key.index * self._settings.slide_s
            if (pane.start_s, pane.end_s) == (start_s, (pane.key.index + 1) * self._settings.slide_s):
                self._away_panes.setdefault(pane.key.shard, {})[pane.key] = pane
            else:
                self._outgrown.setdefault((pane.key.stream, pane.key.profile), []).append(pane)
        self._parts = {(s, round(end_s / self._settings.slide_s) - 1): n for (s, end_s), n in parts.items()}

    def state(self, shard: Shard) -> ShardState | None:
        held = self._held.get(shard)
        if held is None:
            return self._away.get(shard)
        first_pane = held.open_window + 1 - self._settings.panes
        open_from_s = None if held.open_window <= NEVER else first_pane * self._settings.slide_s
        gap_s = None if held.gap is None else held.gap.span(self._settings.slide_s)
        return ShardState(held.position, held.read_to, held.clock.times_s, open_from_s, gap_s)

    def rewind(self, shard: Shard) -> int:
        held = self._held[shard]
        return min((pane.first_position for pane in held.panes.values()), default=held.position)

    @property
    def reached_s(self) -> float:
        return self._watermark_clock_s()

    @property
    def oldest_s(self) -> float:
        return min((pane.start_s for held in self._held.values() for pane in held.panes.values()), default=inf)

    def shard_states(self) -> dict[ShardCondition, int]:
        states: dict[ShardCondition, int] = {"active": 0, "idle": 0, "stalled": 0, "paused": len(self.paused)}
        for shard, held in self._held.items():
            if shard not in self.paused:
                states[self._condition(held)] += 1
        return states

    @property
    def watermark_s(self) -> float | None:
        clock_s = self._watermark_clock_s()
        return None if clock_s == -inf else clock_s - self._settings.lateness_s

    @property
    def next_start_s(self) -> float:
        clocks = [held.clock.times_s for held in self._held.values()] + [s.clock_s for s in self._away.values()]
        panes = chain.from_iterable([*(h.panes for h in self._held.values()), *self._away_panes.values()])
        latest_s = max((self._start_s(key.index) for key in panes), default=-inf)
        for times_s in clocks:  # the third-largest, or the smallest of fewer, says which of the others are strays
            latest_s = max(latest_s, *(t for t in times_s if t <= times_s[-1] + self._settings.ahead_s), -inf)
        return -inf if latest_s == -inf else self._start_s(self._pane_of(latest_s) + 1)

    def _start_s(self, index: int) -> float:
        return index * self._settings.slide_s

    @property
    def open_panes(self) -> int:
        return sum(len(held.panes) for held in self._held.values())

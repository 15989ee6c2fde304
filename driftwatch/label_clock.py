"""How far the labels have come, by their own event times: the watermark up to which a window's labels are known.

It follows the slowest shard that may still bring labels, be they in events of their own or beside predictions. A shard
that is at its end and silent holds nothing, nor does one that is stalled. It never holds the windows' watermark.
"""

from dataclasses import dataclass, replace
from math import inf

import numpy as np

from driftwatch.clock import Clock
from driftwatch.records import Shard
from driftwatch.window import ShardState


@dataclass(slots=True, eq=False)
class _Held:
    """A shard as it is being read."""

    clock: Clock
    heard_s: float
    at_end: bool = False
    final: bool = False


class LabelClock:
    """The shards' clocks, which labels may lag by `lateness_s`. Seconds; `idle_s` and `stall_s` of machine time."""

    def __init__(self, lateness_s: float, *, idle_s: float = 60.0, stall_s: float = 300.0) -> None:
        self._lateness_s, self._idle_s, self._stall_s = lateness_s, idle_s, stall_s
        self._held: dict[Shard, _Held] = {}
        self._now_s = -inf
        self._reached_s = -inf

    def hold(self, shard: Shard, clock_s: tuple[float, ...], now_s: float) -> None:
        """A shard is read from now on; `clock_s`: what it has shown before."""
        self.tick(now_s)
        self._held[shard] = _Held(Clock(clock_s), self._now_s)

    def holds(self, shard: Shard) -> bool:
        """Whether a shard is being read."""
        return shard in self._held

    def drop(self, shard: Shard) -> None:
        """A shard is another's now."""
        self._held.pop(shard, None)

    def shown(self, shard: Shard, times_s: np.ndarray, now_s: float) -> None:
        """A shard has brought events of these times, (n,)."""
        self.tick(now_s)
        held = self._held[shard]
        held.at_end = False
        if len(times_s):
            held.heard_s, held.clock = self._now_s, held.clock.after(times_s)

    def at_end(self, shard: Shard, *, final: bool, now_s: float) -> None:
        """Every event of the shard has been read."""
        self.tick(now_s)
        self._held[shard].at_end, self._held[shard].final = True, final

    def tick(self, now_s: float) -> None:
        """Moves machine time on."""
        self._now_s = max(self._now_s, now_s)

    def times_s(self, shard: Shard) -> tuple[float, ...]:
        """The largest event times that a shard has shown."""
        return self._held[shard].clock.times_s if shard in self._held else ()

    @property
    def watermark_s(self) -> float:
        """Event time up to which labels are known; it never goes back; −inf before there is one."""
        active, idle = [inf], [-inf]
        for held in self._held.values():
            silent_s = self._now_s - held.heard_s
            if held.final or (held.at_end and silent_s >= self._idle_s):
                idle.append(held.clock.settled_s)
            elif held.at_end or silent_s < self._stall_s:
                active.append(held.clock.settled_s)
        clock_s = min(active) if len(active) > 1 else max(idle)
        self._reached_s = max(self._reached_s, clock_s - self._lateness_s)
        return self._reached_s


class LabelShards:
    """The shards that hold labels only: where each is read on. The windower has those with predictions."""

    def __init__(self) -> None:
        self._states: dict[Shard, ShardState] = {}
        self._dirty: set[Shard] = set()

    def restore(self, states: dict[Shard, ShardState]) -> None:
        """Goes on from what was stored of all shards."""
        self._states = dict(states)

    def state(self, shard: Shard) -> ShardState | None:
        """What is known of a shard."""
        return self._states.get(shard)

    def assign(self, shard: Shard, position: int) -> None:
        """A shard is read from `position` on."""
        known = self._states.get(shard, ShardState(None, 0))
        self._states[shard] = replace(known, position=position, read_to=max(position, known.read_to))
        self._dirty.add(shard)

    def moved(self, shard: Shard, end: int, clock_s: tuple[float, ...]) -> None:
        """It has been read to `end`."""
        self._states[shard] = ShardState(end, max(end, self._states[shard].read_to), clock_s)
        self._dirty.add(shard)

    def revoke(self, shard: Shard) -> None:
        """It is another's now."""
        if shard in self._states:
            self._states[shard] = ShardState(None, self._states[shard].read_to)
            self._dirty.add(shard)

    def changes(self) -> dict[Shard, ShardState]:
        """What to store since the last call."""
        found = {shard: self._states[shard] for shard in sorted(self._dirty)}
        self._dirty = set()
        return found

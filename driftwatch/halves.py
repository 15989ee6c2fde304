"""Requests that wait for their responses, and responses for their requests.

The twin may come in either order, within some event time, and in another shard; what is alone after that is handed out
for what it holds. All of it moves in the store's transaction: a half whose body was read is found again after a crash.
Where a log is read again from an earlier place, that place lies before every half that still matters: those that wait,
and those whose rows stand in windows that are not judged.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Literal, NamedTuple

from driftwatch.records import Shard

MOST = 100_000


class HalfKey(NamedTuple):
    """What the two have in common."""

    source: str
    id: str


class Half(NamedTuple):
    """One of the two: its event time, its body as it came, and where that lies."""

    kind: Literal["request", "response"]
    time_s: float
    data: bytes
    shard: Shard
    position: int


Read = dict[str, dict[int, int]]
"""By shard and slot of event time: the lowest position at which a half of that time was read."""


@dataclass(frozen=True, slots=True)
class HalvesState:
    """What is stored: those that wait in their order, the largest event times shown, and where halves were read."""

    waiting: Mapping[HalfKey, Half] = field(default_factory=dict)
    times_s: tuple[float, ...] = ()
    read: Read = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HalvesChanges:
    """What to store since the last call: first those in `gone` go, then those that wait come to the end."""

    waiting: Mapping[HalfKey, Half]
    gone: Sequence[HalfKey]
    times_s: tuple[float, ...]
    read: Read = field(default_factory=dict)


class Halves:
    """A fold over bodies in their order; its clock is the third-largest event time, as a shard's is.

    `reached_s`: where there are several shards, the event time that all have reached: the twin may be in any of them.
    """

    def __init__(self, match_s: float, most: int = MOST) -> None:
        self._match_s = match_s
        self._most = most
        self._waiting: dict[HalfKey, Half] = {}
        self._times_s: tuple[float, ...] = ()
        self._added: dict[HalfKey, Half] = {}
        self._stored: set[HalfKey] = set()  # of those that wait or are gone since
        self._gone: list[HalfKey] = []
        self._read: Read = {}
        self.reached_s = inf

    def restore(self, state: HalvesState) -> None:
        """Goes on from what was stored."""
        self._waiting, self._times_s, self._read = dict(state.waiting), state.times_s, state.read
        self._stored = set(self._waiting)

    def meet(self, key: HalfKey, half: Half) -> Half | None:
        """The other half, if it waits; else this one waits from now on. The same half once more is answered itself."""
        if len(self._times_s) < 3 or half.time_s > self._times_s[2]:
            self._times_s = tuple(sorted((*self._times_s, half.time_s), reverse=True)[:3])
        if isfinite(half.time_s):
            self._read.setdefault(half.shard, {}).setdefault(int(half.time_s // self._match_s), half.position)
        known = self._waiting.get(key)
        if known is None:
            self._waiting[key] = self._added[key] = half
        elif known.kind != half.kind:
            self._drop(key)
        return known

    def overdue(self) -> Iterator[tuple[HalfKey, Half]]:
        """Takes out those that waited too long, the first first; and those beyond the bound."""
        due_s = min(self._times_s[2] if len(self._times_s) == 3 else -inf, self.reached_s) - self._match_s
        while self._waiting:
            key, half = next(iter(self._waiting.items()))
            if half.time_s >= due_s and len(self._waiting) <= self._most:
                return
            self._drop(key)
            yield key, half

    def changes(self) -> HalvesChanges:
        """What to store now."""
        found = HalvesChanges(self._added, self._gone, self._times_s, self._read)
        self._stored.update(self._added)
        self._added, self._gone = {}, []
        return found

    def release(self, shard: Shard) -> None:
        """Those of a shard that is another's now are another's too."""
        for key in [key for key, half in self._waiting.items() if half.shard == shard]:
            self._drop(key)
        self._read.pop(shard, None)

    def rewind(self, shard: Shard, oldest_s: float) -> float:
        """The lowest position of a shard's halves that matter still; inf where none does.

        `oldest_s`: where the oldest window that is not judged begins.
        """
        slots = self._read.get(shard)
        if not slots:
            return inf
        waits_s = min((half.time_s for half in self._waiting.values()), default=inf)
        needed_s = min(oldest_s, waits_s) - self._match_s
        first = needed_s // self._match_s if needed_s < inf else inf
        for slot in [slot for slot in slots if slot < first]:
            del slots[slot]
        return min(slots.values(), default=inf)

    def _drop(self, key: HalfKey) -> None:
        del self._waiting[key]
        self._added.pop(key, None)
        if key in self._stored:
            self._stored.remove(key)
            self._gone.append(key)

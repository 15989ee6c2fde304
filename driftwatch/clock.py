"""A shard's clock: how far its events have come, by their own times."""

from dataclasses import dataclass
from math import inf

import numpy as np


@dataclass(frozen=True, slots=True)
class Clock:
    """The third-largest event time that a shard has shown, so that one or two stray rows move nothing.

    `times_s` holds the (at most three) largest event times, largest first. Before three rows the clock reads the
    smallest of them; it then closes no window, since it can still go back.
    """

    times_s: tuple[float, ...] = ()

    @property
    def settled_s(self) -> float:
        """The clock for closing windows: never goes back; −inf before three rows."""
        return self.times_s[2] if len(self.times_s) == 3 else -inf

    def after(self, times_s: np.ndarray) -> "Clock":
        """The clock once it has been shown `times_s` (n,) as well."""
        if len(times_s) == 0 or times_s.max() <= self.settled_s:
            return self
        largest = times_s if len(times_s) <= 3 else np.partition(times_s, -3)[-3:]
        return Clock(tuple(sorted((*self.times_s, *largest.tolist()), reverse=True)[:3]))

    def running(self, times_s: np.ndarray) -> np.ndarray:
        """What the clock reads after each of `times_s` (n,), that row included."""
        shown = np.concatenate([np.array(self.times_s[::-1], dtype=np.float64), times_s])
        third = shown
        for _ in range(2):
            # The largest so far stays at its rank; whatever it beats, or what beats it, falls to the next one.
            before = np.concatenate([[-inf], np.maximum.accumulate(third)[:-1]])
            third = np.minimum(third, before)
        third = np.maximum.accumulate(third)
        third[:2] = np.minimum.accumulate(shown[:2])
        return third[len(self.times_s) :]

    def raised(self, to_s: float) -> "Clock":
        """The clock set forward to `to_s`; the same where it is past that already."""
        return (
            self
            if self.settled_s >= to_s
            else Clock(tuple(max(t, to_s) for t in (*self.times_s, to_s, to_s, to_s)[:3]))
        )

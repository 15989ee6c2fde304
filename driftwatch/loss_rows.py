"""Losses row by row: of rows whose event held its label, until all windows they are in are judged."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from driftwatch.label_log import LabelLog

Column = np.ndarray


@dataclass(slots=True)
class _Rows:
    """Of one ledger, in the order of its shard: `n` rows came; of every 2^level-th loss and time, in pieces."""

    n: int
    losses: list[Column]
    since_s: list[Column]


class LossRows:
    """Losses in [0, 1] (float32, NaN where there is none) by ledger, each with its event time since the ledger's base.

    `most`: how many may live at once. Beyond it every second row of each ledger goes, and stays away from then on.
    """

    def __init__(self, most: int) -> None:
        self.most, self.level, self.n = most, 0, 0
        self._of: dict[int, _Rows] = {}

    def add(self, number: int, losses: Column, since_s: Column, log: LabelLog | None = None) -> None:
        """Adds a ledger's next rows."""
        while self.n + (len(losses) >> self.level) > self.most and self.n:
            self._thin()
        rows = self._of.setdefault(number, _Rows(0, [], []))
        stride = 1 << self.level
        first = -rows.n % stride
        self._keep(rows, losses[first::stride], since_s[first::stride])
        if log is not None:
            log.beside(number, losses[first::stride], since_s[first::stride], rows.n + first, self.level)
        rows.n += len(losses)

    def restore(self, number: int, losses: Column, since_s: Column, first: int, level: int) -> None:
        """Adds what the log says was added: every 2^level-th row from row `first` of the ledger on."""
        rows = self._of.setdefault(number, _Rows(0, [], []))
        row = first + (np.arange(len(losses)) << level)
        here = row % (1 << self.level) == 0
        self._keep(rows, losses[here], since_s[here])

    def resume(self, number: int, n: int) -> None:
        """After `restore`: so many rows of a ledger came."""
        self._of.setdefault(number, _Rows(0, [], [])).n = n

    def take(self, number: int) -> tuple[Column, Column]:
        """A ledger's losses and times; they are forgotten."""
        rows = self._of.pop(number, _Rows(0, [], []))
        self.n -= sum(map(len, rows.losses))
        return joined(rows.losses), joined(rows.since_s)

    def _keep(self, rows: _Rows, losses: Column, since_s: Column) -> None:
        rows.losses.append(losses)
        rows.since_s.append(since_s)
        self.n += len(losses)

    def _thin(self) -> None:
        self.level += 1
        for rows in self._of.values():
            rows.losses, rows.since_s = [joined(rows.losses)[::2]], [joined(rows.since_s)[::2]]
        self.n = sum(len(piece) for rows in self._of.values() for piece in rows.losses)


def joined(pieces: Iterable[Column]) -> Column:
    """One column."""
    return np.concatenate([np.empty(0, np.float32), *pieces])

"""What changes among late labels, as it is stored: a log of small additions, and how it is read back.

Predictions of a pane are added as they come; a join adds the hash of its id, the label and its tick, and rewrites
nothing. What belongs to one ledger goes with it; what belongs to several has a bin after which none of them is left.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np


class Kind(IntEnum):
    """What an entry holds, columns one after the other."""

    ROWS = 0  # hash, what was predicted, event time since the ledger's base
    EARLY = 1  # hash, label, tick: labels that wait
    JOINED = 2  # hash, label in four bytes, tick; of several ledgers also whose each is
    GONE = 3  # hash of a label that waited
    BESIDE = 4  # loss and time of rows whose event held the label; (number of the first, of every 2^level-th)


class Entry(NamedTuple):
    """Of one ledger, or of several (0) that are gone when the labels' watermark reaches the bin `expires`."""

    ledger: int
    expires: int
    kind: int
    body: bytes


@dataclass(frozen=True, slots=True)
class LabelChanges:
    """What to store: `entries` come to the end of the log, once what is `freed` or expired by `reached` has gone.

    `ledgers`, `windows` (those that wait for their labels) replace what is there under their numbers. `settled`:
    ledgers whose losses beside are needed no more.
    """

    ledgers: Mapping[int, bytes]
    freed: Sequence[int]
    entries: Sequence[Entry]
    windows: Mapping[int, Sequence[Any]]
    judged: Sequence[int]
    settled: Sequence[int]
    reached: int
    book: bytes


@dataclass(frozen=True, slots=True)
class LabelState:
    """What was stored: by number, and the entries in their order. `book` None: nothing yet.

    Of a window that waits its profile's content hash, and what else is known of it.
    """

    ledgers: Mapping[int, bytes] = field(default_factory=dict)
    windows: Mapping[int, Sequence[Any]] = field(default_factory=dict)
    entries: Iterable[Entry] = field(default=(), compare=False)
    book: bytes | None = None


class HasEnd(Protocol):
    """A ledger, as far as the log looks at it."""

    number: int
    last: int | None
    is_held: bool


class LabelLog:
    """Collects what changes between two transactions."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.freed_ledgers: list[int] = []
        self.judged_windows: list[int] = []
        self.settled_ledgers: list[int] = []

    def rows(self, ledger: int, hashes: np.ndarray, values: np.ndarray, since_s: np.ndarray) -> None:
        """Predictions."""
        self.entries.append(Entry(ledger, 0, Kind.ROWS, packed(hashes, values, since_s)))

    def beside(self, ledger: int, losses: np.ndarray, since_s: np.ndarray, first: int, level: int) -> None:
        """Losses of rows that came with their label: every 2^level-th from the ledger's row `first` on."""
        self.entries.append(Entry(ledger, 0, Kind.BESIDE, packed(losses, since_s, np.array([first, level]))))

    def early(self, ledger: int, hashes: np.ndarray, labels: np.ndarray, ticks: np.ndarray) -> None:
        """Labels that wait."""
        self.entries.append(Entry(ledger, 0, Kind.EARLY, packed(hashes, labels, ticks)))

    def joined(
        self, ledgers: Sequence[HasEnd], at: np.ndarray, columns: tuple[np.ndarray, ...], kept_bins: int
    ) -> None:
        """Labels (hash, label, tick) of predictions of these ledgers; `at`: whose each is.

        A ledger is kept so many bins after its last.
        """
        settled = np.array([not ledger.is_held and ledger.last is not None for ledger in ledgers])
        here = settled[at]
        if here.any():
            expires = max(ledgers[i].last or 0 for i in set(at[here].tolist())) + kept_bins
            owners = np.array([ledger.number for ledger in ledgers], np.uint32)[at[here]]
            self.entries.append(Entry(0, expires, Kind.JOINED, packed(*(column[here] for column in columns), owners)))
        for i in set(at[~here].tolist()):
            body = packed(*(column[at == i] for column in columns))
            self.entries.append(Entry(ledgers[i].number, 0, Kind.JOINED, body))

    def gone(self, hashes: np.ndarray, expires: int) -> None:
        """Labels that waited have found their predictions, or an earlier one in their place."""
        self.entries.append(Entry(0, expires, Kind.GONE, packed(hashes)))

    def freed(self, ledger: int) -> None:
        """A ledger and its rows are gone."""
        self.freed_ledgers.append(ledger)

    def settled(self, ledgers: Iterable[int]) -> None:
        """These ledgers' losses beside are needed no more."""
        if those := set(ledgers):
            self.settled_ledgers += sorted(those)
            self.entries = [e for e in self.entries if e.kind != Kind.BESIDE or e.ledger not in those]

    def judged(self, window: int) -> None:
        """A window waits no more."""
        self.judged_windows.append(window)

    def clear(self) -> None:
        """All of it is stored."""
        self.entries, self.freed_ledgers, self.judged_windows, self.settled_ledgers = [], [], [], []


def packed(*columns: np.ndarray) -> bytes:
    """Columns: their types, then their bytes."""
    names = [column.dtype.newbyteorder("<").str for column in columns]
    return _encoder.encode((names, [column.tobytes() for column in columns]))


def unpacked(body: bytes) -> list[np.ndarray]:
    """The inverse of `packed`. Raises msgspec.MsgspecError."""
    names, parts = _columns.decode(body)
    return [np.frombuffer(part, name) for name, part in zip(names, parts, strict=True)]


_encoder = msgspec.msgpack.Encoder()
_columns = msgspec.msgpack.Decoder(tuple[list[str], list[bytes]])

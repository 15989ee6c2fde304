"""What late labels are kept in: the ledger of a pane's predictions, windows that wait, and for how long."""

from dataclasses import dataclass, field
from math import ceil, floor, log2
from typing import Literal

import msgspec
import numpy as np

from detectors.summary import Table
from driftwatch.pending import FIRST_TICK, LAST_TICK
from driftwatch.records import Shard, Stream, Window

NO_TABLE = Table(np.zeros(0, np.int64), np.zeros(0))
ORIGIN = 1 << 31  # the tick at which a ledger's base begins: a label may be known before its prediction
MOST_TICKS = 2**30  # in `wait`; as many more are left for the window itself

Reason = Literal["late", "duplicate", "contradicting", "orphan", "invalid", "not_sampled", "no_loss"]
"""Why a label is not used, or (no_loss) not for a loss."""


@dataclass(frozen=True, slots=True)
class LabelTerms:
    """How long labels are awaited. `bin_s`: event time from one boundary to the next."""

    wait_s: float
    complete: float
    max_pending: int
    bin_s: float

    @classmethod
    def of(cls, *, wait_s: float, complete: float, max_pending: int, slide_s: float | None) -> "LabelTerms":
        """Boundaries where windows end; of count windows (`slide_s` None) at every hundredth of the wait."""
        if slide_s is None:
            return cls(wait_s, complete, max_pending, wait_s / 100 or 1.0)
        return cls(wait_s, complete, max_pending, slide_s)

    @property
    def wait_bins(self) -> int:
        """The wait in whole bins."""
        return ceil(self.wait_s / self.bin_s - 1e-9)

    @property
    def bin_ticks(self) -> int:
        """Ticks in a bin, a power of two: a boundary is between two ticks."""
        return 1 << max(0, min(31, floor(log2(MOST_TICKS / max(self.wait_bins, 1)))))

    @property
    def tick_s(self) -> float:
        """How exactly the time of a label is known: of five minutes and seven days, .6 ms."""
        return self.bin_s / self.bin_ticks

    def moments(self, ticks: np.ndarray, base: np.ndarray | int) -> np.ndarray:
        """Ticks since 1970 of ticks that a ledger counts from its base on, int64."""
        return np.asarray(ticks.astype(np.int64) - ORIGIN + base * np.int64(self.bin_ticks))

    def ticks(self, moments: np.ndarray, base: np.ndarray | int) -> np.ndarray:
        """The inverse of `moments`, uint32; what lies too far off is cut."""
        since = moments - base * np.int64(self.bin_ticks) + ORIGIN
        return np.asarray(np.clip(since, FIRST_TICK, LAST_TICK).astype(np.uint32))


def coded(labels: np.ndarray, predictions: np.ndarray, *, is_numeric: bool) -> np.ndarray:
    """Labels in four bytes: a class is a code of 32 bits, a number is known by how far the prediction is off."""
    if not is_numeric:
        return labels.astype(np.uint32)
    with np.errstate(over="ignore"):
        return np.asarray((labels - predictions).astype(np.float32).view(np.uint32))


def decoded(codes: np.ndarray, predictions: np.ndarray, *, is_numeric: bool) -> np.ndarray:
    """The inverse of `coded`."""
    return np.asarray(predictions + codes.view(np.float32) if is_numeric else codes.astype(np.float64))


@dataclass(slots=True, eq=False)
class Ledger:
    """The predictions of one pane, or labels that wait for theirs.

    `base`: the number of the bin that its own bins count from. `n_beside`: predictions whose event held the label.
    `n`: rows that have none beside; `n_labelled`: those whose label has come. `last`: the number of the bin after which
    no label of it is used any more, None while a window may be added. Closed: every window of it was judged. `profile`:
    the content hash of the one that its rows are counted on.
    """

    number: int
    base: int
    is_early: bool = False
    n_beside: int = 0
    n: int = 0
    n_labelled: int = 0
    last: int | None = None
    is_held: bool = True
    profile: str = ""
    windows: set[int] = field(default_factory=set)

    @property
    def is_closed(self) -> bool:
        """Whether a label comes too late. A window that was filled just now is registered before the next `due`."""
        return not self.is_held and self.last is not None and not self.windows

    def to_bytes(self) -> bytes:
        """What its rows and windows do not say."""
        return msgspec.msgpack.encode((self.base, self.is_early, self.n_beside, self.last, self.is_held, self.profile))

    @classmethod
    def from_bytes(cls, number: int, data: bytes) -> "Ledger":
        """The inverse of `to_bytes`; without rows and windows."""
        base, is_early, n_beside, last, is_held, profile = _ledger.decode(data)
        return cls(number, base, is_early, n_beside, last=last, is_held=is_held, profile=profile)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A window that was judged once. `first`, `last`: the numbers of the bins between which its boundary T lies.

    `kept`: what the second judgement needs of the first one's table. The window here has none.
    """

    window: Window
    ledgers: tuple[int, ...]
    first: int
    last: int
    kept: bytes

    def to_bytes(self) -> bytes:
        """MessagePack."""
        window = self.window
        what = _Window(
            window.stream.model, window.stream.version, window.start_s, window.end_s, window.n_records, window.profile,
            window.part, window.partial, window.share, self.ledgers, self.first, self.last, self.kept,
        )  # fmt: skip
        return msgspec.msgpack.encode(what)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Waiting":
        """The inverse of `to_bytes`. Raises msgspec.MsgspecError."""
        w = _window.decode(data)
        share = None if w.share is None else (tuple(map(Shard, w.share[0])), w.share[1])
        window = Window(
            Stream(w.model, w.version), w.start_s, w.end_s, w.n_records, NO_TABLE, w.profile, w.part, w.partial, share,
            w.ledgers,
        )  # fmt: skip
        return cls(window, w.ledgers, w.first, w.last, w.kept)


class _Window(msgspec.Struct, array_like=True, frozen=True):
    """A window that waits, as it is stored."""

    model: str
    version: str
    start_s: float
    end_s: float
    n_records: int
    profile: str
    part: int
    partial: bool
    share: tuple[tuple[str, ...], int] | None
    ledgers: tuple[int, ...]
    first: int
    last: int
    kept: bytes


_ledger = msgspec.msgpack.Decoder(tuple[int, bool, int, int | None, bool, str])
_window = msgspec.msgpack.Decoder(_Window)

"""Late labels: joined to their predictions by id, and the windows that wait to be judged on them.

What a window is judged on depends on event times alone. Event time is cut into bins at boundaries (every slide); T is
the first boundary, not before the window's end, before which enough of its predictions have their label; at most `wait`
after the end. Of its labels those that came before T are used. It is judged when the labels' watermark has passed T.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from math import ceil, inf
from typing import Literal

import numpy as np

from detectors.summary import Table
from driftwatch.id_hash import hash_ids
from driftwatch.label_log import LabelLog
from driftwatch.outcomes import OutcomeCounter, Predictions
from driftwatch.pending import LAST_BIN, UNLABELLED, Pending, in_sample
from driftwatch.records import Labels, Records, Schema, Window

MOST_LEVEL = 40
MOST_BINS = 60_000  # in `wait`: a label's bin is kept in two bytes

Reason = Literal["late", "duplicate", "contradicting", "orphan", "invalid", "not_sampled"]


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
        return cls(wait_s, complete, max_pending, slide_s * max(1, ceil(wait_s / slide_s / MOST_BINS)))

    @property
    def wait_bins(self) -> int:
        """The wait in whole bins."""
        return ceil(self.wait_s / self.bin_s - 1e-9)


@dataclass(slots=True, eq=False)
class Ledger:
    """The predictions of one pane, or labels that wait for theirs.

    `base`: the number of the bin that its own bins count from. `n_beside`: predictions whose event held the label.
    `n`: rows that have none beside; `n_labelled`: those whose label has come. `last`: the number of the bin after which
    no label of it is used any more, None while a window may be added. Closed: every window of it was judged.
    """

    number: int
    base: int
    is_early: bool = False
    n_beside: int = 0
    n: int = 0
    n_labelled: int = 0
    last: int | None = None
    is_held: bool = True
    windows: set[int] = field(default_factory=set)

    @property
    def is_closed(self) -> bool:
        """Whether a label comes too late."""
        return not self.is_held and not self.windows


@dataclass(frozen=True, slots=True)
class Waiting:
    """A window that was judged once. `first`, `last`: the numbers of the bins between which its boundary T lies.

    `cells`, `counts`, `outcome`: what was counted of labels beside predictions.
    """

    window: Window
    ledgers: tuple[int, ...]
    first: int
    last: int
    cells: np.ndarray
    counts: np.ndarray


class LabelBook:
    """Joins labels to predictions. `counters`: of every profile that a window may be counted on, by content hash.

    `log` notes what changes, to be stored; None where nothing is.
    """

    def __init__(
        self, terms: LabelTerms, schema: Schema, counters: Mapping[str, OutcomeCounter], log: LabelLog | None = None
    ) -> None:
        self._terms, self._counters, self._log = terms, counters, log
        self._predictions = Predictions(schema)
        self._rows = Pending(terms.max_pending)
        self._ledgers: dict[int, Ledger] = {}
        self._waiting: dict[int, Waiting] = {}
        self._due: list[tuple[int, float, str, int, int]] = []  # (bin, end, version, part, number of the window)
        self._touched: set[int] = set()  # windows to which labels came
        self._released: list[int] = []
        self._expiring: list[tuple[int, int]] = []  # (bin, closed or early ledger)
        self._next = 1
        self._early: dict[int, Ledger] = {}  # labels that wait, by their bin's number
        self._n_early = 0
        self.level = 0  # of the sample, see `in_sample`
        self.discarded: Counter[Reason] = Counter()

    # Predictions ----------------------------------------------------------------------------------------------------

    def open(self, start_s: float) -> int:
        """A new pane's ledger."""
        ledger = Ledger(self._number(), int(start_s // self._terms.bin_s))
        self._ledgers[ledger.number] = ledger
        return ledger.number

    def enter(self, number: int, records: Records, rows: slice | np.ndarray) -> None:
        """Notes these predictions of a pane."""
        ledger = self._ledgers[number]
        predictions = self._predictions(records)[rows]
        waits = ~np.isnan(predictions)
        if records.labels is not None:
            beside = waits & ~np.isnan(records.labels[rows])
            ledger.n_beside += int(beside.sum())
            waits &= ~beside
        if not waits.any():
            return
        whole = isinstance(rows, slice) and rows == slice(None)
        ids = records.ids if whole else [records.ids[i] for i in np.arange(len(records))[rows].tolist()]
        if not waits.all():
            ids, predictions = [ids[i] for i in np.flatnonzero(waits).tolist()], predictions[waits]
        hashes = hash_ids(ids)
        self._make_room(len(hashes))
        if self.level:
            kept = in_sample(hashes, self.level)
            hashes, predictions = hashes[kept], predictions[kept]
        early = self._rows.find(hashes) if self._n_early else None
        self._rows.add(number, hashes, predictions)
        ledger.n += len(hashes)
        if self._log is not None:
            self._log.rows(number, hashes, predictions)
        if early is not None and len(early[0]):
            self._take_early(ledger, hashes, *early)

    def _take_early(self, ledger: Ledger, hashes: np.ndarray, asked: np.ndarray, places: np.ndarray) -> None:
        """Joins labels that were there before their predictions."""
        owners = self._rows.owners(places)
        is_early = np.array([self._ledgers[o].is_early for o in owners.tolist()], bool)
        asked, places, owners = asked[is_early], places[is_early], owners[is_early]
        if not len(asked):
            return
        labels, times_s = self._rows.labels[places].copy(), self._rows.values[places].copy()
        for owner, n in Counter(owners.tolist()).items():
            self._ledgers[owner].n -= n
        self._n_early -= len(places)
        if self._log is not None:
            self._log.gone(self._rows.hashes[places], max(self._ledgers[o].base for o in owners.tolist()))
        self._rows.remove(places)
        order = np.argsort(asked, kind="stable")
        self._join(hashes[asked[order]], labels[order], times_s[order])

    def release(self, number: int) -> None:
        """A pane takes no more predictions; where no window was judged on it, they are forgotten at `sweep`."""
        if number in self._ledgers:
            self._ledgers[number].is_held = False
            self._released.append(number)

    # Labels ---------------------------------------------------------------------------------------------------------

    def add(self, labels: Labels) -> None:
        """Joins labels that came by themselves."""
        hashes, values, times_s = hash_ids(labels.ids), labels.values, labels.times_s
        if self.level:
            kept = in_sample(hashes, self.level)
            self._count("not_sampled", len(hashes) - int(kept.sum()))
            hashes, values, times_s = hashes[kept], values[kept], times_s[kept]
        while len(hashes):
            firsts = np.unique(hashes, return_index=True)[1]
            if len(firsts) == len(hashes):
                self._join(hashes, values, times_s)
                return
            firsts.sort()  # the first of each id, then what is left, in their order
            self._join(hashes[firsts], values[firsts], times_s[firsts])
            hashes, values, times_s = (np.delete(a, firsts) for a in (hashes, values, times_s))

    def _join(self, hashes: np.ndarray, values: np.ndarray, times_s: np.ndarray) -> None:
        """Labels of distinct ids: to the predictions that are there, to labels that wait, else they wait."""
        asked, places = self._rows.find(hashes)
        unknown = np.ones(len(hashes), bool)
        unknown[asked] = False
        if len(asked):
            owners, at = np.unique(self._rows.owners(places), return_inverse=True)
            ledgers = [self._ledgers[number] for number in owners.tolist()]
            is_early = np.array([ledger.is_early for ledger in ledgers])[at]
            self._meet_early(places[is_early], values[asked[is_early]], times_s[asked[is_early]])
            rest = ~is_early
            if rest.any():
                self._meet_rows(ledgers, at[rest], places[rest], values[asked[rest]], times_s[asked[rest]])
        if unknown.any():
            self._wait(hashes[unknown], values[unknown], times_s[unknown])

    def _meet_rows(
        self, ledgers: Sequence[Ledger], at: np.ndarray, places: np.ndarray, values: np.ndarray, times_s: np.ndarray
    ) -> None:
        """Labels of predictions that are there; `at`: whose they are among the ledgers."""
        rows = self._rows
        base = np.array([ledger.base for ledger in ledgers])[at]
        numbers = (times_s // self._terms.bin_s).astype(np.int64) + 1
        bins = np.clip(numbers - base, 0, LAST_BIN)
        closed = np.array([ledger.is_closed for ledger in ledgers])[at]
        last = np.array([ledger.base + LAST_BIN if ledger.is_held else ledger.last or 0 for ledger in ledgers])[at]
        before = rows.bins[places]
        labelled = before != UNLABELLED
        same = labelled & (rows.labels[places] == values)
        late = ~labelled & (closed | (numbers > last))
        self._count("duplicate", int(same.sum()))
        self._count("contradicting", int((labelled & ~same).sum()))
        self._count("late", int(late.sum()))
        # The first label by event time is the one that holds, in whatever order they come.
        taken = ~late & ~(closed & labelled) & (bins < before)
        if not taken.any():
            return
        rows.labels[places[taken]], rows.bins[places[taken]] = values[taken], bins[taken]
        news = np.bincount(at[taken & ~labelled], minlength=len(ledgers))
        for i in np.flatnonzero(np.bincount(at[taken], minlength=len(ledgers))).tolist():
            ledgers[i].n_labelled += int(news[i])
            self._touched |= ledgers[i].windows
        if self._log is not None:
            self._log.joined(ledgers, at[taken], rows.hashes[places[taken]], values[taken], bins[taken])

    def _meet_early(self, places: np.ndarray, values: np.ndarray, times_s: np.ndarray) -> None:
        """Labels of ids whose label waits already: the first by event time stays."""
        rows = self._rows
        same = rows.labels[places] == values
        self._count("duplicate", int(same.sum()))
        self._count("contradicting", int((~same).sum()))
        taken = times_s < rows.values[places]
        if taken.any():
            rows.labels[places[taken]], rows.values[places[taken]] = values[taken], times_s[taken]
            if self._log is not None:
                expires = int(self._rows_base(places[taken]))
                self._log.moved(rows.hashes[places[taken]], values[taken], times_s[taken], expires)

    def _wait(self, hashes: np.ndarray, values: np.ndarray, times_s: np.ndarray) -> None:
        """Labels whose predictions are not there yet."""
        self._make_room(len(hashes))
        if self.level:
            kept = in_sample(hashes, self.level)
            hashes, values, times_s = hashes[kept], values[kept], times_s[kept]
        numbers = (times_s // self._terms.bin_s).astype(np.int64) + 1
        for number in np.unique(numbers).tolist():
            here = numbers == number
            ledger = self._early_ledger(number)
            self._rows.add(ledger.number, hashes[here], times_s[here], values[here])
            ledger.n += int(here.sum())
            if self._log is not None:
                self._log.early(ledger.number, hashes[here], times_s[here], values[here])
        self._n_early += len(hashes)

    # Windows --------------------------------------------------------------------------------------------------------

    def register(self, windows: Iterable[Window]) -> None:
        """Windows that were judged the first time wait for their labels, where they hold predictions."""
        for window in windows:
            ledgers = [self._ledgers[number] for number in window.ledgers if number in self._ledgers]
            if window.profile not in self._counters or not any(ledger.n + ledger.n_beside for ledger in ledgers):
                continue
            number, terms = self._number(), self._terms
            at = window.end_s / terms.bin_s
            is_edge = abs(at - round(at)) < 1e-9
            first = round(at) if is_edge else ceil(at)
            outcome = self._counters[window.profile]
            cells = outcome.cells[window.table.counts[outcome.cells] > 0]
            kept = Table(window.table.counts[cells], np.zeros(0), (), window.table.outcome)
            waiting = Waiting(replace(window, table=kept), window.ledgers, first, first + terms.wait_bins, cells, kept.counts)
            self._waiting[number] = waiting
            for ledger in ledgers:
                ledger.windows.add(number)
                ledger.last = max(waiting.last, waiting.last if ledger.last is None else ledger.last)
            heappush(self._due, self._key(waiting.last, number))
            self._touched.add(number)

    def due(self, watermark_s: float, *, finish: bool = False) -> list[tuple[float, Window]]:
        """(T, window) of those whose labels are known up to it, in the order (T, end, version, part)."""
        for number in self._touched & self._waiting.keys():
            boundary = self._boundary(self._waiting[number])
            if boundary < self._waiting[number].last:
                heappush(self._due, self._key(boundary, number))
        self._touched.clear()
        reached = -inf if watermark_s == -inf else watermark_s // self._terms.bin_s
        found = []
        while self._due and (self._due[0][0] <= reached or finish):
            boundary, *_, number = heappop(self._due)
            if number not in self._waiting:
                continue
            now = self._boundary(self._waiting[number])
            if now > boundary:  # a smaller sample of its predictions is left since
                heappush(self._due, self._key(now, number))
            else:
                window = self._judged(number, self._waiting.pop(number), boundary, boundary > reached)
                found.append((boundary * self._terms.bin_s, window))
        self._sweep(reached)
        return found

    def _key(self, boundary: int, number: int) -> tuple[int, float, str, int, int]:
        window = self._waiting[number].window
        return boundary, window.end_s, window.stream.version, window.part, number

    def _boundary(self, waiting: Waiting) -> int:
        """The number of the bin at whose beginning T lies."""
        ledgers = [self._ledgers[number] for number in waiting.ledgers if number in self._ledgers]
        n_beside = sum(ledger.n_beside for ledger in ledgers)
        needed = ceil(self._terms.complete * (n_beside + sum(ledger.n for ledger in ledgers)) - 1e-9) - n_beside
        if needed <= 0:
            return waiting.first
        if sum(ledger.n_labelled for ledger in ledgers) < needed:
            return waiting.last
        numbers = np.concatenate([self._numbers(ledger)[1] for ledger in ledgers])
        return int(min(max(np.partition(numbers, needed - 1)[needed - 1], waiting.first), waiting.last))

    def _numbers(self, ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
        """(places, numbers of the bins) of the rows that have their label."""
        places = self._rows.places(ledger.number)
        places = places[self._rows.bins[places] != UNLABELLED]
        return places, self._rows.bins[places].astype(np.int64) + ledger.base

    def _judged(self, number: int, waiting: Waiting, boundary: int, cut_short: bool) -> Window:
        """The window as its second judgement sees it."""
        window, ledgers = waiting.window, [self._ledgers[n] for n in waiting.ledgers if n in self._ledgers]
        counter = self._counters[window.profile]
        table = counter.empty()
        table.counts[waiting.cells] = waiting.counts
        table.outcome += window.table.outcome
        chosen = [np.empty(0, np.intp)]
        for ledger in ledgers:
            places, numbers = self._numbers(ledger)
            chosen.append(places[numbers <= boundary])
            ledger.windows.discard(number)
        places = np.concatenate(chosen)
        places = places[np.argsort(self._rows.hashes[places], kind="stable")]  # sums do not depend on who came first
        counter.count(table, self._rows.values[places], self._rows.labels[places])
        n_labels = len(places) + sum(ledger.n_beside for ledger in ledgers)
        for ledger in ledgers:
            if ledger.is_closed:
                heappush(self._expiring, (ledger.last or 0, ledger.number))
        if self._log is not None:
            self._log.judged(number)
        return replace(
            window, table=table, n_labels=n_labels, partial=window.partial or cut_short, revision=1, ledgers=()
        )

    # What goes ------------------------------------------------------------------------------------------------------

    def _sweep(self, reached: float) -> None:
        """Forgets what no label can come for any more, and labels for which no prediction came."""
        for number in self._released:
            ledger = self._ledgers.get(number)
            if ledger is not None and ledger.last is None:  # no window was judged on it: it is another's now
                self._free(ledger)
            elif ledger is not None and ledger.is_closed:
                heappush(self._expiring, (ledger.last or 0, number))
        self._released.clear()
        while self._expiring and self._expiring[0][0] <= reached:
            ledger = self._ledgers.get(heappop(self._expiring)[1])
            if ledger is not None and ledger.is_early:
                self._count("orphan", ledger.n)
                self._n_early -= ledger.n
                del self._early[ledger.base]
            if ledger is not None:
                self._free(ledger)

    def _free(self, ledger: Ledger) -> None:
        self._rows.free(ledger.number)
        del self._ledgers[ledger.number]
        if self._log is not None:
            self._log.freed(ledger.number)

    def _make_room(self, n: int) -> None:
        """Lets go of rows until `n` more are within bounds: first of judged windows', then by a smaller sample."""
        rows, most = self._rows, self._rows.most
        if rows.n + n <= most:
            return
        judged = sorted(item for item in self._expiring if not self._ledgers[item[1]].is_early)
        for item in judged:
            if rows.n + n <= most - most // 8:
                break
            self._expiring.remove(item)
            self._free(self._ledgers[item[1]])
        heapify(self._expiring)
        while rows.n and rows.n + n > most and self.level < MOST_LEVEL:
            self.level += 1
            rows.thin(self.level)
        for ledger in self._ledgers.values():
            places = rows.places(ledger.number)
            ledger.n, ledger.n_labelled = len(places), int((rows.bins[places] != UNLABELLED).sum())
        self._n_early = sum(ledger.n for ledger in self._early.values())
        self._touched |= self._waiting.keys()

    def _early_ledger(self, number: int) -> Ledger:
        """The labels of one bin that wait; they are given up once the wait is over."""
        ledger = self._early.get(number)
        if ledger is None:
            ledger = self._early[number] = Ledger(self._number(), number, is_early=True)
            self._ledgers[ledger.number] = ledger
            heappush(self._expiring, (number + self._terms.wait_bins, ledger.number))
        return ledger

    def _rows_base(self, places: np.ndarray) -> int:
        """The latest bin among labels that wait."""
        return max(self._ledgers[o].base for o in set(self._rows.owners(places).tolist()))

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def count_invalid(self, n: int) -> None:
        """So many values stood at a label's place and are none."""
        self._count("invalid", n)

    def _count(self, reason: Reason, n: int) -> None:
        if n:
            self.discarded[reason] += n

"""Late labels: joined to their predictions by id, and the windows that wait to be judged on them.

What a window is judged on depends on event times alone. Event time is cut into bins at boundaries (every slide); T is
the first boundary, not before the window's end, before which enough of its predictions have their label; at most `wait`
after the end. Of its labels those that came before T are used. It is judged when the labels' watermark has passed T.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from math import ceil, inf, isfinite

import numpy as np

from driftwatch import realised
from driftwatch.answered import Answered
from driftwatch.early_labels import EarlyLabels
from driftwatch.id_hash import has_twins, hash_ids
from driftwatch.label_log import LabelLog
from driftwatch.ledger import NO_TABLE, LabelTerms, Ledger, Reason, Waiting, coded
from driftwatch.loss_rows import LossRows
from driftwatch.outcomes import OutcomeCounter, Predictions
from driftwatch.pending import UNLABELLED, Pending, in_sample, is_first
from driftwatch.records import LEARNING, NO_PROFILE, Labels, Records, Schema, Window

MOST_LEVEL = 40
FAR = 1 << 62  # the number of a bin after all


class LabelBook:
    """Joins labels to predictions. `counters`: of every profile that a window may be counted on, by content hash.

    `log` notes what changes, to be stored; None where nothing is.
    """

    def __init__(
        self, terms: LabelTerms, schema: Schema, counters: dict[str, OutcomeCounter], log: LabelLog | None = None
    ) -> None:
        self.terms, self.counters, self.log = terms, counters, log
        self._predictions = Predictions(schema)
        self.is_numeric = schema.label is not None and schema.label.kind == "numeric"
        self.kinds = ("", "") if schema.label is None else (schema.label.kind, schema.label.judged_as or "")
        self.rows = Pending(terms.max_pending, few_labels=not self.is_numeric)
        self.beside = LossRows(terms.max_pending)
        self.ledgers: dict[int, Ledger] = {}
        self.waiting: dict[int, Waiting] = {}
        self.due_at: list[tuple[int, float, str, int, int]] = []  # (bin, end, version, part, number of the window)
        self.touched: set[int] = set()  # windows to which labels came
        self._released: list[int] = []
        self.expiring: list[tuple[int, int]] = []  # (bin, closed or early ledger)
        self.next_number = 1
        self.early = EarlyLabels(self)
        self._answered: Answered | None = None  # once labels come by themselves
        self.level = 0  # of the sample, see `in_sample`
        self.discarded: Counter[Reason] = Counter()
        self.reached = -inf  # the bin that the watermark has come to
        self.changed: set[int] = set()  # ledgers, since they were stored
        self.new_windows: set[int] = set()
        self.outgrown: list[tuple[float, Window]] = []
        self._boundaries: dict[int, int] = {}  # T of windows that have labels enough
        self._earliest = FAR  # the first bin of the labels that were joined since `due`

    # Predictions ----------------------------------------------------------------------------------------------------

    def open(self, start_s: float, profile: str) -> int:
        """A new pane's ledger; none where nothing is judged."""
        if profile in (NO_PROFILE, LEARNING):
            return 0
        number = self._number()
        self.ledgers[number] = Ledger(number, int(start_s // self.terms.bin_s), profile=profile)
        self.changed.add(number)
        return number

    def enter(self, number: int, records: Records, rows: slice | np.ndarray) -> None:
        """Notes these predictions of a pane; number 0: of none."""
        if (ledger := self.ledgers.get(number)) is None:  # it was kept on other terms
            if not number:
                return
            ledger = self.ledgers[number] = Ledger(number, int(records.times_s[rows].min() // self.terms.bin_s))
            self.changed.add(number)
        predictions = self._predictions(records)[rows]
        since_s = (records.times_s[rows] - ledger.base * self.terms.bin_s).astype(np.float32)
        waits = ~np.isnan(predictions)
        if records.labels is not None:
            beside = waits & ~np.isnan(records.labels[rows])
            self.changed.add(number)
            self._enter_beside(ledger, predictions[beside], records.labels[rows][beside], since_s[beside])
            if self._answered is not None and beside.any():
                hashes, labels = hash_ids(self._ids(records, rows, beside)), records.labels[rows][beside]
                self._answered.add(hashes, labels)
                if self.early.n:
                    self.early.tell(hashes, labels)
            waits &= ~beside
        if not waits.any():
            return
        ids = self._ids(records, rows, waits)
        if not waits.all():
            predictions, since_s = predictions[waits], since_s[waits]
        hashes, predictions, since_s = self._fitting(hash_ids(ids), predictions, since_s)
        early = self.early.take(hashes, self._own_bins(ledger.base, since_s)) if self.early.n else None
        self.rows.add(number, hashes, predictions, since_s=since_s)
        ledger.n += len(hashes)
        if self.log is not None:
            self.log.rows(number, hashes, predictions, since_s)
        if early is not None:
            self._join(*early)

    def _ids(self, records: Records, rows: slice | np.ndarray, chosen: np.ndarray) -> list[str]:
        """The ids of the rows chosen among `rows`."""
        whole = isinstance(rows, slice) and rows == slice(None)
        ids = records.ids if whole else [records.ids[i] for i in np.arange(len(records))[rows].tolist()]
        return ids if chosen.all() else [ids[i] for i in np.flatnonzero(chosen).tolist()]

    def _own_bins(self, base: np.ndarray | int, since_s: np.ndarray) -> np.ndarray:
        """The bins that predictions lie in: of a count window's pane more than one."""
        return np.asarray(base + np.floor(since_s / self.terms.bin_s).astype(np.int64))

    def _enter_beside(self, ledger: Ledger, predictions: np.ndarray, labels: np.ndarray, since_s: np.ndarray) -> None:
        """Notes rows that have their label."""
        ledger.n_beside += len(labels)
        counter = self.counters.get(ledger.profile)
        if len(labels) and counter is not None and counter.baseline is not None:
            self.beside.add(ledger.number, counter.losses(predictions, labels), since_s, self.log)

    def release(self, number: int) -> None:
        """A pane takes no more predictions; where no window was judged on it, they are forgotten at `sweep`."""
        if number in self.ledgers:
            self.ledgers[number].is_held = False
            self._released.append(number)
            self.changed.add(number)

    # Labels ---------------------------------------------------------------------------------------------------------

    def expect(self) -> None:
        """Labels come by themselves: what stands beside predictions is remembered from now on, to tell repeats by."""
        if self._answered is None:
            self._answered = Answered(self.terms.max_pending)

    def add(self, labels: Labels) -> None:
        """Joins labels that came by themselves."""
        self.expect()
        hashes, values = hash_ids(labels.ids), labels.values
        moments = (labels.times_s // self.terms.tick_s).astype(np.int64)
        if self.level:
            kept = in_sample(hashes, self.level)
            self.count("not_sampled", len(hashes) - int(kept.sum()))
            hashes, values, moments = hashes[kept], values[kept], moments[kept]
        if not has_twins(hashes):
            self._join(hashes, values, moments)
            return
        while len(hashes):
            firsts = np.unique(hashes, return_index=True)[1]
            firsts.sort()  # the first of each id, then what is left, in their order
            self._join(hashes[firsts], values[firsts], moments[firsts])
            hashes, values, moments = (np.delete(a, firsts) for a in (hashes, values, moments))

    def _join(self, hashes: np.ndarray, values: np.ndarray, moments: np.ndarray) -> None:
        """Labels of distinct ids: to the predictions that are there, to labels that wait, else they wait."""
        asked, places = self.rows.find(hashes)
        unknown = np.ones(len(hashes), bool)
        if len(asked):
            owners, at = self.rows.by_owner(places)
            ledgers = [self.ledgers[number] for number in owners]
            is_early = np.array([ledger.is_early for ledger in ledgers])[at]
            rest = ~is_early
            if rest.any():
                unknown[asked[rest]] = False
                self._meet_rows(ledgers, at[rest], places[rest], values[asked[rest]], moments[asked[rest]])
            if is_early.any():
                unknown[self.early.meet(asked[is_early], places[is_early], values, moments)] = False
        if unknown.any():
            self._wait(hashes[unknown], values[unknown], moments[unknown])

    def _meet_rows(
        self, ledgers: Sequence[Ledger], at: np.ndarray, places: np.ndarray, values: np.ndarray, moments: np.ndarray
    ) -> None:
        """Labels of predictions that are there; `at`: whose they are among the ledgers."""
        rows = self.rows
        base = np.array([ledger.base for ledger in ledgers])[at]
        ticks, numbers = self.terms.ticks(moments, base), moments // self.terms.bin_ticks + 1
        values = coded(values, rows.values[places], is_numeric=self.is_numeric)
        closed = np.array([ledger.is_closed for ledger in ledgers])[at]
        last = np.array([FAR if ledger.is_held or ledger.last is None else ledger.last for ledger in ledgers])[at]
        before = rows.ticks[places]
        old = self._own_bins(base, rows.since_s[places]) >= numbers + self.terms.wait_bins
        labelled = (before != UNLABELLED) & ~old
        same = labelled & (rows.labels[places] == values)
        late = ~labelled & ~old & (closed | (numbers > last))
        self.count("orphan", int(old.sum()))
        self.count("duplicate", int(same.sum()))
        self.count("contradicting", int((labelled & ~same).sum()))
        self.count("late", int(late.sum()))
        # The first label by event time is the one that holds, in whatever order they come.
        taken = ~old & ~late & ~(closed & labelled) & is_first(ticks, before)
        if not taken.any():
            return
        rows.labels[places[taken]], rows.ticks[places[taken]] = values[taken], ticks[taken]
        news = np.bincount(at[taken & ~labelled], minlength=len(ledgers))
        for i in np.flatnonzero(np.bincount(at[taken], minlength=len(ledgers))).tolist():
            ledgers[i].n_labelled += int(news[i])
            self.touched |= ledgers[i].windows
        self._earliest = min(self._earliest, int(numbers[taken].min()))
        if self.log is not None:
            columns = rows.hashes[places[taken]], values[taken], ticks[taken]
            self.log.joined(ledgers, at[taken], columns, self.terms.wait_bins)

    def _wait(self, hashes: np.ndarray, values: np.ndarray, moments: np.ndarray) -> None:
        """Labels whose predictions are not there yet, or had theirs beside them."""
        is_told = np.zeros(len(hashes), bool)
        if self._answered is not None:
            is_told, labels = self._answered.find(hashes)
            same = labels == values[is_told]
            self.count("duplicate", int(same.sum()))
            self.count("contradicting", int((~same).sum()))
        self.early.wait(*self._fitting(hashes, values, moments, is_told))

    # Windows --------------------------------------------------------------------------------------------------------

    def register(self, windows: Iterable[Window]) -> None:
        """Windows that were judged the first time wait for their labels, where they hold predictions."""
        for window in windows:
            ledgers = [self.ledgers[number] for number in window.ledgers if number in self.ledgers]
            if window.profile not in self.counters or not any(ledger.n + ledger.n_beside for ledger in ledgers):
                continue
            number, terms = self._number(), self.terms
            first = ceil(window.end_s / terms.bin_s - 1e-9)
            kept = self.counters[window.profile].keep(window.table)
            waiting = Waiting(replace(window, table=NO_TABLE), window.ledgers, first, first + terms.wait_bins, kept)
            self.waiting[number] = waiting
            self.new_windows.add(number)
            for ledger in ledgers:
                ledger.windows.add(number)
                ledger.last = max(waiting.last, waiting.last if ledger.last is None else ledger.last)
                self.changed.add(ledger.number)
            heappush(self.due_at, self.key(waiting.last, number))
            self.touched.add(number)

    def due(self, watermark_s: float, *, finish: bool = False) -> list[tuple[float, Window]]:
        """(T, window) of those whose labels are known up to it, in the order (T, end, version, part)."""
        for number in self.touched & self.waiting.keys():
            known = self._boundaries.get(number)
            if known is not None and known <= self._earliest:
                continue  # what has come since was not before its T
            boundary = self._boundary(self.waiting[number])
            if boundary < self.waiting[number].last:
                self._boundaries[number] = boundary
                heappush(self.due_at, self.key(boundary, number))
        self.touched.clear()
        self._earliest = FAR
        reached = self.reached = self.bin_of(watermark_s)
        found, self.outgrown = self.outgrown, []
        while self.due_at and (self.due_at[0][0] <= reached or finish):
            boundary, *_, number = heappop(self.due_at)
            if number not in self.waiting:
                continue
            if (now := self._boundary(self.waiting[number])) > boundary:  # a smaller sample of it is left since
                heappush(self.due_at, self.key(now, number))
            else:
                window = self._judged(number, self.waiting.pop(number), boundary, boundary > reached)
                found.append((boundary * self.terms.bin_s, window))
        self._sweep(reached)
        return found

    def bin_of(self, watermark_s: float) -> float:
        """The number of the bin that the watermark has come to."""
        return watermark_s // self.terms.bin_s if isfinite(watermark_s) else watermark_s

    def key(self, boundary: int, number: int) -> tuple[int, float, str, int, int]:
        """The place of a window among those that are due at a boundary."""
        window = self.waiting[number].window
        return boundary, window.end_s, window.stream.version, window.part, number

    def _boundary(self, waiting: Waiting) -> int:
        """The number of the bin at whose beginning T lies."""
        ledgers = [self.ledgers[number] for number in waiting.ledgers if number in self.ledgers]
        n_beside = sum(ledger.n_beside for ledger in ledgers)
        needed = ceil(self.terms.complete * (n_beside + sum(ledger.n for ledger in ledgers)) - 1e-9) - n_beside
        if needed <= 0:
            return waiting.first
        if sum(ledger.n_labelled for ledger in ledgers) < needed:
            return waiting.last
        numbers = np.concatenate([realised.labelled(self, ledger)[1] for ledger in ledgers])
        return int(min(max(np.partition(numbers, needed - 1)[needed - 1], waiting.first), waiting.last))

    def _judged(self, number: int, waiting: Waiting, boundary: int, cut_short: bool) -> Window:
        """The window as its second judgement sees it."""
        closed = []
        for n in waiting.ledgers:
            if (ledger := self.ledgers.get(n)) is not None:
                ledger.windows.discard(number)
                if ledger.is_closed:
                    closed.append(ledger)
                    heappush(self.expiring, (self.expires(ledger), ledger.number))
        window = realised.counted(self, waiting, boundary)
        if (losses := realised.losses(self, window, closed, boundary)) is not None:
            self.count("no_loss", int(np.isnan(losses.values).sum()))
        self._boundaries.pop(number, None)
        if self.log is not None:
            self.log.judged(number)
            self.log.settled(ledger.number for ledger in closed if ledger.n_beside)
        return replace(window, partial=cut_short or window.partial, losses=losses)

    # What goes ------------------------------------------------------------------------------------------------------

    def _sweep(self, reached: float) -> None:
        """Forgets what no label can come for any more, and labels for which no prediction came."""
        for number in self._released:
            ledger = self.ledgers.get(number)
            if ledger is not None and ledger.last is None:  # no window was judged on it: it is another's now
                self.free(ledger)
            elif ledger is not None and ledger.is_closed:
                heappush(self.expiring, (self.expires(ledger), number))
        self._released.clear()
        while self.expiring and self.expiring[0][0] <= reached:
            if (ledger := self.ledgers.get(heappop(self.expiring)[1])) is None:
                continue
            if ledger.is_early:
                self.early.give_up(ledger)
            self.free(ledger)

    def expires(self, ledger: Ledger) -> int:
        """The bin at which a closed ledger goes: until then labels of it are told to be late, not to be strangers'."""
        return (ledger.last or 0) + self.terms.wait_bins

    def free(self, ledger: Ledger) -> None:
        """A ledger and its rows are gone."""
        self.rows.free(ledger.number)
        self.beside.take(ledger.number)
        del self.ledgers[ledger.number]
        if self.log is not None:
            self.log.freed(ledger.number)

    def _fitting(self, hashes: np.ndarray, *columns: np.ndarray) -> tuple[np.ndarray, ...]:
        """The rows that may come in, once there is room: all, or the sample's."""
        self._make_room(len(hashes))
        if not self.level:
            return hashes, *columns
        kept = in_sample(hashes, self.level)
        return hashes[kept], *(column[kept] for column in columns)

    def _make_room(self, n: int) -> None:
        """Lets go of rows until `n` more are within bounds: first of judged windows', then by a smaller sample."""
        rows, most = self.rows, self.rows.most
        if rows.n + n <= most:
            return
        known = {item for item in self.expiring if item[1] in self.ledgers}  # a ledger may stand there twice
        for _, number in sorted(item for item in known if not self.ledgers[item[1]].is_early):
            if rows.n + n <= most - most // 8:
                break
            self.free(self.ledgers[number])
        self.expiring = [item for item in known if item[1] in self.ledgers]
        heapify(self.expiring)
        while rows.n and rows.n + n > most and self.level < MOST_LEVEL:
            self.level += 1
            rows.thin(self.level)
        for ledger in self.ledgers.values():
            ledger.n, ledger.n_labelled = rows.counts(ledger.number)
        self.early.recount()
        self.touched |= self.waiting.keys()
        self._boundaries.clear()

    def open_early(self, number: int) -> Ledger:
        """The ledger of the labels of one bin that wait; they are given up once the wait is over."""
        ledger = Ledger(self._number(), number, is_early=True)
        self.ledgers[ledger.number] = ledger
        self.changed.add(ledger.number)
        heappush(self.expiring, (number + self.terms.wait_bins, ledger.number))
        return ledger

    def _number(self) -> int:
        self.next_number += 1
        return self.next_number - 1

    def count(self, reason: Reason, n: int) -> None:
        """So many labels are not used, or no loss is told of them."""
        if n:
            self.discarded[reason] += n

"""Labels that came before their predictions: each waits, in the bin of its own event time, as long as one may come.

A prediction takes the first label of its id, by event time, that is not older than itself by more than the wait,
counted in bins. A label is given up once the labels' watermark has passed its bin by the wait: what is still to come
then is too young for it, unless it is late itself. So how soon that is done, after how many messages, changes nothing
of what is used.
"""

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from driftwatch.label_log import LabelLog
from driftwatch.ledger import LabelTerms, Ledger, Reason
from driftwatch.pending import Pending

FEW = 64  # bins whose labels are looked through rather than asked for
TOLD = 1.0  # in place of an event time: the label was counted for what it is, and is no orphan


class Book(Protocol):
    """What the book of labels knows of rows."""

    terms: LabelTerms
    rows: Pending
    ledgers: dict[int, Ledger]
    log: LabelLog | None

    def open_early(self, number: int) -> Ledger: ...

    def count(self, reason: Reason, n: int) -> None: ...


class EarlyLabels:
    """Those of a book. `of_bin`: their ledgers by their bin's number; `n`: how many wait."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self.of_bin: dict[int, Ledger] = {}
        self.n = 0

    def restore(self, ledgers: Iterable[Ledger]) -> None:
        """Goes back to those among these ledgers, once their rows are counted."""
        self.of_bin = {ledger.base: ledger for ledger in ledgers if ledger.is_early}
        self.recount()

    def recount(self) -> None:
        """After rows were let go of."""
        self.n = sum(ledger.n for ledger in self.of_bin.values())

    def wait(self, hashes: np.ndarray, values: np.ndarray, moments: np.ndarray, is_told: np.ndarray) -> None:
        """Labels whose predictions are not there yet; whether each was counted already."""
        book = self._book
        numbers = moments // book.terms.bin_ticks + 1
        for number in np.unique(numbers).tolist():
            here = numbers == number
            ledger = self.of_bin.get(number)
            if ledger is None:
                ledger = self.of_bin[number] = book.open_early(number)
            ticks = book.terms.ticks(moments[here], ledger.base)
            told = np.where(is_told[here], np.float32(TOLD), np.float32(0))
            book.rows.add(ledger.number, hashes[here], values[here], ticks, since_s=told)
            ledger.n += int(here.sum())
            if book.log is not None:
                book.log.early(ledger.number, hashes[here], values[here], ticks)
        self.n += len(hashes)

    def take(self, hashes: np.ndarray, own_bins: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The labels (hash, label, moment) of predictions that lie in these bins; others of their ids wait no more."""
        asked, places = self._find(hashes)
        if not len(places):
            return None
        places, first = np.unique(places, return_index=True)
        bases, moments = self._when(places)
        old = own_bins[asked[first]] >= bases + self._book.terms.wait_bins
        theirs = self._book.rows.hashes[places]
        order = np.lexsort((moments, old, theirs))
        places, moments, old, theirs = places[order], moments[order], old[order], theirs[order]
        labels = self._book.rows.values[places]
        leads = np.append(True, theirs[1:] != theirs[:-1])
        same = labels == labels[leads][np.cumsum(leads) - 1]
        news = self._book.rows.since_s[places] != TOLD
        self._book.count("orphan", int((news & old).sum()))
        self._repeats(same[news & ~old & ~leads])
        self._remove(places)
        taken = leads & ~old
        return theirs[taken], labels[taken], moments[taken]

    def meet(self, asked: np.ndarray, places: np.ndarray, values: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """Which labels need not wait, since an earlier one of their id and bin does at one of these places.

        `asked`: whose label each place may be.
        """
        bases, theirs = self._when(places)
        of_bin = moments[asked] // self._book.terms.bin_ticks + 1 == bases
        before = of_bin & (theirs <= moments[asked])
        needless, first = np.unique(asked[before], return_index=True)
        self._repeats(values[needless] == self._book.rows.values[places[before][first]])
        return needless

    def tell(self, hashes: np.ndarray, labels: np.ndarray) -> None:
        """Labels that stood beside their predictions: of the same ids none is an orphan."""
        rows = self._book.rows
        asked, places = self._find(hashes)
        news = rows.since_s[places] != TOLD
        asked, places = asked[news], places[news]
        self._repeats(rows.values[places] == labels[asked])
        rows.since_s[places] = TOLD

    def give_up(self, ledger: Ledger) -> None:
        """No prediction came for those of a bin."""
        places = self._book.rows.places(ledger.number)
        self._book.count("orphan", int((self._book.rows.since_s[places] != TOLD).sum()))
        self.n -= ledger.n
        del self.of_bin[ledger.base]

    def _find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(which of the hashes, place of a label that waits for it)."""
        rows, numbers = self._book.rows, {ledger.number for ledger in self.of_bin.values()}
        if self.n <= len(hashes) and len(numbers) <= FEW:
            return rows.find_of(numbers, hashes)
        asked, places = rows.find(hashes)
        is_early = np.isin(rows.owners(places), list(numbers))
        return asked[is_early], places[is_early]

    def _when(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the bins of labels that wait, and their moments."""
        rows, ledgers = self._book.rows, self._book.ledgers
        bases = np.array([ledgers[owner].base for owner in rows.owners(places).tolist()], np.int64)
        return bases, self._book.terms.moments(rows.ticks[places], bases)

    def _repeats(self, same: np.ndarray) -> None:
        """Further labels of one id; whether each is equal to the one that holds."""
        n_same = int(same.sum())
        self._book.count("duplicate", n_same)
        self._book.count("contradicting", len(same) - n_same)

    def _remove(self, places: np.ndarray) -> None:
        """These wait no more."""
        book, bases = self._book, []
        owners, at = book.rows.by_owner(places)
        for owner, n in zip(owners, np.bincount(at).tolist(), strict=True):
            book.ledgers[owner].n -= n
            bases.append(book.ledgers[owner].base)
        self.n -= len(places)
        if book.log is not None:
            book.log.gone(np.unique(book.rows.hashes[places]), max(bases) + book.terms.wait_bins)
        book.rows.remove(places)

"""The book of labels as the store keeps it, and back."""

from dataclasses import replace
from heapq import heapify, heappush
from math import inf

import msgspec
import numpy as np

from driftwatch.errors import StateError
from driftwatch.label_log import Entry, Kind, LabelChanges, LabelState, unpacked
from driftwatch.labels import LabelBook
from driftwatch.ledger import LabelTerms, Ledger, Waiting
from driftwatch.pending import in_sample, is_first

_NEVER = -(1 << 62)
_book = msgspec.msgpack.Decoder(tuple[int, int, float, float, int, tuple[str, str]])


def changes(book: LabelBook) -> LabelChanges | None:
    """What to store since the last call; None where nothing is stored."""
    log = book.log
    if log is None:
        return None
    found = LabelChanges(
        ledgers={n: book.ledgers[n].to_bytes() for n in sorted(book.changed & book.ledgers.keys())},
        freed=log.freed_ledgers,
        entries=[entry for entry in log.entries if not entry.ledger or entry.ledger in book.ledgers],
        windows={
            n: (book.waiting[n].window.profile, book.waiting[n].to_bytes())
            for n in sorted(book.new_windows & book.waiting.keys())
        },
        judged=log.judged_windows,
        settled=log.settled_ledgers,
        reached=_NEVER if book.reached == -inf else int(book.reached),
        book=msgspec.msgpack.encode(
            (book.next_number, book.level, book.terms.bin_s, book.terms.wait_s, book.beside.level, book.kinds)
        ),
    )
    book.changed.clear()
    book.new_windows.clear()
    log.clear()
    return found


def restore(book: LabelBook, state: LabelState) -> None:
    """Goes back to what was stored, before anything else. Raises StateError.

    Where windows or the wait are others now, windows that wait for labels are judged on those that are there, and
    what is awaited begins anew.
    """
    if state.book is None:
        return
    try:
        book.next_number, book.level, bin_s, wait_s, book.beside.level, kinds = _book.decode(state.book)
        if kinds != book.kinds:
            raise StateError(
                f"`events.label` must be of the kind with which `state.path` was written; got {in_words(book.kinds)} "
                f"where what waits there is {in_words(kinds)}. Go back to it, or begin with another file."
            )
        book.ledgers = {n: Ledger.from_bytes(n, data) for n, data in state.ledgers.items()}
        book.waiting = {n: Waiting.from_bytes(data) for n, (_, data) in state.windows.items()}
        for entry in state.entries:
            _apply(book, entry)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StateError(f"`state.path` holds labels that cannot be read: {error}. Begin with another file.") from error
    for ledger in book.ledgers.values():
        ledger.n, ledger.n_labelled = book.rows.counts(ledger.number)
    for number, waiting in book.waiting.items():
        heappush(book.due_at, book.key(waiting.last, number))
        for n in waiting.ledgers:
            if n in book.ledgers:
                book.ledgers[n].windows.add(number)
    for ledger in book.ledgers.values():
        if ledger.n_beside and not ledger.is_closed:
            book.beside.resume(ledger.number, ledger.n_beside)
    book.touched |= book.waiting.keys()
    book.early.restore(book.ledgers.values())
    book.expiring = [(base + book.terms.wait_bins, ledger.number) for base, ledger in book.early.of_bin.items()]
    done = [w for w in book.ledgers.values() if not (w.is_early or w.is_held or w.windows)]
    book.expiring += [(book.expires(w), w.number) for w in done]
    heapify(book.expiring)
    if (bin_s, wait_s) != (book.terms.bin_s, book.terms.wait_s):
        _outgrow(book, replace(book.terms, bin_s=bin_s, wait_s=wait_s))


def in_words(kinds: tuple[str, str]) -> str:
    """The kind of a label, and how predictions are held against it."""
    label, judged_as = kinds
    return f"a {label} label" + (f", its prediction a {judged_as}" if judged_as else " with no loss")


def _outgrow(book: LabelBook, stored: LabelTerms) -> None:
    """What was kept on other terms is settled on those; what is still awaited is forgotten."""
    now, book.terms = book.terms, stored
    book.outgrown = [(w.end_s, replace(w, partial=True)) for _, w in book.due(-inf, finish=True)]
    for ledger in list(book.ledgers.values()):
        book.free(ledger)
    book.early.restore(())
    book.expiring, book.terms = [], now


def _apply(book: LabelBook, entry: Entry) -> None:
    """Does once more what an entry says was done."""
    if entry.kind == Kind.BESIDE:
        if entry.ledger in book.ledgers:
            losses, since_s, (first, level) = unpacked(entry.body)
            book.beside.restore(entry.ledger, losses, since_s, int(first), int(level))
        return
    rows, (hashes, *columns) = book.rows, unpacked(entry.body)
    if entry.kind in (Kind.ROWS, Kind.EARLY):
        if entry.ledger in book.ledgers:
            kept = in_sample(hashes, book.level)
            values, last = (column[kept] for column in columns)
            if entry.kind == Kind.EARLY:
                rows.add(entry.ledger, hashes[kept], values, last, since_s=np.zeros(len(last), np.float32))
            else:
                rows.add(entry.ledger, hashes[kept], values, since_s=last)
        return
    asked, places = rows.find(hashes)
    owners = rows.owners(places)
    if entry.kind == Kind.GONE:
        is_early = np.array([book.ledgers[owner].is_early for owner in owners.tolist()], bool)
        rows.remove(places[is_early])
        return
    here = owners == (entry.ledger or columns[2][asked])  # an id may have come again in another pane
    places, labels, ticks = places[here], columns[0][asked[here]], columns[1][asked[here]]
    taken = is_first(ticks, rows.ticks[places])
    rows.labels[places[taken]], rows.ticks[places[taken]] = labels[taken], ticks[taken]

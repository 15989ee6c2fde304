"""A window as its second judgement sees it: counted on the labels that came before its boundary, its losses in order.

The order of losses is a function of the data: by event time, then by shard, then as the shard has them. Where windows
overlap, a row is told once, with the last of its windows to be judged.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from driftwatch.ledger import LabelTerms, Ledger, Waiting, decoded
from driftwatch.loss_rows import LossRows
from driftwatch.outcomes import OutcomeCounter
from driftwatch.pending import UNLABELLED, Pending
from driftwatch.records import Losses, Window


class Joined(Protocol):
    """What the book of labels knows of rows."""

    terms: LabelTerms
    counters: dict[str, OutcomeCounter]
    rows: Pending
    beside: LossRows
    ledgers: dict[int, Ledger]
    is_numeric: bool


def labelled(book: Joined, ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    """(places, numbers of the bins) of the rows that have their label."""
    places = book.rows.places(ledger.number)
    places = places[book.rows.ticks[places] != UNLABELLED]
    return places, book.terms.moments(book.rows.ticks[places], ledger.base) // book.terms.bin_ticks + 1


def known(book: Joined, ledger: Ledger, boundary: int) -> np.ndarray:
    """The places of the rows whose label came before a boundary."""
    places, numbers = labelled(book, ledger)
    return places[numbers <= boundary]


def counted(book: Joined, waiting: Waiting, boundary: int) -> Window:
    """The window with those of its labels that are there and came before a boundary."""
    window, ledgers = waiting.window, [book.ledgers[n] for n in waiting.ledgers if n in book.ledgers]
    table = (counter := book.counters[window.profile]).restored(waiting.kept)
    places = np.concatenate([np.empty(0, np.intp), *(known(book, ledger, boundary) for ledger in ledgers)])
    places = places[np.argsort(book.rows.hashes[places])]  # sums do not depend on who came first
    counter.count(table, *sides(book, places))
    n_labels = len(places) + sum(ledger.n_beside for ledger in ledgers)
    return replace(window, table=table, n_labels=n_labels, revision=1, ledgers=())


def losses(book: Joined, window: Window, closed: Sequence[Ledger], boundary: int) -> Losses | None:
    """The losses of ledgers that no other window waits for; those beside their predictions are forgotten."""
    counter, found, times_s = book.counters[window.profile], [np.empty(0, np.float32)], [np.empty(0)]
    if counter.baseline is None:
        return None
    for ledger in closed:
        places = known(book, ledger, boundary)
        beside, since_s = book.beside.take(ledger.number)
        found += [counter.losses(*sides(book, places)), beside]
        since_s = np.concatenate([book.rows.since_s[places], since_s])
        times_s.append(ledger.base * book.terms.bin_s + since_s.astype(np.float64))
    times = np.concatenate(times_s)
    order = np.argsort(times, kind="stable")
    return Losses(np.concatenate(found)[order].astype(np.float64), times[order])


def sides(book: Joined, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What was predicted of some rows, and their labels."""
    predictions = book.rows.values[places]
    return predictions, decoded(book.rows.labels[places], predictions, is_numeric=book.is_numeric)

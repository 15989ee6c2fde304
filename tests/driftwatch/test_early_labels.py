"""Labels that come before their predictions, or beside which there was another: what each is counted for."""

from typing import Any

import numpy as np
import pytest
from test_labels import a_book, a_window, judged, labels_of, records, restarted

from driftwatch.answered import Answered
from driftwatch.label_log import LabelLog
from driftwatch.labels import LabelBook

EARLIER = [("a", 12.0, 1.0), ("b", 13.0, 1.0), ("c", 11.0, 1.0), ("stranger", 14.0, 1.0)]


def enter(book: LabelBook, index: int, ids: list[str], labels: list[float] | None = None) -> int:
    ledger = book.open(index * 10.0, "p")
    book.enter(ledger, records(ids, labels, [index * 10.0] * len(ids)), slice(None))
    return ledger


@pytest.mark.parametrize("comes_first", [False, True])
def test_another_label_of_a_prediction_that_had_its_own_is_no_orphan(comes_first: bool) -> None:
    book = a_book()
    if comes_first:
        book.add(labels_of(EARLIER))
    else:
        book.expect()
    enter(book, 1, ["a", "b", "c"], [1.0, 0.0, np.nan])
    if not comes_first:
        book.add(labels_of(EARLIER))
    assert book.discarded == {"duplicate": 1, "contradicting": 1}
    judged(book, 1000.0)
    assert book.discarded == {"duplicate": 1, "contradicting": 1, "orphan": 1}


def test_while_no_label_comes_by_itself_nothing_is_remembered_of_those_beside() -> None:
    book = a_book()
    enter(book, 1, ["a"], [1.0])
    book.add(labels_of([("a", 12.0, 1.0)]))
    enter(book, 1, ["b"], [1.0])
    book.add(labels_of([("b", 12.0, 1.0)]))
    judged(book, 1000.0)
    assert book.discarded == {"orphan": 1, "duplicate": 1}


def test_of_labels_that_wait_the_first_that_is_not_too_old_is_used_and_each_is_counted_once() -> None:
    book = a_book(complete=1.0)
    some = [("a", 1.0, 7.0), ("a", 29.0, 3.0), ("a", 25.0, 2.0), ("a", 21.0, 2.0), ("a", 47.0, 3.0), ("a", 48.0, 2.0)]
    for label in some:
        book.add(labels_of([label]))
    assert book.discarded == {"contradicting": 1}  # of 48 s: that of 47 s comes before it in the same bin
    ledger = enter(book, 5, ["a"])
    book.release(ledger)
    book.register([a_window(5, (ledger,), 1)])
    assert book.discarded == {"contradicting": 3, "duplicate": 1, "orphan": 1}
    assert judged(book, 60.0) == [[60.0, 60.0, 1, 2.0, [2.0]]]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_label_goes_to_the_prediction_it_was_joined_to_also_after_a_restart(restarts: bool) -> None:
    """An id that comes again is another prediction; what is too old for it was the first one's."""
    book, kept = a_book(complete=1.0, log=LabelLog()), {"ledgers": {}, "windows": {}, "entries": []}
    windows: list[Any] = []
    for index in (1, 6):
        ledger = enter(book, index, ["a", "b"])
        book.release(ledger)
        windows.append(a_window(index, (ledger,), 2))
    book.register(windows)
    book.add(labels_of([("a", 15.0, 4.0)]))
    if restarts:
        book = restarted(book, kept)
    assert [found[2] for found in judged(book, 1000.0)] == [1, 0]


def test_the_latest_answers_are_remembered() -> None:
    answered, rng = Answered(80_000), np.random.default_rng(1)
    hashes, labels = rng.integers(1, 2**63, 200_000).astype(np.uint64), rng.random(200_000)
    for start in range(0, 200_000, 1000):
        answered.add(hashes[start : start + 1000], labels[start : start + 1000])
    known, found = answered.find(hashes)
    assert found.tolist() == labels[known].tolist()
    assert known[-2000:].mean() > 0.9
    assert not answered.find(rng.integers(1, 2**63, 1000).astype(np.uint64))[0].any()

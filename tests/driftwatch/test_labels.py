"""Late labels against a plain double loop: what is used depends on event times, whatever the order of arrival."""

import math
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.summary import Table
from driftwatch import label_checkpoint
from driftwatch.label_log import Kind, LabelLog, LabelState
from driftwatch.labels import LabelBook
from driftwatch.ledger import LabelTerms
from driftwatch.records import LabelColumn, Labels, Records, Schema, Shard, Stream, Window

SLIDE, WAIT = 10.0, 30.0
FIRST = 6  # window: labels may be older than its predictions by more than the wait
STREAM = Stream("credit", "1")
SCHEMA = Schema("credit", "1", (), label=LabelColumn("y", "numeric"))


class Counted:
    """Stands for a profile's counter: keeps the labels that it was given, which are the losses as well."""

    baseline = "one"

    def losses(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return labels.astype(np.float32)

    def keep(self, table: Table) -> bytes:
        return table.to_bytes()

    def restored(self, kept: bytes) -> Table:
        return Table.from_bytes(kept)

    def count(self, table: Table, predictions: np.ndarray, labels: np.ndarray) -> None:
        table.outcome += labels.sum()


def a_book(*, complete: float = 0.75, most: int = 1000, log: LabelLog | None = None) -> LabelBook:
    terms = LabelTerms.of(wait_s=WAIT, complete=complete, max_pending=most, slide_s=SLIDE)
    counters: Any = {"p": Counted()}
    return LabelBook(terms, SCHEMA, counters, log)


def records(ids: list[str], labels: list[float] | None = None, times_s: list[float] | None = None) -> Records:
    n = len(ids)
    times = np.zeros(n) if times_s is None else np.array(times_s)
    return Records(
        *(Shard("s"), np.arange(n), times, ids, np.empty((n, 0)), np.empty((0, 2), np.intp), np.empty(0)),
        categories=(),
        labels=None if labels is None else np.array(labels),
    )


def a_window(index: int, ledgers: tuple[int, ...], n: int) -> Window:
    table = Table(np.zeros(0, np.int64), np.zeros(1), (), np.zeros(1))
    return Window(STREAM, index * SLIDE, (index + 1) * SLIDE, n, table, "p", ledgers=ledgers)


def labels_of(some: list[tuple[str, float, float]]) -> Labels:
    ids, times_s, values = zip(*some, strict=True) if some else ((), (), ())
    return Labels(list(ids), np.array(times_s, np.float64), np.array(values, np.float64))


@st.composite
def trials(draw: st.DrawFn) -> tuple[list[list[str]], list[tuple[str, float, float]]]:
    """The ids of each window's predictions, and labels: of most of them once, of some again, of others never."""
    windows = [[f"{w}-{i}" for i in range(draw(st.integers(0, 6)))] for w in range(draw(st.integers(1, 4)))]
    ids = st.sampled_from([*(id_ for window in windows for id_ in window), "stranger"])
    times = st.one_of(st.integers(0, 1500), st.integers(600, 1500)).map(lambda t: t / 10)
    label = st.tuples(ids, times, st.sampled_from([0.0, 1.0, 5.0]))
    return windows, draw(st.lists(label, max_size=30, unique_by=lambda found: found[:2]))


def times_of(window: int, n: int) -> list[float]:
    """Event times of a window's rows: not in their order, some equal."""
    return [(FIRST + window) * SLIDE + 7 * i % 4 for i in range(n)]


def expected(windows: list[list[str]], labels: list[tuple[str, float, float]], complete: float) -> list[list[Any]]:
    """T, end, n, sum and (in the order of event time) each of the labels used, as windows are judged."""
    found = []
    for w, ids in enumerate(windows):
        first: dict[str, tuple[float, float]] = {}
        for id_, time_s, value in labels:
            in_time = time_s // SLIDE >= FIRST + w - WAIT // SLIDE
            if in_time and (id_ not in first or time_s < first[id_][0]):
                first[id_] = (time_s, value)
        end = (FIRST + w + 1) * SLIDE
        boundary = end
        while boundary < end + WAIT:
            if sum(first[i][0] < boundary for i in ids if i in first) >= math.ceil(complete * len(ids) - 1e-9):
                break
            boundary += SLIDE
        in_order = [id_ for _, id_ in sorted(zip(times_of(w, len(ids)), ids, strict=True), key=lambda row: row[0])]
        used = [first[i][1] for i in in_order if i in first and first[i][0] < boundary]
        if ids:
            found.append([boundary, end, len(used), sum(used), used])
    return sorted(found)


def judged(book: LabelBook, watermark_s: float, *, finish: bool = False) -> list[list[Any]]:
    """What is due, as `expected` writes it."""
    due = book.due(watermark_s, finish=finish)
    return [[boundary, w.end_s, w.n_labels, float(w.table.outcome[0]), losses_of(w)] for boundary, w in due]


def losses_of(window: Window) -> list[float]:
    assert window.losses is not None
    assert window.losses.times_s.tolist() == sorted(window.losses.times_s.tolist())
    return list(window.losses.values.tolist())


def restarted(book: LabelBook, kept: dict[str, Any]) -> LabelBook:
    """Another book that goes on from what the first has stored."""
    changes = label_checkpoint.changes(book)
    assert changes is not None
    kept["entries"] = [
        e
        for e in kept["entries"]
        if e.ledger not in changes.freed
        and (e.ledger or e.expires > changes.reached)
        and (e.kind != Kind.BESIDE or e.ledger not in changes.settled)
    ] + list(changes.entries)
    for name, new, gone in (("ledgers", changes.ledgers, changes.freed), ("windows", changes.windows, changes.judged)):
        kept[name] = {n: data for n, data in {**kept[name], **new}.items() if n not in gone}
    again = a_book(complete=book.terms.complete, most=book.terms.max_pending, log=LabelLog())
    label_checkpoint.restore(again, LabelState(**kept, book=changes.book))
    return again


@settings(max_examples=150, deadline=None)
@given(trials(), st.sampled_from([0.5, 0.95, 1.0]), st.integers(0, 2**32), st.booleans())
def test_what_is_used_depends_on_event_times_alone(
    trial: tuple[list[list[str]], list[tuple[str, float, float]]], complete: float, seed: int, restarts: bool
) -> None:
    """Predictions and labels come in any order as long as the watermark waits for them; sometimes after a restart.

    How often it is looked at, and how far it has come then, is a matter of chance.
    """
    (windows, labels), dice = trial, Random(seed)
    steps = [("window", w) for w in range(len(windows))] + [("label", i) for i in range(len(labels))]
    dice.shuffle(steps)
    book, kept = (
        a_book(complete=complete, log=LabelLog() if restarts else None),
        {"ledgers": {}, "windows": {}, "entries": []},
    )
    found, reached_s = [], 0.0
    for done, (what, i) in enumerate(steps, 1):
        if what == "label":
            book.add(labels_of([labels[i]]))
        elif windows[i]:
            ledger = book.open((FIRST + i) * SLIDE, "p")
            book.enter(ledger, records(windows[i], times_s=times_of(i, len(windows[i]))), slice(None))
            book.release(ledger)
            book.register([a_window(FIRST + i, (ledger,), len(windows[i]))])
        left = [labels[k][1] for kind, k in steps[done:] if kind == "label"]
        left += [(FIRST + k + 1) * SLIDE - 1e-6 for kind, k in steps[done:] if kind == "window"]
        if dice.random() < 0.7:
            reached_s = max(reached_s, min(left, default=0.0) - dice.choice([0.0, 0.0, 10.0, 50.0]))
            found += judged(book, reached_s)
        if restarts and dice.random() < 0.5:
            book = restarted(book, kept)
    found += judged(book, math.inf)
    assert found == expected(windows, labels, complete)
    assert book.rows.n == 0


def test_labels_of_one_id_are_counted_for_what_they_are() -> None:
    book = a_book(complete=1.0)
    ledger = book.open(0.0, "p")
    book.enter(ledger, records(["a", "b", "c"]), slice(None))
    book.release(ledger)
    book.register([a_window(0, (ledger,), 3)])
    book.add(labels_of([("a", 12.0, 1.0), ("a", 13.0, 1.0), ("a", 14.0, 0.0), ("nobody", 14.0, 1.0), ("c", 50.0, 1.0)]))
    assert judged(book, 39.0) == []
    assert judged(book, 40.0) == [[40.0, 10.0, 1, 1.0, [1.0]]]  # the wait is over
    book.add(labels_of([("b", 35.0, 1.0), ("a", 20.0, 1.0), ("nobody", 15.0, 0.0)]))
    assert book.discarded == {"duplicate": 2, "contradicting": 2, "late": 2}
    judged(book, 1000.0)
    assert book.discarded == {"duplicate": 2, "contradicting": 2, "late": 2, "orphan": 1}
    assert book.rows.n == 0
    assert not book.ledgers


def test_a_label_that_came_first_waits_for_its_prediction() -> None:
    book = a_book()
    book.add(labels_of([("a", 5.0, 3.0), ("b", 6.0, 4.0)]))
    ledger = book.open(0.0, "p")
    book.enter(ledger, records(["b", "a"]), slice(None))
    book.release(ledger)
    book.register([a_window(0, (ledger,), 2)])
    assert judged(book, 10.0) == [[10.0, 10.0, 2, 7.0, [4.0, 3.0]]]


def test_a_label_in_the_batch_that_fills_its_window_is_used() -> None:
    book = a_book()
    ledger = book.open(0.0, "p")
    book.enter(ledger, records(["a", "b"]), slice(None))
    book.release(ledger)  # the window is full, and known of only after the batch
    book.add(labels_of([("a", 5.0, 3.0), ("b", 6.0, 4.0)]))
    book.register([a_window(0, (ledger,), 2)])
    assert judged(book, 10.0) == [[10.0, 10.0, 2, 7.0, [3.0, 4.0]]]
    assert not book.discarded


def test_labels_beside_predictions_need_no_waiting() -> None:
    book = a_book()
    ledger = book.open(0.0, "p")
    book.enter(ledger, records(["a", "b", "c", "d"], [1.0, 1.0, 1.0, np.nan]), slice(None))
    book.release(ledger)
    book.register([a_window(0, (ledger,), 4)])
    assert book.rows.n == 1
    assert [found[:3] for found in judged(book, 10.0)] == [[10.0, 10.0, 3]]


def test_beyond_the_bound_a_sample_stays_that_halves_the_same_on_both_sides() -> None:
    book = a_book(most=200)
    ids = [f"r{i}" for i in range(1000)]
    for start in range(0, 1000, 50):
        ledger = book.open(float(start), "p")
        book.enter(ledger, records(ids[start : start + 50]), slice(None))
        book.release(ledger)
        book.register([a_window(start // 10, (ledger,), 50)])
        assert book.rows.n <= 200
    assert book.level == 3
    n_held = book.rows.n
    book.add(labels_of([(id_, 0.0, 1.0) for id_ in ids]))
    assert book.discarded == {"not_sampled": 1000 - n_held}
    found = judged(book, 2000.0)
    assert len(found) == 20
    assert sum(n for _, _, n, *_ in found) == n_held


@pytest.mark.parametrize("n", [1, 7, 500])
def test_in_whatever_batches_labels_come_the_same_is_used(n: int) -> None:
    rng = np.random.default_rng(1)
    ids = [f"r{i}" for i in range(500)]
    when, what = rng.uniform(0, 30, 500).tolist(), rng.integers(0, 9, 500).tolist()
    some = [(id_, t, float(v)) for id_, t, v in zip(rng.permutation(ids).tolist(), when, what, strict=True)]
    book = a_book()
    ledger = book.open(0.0, "p")
    book.enter(ledger, records(ids), slice(None))
    book.release(ledger)
    book.register([a_window(0, (ledger,), 500)])
    for start in range(0, 500, n):
        book.add(labels_of(some[start : start + n]))
    used = sorted(some, key=lambda found: found[1])
    boundary = 10.0 * (used[374][1] // 10 + 1)
    assert [found[:3] for found in judged(book, 100.0)] == [[boundary, 10.0, sum(t < boundary for _, t, _ in some)]]


def test_a_pane_let_go_of_in_the_turn_its_window_was_judged_makes_room_once() -> None:
    book = a_book(most=10)
    first, second = book.open(0.0, "p"), book.open(SLIDE, "p")
    book.enter(first, records([f"a{i}" for i in range(6)]), slice(None))
    book.register([a_window(0, (first,), 6)])
    book.release(first)
    assert len(book.due(2 * WAIT)) == 1
    book.enter(second, records([f"b{i}" for i in range(8)]), slice(None))
    assert list(book.ledgers) == [second]
    assert (book.level, book.rows.n) == (0, 8)


@pytest.mark.parametrize("restarts", [False, True])
def test_losses_beside_predictions_are_told_like_late_ones_and_then_forgotten(restarts: bool) -> None:
    book, start = a_book(complete=0.5, log=LabelLog()), 1_700_000_000.0
    kept: dict[str, Any] = {"ledgers": {}, "windows": {}, "entries": []}
    ledger = book.open(start, "p")
    book.enter(ledger, records(["a", "b"], [0.2, math.nan], [start + 3, start + 1]), slice(None))
    if restarts:
        book = restarted(book, kept)
    book.enter(ledger, records(["c", "d"], [math.nan, 0.4], [start + 2, start + 0.5]), slice(None))
    book.release(ledger)
    book.register([a_window(170_000_000, (ledger,), 4)])
    if restarts:
        book = restarted(book, kept)
    book.add(labels_of([("b", start + 5, 0.5), ("c", start + 6, 0.75)]))
    ((_, window),) = book.due(start + 100)
    assert window.losses is not None
    np.testing.assert_allclose(window.losses.values, [0.4, 0.5, 0.75, 0.2], rtol=1e-6)
    assert window.losses.times_s.tolist() == [start + 0.5, start + 1, start + 2, start + 3]
    assert book.beside.n == 0
    restarted(book, kept)
    assert not [entry for entry in kept["entries"] if entry.kind == Kind.BESIDE]


@pytest.mark.parametrize("restarts", [False, True])
def test_beyond_the_bound_every_second_loss_beside_goes(restarts: bool) -> None:
    book = a_book(most=10, log=LabelLog())
    kept: dict[str, Any] = {"ledgers": {}, "windows": {}, "entries": []}
    ledger = book.open(0.0, "p")
    for first in range(0, 25, 5):
        rows = range(first, first + 5)
        news = records([f"i{i}" for i in rows], [i / 32 for i in rows], [float(i) for i in rows])
        book.enter(ledger, news, slice(None))
        assert book.beside.n <= 10
        if restarts:
            book = restarted(book, kept)
    book.release(ledger)
    book.register([a_window(0, (ledger,), 25)])
    assert judged(book, math.inf)[0][-1] == [i / 32 for i in range(0, 25, 4)]

"""Predictions that wait for their labels, and labels that wait for their predictions: columns, found by id.

A row is the hash of an id, a value (what was predicted, or a label that waits for it), the label in one or four bytes,
when it came, in ticks that its owner counts, and the row's own event time in seconds since its owner's base. 25 or 28
bytes, and 6 of an open-addressing table of the rows' places: 62 MB for two million whose label is one of few classes.
Places are given in the order of arrival; whoever a row belongs to is found by its place. Rows enter the table once
somebody searches. Most searches in it are over after a place or two; those that are not look at eight places at once.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from driftwatch.code_column import CodeColumn

UNLABELLED = 0  # the tick of a row that has no label yet: memory that is not written to is no memory
FIRST_TICK, LAST_TICK = 1, 2**32 - 1
_LEAST, _GROWTH = 1 << 16, 4  # places of the smallest table; how many times larger the next one is
_BLOCK = 1 << 14  # rows moved or entered at a time, which bounds the memory that this takes
_ROOMY, _FULL = 0.5, 0.75  # how much of a table is taken before a larger one is made, and of the largest
_AHEAD = 8  # places of the table looked at together
_FEW = 24  # rows that enter one by one
_STEPS = np.arange(_AHEAD)
_NO_PLACES = np.empty(0, np.intp)
_LOW = np.uint64(0xFFFF_FFFF)
_HALF = np.uint64(32)


class Pending:
    """Rows of many owners; an owner is a number over 0. `most`: how many rows may live at once.

    Where there are more, the caller has to let go of some (`free`, `thin`) before it adds others. `few_labels`:
    whether few different labels are to be expected.
    """

    def __init__(self, most: int, *, few_labels: bool = False) -> None:
        self._slack = max(most // 8, _BLOCK)  # rows that are gone, and are worth closing their gaps
        capacity = most + self._slack
        # Memory that is not yet written to costs nothing: the system gives it page by page.
        self.hashes = np.zeros(capacity, np.uint64)
        self.values = np.zeros(capacity, np.float64)
        self.labels = CodeColumn(capacity, few=few_labels)
        self.ticks = np.zeros(capacity, np.uint32)
        self.since_s = np.zeros(capacity, np.float32)  # not of labels that wait
        self.most, self._capacity = most, capacity
        self._used, self.n = 0, 0  # places given, rows that live
        self._soiled = 0  # places from here on never held a row
        self._table = np.zeros(_LEAST, np.uint32)  # place + 1, 0 = none
        self._largest = int(capacity / _FULL) + 1  # that it may become
        self._entered = 0  # places from here on are not in it yet
        self._has_twins = False  # whether two rows in the table may have one hash
        self._starts = np.zeros(64, np.int64)  # the first place of each run of one owner
        self._owners = np.zeros(64, np.int64)
        self._n_runs = 0
        self.spans: dict[int, list[tuple[int, int]]] = {}  # by owner: places from, to

    def add(
        self,
        owner: int,
        hashes: np.ndarray,
        values: np.ndarray,
        ticks: np.ndarray | None = None,
        *,
        since_s: np.ndarray | None = None,
    ) -> None:
        """Adds rows of an owner, without labels where no ticks are given; the number of rows stays within bounds."""
        n = len(hashes)
        if not n:
            return
        if self._used + n > (self._capacity if self._used - self.n < self._slack else self.most):
            self._compact()
        first, stop = self._used, self._used + n
        self.hashes[first:stop], self.values[first:stop] = hashes, values
        if ticks is not None:
            self.ticks[first:stop] = ticks
        elif first < self._soiled:
            self.ticks[first : min(stop, self._soiled)] = UNLABELLED
        self._soiled = max(self._soiled, stop)
        if since_s is not None:
            self.since_s[first:stop] = since_s
        self._own(owner, first, stop)
        self._used, self.n = stop, self.n + n

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(which of the hashes, place of a row that has it), intp: every row of each."""
        self._enter_new()
        at = self._home(hashes)
        entries = self._table.take(at)
        asked = np.flatnonzero(entries)  # a search goes on up to the first place that is free
        places = entries[asked].astype(np.intp) - 1
        same = self.hashes.take(places) == hashes[asked]
        found_asked, found = [asked[same]], [places[same]]
        if not self._has_twins:
            asked = asked[~same]
        at = at[asked] + 1
        while len(asked):
            entries = self._table.take(self._ahead(at))
            taken = np.logical_and.accumulate(entries != 0, axis=1)
            which, column = np.nonzero(taken)
            places = entries[which, column].astype(np.intp) - 1
            same = self.hashes.take(places) == hashes[asked[which]]
            found_asked.append(asked[which[same]])
            found.append(places[same])
            more = taken[:, -1]
            if not self._has_twins:
                more[which[same]] = False
            asked, at = asked[more], at[more] + _AHEAD
        return np.concatenate(found_asked), np.concatenate(found)

    def find_of(self, owners: Iterable[int], hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same among the rows of owners that have few."""
        places = np.concatenate([_NO_PLACES, *(self.places(owner) for owner in owners)])
        places = places[np.argsort(self.hashes[places], kind="stable")]
        theirs = self.hashes[places]
        first = np.searchsorted(theirs, hashes)
        n = np.searchsorted(theirs, hashes, "right") - first
        asked = np.repeat(np.arange(len(hashes)), n)
        return asked, places[np.arange(len(asked)) + np.repeat(first - np.cumsum(n) + n, n)]

    def owners(self, places: np.ndarray) -> np.ndarray:
        """Whose the rows are, int64."""
        return np.asarray(self._owners[self._runs(places)])

    def by_owner(self, places: np.ndarray) -> tuple[list[int], np.ndarray]:
        """The owners of some rows, in their order, and which of them each row's is, intp."""
        runs = self._runs(places)
        met = np.flatnonzero(np.bincount(runs, minlength=self._n_runs))
        owners, of_run = np.unique(self._owners[met], return_inverse=True)
        at = np.zeros(self._n_runs, np.intp)
        at[met] = of_run
        return owners.tolist(), at[runs]

    def _runs(self, places: np.ndarray) -> np.ndarray:
        """In which run of one owner's rows each lies, intp."""
        return np.asarray(np.searchsorted(self._starts[: self._n_runs], places, "right") - 1)

    def places(self, owner: int) -> np.ndarray:
        """The places of an owner's rows, intp, in the order in which they were added."""
        spans = self.spans.get(owner, [])
        found = np.concatenate([np.empty(0, np.intp), *(np.arange(a, b) for a, b in spans)])
        return np.asarray(found[self.hashes[found] != 0])

    def counts(self, owner: int) -> tuple[int, int]:
        """How many rows an owner has, and how many of them have their label."""
        places = self.places(owner)
        return len(places), int((self.ticks[places] != UNLABELLED).sum())

    def remove(self, places: np.ndarray) -> None:
        """These rows are gone."""
        self.hashes[places] = 0
        self.n -= len(places)

    def free(self, owner: int) -> None:
        """All rows of an owner are gone."""
        for first, stop in self.spans.pop(owner, []):
            self.n -= int(np.count_nonzero(self.hashes[first:stop]))
            self.hashes[first:stop] = 0

    def thin(self, level: int) -> None:
        """Only rows stay whose hash begins with `level` zero bits."""
        for block in self._blocks():
            live = self.hashes[block]
            out = (live != 0) & ~in_sample(live, level)
            live[out] = 0
            self.n -= int(out.sum())

    def _own(self, owner: int, first: int, stop: int) -> None:
        spans = self.spans.setdefault(owner, [])
        if self._n_runs and self._owners[self._n_runs - 1] == owner and spans and spans[-1][1] == first:
            spans[-1] = (spans[-1][0], stop)
            return
        spans.append((first, stop))
        if self._n_runs == len(self._starts):
            self._starts, self._owners = (np.concatenate([a, np.zeros_like(a)]) for a in (self._starts, self._owners))
        self._starts[self._n_runs], self._owners[self._n_runs] = first, owner
        self._n_runs += 1

    def _blocks(self, first: int = 0) -> Iterator[slice]:
        return (slice(a, min(a + _BLOCK, self._used)) for a in range(first, self._used, _BLOCK))

    def _compact(self) -> None:
        """Closes the gaps that rows have left."""
        runs = np.append(self._starts[: self._n_runs], self._used)
        owners = self._owners[: self._n_runs].copy()
        to, moved = 0, np.zeros(len(runs), np.int64)  # rows that live before each run
        for run in range(len(owners)):
            for a in range(int(runs[run]), int(runs[run + 1]), _BLOCK):
                block = slice(a, min(a + _BLOCK, int(runs[run + 1])))
                live = np.flatnonzero(self.hashes[block]) + a
                for column in (self.hashes, self.values, self.labels.stored, self.ticks, self.since_s):
                    column[to : to + len(live)] = column[live]
                to += len(live)
            moved[run + 1] = to
        self._used, self._n_runs, self.spans = to, 0, {}
        for run, owner in enumerate(owners.tolist()):
            if moved[run] < moved[run + 1]:
                self._own(owner, int(moved[run]), int(moved[run + 1]))
        self._enter_all()

    def _enter_all(self) -> None:
        """Makes the table anew, larger where it is too full."""
        size = len(self._table)
        while self._used > _ROOMY * size and size < self._largest:
            size = min(size * _GROWTH, self._largest)
        if size == len(self._table):
            self._table[:] = 0
        else:
            self._table = self._table[:0].copy()  # the old one goes before the new one comes
            self._table = np.zeros(size, np.uint32)
        self._entered, self._has_twins = 0, False
        self._enter_new()

    def _enter_new(self) -> None:
        """Enters the rows that came since."""
        if self._used > _ROOMY * len(self._table) and len(self._table) < self._largest:
            self._enter_all()
        for block in self._blocks(self._entered):
            self._enter(block.start, block.stop)
        self._entered = self._used

    def _home(self, hashes: np.ndarray) -> np.ndarray:
        """Where in the table the search for a hash begins: by its low bits, which no sample chooses by."""
        return (((hashes & _LOW) * np.uint64(len(self._table))) >> _HALF).astype(np.intp)

    def _ahead(self, at: np.ndarray) -> np.ndarray:
        """The places of the table from each on, (n, _AHEAD): what a search or an entry looks at together."""
        slots = at[:, None] + _STEPS
        slots[slots >= len(self._table)] -= len(self._table)
        return slots

    def _enter(self, first: int, stop: int) -> None:
        """Each row goes to the first place of the table that is free from its home on."""
        places = np.arange(first, stop)
        places = places[self.hashes[places] != 0]
        hashes, entries = self.hashes[places], (places + 1).astype(np.uint32)
        at = self._home(hashes)
        free = self._table.take(at) == 0
        while len(entries) > _FEW:
            self._table[at[free]] = entries[free]  # of several at one place, one stays
            left = self._table.take(at) != entries
            at, entries, hashes = at[left], entries[left], hashes[left]
            slots = self._ahead(at)
            there = self._table.take(slots)
            taken = np.logical_and.accumulate(there != 0, axis=1)
            if not self._has_twins:
                which, column = np.nonzero(taken)
                others = self.hashes.take(there[which, column].astype(np.intp) - 1)
                self._has_twins = bool((others == hashes[which]).any())
            free = ~taken[:, -1]
            at = slots[np.arange(len(at)), np.where(free, taken.sum(axis=1), _AHEAD - 1)]
        for entry, hash_, place in zip(entries.tolist(), hashes, at.tolist(), strict=True):
            self._enter_one(entry, hash_, place)

    def _enter_one(self, entry: int, hash_: np.uint64, at: int) -> None:
        table = self._table
        while other := int(table[at]):
            self._has_twins = self._has_twins or bool(self.hashes[other - 1] == hash_)
            at = at + 1 if at + 1 < len(table) else 0
        table[at] = entry


def is_first(ticks: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Whether labels came before those that their rows have, bool (n,); a row that has none takes any."""
    return np.asarray((before == UNLABELLED) | (ticks < before))


def in_sample(hashes: np.ndarray, level: int) -> np.ndarray:
    """Which hashes begin with `level` zero bits: a sample of 1 in 2^level, the same wherever it is taken."""
    return hashes < np.uint64(1 << (64 - level)) if level else np.ones(len(hashes), bool)

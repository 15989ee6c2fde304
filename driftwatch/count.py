"""Counts records on a profile's grid: the step from rows to a table that adds."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from detectors.family import JOINT
from detectors.grid import INVALID, MISSING, SPECIAL
from detectors.lookup import CellLookup
from detectors.performance.direct_loss import DirectLoss
from detectors.profile import Profile
from detectors.summary import Table
from driftwatch.dedupe import take
from driftwatch.figures import Figures
from driftwatch.outcomes import OutcomeCounter, Predictions, empty_table
from driftwatch.records import NO_PROFILE, Category, Mark, Records, Schema

ABSENT = 2  # the mark of a value that its event says nothing of
EMBEDDING_PRESENT, EMBEDDING_INVALID, EMBEDDING_MISSING = 0, 1, 3


class ProfileCounter:
    """Counts rows on one profile; columns of the schema that it does not know count in `figures` alone."""

    def __init__(self, profile: Profile, schema: Schema, figures: Figures | None = None) -> None:
        self.profile = profile.hash
        self._profile, self._figures = profile, figures
        grid = profile.grid
        place = {name: j for j, name in enumerate(grid.names)}
        numeric = [c.name for c in schema.of_kind("numeric")]
        self._numeric = np.array([i for i, name in enumerate(numeric) if name in place], np.intp)
        self._all_numeric = len(self._numeric) == len(numeric)
        self._lookup = CellLookup(grid)
        self._categories = [
            (i, place[c.name], self._cells(place[c.name]))
            for i, c in enumerate(schema.of_kind("categorical"))
            if c.name in place
        ]
        embedding = [(i, place[c.name]) for i, c in enumerate(schema.of_kind("embedding")) if c.name in place]
        self._embeddings = embedding
        self._embedded = [(i, grid.names[j]) for i, j in embedding if grid.names[j] in profile.random_features]
        scores = profile.normal_scores
        self._joint = np.searchsorted(self._lookup.features, scores.features)
        self._all_joint = len(self._joint) == len(self._lookup.features)
        self._first, self._second = scores.pairs
        self._sampled = {name: k for k, name in enumerate(profile.random_features)}
        self._missing = (SPECIAL * np.arange(len(grid.features)) + MISSING).astype(np.int32)
        self._predictions = Predictions(schema)
        self.outcomes = None if schema.label is None else OutcomeCounter(profile, schema, figures)
        known = None if profile.outcome is None else profile.outcome.performance
        self._expectation: DirectLoss | None = None if known is None else known.expectation

    def _cells(self, j: int) -> dict[Category, int]:
        """The flat cell of everything that a column of categories may hold, but for other categories."""
        grid = self._profile.grid
        cells: dict[Category, int] = dict(grid.category_cells(j).items())
        cells[Mark.INVALID] = SPECIAL * j + INVALID
        cells[Mark.ABSENT] = grid.n_cells
        return cells

    def empty(self) -> Table:
        """A table of no row."""
        return empty_table(self._profile, 0 if self.outcomes is None else self.outcomes.size)

    def count(self, table: Table, records: Records, rows: slice | np.ndarray) -> None:
        """Adds these rows to a table of this profile."""
        if not isinstance(rows, slice) or rows != slice(None):
            records = take(records, rows)
        numeric, marked, marks = self._numeric_of(records)
        codes = self._lookup(numeric, marked, marks)
        by_category = [self._codes(j, cells, records.categories[i]) for i, j, cells in self._categories]
        counts = np.bincount(codes.ravel("K"), minlength=len(table.counts) + 1)
        if by_category:
            counts += np.bincount(np.concatenate(by_category), minlength=len(counts))
        table.counts += counts[:-1]
        here = self._present(len(records), marked, marks)
        z = self._profile.normal_scores(codes if self._all_joint else codes[:, self._joint])
        table.sums[0] += len(here)
        table.sums[1:] += (z.T @ z)[self._first, self._second]
        if self._sampled or self._expectation is not None:
            keys = np.fromiter(map(crc32, map(str.encode, records.ids)), np.uint32, len(records))
            if JOINT in self._sampled:
                self._sample(table, JOINT, keys[here], z[here])
            for i, name in self._embedded:
                present = np.flatnonzero(records.embedding_states[i] == EMBEDDING_PRESENT)
                self._sample(table, name, keys[present], records.embeddings[i][present])
            if self._expectation is not None:
                states = records.embedding_states
                table.samples[-1].add(keys, lambda kept: self._flat(codes, by_category, states, kept), self._expected)
        for i, j in self._embeddings:
            self._count_embedding(table.counts, j, records.embedding_states[i])
        if self._figures is not None:
            self._figures.count(table, records)
        if records.labels is not None and self.outcomes is not None:
            labelled = ~np.isnan(records.labels)
            self.outcomes.count(table, self._predictions(records)[labelled], records.labels[labelled])

    def _sample(self, table: Table, name: str, keys: np.ndarray, rows: np.ndarray) -> None:
        features = self._profile.random_features[name]
        table.samples[self._sampled[name]].add(keys, lambda kept: rows[kept], features)

    def _codes(self, j: int, cells: dict[Category, int], values: list[Category]) -> np.ndarray:
        """The flat cells of a column of categories, intp (n,)."""
        try:
            return np.fromiter(map(cells.__getitem__, values), np.intp, len(values))
        except KeyError:
            grid = self._profile.grid
            some = cells | {v: grid.other_cell(j, str(v)) for v in set(values) - cells.keys()}
            return np.fromiter(map(some.__getitem__, values), np.intp, len(values))

    def _flat(
        self, codes: np.ndarray, by_category: Sequence[np.ndarray], states: Sequence[np.ndarray], kept: np.ndarray
    ) -> np.ndarray:
        """The flat cells of all features in some rows, int32 (kept, features); of what comes with the labels missing.

        `codes` and `by_category` as `count` made them; `states` of the embeddings.
        """
        grid = self._profile.grid
        flat = np.empty((len(grid.features), len(kept)), np.int32)
        flat[grid.delayed] = self._missing[grid.delayed, None]
        flat[self._lookup.features] = codes.T[:, kept]
        for (_, j, _), column in zip(self._categories, by_category, strict=True):
            flat[j] = column[kept]
        for i, j in self._embeddings:
            flat[j] = np.where(states[i][kept] == EMBEDDING_PRESENT, grid.slice(j).start, self._missing[j])
        return flat.T

    def _expected(self, flat: np.ndarray) -> np.ndarray:
        """What is expected of rows by their flat cells; what an event says nothing of is missing."""
        assert self._expectation is not None
        return self._expectation.rows(np.where(flat == self._profile.grid.n_cells, self._missing, flat))

    def _numeric_of(self, records: Records) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The numeric columns that the profile knows, with their marks."""
        if self._all_numeric:
            return records.numeric, records.marked, records.marks
        if not len(records.marked):
            return records.numeric[:, self._numeric], records.marked, records.marks
        place = np.full(records.numeric.shape[1], -1, np.intp)
        place[self._numeric] = np.arange(len(self._numeric))
        column = place[records.marked[:, 1]]
        known = column >= 0
        marked = np.stack([records.marked[known, 0], column[known]], axis=1)
        return records.numeric[:, self._numeric], marked, records.marks[known]

    def _present(self, n: int, marked: np.ndarray, marks: np.ndarray) -> np.ndarray:
        """Rows whose event has something to say of the numeric features that are judged jointly."""
        rows = np.arange(n)
        if not len(self._joint) or not len(marked):
            return rows
        absent = marked[(marks == ABSENT) & (marked[:, 1] == self._joint[0]), 0]
        return np.delete(rows, absent)

    def _count_embedding(self, counts: np.ndarray, j: int, states: np.ndarray) -> None:
        """Counts an embedding's cells."""
        of_state = np.bincount(states, minlength=4)
        counts[SPECIAL * j + INVALID] += of_state[EMBEDDING_INVALID]
        counts[SPECIAL * j + MISSING] += of_state[EMBEDDING_MISSING]
        counts[self._profile.grid.slice(j).start] += of_state[EMBEDDING_PRESENT]


class RowCounter:
    """Counts nothing but rows: of a version whose profile is not known, or is being learned."""

    def __init__(self, profile: str = NO_PROFILE) -> None:
        self.profile = profile

    def empty(self) -> Table:
        """A table without cells."""
        return Table(np.zeros(0, np.int64), np.zeros(0))

    def count(self, table: Table, records: Records, rows: slice | np.ndarray) -> None:
        """Counts nothing."""

"""Counts records on a profile's grid: the step from rows to a table that adds."""

from collections import Counter
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
        counts = np.bincount(codes.ravel("K"), minlength=len(table.counts) + 1)
        for i, j, cells in self._categories:
            for category, n in Counter(records.categories[i]).items():
                known = cells.get(category)
                counts[self._profile.grid.other_cell(j, str(category)) if known is None else known] += n
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
            if (expectation := self._expectation) is not None:
                table.samples[-1].add(keys, lambda kept: expectation.rows(self._flat(records, codes, kept)))
        for i, j in self._embeddings:
            self._count_embedding(table.counts, j, records.embedding_states[i])
        if self._figures is not None:
            self._figures.count(table, records)
        if records.labels is not None and self.outcomes is not None:
            labelled = ~np.isnan(records.labels)
            self.outcomes.count(table, self._predictions(records)[labelled], records.labels[labelled])

    def _sample(self, table: Table, name: str, keys: np.ndarray, rows: np.ndarray) -> None:
        features = self._profile.random_features[name]
        table.samples[self._sampled[name]].add(keys, lambda kept: features(rows[kept]))

    def _flat(self, records: Records, codes: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """The flat cells of all features in some rows, (kept, features); what an event says nothing of is missing."""
        grid = self._profile.grid
        missing = SPECIAL * np.arange(len(grid.features)) + MISSING
        flat = np.tile(missing, (len(kept), 1))
        flat[:, self._lookup.features] = codes[kept]
        rows = kept.tolist()
        for i, j, cells in self._categories:
            values = [records.categories[i][row] for row in rows]
            others = {v: grid.other_cell(j, str(v)) for v in set(values) - cells.keys()}
            flat[:, j] = [others[v] if v in others else cells[v] for v in values]
        for i, j in self._embeddings:
            present = records.embedding_states[i][kept] == EMBEDDING_PRESENT
            flat[present, j] = grid.slice(j).start
        return np.where(flat == grid.n_cells, missing, flat)

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

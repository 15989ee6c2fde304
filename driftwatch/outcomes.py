"""Counts predictions against their labels on a profile: the label's and the loss's cells, and the tally's sums."""

import zlib

import numpy as np

from detectors.grid import SPECIAL, UNSEEN
from detectors.performance.outcome import ANY_OTHER, LOSS, Outcome, plain_outcome
from detectors.profile import Profile
from detectors.summary import Sample, Table
from driftwatch.figures import Figures, add_moments, key
from driftwatch.records import LabelColumn, Mark, Records, Schema, class_code

EXPECTED_ROWS = 2000  # of a window, whose losses are estimated


class OutcomeCounter:
    """Counts labelled predictions on one profile; what it does not know of them is left out.

    Predictions and labels are arrays of numbers, or of `class_code`s. `figures` may ask for sums of the labels.
    """

    def __init__(self, profile: Profile, schema: Schema, figures: Figures | None = None) -> None:
        grid = profile.grid
        place = {name: j for j, name in enumerate(grid.names) if grid.delayed[j]}
        assert schema.label is not None
        self._name = schema.label.name
        self._figure_key = key(self._name) if figures is not None and figures.has_labels else None
        positive = [schema.label.positive, *(["true"] if schema.label.positive == "1" else [])]
        self._positive = [] if schema.label.kind == "numeric" else [class_code(text) for text in positive]
        self._grid = grid
        self._outcome = outcome_for(profile, schema.label)
        self._label = place.get(schema.label.name)
        self._loss = place.get(LOSS)
        self._label_cells = _Codes(())
        if self._label is not None and schema.label.kind == "categorical":
            self._label_cells = _Codes(grid.features[self._label].categories)
        classes = () if self._outcome is None else self._outcome.classes
        self._classes = _Codes(classes)
        self._has_any_other = ANY_OTHER in classes
        self.size = 0 if self._outcome is None else self._outcome.size
        known = None if self._outcome is None else self._outcome.performance
        self.baseline = None if known is None else known.baseline
        self._profile = profile
        owner = np.concatenate([np.repeat(np.arange(len(grid.features)), SPECIAL), grid.owner])
        # Whoever names a kind of drift wants to know what the features did as well.
        knows_kinds = self._outcome is not None and self._outcome.performance is not None
        self._kept = np.ones(grid.n_cells, bool) if knows_kinds else grid.delayed[owner]

    def empty(self) -> Table:
        """A table of no row."""
        return empty_table(self._profile, self.size)

    def keep(self, table: Table) -> bytes:
        """What the second judgement needs of a window, packed, until its labels come."""
        expected = table.samples[len(self._profile.random_features) :]
        figures = {k: sums for k, sums in table.figures.items() if k == self._figure_key}
        kept = Table(np.where(self._kept, table.counts, 0), np.zeros(0), expected, table.outcome, figures)
        return zlib.compress(kept.to_bytes(), 1)

    def restored(self, kept: bytes) -> Table:
        """The inverse of `keep`: a table to which the late labels are added."""
        table, before = self.empty(), Table.from_bytes(zlib.decompress(kept))
        table.counts += before.counts
        table.add_outcome(before.outcome)
        table.figures = before.figures
        for sample, theirs in zip(table.samples[len(self._profile.random_features) :], before.samples, strict=True):
            sample.merge(theirs)
        return table

    def count(self, table: Table, predictions: np.ndarray, labels: np.ndarray) -> None:
        """Adds these rows to a table of this profile."""
        if not len(labels):
            return
        if self._figure_key is not None:
            add_moments(table, self._name, self._numbers(labels))
        cells = []
        if self._label is not None:
            cells.append(self._cells_of_labels(self._label, labels))
        if self._outcome is not None:
            p, y = self._values(self._outcome, predictions, labels)
            loss = self._outcome.loss(p, y)
            table.add_outcome(self._outcome.count(p, y, loss))
            if self._loss is not None:
                cells.append(self._grid.encode_feature(self._loss, loss[~np.isnan(loss)]))
        if cells:
            table.counts += np.bincount(np.concatenate(cells), minlength=len(table.counts))

    def losses(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The loss of each row in [0, 1], float32, NaN where there is none; of a profile that has a baseline."""
        assert self._outcome is not None
        assert self.baseline is not None
        loss = self._outcome.loss(*self._values(self._outcome, predictions, labels))
        return self.baseline.scaled(loss).astype(np.float32)

    def _numbers(self, labels: np.ndarray) -> np.ndarray:
        """Labels as numbers: of classes whether it is the positive one."""
        return np.isin(labels, self._positive).astype(np.float64) if self._positive else labels

    def _cells_of_labels(self, j: int, labels: np.ndarray) -> np.ndarray:
        feature = self._grid.features[j]
        if feature.kind == "numeric":
            return self._grid.encode_feature(j, labels)
        at = self._label_cells(labels)
        first = self._grid.slice(j).start
        other = labels.astype(np.int64) % feature.buckets + len(feature.categories) if feature.buckets else at
        unseen = first + other if feature.buckets else np.full(len(at), SPECIAL * j + UNSEEN)
        return np.asarray(np.where(at >= 0, first + at, unseen))

    def _values(self, outcome: Outcome, predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both sides as the tally takes them."""
        if outcome.kind == "numeric":
            return predictions, labels
        y = self._classes(labels)
        if outcome.kind == "categorical":
            return self._beyond(self._classes(predictions), predictions), self._beyond(y, labels)
        label = np.where(y >= 0, y, 0.0 if self._has_any_other else np.nan)
        if outcome.kind == "probability":
            return predictions, label
        p = self._classes(predictions)
        unknown = np.where(np.isnan(predictions) | (not self._has_any_other), np.nan, 0.0)
        return np.where(p >= 0, p, unknown), label

    def _beyond(self, at: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """A number beyond all places for a class that has none, the same for the same class; −1 for none."""
        known = np.nan_to_num(codes, nan=-1).astype(np.int64)
        return np.asarray(np.where(at >= 0, at, np.where(known >= 0, self._classes.n + known, -1)))


def outcome_for(profile: Profile, label: LabelColumn | None) -> Outcome | None:
    """How predictions are held against labels: as the profile says, else as the configuration does.

    Of a score only a reference with labels can say whether it is a probability.
    """
    if profile.outcome is not None or label is None or label.judged_as is None or label.prediction is None:
        return profile.outcome
    if label.judged_as == "score":
        return None
    known = {f.name: f.categories for f in profile.grid.features}
    return plain_outcome(
        label.judged_as,
        names=(label.prediction, label.name),
        classes=known.get(label.prediction, ()),
        positive=label.positive,
    )


def empty_table(profile: Profile, n_outcome: int) -> Table:
    """A table of a profile without a row, with so many sums of predictions against labels.

    Where the profile knows losses, the last sample is of those to be expected of a row.
    """
    samples = [Sample.empty(profile.mmd_rows, f.phases.size) for f in profile.random_features.values()]
    if profile.outcome is not None and profile.outcome.performance is not None:
        samples.append(Sample.empty(EXPECTED_ROWS, profile.outcome.performance.expectation.size))
    counts, sums = np.zeros(profile.grid.n_cells, np.int64), np.zeros(1 + profile.n_pairs)
    return Table(counts, sums, tuple(samples), np.zeros(n_outcome))


class _Codes:
    """The places of classes by their codes, −1 for others."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        codes = np.array([class_code(c) for c in classes])
        self.n = len(classes)
        self._order = np.argsort(codes)
        self._codes = codes[self._order]

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """intp (n,)."""
        if not self.n:
            return np.full(len(codes), -1, np.intp)
        at = np.minimum(np.searchsorted(self._codes, codes), self.n - 1)
        return np.where(self._codes[at] == codes, self._order[at], -1)


class Predictions:
    """Takes what was predicted out of records, as numbers or `class_code`s."""

    def __init__(self, schema: Schema) -> None:
        self._numeric, self._categorical = -1, -1
        name = None if schema.label is None else schema.label.prediction
        for kind in ("numeric", "categorical"):
            for i, column in enumerate(schema.of_kind(kind)):
                if column.name == name and kind == "numeric":
                    self._numeric = i
                elif column.name == name:
                    self._categorical = i

    def __call__(self, records: Records) -> np.ndarray:
        """Float64 (n,), NaN where nothing was predicted; 0 throughout where no prediction is watched."""
        if self._numeric >= 0:
            return np.ascontiguousarray(records.numeric[:, self._numeric])
        if self._categorical >= 0:
            values = records.categories[self._categorical]
            codes = {v: np.nan if v is None or isinstance(v, Mark) else class_code(v) for v in set(values)}
            return np.array([codes[v] for v in values], np.float64)
        return np.zeros(len(records))

"""Plain JSON events → records.

Three ways lead to the same row, each for the messages that the one before did not take: a struct decoder with the types
of the schema (clean events), one that takes any value (a string where a number should be, an unknown category), and the
standard library (NaN, Infinity, a container that is none). Fields that the schema does not name are skipped; the struct
decoders do not even see that a text in them is no UTF-8.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from driftwatch.decode import cells, lenient
from driftwatch.decode.columns import Columns, categories, in_range, numbers, take_marks, times, vectors
from driftwatch.decode.labels import READ_LABELS, PlainLabels
from driftwatch.decode.layout import FIRST_COLUMN, ID, LABEL, MODEL, TIME, VERSION, chosen, has_texts_only, layout
from driftwatch.decode.plain_rows import Events, Ready
from driftwatch.records import Decoded, Frames, Labels, Lines, Mark, Poison, Records, Schema, Shard

PORTION = 200
UNMARKED = np.empty((0, 2), np.intp)
_NOT_TAKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(slots=True)
class _Batch:
    """A batch on its way: the events so far, and what the messages were that are none."""

    frames: Frames
    events: list[msgspec.Struct] = field(default_factory=list)
    is_typed: bool = True  # every event came from the typed decoder
    aside: list[int] = field(default_factory=list)  # which messages are no events
    poison: list[Poison] = field(default_factory=list)
    discarded: Counter[str] = field(default_factory=Counter)

    def refuse(self, at: int, reason: str, detail: str) -> None:
        """Message `at` is poison."""
        frames = self.frames
        self.poison.append(Poison(frames.shard, int(frames.positions[at]), reason, detail, frames.messages[at]))


class JsonDecoder:
    """Decodes JSON events by a schema.

    Raises ConfigError for a schema whose paths collide, and nothing for what a message holds: each one becomes a row,
    poison (structure, encoding, depth, id, time) or is discarded on purpose (tombstone, other_model, label). An event
    is a label where it has one and none of the schema's columns.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self.root = self._root = layout(schema)
        typed = msgspec.json.Decoder(self._root.typed)
        self._decode_typed, self._decode_lines = typed.decode, typed.decode_lines
        self._decode_wide = msgspec.json.Decoder(self._root.wide).decode
        slots = {column: slot for slot, column in enumerate(schema.columns, FIRST_COLUMN)}
        self._numeric = [slots[c] for c in schema.of_kind("numeric")]
        self._categorical = [(slots[c], has_texts_only(c.categories)) for c in schema.of_kind("categorical")]
        self._embeddings = [(slots[c], c.length) for c in schema.of_kind("embedding")]
        in_order = schema.of_kind("numeric") + schema.of_kind("categorical") + schema.of_kind("embedding")
        self._is_feature = np.array([c.group == "features" for c in in_order], bool)
        self._makes_record = np.array([c.group != "fields" for c in in_order], bool)
        # Features that do not lie in one container are absent only where all of them are; else they are missing.
        self._places_stated = self._root.places((ID, TIME, MODEL, VERSION, LABEL))
        self._label = None if schema.label is None else READ_LABELS[schema.label.kind]
        self._plain_labels = None if schema.label is None else PlainLabels(self._root, schema)
        self._is_scattered = len({c.path[:-1] or c.path for c in in_order if c.group == "features"}) > 1
        self._no_rows = self.decode(Frames(Shard(""), (), np.zeros(1, np.int64))).records

    def decode(self, frames: Frames) -> Decoded:
        """The rows, the labels, the poison and the discarded of a batch; every message is exactly one of them."""
        if self._plain_labels is not None and (plain := self._plain_labels(frames.messages)) is not None:
            return self._all_labels(frames, *plain)
        batch = self._read(frames)
        rows = np.delete(np.arange(len(frames.messages)), batch.aside)
        parts = self._root.parts(batch.events)
        labels, n_invalid = None, 0
        if self._label is not None and (found := self._find_labels(parts)) is not None:
            alone, stated = found
            labels, n_invalid = self._labels(batch, rows[alone], stated)
            rows, parts = rows[~alone], kept(parts, ~alone)
        values = self._values(parts)
        ids, versions, truths = values[ID], values[VERSION], values[LABEL]
        arrived_s = None if frames.arrived_s is None else frames.arrived_s[rows]
        times_s = times(values[TIME], self._schema.time_unit, arrived_s)
        columns = self._columns(values, len(rows))
        keep = self._keep(batch, rows, values, times_s, columns)
        if not keep.all():
            rows, times_s, columns = rows[keep], times_s[keep], columns.take(keep)
            ids, versions, truths = kept((ids, versions, truths), keep)
        marked = np.argwhere(columns.marks) if columns.marks.any() else UNMARKED
        beside = None
        if self._label is not None and truths.count(msgspec.UNSET) < len(truths):
            beside, invalid = self._label(truths)
            n_invalid += int(invalid.sum())
        records = Records(
            frames.shard,
            frames.positions[rows],
            times_s,
            _ids(ids, bounded=batch.is_typed),
            columns.numeric,
            marked,
            columns.marks[marked[:, 0], marked[:, 1]],
            columns.categories,
            columns.embeddings,
            columns.states,
            self._versions(versions),
            beside,
        )
        poison = tuple(sorted(batch.poison, key=lambda p: p.position))
        end = int(frames.positions[-1])
        return Decoded(records, poison, end, dict(batch.discarded), labels=labels, invalid_labels=n_invalid)

    def _all_labels(self, frames: Frames, ids: list[Any], times: list[Any], labels: list[Any]) -> Decoded:
        """The same of messages that are labels of this model and nothing besides."""
        n, batch, schema = len(ids), _Batch(frames), self._schema
        found, n_invalid = self._labels(batch, np.arange(n), (ids, times, (schema.model,) * n, (None,) * n, labels))
        records = replace(self._no_rows, shard=frames.shard)
        poison, end = tuple(batch.poison), int(frames.positions[-1])
        return Decoded(records, poison, end, dict(batch.discarded), labels=found, invalid_labels=n_invalid)

    def _values(self, parts: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        """The values of every slot, of the events' parts."""
        # A column may claim the place of model, version or label: then their slots stay as they are here.
        unstated: tuple[Any, ...] = (None, None, self._schema.model, self._schema.version, msgspec.UNSET)
        values: list[Sequence[Any]] = [(v,) * len(parts[0]) for v in unstated]
        values += [()] * len(self._schema.columns)
        self._root.spread(parts, values)
        return values

    def _find_labels(self, parts: Sequence[Sequence[Any]]) -> tuple[np.ndarray, Sequence[Sequence[Any]]] | None:
        """Which events are labels, bool (n,): those that hold one, and nothing of any column. None: none is.

        With the values of their slots that are no columns.
        """
        alone = self._root.silent(parts)
        if not alone.any():
            return None
        stated = self._stated(parts, alone)
        if (n := stated[LABEL].count(msgspec.UNSET)) == len(stated[LABEL]):
            return None
        if n:
            labelled = [value is not msgspec.UNSET for value in stated[LABEL]]
            alone[alone] = labelled
            stated = kept(stated, np.array(labelled))
        return alone, stated

    def _stated(self, parts: Sequence[Sequence[Any]], some: np.ndarray) -> Sequence[Sequence[Any]]:
        """The values of the slots that are no columns in some of the events, bool (n,)."""
        if self._places_stated is None:
            return self._values(kept(parts, some))
        return kept([parts[at] for at in self._places_stated], some)

    def _labels(self, batch: _Batch, rows: np.ndarray, values: Sequence[Sequence[Any]]) -> tuple[Labels, int]:
        """The labels in the messages `rows`; and how many hold a value that is none."""
        arrived_s = None if batch.frames.arrived_s is None else batch.frames.arrived_s[rows]
        times_s = times(values[TIME], self._schema.time_unit, arrived_s)
        keep = self._acceptable(batch, rows, values, times_s)
        assert self._label is not None
        found, invalid = self._label(values[LABEL])
        n_invalid = int((keep & (invalid | np.isnan(found))).sum())
        keep &= ~np.isnan(found)
        ids = _ids(kept([values[ID]], keep)[0], bounded=batch.is_typed)
        return Labels(ids, times_s[keep], found[keep]), n_invalid

    def _read(self, frames: Frames) -> _Batch:
        batch = _Batch(frames)
        if isinstance(frames.messages, Lines):
            with suppress(*_NOT_TAKEN):
                events = self._decode_lines(frames.messages.block)
                if len(events) == len(frames.messages):
                    batch.events = events
                    return batch
        if isinstance(frames.messages, Events):
            for at, item in enumerate(frames.messages.items):
                if isinstance(item, Ready):
                    batch.events.append(item.event)
                else:
                    self._read_one(batch, at, item)
            return batch
        stream = map(self._decode_typed, frames.messages)
        while True:
            try:
                # After a message that is not taken, what was decoded before it is in `events`, and the stream goes on.
                # In portions: between them another thread may have the interpreter.
                while len(batch.events) + len(batch.aside) < len(frames.messages):
                    batch.events.extend(islice(stream, PORTION))
                return batch
            except _NOT_TAKEN:
                self._read_wide(batch, len(batch.events) + len(batch.aside))

    def _read_one(self, batch: _Batch, at: int, message: bytes) -> None:
        try:
            batch.events.append(self._decode_typed(message))
        except _NOT_TAKEN:
            self._read_wide(batch, at)

    def _read_wide(self, batch: _Batch, at: int) -> None:
        """Read message `at`, which the typed decoder did not take."""
        message = batch.frames.messages[at]
        if not message:
            batch.discarded["tombstone"] += 1
            batch.aside.append(at)
            return
        try:
            event = self._root.settled(self._decode_wide(message))
        except _NOT_TAKEN:
            try:
                event = lenient.read(message, self._root)
            except lenient.Unreadable as error:
                batch.refuse(at, error.reason, str(error))
                batch.aside.append(at)
                return
        batch.events.append(event)
        batch.is_typed = False

    def _columns(self, values: Sequence[Sequence[Any]], n: int) -> Columns:
        numeric = numbers([values[slot] for slot in self._numeric], n)
        embeddings = [vectors(values[slot], length) for slot, length in self._embeddings]
        columns = Columns(
            numeric,
            take_marks(numeric),
            tuple(
                list(values[slot]) if texts_only else categories(values[slot]) for slot, texts_only in self._categorical
            ),
            tuple(matrix for matrix, _ in embeddings),
            tuple(states for _, states in embeddings),
        )
        if self._is_scattered:
            absent = columns.absent() & self._is_feature
            columns.mark_missing(absent & (absent != self._is_feature).any(axis=1, keepdims=True))
        return columns

    def _keep(
        self, batch: _Batch, rows: np.ndarray, values: Sequence[Sequence[Any]], times_s: np.ndarray, columns: Columns
    ) -> np.ndarray:
        """Which events are rows, bool (n,); what the others are is noted in the batch."""
        keep = self._acceptable(batch, rows, values, times_s)
        if self._label is None and values[LABEL].count(msgspec.UNSET) < len(rows):  # labels that nobody asked for
            alone = keep & np.logical_and.reduce(columns.absent()[:, self._makes_record], axis=1)
            alone &= np.array([value is not msgspec.UNSET for value in values[LABEL]])
            batch.discarded.update({"label": int(alone.sum())} if alone.any() else {})
            keep &= ~alone
        return keep

    def _acceptable(
        self, batch: _Batch, rows: np.ndarray, values: Sequence[Sequence[Any]], times_s: np.ndarray
    ) -> np.ndarray:
        """Which events are of this model, with an id and a time, bool (n,); the others are noted in the batch."""
        n = len(rows)
        keep = in_range(times_s)
        are_ours = values[MODEL].count(self._schema.model) == n and set(map(type, values[ID])) <= {str, int}
        have_versions = batch.is_typed or Mark.INVALID not in values[VERSION]
        if keep.all() and are_ours and have_versions:
            return keep
        for row, at in enumerate(rows.tolist()):
            model, version, id_ = values[MODEL][row], values[VERSION][row], values[ID][row]
            if Mark.INVALID in {model, version}:
                batch.refuse(at, "structure", "expected a string at $.model and $.version; got a list or an object.")
            elif model is not None and str(model) != self._schema.model:
                batch.discarded["other_model"] += 1
            elif type(id_) not in {str, int}:
                place = _place(self._schema.id_path)
                batch.refuse(at, "id", f"expected a string or an integer at {place}; got {cells.shown(id_)}.")
            elif not keep[row]:
                place = _place(self._schema.time_path)
                batch.refuse(at, "time", cells.why_no_time(values[TIME][row], self._schema.time_unit, place))
            else:
                continue
            keep[row] = False
        return keep

    def _versions(self, values: Sequence[str | int | None]) -> list[str] | None:
        own = self._schema.version
        if values.count(own) == len(values):
            return None
        versions = [own if v is None else cells.bounded(str(v)) for v in values]
        return None if versions.count(own) == len(versions) else versions


def kept(columns: Sequence[Sequence[Any]], some: np.ndarray) -> list[Sequence[Any]]:
    """Some rows of each column, bool (n,)."""
    return list(columns) if some.all() else chosen(columns, np.flatnonzero(some))


def _ids(values: Sequence[Any], *, bounded: bool) -> list[str]:
    """Ids as texts of bounded length; `bounded`: the decoder has taken no longer text."""
    is_text = set(map(type, values)) == {str}
    ids: list[str] = list(values) if is_text else list(map(str, values))
    if (is_text and bounded) or max(map(len, ids), default=0) <= cells.LONGEST_TEXT:
        return ids
    return list(map(cells.bounded, ids))


def _place(path: tuple[str, ...]) -> str:
    return ".".join(("$", *path))

"""The nouns that data passes through: frames, records and the schema that says what an event holds.

`Source → Frames → decode → Records → windower → Window → detectors → Scores → policy → Decision → outbox → sinks`
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NewType, overload
from zlib import crc32

import numpy as np

from detectors.performance import kind as kinds
from detectors.performance.metric import Metric
from detectors.score import Score
from detectors.summary import Table

Shard = NewType("Shard", str)
"""The name of an ordered log inside a source: a Kafka partition, a file, the HTTP spool."""

Kind = Literal["numeric", "categorical", "embedding"]
Group = Literal["features", "prediction", "label", "fields"]
JudgedAs = Literal["numeric", "probability", "binary", "categorical", "score"]
"""How a prediction is held against its label; a score is a probability where it is one throughout the reference."""


NO_PROFILE = ""
"""In place of a profile's hash: the version has none, and only its rows are counted."""

LEARNING = "learning"
"""The same while its profile is being learned."""


class Mark(Enum):
    """What stands in a category column where there is no category."""

    INVALID = "invalid"  # a value of the wrong type
    ABSENT = "absent"  # the event says nothing of this column: not counted at all


Category = str | Mark | None
"""A category as its JSON text; None = missing."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the records: a feature, the prediction or a further field.

    `path` is where its value lies in an event. A column of group "features" is absent (not missing) in an event that
    has no `features` at all, one of group "prediction" in an event whose prediction key is absent, one of group
    "fields" likewise. Fields alone make no record: a label event may hold some.
    """

    name: str
    kind: Kind
    path: tuple[str, ...]
    group: Group = "features"
    categories: tuple[str, ...] = ()  # known ones, a hint for the decoder; others are decoded as well
    length: int = 0  # of an embedding


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """The truth about a prediction: in its event, or in one that comes later and holds nothing else.

    `prediction`: the column that it is the truth about, where there is one; `judged_as`: what that says. `positive`:
    the class that a probability speaks of.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    path: tuple[str, ...] = ("label",)
    prediction: str | None = None
    judged_as: JudgedAs | None = None
    positive: str = "1"


@dataclass(frozen=True, slots=True)
class Schema:
    """Where things lie in an event, and the columns that it is decoded into; without `label` no label is read."""

    model: str
    version: str
    columns: tuple[Column, ...]
    id_path: tuple[str, ...] = ("id",)
    time_path: tuple[str, ...] = ("time",)
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    label: LabelColumn | None = None

    def of_kind(self, kind: Kind) -> tuple[Column, ...]:
        """The columns of one kind, in order; `Records` keeps its columns in this order."""
        return tuple(c for c in self.columns if c.kind == kind)


class Lines(Sequence[bytes]):
    """Messages that are the lines of one block, each from a `{` to a `}`: a decoder need not cut them out.

    Since no JSON value holds a `}` before a `{` with but white space between, every line's end is a value's end: a
    decoder of the whole block that finds as many values as there are lines has found one in each.
    """

    __slots__ = ("_ends", "_starts", "block")

    def __init__(self, block: memoryview, starts: np.ndarray, ends: np.ndarray) -> None:
        self.block, self._starts, self._ends = block, starts, ends

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[bytes]:
        data = bytes(self.block)
        return (data[start:end] for start, end in zip(self._starts.tolist(), self._ends.tolist(), strict=True))

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return bytes(self.block[self._starts[index] : self._ends[index]])


@dataclass(frozen=True, slots=True)
class Frames:
    """A batch of raw messages of one shard in their order.

    `positions` has one entry more than there are messages: message i lies at positions[i]; the last entry is where
    the next message of the shard will lie. `arrived_s`: event times to fall back on where a message has none.
    `headers`: what the sender said of each message beside its bytes, names in lower case; None = nothing.
    """

    shard: Shard
    messages: Sequence[bytes]
    positions: np.ndarray  # int64, (n + 1,)
    arrived_s: np.ndarray | None = None  # float64, (n,)
    headers: Sequence[Mapping[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Records:
    """Decoded rows of one shard as columns, in the order of the shard.

    `numeric` holds one column for each numeric column of the schema: NaN = missing, ±inf as it came. Where
    `marked[k] = (row, column)`, the value is not missing but what `marks[k]` says (1 = invalid, 2 = absent); the
    matrix holds NaN there. `categories` holds one list for each categorical column. `embeddings` holds one
    (n, length) float32 matrix for each embedding column; a row of NaN is missing, invalid or absent as
    `embedding_state` (n,) says (0 present, 1 invalid, 2 absent, 3 missing).
    """

    shard: Shard
    positions: np.ndarray  # int64, (n,)
    times_s: np.ndarray  # float64, (n,): event times, epoch seconds
    ids: list[str]
    numeric: np.ndarray  # float64, (n, numeric columns)
    marked: np.ndarray  # intp, (m, 2)
    marks: np.ndarray  # uint8, (m,)
    categories: tuple[list[Category], ...]
    embeddings: tuple[np.ndarray, ...] = ()
    embedding_states: tuple[np.ndarray, ...] = ()
    versions: list[str] | None = None  # None: every row is of the schema's version
    labels: np.ndarray | None = None  # float64, (n,): as in `Labels`, NaN = the event holds none; None: no event does

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels that came by themselves, in the order of their shard: which prediction's, since when known, and what.

    A number stands for itself, a class for `class_code` of its text.
    """

    ids: list[str]
    times_s: np.ndarray  # float64, (n,): event times
    values: np.ndarray  # float64, (n,), finite

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def joined(cls, parts: "Sequence[Labels]") -> "Labels":
        """All of them, one after the other."""
        ids = [id_ for part in parts for id_ in part.ids]
        return cls(ids, np.concatenate([p.times_s for p in parts]), np.concatenate([p.values for p in parts]))


def class_code(text: str) -> float:
    """What stands for a class in arrays: equal texts have equal codes, in every process."""
    return float(crc32(text.encode()))


@dataclass(frozen=True, slots=True)
class Poison:
    """A message that cannot be used: goes to the dead letters with its bytes, never stops the stream."""

    shard: Shard
    position: int
    reason: str  # a short stable word: structure, id, time, encoding, depth, ahead, …
    detail: str  # for a person
    payload: bytes


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a batch of frames turned out to hold. `end` is the position after its last message.

    `events`: the frames of the single events, whose positions the records' are, where a message may hold several.
    `waiting_s`: event times of messages that are no rows before their other half comes.
    """

    records: Records
    poison: tuple[Poison, ...]
    end: int
    discarded: dict[str, int]  # reason → count of messages that are no rows on purpose: tombstone, other_model, label
    events: Frames | None = None
    waiting_s: Sequence[float] = ()
    labels: Labels | None = None
    invalid_labels: int = 0  # values that are no label, in label events and others


@dataclass(frozen=True, slots=True)
class Stream:
    """What is windowed on its own: one version of the model."""

    model: str
    version: str


@dataclass(frozen=True, slots=True)
class Losses:
    """The losses of labelled rows in [0, 1], in the order of event time, NaN where there is none."""

    values: np.ndarray  # float64, (n,)
    times_s: np.ndarray  # float64, (n,): of the rows, to seven digits since the beginning of their pane

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Window:
    """A closed interval of event time of one stream, holding only summaries that add.

    `part` is 2 or more where rows of an interval that was judged already came from a shard that lagged behind.
    `partial`: the interval was cut short (a file's end, a changed configuration, a gap of retention).
    """

    stream: Stream
    start_s: float
    end_s: float
    n_records: int
    table: Table
    profile: str  # content hash of the profile that the table is counted on; NO_PROFILE, LEARNING: none
    part: int = 1
    partial: bool = False
    share: tuple[tuple[Shard, ...], int] | None = None  # (shards, of how many): this member's share of the partitions
    ledgers: tuple[int, ...] = ()  # of its panes: the predictions that wait for their labels
    n_labels: int = 0  # of a second judgement: how many of its predictions have theirs
    losses: Losses | None = None  # of rows that no other window waits for; None: the profile knows none
    revision: int = 0  # 1: judged once more, on the labels; then the table holds those, and what they are held against


@dataclass(frozen=True, slots=True)
class Rise:
    """A rise of the loss that was found row by row and goes on. `began_s`: event time of its first row."""

    sentence: str
    began_s: float | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """A window's scores and what they come to, before any budget, floor or memory of earlier windows.

    `terms[i]` belongs to scores[i]: −log p + log weight, the common currency in which the scores compete; −inf where a
    score takes no part. `threshold` is what the window's largest term must exceed at the declared budget,
    `caution_threshold` the same at ten times the budget. `reason` set: nothing can be decided.
    """

    scores: tuple[Score, ...]
    terms: tuple[float, ...]
    p_value: float | None  # of the window, family-wise
    threshold: float | None
    caution_threshold: float | None
    reason: str | None = None
    quality: tuple[tuple[str, str, float, float], ...] = ()  # feature, check, share in the window, in the reference
    performance: tuple[tuple[Metric, float | None], ...] = ()  # by labels: in the window, in the reference
    estimates: tuple[tuple[Metric, float | None], ...] = ()  # the same without labels
    kind: kinds.Kind | None = None  # where a term is over the threshold
    figures: tuple[tuple[Metric, str], ...] = ()  # of the event's fields, each with its field
    rise: Rise | None = None  # of the loss, row by row, that was found or goes on in this window

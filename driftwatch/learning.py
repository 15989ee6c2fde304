"""Which rows of the stream a profile is learned from: runs of rows over a stretch of event time.

A state machine without clock or file. A shard's stretch begins with the middle one of its first three rows, so one
stray row moves nothing; all of it begins with the first shard's, or with an earlier one that is within the lateness of
it, whichever came first. What is kept then depends on each shard's own order alone.
"""

from dataclasses import dataclass, field
from math import inf

import msgspec
import numpy as np

from driftwatch.clock import Clock
from driftwatch.learned_rows import LearningChanges, Piece, Rows
from driftwatch.records import Mark, Records, Schema, Shard

RUN_ROWS = 1000  # neighbours that are kept or dropped together: what rows of a shard say of one another stays
MOST_ROWS = 200_000
ABSENT = 2  # the mark of a value that its event says nothing of


@dataclass
class _Shard:
    """What is known of a shard: its rows so far, the position below which all are, and its clock."""

    n_rows: int = 0
    read_to: int = 0
    times_s: tuple[float, ...] = ()
    first_times_s: list[float] = field(default_factory=list)
    is_done: bool = False
    is_at_end: bool = False  # every row that it had was added


class LearningState(msgspec.Struct):
    """How far learning is. `columns`: what is learned; another configuration begins anew."""

    version: str
    columns: list[tuple[str, str]]
    begun_s: float | None = None  # by the first shard's rows
    start_s: float | None = None
    end_s: float = inf
    every: int = 1  # runs whose number this divides are kept
    latest_s: float = -inf
    is_closed: bool = False  # it is complete, and no row is taken any more
    shards: dict[Shard, _Shard] = {}

    @property
    def n_rows(self) -> int:
        """Rows seen."""
        return sum(shard.n_rows for shard in self.shards.values())

    @property
    def n_kept(self) -> int:
        """Rows kept."""
        return sum(kept_of(shard.n_rows, self.every) for shard in self.shards.values())

    def share(self, learn_s: float) -> float:
        """How much of the stretch has passed, 0 to 1."""
        if self.start_s is None:
            return 0.0
        begun_s = self.end_s - learn_s
        return float(min(max((self.latest_s - begun_s) / learn_s, 0.0), 1.0))


def columns_of(schema: Schema) -> list[tuple[str, str]]:
    """Names and kinds of a schema's columns."""
    return [(column.name, column.kind) for column in schema.columns]


def kept_of(n_rows: int, every: int) -> int:
    """How many of a shard's first rows stand in runs that are kept."""
    runs, rest = divmod(n_rows, RUN_ROWS)
    return (runs + every - 1) // every * RUN_ROWS + (rest if runs % every == 0 else 0)


def decoded_state(data: bytes) -> LearningState:
    """The state as it was stored. Raises ValueError."""
    try:
        return msgspec.msgpack.decode(data, type=LearningState)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the state of learning must be whole; got {error}.") from error


@dataclass
class Learner:
    """Keeps rows of one version for `learn_s` of event time from the first one on.

    A shard is done when its clock has passed the end by `lateness_s`. Learning is, when every shard held is done or
    has no more rows for now, and `least_rows` are there: until then the end moves on by `learn_s`.
    """

    schema: Schema
    learn_s: float
    lateness_s: float
    least_rows: int
    state: LearningState
    _gone: set[Shard] = field(default_factory=set)  # read by others now
    _new: dict[tuple[Shard, int], list[tuple[int, Rows]]] = field(default_factory=dict)
    _stored_every: int = 1
    _is_changed: bool = False
    is_stopped: bool = False  # nothing is to be learned any more

    @classmethod
    def of(cls, schema: Schema, learn_s: float, lateness_s: float, least_rows: int, stored: bytes | None) -> "Learner":
        """Goes on from what is stored, where that is of the same version and columns. Raises ValueError."""
        state = None if stored is None else decoded_state(stored)
        if state is None or (state.version, state.columns) != (schema.version, columns_of(schema)):
            state = LearningState(schema.version, columns_of(schema))
        return cls(schema, learn_s, lateness_s, least_rows, state, _stored_every=state.every)

    # Shards -----------------------------------------------------------------------------------------------------------

    def assign(self, shard: Shard, *, anew: bool) -> None:
        """The shard is read from now on; `anew`: another log has its name, none of whose rows was learned."""
        self._gone.discard(shard)
        known = self.state.shards.setdefault(shard, _Shard())
        known.is_at_end = False
        if anew:
            known.read_to = 0

    def revoke(self, shard: Shard) -> None:
        """The shard is read no longer; what was learned of it stays, and is not learned again."""
        self._gone.add(shard)

    def at_end(self, shard: Shard) -> None:
        """Every row that the shard had was added."""
        if shard in self.state.shards and not self.state.shards[shard].is_at_end:
            self.state.shards[shard].is_at_end = True
            self._is_changed = True

    # Rows -------------------------------------------------------------------------------------------------------------

    def add(self, records: Records, *, ahead: np.ndarray, end: int) -> None:
        """Takes the rows of a batch that are to be learned from; `ahead`: those too far past their shard's clock."""
        if self.is_stopped or self.state.is_closed:
            return
        shard = self.state.shards.setdefault(records.shard, _Shard())
        shard.is_at_end, self._is_changed = False, True
        usable = records.positions >= shard.read_to
        shard.read_to = max(shard.read_to, end)
        if shard.is_done:
            return
        usable[ahead] = False
        usable &= is_of_version(records, self.schema) & has_features(records, self.schema)
        rows = np.flatnonzero(usable)
        if len(rows):
            self._take(shard, records, rows)

    def _take(self, shard: _Shard, records: Records, rows: np.ndarray) -> None:
        times_s, n_first = records.times_s[rows], 3 - len(shard.first_times_s)
        if n_first:
            shard.first_times_s += times_s[:n_first].tolist()
            if len(shard.first_times_s) == 3:
                self._begin(sorted(shard.first_times_s)[1])
        clock = Clock(shard.times_s)
        settled_s = clock.running(times_s)
        settled_s[: max(0, 2 - len(shard.times_s))] = -inf  # a clock of fewer than three rows can still go back
        past = np.flatnonzero(settled_s >= self.state.end_s + self.lateness_s)
        if len(past):
            shard.is_done = True
            rows, times_s = rows[: past[0]], times_s[: past[0]]
        shard.times_s = clock.after(times_s).times_s
        is_within = times_s < self.state.end_s
        is_within[:n_first] = True  # the end was not known to those before; they are sorted out in the end
        if len(kept := rows[is_within]):
            within_s = times_s[times_s < self.state.end_s]
            self.state.latest_s = max(self.state.latest_s, float(within_s.max(initial=-inf)))
            self._keep(shard, records, kept)

    def _begin(self, start_s: float) -> None:
        """A shard begins: where its stretch begins before all others', so does the whole."""
        state = self.state
        if state.begun_s is None or state.start_s is None:
            state.begun_s = state.start_s = start_s
            state.end_s = start_s + self.learn_s
        elif state.begun_s - self.lateness_s <= start_s < state.start_s:
            state.end_s -= state.start_s - start_s
            state.start_s = start_s

    def _keep(self, shard: _Shard, records: Records, rows: np.ndarray) -> None:
        first = shard.n_rows
        shard.n_rows += len(rows)
        while self.state.n_kept > MOST_ROWS:
            self.state.every *= 2
        for run in range(first // RUN_ROWS, (shard.n_rows - 1) // RUN_ROWS + 1):
            if run % self.state.every == 0:
                start, stop = max(run * RUN_ROWS, first), min((run + 1) * RUN_ROWS, shard.n_rows)
                chosen = Rows.of(records, rows[start - first : stop - first])
                self._new.setdefault((records.shard, run), []).append((start, chosen))

    # What is stored ---------------------------------------------------------------------------------------------------

    def changes(self) -> LearningChanges | None:
        """What to store since the last call; None where nothing changed."""
        if not self._is_changed or self.is_stopped:
            return None
        every = self.state.every
        pieces = [
            Piece(shard, run, start, rows.to_bytes())
            for (shard, run), some in self._new.items()
            if run % every == 0
            for start, rows in some
        ]
        thinned = every if every != self._stored_every else None
        self._new, self._stored_every, self._is_changed = {}, every, False
        return LearningChanges(msgspec.msgpack.encode(self.state), pieces, thinned)

    def stop(self) -> None:
        """Nothing is learned any more, and nothing of it stored."""
        self.is_stopped = True
        self._new.clear()

    def close(self) -> None:
        """Takes no row any more: a profile is built of those that are there."""
        self.state.is_closed = self._is_changed = True

    @property
    def is_complete(self) -> bool:
        """Whether the stretch has passed on every shard, and holds rows enough."""
        return self._has_passed and self.state.n_kept >= self.least_rows

    @property
    def is_too_short(self) -> bool:
        """Whether the stretch has passed with too few rows in it."""
        return self._has_passed and self.state.n_kept < self.least_rows

    @property
    def _has_passed(self) -> bool:
        shards = self.state.shards
        waits = [name for name, s in shards.items() if not (s.is_done or s.is_at_end or name in self._gone)]
        return not waits and any(s.is_done for s in shards.values())

    def go_on(self) -> None:
        """Moves the end on by as much again."""
        self.state.end_s += self.learn_s
        for shard in self.state.shards.values():
            shard.is_done = False
        self._is_changed = True


def is_of_version(records: Records, schema: Schema) -> np.ndarray:
    """Which rows are of the configured version, bool (n,)."""
    if records.versions is None:
        return np.ones(len(records), bool)
    return np.fromiter((version == schema.version for version in records.versions), bool, len(records))


def has_features(records: Records, schema: Schema) -> np.ndarray:
    """Which rows have features at all, bool (n,): an event without any says nothing of them."""
    present = np.ones(len(records), bool)
    first = next((c for c in schema.columns if c.group == "features"), None)
    if first is None or first.kind == "embedding":
        return present
    k = schema.of_kind(first.kind).index(first)
    if first.kind == "categorical":
        column = records.categories[k]
        if Mark.ABSENT in column:
            present = np.fromiter((value is not Mark.ABSENT for value in column), bool, len(records))
    elif len(records.marked):
        absent = (records.marks == ABSENT) & (records.marked[:, 1] == k)
        present[records.marked[absent, 0]] = False
    return present

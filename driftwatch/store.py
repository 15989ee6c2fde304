"""The store: one SQLite file in which positions move together with all that their rows changed.

`Store.save` is one transaction; what a crash leaves is the state after some save, in every table.
"""

import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from driftwatch.errors import StateError
from driftwatch.halves import Half, HalfKey, HalvesChanges, HalvesState, Read
from driftwatch.label_log import LabelChanges, LabelState
from driftwatch.learned_rows import LearningChanges
from driftwatch.outbox import Message
from driftwatch.store_labels import LossChanges, load_labels, load_losses, save_labels, save_losses
from driftwatch.store_outbox import StoredOutbox
from driftwatch.store_profiles import StoredProfiles, save_learning
from driftwatch.store_schema import connect, create_or_check, damaged, make_file, state_errors, transaction

DAY_S = 86_400.0
_PAGE_ROWS = 100  # decisions read at a time, so that a slow reader holds no snapshot of the file


class ShardRow(NamedTuple):
    """How far a shard was read (None = it is another's now), and the windower's state of it (opaque)."""

    position: int | None
    state: bytes


class PaneKey(NamedTuple):
    """Which pane: of a shard, a version, a number since the epoch, counted on the profile of that content hash."""

    shard: str
    version: str
    number: int
    profile: str


class PaneRow(NamedTuple):
    """A pane's bounds (event time), its first row's position, its rows and its table (opaque)."""

    start_s: float
    end_s: float
    first_position: int
    n_records: int
    body: bytes
    ledger: int = 0


class SeenChunk(NamedTuple):
    """Ids in the order in which a shard showed them; the first was its id number `first`."""

    shard: str
    first: int
    ids: Sequence[str]


class StoredDecision(NamedTuple):
    """A decision's line, and which part of which window it decides; by the window's end it ages."""

    version: str
    end_s: float
    part: int
    line: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """All that moves at once. What is not named stays as it is.

    `seen_from`: the shard's ids before this number are forgotten (whole chunks), before `seen` is written; a number
    beyond all forgets every one, for a shard that is counted anew. `halves`: which wait, and which wait no longer.
    `learning`: rows that a profile is learned from, and how far that is.
    `policy`: its state, opaque, as are those of `losses` that are followed row by row.
    """

    shards: Mapping[str, ShardRow] = field(default_factory=dict)
    panes: Mapping[PaneKey, PaneRow] = field(default_factory=dict)
    dropped: Sequence[PaneKey] = ()
    seen: Sequence[SeenChunk] = ()
    seen_from: Mapping[str, int] = field(default_factory=dict)
    policy: bytes | None = None
    decisions: Sequence[StoredDecision] = ()
    messages: Sequence[Message] = ()
    halves: HalvesChanges | None = None
    labels: LabelChanges | None = None
    learning: LearningChanges | None = None
    losses: LossChanges = field(default_factory=LossChanges)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a start goes on from.

    `seen` by shard and number; `policy` None before the first decision; `parts`: how many parts of a window (version,
    end) the kept decisions decide.
    """

    shards: dict[str, ShardRow] = field(default_factory=dict)
    panes: dict[PaneKey, PaneRow] = field(default_factory=dict)
    seen: list[SeenChunk] = field(default_factory=list)
    policy: bytes | None = None
    parts: dict[tuple[str, float], int] = field(default_factory=dict)
    halves: HalvesState = field(default_factory=HalvesState)
    labels: LabelState = field(default_factory=LabelState)
    losses: dict[tuple[str, str], bytes] = field(default_factory=dict)


class Store(StoredProfiles):
    """The open state file. `Store.open` makes one; every method raises StateError, StoreUnavailable among them."""

    def __init__(self, database: sqlite3.Connection, path: Path | None, store_id: str, keep_s: float) -> None:
        super().__init__(database, path, keep_s)
        self.store_id = store_id  # a UUID made with the file

    @classmethod
    def open(cls, path: Path | None, *, model: str, read_only: bool = False, keep_s: float = 30 * DAY_S) -> "Store":
        """Opens the file, makes it where it is missing; None = in memory.

        `read_only` is for a second process beside the one that writes. `keep_s`: how much event time of decisions
        is kept before the latest. The lock is the caller's (`lock.acquire`).
        """
        if path is not None and read_only and not path.exists():
            raise StateError(f"`state.path` must be an existing file; got {path}. It is made by `driftwatch run`.")
        if path is not None and not read_only:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StateError(
                    f"`state.path` must lie in a folder that can be made; got {path}: {error.strerror}. "
                    "Name another file, or mount a volume there."
                ) from error
        with state_errors(path):
            if path is not None and not path.exists():
                make_file(path, model)
            database = connect(path, read_only=read_only)
        try:
            with state_errors(path):
                store_id = create_or_check(database, path, model, read_only=read_only)
        except StateError:
            database.close()
            raise
        return cls(database, path, store_id, keep_s)

    def save(self, changes: Transaction) -> None:
        """Moves everything in one transaction; where it raises, nothing was changed."""
        with state_errors(self._path), transaction(self._database):
            self._save_counts(changes)
            if changes.halves is not None:
                self._save_halves(changes.halves)
            if changes.labels is not None:
                save_labels(self._database, changes.labels)
            save_losses(self._database, changes.losses)
            if changes.learning is not None:
                save_learning(self._database, changes.learning)
            if changes.policy is not None:
                self._database.execute("INSERT OR REPLACE INTO alarms VALUES (1, ?)", (changes.policy,))
            if changes.decisions:
                self._save_decisions(changes.decisions)
            self._database.executemany(
                "INSERT INTO outbox (id, target, alarm, body, created_s, due_s, attempts)"
                " VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6) ON CONFLICT DO NOTHING",
                ((m.id, m.target, m.alarm, m.body, m.created_s, m.attempts) for m in changes.messages),
            )

    def load(self) -> Remembered:
        """All that the last save left, but for decisions and messages. For the process that saves."""
        with state_errors(self._path):
            shards = self._database.execute("SELECT name, position, state FROM shards ORDER BY name")
            panes = self._database.execute(
                "SELECT shard, version, number, profile, start_s, end_s, first_position, n_records, body, ledger"
                " FROM panes"
                " ORDER BY start_s, version, shard, profile"
            )
            seen = self._database.execute("SELECT shard, first, ids FROM seen ORDER BY shard, first")
            policy = self._database.execute("SELECT state FROM alarms").fetchone()
            halves = self._database.execute(
                "SELECT source, id, kind, time_s, data, shard, position FROM halves ORDER BY seq"
            )
            clock = self._database.execute("SELECT times, read FROM halves_clock").fetchone()
            parts = self._database.execute("SELECT version, end_s, max(part) FROM decisions GROUP BY version, end_s")
            try:
                chunks = [SeenChunk(shard, first, _ids.decode(ids)) for shard, first, ids in seen]
                times_s, read = ((), {}) if clock is None else (_times.decode(clock[0]), _read.decode(clock[1]))
            except msgspec.MsgspecError as error:
                raise damaged(self._path, error) from error
            return Remembered(
                shards={name: ShardRow(position, state) for name, position, state in shards},
                panes={PaneKey(*row[:4]): PaneRow(*row[4:]) for row in panes},
                seen=chunks,
                policy=None if policy is None else policy[0],
                parts={(version, end_s): part for version, end_s, part in parts},
                halves=HalvesState({HalfKey(*row[:2]): Half(*row[2:]) for row in halves}, times_s, read),
                labels=load_labels(self._database, self._path),
                losses=load_losses(self._database),
            )

    def decisions(self, since_s: float | None = None) -> Iterator[bytes]:
        """The lines of the decisions in the order in which they were made; only of windows that end after `since_s`.

        Lazy: what is decided while it runs comes as well.
        """
        after = 0
        while True:
            with state_errors(self._path):
                rows = self._database.execute(
                    "SELECT seq, body FROM decisions WHERE seq > ? AND end_s > ? ORDER BY seq LIMIT ?",
                    (after, -1e300 if since_s is None else since_s, _PAGE_ROWS),
                ).fetchall()
            for seq, body in rows:
                after = seq
                try:
                    line = zlib.decompress(body)
                except zlib.error as error:
                    raise damaged(self._path, error) from error
                yield line
            if len(rows) < _PAGE_ROWS:
                return

    def profiles(self) -> StoredProfiles:
        """The profiles on a connection of their own, for another thread; also of a store that is open read-only."""
        if self._path is None:
            raise StateError("`state.path` must be a file to keep profiles in; got a store in memory. Name one.")
        with state_errors(self._path):
            return StoredProfiles(connect(self._path), self._path, self._keep_s)

    def outbox(self) -> StoredOutbox:
        """The outbox on a connection of its own, for another thread; also of a store that is open read-only."""
        if self._path is None:
            raise StateError("`state.path` must be a file to deliver webhooks from; got a store in memory. Name one.")
        with state_errors(self._path):
            return StoredOutbox(connect(self._path), self._path)

    def _save_counts(self, changes: Transaction) -> None:
        """Shards, panes and seen ids."""
        self._database.executemany(
            "INSERT INTO shards VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET position = excluded.position, state = excluded.state",
            ((name, *row) for name, row in changes.shards.items()),
        )
        self._database.executemany(
            "DELETE FROM panes WHERE shard = ? AND version = ? AND number = ? AND profile = ?", changes.dropped
        )
        self._database.executemany(
            "INSERT INTO panes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " start_s = excluded.start_s, end_s = excluded.end_s, first_position = excluded.first_position,"
            " n_records = excluded.n_records, body = excluded.body, ledger = excluded.ledger",
            ((*key, *row) for key, row in changes.panes.items()),
        )
        self._database.executemany("DELETE FROM seen WHERE shard = ? AND last < ?", changes.seen_from.items())
        self._database.executemany(
            "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)",
            ((c.shard, c.first, c.first + len(c.ids) - 1, _encoder.encode(c.ids)) for c in changes.seen),
        )

    def _save_halves(self, changes: HalvesChanges) -> None:
        self._database.executemany("DELETE FROM halves WHERE source = ? AND id = ?", changes.gone)
        self._database.executemany(
            "INSERT INTO halves (source, id, kind, time_s, data, shard, position) VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((*key, *half) for key, half in changes.waiting.items()),
        )
        clock = _encoder.encode(changes.times_s), _encoder.encode(changes.read)
        self._database.execute("INSERT OR REPLACE INTO halves_clock VALUES (1, ?, ?)", clock)

    def _save_decisions(self, decisions: Sequence[StoredDecision]) -> None:
        self._database.executemany(
            "INSERT INTO decisions (version, end_s, part, body) VALUES (?, ?, ?, ?)",
            ((d.version, d.end_s, d.part, zlib.compress(d.line, 1)) for d in decisions),
        )
        self._database.execute(
            "DELETE FROM decisions WHERE end_s < (SELECT max(end_s) FROM decisions) - ?", (self._keep_s,)
        )


_encoder = msgspec.msgpack.Encoder()
_ids = msgspec.msgpack.Decoder(list[str])
_times = msgspec.msgpack.Decoder(tuple[float, ...])
_read = msgspec.msgpack.Decoder(Read)

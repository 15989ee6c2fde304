"""The profiles that the state file keeps, which of them holds for a version, and the rows that one is learned from."""

import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, Self

from driftwatch.learned_rows import LearningChanges, Piece
from driftwatch.store_schema import state_errors, transaction


class Assignment(NamedTuple):
    """The profile on which a version's windows are counted that start at `since_s` or later.

    `origin`: the content hash of what it was simulated again from, for other windows; "" where it is as it came.
    """

    version: str
    since_s: float
    hash: str
    origin: str = ""


class Given(NamedTuple):
    """A profile that came while the sidecar ran, by PUT or by learning: the version's, before the configuration's.

    `beside`: the content of the configuration's own profile of that version at the time, "" where it named none: once
    that is another, it holds again. `in_use`: whether windows are counted on it, or it waits for that.
    """

    version: str
    hash: str
    beside: str
    in_use: bool


class StoredProfiles:
    """One connection's view of the profiles. Every method raises StateError, StoreUnavailable among them."""

    def __init__(self, database: sqlite3.Connection, path: Path | None, keep_s: float) -> None:
        self._database = database
        self._path = path
        self._keep_s = keep_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; every transaction before is in the file."""
        with state_errors(self._path):
            self._database.close()

    def assign(self, assignment: Assignment, body: bytes) -> None:
        """Keeps a profile and makes it the version's.

        The one before it is kept too: windows that start before `since_s` are counted on it. Older ones go, once no
        pane is counted on them.
        """
        with state_errors(self._path), transaction(self._database):
            self._assign(assignment, body)

    def _assign(self, assignment: Assignment, body: bytes) -> None:
        self._database.execute("INSERT OR IGNORE INTO profiles VALUES (?, ?)", (assignment.hash, body))
        self._database.execute("INSERT OR REPLACE INTO assignments VALUES (?, ?, ?, ?)", assignment)
        self._database.execute(
            "DELETE FROM assignments WHERE version = ?1 AND since_s NOT IN"
            " (SELECT since_s FROM assignments WHERE version = ?1 ORDER BY since_s DESC LIMIT 2)",
            (assignment.version,),
        )
        self._database.execute(
            "UPDATE given SET in_use = 1 WHERE version = ? AND hash = ?",
            (assignment.version, assignment.origin or assignment.hash),
        )
        self._drop_unneeded()

    def _drop_unneeded(self) -> None:
        self._database.execute(
            "DELETE FROM profiles WHERE hash NOT IN (SELECT hash FROM assignments)"
            " AND hash NOT IN (SELECT profile FROM panes) AND hash NOT IN (SELECT profile FROM label_windows)"
        )

    def current(self) -> list[Assignment]:
        """By version and time, at most two a version: the last holds from its `since_s` on, the other before that."""
        with state_errors(self._path):
            rows = self._database.execute(
                "SELECT version, since_s, hash, origin FROM assignments ORDER BY version, since_s"
            )
            return [Assignment(*row) for row in rows]

    def profile(self, content_hash: str) -> bytes | None:
        """A profile's bytes; None where no assignment or pane needs it."""
        with state_errors(self._path):
            row = self._database.execute("SELECT body FROM profiles WHERE hash = ?", (content_hash,)).fetchone()
        return None if row is None else bytes(row[0])

    # What comes while the sidecar runs --------------------------------------------------------------------------------

    def give(self, given: Given, body: bytes) -> None:
        """Keeps a profile that waits for its use, instead of another of its version. Safe against loss of power."""
        with state_errors(self._path):
            self._database.execute("PRAGMA synchronous = FULL")  # whoever gave it is told that it is kept
            try:
                with transaction(self._database):
                    self._database.execute(
                        "INSERT OR REPLACE INTO given VALUES (?, ?, ?, ?, ?)",
                        (given.version, given.hash, body, given.beside, given.in_use),
                    )
            finally:
                self._database.execute("PRAGMA synchronous = NORMAL")

    def given(self, *, waiting: bool = False) -> list[Given]:
        """The profiles given, by version; `waiting`: those that are not in use yet."""
        with state_errors(self._path):
            rows = self._database.execute(
                "SELECT version, hash, beside, in_use FROM given WHERE in_use <= ? ORDER BY version", (not waiting,)
            )
            return [Given(version, content_hash, beside, bool(used)) for version, content_hash, beside, used in rows]

    def given_body(self, version: str) -> bytes | None:
        """The bytes of a profile as it was given."""
        with state_errors(self._path):
            row = self._database.execute("SELECT body FROM given WHERE version = ?", (version,)).fetchone()
        return None if row is None else bytes(row[0])

    def take_back(self, version: str) -> None:
        """Forgets what was given for a version."""
        with state_errors(self._path), transaction(self._database):
            self._database.execute("DELETE FROM given WHERE version = ?", (version,))

    def prune(self, known: Collection[str]) -> list[str]:
        """Forgets the profiles of versions that were not used for as long as decisions are kept. → the versions

        A version is used while one of its decisions or panes is here, or its profile is younger than that; times are
        those of events. `known` are never forgotten: the configuration names them.
        """
        with state_errors(self._path), transaction(self._database):
            rows = self._database.execute(
                "SELECT version FROM assignments GROUP BY version"
                " HAVING max(since_s) < (SELECT max(end_s) FROM decisions) - ?"
                " AND version NOT IN (SELECT version FROM decisions) AND version NOT IN (SELECT version FROM panes)"
                " AND version NOT IN (SELECT version FROM given WHERE NOT in_use) ORDER BY version",
                (self._keep_s,),
            ).fetchall()
            unused = [version for (version,) in rows if version not in known]
            for table in ("assignments", "given"):
                self._database.executemany(f"DELETE FROM {table} WHERE version = ?", ((v,) for v in unused))
            if unused:
                self._drop_unneeded()
        return unused

    # What a profile is learned from ----------------------------------------------------------------------------------

    def learn(self, assignment: Assignment, body: bytes) -> None:
        """Keeps a learned profile, makes it the version's, and forgets the rows that it was learned from."""
        with state_errors(self._path), transaction(self._database):
            self._database.execute(
                "INSERT INTO given VALUES (?, ?, ?, '', 1) ON CONFLICT DO NOTHING",
                (assignment.version, assignment.hash, body),
            )
            self._assign(assignment, body)
            self._forget_learning()

    def forget_learning(self) -> None:
        """Forgets the rows that were kept to learn from."""
        with state_errors(self._path), transaction(self._database):
            self._forget_learning()

    def _forget_learning(self) -> None:
        self._database.execute("DELETE FROM learning")
        self._database.execute("DELETE FROM learned")

    def learning(self) -> bytes | None:
        """How far learning is (opaque); None where nothing was learned yet, or no more is."""
        with state_errors(self._path):
            row = self._database.execute("SELECT state FROM learning").fetchone()
        return None if row is None else bytes(row[0])

    def learned(self) -> list[Piece]:
        """The rows to learn from, by shard in their order."""
        with state_errors(self._path):
            rows = self._database.execute("SELECT shard, run, first, body FROM learned ORDER BY shard, first")
            return [Piece(*row) for row in rows]


def save_learning(database: sqlite3.Connection, changes: LearningChanges) -> None:
    """Adds rows, drops those of runs that are no longer kept, and moves the state, inside a transaction."""
    database.execute("INSERT OR REPLACE INTO learning VALUES (1, ?)", (changes.state,))
    if changes.every is not None:
        database.execute("DELETE FROM learned WHERE run % ? != 0", (changes.every,))
    database.executemany("INSERT INTO learned VALUES (?, ?, ?, ?)", changes.pieces)

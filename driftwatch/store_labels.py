"""The tables of late labels, and of losses row by row, in the state file."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from driftwatch.label_log import Entry, Kind, LabelChanges, LabelState
from driftwatch.store_schema import state_errors

_AT_ONCE = 20  # entries: of a full log all of them would take tens of megabytes


@dataclass(frozen=True, slots=True)
class LossChanges:
    """What to store of losses that are followed, by version and profile; and which are followed no more."""

    followed: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    gone: Sequence[tuple[str, str]] = ()


def save_labels(database: sqlite3.Connection, changes: LabelChanges) -> None:
    """Writes the changes, inside the caller's transaction."""
    freed = [(number,) for number in changes.freed]
    database.executemany("DELETE FROM label_ledgers WHERE number = ?", freed)
    database.executemany("DELETE FROM label_log WHERE ledger = ?", freed)
    settled = [(number, int(Kind.BESIDE)) for number in changes.settled]
    database.executemany("DELETE FROM label_log WHERE ledger = ? AND kind = ?", settled)
    database.execute("DELETE FROM label_log WHERE ledger = 0 AND expires <= ?", (changes.reached,))
    database.executemany("INSERT OR REPLACE INTO label_ledgers VALUES (?, ?)", changes.ledgers.items())
    database.executemany("INSERT INTO label_log (ledger, expires, kind, body) VALUES (?, ?, ?, ?)", changes.entries)
    database.executemany("DELETE FROM label_windows WHERE number = ?", [(number,) for number in changes.judged])
    database.executemany(
        "INSERT OR REPLACE INTO label_windows VALUES (?, ?, ?)", ((n, *row) for n, row in changes.windows.items())
    )
    database.execute("INSERT OR REPLACE INTO label_book VALUES (1, ?)", (changes.book,))


class StoredEntries:
    """The log's entries in their order, read from the file a few at a time, as often as they are asked for."""

    def __init__(self, database: sqlite3.Connection, path: Path | None) -> None:
        self._database, self._path = database, path

    def __iter__(self) -> Iterator[Entry]:
        last = -1
        while True:
            with state_errors(self._path):
                rows = self._database.execute(
                    "SELECT seq, ledger, expires, kind, body FROM label_log WHERE seq > ? ORDER BY seq LIMIT ?",
                    (last, _AT_ONCE),
                ).fetchall()
            if not rows:
                return
            yield from (Entry(*row) for _, *row in rows)
            last = rows[-1][0]


def save_losses(database: sqlite3.Connection, changes: LossChanges) -> None:
    """Writes the changes, inside the caller's transaction; what is written anew comes last from then on."""
    database.executemany("DELETE FROM losses WHERE (version, profile) = (?, ?)", changes.gone)
    rows = ((*key, state) for key, state in changes.followed.items())
    database.executemany("INSERT OR REPLACE INTO losses VALUES (?, ?, ?)", rows)


def load_losses(database: sqlite3.Connection) -> dict[tuple[str, str], bytes]:
    """All that the last save left, what was written last at the end."""
    found = database.execute("SELECT version, profile, state FROM losses ORDER BY rowid")
    return {(version, profile): state for version, profile, state in found}


def load_labels(database: sqlite3.Connection, path: Path | None) -> LabelState:
    """All that the last save left."""
    book = database.execute("SELECT state FROM label_book").fetchone()
    return LabelState(
        ledgers=dict(database.execute("SELECT number, state FROM label_ledgers ORDER BY number")),
        windows={
            n: row for n, *row in database.execute("SELECT number, profile, body FROM label_windows ORDER BY number")
        },
        entries=StoredEntries(database, path),
        book=None if book is None else book[0],
    )

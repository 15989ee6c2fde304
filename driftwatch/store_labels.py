"""The tables of late labels, and of losses row by row, in the state file."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from driftwatch.label_log import Entry, Kind, LabelChanges, LabelState


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


def save_losses(database: sqlite3.Connection, changes: LossChanges) -> None:
    """Writes the changes, inside the caller's transaction; what is written anew comes last from then on."""
    database.executemany("DELETE FROM losses WHERE (version, profile) = (?, ?)", changes.gone)
    rows = ((*key, state) for key, state in changes.followed.items())
    database.executemany("INSERT OR REPLACE INTO losses VALUES (?, ?, ?)", rows)


def load_losses(database: sqlite3.Connection) -> dict[tuple[str, str], bytes]:
    """All that the last save left, what was written last at the end."""
    found = database.execute("SELECT version, profile, state FROM losses ORDER BY rowid")
    return {(version, profile): state for version, profile, state in found}


def load_labels(database: sqlite3.Connection) -> LabelState:
    """All that the last save left."""
    book = database.execute("SELECT state FROM label_book").fetchone()
    entries = database.execute("SELECT ledger, expires, kind, body FROM label_log ORDER BY seq")
    return LabelState(
        ledgers=dict(database.execute("SELECT number, state FROM label_ledgers ORDER BY number")),
        windows={
            n: row for n, *row in database.execute("SELECT number, profile, body FROM label_windows ORDER BY number")
        },
        entries=tuple(Entry(*row) for row in entries),
        book=None if book is None else book[0],
    )

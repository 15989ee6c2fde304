"""The tables of late labels in the state file."""

import sqlite3

from driftwatch.label_log import Entry, Kind, LabelChanges, LabelState


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

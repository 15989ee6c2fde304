"""The state file: its tables, how it is opened, and what its failures mean.

SQLite in WAL mode with `synchronous = NORMAL`: a committed transaction survives SIGKILL; a power cut may take the last
ones, each whole. WAL needs a local or block volume, not NFS.
"""

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driftwatch.errors import StateError, StoreUnavailable

SCHEMA_VERSION = 6
BUSY_TIMEOUT_S = 1.0  # how long a transaction waits for another connection's
CACHE_KIB = 500  # of pages: a transaction adds to the end of a few tables, and reads next to nothing
_APPLICATION_ID = 0x44524654  # "DRFT", in the file's header

_TABLES = (
    "CREATE TABLE meta (store_id TEXT NOT NULL, model TEXT NOT NULL)",
    "CREATE TABLE profiles (hash TEXT PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE assignments (version TEXT, since_s REAL, hash TEXT NOT NULL, origin TEXT NOT NULL,"
    " PRIMARY KEY (version, since_s))",
    "CREATE TABLE given (version TEXT PRIMARY KEY, hash TEXT NOT NULL, body BLOB NOT NULL, beside TEXT NOT NULL,"
    " in_use INTEGER NOT NULL)",
    "CREATE TABLE learning (one INTEGER PRIMARY KEY CHECK (one = 1), state BLOB NOT NULL)",
    "CREATE TABLE learned (shard TEXT, run INTEGER, first INTEGER, body BLOB NOT NULL, PRIMARY KEY (shard, first))",
    "CREATE TABLE shards (name TEXT PRIMARY KEY, position INTEGER, state BLOB NOT NULL)",
    "CREATE TABLE panes (shard TEXT, version TEXT, number INTEGER, profile TEXT, start_s REAL NOT NULL,"
    " end_s REAL NOT NULL, first_position INTEGER NOT NULL, n_records INTEGER NOT NULL, body BLOB NOT NULL,"
    " ledger INTEGER NOT NULL,"
    " PRIMARY KEY (shard, version, number, profile))",
    "CREATE TABLE seen (shard TEXT, first INTEGER, last INTEGER NOT NULL, ids BLOB NOT NULL,"
    " PRIMARY KEY (shard, first))",
    "CREATE TABLE halves (seq INTEGER PRIMARY KEY, source TEXT NOT NULL, id TEXT NOT NULL,"
    " kind TEXT NOT NULL, time_s REAL NOT NULL, data BLOB NOT NULL, shard TEXT NOT NULL, position INTEGER NOT NULL,"
    " UNIQUE (source, id))",
    "CREATE TABLE halves_clock (one INTEGER PRIMARY KEY CHECK (one = 1), times BLOB NOT NULL, read BLOB NOT NULL)",
    "CREATE TABLE label_ledgers (number INTEGER PRIMARY KEY, state BLOB NOT NULL)",
    "CREATE TABLE label_log (seq INTEGER PRIMARY KEY, ledger INTEGER NOT NULL, expires INTEGER NOT NULL,"
    " kind INTEGER NOT NULL, body BLOB NOT NULL)",
    "CREATE INDEX label_log_ledger ON label_log (ledger, expires)",
    "CREATE TABLE label_windows (number INTEGER PRIMARY KEY, profile TEXT NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE label_book (one INTEGER PRIMARY KEY CHECK (one = 1), state BLOB NOT NULL)",
    "CREATE TABLE losses (version TEXT, profile TEXT, state BLOB NOT NULL, PRIMARY KEY (version, profile))",
    "CREATE TABLE alarms (one INTEGER PRIMARY KEY CHECK (one = 1), state BLOB NOT NULL)",
    "CREATE TABLE decisions (seq INTEGER PRIMARY KEY, version TEXT NOT NULL, end_s REAL NOT NULL,"
    " part INTEGER NOT NULL, body BLOB NOT NULL)",
    "CREATE INDEX decisions_end ON decisions (end_s)",
    "CREATE INDEX decisions_window ON decisions (version, end_s, part)",
    "CREATE TABLE outbox (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, target TEXT NOT NULL, alarm TEXT NOT NULL,"
    " body BLOB NOT NULL, created_s REAL NOT NULL, due_s REAL NOT NULL, attempts INTEGER NOT NULL,"
    " error TEXT, set_aside TEXT, UNIQUE (id, target))",
    "CREATE INDEX outbox_alarm ON outbox (target, alarm)",
)

_MAY_PASS = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
}


@contextmanager
def state_errors(path: Path | None) -> Iterator[None]:
    """Maps SQLite's errors: StoreUnavailable where trying again may help, else StateError."""
    try:
        yield
    except UnicodeDecodeError as error:  # SQLite quotes the broken bytes in its own message
        raise damaged(path, error) from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF  # the low byte names the family
        if code in _MAY_PASS:
            raise StoreUnavailable(
                f"`state.path` must be readable and writable, with room to grow; got {path}: {error}. "
                "Nothing was changed; free space, check the folder's permissions, or end what holds it, and try again."
            ) from error
        raise damaged(path, error) from error


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Everything inside, or nothing of it."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    finally:
        if database.in_transaction:
            database.execute("ROLLBACK")


def damaged(path: Path | None, what: Exception | str) -> StateError:
    """What to raise for a file that holds something else than what was written."""
    return StateError(
        f"`state.path` must be a sound driftwatch state; got {path}: {what}. "
        "Move the file away to begin anew, or put back a copy."
    )


def connect(path: Path | None, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode; None = a database in memory. Any one thread at a time may use it."""
    if path is None:
        return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    uri = path.absolute().as_uri() + ("?mode=ro" if read_only else "?mode=rwc")
    database = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    try:
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    except (sqlite3.Error, UnicodeDecodeError):
        database.close()
        raise
    return database


def make_file(path: Path, model: str) -> None:
    """Makes a new state file whole, or none: whoever looks meanwhile, or after a kill, finds no half of one."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        database = connect(beside)
        try:
            with transaction(database):
                _create(database, model)
        finally:
            database.close()
        beside.replace(path)
    except OSError as error:
        raise StoreUnavailable(
            f"`state.path` must lie in a folder that can be written; got {path}: {error.strerror}. "
            "Name another file, or mount a volume there."
        ) from error


def create_or_check(database: sqlite3.Connection, path: Path | None, model: str, *, read_only: bool) -> str:
    """Makes the tables of an empty file, or checks that the file is a state of this schema and model. → its store id"""
    if not read_only:
        database.execute("PRAGMA journal_mode = WAL")
        with transaction(database):
            if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                _create(database, model)
    (application_id,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if application_id != _APPLICATION_ID:
        raise StateError(
            f"`state.path` must be a driftwatch state; got {path}, which is empty or another program's database. "
            "Name another file."
        )
    if version != SCHEMA_VERSION:
        raise StateError(
            f"`state.path` must have schema {SCHEMA_VERSION}; got schema {version} in {path}. "
            f"Use the {'newer' if version > SCHEMA_VERSION else 'older'} driftwatch that wrote it, or another file."
        )
    meta = database.execute("SELECT store_id, model FROM meta").fetchall()
    if len(meta) != 1:
        raise damaged(path, f"{len(meta)} rows in `meta`")
    ((store_id, owner),) = meta
    if owner != model:
        raise StateError(
            f"`state.path` must belong to the model {model!r}; got {path}, which is of {owner!r}. "
            "Give each model a file of its own."
        )
    return str(store_id)


def _create(database: sqlite3.Connection, model: str) -> None:
    for statement in _TABLES:
        database.execute(statement)
    database.execute("INSERT INTO meta VALUES (?, ?)", (str(uuid.uuid4()), model))
    database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

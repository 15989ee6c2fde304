"""The state file: one SQLite file for hooks, alarms, jobs, versions, aliases, rollouts and servers.

WAL with `synchronous = NORMAL`: a committed transaction survives SIGKILL. Several processes of one machine use it (the
service, the command line); what may race is decided inside a transaction. WAL needs a local or block volume, not NFS.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelops.errors import StateError, StateUnavailable

SCHEMA_VERSION = 2
BUSY_TIMEOUT_S = 10.0
_APPLICATION_ID = 0x4D4F5053  # "MOPS", in the file's header

_TABLES = (
    "CREATE TABLE hooks (id TEXT PRIMARY KEY, received_s REAL NOT NULL, job TEXT, said TEXT NOT NULL)",
    "CREATE INDEX hooks_received ON hooks (received_s)",
    "CREATE TABLE alarms (id TEXT PRIMARY KEY, model TEXT NOT NULL, job TEXT, opened_s REAL, told_s REAL NOT NULL,"
    " is_over INTEGER NOT NULL DEFAULT 0, body BLOB)",
    "CREATE INDEX alarms_open ON alarms (model, opened_s) WHERE NOT is_over",
    "CREATE INDEX alarms_job ON alarms (job)",
    "CREATE INDEX alarms_told ON alarms (told_s)",
    "CREATE TABLE jobs (id TEXT PRIMARY KEY, model TEXT NOT NULL, state TEXT NOT NULL, alarm TEXT NOT NULL,"
    " created_s REAL NOT NULL, due_s REAL NOT NULL, owner TEXT, lease_until_s REAL, body BLOB NOT NULL)",
    "CREATE INDEX jobs_model ON jobs (model, created_s)",
    "CREATE INDEX jobs_covered ON jobs (model) WHERE state = 'recorded' AND body ->> '$.covered_by' IS NOT NULL",
    "CREATE INDEX jobs_retries ON jobs (body ->> '$.retry_of')",
    "CREATE INDEX jobs_due ON jobs (due_s) WHERE state IN ('queued', 'running', 'waiting_for_labels')",
    "CREATE TABLE versions (model TEXT NOT NULL, version INTEGER NOT NULL, job TEXT NOT NULL, created_s REAL NOT NULL,"
    " mirrored INTEGER NOT NULL DEFAULT 0, body BLOB NOT NULL, PRIMARY KEY (model, version), UNIQUE (model, job))",
    "CREATE TABLE aliases (model TEXT NOT NULL, alias TEXT NOT NULL, version INTEGER NOT NULL,"
    " revision INTEGER NOT NULL, mirrored INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (model, alias))",
    "CREATE TABLE rollouts (id TEXT PRIMARY KEY, model TEXT NOT NULL, is_open INTEGER NOT NULL, command TEXT,"
    " body BLOB NOT NULL)",
    "CREATE UNIQUE INDEX one_rollout ON rollouts (model) WHERE is_open",
    "CREATE TABLE servers (model TEXT NOT NULL, version INTEGER NOT NULL, port INTEGER NOT NULL, pid INTEGER NOT NULL,"
    " PRIMARY KEY (model, version))",
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
def state_errors(path: Path) -> Iterator[None]:
    """Maps SQLite's errors: StateUnavailable where trying again may help, else StateError."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF
        if code in _MAY_PASS:
            raise StateUnavailable(
                f"the state must be readable and writable, with room to grow; got {path}: {error}. Nothing was "
                "changed; free space, check the folder's permissions, or end what holds it, and try again."
            ) from error
        raise StateError(f"the state must be a sound modelops state; got {path}: {error}.") from error


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Everything inside, or nothing of it; two such never overlap."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    finally:
        if database.in_transaction:
            database.execute("ROLLBACK")


def connect(path: Path, *, busy_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """The state file, made where it is missing. Raises StateError. Any one thread at a time may use it.

    `busy_s`: how long another one's lock is waited for.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateUnavailable(
            f"`state.folder` must be a folder that can be made; got {path.parent}: {error.strerror}. Name another."
        ) from error
    with state_errors(path):
        database = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            with transaction(database):
                if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                    for statement in _TABLES:
                        database.execute(statement)
                    database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            _check(database, path)
        except (sqlite3.Error, StateError):
            database.close()
            raise
    return database


def _check(database: sqlite3.Connection, path: Path) -> None:
    (application_id,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if application_id != _APPLICATION_ID:
        raise StateError(f"the state must be a modelops state; got {path}, another program's database. Name another.")
    if version != SCHEMA_VERSION:
        raise StateError(
            f"the state must have schema {SCHEMA_VERSION}; got {version} in {path}. Use the modelops of it."
        )


def lock(path: Path) -> int:
    """Takes a lock that the kernel frees when this process dies. Raises StateError where another one holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip() or "another process"
        os.close(descriptor)
        raise StateError(f"{path}: held by process {holder}. End that one, or name another `state.folder`.") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor

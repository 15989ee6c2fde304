"""The store's outbox as the delivery thread sees it: short transactions on a connection of its own."""

import sqlite3
from pathlib import Path
from threading import Lock
from typing import Any

from driftwatch.errors import StateError
from driftwatch.outbox import Message, SetAside
from driftwatch.store_schema import state_errors

LONGEST_WAIT_S = 3600.0 + 60.0
"""Nothing is put off for longer: what is due later than that was put off before the machine's clock was set back."""


class StoredOutbox:
    """Messages to deliver, in the order of their creation. Any thread may call; calls follow one another.

    Every method is one transaction and raises StateError, StoreUnavailable among them, having changed nothing.
    """

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self._path = path
        self._lock = Lock()

    def due(self, now_s: float) -> list[Message]:
        """The messages whose time has come, oldest first; also those put off for so long that the clock was set back.

        A message stays back while an earlier one of its target and alarm waits on: `resolved` never overtakes `opened`.
        """
        rows = self._run(
            "SELECT id, target, body, created_s, attempts FROM outbox WHERE set_aside IS NULL"
            " AND (due_s <= ?1 OR due_s > ?2)"
            " AND NOT EXISTS (SELECT 1 FROM outbox AS earlier WHERE earlier.target = outbox.target"
            " AND earlier.alarm = outbox.alarm AND earlier.set_aside IS NULL AND earlier.seq < outbox.seq"
            " AND earlier.due_s > ?1 AND earlier.due_s <= ?2) ORDER BY seq",
            now_s,
            now_s + LONGEST_WAIT_S,
        )
        return [Message(*row) for row in rows]

    def next_due_s(self) -> float | None:
        """The earliest time at which `due` answers anything; None = nothing waits."""
        ((due_s,),) = self._run(
            "SELECT min(due_s) FROM (SELECT max(due_s) OVER (PARTITION BY target, alarm ORDER BY seq) AS due_s"
            " FROM outbox WHERE set_aside IS NULL)"
        )
        return None if due_s is None else float(due_s)

    def delivered(self, id: str, target: str) -> None:
        """The target has it: forget it."""
        self._run("DELETE FROM outbox WHERE id = ? AND target = ?", id, target)

    def retry(self, id: str, target: str, *, at_s: float, attempts: int, error: str) -> None:
        """It failed for now: due again at `at_s`."""
        self._run(
            "UPDATE outbox SET due_s = ?, attempts = ?, error = ? WHERE id = ? AND target = ?",
            at_s,
            attempts,
            error,
            id,
            target,
        )

    def set_aside(self, id: str, target: str, *, reason: str) -> None:
        """It is not tried any more; those behind it are free to go."""
        self._run("UPDATE outbox SET set_aside = ? WHERE id = ? AND target = ?", reason, id, target)

    def put_back(self, id: str, target: str, *, now_s: float) -> None:
        """Makes a message that was set aside as good as new: due now, and its age counts from now."""
        rows = self._run(
            "UPDATE outbox SET set_aside = NULL, error = NULL, attempts = 0, created_s = ?1, due_s = ?1"
            " WHERE id = ?2 AND target = ?3 AND set_aside IS NOT NULL RETURNING id",
            now_s,
            id,
            target,
        )
        if not rows:
            raise StateError(
                f"`id` must be of a webhook that was set aside; got {id!r} for {target!r}. "
                "`driftwatch dlq list` names them."
            )

    def list_set_aside(self) -> list[SetAside]:
        """What was set aside, oldest first."""
        rows = self._run(
            "SELECT id, target, body, created_s, attempts, set_aside FROM outbox"
            " WHERE set_aside IS NOT NULL ORDER BY seq"
        )
        return [SetAside(Message(*row[:5]), row[5]) for row in rows]

    def close(self) -> None:
        """Closes the connection."""
        with self._lock, state_errors(self._path):
            self._database.close()

    def _run(self, statement: str, *values: float | str) -> list[Any]:
        with self._lock, state_errors(self._path):
            return self._database.execute(statement, values).fetchall()

"""Rollouts in the state file: one open at a time for each model, with the command that a person gave it."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from modelops.errors import StateError
from modelops.rollout import Command, Rollout
from modelops.state import state_errors, transaction


class Rollouts:
    """Every method is one transaction and raises StateError; `insert` is for within another one's."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self._path = path

    def insert(self, rollout: Rollout) -> None:
        """Keeps one that begins, in the caller's transaction; one of its id that is there stays."""
        self._database.execute(
            "INSERT INTO rollouts (id, model, is_open, body) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            (rollout.id, rollout.model, rollout.is_open, _encode(rollout)),
        )

    def add(self, rollout: Rollout) -> None:
        """Keeps one that begins. Raises StateError where another one of the model is open."""
        with state_errors(self._path), transaction(self._database):
            if self._open(rollout.model) is not None:
                raise StateError(f"a rollout of {rollout.model!r} is open; abort it, or wait for its end.")
            self.insert(rollout)

    def open(self, model: str) -> tuple[Rollout, Command | None] | None:
        """The open rollout of a model and its command."""
        with state_errors(self._path):
            return self._open(model)

    def save(self, rollout: Rollout, obeyed: Command | None, and_then: Callable[[], None] | None = None) -> None:
        """Keeps a rollout as it is now, and takes this command as obeyed; one that came since stays."""
        with state_errors(self._path), transaction(self._database):
            self._database.execute(
                "UPDATE rollouts SET is_open = ?, command = nullif(command, ?), body = ? WHERE id = ?",
                (rollout.is_open, obeyed, _encode(rollout), rollout.id),
            )
            if and_then is not None:
                and_then()

    def command(self, model: str, command: Command) -> Rollout:
        """Gives the open rollout of a model a command. Raises StateError where none is open."""
        with state_errors(self._path), transaction(self._database):
            found = self._open(model)
            if found is None:
                raise StateError(f"no rollout of {model!r} is open; see `modelops rollout list`.")
            self._database.execute("UPDATE rollouts SET command = ? WHERE id = ?", (command, found[0].id))
            return found[0]

    def rollouts(self, model: str | None = None, limit: int = 100) -> list[Rollout]:
        """The latest rollouts, newest first."""
        with state_errors(self._path):
            rows = self._database.execute(
                "SELECT body FROM rollouts WHERE ?1 IS NULL OR model = ?1 ORDER BY rowid DESC LIMIT ?2", (model, limit)
            )
            return [_decode(body) for (body,) in rows]

    def _open(self, model: str) -> tuple[Rollout, Command | None] | None:
        row = self._database.execute(
            "SELECT body, command FROM rollouts WHERE model = ? AND is_open", (model,)
        ).fetchone()
        return None if row is None else (_decode(row[0]), row[1])


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Rollout).decode

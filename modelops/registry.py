"""The registry: immutable versions with their lineage, and the aliases champion, challenger and previous.

An alias moves by compare-and-swap in modelops' own state, which MLflow has not; `tracking` mirrors both to MLflow.
"""

import sqlite3
from pathlib import Path
from typing import Literal

import msgspec

from modelops.errors import StateError
from modelops.state import state_errors, transaction

Alias = Literal["champion", "challenger", "previous"]


class Version(msgspec.Struct, frozen=True):
    """A version and where it comes from. `n_train`: the snapshot's first rows, on which it was fitted; the others are
    its hold-out. `version` 0 before it is registered. `how`: full, incremental, transfer or recalibration;
    `learnt_to_s`: the event time up to which it has learnt; `parameters`: those that a search chose."""

    model: str
    job: str
    alarm: str | None
    created_s: float
    recipe: str
    kind: str
    snapshot: str
    snapshot_path: str
    n_rows: int
    n_train: int
    artifact: str
    sha256: str
    profile: str
    profile_hash: str
    metrics: dict[str, float]
    parent: int | None = None
    how: str = "full"
    learnt_to_s: float | None = None
    parameters: dict[str, int | float | str | bool | None] = {}
    version: int = 0


class Registry:
    """Versions and aliases in the state file. Every method is one transaction and raises StateError."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self._path = path

    def next_version(self, model: str, job: str) -> int:
        """The number that a job's version gets or has."""
        with state_errors(self._path):
            row = self._database.execute(
                "SELECT version FROM versions WHERE model = ?1 AND job = ?2 UNION ALL"
                " SELECT coalesce(max(version), 0) + 1 FROM versions WHERE model = ?1 LIMIT 1",
                (model, job),
            ).fetchone()
            return int(row[0])

    def register(self, version: Version) -> Version:
        """Keeps a version under the next number; the version of a job that has one already is given back."""
        with state_errors(self._path), transaction(self._database):
            row = self._database.execute(
                "SELECT body FROM versions WHERE model = ? AND job = ?", (version.model, version.job)
            ).fetchone()
            if row is not None:
                return _decode(row[0])
            (number,) = self._database.execute(
                "SELECT coalesce(max(version), 0) + 1 FROM versions WHERE model = ?", (version.model,)
            ).fetchone()
            kept = msgspec.structs.replace(version, version=number)
            self._database.execute(
                "INSERT INTO versions (model, version, job, created_s, body) VALUES (?, ?, ?, ?, ?)",
                (kept.model, number, kept.job, kept.created_s, _encode(kept)),
            )
            return kept

    def get(self, model: str, version: int) -> Version:
        """A version. Raises StateError where there is none."""
        with state_errors(self._path):
            row = self._database.execute(
                "SELECT body FROM versions WHERE model = ? AND version = ?", (model, version)
            ).fetchone()
        if row is None:
            raise StateError(f"the registry has no version {version} of {model!r}; see `modelops registry list`.")
        return _decode(row[0])

    def versions(self, model: str) -> list[Version]:
        """All versions of a model, newest first."""
        with state_errors(self._path):
            rows = self._database.execute("SELECT body FROM versions WHERE model = ? ORDER BY version DESC", (model,))
            return [_decode(body) for (body,) in rows]

    def alias(self, model: str, alias: Alias) -> int | None:
        """Which version an alias names."""
        with state_errors(self._path):
            row = self._database.execute(
                "SELECT version FROM aliases WHERE model = ? AND alias = ?", (model, alias)
            ).fetchone()
            return None if row is None else int(row[0])

    def aliases(self, model: str) -> dict[str, int]:
        """The aliases of a model."""
        with state_errors(self._path):
            return dict(self._database.execute("SELECT alias, version FROM aliases WHERE model = ?", (model,)))

    def swap(self, model: str, *, expected: int | None, champion: int) -> bool:
        """Makes a version the champion if `expected` still is it (None: there is none), and that one `previous`.

        True also where the version is the champion already, as after a crash between doing and noting it.
        """
        with state_errors(self._path), transaction(self._database):
            now = self._alias(model, "champion")
            if now == champion:
                return True
            if now != expected:
                return False
            self._exists(model, champion)
            self._set(model, "champion", champion)
            if now is not None:
                self._set(model, "previous", now)
            if self._alias(model, "challenger") == champion:
                self._database.execute("DELETE FROM aliases WHERE model = ? AND alias = 'challenger'", (model,))
            return True

    def challenge(self, model: str, version: int | None) -> None:
        """Names the challenger; None: there is none any more."""
        if self.alias(model, "challenger") == version:
            return  # so that a tick that changes nothing waits for no lock
        with state_errors(self._path), transaction(self._database):
            if version is None:
                self._database.execute("DELETE FROM aliases WHERE model = ? AND alias = 'challenger'", (model,))
            elif self._alias(model, "challenger") != version:
                self._exists(model, version)
                self._set(model, "challenger", version)

    def is_mirrored(self) -> bool:
        """Whether MLflow has every version and alias."""
        with state_errors(self._path):
            row = self._database.execute(
                "SELECT (SELECT count(*) FROM versions WHERE mirrored = 0)"
                " + (SELECT count(*) FROM aliases WHERE mirrored < revision)"
            ).fetchone()
            return bool(row[0] == 0)

    def _alias(self, model: str, alias: Alias) -> int | None:
        row = self._database.execute(
            "SELECT version FROM aliases WHERE model = ? AND alias = ?", (model, alias)
        ).fetchone()
        return None if row is None else int(row[0])

    def _exists(self, model: str, version: int) -> None:
        found = self._database.execute(
            "SELECT 1 FROM versions WHERE model = ? AND version = ?", (model, version)
        ).fetchone()
        if found is None:
            raise StateError(f"the registry has no version {version} of {model!r}; see `modelops registry list`.")

    def _set(self, model: str, alias: Alias, version: int) -> None:
        self._database.execute(
            "INSERT INTO aliases (model, alias, version, revision) VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE"
            " SET version = excluded.version, revision = revision + 1",
            (model, alias, version),
        )


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Version).decode

"""The prediction log: one JSON event a line, as driftwatch reads it. Several processes append to one file.

It is rotated: `NAME.jsonl` becomes `NAME.000001.jsonl`, and a new file begins. A lock beside it is shared by those who
write or read and is taken alone for the moment of the renaming: once a file has been renamed nothing is written to it.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from modelops.errors import DataError, StateUnavailable

LOCK_TRIES, LOCK_PAUSE_S = 50, 0.02


class PredictionLog:
    """Appends whole lines with one `write` each time: with O_APPEND those of several processes do not mix.

    A file of `max_bytes` is rotated; None: it grows.
    """

    def __init__(self, path: Path, max_bytes: int | None = None) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._is_torn = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _open_lock(path)
            self._descriptor = self._open()
        except OSError as error:
            raise StateUnavailable(f"{path}: the prediction log cannot be written: {error.strerror}.") from error

    def append(self, events: list[dict[str, Any]]) -> None:
        """Writes events; where it raises StateUnavailable, some may be there and the next write begins a line."""
        data = b"".join(msgspec.json.encode(event) + b"\n" for event in events)
        try:
            with _locked(self._lock, fcntl.LOCK_SH, self._path):
                self._follow()
                if self._is_torn:
                    data = b"\n" + data
                written = os.write(self._descriptor, data)
            self._is_torn = written < len(data)
            self._rotate()
        except OSError as error:
            raise StateUnavailable(f"{self._path}: cannot be written: {error.strerror}. Free space there.") from error
        if self._is_torn:
            raise StateUnavailable(f"{self._path}: only a part could be written. Free space there.")

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)
        os.close(self._lock)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _follow(self) -> None:
        """Opens the file that took the place of one that was renamed, maybe by another process."""
        if not self._is_in_place():
            os.close(self._descriptor)
            self._descriptor = self._open()
            self._is_torn = False

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        """Renames a file that is full, unless somebody writes or reads just now: then the next write does it."""
        if self._max_bytes is None or os.fstat(self._descriptor).st_size < self._max_bytes:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        try:
            if self._is_in_place():
                number = max(rotated(self._path), default=0) + 1
                self._path.rename(self._path.with_name(f"{self._path.stem}.{number:06}{self._path.suffix}"))
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


def shadow_log(path: Path) -> Path:
    """Where the answers to mirrored requests go: they have their twins' ids, which one log must not hold twice."""
    return path.with_name(f"{path.stem}.shadow{path.suffix}")


def rotated(path: Path) -> dict[int, Path]:
    """The files that the log had before, by number, the oldest first."""
    named = re.compile(re.escape(path.stem) + r"\.([0-9]{6,})" + re.escape(path.suffix))
    try:
        found = {
            int(match[1]): path.parent / name for name in os.listdir(path.parent) if (match := named.fullmatch(name))
        }
    except FileNotFoundError:
        return {}
    return dict(sorted(found.items()))


def delete(path: Path, file: Path) -> bool:
    """Deletes one of the log's old files; whether it did: not while somebody reads, and only once."""
    lock = _open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(lock)  # and with it the lock
    return True


@contextmanager
def steady(path: Path) -> Iterator[list[Path]]:
    """The log's files in order of time; meanwhile none is renamed or deleted. Raises DataError."""
    if not path.parent.is_dir():
        yield [path]
        return
    try:
        lock = _open_lock(path)
    except OSError as error:
        raise DataError(f"{path}: its lock cannot be opened: {error.strerror}. It must be writable.") from error
    try:
        with _locked(lock, fcntl.LOCK_SH, path):
            yield [*rotated(path).values(), path]
    finally:
        os.close(lock)


def open_numbered(path: Path, number: int) -> tuple[int, BinaryIO | None, bool]:
    """The first file of the log that is there from a number on: (its number, the file, whether more is written to it).

    None where nothing was written yet. Raises DataError.
    """
    with steady(path):
        before = rotated(path)
        for at, file in before.items():
            if at >= number:
                return at, file.open("rb"), False
        at = max(before, default=0) + 1
        return at, path.open("rb") if path.exists() else None, True


def _open_lock(path: Path) -> int:
    return os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)


@contextmanager
def _locked(lock: int, how: int, path: Path) -> Iterator[None]:
    """Holds the lock. Raises StateUnavailable where another one holds it for a second: it was stopped in between."""
    for attempt in range(LOCK_TRIES):
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if attempt + 1 < LOCK_TRIES:
                time.sleep(LOCK_PAUSE_S)
    else:
        raise StateUnavailable(f"{path}: another process holds its lock. Is one that writes to it stopped?")
    try:
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)

"""The prediction log: one JSON event a line, as driftwatch reads it. Several processes append to one file."""

import os
from pathlib import Path
from typing import Any

import msgspec

from modelops.errors import StateUnavailable


class PredictionLog:
    """Appends whole lines with one `write` each time: with O_APPEND those of several processes do not mix."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise StateUnavailable(f"{path}: the prediction log cannot be written: {error.strerror}.") from error
        self._path = path
        self._is_torn = False

    def append(self, events: list[dict[str, Any]]) -> None:
        """Writes events; where it raises StateUnavailable, some may be there and the next write begins a line."""
        data = b"".join(msgspec.json.encode(event) + b"\n" for event in events)
        if self._is_torn:
            data = b"\n" + data
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            raise StateUnavailable(f"{self._path}: cannot be written: {error.strerror}. Free space there.") from error
        self._is_torn = written < len(data)
        if self._is_torn:
            raise StateUnavailable(f"{self._path}: only a part could be written. Free space there.")

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)


def shadow_log(path: Path) -> Path:
    """Where the answers to mirrored requests go: they have their twins' ids, which one log must not hold twice."""
    return path.with_name(f"{path.stem}.shadow{path.suffix}")

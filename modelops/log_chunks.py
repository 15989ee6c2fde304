"""A log file as chunks that are the same on every machine: cut at the first line end past each multiple of a size.

A chunk that is full never changes as the log grows, so what was made of it can be kept under its content hash.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from modelops.errors import DataError

CHUNK_BYTES = 512 << 10  # what is over at a log's end is converted again each time: on average half of it
MOST_LINE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes `start` to `end` of a file, whole lines, and their SHA-256."""

    path: Path
    start: int
    end: int
    sha256: str

    def read(self) -> bytes:
        """The bytes. Raises DataError where they are not what was hashed."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                data = file.read(self.end - self.start)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}.") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise DataError(f"{self.path}: changed while it was read; a log may only grow. Run the job again.")
        return data


def chunks(path: Path, size: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """The chunks of a file in order; the last ends with the last whole line. Raises DataError."""
    try:
        with path.open("rb") as file:
            start = 0
            while True:
                data = _next(file, size - start % size)
                whole = data.rfind(b"\n") + 1
                if not whole:
                    return
                yield Chunk(path, start, start + whole, hashlib.sha256(data[:whole]).hexdigest())
                start += whole
                file.seek(start)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Check the path in the configuration.") from error


def _next(file: BinaryIO, n_bytes: int) -> bytes:
    """That many bytes and on to the line's end; fewer at the file's end."""
    data = file.read(n_bytes)
    if len(data) < n_bytes or data.endswith(b"\n"):
        return data
    rest = file.readline(MOST_LINE_BYTES)
    if len(rest) == MOST_LINE_BYTES:
        raise DataError(f"{file.name}: a line must have fewer than {MOST_LINE_BYTES} bytes; one has more.")
    return data + rest

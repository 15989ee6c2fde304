"""Writes a file whole, or not at all."""

import os
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Whoever reads it meanwhile, or after a kill, finds the old file or the new one. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)

"""One `run` a state file: a lock that the kernel frees when its holder dies, however it dies."""

import fcntl
import os
import socket
from pathlib import Path

import msgspec

from driftwatch.decision import rfc3339
from driftwatch.errors import StateError


class Holder(msgspec.Struct, frozen=True):
    """Who holds a state file; `since` as `rfc3339` writes it."""

    host: str
    pid: int
    since: str


class StateLock:
    """Held from `acquire` to `close`, or to the death of the process. Children of an `exec` do not inherit it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Lets the next holder in. The file stays: to remove it would let two holders lock two files of one name."""
        os.close(self._descriptor)


def acquire(state_path: Path, *, now_s: float) -> StateLock:
    """Takes the lock beside the state file (`state.db.lock`), or raises StateError that quotes its holder."""
    path = state_path.with_name(state_path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(Holder(socket.gethostname(), os.getpid(), rfc3339(now_s))), 0)
    except BlockingIOError as error:
        holder = _quote(os.pread(descriptor, 1024, 0))
        os.close(descriptor)
        raise StateError(
            f"`state.path` must not be in use; got {state_path}, held by {holder}. "
            "End that process, or give this one a file of its own."
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise _unusable(path, error) from error
    return StateLock(descriptor)


def _quote(content: bytes) -> str:
    try:
        holder = msgspec.json.decode(content, type=Holder)
    except msgspec.MsgspecError:  # the holder has the lock, but has not written its name yet
        return "another process"
    return f"process {holder.pid} on {holder.host} since {holder.since}"


def _unusable(path: Path, error: OSError) -> StateError:
    return StateError(
        f"`state.path` must lie on a local or block volume that can be written; got {path}: {error.strerror}. "
        "Name another file, or mount a volume there."
    )

"""The lock on a state file: one holder, named; freed by the kernel."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from driftwatch.errors import StateError
from driftwatch.lock import acquire

CHILD = """
import sys, time
from pathlib import Path
from driftwatch.lock import acquire
lock = acquire(Path(sys.argv[1]), now_s=1_767_225_600.0)
print("held", flush=True)
time.sleep(60)
"""

CHILD_WITH_CHILD = """
import subprocess, sys, time
from pathlib import Path
from driftwatch.lock import acquire
lock = acquire(Path(sys.argv[1]), now_s=0.0)
code = "import time; print(flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, close_fds=False)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_with_the_name_of_the_first_until_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "state" / "state.db"
    with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(StateError) as refused:
            acquire(path, now_s=0.0)
        assert str(refused.value) == (
            f"`state.path` must not be in use; got {path}, held by process {child.pid} on {socket.gethostname()} "
            "since 2026-01-01T00:00:00Z. End that process, or give this one a file of its own."
        )
        child.send_signal(signal.SIGKILL)
    acquire(path, now_s=0.0).close()


def test_a_lock_that_was_closed_can_be_taken_again_and_names_the_new_holder(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    acquire(path, now_s=1e9).close()
    held = acquire(path, now_s=2e9)
    with pytest.raises(StateError, match=rf"process {os.getpid()} on .* since 2033-05-18T03:33:20Z"):
        acquire(path, now_s=0.0)
    held.close()


def test_locks_of_other_files_do_not_touch_each_other(tmp_path: Path) -> None:
    held = [acquire(tmp_path / name, now_s=0.0) for name in ("a.db", "b.db")]
    for lock in held:
        lock.close()


def test_a_holder_that_has_not_written_its_name_yet_still_holds(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    held = acquire(path, now_s=0.0)
    (tmp_path / "state.db.lock").write_bytes(b"")
    with pytest.raises(StateError, match="held by another process"):
        acquire(path, now_s=0.0)
    held.close()


def test_a_child_that_outlives_the_holder_does_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    command = [sys.executable, "-c", CHILD_WITH_CHILD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        grandchild = int(holder.stdout.readline())
        holder.send_signal(signal.SIGKILL)
    try:
        acquire(path, now_s=0.0).close()
    finally:
        os.kill(grandchild, signal.SIGKILL)


def test_a_place_that_cannot_hold_a_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StateError, match=r"must lie on a local or block volume that can be written; got .*state\.db\.lock"
    ):
        acquire(tmp_path / "file" / "state.db", now_s=0.0)

"""Processes that are started again when they die, as on a cluster."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

RESTART_S = 0.5
STOP_S = 30.0
CONFIGURATION = 2  # the exit code of both services where a start can only end like that again


class Child:
    """A command that runs until it is stopped; `restarts` counts how often it had died. Its words go to a log."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, died: Callable[[str], None]) -> None:
        self.name = name
        self.restarts = 0
        self.gave_up = False
        self._command, self._folder, self._died = command, folder, died
        self._stopping = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it: in order, by force where it will not."""
        self._stopping.set()
        self._thread.join()
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """The end of its log."""
        return tail(self._folder / f"{self.name}.log")

    def _start(self) -> subprocess.Popen[bytes]:
        out = self._folder / f"{self.name}.out"
        with out.open("ab") as said, (self._folder / f"{self.name}.log").open("ab") as log:
            if said.tell() and not out.read_bytes().endswith(b"\n"):
                said.write(b"\n")  # the one before was killed within a line
                said.flush()
            # In a session of its own, so that Ctrl-C reaches us alone and we end it in order.
            return subprocess.Popen(
                [sys.executable, "-m", *self._command],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=log,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(0.1)
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                if code == CONFIGURATION:
                    self.gave_up = True
                    return
                self.restarts += 1
                self._died(f"{self.name} ended with {how} and is started again")
                if not self._stopping.wait(RESTART_S):
                    self._process = self._start()


class Children:
    """All that were started; nothing of them is left when they are stopped."""

    def __init__(self, folder: Path, died: Callable[[str], None]) -> None:
        self._folder, self._died = folder, died
        self.all: list[Child] = []

    def start(self, name: str, *command: str) -> Child:
        """Starts `python -m COMMAND`."""
        child = Child(name, command, self._folder, self._died)
        self.all.append(child)
        return child

    def stop(self) -> None:
        """Ends all, the last one first, and what they left behind: a service that was killed has no time to tidy up."""
        while self.all:
            self.all.pop().stop()
        for pid in processes_of(self._folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes_of(folder: Path) -> list[int]:
    """Processes with a file of the folder in their command."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if f"{folder}/".encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def tail(path: Path, n_lines: int = 5) -> str:
    """The last lines of a log."""
    try:
        return " / ".join(path.read_text("utf-8", "replace").splitlines()[-n_lines:])
    except OSError:
        return ""

"""The model servers of this machine: a process for each version that is wanted, adopted after a restart of ours."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import aiohttp

from modelops.state import state_errors

RESTART_S, RESTART_MAX_S = 2.0, 60.0  # between two starts of one version; longer each time it does not become ready
LOOK_S = 1.0
log = logging.getLogger("modelops")


class Process(NamedTuple):
    """A model server as the state knows it."""

    model: str
    version: int
    port: int
    pid: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


class Servers:
    """Level-triggered: `want` brings the processes of a model to the versions that are wanted."""

    def __init__(self, database: sqlite3.Connection, path: Path, config_path: Path, folder: Path) -> None:
        self._database = database
        self._path = path
        self._config_path = config_path
        self._folder = folder
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._tries: dict[tuple[str, int], int] = {}  # starts since it was ready last
        self._due_s: dict[tuple[str, int], float] = {}
        self._said: dict[tuple[str, int], str] = {}

    def known(self, model: str) -> dict[int, Process]:
        """The processes of a model by version, as they were started."""
        with state_errors(self._path):
            rows = self._database.execute("SELECT model, version, port, pid FROM servers WHERE model = ?", (model,))
            return {row[1]: Process(*row) for row in rows}

    def want(self, model: str, versions: Iterable[int]) -> None:
        """Starts what is missing, starts again what died, and ends what is not wanted: it answers what it has first."""
        self._reap()
        wanted = set(versions)
        known = self.known(model)
        for version, process in known.items():
            if version not in wanted:
                _signal(process, signal.SIGTERM)
                self._forget(model, version)
        for version in wanted:
            process_or_none = known.get(version)
            if process_or_none is None or not _is_alive(process_or_none):
                self._start(model, version)

    async def ready(self, session: aiohttp.ClientSession, model: str) -> frozenset[int]:
        """The versions whose server says that it answers with that version."""
        known = list(self.known(model).values())
        found = await asyncio.gather(*(_says_ready(session, process) for process in known))
        ready = frozenset(p.version for p, is_ready in zip(known, found, strict=True) if is_ready)
        for version in ready:
            self._tries.pop((model, version), None)
            self._said.pop((model, version), None)
        return ready

    def stop(self) -> None:
        """Ends all processes and waits for them, at most 10 s."""
        with state_errors(self._path):
            rows = self._database.execute("SELECT model, version, port, pid FROM servers").fetchall()
        for row in rows:
            _signal(Process(*row), signal.SIGTERM)
            self._forget(row[0], row[1])
        until_s = time.monotonic() + 10
        for child in self._children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(until_s - time.monotonic(), 0.1))

    def _start(self, model: str, version: int) -> None:
        now_s, key = time.monotonic(), (model, version)
        if now_s < self._due_s.get(key, 0.0):
            return
        self._tries[key] = self._tries.get(key, 0) + 1
        self._due_s[key] = now_s + min(RESTART_S * 2.0 ** (self._tries[key] - 1), RESTART_MAX_S)
        if self._tries[key] > 1:
            self._complain(model, version)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "modelops", "predict", "-c", str(self._config_path), "--model", model]
        command += ["--version", str(version), "--host", "127.0.0.1", "--port", str(port)]
        command += ["--managed"]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._note(Process(model, version, port, 0))  # first: a server that the state does not name ends by itself
        with (self._folder / f"{model}-{version}.log").open("ab") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        self._children[child.pid] = child
        self._note(Process(model, version, port, child.pid))

    def _complain(self, model: str, version: int) -> None:
        """Says, once, why a server ended that never became ready."""
        try:
            lines = (self._folder / f"{model}-{version}.log").read_text("utf-8", "replace").split("\n")
        except OSError:
            lines = []
        said = next((line for line in reversed(lines) if line.strip()), "it left no word")
        if said != self._said.get((model, version)):
            log.error("%s: the model server of version %d ended: %s", model, version, said.removeprefix("modelops: "))
        self._said[model, version] = said

    def _note(self, process: Process) -> None:
        with state_errors(self._path):
            self._database.execute("INSERT OR REPLACE INTO servers VALUES (?, ?, ?, ?)", process)

    def _forget(self, model: str, version: int) -> None:
        with state_errors(self._path):
            self._database.execute("DELETE FROM servers WHERE model = ? AND version = ?", (model, version))

    def _reap(self) -> None:
        """Takes notice of children that ended, so that none stays as a zombie."""
        self._children = {pid: child for pid, child in self._children.items() if child.poll() is None}


async def _says_ready(session: aiohttp.ClientSession, process: Process) -> bool:
    try:
        async with session.get(f"{process.url}/readyz", timeout=aiohttp.ClientTimeout(total=LOOK_S)) as answer:
            said = await answer.json()
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return False
    return bool(said == {"model": process.model, "version": str(process.version)})


def _is_alive(process: Process) -> bool:
    """Whether that process is a model server of that model and version: a number is used again after a reboot."""
    try:
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return all(word.encode() in words for word in ("predict", process.model, str(process.version), str(process.port)))


def _signal(process: Process, number: signal.Signals) -> None:
    if _is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)

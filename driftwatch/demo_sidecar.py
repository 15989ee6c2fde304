"""The demo's children: `driftwatch profile` and `driftwatch run`, and how they are ended."""

import http.client
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import urlsplit

from driftwatch import decision
from driftwatch.decision import Decision
from driftwatch.errors import DriftwatchError

START_S = 60.0
STOP_S = 20.0  # a sidecar that was told to stop may try its webhooks for 10 s
FETCH_S = 5.0
POLL_S = 0.1
LOG_LINES = 5  # of a sidecar that failed, in the error
ADDRESS = "metrics on "


def child(*arguments: str, pipe: int | None = None) -> subprocess.Popen[bytes]:
    """A `driftwatch` of its own. In a session of its own, so that Ctrl-C reaches us alone and we end it in order."""
    command = [sys.executable, "-m", "driftwatch", *arguments]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, start_new_session=True)


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ends a child, by force where it will not; its exit code."""
    process.terminate()
    try:
        return process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def build_profile(reference: Path, config: Path, output: Path) -> None:
    """`driftwatch profile`, whose progress bar is seen. Raises DriftwatchError."""
    process = child("profile", str(reference), "-c", str(config), "-o", str(output))
    try:
        code = process.wait()
    finally:
        stop(process)
    if code:
        raise DriftwatchError(f"`driftwatch profile` ended with exit code {code}; the reason stands above.")


class Sidecar:
    """`driftwatch run` while it is entered; each decision that it logs is handed on, from a thread of its own."""

    def __init__(self, config: Path, take: Callable[[Decision], None]) -> None:
        self._config, self._take = config, take
        self._log: list[str] = []
        self._address: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.exit_code: int | None = None

    def __enter__(self) -> Self:
        self._process = child("run", "-c", str(self._config), pipe=subprocess.PIPE)
        self.pid = self._process.pid
        self._threads = [
            threading.Thread(target=self._read_decisions, args=(self._process.stdout,), name="decisions", daemon=True),
            threading.Thread(target=self._read_log, args=(self._process.stderr,), name="log", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._process:  # which closes the pipes
            self.exit_code = stop(self._process)
            for thread in self._threads:
                thread.join()

    def ready(self) -> str:
        """Waits until it reads its source; the address of its metrics. Raises DriftwatchError."""
        until_s = time.monotonic() + START_S
        try:
            address = self._address.get(timeout=START_S)
        except queue.Empty as error:
            raise DriftwatchError(f"the sidecar did not start within {START_S:.0f} s. {self._last_words()}") from error
        while address is None or not is_ready(address):
            self.check()
            if time.monotonic() > until_s:
                raise DriftwatchError(f"the sidecar was not ready within {START_S:.0f} s. {self._last_words()}")
            time.sleep(POLL_S)
        return address

    def check(self) -> None:
        """Raises DriftwatchError where it has ended."""
        if self._process.poll() is not None:
            raise DriftwatchError(f"the sidecar ended with exit code {self._process.poll()}. {self._last_words()}")

    def _last_words(self) -> str:
        return "It said: " + " / ".join(self._log[-LOG_LINES:])

    def _read_decisions(self, output: IO[bytes] | None) -> None:
        for line in output or ():
            self._take(decision.decode(line))

    def _read_log(self, log: IO[bytes] | None) -> None:
        for line in log or ():
            text = line.decode("utf-8", "replace").rstrip()
            self._log.append(text)
            if ADDRESS in text:
                self._address.put(text.partition(ADDRESS)[2])
        self._address.put(None)  # whoever waits for it need not wait any longer


def is_ready(metrics: str) -> bool:
    """Whether the sidecar with these metrics reads its source."""
    try:
        fetch(metrics.removesuffix("/metrics") + "/readyz")
    except DriftwatchError:
        return False
    return True


def fetch(url: str) -> bytes:
    """The body at an address of this machine, past any proxy. Raises DriftwatchError where the answer is not 200."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=FETCH_S)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise DriftwatchError(f"{url}: no answer: {error}") from error
    finally:
        connection.close()
    if answer.status != HTTPStatus.OK:
        raise DriftwatchError(f"{url}: expected status 200; got {answer.status}")
    return body

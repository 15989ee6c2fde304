"""Requests at a steady pace, and what became of each applicant a little later, in the same log."""

import http.client
import json
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from demo.stream import applications

REQUESTS_PER_S = 60
ROWS = 5  # in a request
THREADS = 6
BLOCK = 500  # rows that are drawn at once
LABEL_AFTER_S = 1.5


@dataclass(frozen=True, slots=True)
class Answered:
    """A row that was answered: when, by which version, with which score; and the truth, which comes later."""

    time_s: float
    version: str
    score: float
    label: int
    changed: bool
    row: dict[str, Any]


class Traffic:
    """Open loop: a request is sent when it is due, however long others take, by at most so many at once."""

    def __init__(self, router: str, log: Path, *, seed: int) -> None:
        self.sent = self.failed = 0
        self.answered: list[Answered] = []
        self.changed_s: float | None = None
        self._netloc, self._log = urlsplit(router).netloc, log
        self._rng = np.random.default_rng(seed)
        self._rows: dict[bool, deque[tuple[dict[str, Any], int]]] = {False: deque(), True: deque()}
        self._known: deque[tuple[float, bytes]] = deque()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._began_s = time.monotonic()
        self._taken = 0
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(THREADS)]
        self._threads.append(threading.Thread(target=self._tell, daemon=True))
        for thread in self._threads:
            thread.start()

    def change(self) -> None:
        """From now on applicants come from after the change."""
        with self._lock:
            self.changed_s = time.time()

    def stop(self) -> None:
        """No more requests, and no more labels."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _next(self) -> tuple[int, float, list[tuple[dict[str, Any], int]], bool]:
        """A request's number, when it is due, and its rows with their labels."""
        with self._lock:
            number, changed = self._taken, self.changed_s is not None
            self._taken += 1
            waiting = self._rows[changed]
            if len(waiting) < ROWS:
                drawn = applications(BLOCK, self._rng, changed=changed)
                waiting.extend(zip(drawn.rows(), drawn.defaulted.tolist(), strict=True))
            return number, number / REQUESTS_PER_S, [waiting.popleft() for _ in range(ROWS)], changed

    def _send(self) -> None:
        connection = http.client.HTTPConnection(self._netloc, timeout=30)
        while True:
            number, due_s, rows, changed = self._next()
            if self._stop.wait(max(0.0, self._began_s + due_s - time.monotonic())):
                connection.close()
                return
            body = json.dumps({"id": f"a{number}", "instances": [row for row, _ in rows]}).encode()
            answer = ask(connection, "/v1/models/credit:predict", body)
            time_s = time.time()
            with self._lock:
                self.sent += 1
                if answer is None:
                    self.failed += 1
                    continue
                version, scores = answer["model_version"], answer["predictions"]
                self.answered += [
                    Answered(time_s, version, score, label, changed, row)
                    for score, (row, label) in zip(scores, rows, strict=True)
                ]
                for i, (_, label) in enumerate(rows):
                    known_s = time_s + LABEL_AFTER_S
                    event = {"id": f"a{number}/{i}", "time": known_s, "label": label}
                    self._known.append((known_s, json.dumps(event).encode() + b"\n"))

    def _tell(self) -> None:
        """Writes labels once they are known."""
        with self._log.open("ab", buffering=0) as file:
            while not self._stop.wait(0.1):
                now_s, lines = time.time(), []
                with self._lock:
                    while self._known and self._known[0][0] <= now_s:
                        lines.append(self._known.popleft()[1])
                if lines:
                    file.write(b"".join(lines))


def ask(connection: http.client.HTTPConnection, path: str, body: bytes) -> Any:
    """The JSON of an answer of 200; None for any other, or for none. A connection that was kept is tried anew once."""
    for _ in range(1 if connection.sock is None else 2):
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            return json.loads(said) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            connection.close()
    return None

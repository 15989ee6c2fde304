"""The ingest server over real sockets, and what lies in its spool."""

import contextlib
import http.client
import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftwatch.sources.ingest import IngestServer, Intake, Terms
from driftwatch.sources.spool import Entry, Spool

BINARY = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "http://here/",
    "ce-type": "org.kubeflow.serving.inference.request",
    "content-type": "application/json",
}


@dataclass
class Served:
    """A server over a spool."""

    spool: Spool
    intake: Intake
    server: IngestServer
    shed: list[None] = field(default_factory=list)
    troubles: list[str | None] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)

    @property
    def entries(self) -> list[Entry]:
        """What lies in the spool."""
        return self.spool.read(0, most=10_000, most_bytes=2**30)

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None, method: str = "POST") -> "Reply":
        """One request on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)) as client:
            client.request(method, path, body, headers or {})
            return Reply.of(client.getresponse())

    def raw(self, data: bytes) -> bytes:
        """Sends bytes as they are, and no more; what comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65_536), b""))


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, response: http.client.HTTPResponse) -> "Reply":
        return cls(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    @property
    def detail(self) -> str:
        """What is wrong, from the problem."""
        assert self.headers["content-type"] == "application/problem+json"
        problem = json.loads(self.body)
        assert problem["status"] == self.status
        return str(problem["detail"])


@contextlib.contextmanager
def serving(folder: Path, *, max_bytes: int = 2**30, **terms: Any) -> Iterator[Served]:
    spool = Spool(folder / "spool", position=0, max_bytes=max_bytes)
    shed: list[None] = []
    troubles: list[str | None] = []
    answers = Counter[int]()
    intake = Intake(
        spool,
        Terms(**terms),
        on_trouble=troubles.append,
        on_answers=answers.update,
        on_shed=lambda: shed.append(None),
    )
    server = IngestServer("127.0.0.1", 0, intake)
    try:
        yield Served(spool, intake, server, shed, troubles, answers)
    finally:
        server.close()
        spool.close()


def statuses(answers: bytes) -> list[int]:
    """Of each answer among bytes that came back."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answers)]

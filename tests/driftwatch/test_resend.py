"""`dlq replay --to`: what was set aside is sent to an address or a topic, each at least once, and stays."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sidecar import said, write_config

from driftwatch import resend
from driftwatch.dead_letters import DeadLetters, entries
from driftwatch.records import Poison, Shard

BODIES = [b'{"id": "%d"' % i for i in range(1200)]


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    """A folder with dead letters in its state."""
    with closing(DeadLetters(tmp_path / "state" / "dead")) as letters:
        poison = [Poison(Shard("t/0"), i, "structure", "cut", body) for i, body in enumerate(BODIES)]
        letters.add(poison, "2026-01-01T00:00:00Z")
    return tmp_path


@contextlib.contextmanager
def taking(statuses: Sequence[int] = (), refused: bytes | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """Takes bodies; the first posts are answered with these statuses, one body always with 400."""
    taken: list[bytes] = []
    left = list(statuses)

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = 400 if body == refused else left.pop(0) if left else 200
            if status == 200 and self.path == "/v1/predictions":
                taken.append(body)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/predictions", taken
        server.shutdown()
        thread.join()


def test_every_message_is_posted_as_it_came_and_stays(aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resend, "BACK_OFF_S", 0.01)
    with taking([503, 429, 200, 502]) as (url, taken):
        told = said("dlq", "replay", "-c", write_config(aside), "--to", url)
    assert (told.code, told.out) == (0, "")
    assert told.err.endswith("driftwatch: sent 1,200 messages; they stay among the dead letters\n")
    assert taken == BODIES
    assert len(list(entries(aside / "state" / "dead"))) == len(BODIES)


def test_a_message_that_is_refused_holds_no_other_up(aside: Path) -> None:
    with taking(refused=BODIES[7]) as (url, taken):
        told = said("dlq", "replay", "-c", write_config(aside), "--to", url)
    assert told.code == 3
    assert "1 were refused as they are" in told.err
    assert taken == BODIES[:7] + BODIES[8:]


def test_a_receiver_that_is_gone_is_said(aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resend, "BACK_OFF_S", 0.01)
    with taking([200] * 3 + [503] * 6) as (url, _):
        told = said("dlq", "replay", "-c", write_config(aside), "--to", url)
    assert told.code == 3
    assert "answers 503. 3 messages were sent before; run it again" in told.err
    assert said("dlq", "replay", "-c", write_config(aside), "--to", "http://127.0.0.1:1/").code == 3


@pytest.mark.parametrize("target", ["", "topic", "kafka://127.0.0.1", "ftp://x/y", "http:///x"])
def test_a_target_that_is_none_is_refused_in_words(aside: Path, target: str) -> None:
    told = said("dlq", "replay", "-c", write_config(aside), "--to", target)
    assert told.code == 2
    assert "`--to` must be https://HOST/PATH, kafka://BROKER:PORT/TOPIC" in told.err


def replayed_to(folder: Path, target: str, **changed: Any) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: importing kafka-python warns."""
    command = [sys.executable, "-m", "driftwatch", "dlq", "replay", "-c", str(write_config(folder, **changed))]
    return subprocess.run([*command, "--to", target], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_every_message_comes_to_a_topic(aside: Path, client: str, broker: Any) -> None:
    pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (the extra kafka-fast)")
    from kafka_sidecar import consumed, new_topic

    topic = new_topic(broker.address)
    source = {"kind": "kafka", "brokers": [broker.address], "topics": ["predictions"], "client": client}
    for target in (topic, f"kafka://{broker.address}/{topic}"):
        told = replayed_to(aside, target, source=source)
        assert told.returncode == 0, told.stderr
    assert consumed(broker.address, topic, 2 * len(BODIES)) == BODIES * 2


@pytest.mark.slow
def test_a_broker_that_is_not_there_is_said(aside: Path) -> None:
    told = replayed_to(aside, "kafka://127.0.0.1:1/topic")
    assert told.returncode == 3
    assert "`--to` must be reached; kafka://127.0.0.1:1/topic:" in told.stderr

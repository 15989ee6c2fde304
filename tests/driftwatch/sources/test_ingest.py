"""The ingest server over real sockets: each answer, each limit, and what lies in the spool after a 200."""

import gzip
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from served import BINARY, Reply, Served, serving, statuses

from driftwatch.errors import ConfigError
from driftwatch.sources import ingest
from driftwatch.sources.inflation import Inflation
from driftwatch.sources.ingest import IngestServer
from driftwatch.sources.tokens import Tokens


@pytest.mark.parametrize("path", ["/", "/v1/events"])
def test_a_binary_cloud_event_lies_in_the_spool_with_its_headers_once_it_is_answered(served: Served, path: str) -> None:
    before = time.time()
    reply = served.post(path, b'{"instances": []}', BINARY | {"user-agent": "Go-http-client/1.1"})
    assert (reply.status, reply.body) == (200, b"")
    (entry,) = served.entries
    assert entry.headers == BINARY
    assert entry.body == b'{"instances": []}'
    assert before <= entry.arrived_s <= time.time()


@pytest.mark.parametrize(
    "media_type", ["application/cloudevents+json", "application/cloudevents-batch+json; charset=utf-8"]
)
def test_structured_cloud_events_are_taken_whatever_they_hold(served: Served, media_type: str) -> None:
    assert served.post("/", b"no JSON", {"content-type": media_type}).status == 200
    assert served.entries[0].headers == {"content-type": media_type}


@pytest.mark.parametrize("media_type", ["application/json", "application/x-ndjson", None])
def test_plain_events_are_taken_and_headers_of_cloud_events_say_nothing_there(
    served: Served, media_type: str | None
) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    assert served.post("/v1/predictions?x=1", b"{}", headers | {"ce-id": "1"}).status == 200
    assert served.entries[0].headers == headers


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"ce-id": None}, "ce-id"),
        ({"ce-source": ""}, "ce-source"),
        ({"ce-type": None}, "ce-type"),
        ({"ce-specversion": None}, "ce-specversion"),
        ({"ce-specversion": "0.3"}, "ce-specversion"),
        ({"ce-time": "yesterday"}, "ce-time"),
    ],
)
def test_malformed_headers_of_a_cloud_event_are_named(served: Served, changed: dict[str, Any], names: str) -> None:
    headers = {k: v for k, v in (BINARY | changed).items() if v is not None}
    reply = served.post("/", b"{}", headers)
    assert (reply.status, served.entries) == (400, [])
    assert names in reply.detail


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/predictions", {"content-type": "text/csv"}),
        ("/v1/predictions", {"content-encoding": "br"}),
        ("/", {"content-type": "application/cloudevents+avro"}),
    ],
)
def test_a_form_that_is_not_read_here_is_refused(served: Served, path: str, headers: dict[str, str]) -> None:
    reply = served.post(path, b"{}", headers)
    assert (reply.status, served.entries) == (415, [])
    assert "must be" in reply.detail


def test_other_paths_and_methods_and_labels_are_refused(served: Served) -> None:
    assert served.post("/v2/models", b"{}").status == 404
    reply = served.post("/", b"", method="GET")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    reply = served.post("/v1/labels", b"{}")
    assert reply.status == 501
    assert "nobody reads labels" in reply.detail


def test_with_tokens_only_a_known_one_is_let_in(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("one\nzwei\n")
    tokens = Tokens(path, lambda: tuple(path.read_text().split()))
    with serving(tmp_path, tokens=tokens) as served:
        for token in ("one", "zwei"):
            assert served.post("/v1/predictions", b"{}", {"authorization": f"Bearer {token}"}).status == 200
        for header in ({}, {"authorization": "Bearer on"}, {"authorization": "one"}, {"authorization": "Basic one"}):
            reply = served.post("/v1/predictions", b"{}", header)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert "token" in reply.detail
        assert len(served.entries) == 2


def test_a_body_that_is_too_long_is_refused_by_its_head_or_as_it_comes(tmp_path: Path) -> None:
    with serving(tmp_path, max_body=1000) as served:
        assert served.post("/v1/predictions", b"x" * 1000).status == 200
        reply = served.post("/v1/predictions", b"x" * 1001)
        assert (reply.status, reply.headers["connection"]) == (413, "close")
        assert "`max_body`" in reply.detail
        chunk = b"1f4\r\n" + b"x" * 500 + b"\r\n"
        head = b"POST /v1/predictions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        assert served.raw(head + 2 * chunk + b"0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        assert served.raw(head + 3 * chunk + b"0\r\n\r\n").startswith(b"HTTP/1.1 413 ")
        assert [len(entry.body) for entry in served.entries] == [1000, 1000]


@pytest.mark.parametrize("said", [{}, {"content-encoding": "gzip"}])
def test_gzip_is_inflated_whether_it_says_so_or_not(served: Served, said: dict[str, str]) -> None:
    assert served.post("/v1/predictions", gzip.compress(b'{"id": 1}'), said).status == 200
    assert served.entries[0].body == b'{"id": 1}'


def test_broken_gzip_is_kept_as_it_came_for_the_dead_letters(served: Served) -> None:
    body = gzip.compress(os.urandom(1000))[:-9]
    assert served.post("/v1/predictions", body).status == 200
    assert served.entries[0].body == body


def test_gzip_that_inflates_beyond_its_limit_is_refused(served: Served) -> None:
    assert served.post("/v1/predictions", gzip.compress(bytes(ingest.MAX_INFLATED_BYTES))).status == 200
    reply = served.post("/v1/predictions", gzip.compress(bytes(ingest.MAX_INFLATED_BYTES + 1)))
    assert reply.status == 413
    assert "inflated" in reply.detail
    assert len(served.spool.read(0, most=2, most_bytes=2**30)) == 1


def test_a_full_spool_refuses_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "SWEEP_S", 0.01)
    with serving(tmp_path, max_bytes=20_000) as served:
        while (reply := served.post("/v1/predictions", b"x" * 900)).status == 200:
            pass
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert "`spool.max_bytes`" in reply.detail
        (trouble,) = served.troubles
        assert "max_bytes" in str(trouble)
        served.spool.forget(served.spool.end)
        while len(served.troubles) == 1:
            time.sleep(0.01)
        assert served.troubles[1:] == [None]
        assert served.post("/v1/predictions", b"x").status == 200
        assert served.shed == []


def test_a_full_spool_may_shed_and_count_instead(tmp_path: Path) -> None:
    with serving(tmp_path, max_bytes=2000, full="shed") as served:
        replies = [served.post("/v1/predictions", b"x" * 400).status for _ in range(10)]
        assert replies == [200] * 10
        assert len(served.entries) + len(served.shed) == 10
        assert served.shed


def test_a_disk_error_is_told_and_passes(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: int, parts: list[bytes]) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", fail)
        reply = served.post("/v1/predictions", b"{}")
    assert reply.status == 503
    assert "No space left" in reply.detail
    assert served.post("/v1/predictions", b"{}").status == 200
    assert len(served.entries) == 1


def test_with_fsync_many_senders_are_answered_in_order_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def note(file: int) -> None:
        synced.append(file)
        fsync(file)

    monkeypatch.setattr(os, "fsync", note)
    one = b"POST /v1/predictions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n%d"
    with serving(tmp_path, durable="fsync") as served:
        answers = served.raw(b"".join(one % i for i in range(10, 30)))
        assert statuses(answers) == [200] * 20
        assert [int(entry.body) for entry in served.entries] == list(range(10, 30))
    assert len(synced) == 20  # a sender that waits for each answer gets a sync for each


def test_a_long_gzip_lets_others_in_while_it_is_inflated(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    is_begun, is_other_in = threading.Event(), threading.Event()
    step = Inflation.step

    def held_up(self: Inflation) -> bool:
        is_begun.set()
        return step(self) if is_other_in.is_set() else False

    monkeypatch.setattr(Inflation, "step", held_up)
    long = bytes(ingest.MAX_INFLATED_BYTES // 8)
    replies: list[Reply] = []
    senders = [
        threading.Thread(target=lambda: replies.append(served.post("/v1/predictions", gzip.compress(long))))
        for _ in range(2)
    ]
    for sender in senders:
        sender.start()
    assert is_begun.wait(30)
    assert served.post("/v1/predictions", b"[]").status == 200
    is_other_in.set()
    for sender in senders:
        sender.join()
    assert [reply.status for reply in replies] == [200, 200]
    assert [entry.body == long for entry in served.entries] == [False, True, True]


def test_answers_are_counted_by_status(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "SWEEP_S", 0.01)
    for path, body in (("/v1/predictions", b"{}"), ("/v1/predictions", b"{}"), ("/", b"{}"), ("/no", b"")):
        served.post(path, body)
    served.raw(b"nonsense\r\n\r\n")
    while served.answers.total() < 5:
        time.sleep(0.01)
    assert served.answers == {200: 2, 400: 2, 404: 1}


def test_too_many_bodies_at_once_are_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_HELD_BYTES", 10_000)
    assert served.post("/v1/predictions", b"x" * 10_001).status == 503
    assert served.post("/v1/predictions", b"x" * 9_000).status == 200
    assert served.post("/v1/predictions", b"x" * 9_000).status == 200  # what was held is let go


def test_a_port_that_is_taken_is_named(served: Served) -> None:
    with pytest.raises(ConfigError, match=r"`port` must be free"):
        IngestServer("127.0.0.1", served.server.port, served.intake)

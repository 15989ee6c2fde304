"""Deliveries of the prediction log: to driftwatch over HTTP, to Kafka, with receivers that are down or refuse."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelops.config import HttpTarget, KafkaTarget, ModelEntry, Rotation
from modelops.delivery import log_reader
from modelops.delivery.log_reader import LogReader
from modelops.delivery.worker import Tidying, deliveries
from modelops.metrics import ServerMetrics
from modelops.prediction_log import PredictionLog, rotated
from tests.modelops.service import ask, free_port, wait_for
from tests.modelops.test_prediction_log import events


class Desk(ThreadingHTTPServer):
    """Takes CloudEvents; answers `status` where that is not 200, and refuses bodies over `most_bytes`."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.taken: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.status, self.most_bytes = 200, 1 << 30
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/events"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Desk

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = 413 if len(body) > self.server.most_bytes else self.server.status
        if status == 200:
            self.server.tokens.append(self.headers["Authorization"])
            self.server.taken += json.loads(body)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.close()


class World:
    """A prediction log with its deliveries."""

    def __init__(self, folder: Path, *targets: HttpTarget | KafkaTarget, keep: int = 100) -> None:
        self.entry = ModelEntry(
            recipe=folder / "credit.yaml", predictions=folder / "log" / "predictions.jsonl", deliver=targets,
            rotation=Rotation(max_bytes=1 << 16, keep=keep),
        )  # fmt: skip
        self.metrics = ServerMetrics()
        self.log = PredictionLog(self.entry.predictions, 1 << 16)
        self.made = deliveries("credit", self.entry, self.metrics)

    def start(self) -> None:
        for delivery in self.made:
            delivery.start()

    def stop(self) -> None:
        for delivery in self.made:
            delivery.stop()

    def write(self, name: str, n: int) -> None:
        made = events(name, n)
        for start in range(0, n, 50):
            self.log.append(made[start : start + 50])

    def value(self, name: str, **labels: str) -> float:
        """A metric of the first receiver."""
        found = self.metrics.registry.get_sample_value(
            f"model_server_{name}", {"model": "credit", "receiver": self.made[0].name} | labels
        )
        return found or 0.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(*targets: HttpTarget | KafkaTarget, **more: Any) -> World:
        made.append(World(tmp_path, *targets, **more))
        return made[-1]

    yield make
    for one in made:
        one.stop()
        one.log.close()


def http_to(desk: Desk, **more: Any) -> HttpTarget:
    return HttpTarget(kind="http", url=desk.url, **more)


def test_rows_come_once_and_in_order_as_cloudevents(world: Callable[..., World], desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of tests\n")
    made = world(http_to(desk, token_file=tmp_path / "token"))
    made.write("a", 1200)  # over rotations
    made.start()
    wait_for(lambda: len(desk.taken) >= 1200)
    made.write("b", 10)
    wait_for(lambda: len(desk.taken) >= 1210)
    expected = events("a", 1200) + events("b", 10)
    assert [event["data"] for event in desk.taken] == expected
    assert {k: v for k, v in desk.taken[0].items() if k != "data"} == {
        "specversion": "1.0", "id": "a-0", "source": "/modelops/credit", "type": "modelops.prediction",
        "datacontenttype": "application/json",
    }  # fmt: skip
    assert set(desk.tokens) == {"Bearer of tests"}
    wait_for(lambda: made.value("delivered_rows_total") == 1210)
    wait_for(lambda: made.value("waiting_bytes") == 0)


def test_while_the_receiver_is_down_rows_lie_in_the_log_over_a_restart(world: Callable[..., World]) -> None:
    port = free_port()
    target = HttpTarget(kind="http", url=f"http://127.0.0.1:{port}/v1/events")
    made = world(target)
    made.start()
    made.write("a", 700)
    wait_for(lambda: made.value("waiting_bytes") > 10_000)
    made.stop()
    again = world(target)
    again.write("b", 5)
    again.start()
    desk = Desk(port)
    try:
        wait_for(lambda: len(desk.taken) >= 705)
        assert [event["id"] for event in desk.taken] == [e["id"] for e in events("a", 700) + events("b", 5)]
        desk.status = 503
        again.write("c", 3)
        again.write("d", 3)
        desk.status = 200
        wait_for(lambda: len(desk.taken) >= 711)
        assert again.value("dropped_rows_total", reason="refused") == 0
    finally:
        desk.close()


def test_of_two_model_servers_one_delivers_and_then_the_other_one(world: Callable[..., World], desk: Desk) -> None:
    first, second = world(http_to(desk)), world(http_to(desk))
    first.start()
    first.write("a", 10)
    wait_for(lambda: first.value("delivered_rows_total") == 10)
    second.start()
    second.write("b", 10)
    wait_for(lambda: first.value("delivered_rows_total") == 20)
    first.stop()
    second.write("c", 10)
    wait_for(lambda: second.value("delivered_rows_total") == 10)
    assert len(desk.taken) == 30


def test_what_is_refused_or_deleted_is_counted(world: Callable[..., World], desk: Desk) -> None:
    made = world(http_to(desk), keep=1)
    made.start()
    desk.most_bytes = 2000
    long = [event | {"features": {"x": "y" * 3000}} for event in events("long", 1)]
    made.log.append(events("a", 20) + long + events("b", 20))
    wait_for(lambda: made.value("dropped_rows_total", reason="refused") == 1)
    wait_for(lambda: len(desk.taken) == 40)
    desk.status = 503
    made.write("c", 1500)
    tidying = Tidying("credit", made.entry, made.made, made.metrics)
    kept = len(rotated(made.entry.predictions))
    assert kept > 2
    tidying.once()
    assert len(rotated(made.entry.predictions)) == 1
    desk.most_bytes, desk.status = 1 << 30, 200
    wait_for(lambda: any(event["id"] == "c-1499" for event in desk.taken))
    lost = made.value("dropped_rows_total", reason="deleted")
    came = {event["id"] for event in desk.taken}
    assert lost > 0
    assert len(came) + lost + 1 == 1541


def dropped(made: World, reason: str) -> float:
    """Lines that were left out for a reason."""
    found = [s for m in made.metrics.registry.collect() for s in m.samples if s.name.endswith("dropped_rows_total")]
    return sum(sample.value for sample in found if sample.labels["reason"] == reason)


def test_lines_that_were_torn_stop_nothing_and_are_counted(
    world: Callable[..., World], desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    made = world(http_to(desk))
    made.entry.predictions.write_bytes(b'{"id": "a", "ti\n\n[1]\n{"no": "id"}\n' + b"[" * 5000 + b"\n\xff\n")
    made.log.append(events("b", 1))
    made.start()
    wait_for(lambda: desk.taken)
    assert [event["id"] for event in desk.taken] == ["b-0"]
    wait_for(lambda: dropped(made, "unreadable") == 5)
    said = [record.message for record in caplog.records if "is left out" in record.message]
    assert len(said) == 1
    assert "is no JSON event with an `id`" in said[0]


def test_a_line_that_is_too_long_is_passed_over_also_while_it_grows(
    world: Callable[..., World], desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr(log_reader, "MOST_LINE_BYTES", 1 << 14)
    made = world(http_to(desk))
    made.log.append(events("a", 1))
    with made.entry.predictions.open("ab") as file:
        file.write(b'{"id": "' + b"x" * 30_000)
        file.flush()
        made.start()
        wait_for(lambda: dropped(made, "too_long") == 1)
        file.write(b"y" * 30_000 + b'"}\n')
        file.write(b'{"id": "' + b"z" * 9_000 + b'"}\n')  # of more than one block
    made.log.append(events("b", 1))
    wait_for(lambda: len(desk.taken) == 3)
    assert [len(event["id"]) for event in desk.taken] == [3, 9_000, 3]
    assert dropped(made, "too_long") == 1


@given(st.lists(st.sampled_from(["a", "bb" * 40, "torn", "long" * 2000, ""]), max_size=12), st.data())
@settings(deadline=None, max_examples=60)
def test_a_reader_that_is_killed_anywhere_has_each_row_and_counts_each_line_once(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log, kept = folder / "p.jsonl", folder / "place"
    lines = [b"{torn" if kind == "torn" else json.dumps({"id": kind}).encode() if kind else b"" for kind in kinds]
    whole = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    rows: list[str] = []
    counted = {"unreadable": 0, "too_long": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_reader, "BLOCK_BYTES", 64)
        patch.setattr(log_reader, "MOST_LINE_BYTES", 1024)
        for at, until in pairwise([0, *cuts, len(whole)]):
            with log.open("ab") as file:
                file.write(whole[at:until])
            reader = LogReader(log, kept)
            while (part := reader.next()) is not None:
                rows += [row.id for row in part.rows]
                counted["unreadable"] += part.unreadable
                counted["too_long"] += part.too_long
                reader.keep(part.end)
    assert rows == [kind for kind in kinds if kind not in ("torn", "", "long" * 2000)]
    assert counted == {"unreadable": kinds.count("torn"), "too_long": kinds.count("long" * 2000)}


def test_the_last_line_of_a_file_that_is_written_no_more_needs_no_newline(tmp_path: Path) -> None:
    log = tmp_path / "p.jsonl"
    log.with_name("p.000001.jsonl").write_bytes(b'{"id": "a"}\n{"id": "b"}')
    log.with_name("p.000002.jsonl").write_bytes(b'{"id": "c"}\n{"id": ')
    log.write_bytes(b'{"id": "d"}\n{"id": "e"}')
    reader, parts = LogReader(log, tmp_path / "place"), []
    while (part := reader.next()) is not None:
        parts.append(part)
        reader.keep(part.end)
    assert [row.id for part in parts for row in part.rows] == ["a", "b", "c", "d"]
    assert sum(part.unreadable for part in parts) == 1


@pytest.mark.slow
def test_driftwatch_counts_each_row_once_though_it_is_down_and_killed(
    world: Callable[..., World], tmp_path: Path
) -> None:
    pytest.importorskip("duckdb", reason="needs the extra modelops")
    from tests.modelops.watching import WINDOW, Watching

    port = free_port()
    made = world(HttpTarget(kind="http", url=f"http://127.0.0.1:{port}/"))
    watching = Watching(tmp_path, {"kind": "http", "host": "127.0.0.1", "port": port})
    made.start()
    made.write("a", 500)
    watching.up()
    wait_for(lambda: watching.counts().get("used", 0) == 500, watching.said)
    made.write("b", 400)
    watching.down(signal.SIGKILL)
    made.write("c", 600)
    watching.up()
    wait_for(lambda: made.value("waiting_bytes") == 0, watching.said)
    assert made.value("delivered_rows_total") == 1500
    made.write("d", 50)
    wait_for(lambda: made.value("delivered_rows_total") == 1550, watching.said)
    wait_for(lambda: watching.decided() == 1550 // WINDOW * WINDOW, watching.said)
    watching.down()


@pytest.mark.slow
def test_a_kafka_topic_has_each_row(world: Callable[..., World], broker: Any) -> None:
    kafka = pytest.importorskip("kafka")
    topic = f"predictions-{free_port()}"
    admin = kafka.KafkaAdminClient(bootstrap_servers=broker.address)
    admin.create_topics([kafka.admin.NewTopic(topic, 1, 1)])
    admin.close()
    made = world(KafkaTarget(kind="kafka", brokers=(broker.address,), topic=topic))
    made.write("a", 1100)
    made.start()
    wait_for(lambda: made.value("delivered_rows_total") == 1100)
    consumer = kafka.KafkaConsumer(
        topic, bootstrap_servers=broker.address, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    found = []
    for message in consumer:
        found.append((message.key, json.loads(message.value)))
        if len(found) == 1100:
            break
    consumer.close()
    assert found == [(event["id"].encode(), event) for event in events("a", 1100)]


@pytest.mark.slow
def test_a_model_server_answers_while_its_broker_is_gone(tmp_path: Path, own_kafka: Callable[..., Any]) -> None:
    kafka = pytest.importorskip("kafka")
    pytest.importorskip("skops", reason="needs the extra modelops")
    from tests.modelops import served_model, world
    from tests.modelops.test_serving import Predicting

    broker = own_kafka("auto.create.topics.enable=true")
    address = broker.up()
    admin = kafka.KafkaAdminClient(bootstrap_servers=address)
    admin.create_topics([kafka.admin.NewTopic("predictions", 1, 1)])
    admin.close()
    config = world.make_folder(
        tmp_path, entry={"deliver": [{"kind": "kafka", "brokers": [address], "topic": "predictions"}]}
    )
    served_model.register(config)
    predicting = Predicting(config)

    def metric(name: str) -> float:
        text = ask(f"{predicting.url}/metrics")[1]
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"model_server_{name}{{"))

    def answered(name: str) -> None:
        row = world.features(1, 1)
        assert [predicting.predict(row, f"{name}{i}")[0] for i in range(50)] == [200] * 50

    try:
        answered("a")
        wait_for(lambda: metric("delivered_rows_total") == 50)
        broker.kill()
        answered("b")
        wait_for(lambda: metric("waiting_bytes") > 0)
        broker.up()
        answered("c")
        wait_for(lambda: metric("delivered_rows_total") == 150 and metric("waiting_bytes") == 0)
        assert metric("dropped_rows_total") == 0
    finally:
        predicting.process.kill()
        predicting.process.wait()

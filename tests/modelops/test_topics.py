"""Training from Kafka topics over a real broker: the rows of files, what is kept, what was lost, what is said."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb", reason="needs the extra modelops")

from modelops import inputs
from modelops.config import load
from modelops.data import Selection, Snapshot, Warehouse
from modelops.errors import DataError
from tests.modelops import test_snapshots as rows
from tests.modelops import world
from tests.modelops.service import run

kafka = pytest.importorskip("kafka")
SINCE_S = rows.START_S


class Machine:
    """A state folder of its own over the same topics; `max_bytes` and `keep` as of the prediction log."""

    def __init__(self, folder: Path, broker: str, topics: dict[str, list[str]], **rotation: int) -> None:
        source = {"kind": "kafka", "brokers": [broker], "topics": topics}
        entry = {"source": source, "labels": None, "rotation": {"max_bytes": 1 << 16, "keep": 8} | rotation}
        self.config_path = world.make_folder(folder, entry=entry)
        self.config = load(self.config_path)
        self.shares: list[float] = []

    def files(self, since_s: float = SINCE_S) -> list[Path]:
        with inputs.to_train(self.config, "credit", since_s, self.shares.append) as (_, topics):
            return list(topics.files)

    def lines(self, since_s: float = SINCE_S) -> list[bytes]:
        return b"".join(path.read_bytes() for path in self.files(since_s)).splitlines()

    def snapshot(self, since_s: float = SINCE_S) -> Snapshot:
        with inputs.to_train(self.config, "credit", since_s, self.shares.append) as (files, topics):
            warehouse = Warehouse(self.config.state.folder, chunk_bytes=20_000)
            return warehouse.snapshot(files, rows.recipe(), Selection("credit", since_s), topics)


@pytest.fixture
def kafka_broker(broker: Any) -> Any:
    """A broker with transactions whose records can be deleted."""
    if broker.kind == "tansu":
        pytest.skip("needs a real Kafka: Tansu has no transactions")
    return broker


def new_topic(broker: Any, partitions: int = 1) -> str:
    name = f"t-{uuid.uuid4().hex[:12]}"
    admin = kafka.KafkaAdminClient(bootstrap_servers=broker.address)
    admin.create_topics([kafka.admin.NewTopic(name, partitions, 1)])
    admin.close()
    return name


def send(broker: Any, topic: str, events: list[Any], partitions: int = 1, **settings: Any) -> None:
    """Events in turn to the partitions; bytes as they are, None as a tombstone."""
    producer = kafka.KafkaProducer(bootstrap_servers=broker.address, linger_ms=5, **settings)
    if settings:
        producer.init_transactions()
        producer.begin_transaction()
    for i, event in enumerate(events):
        value = event if event is None or isinstance(event, bytes) else json.dumps(event).encode()
        producer.send(topic, value, key=str(i).encode(), partition=i % partitions)
    if settings:
        producer.commit_transaction()
    producer.flush(30)
    producer.close()


def delete_before(broker: Any, topic: str, offset: int) -> None:
    """Deletes the messages of the first partition below an offset, as retention does."""
    admin = kafka.KafkaAdminClient(bootstrap_servers=broker.address)
    admin.delete_records({kafka.TopicPartition(topic, 0): offset})
    admin.close()


def test_topics_give_the_rows_of_files_and_every_machine_the_same_name(tmp_path: Path, kafka_broker: Any) -> None:
    log = rows.write(tmp_path / "p.jsonl", rows.predictions(450))
    answers = rows.write(tmp_path / "l.jsonl", rows.labels(450))
    of_files = Warehouse(tmp_path / "w").snapshot([log, answers], rows.recipe(), Selection("credit", SINCE_S))
    topics = {"predictions": [new_topic(kafka_broker, 3)], "labels": [new_topic(kafka_broker)]}
    odd: list[Any] = [None, b"{torn", b'{"id": null}', b"\xff\xfe", b"[1]", b'{"id": "n", "time":\n 5}']
    send(kafka_broker, topics["predictions"][0], rows.predictions(200) + odd, 3)
    first, second = (Machine(tmp_path / name, kafka_broker.address, topics) for name in ("first", "second"))
    first.files()  # it has read the half before there were any labels
    send(kafka_broker, topics["predictions"][0], rows.predictions(250, first=200), 3)
    send(kafka_broker, topics["labels"][0], rows.labels(450))
    send(kafka_broker, topics["labels"][0], [b' {"id":"none","label":0}'])
    one, other = first.snapshot(), second.snapshot()
    assert one.id == other.id
    assert rows.ids(one) == rows.ids(other) == rows.ids(of_files)
    assert one.report == of_files.report + " 1 tombstones and 4 messages without an event were left out."
    assert first.shares[-1] == second.shares[-1] == 1.0
    timed = json.loads(first.lines()[-1])
    assert (timed["id"], abs(timed["time"] - time.time()) < 600) == ("none", True)  # its message's
    send(kafka_broker, topics["labels"][0], [b"{torn"])
    assert first.snapshot().id != one.id  # no row came, but offsets


def test_only_what_is_new_is_read_and_kept(tmp_path: Path, kafka_broker: Any) -> None:
    topics = {"predictions": [new_topic(kafka_broker)]}
    machine = Machine(tmp_path, kafka_broker.address, topics)
    send(kafka_broker, topics["predictions"][0], rows.predictions(1000))
    first = machine.files()
    before = {path: path.stat().st_mtime_ns for path in first}
    send(
        kafka_broker,
        topics["predictions"][0],
        rows.predictions(1000, first=1000),
        transactional_id=topics["predictions"][0],
    )
    second = machine.files()
    assert second[: len(first)] == first
    assert len(second) > len(first) > 1
    assert all(path.stat().st_mtime_ns == at for path, at in before.items() if path != first[-1])
    assert [json.loads(line)["id"] for line in machine.lines()] == [f"r{i}" for i in range(2000)]
    assert machine.shares[-1] == 1.0  # a transaction's mark is an offset without a message
    n = len(machine.shares)
    machine.files()
    assert len(machine.shares) == n


def test_old_files_are_deleted_as_those_of_the_log_and_needed_rows_are_missed(
    tmp_path: Path, kafka_broker: Any
) -> None:
    topics = {"predictions": [new_topic(kafka_broker)]}
    machine = Machine(tmp_path, kafka_broker.address, topics, keep=1)
    began_s = time.time() - 60
    send(kafka_broker, topics["predictions"][0], rows.predictions(3000))
    with pytest.raises(DataError, match=r"partition 0: must hold the rows since .* were deleted before they were read"):
        machine.files(began_s)
    assert len(machine.files(0.0)) == 2
    assert json.loads(machine.lines(0.0)[-1])["id"] == "r2999"
    assert len(machine.files(time.time() + 60)) == 2  # what came since is all there


def test_what_retention_deleted_is_missed_only_where_it_is_needed(tmp_path: Path, kafka_broker: Any) -> None:
    topics = {"predictions": [new_topic(kafka_broker)]}
    name = topics["predictions"][0]
    began_s = time.time() - 60
    send(kafka_broker, name, rows.predictions(100))
    machine, late = (Machine(tmp_path / word, kafka_broker.address, topics) for word in ("early", "late"))
    assert len(machine.lines(began_s)) == 100
    send(kafka_broker, name, rows.predictions(100, first=100))
    delete_before(kafka_broker, name, 150)
    for one in (machine, late):
        with pytest.raises(DataError, match=r"were deleted before they were read\. Raise the topic's `retention.ms`"):
            one.lines(began_s)
    later_s = time.time() + 1
    assert len(machine.lines(later_s)) == 150
    assert len(late.lines(later_s)) == len(late.lines(0.0)) == 50
    delete_before(kafka_broker, name, 200)
    assert len(late.lines(began_s + 120)) == 50  # they were read before


def test_what_was_written_and_not_noted_is_read_again(
    tmp_path: Path, kafka_broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = {"predictions": [new_topic(kafka_broker)]}
    machine = Machine(tmp_path, kafka_broker.address, topics)
    send(kafka_broker, topics["predictions"][0], rows.predictions(300))
    machine.files()
    send(kafka_broker, topics["predictions"][0], rows.predictions(700, first=300))
    dies = "import os, modelops.topic_log as t; t.write = lambda *_: os.kill(os.getpid(), 9)"
    script = (
        f"{dies}\nfrom pathlib import Path\nfrom modelops import inputs\nfrom modelops.config import load\n"
        f"with inputs.to_train(load(Path({str(machine.config_path)!r})), 'credit', 0.0, print): pass"
    )
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    stray = machine.config.state.folder / "topics" / "credit" / topics["predictions"][0] / "0" / f"{777:020}.jsonl"
    stray.write_text("written, and killed before it was noted\n")
    assert [json.loads(line)["id"] for line in machine.lines()] == [f"r{i}" for i in range(1000)]
    assert not stray.exists()
    fresh = Machine(tmp_path / "fresh", kafka_broker.address, topics)
    assert [path.read_bytes() for path in fresh.files()] == [path.read_bytes() for path in machine.files()]
    last = machine.files()[-1]
    os.truncate(last, last.stat().st_size - 1)
    with pytest.raises(DataError, match=r"must hold what was read: .* is shorter than it was\. Delete"):
        machine.files()


def test_a_topic_that_is_missing_or_was_made_anew_says_so(tmp_path: Path, kafka_broker: Any) -> None:
    name = new_topic(kafka_broker)
    machine = Machine(tmp_path, kafka_broker.address, {"predictions": [name], "labels": ["no-such-topic"]})
    with pytest.raises(DataError, match=r"`source.topics` must name topics that are there; no-such-topic is not"):
        machine.files()
    send(kafka_broker, name, rows.predictions(5))
    again = Machine(tmp_path / "again", kafka_broker.address, {"predictions": [name]})
    again.files()
    place = tmp_path / "again" / "state" / "topics" / "credit" / name / "0" / "place.json"
    place.write_text(place.read_text().replace('"next":5', '"next":9'))
    with pytest.raises(DataError, match=r"must go on from offset 9; it ends with 5, so it is another topic.*Delete"):
        again.files()


@pytest.mark.slow
def test_a_broker_that_is_gone_is_waited_for(tmp_path: Path, own_kafka: Callable[..., Any]) -> None:
    pytest.importorskip("skops", reason="needs the extra modelops")
    from tests.modelops.job_bench import Bench

    broker = own_kafka()
    broker.up()
    topics = {"predictions": [new_topic(broker)]}
    world.write_events(tmp_path / "made.jsonl", 2000, 3, start_s=SINCE_S, changed=True)
    events = [json.loads(line) for line in (tmp_path / "made.jsonl").read_text().splitlines()]
    send(broker, topics["predictions"][0], events[:10])
    bench = Bench(tmp_path / "bench", {}, n_events=0)
    document = json.loads(bench.config_path.read_text())
    document["models"]["credit"]["source"] = {"kind": "kafka", "brokers": [broker.address], "topics": topics}
    bench.config_path.write_text(json.dumps(document))
    broker.kill()
    found = run("train", "credit", "-c", bench.config_path)
    assert found.returncode == 3
    assert f"modelops: kafka://{broker.address} does not answer: " in found.stderr
    job = bench.step()
    assert (job.state, job.attempts) == ("waiting_for_labels", 0)
    assert "does not answer" in job.reason
    broker.up()
    send(broker, topics["predictions"][0], events[10:])
    bench.database.execute("UPDATE jobs SET due_s = 0")
    assert bench.step().state == "rolling_out"
    bench.close()


def test_labels_of_a_topic_judge_the_requests_that_are_served(tmp_path: Path, kafka_broker: Any) -> None:
    topics = {"labels": [new_topic(kafka_broker)]}
    machine = Machine(tmp_path, kafka_broker.address, topics)
    machine.config.model("credit").predictions.parent.mkdir()
    rows.write(machine.config.model("credit").predictions, rows.predictions(100))
    send(kafka_broker, topics["labels"][0], rows.labels(80))
    with inputs.served(machine.config, "credit") as files:
        found = Warehouse(tmp_path / "w").live_scores(files, rows.recipe(), Selection("credit", SINCE_S))
    assert {version: len(pairs) for version, pairs in found.items()} == {"1": 80}


@pytest.mark.slow
def test_a_model_is_trained_from_topics_alone(tmp_path: Path, kafka_broker: Any) -> None:
    pytest.importorskip("skops", reason="needs the extra modelops")
    topics = {"predictions": [new_topic(kafka_broker, 2)]}
    machine = Machine(tmp_path, kafka_broker.address, topics, max_bytes=1 << 30)
    world.write_events(tmp_path / "made.jsonl", 2000, 3, start_s=SINCE_S, changed=False)
    send(
        kafka_broker,
        topics["predictions"][0],
        [json.loads(line) for line in (tmp_path / "made.jsonl").read_text().splitlines()],
        2,
    )
    found = run("train", "credit", "-c", machine.config_path)
    assert found.returncode == 0, found.stderr
    assert "version 1 of credit is registered" in found.stderr
    said = (tmp_path / "state" / "lineage.jsonl").read_text()
    assert f'"namespace": "kafka://{kafka_broker.address}"' in said
    assert f'"name": "{topics["predictions"][0]}"' in said

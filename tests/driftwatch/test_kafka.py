"""The sidecar over a Kafka broker, with either client: decisions are those of `replay`, whatever ends it meanwhile."""

import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sidecar import (
    COUNT,
    TIME,
    TWO_DRIFTS,
    WINDOW,
    Receiver,
    drifting,
    events,
    receiving,
    replayed,
    rounded,
    webhook_ids,
    write_config,
    write_events,
)

pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (the extra kafka-fast)")

from kafka_sidecar import (
    CLIENTS,
    PATIENCE_S,
    Sidecar,
    Sidecars,
    committed,
    delete_records,
    delete_topic,
    group_of,
    make_topic,
    new_topic,
    produce,
    wait_until,
)

from tests.ports import free_ports

MORE = [pytest.param(client, marks=pytest.mark.slow) for client in CLIENTS]
KAFKA_PYTHON, CONFLUENT = [CLIENTS[0], MORE[1]], [MORE[0], CLIENTS[1]]  # the other one is slow
OwnKafka = Callable[..., Any]
SHORT = {"session.timeout.ms": 1500, "heartbeat.interval.ms": 300}  # a dead member's partitions move soon


def skip_slow_joins(broker: Any, client: str) -> None:
    """Tansu takes 20 s for a join, which kafka-python's watchdog begins anew too often to end within a test."""
    if broker.kind == "tansu" and client == "kafka-python":
        pytest.skip("needs a real Kafka: on Tansu kafka-python joins too slowly")


def undisturbed(folder: Path, stream: list[Any], **changed: Any) -> list[Any]:
    """What `replay` says of the same events in a file."""
    return rounded(replayed(write_config(folder, **changed), write_events(folder / "events.jsonl", stream)))


def decides(sidecar: Sidecar, want: list[Any], open_windows: int = 0) -> None:
    """Waits for its decisions: all of these, but for the last that later events would close."""
    n = len(want) - open_windows
    wait_until(lambda: len(sidecar.decisions()) >= n, f"{n} decisions", [sidecar])
    found = rounded(sidecar.decisions())
    assert found == want[: len(found)]


@pytest.mark.parametrize("client", CLIENTS)
def test_it_decides_as_replay_does(client: str, broker: Any, sidecars: Sidecars, folder: Path) -> None:
    skip_slow_joins(broker, client)
    stream = drifting(TWO_DRIFTS)
    topic = new_topic(broker.address)
    produce(broker.address, topic, [*stream[:700], None, b"{not JSON", *stream[700:]])
    sidecar = sidecars.make(broker.address, client, [topic], window=COUNT).start()
    decides(sidecar, undisturbed(folder, stream, window=COUNT))
    wait_until(lambda: sidecar.count() == len(stream) + 2, "every record", [sidecar])
    assert (sidecar.count("used"), sidecar.count("tombstone"), sidecar.count("poison")) == (len(stream), 1, 1)
    assert sidecar.end() == 0


@pytest.mark.parametrize(
    ("client", "window"),
    [
        (CLIENTS[0], TIME),
        (CLIENTS[1], COUNT),
        pytest.param(CLIENTS[0], COUNT, marks=pytest.mark.slow),
        pytest.param(CLIENTS[1], TIME, marks=pytest.mark.slow),
    ],
)
def test_killed_amid_its_work_it_comes_to_the_same_decisions_and_webhooks(
    client: str, window: dict[str, object], kafka: str, sidecars: Sidecars, folder: Path
) -> None:
    stream, dice, topic = drifting(TWO_DRIFTS), random.Random(1), new_topic(kafka)
    want = undisturbed(folder, stream, window=window)
    with receiving(Receiver([503, 200, 503])) as receiver:
        sidecar = sidecars.make(kafka, client, [topic], window=window, sinks=[receiver.sink()])
        for life in range(4):
            sidecar.start()
            for i in range(life * len(stream) // 4, (life + 1) * len(stream) // 4, 125):
                produce(kafka, topic, stream[i : min(i + 125, (life + 1) * len(stream) // 4)])
            wait_until(sidecar.count, "the first record of this life", [sidecar])
            if life < 3:
                time.sleep(dice.uniform(0, 0.5))
                sidecar.kill()
        decides(sidecar, want, 0 if window is COUNT else 1)
        ids = webhook_ids(sidecar.decisions())
        wait_until(lambda: ids <= set(receiver.taken.get("/", ())), "every webhook", [sidecar])
        assert sidecar.end() == 0
    assert set(receiver.taken["/"]) == ids
    assert receiver.faults == []


@pytest.mark.parametrize("client", KAFKA_PYTHON)
def test_a_partition_that_goes_from_one_member_to_another_and_back_is_counted_once(
    client: str, kafka: str, sidecars: Sidecars
) -> None:
    stream, topic = events(12 * WINDOW), new_topic(kafka, 2)
    first, second = (sidecars.make(kafka, client, [topic], window=TIME, settings=SHORT) for _ in range(2))

    def send(part: int) -> None:
        some = stream[part * len(stream) // 3 : (part + 1) * len(stream) // 3]
        for partition in (0, 1):
            produce(kafka, topic, some[partition::2], partition)

    def rows() -> Counter[str]:
        found: Counter[str] = Counter()
        for decision in (*first.decisions(), *second.decisions()):
            found[decision["window"]["start"]] += decision["window"]["n_records"]
        return found

    first.start()
    send(0)
    wait_until(lambda: first.count("used") == len(stream) / 3, "the first third", [first])
    second.start()
    wait_until(lambda: 'shards{model="credit",state="active",version="1"} 1.0' in second.get("/metrics"), "a half")
    send(1)
    wait_until(lambda: second.count("used") >= len(stream) / 6, "the second's share", [first, second])
    judged = [7 * WINDOW // 2] * 2  # its mark: where the eighth window begins
    group = group_of([topic])
    wait_until(lambda: [committed(kafka, group, topic, p) for p in (0, 1)] == judged, "their marks", [first, second])
    second.kill()
    send(2)
    wait_until(lambda: len(rows()) >= 11, "all windows but the last", [first])
    wait_until(lambda: sum(rows().values()) >= 11 * WINDOW, "all their rows", [first])
    assert dict(rows()) == dict.fromkeys(rows(), WINDOW)
    assert any(decision["part"] == 1 for decision in second.decisions())
    (share,) = {str(decision["share"]) for decision in second.decisions()}
    assert re.fullmatch(r"{'shards': \['t-.*/[01]'\], 'of': 2}", share)
    assert first.decisions()[-1]["share"] is None  # it has all of them again


@pytest.mark.parametrize("client", CONFLUENT)
def test_without_its_state_it_begins_where_the_group_is_and_judges_no_window_again(
    client: str, kafka: str, sidecars: Sidecars, folder: Path
) -> None:
    stream, topic = events(8 * WINDOW), new_topic(kafka)
    want = undisturbed(folder, stream, window=TIME)
    sidecar = sidecars.make(kafka, client, [topic], window=TIME, settings=SHORT).start()
    produce(kafka, topic, stream[: 5 * WINDOW])
    decides(sidecar, want[:4])
    before = sidecar.decisions()
    assert sidecar.end() == 0
    shutil.rmtree(sidecar.folder / "state")
    sidecar.start()
    produce(kafka, topic, stream[5 * WINDOW :])
    wait_until(lambda: len(before) + len(sidecar.decisions()) >= 7, "the other windows", [sidecar])
    found = rounded(before + sidecar.decisions())
    assert [d["window"] for d in found] == [d["window"] for d in want[:7]]
    assert [d["scores"] for d in found] == [d["scores"] for d in want[:7]]


@pytest.mark.parametrize("client", MORE)
def test_a_broker_that_is_away_is_waited_for(
    client: str, own_kafka: OwnKafka, sidecars: Sidecars, folder: Path
) -> None:
    stream, broker = drifting(TWO_DRIFTS), own_kafka()
    want = undisturbed(folder, stream, window=COUNT)
    make_topic(broker.up(), "predictions")
    broker.kill()
    sidecar = sidecars.make(broker.address, client, ["predictions"], window=COUNT).start()
    wait_until(lambda: "Kafka does not answer" in sidecar.get("/readyz"), "the word of it", [sidecar])
    for part in range(2):
        broker.up()
        produce(broker.address, "predictions", stream[part * 1750 : (part + 1) * 1750])
        wait_until(lambda at=part: sidecar.count() >= (at + 1) * 1750, "every record", [sidecar])
        wait_until(lambda: sidecar.get("/readyz") == "ok\n", "readiness", [sidecar])
        if part == 0:
            broker.kill()
            wait_until(lambda: "Kafka does not answer" in sidecar.get("/readyz"), "the word of it", [sidecar])
    decides(sidecar, want)
    assert sidecar.end() == 0
    assert sidecar.said().count("Kafka does not answer") == 2, sidecar.said()


@pytest.mark.parametrize("client", CLIENTS)
def test_every_codec_is_read(client: str, broker: Any, sidecars: Sidecars) -> None:
    skip_slow_joins(broker, client)
    topic = new_topic(broker.address)
    for i, codec in enumerate(["gzip", "lz4", "zstd", "snappy"]):
        batch = {"compression.type": codec, "linger.ms": 50}
        produce(broker.address, topic, events(500, start=500 * i), **batch)
    sidecar = sidecars.make(broker.address, client, {"features": [topic]}).start()
    wait_until(lambda: sidecar.count() >= 2000, "every record", [sidecar])
    assert sidecar.count("used") == 2000


@pytest.mark.parametrize("client", MORE)
def test_a_wrong_password_is_said(client: str, own_kafka: OwnKafka, sidecars: Sidecars) -> None:
    login = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_reader="right";'
    ports = free_ports(3)
    broker = own_kafka(
        f"listeners=PLAINTEXT://127.0.0.1:{ports[0]},CONTROLLER://127.0.0.1:{ports[1]},SASL://127.0.0.1:{ports[2]}",
        f"advertised.listeners=PLAINTEXT://127.0.0.1:{ports[0]},SASL://127.0.0.1:{ports[2]}",
        f"controller.quorum.voters=1@127.0.0.1:{ports[1]}",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT",
        "inter.broker.listener.name=PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN",
        f"listener.name.sasl.plain.sasl.jaas.config={login}",
    )
    broker.address = f"127.0.0.1:{ports[0]}"
    broker.up()
    make_topic(broker.address, "predictions")
    produce(broker.address, "predictions", events(10))
    user = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "reader"}
    address = f"127.0.0.1:{ports[2]}"
    right = sidecars.make(address, client, ["predictions"], settings=user | {"sasl.password": "right"}).start()
    wait_until(lambda: right.count() == 10, "every record", [right])
    right.kill()
    wrong = sidecars.make(address, client, ["predictions"], settings=user | {"sasl.password": "wrong"}).start()
    assert wrong.process is not None
    assert wrong.process.wait(PATIENCE_S) == 3
    assert "the broker refuses this user" in wrong.said()
    assert "right" not in wrong.said() or "wrong" not in wrong.said()


@pytest.mark.parametrize("client", MORE)
def test_a_copied_state_file_ends_the_one_that_it_was_copied_from(client: str, kafka: str, sidecars: Sidecars) -> None:
    topic = new_topic(kafka)
    produce(kafka, topic, events(100))
    original, copy = (sidecars.make(kafka, client, [topic]) for _ in range(2))
    original.start()
    wait_until(lambda: original.count() == 100, "every record", [original])
    original.kill()
    shutil.copytree(original.folder / "state", copy.folder / "state")
    original.start()
    wait_until(lambda: 'shards{model="credit",state="active",version="1"} 1.0' in original.get("/metrics"), "a share")
    copy.start()
    wait_until(lambda: 'shards{model="credit",state="active",version="1"} 1.0' in copy.get("/metrics"), "its share")
    produce(kafka, topic, events(100, start=100))
    assert original.process is not None
    assert original.process.wait(PATIENCE_S) == 3
    assert "on a copy of this state file" in original.said()
    assert copy.process is not None
    assert copy.process.poll() is None


@pytest.mark.parametrize(
    ("client", "window"),
    [
        (CLIENTS[0], TIME),
        pytest.param(CLIENTS[1], TIME, marks=pytest.mark.slow),
        pytest.param(CLIENTS[0], COUNT, marks=pytest.mark.slow),
    ],
)
def test_records_that_retention_took_are_counted_as_lost_and_their_windows_are_partial(
    client: str, window: Any, kafka: str, sidecars: Sidecars
) -> None:
    stream, topic = events(4 * WINDOW), new_topic(kafka)
    produce(kafka, topic, stream[:300])
    sidecar = sidecars.make(kafka, client, [topic], window=window).start()
    wait_until(lambda: sidecar.count() == 300, "every record", [sidecar])
    assert sidecar.end() == 0
    produce(kafka, topic, stream[300:])
    delete_records(kafka, topic, 330)
    sidecar.start()
    wait_until(lambda: sidecar.count("used") == 670, "what is left", [sidecar])
    wait_until(lambda: len(sidecar.decisions()) >= 3, "the decisions", [sidecar])
    lost = 'driftwatch_records_lost_total{model="credit",reason="retention",version="1"} 30.0'
    assert lost in sidecar.get("/metrics")
    assert [(d["window"]["n_records"], d["partial"]) for d in sidecar.decisions()][:3] == [
        (WINDOW, window is TIME),  # it was open, and what is lost may have been late rows of it
        (WINDOW if window is COUNT else WINDOW - 30, True),
        (WINDOW, False),
    ]
    assert "30 records were gone before they were read" in sidecar.said()


@pytest.mark.parametrize("client", CONFLUENT)
def test_a_topic_that_is_deleted_is_looked_for_and_one_made_anew_is_read_from_its_start(
    client: str, kafka: str, sidecars: Sidecars, folder: Path
) -> None:
    stream, topic = events(6 * WINDOW), new_topic(kafka)
    produce(kafka, topic, stream[:550])
    sidecar = sidecars.make(kafka, client, [topic], window=TIME).start()
    wait_until(lambda: sidecar.count() == 550, "every record", [sidecar])
    wait_until(lambda: committed(kafka, group_of([topic]), topic) == WINDOW, "its mark", [sidecar])
    delete_topic(kafka, topic)
    wait_until(lambda: f"the topic {topic} does not exist" in sidecar.get("/readyz"), "the word of it", [sidecar])
    make_topic(kafka, topic)
    produce(kafka, topic, stream[550:])  # more than there were before
    decides(sidecar, undisturbed(folder, stream, window=TIME), 1)
    wait_until(lambda: sidecar.get("/readyz") == "ok\n", "readiness", [sidecar])
    assert sidecar.count("used") == len(stream)
    assert "it was made anew" in sidecar.said()

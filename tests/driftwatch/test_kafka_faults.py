"""Whatever the network, the group and the machine do to a sidecar over Kafka, its decisions are those of `replay`."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sidecar import COUNT, TIME, TWO_DRIFTS, Receiver, drifting, fill, receiving, rounded, webhook_ids

pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (the extra kafka-fast)")

from kafka_sidecar import (
    CLIENTS,
    Sidecars,
    delete_records,
    delete_topic,
    group_of,
    has_topic,
    make_topic,
    new_topic,
    produce,
    wait_until,
)
from tcp_proxy import TcpProxy
from test_kafka import KAFKA_PYTHON, decides, undisturbed

from driftwatch.store import Store

ONE = KAFKA_PYTHON  # the other one is slow
PARTS = 3


@pytest.fixture
def sidecars(folder: Path) -> Iterator[Sidecars]:
    """Makes sidecars, and kills what is left of them."""
    made = Sidecars(folder)
    yield made
    for sidecar in made.made:
        sidecar.kill()


@pytest.fixture
def kafka(proxied_kafka: Any) -> str:
    """The address that leads straight to the broker."""
    return str(proxied_kafka.address)


def faulty(proxy: TcpProxy, fault: str) -> None:
    """Does it to the connections that there are."""
    match fault:
        case "cut":
            proxy.cut()
        case "half-open":
            proxy.lose_server()
        case "held":
            proxy.hold()
            threading.Timer(7.0, proxy.release).start()  # longer than a request may take
        case "slow":
            proxy.bytes_per_s = 100_000
            proxy.cut()  # what was fetched ahead would hide it


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "fault", ["cut", *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("half-open", "held", "slow"))]
)
def test_a_connection_that_fails_in_any_way_loses_and_doubles_nothing(
    client: str, fault: str, proxied_kafka: Any, sidecars: Sidecars, folder: Path
) -> None:
    stream, topic = drifting(TWO_DRIFTS), new_topic(proxied_kafka.address)
    want, part = undisturbed(folder, stream, window=COUNT), len(stream) // PARTS
    proxy = TcpProxy(proxied_kafka.port, proxied_kafka.advertised_port)
    with proxy.serving(), receiving(Receiver([503])) as receiver:
        address = f"127.0.0.1:{proxy.port}"
        sidecar = sidecars.make(address, client, [topic], window=COUNT, sinks=[receiver.sink()]).start()
        for i in range(PARTS):
            produce(proxied_kafka.address, topic, stream[i * part : (i + 1) * part])
            wait_until(lambda n=(i + 1) * part: sidecar.count() >= n, "every record", [sidecar])
            faulty(proxy, fault)
        produce(proxied_kafka.address, topic, stream[PARTS * part :])
        decides(sidecar, want)
        ids = webhook_ids(want)
        wait_until(lambda: ids <= set(receiver.taken.get("/", ())), "every webhook", [sidecar])
        assert proxy.n_opened > 1
        assert sidecar.count() == sidecar.count("used") == len(stream)
        assert sidecar.end() == 0
    assert set(receiver.taken["/"]) == ids


SET_BACK = """
import os, time
real = time.time
def set_back():
    with open(os.environ["DRIFTWATCH_TEST_CLOCK"]) as file:
        return real() + float(file.read())
time.time = set_back
"""


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the machine's clock, as the processes see it that start from now on, by so many seconds."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SET_BACK)
    offset = tmp_path / "offset"

    def move(seconds: float) -> None:
        (tmp_path / "next").write_text(str(seconds))
        (tmp_path / "next").replace(offset)

    move(0)
    monkeypatch.setenv("DRIFTWATCH_TEST_CLOCK", str(offset))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return move


@pytest.mark.parametrize("client", ONE)
def test_a_machines_clock_that_is_set_back_decides_nothing_and_holds_no_webhook_up(
    client: str, kafka: str, clock: Callable[[float], None], sidecars: Sidecars, folder: Path
) -> None:
    stream, topic = drifting(TWO_DRIFTS), new_topic(kafka)
    want, half = undisturbed(folder, stream, window=TIME), len(stream) // 2
    with receiving(Receiver([503] * 3)) as receiver:
        sidecar = sidecars.make(kafka, client, [topic], window=TIME, sinks=[receiver.sink()]).start()
        produce(kafka, topic, stream[:half])
        wait_until(lambda: receiver.posts.get("/", 0) >= 2, "a webhook that is to be tried again", [sidecar])
        clock(-1800.0)
        produce(kafka, topic, stream[half:])
        decides(sidecar, want, 1)
        ids = webhook_ids(sidecar.decisions())
        wait_until(lambda: ids <= set(receiver.taken.get("/", ())), "every webhook", [sidecar])
        assert sidecar.get("/readyz") == "ok\n"
        assert sidecar.end() == 0
    assert ids == webhook_ids(want)


@pytest.mark.parametrize("client", ONE)
def test_told_to_stop_under_load_it_ends_in_order_and_goes_on_where_it_was(
    client: str, kafka: str, sidecars: Sidecars, folder: Path
) -> None:
    stream, topic, dice = drifting(TWO_DRIFTS), new_topic(kafka), random.Random(4)
    want = undisturbed(folder, stream, window=COUNT)
    with receiving(Receiver([503, 200, 503])) as receiver:
        sidecar = sidecars.make(kafka, client, [topic], window=COUNT, sinks=[receiver.sink()])
        n_sent, n_lives = 0, 4
        for life in range(1, n_lives + 1):
            sidecar.start()
            while n_sent < life * len(stream) // n_lives:
                produce(kafka, topic, stream[n_sent : n_sent + 50])
                n_sent += len(stream[n_sent : n_sent + 50])
            wait_until(sidecar.count, "the first record of this life", [sidecar])
            if life < n_lives:
                time.sleep(dice.uniform(0, 0.2))
                assert sidecar.end() == 0, sidecar.said()
        decides(sidecar, want)
        assert sidecar.end() == 0
    assert set(receiver.taken["/"]) == webhook_ids(want)
    assert sidecar.decisions()[-1]["window"]["n_records"] == want[-1]["window"]["n_records"]


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_a_state_volume_that_is_full_holds_reading_up_and_loses_nothing(
    client: str, kafka: str, sidecars: Sidecars, folder: Path, tiny_folder: Path
) -> None:
    stream, topic = drifting(TWO_DRIFTS), new_topic(kafka)
    want, state = undisturbed(folder, stream, window=COUNT), {"path": str(tiny_folder / "state.db")}
    sidecar = sidecars.make(kafka, client, [topic], window=COUNT, state=state).start()
    produce(kafka, topic, stream[:600])
    wait_until(lambda: len(sidecar.decisions()) == 2, "two decisions", [sidecar])
    fill(tiny_folder / "ballast")
    produce(kafka, topic, stream[600:])
    wait_until(lambda: "full" in sidecar.get("/readyz"), "the word of it", [sidecar])
    (tiny_folder / "ballast").unlink()
    decides(sidecar, want)
    wait_until(lambda: sidecar.get("/readyz") == "ok\n", "readiness", [sidecar])
    assert sidecar.count() == sidecar.count("used") == len(stream)
    assert sidecar.end() == 0


@pytest.mark.parametrize("client", ONE)
def test_records_that_retention_takes_while_it_is_stopped_amid_a_window_cost_only_themselves(
    client: str, kafka: str, sidecars: Sidecars, folder: Path
) -> None:
    stream, topic = drifting(TWO_DRIFTS), new_topic(kafka)
    want = undisturbed(folder, [*stream[:700], *stream[950:]], window=COUNT)
    want[2]["partial"] = True  # the one that was open says that it may lack rows
    sidecar = sidecars.make(kafka, client, [topic], window=COUNT).start()
    produce(kafka, topic, stream[:700])
    wait_until(lambda: sidecar.count() == 700, "every record", [sidecar])
    assert sidecar.end() == 0
    produce(kafka, topic, stream[700:])
    delete_records(kafka, topic, 950)
    sidecar.start()
    decides(sidecar, want)
    assert 'driftwatch_records_lost_total{model="credit",reason="retention",version="1"} 250.0' in sidecar.get(
        "/metrics"
    )
    assert sidecar.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_a_topic_deleted_amid_a_window_and_made_anew_goes_on_in_that_window(
    client: str, kafka: str, sidecars: Sidecars, folder: Path
) -> None:
    stream, topic = drifting(TWO_DRIFTS), new_topic(kafka)
    want = undisturbed(folder, stream, window=COUNT)
    # The group may take the partition away before it comes back: what was open is another's to count then, and gone.
    without = undisturbed(folder, [*stream[:1000], *stream[1100:]], window=COUNT)[:-1]
    sidecar = sidecars.make(kafka, client, [topic], window=COUNT).start()
    produce(kafka, topic, stream[:1100])
    wait_until(lambda: sidecar.count() == 1100, "every record", [sidecar])
    delete_topic(kafka, topic)
    wait_until(lambda: not has_topic(kafka, topic), "its end", [sidecar])
    make_topic(kafka, topic)
    produce(kafka, topic, stream[1100:1500])
    wait_until(lambda: sidecar.count() == 1500, "the new topic's records", [sidecar])
    produce(kafka, topic, stream[1500:])
    wait_until(lambda: sidecar.count() == len(stream), "the rest", [sidecar])
    assert sidecar.end() == 0
    assert rounded(sidecar.decisions()) in (want, without)


EMPTY_LEADER = """
import os, signal, sys
from kafka import KafkaConsumer
from kafka.coordinator.assignors.range import RangePartitionAssignor
address, group, member, topic = sys.argv[1:]
assign = RangePartitionAssignor.assign
def assign_nothing(cls, cluster, members):
    cluster.partitions_for_topic = lambda topic: set()
    return assign(cluster, members)
RangePartitionAssignor.assign = classmethod(assign_nothing)
class Killed:
    def on_partitions_revoked(self, revoked): ...
    def on_partitions_assigned(self, assigned):
        os.kill(os.getpid(), signal.SIGKILL)
from kafka.consumer.subscription_state import ConsumerRebalanceListener
ConsumerRebalanceListener.register(Killed)
consumer = KafkaConsumer(bootstrap_servers=[address], group_id=group, group_instance_id=member)
consumer.subscribe([topic], listener=Killed())
while True:
    consumer.poll(timeout_ms=1000)
"""


@pytest.mark.parametrize("client", ONE)
def test_a_member_that_was_killed_as_it_gave_itself_nothing_is_given_its_share_again(
    client: str, kafka: str, sidecars: Sidecars
) -> None:
    topic = new_topic(kafka)
    produce(kafka, topic, drifting(TWO_DRIFTS)[:100])
    sidecar = sidecars.make(kafka, client, [topic], window=COUNT)
    with contextlib.closing(Store.open(sidecar.folder / "state" / "state.db", model="credit")) as store:
        member = store.store_id
    command = [sys.executable, "-W", "ignore", "-c", EMPTY_LEADER, kafka, group_of([topic]), member, topic]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    sidecar.start()
    wait_until(lambda: sidecar.count() == 100, "every record", [sidecar])
    assert sidecar.end() == 0

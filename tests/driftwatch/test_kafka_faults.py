"""Whatever the network, the group and the machine do to a sidecar over Kafka, its decisions are those of `replay`."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sidecar import COUNT, TWO_DRIFTS, Receiver, drifting, receiving, webhook_ids

pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (the extra kafka-fast)")

from kafka_sidecar import CLIENTS, Sidecars, new_topic, produce, wait_until
from tcp_proxy import TcpProxy
from test_kafka import decides, undisturbed

PARTS = 3


@pytest.fixture
def sidecars(folder: Path) -> Iterator[Sidecars]:
    """Makes sidecars, and kills what is left of them."""
    made = Sidecars(folder)
    yield made
    for sidecar in made.made:
        sidecar.kill()


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

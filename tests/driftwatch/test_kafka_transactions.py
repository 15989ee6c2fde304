"""What a transaction wrote is read when it was committed, and its end is not taken for a record that is yet to come."""

import warnings
from typing import Any

import pytest

pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (the extra kafka-fast)")

from confluent_kafka import Producer
from kafka_sidecar import CLIENTS, new_topic, wait_until

from driftwatch.sources.kafka_client import Client, Connection, Partition


def connected(client: str, connection: Connection) -> Client:
    """The client of that name."""
    if client == "confluent":
        from driftwatch.sources.confluent import ConfluentClient

        return ConfluentClient(connection)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python's, as it reads its schemas
        from driftwatch.sources.kafka_python import KafkaPythonClient
    return KafkaPythonClient(connection)


@pytest.mark.parametrize("client", CLIENTS)
def test_only_committed_records_are_read_up_to_the_end(client: str, kafka: str) -> None:
    topic = new_topic(kafka)
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(30)
    for part in range(3):
        producer.begin_transaction()
        for i in range(20):
            producer.produce(topic, b"{}", headers={"n": f"{20 * part + i}"})
        producer.flush(30)
        if part == 1:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    found: list[int] = []
    reader: Any = connected(client, Connection((kafka,), f"g-{topic}", "m", (topic,), {}))

    def read() -> bool:
        polled = reader.poll()
        for change in polled.changes:
            if change.what == "assigned" and change.partitions:
                reader.read_from(dict.fromkeys(change.partitions, 0))
        for batch in polled.batches:
            found.extend(map(int, batch.offsets))
        return len(found) >= 40 and reader.position(Partition(topic, 0)) == 63

    wait_until(read, "all that was committed, and the end")
    assert found == [*range(20), *range(42, 62)]  # each transaction's end has an offset as well
    assert reader.ends([Partition(topic, 0)]) == {Partition(topic, 0): 63}
    reader.close()

"""Labels from a Kafka topic of their own, and from the predictions' topic."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labelled import EVENTS, apart, labelled, merged
from sidecar import TIME, WINDOW, events, replayed, rounded, write_config, write_events

pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (the extra kafka-fast)")

from kafka_sidecar import CLIENTS, Sidecars, new_topic, produce, wait_until

WRONG = (0, 0, 0.5, 0.5, 0, 0)


@pytest.fixture
def sidecars(tmp_path: Path, labelled_profile: bytes) -> Iterator[Sidecars]:
    """Makes sidecars, and kills what is left of them."""
    (tmp_path / "reference.profile").write_bytes(labelled_profile)
    made = Sidecars(tmp_path)
    yield made
    for sidecar in made.made:
        sidecar.kill()


def second(decisions: list[Any]) -> list[Any]:
    """The second judgements, in their order."""
    return rounded([d for d in decisions if d["revision"] == 1])


@pytest.mark.parametrize("client", [CLIENTS[0], pytest.param(CLIENTS[1], marks=pytest.mark.slow)])
def test_labels_come_from_a_topic_of_their_own_also_across_a_kill(
    client: str, broker: Any, sidecars: Sidecars, tmp_path: Path
) -> None:
    if broker.kind == "tansu":
        pytest.skip("needs a real Kafka: Tansu drops the metadata of commits and takes 20 s for a join")
    predictions, labels = apart(labelled(events(WINDOW * len(WRONG)), wrong=WRONG), delay_s=40.0)
    config = write_config(tmp_path, window=TIME, events=EVENTS)
    want = second(replayed(config, write_events(tmp_path / "events.jsonl", merged(predictions, labels))))
    topics = [new_topic(broker.address) for _ in range(2)]
    named = {"predictions": topics[:1], "labels": topics[1:]}
    running = sidecars.make(broker.address, client, named, window=TIME, events=EVENTS).start()
    half = len(predictions) // 2
    produce(broker.address, topics[1], labels[:half])  # before any prediction
    produce(broker.address, topics[0], predictions[:half])
    wait_until(lambda: len(second(running.decisions())) >= 1, "a second judgement", [running])
    running.kill()
    produce(broker.address, topics[0], predictions[half:])
    produce(broker.address, topics[1], labels[half:])
    running.start()
    n = len(WRONG) - 2
    wait_until(lambda: len(second(running.decisions())) >= n, f"{n} second judgements", [running])
    found = second(running.decisions())
    assert found == want[: len(found)]

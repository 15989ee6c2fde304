"""A profile learned over Kafka from two partitions is the same whatever ends the sidecar meanwhile."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sidecar import TIME, events

pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (the extra kafka-fast)")

import kafka_sidecar
from kafka_sidecar import CLIENTS, Sidecars, new_topic, produce, wait_until

PORTION = 400


@pytest.fixture
def sidecars(tmp_path: Path) -> Iterator[Sidecars]:
    """Makes sidecars, and kills what is left of them."""
    made = Sidecars(tmp_path)
    yield made
    for sidecar in made.made:
        sidecar.kill()


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_it_learns_the_same_profile_also_when_killed_and_freezes_it(
    client: str, broker: Any, sidecars: Sidecars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_sidecar, "PATIENCE_S", 300.0)  # building takes its time on a busy machine
    if broker.kind == "tansu":
        pytest.skip("needs a real Kafka: Tansu drops the metadata of commits and takes 20 s for a join")
    stream, saved = events(4 * PORTION), []
    for is_killed in (False, True):
        topic = new_topic(broker.address, 2)
        sidecar = sidecars.make(
            broker.address,
            client,
            [topic],
            window=TIME,
            reference={"learn": "1000s", "save": "saved.profile"},
            detectors={"mmd": {"rows": 0}},
        ).start()
        for start in range(0, len(stream), PORTION):
            portion = stream[start : start + PORTION]
            for partition in (0, 1):
                produce(broker.address, topic, portion[partition::2], partition)
            if is_killed:
                wait_until(lambda s=sidecar: s.count() > 0, "some records", [sidecar])  # they may not be stored yet
                sidecar.kill()
                sidecar.start()
        wait_until(lambda s=sidecar: "are kept" in s.said(), "the building", [sidecar])
        if is_killed:
            sidecar.kill()
            sidecar.start()
        frozen = sidecar.folder / "saved.profile"
        wait_until(frozen.exists, "the profile", [sidecar])
        wait_until(lambda s=sidecar: "was learned" in s.said(), "its use", [sidecar])
        saved.append(frozen.read_bytes())
    assert saved[0] == saved[1]

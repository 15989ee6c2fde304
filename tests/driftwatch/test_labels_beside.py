"""Predictions come one way and labels another: decisions are those of a replay of both, killed at any time or not."""

import itertools
import json
import logging
import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from crash_trials import KILLED, driving
from labelled import EVENTS, apart, labelled
from sidecar import TIME, WINDOW, decided, events, rounded, said, write_config, write_events
from test_crash_live import sending
from test_http import Body, Sender, free_port, lines, sidecar, until

log = logging.getLogger(__name__)
WRONG = (0, 0, 0.5, 0.5, 0, 0)
N_FIRST, N_SECOND = len(WRONG) - 1, len(WRONG) - 2  # that can be judged before either source ends
POINTS = {"before a save": 3, "amid a save": 3, "after a save": 3, "amid an append": 4}  # at which of them lives end


@dataclass
class World:
    """A stream and its labels, what a replay makes of both, and who starts sidecars over them."""

    folder: Path
    driver: "subprocess.Popen[str]"
    predictions: list[Any] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    want: list[list[Any]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def config(self, **changed: Any) -> Path:
        """A configuration in a folder of its own, without any state yet."""
        folder = self.folder / f"{next(self._numbers)}"
        folder.mkdir()
        return write_config(
            folder, window=TIME, events=EVENTS, reference={"profile": "../reference.profile"}, **changed
        )

    def live(self, config: Path, point: str | None = None, number: int = 0, delay_s: float | None = None) -> bool:
        """One life, till all is decided; whether it was killed before."""
        order = {"config": str(config), "point": point, "number": number, "delay_s": delay_s}
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        self.driver.stdin.write(json.dumps(order | {"enough": N_FIRST + N_SECOND}) + "\n")
        self.driver.stdin.flush()
        code = int(self.driver.stdout.readline())
        assert code in {0, KILLED}, (self.folder / "driver.log").read_text()
        return code == KILLED

    def killed(self, config: Path, bodies: Sequence[Body], port: int, points: Sequence[str]) -> int:
        """Sends these to lives that end at these points each, then to one that does not; how many were killed."""
        with sending(port, list(bodies)):
            n_killed = sum(self.live(config, point, POINTS[point]) for point in points)
            assert not self.live(config)
        self.agrees(config)
        log.info("%d kills", n_killed)
        return n_killed

    def agrees(self, config: Path) -> None:
        """What was decided is what the replay decided, the first judgements and the second."""
        assert judgements(decided(config)) == self.want


def judgements(decisions: Sequence[Any]) -> list[list[Any]]:
    """The first and the second ones, each in their order, of windows that are judged before either source ends."""
    n = (N_FIRST, N_SECOND)
    return [rounded([d for d in decisions if d["revision"] == i][: n[i]]) for i in (0, 1)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, labelled_profile: bytes) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("beside")
    (folder / "reference.profile").write_bytes(labelled_profile)
    with driving(folder / "driver.log") as driver:
        made = World(folder, driver)
        made.predictions, made.labels = apart(labelled(events(WINDOW * len(WRONG)), wrong=WRONG), delay_s=40.0)
        files = [write_events(folder / f"{name}.jsonl", getattr(made, name)) for name in ("predictions", "labels")]
        found = said("replay", *files, "-c", made.config(), "--json")
        made.want = judgements(found.lines)
        assert [len(part) for part in made.want] == [N_FIRST, N_SECOND]
        assert [d["verdict"] for d in made.want[1]] == ["drift" if wrong else "ok" for wrong in WRONG[:N_SECOND]]
        yield made


def topic_of(broker: Any, some: Sequence[Any]) -> dict[str, Any]:
    """A topic that holds these; what of a source says where it is."""
    pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (the extra kafka-fast)")
    from kafka_sidecar import group_of, new_topic, produce

    if broker.kind == "tansu":
        pytest.skip("needs a real Kafka: Tansu drops the metadata of commits and takes 20 s for a join")
    topic = new_topic(broker.address)
    produce(broker.address, topic, some)
    return {"kind": "kafka", "brokers": [broker.address], "topics": [topic], "group": group_of(topic)}


def label_bodies(labels: Sequence[Any]) -> list[Body]:
    return [("/v1/labels", body, headers) for _, body, headers in lines(labels)]


# Killed ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["kafka-python", pytest.param("confluent", marks=pytest.mark.slow)])
def test_predictions_from_kafka_and_labels_over_http(client: str, broker: Any, world: World) -> None:
    port = free_port()
    source = topic_of(broker, world.predictions) | {"client": client}
    config = world.config(source=source, labels={"kind": "http", "port": port, "host": "127.0.0.1"})
    assert world.killed(config, label_bodies(world.labels), port, list(POINTS)) >= 2


@pytest.mark.parametrize("client", ["kafka-python", pytest.param("confluent", marks=pytest.mark.slow)])
def test_predictions_over_http_and_labels_from_kafka(client: str, broker: Any, world: World) -> None:
    port = free_port()
    labels = topic_of(broker, world.labels) | {"client": client}
    config = world.config(source={"kind": "http", "port": port, "host": "127.0.0.1"}, labels=labels)
    assert world.killed(config, lines(world.predictions), port, list(POINTS)) >= 2

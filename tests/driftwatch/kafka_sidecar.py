"""Topics, producers and sidecars as processes, for the tests over a Kafka broker."""

import itertools
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from sidecar import decided, write_config

CLIENTS = ("kafka-python", "confluent")
PATIENCE_S = 60.0  # how long a test waits for what must come; it never waits so long where all is well
_numbers = itertools.count()


def new_topic(address: str, partitions: int = 1, **config: str) -> str:
    """Makes a topic that no other test has."""
    name = f"t-{os.getpid()}-{next(_numbers)}"
    make_topic(address, name, partitions, **config)
    return name


def make_topic(address: str, name: str, partitions: int = 1, **config: str) -> None:
    """Makes the topic of that name."""
    topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
    admin = AdminClient({"bootstrap.servers": address})  # held: its end would end the request
    for future in admin.create_topics([topic]).values():
        future.result(30)


def delete_topic(address: str, name: str) -> None:
    """Deletes it."""
    admin = AdminClient({"bootstrap.servers": address})
    for future in admin.delete_topics([name]).values():
        future.result(30)


def has_topic(address: str, name: str) -> bool:
    """Whether there is a topic of that name."""
    return name in AdminClient({"bootstrap.servers": address}).list_topics(timeout=30).topics


def delete_records(address: str, topic: str, before: int) -> None:
    """Deletes the records of its first partition below an offset, as retention does."""
    asked = [TopicPartition(topic, 0, before)]
    admin = AdminClient({"bootstrap.servers": address})
    for future in admin.delete_records(asked).values():
        future.result(30)


def committed(address: str, group: str, topic: str, partition: int = 0) -> int:
    """The offset that a group has committed; negative: none."""
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition)])
    admin = AdminClient({"bootstrap.servers": address})
    for future in admin.list_consumer_group_offsets([asked]).values():
        found: int = future.result(30).topic_partitions[0].offset
    return found


def produce(address: str, topic: str, events: Iterable[Any], partition: int = 0, **settings: Any) -> None:
    """Sends events and waits until the broker has them all.

    Bytes go as they are, None as a tombstone; of a tuple the rest are its headers and its time in ms.
    """
    producer = Producer({"bootstrap.servers": address, "log_level": 0} | settings)
    for i, event in enumerate(events):
        said, headers, time_ms = (*event, 0)[:3] if isinstance(event, tuple) else (event, {}, 0)
        value = said if said is None or isinstance(said, bytes) else json.dumps(said).encode()
        producer.produce(topic, value, key=f"{i}", partition=partition, headers=headers, timestamp=time_ms)
        if i % 1000 == 999:
            producer.poll(0)
    assert producer.flush(30) == 0


def consumed(address: str, topic: str, n: int) -> list[bytes]:
    """The first n records of a topic of one partition."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "none", "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[bytes] = []
    until_s = time.monotonic() + PATIENCE_S
    while len(found) < n and time.monotonic() < until_s:
        found += [value for m in consumer.consume(1000, 0.5) if (value := m.value()) is not None and m.error() is None]
    consumer.close()
    return found


def wait_until(true: Callable[[], object], what: str, alive: Sequence["Sidecar"] = ()) -> None:
    """Waits until it is so, as long as these sidecars live."""
    until_s = time.monotonic() + PATIENCE_S
    while not true():
        for sidecar in alive:
            assert sidecar.process is not None
            assert sidecar.process.poll() is None, sidecar.said()
        assert time.monotonic() < until_s, f"{what} did not come; " + "; ".join(s.said() for s in alive)
        time.sleep(0.05)


def group_of(topics: Any) -> str:
    """The group of the sidecars over these topics."""
    return re.sub(r"\W+", "-", f"g-{topics}")


@dataclass
class Sidecar:
    """`driftwatch run` in a process of its own, which may be killed and started again on its state."""

    folder: Path
    config: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> "Sidecar":
        with (self.folder / "run.log").open("ab") as log:
            command = [sys.executable, "-m", "driftwatch", "run", "-c", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        return self

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def end(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def said(self) -> str:
        """Its log."""
        return (self.folder / "run.log").read_text("utf-8")

    def get(self, path: str) -> str:
        """What its server answers, whatever the status; "" where it does not."""
        port = re.findall(r"metrics on http://[^:]+:(\d+)", self.said())
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port[-1]}{path}", timeout=5) as answer:
                text: str = answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except (OSError, IndexError):
            return ""
        return text

    def count(self, outcome: str = r"[^\"]*") -> float:
        """Records of an outcome, of this life."""
        pattern = rf'^driftwatch_records_total{{[^}}]*outcome="{outcome}"[^}}]*}} (\S+)'
        return sum(float(x) for x in re.findall(pattern, self.get("/metrics"), re.M))

    def decisions(self) -> list[Any]:
        """What it has stored."""
        return decided(self.config)


@dataclass
class Sidecars:
    """Makes sidecars over one topic, and ends them."""

    folder: Path  # with reference.profile
    made: list[Sidecar] = field(default_factory=list)

    def make(self, address: str, client: str, topics: Any, *, settings: Any = None, **changed: Any) -> Sidecar:
        folder = self.folder / f"sidecar-{len(self.made)}"
        folder.mkdir()
        source = {"kind": "kafka", "brokers": [address], "topics": topics, "client": client}
        source |= {"group": group_of(topics)}
        source |= {"settings": settings} if settings else {}
        defaults = {"reference": {"profile": "../reference.profile"}, "source": source}
        sinks = [{"kind": "prometheus", "port": 0, "host": "127.0.0.1"}, *changed.pop("sinks", [])]
        config = write_config(folder, **(defaults | {"sinks": sinks} | changed))
        self.made.append(Sidecar(folder, config))
        return self.made[-1]

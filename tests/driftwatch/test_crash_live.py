"""A sidecar over Kafka or HTTP that is killed at every write and at random times comes to what an undisturbed one does.

Every kill is followed by the next life on the same state, until all is decided and delivered.
"""

import contextlib
import itertools
import json
import logging
import random
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sidecar import (
    COUNT,
    TWO_DRIFTS,
    Receiver,
    decided,
    drifting,
    receiving,
    replayed,
    rounded,
    webhook_ids,
    write_config,
    write_events,
)
from test_crash import KILLED, REFUSALS, driving
from test_http import Body, Sender, free_port, lines, logged, plain

log = logging.getLogger(__name__)
STREAM = drifting(TWO_DRIFTS)
WRITES = ["before a save", "amid a save", "after a save"]
POSTS = {  # and at which of them each life ends, so that it gets somewhere
    "before a post": 2,
    "after a post": 2,
    "before a retry is recorded": 1,
    "after a delivery is recorded": 1,
}
APPENDS = ["before an append", "amid an append", "after an append"]


@dataclass
class Trial:
    """What every life is held against, and who ends them."""

    folder: Path
    receiver: Receiver
    driver: "subprocess.Popen[str]"
    want: list[Any]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def replayed(self, events: Sequence[dict[str, Any]]) -> list[Any]:
        """What an undisturbed replay of these decides."""
        folder = Path(f"{self.folder}/replayed-{next(self._numbers)}")
        folder.mkdir()
        config = write_config(folder, window=COUNT, reference={"profile": "../reference.profile"})
        return rounded(replayed(config, write_events(folder / "events.jsonl", events)))

    def lives(self, source: dict[str, Any]) -> "Lives":
        """A sidecar over a source, without any state yet."""
        path = f"/{next(self._numbers)}"
        folder = Path(f"{self.folder}{path}")
        folder.mkdir()
        reference, sinks = {"profile": "../reference.profile"}, [self.receiver.sink(path)]
        return Lives(self, write_config(folder, window=COUNT, source=source, reference=reference, sinks=sinks), path)


@dataclass
class Lives:
    """The lives of one sidecar."""

    trial: Trial
    config: Path
    path: str
    n_killed: int = 0

    def live(self, point: str | None = None, number: int = 0, delay_s: float | None = None) -> bool:
        """One life; whether it was killed."""
        order = {"config": str(self.config), "point": point, "number": number, "delay_s": delay_s}
        driver = self.trial.driver
        assert driver.stdin is not None
        assert driver.stdout is not None
        driver.stdin.write(json.dumps(order | {"enough": len(self.trial.want)}) + "\n")
        driver.stdin.flush()
        code = int(driver.stdout.readline())
        assert code in {0, KILLED}, (self.trial.folder / "driver.log").read_text()
        self.n_killed += code == KILLED
        return code == KILLED

    def kill_at_every(self, point: str, number: int) -> int:
        """Lives that end at a point each, until one comes to the end; how many were killed."""
        before = self.n_killed
        while self.live(point, number):
            assert self.n_killed < before + 100
        return self.n_killed - before

    def kill_at_random(self, times: int, most_s: float, dice: random.Random) -> int:
        """So many lives that end some time, then one to the end; how many were killed."""
        before = self.n_killed
        for _ in range(times):
            self.live(delay_s=dice.uniform(0.1, most_s))
        assert not self.live()
        return self.n_killed - before

    def agree(self) -> None:
        """Decisions and webhooks are those of the undisturbed replay."""
        receiver, found = self.trial.receiver, decided(self.config)
        assert rounded(found) == self.trial.want
        assert set(receiver.taken[self.path]) == webhook_ids(found)
        assert receiver.faults == []


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, profile_bytes: bytes) -> Iterator[Trial]:
    folder = tmp_path_factory.mktemp("live")
    (folder / "reference.profile").write_bytes(profile_bytes)
    with receiving(Receiver(REFUSALS)) as receiver, driving(folder / "driver.log") as driver:
        trial = Trial(folder, receiver, driver, [])
        yield replace(trial, want=trial.replayed(STREAM))


# Kafka ----------------------------------------------------------------------------------------------------------------


def topic_of(broker: Any, some: Sequence[Any]) -> dict[str, Any]:
    """A topic that holds these; what of a source says where it is."""
    pytest.importorskip("confluent_kafka", reason="needs confluent-kafka (the extra kafka-fast)")
    from kafka_sidecar import group_of, new_topic, produce

    if broker.kind == "tansu":
        pytest.skip("needs a real Kafka: Tansu drops the metadata of commits and takes 20 s for a join")
    topic = new_topic(broker.address)
    produce(broker.address, topic, some)
    return {"kind": "kafka", "brokers": [broker.address], "topics": [topic], "group": group_of(topic)}


@pytest.fixture
def kafka_source(broker: Any) -> dict[str, Any]:
    """A topic that holds the stream."""
    return topic_of(broker, STREAM)


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_over_kafka_it_may_be_killed_anywhere(client: str, kafka_source: dict[str, Any], trial: Trial) -> None:
    lives, dice = trial.lives(kafka_source | {"client": client}), random.Random(1)
    for point in dice.sample([*WRITES, *POSTS], 4):
        lives.live(point, 2)
    assert lives.n_killed
    assert not lives.live()
    lives.agree()


@pytest.mark.slow
@pytest.mark.parametrize("point", [*WRITES, *POSTS, "at random"])
@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_over_kafka_it_may_be_killed_at_every_single_write(
    client: str,
    point: str,
    kafka_source: dict[str, Any],
    trial: Trial,
) -> None:
    lives = trial.lives(kafka_source | {"client": client})
    if point == "at random":
        n_killed = lives.kill_at_random(30, 1.0, random.Random(2))
    else:
        n_killed = lives.kill_at_every(point, POSTS.get(point, 2))
    log.info("%s, %s: %d kills", client, point, n_killed)
    assert n_killed >= (6 if point in WRITES else 1)
    lives.agree()


# HTTP -----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def sending(port: int, bodies: list[Body]) -> Iterator[None]:
    """Sends these, each until it is answered with 200."""
    given_up = threading.Event()

    def send() -> None:
        with contextlib.closing(Sender(port)) as sender:
            for body in bodies:
                while sender.once(*body) != 200:
                    if given_up.wait(0.02):
                        return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    except BaseException:
        given_up.set()
        raise
    finally:
        thread.join()


def killed_over_http(trial: Trial, bodies: list[Body], point: str, number: int) -> int:
    """Kills it at that point in each life while it is sent these, until all is decided; how often."""
    port = free_port()
    lives = trial.lives({"kind": "http", "port": port, "host": "127.0.0.1"})
    with sending(port, bodies):
        if point == "at random":
            n_killed = lives.kill_at_random(20, 0.8, random.Random(3))
        else:
            n_killed = lives.kill_at_every(point, number)
    lives.agree()
    return n_killed


def joined(bodies: list[Body], events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events in the order in which the later of their request and response comes."""
    last = {headers["ce-id"]: at for at, (_, _, headers) in enumerate(bodies)}
    return sorted(events, key=lambda event: last[event["id"]])


@pytest.mark.parametrize("point", ["amid an append", "after a save"])
def test_over_http_it_may_be_killed_anywhere(point: str, trial: Trial) -> None:
    assert killed_over_http(trial, lines(STREAM), point, 5) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("point", [*WRITES, *POSTS, *APPENDS, "at random"])
@pytest.mark.parametrize("form", [plain, lines, logged])
def test_over_http_it_may_be_killed_at_every_single_write(point: str, form: Any, trial: Trial) -> None:
    bodies = form(STREAM)
    if form is logged:
        trial = replace(trial, want=trial.replayed(joined(bodies, STREAM)))
    few = max(2, len(bodies) // (20 if point in APPENDS else 100))  # batches hold 5 bodies, and each is a save
    number = POSTS.get(point, few)
    n_killed = killed_over_http(trial, bodies, point, number)
    log.info("http, %s, %s: %d kills", form.__name__, point, n_killed)
    assert n_killed >= 1

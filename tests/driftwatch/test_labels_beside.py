"""Predictions come one way and labels another: decisions are those of a replay of both, killed at any time or not."""

import itertools
import json
import logging
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crash_trials import KILLED, driving
from labelled import EVENTS, LABEL, apart, labelled
from sidecar import TIME, WINDOW, decided, events, rounded, said, write_config, write_events
from test_crash_live import sending, topic_of
from test_http import Body, Sender, Sidecar, free_port, lines, sidecar, until

from driftwatch.app_labels import make_labels
from driftwatch.config import load
from driftwatch.label_log import LabelState
from driftwatch.protocols import Assigned
from driftwatch.records import Shard

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

    def live(self, config: Path, point: str | None = None, number: int = 0, *, ends: bool = False) -> bool:
        """One life, till all is decided unless it `ends` by itself; whether it was killed before."""
        order: dict[str, Any] = {"config": str(config), "point": point, "number": number, "delay_s": None}
        order |= {} if ends else {"enough": N_FIRST + N_SECOND}
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        self.driver.stdin.write(json.dumps(order) + "\n")
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


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("of_kafka", ["predictions", "labels"])
def test_it_may_be_killed_at_every_single_write(of_kafka: str, point: str, broker: Any, world: World) -> None:
    port, n_killed = free_port(), 0
    topic = topic_of(broker, getattr(world, of_kafka))
    web = {"kind": "http", "port": port, "host": "127.0.0.1"}
    source, labels = (topic, web) if of_kafka == "predictions" else (web, topic)
    config = world.config(source=source, labels=labels)
    with sending(port, label_bodies(world.labels) if labels is web else lines(world.predictions)):
        while world.live(config, point, 2):
            n_killed += 1
            assert n_killed < 100
    log.info("%s from Kafka, %s: %d kills", of_kafka, point, n_killed)
    assert n_killed >= 2
    world.agrees(config)


def test_until_both_sources_have_a_shard_nobody_knows_how_far_labels_have_come(world: World) -> None:
    config = load(world.config(source={"kind": "http", "port": 0}, labels={"kind": "file", "path": "labels.csv"}))
    labels = make_labels(config, config.event_schema(), [], stored=True)
    assert labels is not None
    one, other = Shard("http"), Shard("labels.csv#0")
    labels.restore({}, LabelState(), 0.0)
    labels.watch(one, (), 1.0)
    labels.clock.shown(one, np.array([100.0] * 3), 2.0)
    assert labels.clock.watermark_s == -inf
    labels.assign(Assigned(other, holds_labels=True), 0, 3.0)
    labels.clock.shown(other, np.array([90.0] * 3), 4.0)
    assert labels.clock.watermark_s == 90 - 60
    labels.drop(other)  # another one has it, or it comes back
    labels.clock.shown(one, np.array([1000.0] * 3), 5.0)
    assert labels.clock.watermark_s == 90 - 60
    labels.clock.shown(one, np.array([1000.0] * 3), 305.0)  # a silence as long as that of one that is stalled
    assert labels.clock.watermark_s == 1000 - 60


# Other pairs ----------------------------------------------------------------------------------------------------------


def test_predictions_from_a_file_that_grows_and_labels_over_http(world: World) -> None:
    port = free_port()
    source = {"kind": "file", "path": "growing.jsonl", "follow": True}
    config = world.config(source=source, labels={"kind": "http", "port": port, "host": "127.0.0.1"})
    log_file = write_events(config.parent / "growing.jsonl", world.predictions[:600])
    with sending(port, label_bodies(world.labels)):
        assert world.live(config, "after a save", 3)
        write_events(log_file, world.predictions[600:], "ab")
        assert not world.live(config)
    world.agrees(config)


def test_predictions_over_http_and_labels_from_a_file(world: World) -> None:
    port = free_port()
    write_events(world.folder / "labels.jsonl", world.labels)
    labels = {"kind": "file", "path": "../labels.jsonl"}
    config = world.config(source={"kind": "http", "port": port, "host": "127.0.0.1"}, labels=labels)
    assert world.killed(config, lines(world.predictions), port, ["before a save", "after a save"]) == 2


def test_two_files_that_grow(world: World) -> None:
    path = {"predictions": "growing.jsonl", "labels": "outcomes.jsonl"}
    config = world.config(source={"kind": "file", "path": path, "follow": True})
    some, outcomes = (config.parent / name for name in path.values())
    write_events(some, world.predictions[:600])
    write_events(outcomes, world.labels[:300])
    assert world.live(config, "after a save", 3)
    write_events(some, world.predictions[600:], "ab")
    assert world.live(config, "amid a save", 2)
    write_events(outcomes, world.labels[300:], "ab")
    assert not world.live(config)
    world.agrees(config)


@pytest.mark.slow  # the topic is read to its end once it was quiet for half a minute
def test_predictions_from_a_file_that_ends_and_labels_from_kafka(broker: Any, world: World) -> None:
    """The run ends once the topic is read to what there is; then it is what a replay decides to the last window."""
    labels = topic_of(broker, world.labels)
    write_events(world.folder / "predictions.jsonl", world.predictions)
    config = world.config(source={"kind": "file", "path": "../predictions.jsonl"}, labels=labels)
    assert not world.live(config, ends=True)
    files = [world.folder / f"{name}.jsonl" for name in ("predictions", "labels")]
    want = said("replay", *files, "-c", config, "--json").lines
    by_revision = [[d for d in some if d["revision"] == i] for some in (decided(config), want) for i in (0, 1)]
    assert rounded(by_revision[:2]) == rounded(by_revision[2:])


# What a person sees ---------------------------------------------------------------------------------------------------


def test_where_only_labels_come_over_http_other_paths_say_so(world: World) -> None:
    port, metrics_port = free_port(), free_port()
    config = world.config(
        source={"kind": "file", "path": "growing.jsonl", "follow": True},
        labels={"kind": "http", "port": port, "host": "127.0.0.1"},
        sinks=[{"kind": "prometheus", "port": metrics_port, "host": "127.0.0.1"}],
    )
    (config.parent / "growing.jsonl").touch()
    running = Sidecar(config, port, metrics_port, config.parent / "run.log")
    running.live()
    try:
        with closing(Sender(port)) as sender:
            _, *body = label_bodies(world.labels[:10])[0]
            until(lambda: running.lives[0].poll() is not None or sender.once("/v1/labels", *body) == 200)
            assert sender.once("/v1/predictions", *body) == 501
            assert sender.once("/", *body) == 501
        until(lambda: running.get("/readyz") == (200, "ok\n"))
    finally:
        running.end(signal.SIGKILL)
    assert f"labels on http://127.0.0.1:{port}/v1/labels" in running.log.read_text()


def test_a_broker_of_labels_that_is_away_is_told_and_holds_up_second_judgements_alone(
    tmp_path: Path, world: World
) -> None:
    (tmp_path / "reference.profile").write_bytes((world.folder / "reference.profile").read_bytes())
    labels = {"kind": "kafka", "brokers": [f"127.0.0.1:{free_port()}"], "topics": ["labels"]}
    some = EVENTS | {"label": LABEL | {"wait": "100s"}}  # which passes, for the predictions that come
    with sidecar(tmp_path, events=some, labels=labels) as running, closing(Sender(running.port)) as sender:
        for body in lines(world.predictions):
            sender.send(*body)
        until(lambda: (tmp_path / "state" / "state.db").exists() and len(decided(running.config)) >= N_FIRST)
        until(lambda: "labels: Kafka does not answer" in running.get("/readyz")[1])
        assert running.get("/readyz")[0] == 200
        assert judgements(decided(running.config)) == [world.want[0], []]


@pytest.mark.parametrize(
    ("source", "labels", "expected"),
    [
        ({"kind": "http", "port": 1}, {"kind": "http", "port": 2}, "labels.kind: must differ from `source.kind`; got "
         "http twice. Send labels to the source's own port (POST /v1/labels), without `labels`."),
        ({"kind": "kafka", "brokers": ["b:1"], "topics": ["p"]}, {"kind": "kafka", "brokers": ["b:1"], "topics": ["l"]},
         "Name the topic, on the same brokers, in `source.topics.labels`, without `labels`."),
        ({"kind": "file", "path": "p.jsonl"}, {"kind": "file", "path": "l.jsonl"},
         "Name the file in `source.path.labels`, without `labels`."),
        ({"kind": "http", "port": 1}, {"kind": "file", "path": "-"}, "labels.path: must be a file; got standard input"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_source_of_labels_that_makes_no_sense_is_refused(
    command: str, source: Any, labels: Any, expected: str, world: World
) -> None:
    config = world.config(source=source, labels=labels)
    found = said(command, "-c", config)
    assert (found.code, found.out) == (2, "")
    assert expected in found.err

"""`driftwatch demo`: the main job on a made-up service, live in a terminal, with nothing faked but the data.

A reference is written and profiled by the product; a sidecar of its own process follows a growing file of predictions
and, later, their labels. The features drift, the alarm opens and reaches a receiver on this machine, which verifies its
signature; the stream recovers and the alarm is resolved. Then what the features say of the label changes: no feature
shows it, and a second alarm opens when the labels come.
"""

import base64
import contextlib
import queue
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml
from prometheus_client.parser import text_string_to_metric_families
from tqdm import tqdm

from driftwatch.demo_receiver import Receiver
from driftwatch.demo_sidecar import Sidecar, build_profile, fetch
from driftwatch.demo_story import WINDOW_S, News, Plan, Story
from driftwatch.demo_stream import FEATURES, LABEL, SCORE, applications
from driftwatch.errors import DriftwatchError

FAST = Plan(
    reference_rows=6_000, window_rows=500, calm=4, drifting=3, recovering=5, changed=3, after=6, duration_s=15.0
)
FULL = Plan(
    reference_rows=20_000, window_rows=1_000, calm=8, drifting=5, recovering=6, changed=5, after=7, duration_s=60.0
)

TURN_S = 0.1
PATIENCE_S = 90.0  # for what is to come after the last event, on a machine that has much else to do
SETTLE_S = 5.0
JOIN_S = 120.0
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Road:
    """The way that events take to the sidecar: its `source` in the configuration, and how they are sent."""

    source: dict[str, object]
    write: Callable[[Sequence[bytes]], object]
    in_words: str


@contextmanager
def file_road(folder: Path) -> Iterator[Road]:
    """A file that grows."""
    with (folder / "events.jsonl").open("ab", buffering=0) as file:
        source = {"kind": "file", "path": "events.jsonl", "follow": True}
        yield Road(source, lambda lines: file.write(b"".join(lines)), "follows a file")


@contextmanager
def kafka_road(broker: str) -> Iterator[Road]:
    """A topic of a broker at HOST:PORT, or of one in memory where none is named. Raises DriftwatchError."""
    from driftwatch.demo_kafka import Topic, own_broker

    with own_broker() if not broker else contextlib.nullcontext(broker) as address, Topic(address) as topic:
        yield Road(topic.source, topic.write, f"reads the topic {topic.name} at {address}")


def main(*, fast: bool, kafka: str | None = None) -> int:
    """Tells the story; 0 where it came out, 3 where it did not, 130 where it was interrupted.

    `kafka`: over a broker at HOST:PORT, or over one of its own where that is empty.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends us wants the sidecar ended too
    try:
        return tell(FAST if fast else FULL, kafka)
    except KeyboardInterrupt:
        say("Interrupted: the sidecar is stopped and the folder removed")
        return INTERRUPTED


def tell(plan: Plan, kafka: str | None = None) -> int:
    """The whole story in a folder of its own, which is gone afterwards. Raises DriftwatchError."""
    news: queue.SimpleQueue[News] = queue.SimpleQueue()
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    story = Story(plan, start_s=plan.start_s(now_s=time.time()))
    with (
        tempfile.TemporaryDirectory(prefix="driftwatch-demo-") as name,
        Receiver(secret, news.put) as receiver,
        file_road(Path(name)) if kafka is None else kafka_road(kafka) as road,
    ):
        folder = Path(name)
        say(f"A credit-scoring service of {len(FEATURES)} features and a score, made up. Its files: {folder}")
        events = write_files(folder, story, config(receiver.url, road.source), secret)
        say(f"reference  {plan.reference_rows:,} applications of calm days; building its profile takes longest …")
        began_s = time.monotonic()
        build_profile(folder / "reference.jsonl", folder / "config.yaml", folder / "credit.profile")
        say(f"profile    built in {time.monotonic() - began_s:.0f} s")
        with Sidecar(folder / "config.yaml", news.put) as sidecar:
            metrics = sidecar.ready()
            say(f"sidecar    process {sidecar.pid}, {road.in_words}, metrics on {metrics}")
            say(f"receiver   {receiver.url}, takes signed webhooks only")
            if kafka is not None:
                wait_for_share(metrics, sidecar)
            play(events, story, road.write, news, sidecar)
            counted = count_records(metrics, plan.n_applications)
            left_out = read_sum(metrics, "driftwatch_records_discarded_total", stage="labels")
        for line in story.summary(counted, left_out):
            say(line)
        missing = story.missing(counted, left_out)
        if sidecar.exit_code != 0:
            missing.append(f"the sidecar to end with 0 when it was told to stop; got {sidecar.exit_code}")
    for line in missing:
        say(f"NOT SEEN   {line}")
    return DriftwatchError.exit_code if missing else 0


def say(line: str) -> None:
    """Writes a line above the bars, where there are any."""
    tqdm.write(line)
    sys.stdout.flush()


def write_files(folder: Path, story: Story, config: dict[str, object], secret: str) -> list[tuple[float, bytes]]:
    """Writes reference, configuration and secret; answers the events that will be in the stream, with their times."""
    plan, interval_s = story.plan, story.plan.interval_s
    before = applications(
        plan.reference_rows,
        start_s=story.start_s - plan.reference_rows * interval_s,
        interval_s=interval_s,
        seed=1,
        first_id=0,
    )
    stream = applications(
        plan.n_applications,
        start_s=story.start_s,
        interval_s=interval_s,
        drift=plan.drift,
        concept=plan.concept,
        seed=2,
        first_id=plan.reference_rows,
    )
    (folder / "reference.jsonl").write_bytes(b"".join(before.lines(with_label=True)))
    (folder / "secret").write_text(secret)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return stream.events()


def config(url: str, source: dict[str, object]) -> dict[str, object]:
    """The sidecar's configuration; paths are relative to its file."""
    webhook = {"kind": "webhook", "url": url, "secret_file": "secret", "allow_http": True}
    return {
        "model": {"name": "credit", "version": "3"},
        "source": source,
        "events": {
            "features": dict(FEATURES),
            "prediction": {"name": SCORE, "kind": "probability"},
            "label": {"name": LABEL, "kind": "binary", "wait": "1h"},
        },
        "reference": {"profile": "credit.profile"},
        "window": {"length": f"{WINDOW_S}s", "lateness": "30s"},
        "alarms": {"budget": "1 per 30d"},
        "sinks": [
            {"kind": "prometheus", "host": "127.0.0.1", "port": 0},
            {"kind": "log"},
            webhook | {"allow_private": ["127.0.0.0/8"]},
        ],
        "state": {"path": "state.db"},
    }


def wait_for_share(metrics: str, sidecar: Sidecar) -> None:
    """Returns once the sidecar has something to read: a group takes its time to let it in. Raises DriftwatchError."""
    until_s = time.monotonic() + JOIN_S
    while not read_sum(metrics, "driftwatch_shards", state="active"):
        sidecar.check()
        if time.monotonic() > until_s:
            raise DriftwatchError(f"the sidecar was given nothing to read within {JOIN_S:.0f} s.")
        time.sleep(TURN_S)


def play(
    events: Sequence[tuple[float, bytes]],
    story: Story,
    write: Callable[[Sequence[bytes]], object],
    news: "queue.SimpleQueue[News]",
    sidecar: Sidecar,
) -> None:
    """Writes the events at the plan's pace and shows what comes of them, until the story is over or nothing comes."""
    plan, began_s, written = story.plan, time.monotonic(), 0
    with Screen(len(events)) as screen:
        while written < len(events) or not story.is_over:
            elapsed_s = time.monotonic() - began_s
            if elapsed_s > plan.duration_s + PATIENCE_S:
                return
            due = min(len(events), int(len(events) * elapsed_s / plan.duration_s))
            write([line for _, line in events[written:due]])
            for line in story.wrote(events[due - 1][0] if due else 0.0):
                say(line)
            screen.wrote(due - written)
            written = due
            sidecar.check()
            time.sleep(TURN_S)
            while not news.empty():
                for line in story.take(news.get()):
                    say(line)
            screen.show(story.status)


class Screen:
    """A bar for the stream and a line for the last window; neither where standard error is no terminal."""

    def __init__(self, n_events: int) -> None:
        self._stream = tqdm(total=n_events, desc="stream", unit=" events", disable=None, leave=False)
        self._window = tqdm(bar_format="{desc}", disable=None, leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._window.close()
        self._stream.close()

    def wrote(self, n: int) -> None:
        """Moves the bar on by n events."""
        self._stream.update(n)

    def show(self, status: str) -> None:
        """Says how things stand."""
        self._window.set_description_str(status)


def count_records(address: str, n_predictions: int) -> int:
    """The predictions that the sidecar's metrics say were used; waits a moment for the last ones."""
    until_s = time.monotonic() + SETTLE_S
    while True:
        counted = read_sum(address, "driftwatch_records_total", outcome="used")
        if counted >= n_predictions or time.monotonic() > until_s:
            return counted
        time.sleep(TURN_S)


def read_sum(address: str, name: str, **labels: str) -> int:
    """What the series of a name with these labels come to in /metrics now. Raises DriftwatchError."""
    text = fetch(address).decode()
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return int(sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items()))

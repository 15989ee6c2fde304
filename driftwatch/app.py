"""Composes the service from a configuration: the only place where sources, sinks and the loop meet."""

import gc
import hashlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from random import Random
from types import FrameType

from prometheus_client import CollectorRegistry

from detectors.profile import Profile
from driftwatch import lock, profiles, references
from driftwatch.alarms import Persistence
from driftwatch.app_figures import make_counters, make_figures, make_model_metrics
from driftwatch.app_labels import make_labels
from driftwatch.app_learning import make_learner
from driftwatch.app_sources import Feed, Lacks, make_feed, make_file_feed, open_intake
from driftwatch.config import Config
from driftwatch.config_connections import PrometheusSink, WebhookSink
from driftwatch.count_window import CountWindower
from driftwatch.counters import Counters
from driftwatch.dead_letters import DeadLetters
from driftwatch.decision import Decision
from driftwatch.errors import StoreUnavailable
from driftwatch.late_labels import LateLabels
from driftwatch.live_profiles import Judging, Live, LiveProfiles
from driftwatch.metrics import Metrics, Outcome
from driftwatch.monitor import Monitor
from driftwatch.notices import webhooks
from driftwatch.outbox import Message
from driftwatch.pipeline import DecisionSink, Parts, Pipeline
from driftwatch.policy import Policy
from driftwatch.profile_desk import ProfileDesk
from driftwatch.records import Schema, Stream
from driftwatch.server import Health, Server
from driftwatch.sinks.delivery import Delivery
from driftwatch.sinks.log import LogSink
from driftwatch.sinks.prometheus import PrometheusSink as Gauges
from driftwatch.sinks.webhook import WebhookTarget, cloud_event
from driftwatch.store import Remembered, Store
from driftwatch.time_window import TimeWindower
from driftwatch.window import NO_LEDGERS, CountWindows, Ledgers, TimeWindows, Windower

GRACE_S = 10.0  # after SIGTERM what the outbox holds is tried for so long
END_GRACE_S = 60.0  # and so long after the end of a file
RETRY_S = 1.0
SWITCH_S = 0.0005  # between threads: with the default of 5 ms the server answers late beside a busy loop
log = logging.getLogger("driftwatch")


def make_windower(config: Config, counters: Counters, labels: LateLabels | None = None) -> Windower:
    """The windower that the configuration asks for."""
    ledgers: Ledgers = NO_LEDGERS if labels is None else labels.book
    stream, window = Stream(config.model.name, config.model.version), config.window
    if window.count is not None:
        return CountWindower(CountWindows(window.count), stream, counters, ledgers)
    length, slide = window.length or 0.0, window.slide or window.length or 0.0
    return TimeWindower(TimeWindows(length, slide, window.lateness), stream, counters, ledgers)


def make_policy(config: Config) -> Policy:
    """The policy that the configuration asks for."""
    alarms = config.alarms
    return Policy(
        Persistence(alarms.persistence.k, alarms.persistence.n, alarms.cooldown),
        {str(name): floor for name, floor in alarms.effect.items()},
    )


def make_monitor(config: Config, known: Iterable[Profile]) -> Monitor:
    """A monitor over all profiles that a pane may be counted on."""
    rates = {p.hash: (p, profiles.rate_per_window(config, p)) for p in known}
    schema = config.event_schema()
    prediction = next((c.name for c in schema.columns if c.group == "prediction"), None)
    few, figures = config.window.min_records, make_figures(config)
    return Monitor(rates, min_records=few, label=schema.label, prediction=prediction, figures=figures)


def make_judging(
    config: Config, store: Store, schema: Schema, assigned: references.Assigned, remembered: Remembered
) -> Judging:
    """What rows are counted and judged with. Raises ConfigError."""
    counters = make_counters(config, schema, assigned)
    known = references.known(store, assigned, remembered)
    labels = make_labels(config, schema, known, stored=True)
    learner = make_learner(config, store, schema, assigned)
    return Judging(make_windower(config, counters, labels), counters, make_monitor(config, known), learner, labels)


def make_targets(config: Config) -> dict[str, WebhookTarget]:
    """The receivers of webhooks, by `target_name`. Raises ConfigError."""
    return {
        target_name(sink): WebhookTarget(
            url=sink.url,
            secrets=sink.secrets(),
            timeout_s=sink.timeout,
            max_age_s=sink.max_age,
            allow_http=sink.allow_http,
            allow_private=[ip_network(text) for text in sink.allow_private],
        )
        for sink in webhook_sinks(config)
    }


def webhook_sinks(config: Config) -> list[WebhookSink]:
    """The webhook sinks; none where nothing is to be notified."""
    return [sink for sink in config.sinks if isinstance(sink, WebhookSink) and config.alarms.notify]


def target_name(sink: WebhookSink) -> str:
    """What the outbox calls a receiver: it outlives another order of the sinks, and shows nothing of the address."""
    return f"webhook-{hashlib.sha256(sink.url.encode()).hexdigest()[:12]}"


def make_messages(config: Config, now: Callable[[], float] = time.time) -> Callable[[Decision], list[Message]]:
    """What a decision puts into the outbox."""
    sinks = webhook_sinks(config)
    source = f"/driftwatch/{config.model.name}"

    def messages(decision: Decision) -> list[Message]:
        return [
            Message(
                id=hook.id,
                target=target_name(sink),
                body=cloud_event(
                    id=hook.id,
                    type=hook.type,
                    source=source,
                    time=decision.window.end,
                    subject=f"{config.model.name}/{hook.data['version']}",
                    data=hook.data,
                ),
                created_s=now(),
            )
            for sink in sinks
            for hook in webhooks(decision, sink.on)
        ]

    return messages


@dataclass
class Runtime:
    """What `run` holds open beside the loop, and how it is told to stop."""

    health: Health
    stopping: bool = False
    pipeline: Pipeline | None = None
    lacks: str | None = "the profile is not loaded yet"
    source_lacks: str | None = None
    labels_lack: str | None = None
    store_lacks: str | None = None

    def stop(self, signum: int, frame: FrameType | None) -> None:
        """The handler of SIGTERM and SIGINT."""
        self.stopping = True
        if self.pipeline is not None:
            self.pipeline.stop()

    def goes_on(self) -> bool:
        """Notes a turn beside the loop; False: told to stop."""
        self.health.turned()
        return not self.stopping

    def show_ready(self) -> None:
        """Tells the probes what is missing."""
        self.health.ready(self.lacks, self.source_lacks, self.store_lacks, beside=self.labels_lack)

    def source_is(self, lacks: str | None) -> None:
        """Notes what keeps the source from being read; None = nothing."""
        self.source_lacks = lacks
        self.show_ready()

    def labels_are(self, lack: str | None) -> None:
        """Notes what keeps labels that come another way from being read: windows close without them."""
        self.labels_lack = lack
        self.show_ready()

    def profile_lacks(self, lacks: str | None) -> None:
        """Notes what keeps the configured version from being judged; None = nothing."""
        self.lacks = lacks
        self.show_ready()

    def safely(self, action: Callable[[], None]) -> bool:
        """Does it again every second while the state's volume cannot be written; False: told to stop meanwhile."""
        while True:
            try:
                action()
            except StoreUnavailable as error:
                self.store_lacks = str(error)
                self.show_ready()
                log.error("%s", error)
                if self.stopping:
                    return False
                time.sleep(RETRY_S)
                self.health.turned()
            else:
                self.store_lacks = None
                self.show_ready()
                return True


def start_runtime(config: Config) -> Runtime:
    """A runtime that SIGTERM and SIGINT stop."""
    runtime = Runtime(Health())
    runtime.health.ready(runtime.lacks)
    signal.signal(signal.SIGTERM, runtime.stop)
    signal.signal(signal.SIGINT, runtime.stop)
    return runtime


def make_sinks(config: Config, metrics: Metrics) -> list[DecisionSink]:
    """What is shown of decisions: gauges always, lines where they are asked for."""
    sinks: list[DecisionSink] = [Gauges(metrics)]
    if any(sink.kind == "log" for sink in config.sinks):
        sinks.append(LogSink(sys.stdout.buffer))
    return sinks


def start_servers(config: Config, registry: CollectorRegistry, health: Health, stack: ExitStack) -> list[Server]:
    """The servers of metrics, probes and profiles; `stack` closes them. Raises ConfigError."""
    servers = []
    for sink in config.sinks:
        if isinstance(sink, PrometheusSink):
            server = Server(sink.host, sink.port, registry, health, token=sink.token())
            stack.callback(server.close)
            log.info("metrics on http://%s:%d/metrics", sink.host, server.port)
            servers.append(server)
    return servers


def run(config: Config, config_path: Path) -> None:
    """The sidecar: reads the source until it ends or until SIGTERM. Raises DriftwatchError."""
    sys.setswitchinterval(SWITCH_S)
    runtime = start_runtime(config)
    with ExitStack() as stack:
        held = lock.acquire(config.state.path, now_s=time.time())
        stack.callback(held.close)
        targets, policy = make_targets(config), make_policy(config)
        registry = CollectorRegistry()
        metrics = Metrics(registry, model=config.model.name, version=config.model.version)
        servers = start_servers(config, registry, runtime.health, stack)
        store = Store.open(config.state.path, model=config.model.name, keep_s=config.state.keep)
        stack.callback(store.close)
        remembered = store.load()
        lacks = Lacks(runtime.source_is, runtime.labels_are)
        spool = open_intake(config, remembered, metrics, lacks, stack)
        found = references.profiles_for(config, config_path, store, runtime.health.turned)
        schema = references.schema_with_hints(config, found)
        assigned = references.assignments(store, found, remembered)
        feed = make_feed(config, config_path, schema, remembered, spool, member=store.store_id, lacks=lacks)
        if feed.kafka is not None:
            stack.callback(feed.kafka.leave)
        dead = DeadLetters(config.state.path.parent / "dead")
        stack.callback(dead.close)
        outbox = store.outbox()
        stack.callback(outbox.close)
        delivery = Delivery(outbox, targets, on_outcome=metrics.delivery, random=Random())
        judging = make_judging(config, store, schema, assigned, remembered)
        profiles.warn_of_labels(config, {version: loaded.profile for version, loaded in found.items()}, log.warning)
        live = LiveProfiles(Live(config, config_path, store, judging, runtime.profile_lacks, metrics))
        stack.callback(live.close)
        live.prune()
        for server in servers:
            server.answer_profiles(ProfileDesk(config, schema, store))
        parts = Parts(
            model=config.model.name,
            source=feed.source,
            decoder=feed.decoder,
            windower=judging.windower,
            monitor=judging.monitor,
            labels=judging.labels,
            policy=policy,
            store=store,
            sinks=make_sinks(config, metrics),
            dead_letters=dead,
            metrics=metrics,
            messages=make_messages(config),
            safely=runtime.safely,
            committed=lambda: show_committed(delivery, metrics, feed, live),
            turned=lambda n_records: runtime.health.turned(),
            dedupe=config.dedupe_size,
            halves=feed.halves,
            learner=judging.learner,
            served=make_model_metrics(config, schema, registry, metrics),
            warn=log.warning,
        )
        runtime.pipeline = Pipeline(parts, remembered)
        is_judged = config.model.version in found or judging.learner is not None
        runtime.profile_lacks(None if is_judged else f"version {config.model.version} has no profile")
        delivery.start()
        stack.callback(delivery.close)
        if runtime.stopping:
            return
        without_collections(runtime.pipeline.run)
        live.finish(runtime.goes_on)
        left = delivery.drain(time.time() + (GRACE_S if runtime.stopping else END_GRACE_S))
        if left:
            log.warning("%d webhooks wait in the outbox; the next start sends them", len(left))


def show_committed(delivery: Delivery, metrics: Metrics, feed: Feed, live: LiveProfiles) -> None:
    """After each transaction: the outbox is sent, profiles that came are used, and what is not read yet is shown."""
    delivery.wake()
    live.step()
    if feed.kafka is not None and (lag := feed.kafka.lag) is not None:
        metrics.consumer_lag_records.set(lag)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to."""

    records: Mapping[Outcome, int]
    decided: int
    opened: int

    def in_words(self) -> str:
        """One line."""
        counts = ", ".join(f"{n:,} {outcome}" for outcome, n in self.records.items() if n) or "no record"
        return f"{counts}; {self.decided:,} windows judged, {self.opened} alarms opened"


@dataclass
class Tally:
    """Counts the decisions that pass to a sink."""

    sink: DecisionSink
    opened: int = 0

    def write(self, decision: Decision, line: bytes) -> None:
        """Passes it on."""
        self.opened += sum(alarm.transition == "opened" for alarm in decision.alarms)
        self.sink.write(decision, line)


def replay(
    config: Config, config_path: Path, paths: Sequence[Path], sink: DecisionSink, progress: Callable[[int], object]
) -> Replayed:
    """The same pipeline over recorded streams; nothing is stored, and none of the configured sinks is started.

    `progress` is told how many more records were read. Raises DriftwatchError.
    """
    found = references.profiles_for(config, config_path, None, lambda: None)
    schema = references.schema_with_hints(config, found)
    metrics = Metrics(CollectorRegistry(), model=config.model.name, version=config.model.version)
    assigned = {version: [(references.ALWAYS, loaded.profile)] for version, loaded in found.items()}
    tally, feed = Tally(sink), make_file_feed(config, schema, paths)
    labels = make_labels(config, schema, [loaded.profile for loaded in found.values()], stored=False)
    parts = Parts(
        model=config.model.name,
        source=feed.source,
        decoder=feed.decoder,
        windower=make_windower(config, make_counters(config, schema, assigned), labels),
        monitor=make_monitor(config, [loaded.profile for loaded in found.values()]),
        labels=labels,
        policy=make_policy(config),
        store=None,
        sinks=[tally],
        dead_letters=None,
        metrics=metrics,
        messages=lambda decision: [],
        safely=once,
        committed=lambda: None,
        turned=progress,
        dedupe=config.dedupe_size,
        halves=feed.halves,
    )
    pipeline = Pipeline(parts, Remembered())
    without_collections(pipeline.run)
    return Replayed(pipeline.outcomes, pipeline.decided, tally.opened)


def once(action: Callable[[], None]) -> bool:
    """Does it; what fails is an error."""
    action()
    return True


def without_collections(action: Callable[[], None]) -> None:
    """Runs with the collector of cycles off: decoded events hold none, and it would look through all of them."""
    gc.freeze()
    gc.disable()
    try:
        action()
    finally:
        gc.enable()
        gc.unfreeze()

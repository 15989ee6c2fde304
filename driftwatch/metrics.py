"""Every Prometheus name of the service, once.

Each series carries `model` and `version`. What the process counts as a whole (records, lags, shards, …) carries
the configured version; what a judged window says carries the version that the window is of. The number of series is
bounded: features come from the configuration, other label values from closed sets, versions are the last few judged.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as distribution_version
from itertools import product
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Outcome = Literal["used", "duplicate", "late", "ahead", "poison", "tombstone", "already_judged"]
WindowVerdict = Literal["ok", "drift", "undetermined", "empty"]
ShardState = Literal["active", "idle", "stalled", "paused"]
Delivery = Literal["delivered", "retried", "set_aside"]

ALARMS: tuple[tuple[str, ...], ...] = tuple(
    product(
        ("covariate", "prior", "concept", "data_quality"),
        ("none", "abrupt", "gradual", "incremental", "recurring"),
    )
)
"""What an alarm can be: (kind, pattern)."""

OTHER = "other"
DISCARDS = {
    "http": ("shed", OTHER),
    "decode": (
        *("structure", "id", "time", "encoding", "depth", "tombstone", "other_model", "label"),
        *("unknown_type", "error_response", "unused", "duplicate_half", "unmatched", "empty", OTHER),
    ),
    "labels": (
        *("late", "duplicate", "contradicting", "orphan", "invalid", "not_sampled", "no_loss", "no_label", OTHER),
    ),
    "dedupe": ("duplicate", OTHER),
    "window": ("late", "ahead", "already_judged", OTHER),
    OTHER: (OTHER,),
}
"""Where a record can be dropped, and why there."""

LOSSES = ("retention", OTHER)

HTTP_STATUSES = (200, 400, 401, 404, 405, 413, 415, 501, 503)
"""What the ingest server answers."""

MAX_VERSIONS = 8
"""Versions are read from events, so only the last judged ones keep series: a canary, its predecessors, no flood."""

MOST_PROFILES = 64
"""Of so many versions the profile is shown."""

_ACCURACY = ("accuracy", "labels")
_WHO = ("model", "version")
_MAX_EXEMPLAR_CHARACTERS = 128  # OpenMetrics: label names and values of one exemplar together
_DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(frozen=True, slots=True)
class WindowGauges:
    """What the gauges say of one version: its last judged window, whole. Replaced by the next, so nothing goes stale.

    Keys are label values: (feature, detector), (feature, check), (kind, pattern), (metric, source), (metric,) or
    (feature,).
    """

    score: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    p_value: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    effect: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    quality: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    drift_active: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    feature_drift_active: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    caution: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    performance: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    estimate_error: Mapping[tuple[str, ...], float] = field(default_factory=dict)


_WINDOW_GAUGES = (  # name, what it means, field of WindowGauges, its labels
    ("driftwatch_score", "Statistic of a detector; larger = more drift.", "score", ("feature", "detector")),
    ("driftwatch_p_value", "Calibrated tail of a statistic.", "p_value", ("feature", "detector")),
    ("driftwatch_effect", "Size of a change in the detector's own unit.", "effect", ("feature", "detector")),
    ("driftwatch_quality", "Share of broken values in the window.", "quality", ("feature", "check")),
    ("driftwatch_drift_active", "1 while an alarm is open.", "drift_active", ("kind", "pattern")),
    ("driftwatch_feature_drift_active", "1 while an alarm names the feature.", "feature_drift_active", ("feature",)),
    ("driftwatch_performance", "Performance, by what it is known.", "performance", ("metric", "source")),
    ("driftwatch_performance_estimate_error", "Estimate less what came.", "estimate_error", ("metric",)),
    ("driftwatch_caution", "1 where a feature is suspect without an alarm of its own.", "caution", ("feature",)),
)


class _LastWindows(Collector):
    """The gauges of the last judged window of each version, built when they are asked for.

    A scrape reads one mapping that is only ever replaced: it sees a window whole or not at all, and the pipeline pays
    nothing for thousands of series.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.shown: Mapping[str, WindowGauges] = {}
        self.provisional: Mapping[str, Mapping[str, float]] = {}

    def collect(self) -> Iterator[Metric]:
        shown, provisional = self.shown, self.provisional
        for name, meaning, attribute, labels in _WINDOW_GAUGES:
            family = GaugeMetricFamily(name, meaning, labels=(*_WHO, *labels))
            for version, gauges in shown.items():
                for key, value in getattr(gauges, attribute).items():
                    family.add_metric((self.model, version, *key), value)
                if attribute == "performance":
                    for metric, value in provisional.get(version, {}).items():
                        family.add_metric((self.model, version, metric, "provisional"), value)
            yield family


class _Profiles(Collector):
    """The profile of each version, built when it is asked for."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.held: Mapping[str, str] = {}

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "driftwatch_profile_info", "1; `profile` is the content hash of the version's.", labels=(*_WHO, "profile")
        )
        for version, content_hash in self.held.items():
            family.add_metric((self.model, version, content_hash), 1)
        yield family


class Metrics:
    """The metric families, registered with `registry`.

    Families without labels of their own are attributes that take values (`open_panes.set(3)`), others have a method.
    Counters of closed label sets are 0 from the start, because `increase()` does not see a counter that begins at 1.
    """

    def __init__(self, registry: CollectorRegistry, *, model: str, version: str) -> None:
        self.model, self.version = model, version
        self._registry = registry
        who = (model, version)

        records = self._counter("driftwatch_records_total", "Records read, by what became of them.", "outcome")
        self._records = {outcome: records.labels(*who, outcome) for outcome in get_args(Outcome)}
        discarded = self._counter(
            "driftwatch_records_discarded_total", "Records that were not used.", "stage", "reason"
        )
        self._discarded = {
            (stage, reason): discarded.labels(*who, stage, reason)
            for stage, reasons in DISCARDS.items()
            for reason in reasons
        }
        lost = self._counter("driftwatch_records_lost_total", "Records gone before they were read.", "reason")
        self._lost = {reason: lost.labels(*who, reason) for reason in LOSSES}
        self.dead_letters_dropped_total = self._counter(
            "driftwatch_dead_letters_dropped_total", "Dead letters that made room for newer ones."
        ).labels(*who)

        self._windows = self._counter("driftwatch_windows_total", "Windows closed, by verdict.", "verdict")
        self._alarms = self._counter("driftwatch_alarms_total", "Alarms opened.", "kind", "pattern")
        self._start_counters(version)
        self._last_windows = _LastWindows(model)
        registry.register(self._last_windows)
        self._profiles = _Profiles(model)
        registry.register(self._profiles)
        self._window_duration_seconds = Histogram(
            "driftwatch_window_duration_seconds",
            "Time it took to judge a window.",
            _WHO,
            buckets=_DURATION_BUCKETS_S,
            registry=registry,
        ).labels(*who)

        self.watermark_lag_seconds = self._gauge(
            "driftwatch_watermark_lag_seconds", "Event time by which the watermark is behind the clock."
        ).labels(*who)
        self.consumer_lag_records = self._gauge(
            "driftwatch_consumer_lag_records", "Records in the source that are not read yet."
        ).labels(*who)
        self.watermark_lag_seconds.set(float("nan"))  # not known yet; 0 would say "up to date"
        self.consumer_lag_records.set(float("nan"))
        self.open_panes = self._gauge("driftwatch_open_panes", "Panes of windows that are not judged yet.").labels(*who)
        shards = self._gauge("driftwatch_shards", "Shards held, by state.", "state")
        self._shards = {state: shards.labels(*who, state) for state in get_args(ShardState)}

        self._learning = self._gauge(
            "driftwatch_learning_ratio", "Share of `reference.learn` that has passed; NaN where nothing is learned."
        ).labels(*who)
        self._learning.set(float("nan"))
        deliveries = self._counter("driftwatch_webhook_deliveries_total", "Webhook attempts, by outcome.", "outcome")
        self._deliveries = {outcome: deliveries.labels(*who, outcome) for outcome in get_args(Delivery)}
        self._gauge("driftwatch_build_info", "1; `release` is the release of driftwatch.", "release").labels(
            *who, distribution_version("driftwatch-sidecar")
        ).set(1)

    def records(self, outcome: Outcome, n: int) -> None:
        """Count `n` records of a batch that ended as `outcome`."""
        self._records[outcome].inc(n)

    def discarded(self, stage: str, reason: str, n: int = 1) -> None:
        """Count `n` records that `stage` did not use; what `DISCARDS` does not list counts as "other"."""
        stage = stage if stage in DISCARDS else OTHER
        self._discarded[stage, reason if reason in DISCARDS[stage] else OTHER].inc(n)

    def lost(self, reason: str, n: int) -> None:
        """Count `n` records that were gone before they could be read; what `LOSSES` does not list counts as "other"."""
        self._lost[reason if reason in LOSSES else OTHER].inc(n)

    def learning(self, share: float) -> None:
        """Show how much of the time to learn from has passed; NaN = nothing is learned."""
        self._learning.set(share)

    def profiles(self, held: Mapping[str, str]) -> None:
        """Show the content hash of each version's profile; of many versions, the last by name."""
        self._profiles.held = dict(sorted(held.items())[-MOST_PROFILES:])

    def add_http(self, spool_bytes: Callable[[], float], spool_max_bytes: int) -> None:
        """Add what only an http source has, once: its spool's size and bound, and what its senders are answered."""
        who = (self.model, self.version)
        requests = self._counter("driftwatch_http_requests_total", "Requests of senders, by status.", "status")
        self._http_answers = {status: requests.labels(*who, str(status)) for status in HTTP_STATUSES}
        size = self._gauge("driftwatch_spool_bytes", "Bytes of bodies that lie in the spool.").labels(*who)
        size.set_function(spool_bytes)
        bound = self._gauge("driftwatch_spool_max_bytes", "Most bytes that the spool may hold.").labels(*who)
        bound.set(spool_max_bytes)

    def http_answers(self, counts: Mapping[int, int]) -> None:
        """Count answers to senders, by status."""
        for status, n in counts.items():
            self._http_answers[status].inc(n)

    def shards(self, counts: Mapping[str, int]) -> None:
        """Show how many shards are in each state; a state that is not named has none."""
        for state, gauge in self._shards.items():
            gauge.set(counts.get(state, 0))

    def delivery(self, outcome: Delivery) -> None:
        """Count one attempt to deliver a webhook."""
        self._deliveries[outcome].inc()

    def empty_windows(self, n: int) -> None:
        """Count `n` windows that closed without a row; they make no decision."""
        self._windows.labels(self.model, self.version, "empty").inc(n)

    def judged_in(self, seconds: float, window: str) -> None:
        """Record the time it took to judge a window; `window` names it in the exemplar (cut to 122 characters)."""
        exemplar = {"window": window[: _MAX_EXEMPLAR_CHARACTERS - len("window")]}
        self._window_duration_seconds.observe(seconds, exemplar)

    def judged(
        self, version: str, verdict: WindowVerdict | None, opened: Iterable[tuple[str, str]], gauges: WindowGauges
    ) -> None:
        """Count a judged window of `version` and the alarms it opened, as (kind, pattern), and show its gauges.

        A second judgement has no `verdict` to be counted: its window was.
        """
        if self.shown(version) is None:
            self._start_counters(version)
        if verdict is not None:
            self._windows.labels(self.model, version, verdict).inc()
        for alarm in opened:
            self._alarms.labels(self.model, version, *alarm).inc()
        self.show(version, gauges)

    def show(self, version: str, gauges: WindowGauges) -> None:
        """Replace what the gauges of `version` say."""
        others = {v: g for v, g in self._last_windows.shown.items() if v != version}
        if len(others) == MAX_VERSIONS:
            self._forget(forgotten := next(iter(others)))
            del others[forgotten]
        self._last_windows.shown = others | {version: gauges}

    def provisional(self, realised: Mapping[str, Mapping[str, float]]) -> None:
        """Replace the figures of incomplete labels, by version; they are shown of versions that have gauges."""
        self._last_windows.provisional = realised

    def accuracies(self) -> dict[str, float]:
        """By version: the accuracy of the last window whose labels were there."""
        found = {version: gauges.performance.get(_ACCURACY) for version, gauges in self._last_windows.shown.items()}
        return {version: value for version, value in found.items() if value is not None}

    def shown(self, version: str) -> WindowGauges | None:
        """What the gauges of `version` say now; None where none of its windows was among the last."""
        return self._last_windows.shown.get(version)

    def _start_counters(self, version: str) -> None:
        for verdict in get_args(WindowVerdict):
            self._windows.labels(self.model, version, verdict)
        for alarm in ALARMS:
            self._alarms.labels(self.model, version, *alarm)

    def _forget(self, version: str) -> None:
        for verdict in get_args(WindowVerdict):
            self._windows.remove(self.model, version, verdict)
        for alarm in ALARMS:
            self._alarms.remove(self.model, version, *alarm)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, (*_WHO, *labels), registry=self._registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, (*_WHO, *labels), registry=self._registry)

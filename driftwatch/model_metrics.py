"""The model's own metrics by the names that model servers use, for models whose server exports none."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from driftwatch.count import ABSENT
from driftwatch.metrics import MAX_VERSIONS, OTHER
from driftwatch.records import Mark, Records, Schema

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


class ModelMetrics(Collector):
    """Counts predictions and their latencies since the start, by version; the first few have series of their own.

    `latency`: the field that holds it, in seconds. `accuracy`: by version, of the last window whose labels were there.
    """

    def __init__(self, schema: Schema, latency: str | None, accuracy: Callable[[], Mapping[str, float]]) -> None:
        self._schema, self._accuracy = schema, accuracy
        numeric, categorical = ([c.name for c in schema.of_kind(kind)] for kind in ("numeric", "categorical"))
        self._latency = None if latency is None else numeric.index(latency)
        name = next((c.name for c in schema.columns if c.group == "prediction"), None)
        self._number = numeric.index(name) if name in numeric else None
        self._category = categorical.index(name) if name in categorical else None
        self._predictions: Mapping[str, int] = {schema.version: 0}
        self._latencies: Mapping[str, tuple[np.ndarray, float]] = {schema.version: (_no_latency(), 0.0)}

    def take(self, records: Records) -> None:
        """Counts rows that are no duplicates."""
        made, n = self._made(records), len(records)
        seconds = None if self._latency is None else records.numeric[:, self._latency]
        everywhere = {self._schema.version: np.ones(n, bool)}
        for version, here in (everywhere if records.versions is None else self._split(records.versions)).items():
            # The mappings are only ever replaced: a scrape meanwhile sees one or the other.
            n_made = self._predictions.get(version, 0) + int((here & made).sum())
            self._predictions = {**self._predictions, version: n_made}
            if seconds is not None:
                before, total = self._latencies.get(version, (_no_latency(), 0.0))
                found = seconds[here & np.isfinite(seconds) & (seconds >= 0)]
                cells = np.bincount(np.searchsorted(BUCKETS_S, found), minlength=len(BUCKETS_S) + 1)
                self._latencies = {**self._latencies, version: (before + cells, total + float(found.sum()))}

    def _split(self, versions: Sequence[str]) -> dict[str, np.ndarray]:
        """Which rows are of which version, as versions are shown."""
        known = set(self._predictions)
        for version in dict.fromkeys(versions):
            if len(known) < MAX_VERSIONS:
                known.add(version)
        shown = np.array([version if version in known else OTHER for version in versions])
        return {str(version): shown == version for version in np.unique(shown)}

    def _made(self, records: Records) -> np.ndarray:
        """Which rows hold a prediction, bool (n,)."""
        if self._category is not None:
            return np.array([c is not Mark.ABSENT for c in records.categories[self._category]], bool)
        made = np.full(len(records), self._number is not None)
        absent = (records.marks == ABSENT) & (records.marked[:, 1] == (-1 if self._number is None else self._number))
        made[records.marked[absent, 0]] = False
        return made

    def collect(self) -> Iterator[Metric]:
        """What a scrape is told."""
        who = (self._schema.model,)
        accuracy = GaugeMetricFamily(
            "model_accuracy", "Accuracy of the last window whose labels were there.", labels=("model", "version")
        )
        for version, value in self._accuracy().items():
            accuracy.add_metric((*who, version), value)
        yield accuracy
        predictions = CounterMetricFamily("model_predictions", "Predictions read.", labels=("model", "version"))
        for version, n in self._predictions.items():
            predictions.add_metric((*who, version), n)
        yield predictions
        if self._latency is None:
            return
        latency = HistogramMetricFamily(
            "prediction_latency_seconds", "Latency of predictions, as events tell it.", labels=("model", "version")
        )
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        for version, (cells, total) in self._latencies.items():
            buckets = list(zip(bounds, np.cumsum(cells).astype(float).tolist(), strict=True))
            latency.add_metric((*who, version), buckets, total)
        yield latency


def _no_latency() -> np.ndarray:
    return np.zeros(len(BUCKETS_S) + 1, np.int64)

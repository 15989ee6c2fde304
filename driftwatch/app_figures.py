"""What shows an event's fields and the model's own metrics, made from a configuration."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from driftwatch.app_learning import learning_version
from driftwatch.config import Config
from driftwatch.counters import Counters
from driftwatch.figures import Figures
from driftwatch.metrics import Metrics
from driftwatch.model_metrics import ModelMetrics
from driftwatch.records import Records, Schema
from driftwatch.references import Assigned

LATENCY = "latency"  # the figure that is the latency of predictions


def make_figures(config: Config) -> Figures | None:
    """The figures of fields; None: none are asked for."""
    measures = config.measures()
    return Figures(measures, config.event_schema()) if measures else None


def make_counters(config: Config, schema: Schema, assigned: Assigned) -> Counters:
    """What rows are counted with."""
    return Counters(schema, assigned, learning=learning_version(config), figures=make_figures(config))


def make_model_metrics(
    config: Config, schema: Schema, registry: CollectorRegistry, metrics: Metrics
) -> Callable[[Records], None]:
    """Exports the model's own metrics, unless the model server does; the answer takes rows."""
    if not config.performance.model_metrics:
        return lambda records: None
    latency = config.performance.system.get(LATENCY)
    field = latency.field if latency is not None and latency.measure == "quantiles" else None
    found = ModelMetrics(schema, field, metrics.accuracies)
    registry.register(found)
    return found.take

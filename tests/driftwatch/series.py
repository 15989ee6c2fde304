"""Series of a registry of metrics, read back from the classic format by the client library's own parser."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(registry: CollectorRegistry) -> Series:
    """Every series, by name and labels; two of one name and labels are an error."""
    series: Series = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in series
            series[key] = sample.value
    return series


def value(registry: CollectorRegistry, name: str, *, version: str = "3", **labels: str) -> float | None:
    """The value of the small model's series with these labels, or None where it is absent."""
    return read(registry).get((name, frozenset({"model": "credit", "version": version, **labels}.items())))

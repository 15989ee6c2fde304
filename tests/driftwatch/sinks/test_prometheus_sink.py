"""The sink's gauges and counts, read back from the classic format by an independent parser."""

import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from series import read, value

from detectors.score import Verdict
from driftwatch.decision import (
    AlarmFeature,
    AlarmLine,
    Decision,
    PerformanceLine,
    QualityLine,
    ScoreLine,
    Transition,
    WindowLine,
)
from driftwatch.metrics import Metrics
from driftwatch.sinks.prometheus import PrometheusSink


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, model="credit", version="3")


def score(feature: str, detector: str = "ks", value: float | None = 0.25, verdict: Verdict = "ok") -> ScoreLine:
    reason = "too_few_records" if verdict == "undetermined" else None
    return ScoreLine(feature, detector, value, value, value, 1000, 100, verdict, reason)


def alarm(transition: Transition, *features: str, version: str | None = None, pattern: str | None = None) -> AlarmLine:
    lines = tuple(AlarmFeature(f, "ks", 0.2, 1e-9, 0.5, 0.2, None) for f in features)
    what = ("0123456789abcdef", transition, "covariate", pattern, "2024-01-01T00:00:00Z", lines)
    return AlarmLine(*what, "drift", (), "watch", version=version)


def decision(
    *scores: ScoreLine,
    version: str = "3",
    verdict: Verdict = "ok",
    alarms: tuple[AlarmLine, ...] = (),
    quality: tuple[QualityLine, ...] = (),
    caution: tuple[str, ...] = (),
) -> Decision:
    window = WindowLine("credit", version, None, "2024-01-01T00:00:00Z", "2024-01-01T00:05:00Z", 100)
    return Decision(
        window=window,
        verdict=verdict,
        scores=scores,
        quality=quality,
        alarms=alarms,
        part=1,
        partial=False,
        share=None,
        revision=0,
        p_value=None,
        threshold=None,
        caution=caution,
    )


def test_a_window_without_a_verdict_leaves_no_series_of_its_scores(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    sink = PrometheusSink(metrics)
    sink.write(decision(score("age"), score("income")), b"")
    assert value(registry, "driftwatch_score", feature="age", detector="ks") == 0.25
    undetermined = (score("age", verdict="undetermined"), score("income", value=None, verdict="undetermined"))
    sink.write(decision(*undetermined, verdict="undetermined"), b"")
    left = {name for name, _ in read(registry)}
    assert left.isdisjoint({"driftwatch_score", "driftwatch_p_value", "driftwatch_effect"})
    assert value(registry, "driftwatch_windows_total", verdict="ok") == 1
    assert value(registry, "driftwatch_windows_total", verdict="undetermined") == 1


def test_an_alarm_is_active_from_opened_to_resolved_and_counted_once(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    sink = PrometheusSink(metrics)
    scores = (score("age"), score("income"))
    seen = []
    for alarms in (
        (),
        (alarm("opened", "age"),),
        (alarm("continuing", "age", "income", pattern="gradual"),),
        (alarm("resolved", "age", "income", pattern="gradual"),),
    ):
        sink.write(decision(*scores, alarms=alarms), b"")
        seen.append(
            (
                value(registry, "driftwatch_drift_active", kind="covariate", pattern="none"),
                value(registry, "driftwatch_drift_active", kind="covariate", pattern="gradual"),
                value(registry, "driftwatch_feature_drift_active", feature="age"),
                value(registry, "driftwatch_feature_drift_active", feature="income"),
                value(registry, "driftwatch_alarms_total", kind="covariate", pattern="none"),
            )
        )
    assert seen == [(0, 0, 0, 0, 0), (1, 0, 1, 0, 1), (0, 1, 1, 1, 1), (0, 0, 0, 0, 1)]


def test_an_alarm_of_a_superseded_version_closes_under_its_own_version(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    sink = PrometheusSink(metrics)
    sink.write(decision(score("age"), alarms=(alarm("opened", "age"),)), b"")
    sink.write(decision(score("age"), version="4"), b"")
    assert value(registry, "driftwatch_drift_active", kind="covariate", pattern="none") == 1
    sink.write(decision(score("age"), version="4", alarms=(alarm("resolved", "age", version="3"),)), b"")
    for version in ("3", "4"):
        active = value(registry, "driftwatch_drift_active", version=version, kind="covariate", pattern="none")
        feature_active = value(registry, "driftwatch_feature_drift_active", version=version, feature="age")
        assert (active, feature_active) == (0, 0), version
    assert value(registry, "driftwatch_score", feature="age", detector="ks") == 0.25


def test_both_judgements_of_a_window_are_shown_together(registry: CollectorRegistry, metrics: Metrics) -> None:
    sink = PrometheusSink(metrics)
    lines = (PerformanceLine("accuracy", "labels", 0.6, 0.5, 0.7, 0.75, 100, "drift"),)
    concept = replace(alarm("opened", "loss"), kind="concept", of_class="performance")
    sink.write(decision(score("age"), alarms=(alarm("opened", "age"),)), b"")
    second = decision(score("loss"), verdict="drift", alarms=(concept,))
    sink.write(replace(second, revision=1, performance=lines), b"")
    for kind in ("covariate", "concept"):
        assert value(registry, "driftwatch_drift_active", kind=kind, pattern="none") == 1
        assert value(registry, "driftwatch_alarms_total", kind=kind, pattern="none") == 1
    assert value(registry, "driftwatch_performance", metric="accuracy", source="labels") == 0.6
    assert value(registry, "driftwatch_score", feature="age", detector="ks") == 0.25
    assert value(registry, "driftwatch_windows_total", verdict="ok") == 1
    assert value(registry, "driftwatch_windows_total", verdict="drift") == 0  # a window is counted once
    sink.write(decision(score("age"), alarms=(alarm("resolved", "age"),)), b"")
    assert value(registry, "driftwatch_drift_active", kind="covariate", pattern="none") == 0
    assert value(registry, "driftwatch_drift_active", kind="concept", pattern="none") == 1
    assert value(registry, "driftwatch_performance", metric="accuracy", source="labels") == 0.6


def test_a_superseded_alarm_of_a_version_without_series_makes_none(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    PrometheusSink(metrics).write(decision(version="4", alarms=(alarm("resolved", "age", version="2"),)), b"")
    assert {dict(labels)["version"] for _, labels in read(registry)} == {"3", "4"}


def test_quality_and_caution_are_shown(registry: CollectorRegistry, metrics: Metrics) -> None:
    quality = (QualityLine("income", "missing", 0.31, 0.01, "drift"), QualityLine("age", "invalid", None, 0.0, "ok"))
    PrometheusSink(metrics).write(decision(score("age"), score("income"), quality=quality, caution=("age",)), b"")
    assert value(registry, "driftwatch_quality", feature="income", check="missing") == 0.31
    assert value(registry, "driftwatch_quality", feature="age", check="invalid") is None
    assert value(registry, "driftwatch_caution", feature="age") == 1
    assert value(registry, "driftwatch_caution", feature="income") == 0


FEATURES = st.sampled_from(["age", "income", "region"])
DECISIONS = st.builds(
    lambda scores, version, transition: decision(
        *(score(feature, detector, number, verdict) for (feature, detector), (number, verdict) in scores.items()),
        version=version,
        alarms=() if transition is None else (alarm(transition, "age"),),
    ),
    st.dictionaries(
        st.tuples(FEATURES, st.sampled_from(["ks", "psi"])),
        st.tuples(st.none() | st.floats(0, 10), st.sampled_from(["ok", "drift", "undetermined"])),
    ),
    st.sampled_from(["3", "4"]),
    st.sampled_from([None, "opened", "continuing", "resolved"]),
)


def test_labels_that_give_an_alarm_another_kind_close_the_first_one(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    sink = PrometheusSink(metrics)

    def active() -> set[str]:
        of = [dict(labels) for (name, labels), x in read(registry).items() if name == "driftwatch_drift_active" and x]
        return {labels["kind"] for labels in of}

    first = decision(verdict="drift", alarms=(alarm("opened", "age"),))
    sink.write(first, b"")
    assert active() == {"covariate"}
    updated = replace(alarm("updated", "age"), kind="prior")
    sink.write(replace(first, revision=1, alarms=(updated,)), b"")
    assert active() == {"prior"}
    sink.write(replace(first, alarms=(replace(updated, transition="continuing"),)), b"")
    assert active() == {"prior"}
    sink.write(replace(first, alarms=(replace(updated, transition="resolved"),)), b"")
    assert active() == set()


def test_an_estimate_and_its_error_are_shown_once_both_are_there(registry: CollectorRegistry, metrics: Metrics) -> None:
    sink = PrometheusSink(metrics)
    early = PerformanceLine("roc_auc", "estimate", 0.9, 0.88, 0.92, 0.91, 100, "undetermined")
    late = PerformanceLine("roc_auc", "labels", 0.8, 0.7, 0.9, 0.91, 100, "ok", estimate=0.9)
    sink.write(replace(decision(), performance=(early,)), b"")
    assert value(registry, "driftwatch_performance", metric="roc_auc", source="estimate") == 0.9
    sink.write(replace(decision(), revision=1, performance=(late,)), b"")
    assert value(registry, "driftwatch_performance", metric="roc_auc", source="labels") == 0.8
    assert value(registry, "driftwatch_performance", metric="roc_auc", source="estimate") == 0.9
    error = value(registry, "driftwatch_performance_estimate_error", metric="roc_auc")
    assert error == pytest.approx(0.1)


@given(st.lists(DECISIONS, max_size=6))
@settings(max_examples=60)
def test_the_gauges_are_those_of_the_last_decision_of_each_version_and_of_no_other(decisions: list[Decision]) -> None:
    registry = CollectorRegistry()
    sink = PrometheusSink(Metrics(registry, model="credit", version="3"))
    for each in decisions:
        sink.write(each, b"")
    last = {each.window.version: each for each in decisions}
    expected = {
        (version, line.feature, line.detector): line.statistic
        for version, each in last.items()
        for line in each.scores
        if line.statistic is not None and line.verdict != "undetermined"
    }
    series = read(registry)
    shown = {
        (of["version"], of["feature"], of["detector"]): number
        for (name, labels), number in series.items()
        if name == "driftwatch_score" and (of := dict(labels))
    }
    assert shown == expected
    active = {
        dict(labels)["version"] for (name, labels), x in series.items() if name == "driftwatch_drift_active" and x
    }
    assert active == {v for v, each in last.items() if any(a.transition != "resolved" for a in each.alarms)}
    opened = sum(a.transition == "opened" for each in decisions for a in each.alarms)
    assert sum(x for (name, _), x in series.items() if name == "driftwatch_alarms_total") == opened
    windows = sum(x for (name, _), x in series.items() if name == "driftwatch_windows_total")
    assert windows == len(decisions)


def test_a_scrape_beside_the_pipeline_sees_a_window_whole(registry: CollectorRegistry, metrics: Metrics) -> None:
    sink = PrometheusSink(metrics)
    windows = [decision(*(score(f"f{i}", value=float(k)) for i in range(40))) for k in (1, 2)]
    sink.write(windows[0], b"")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for window in windows:
                sink.write(window, b"")

    writer = threading.Thread(target=write)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    writer.start()
    try:
        scrapes = [_scores_of_one_scrape(registry) for _ in range(20)]
    finally:
        stop.set()
        writer.join()
        sys.setswitchinterval(interval)
    for scores in scrapes:
        assert len(scores) == 40
        assert len(set(scores)) == 1


def _scores_of_one_scrape(registry: CollectorRegistry) -> list[float]:
    return [number for (name, _), number in read(registry).items() if name == "driftwatch_score"]

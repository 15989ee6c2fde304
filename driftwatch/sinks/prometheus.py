"""Shows the last decision of each version as Prometheus gauges, and counts windows and alarms."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace

from driftwatch.decision import AlarmLine, Decision, ScoreLine
from driftwatch.metrics import ALARMS, Metrics, WindowGauges


class PrometheusSink:
    """Takes decisions that are committed, each once and in their order.

    A gauge has no way to say "undetermined", so a score without a verdict has no series until a window decides again.
    `driftwatch_drift_active` relies on a decision naming every alarm of its version that is open after it.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._last: dict[tuple[str, int], WindowGauges] = {}  # of the first and of the second judgements of a version

    def write(self, decision: Decision, line: bytes) -> None:
        """Show `decision`; alarms of another version that it resolves are shown as closed there."""
        version, revision = decision.window.version, decision.revision
        own: list[AlarmLine] = []
        retold: list[AlarmLine] = []
        for alarm in decision.alarms:
            if alarm.version is None:
                (retold if revision and alarm.of_class != "performance" else own).append(alarm)
        opened = [_labels(alarm) for alarm in own if alarm.transition == "opened"]
        self._last[version, revision] = _gauges(decision, own)
        if retold and (shown := self._last.get((version, 0))) is not None:
            self._last[version, 0] = replace(shown, drift_active=_retold(shown.drift_active, retold))
        # A window is counted once, when it closes.
        self._metrics.judged(version, None if revision else decision.verdict, opened, self._together(version))
        for alarm in decision.alarms:
            if alarm.version is None or (shown := self._last.get((alarm.version, revision))) is None:
                continue
            calm = dict.fromkeys(shown.feature_drift_active, 0.0)
            closed = replace(shown, drift_active=dict.fromkeys(ALARMS, 0.0), feature_drift_active=calm)
            self._last[alarm.version, revision] = closed
            if self._metrics.shown(alarm.version) is not None:
                self._metrics.show(alarm.version, self._together(alarm.version))
        self._last = {key: gauges for key, gauges in self._last.items() if self._metrics.shown(key[0]) is not None}

    def _together(self, version: str) -> WindowGauges:
        """What both judgements of a version say; a kind of alarm is active where either has one."""
        first, second = (self._last.get((version, revision), WindowGauges()) for revision in (0, 1))
        active = {kind: max(first.drift_active.get(kind, 0.0), second.drift_active.get(kind, 0.0)) for kind in ALARMS}
        joined = {f.name: {**getattr(first, f.name), **getattr(second, f.name)} for f in fields(WindowGauges)}
        return WindowGauges(**{**joined, "drift_active": active})

    def close(self) -> None:
        """Hold nothing, close nothing: the gauges stay what they are until the process ends."""


def _gauges(decision: Decision, alarms: Iterable[AlarmLine]) -> WindowGauges:
    open_alarms = [alarm for alarm in alarms if alarm.transition != "resolved"]
    in_alarm = {line.feature for alarm in open_alarms for line in alarm.features}
    features = {score.feature for score in decision.scores} | in_alarm
    return WindowGauges(
        score=_decided(decision.scores, "statistic"),
        p_value=_decided(decision.scores, "p_value"),
        effect=_decided(decision.scores, "effect"),
        quality={(line.feature, line.check): line.value for line in decision.quality if line.value is not None},
        drift_active=dict.fromkeys(ALARMS, 0.0) | {_labels(alarm): 1.0 for alarm in open_alarms},
        feature_drift_active={(feature,): float(feature in in_alarm) for feature in features},
        caution={(feature,): float(feature in decision.caution) for feature in features},
        performance={(p.metric, p.source): p.value for p in decision.performance if p.value is not None},
        estimate_error={
            (p.metric,): p.estimate - p.value
            for p in decision.performance
            if p.value is not None and p.estimate is not None
        },
    )


def _retold(active: Mapping[tuple[str, ...], float], alarms: Iterable[AlarmLine]) -> dict[tuple[str, ...], float]:
    """What is active once the labels have given alarms of first judgements another kind."""
    found = dict(active)
    for alarm in alarms:
        if alarm.of_class == "drift":
            found |= {labels: 0.0 for labels in ALARMS if labels[0] != "data_quality"}
        found[_labels(alarm)] = 1.0
    return found


def _decided(scores: Iterable[ScoreLine], name: str) -> dict[tuple[str, ...], float]:
    values = ((score, getattr(score, name)) for score in scores if score.verdict != "undetermined")
    return {(score.feature, score.detector): value for score, value in values if value is not None}


def _labels(alarm: AlarmLine) -> tuple[str, str]:
    return alarm.kind, alarm.pattern or "none"

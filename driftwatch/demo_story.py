"""What the demo is to show: its plan, what has been seen of it so far, and what is missing in the end."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from driftwatch.decision import AlarmClass, AlarmFeature, AlarmLine, Decision, PerformanceLine
from driftwatch.demo_receiver import Delivery
from driftwatch.demo_stream import CONCEPT_IN_WORDS, DRIFT_IN_WORDS, DRIFTED

WINDOW_S = 600
INTO_WINDOW = 0.3  # a change begins and ends amid a window, as changes do
JOINT = "*"  # the feature of scores on all features together
MOST_NAMES = 4
MOST_EVIDENCE = 2
METRIC = "roc_auc"
BECAME: dict[AlarmClass, tuple[str, str]] = {
    "drift": ("covariate", "drift"),
    "performance": ("concept", "concept drift"),
}
WEBHOOKS = tuple(f"{of_class}.{transition}" for of_class in BECAME for transition in ("opened", "resolved"))

News = Decision | Delivery


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the story is, in windows of `WINDOW_S` of event time, and how fast it is told (`duration_s`).

    The features drift for `drifting` windows and recover for `recovering`; then what they say of a default changes for
    `changed` windows, and is as it was for the last `after`.
    """

    reference_rows: int
    window_rows: int
    calm: int
    drifting: int
    recovering: int
    changed: int
    after: int
    duration_s: float

    @property
    def interval_s(self) -> float:
        """From one application to the next, of event time."""
        return WINDOW_S / self.window_rows

    @property
    def n_applications(self) -> int:
        """Of the whole stream; each comes as a prediction, and its label as another event."""
        return (self.calm + self.drifting + self.recovering + self.changed + self.after) * self.window_rows

    @property
    def n_events(self) -> int:
        """Of the file: predictions and labels."""
        return 2 * self.n_applications

    @property
    def drift(self) -> slice:
        """The applications whose features drift."""
        return self._rows(self.calm, self.drifting)

    @property
    def concept(self) -> slice:
        """The applications of which more default than their features say."""
        return self._rows(self.calm + self.drifting + self.recovering, self.changed)

    def _rows(self, before: int, windows: int) -> slice:
        first = before * self.window_rows + int(INTO_WINDOW * self.window_rows)
        return slice(first, first + windows * self.window_rows)

    def start_s(self, now_s: float) -> float:
        """The first event's time, at a window's edge, so that the last application's is about `now_s`."""
        return (now_s - self.n_applications * self.interval_s) // WINDOW_S * WINDOW_S


@dataclass
class Story:
    """What was seen so far. Its methods answer lines to say. An alarm that belongs to no change is a `false` one."""

    plan: Plan
    start_s: float
    status: str = "no window judged yet"
    n_windows: int = 0
    n_labelled: int = 0  # windows that were judged once more, on labels
    written_s: float = 0.0  # event time of what was written
    false: int = 0
    opened: dict[AlarmClass, AlarmLine] = field(default_factory=dict)
    resolved: dict[AlarmClass, AlarmLine] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)  # features in the alarm on drift at any time
    deliveries: dict[str, Delivery] = field(default_factory=dict)  # by type; the one that came last

    @property
    def is_over(self) -> bool:
        """Both alarms opened and were resolved, and all webhooks came."""
        return {*BECAME} <= set(self.opened) & set(self.resolved) and {*WEBHOOKS} <= set(self.deliveries)

    def time_s(self, row: int) -> float:
        """The event time of an application."""
        return self.start_s + row * self.plan.interval_s

    def wrote(self, until_s: float) -> Iterator[str]:
        """The events up to this time were written into the stream."""
        drift, concept = self.plan.drift, self.plan.concept
        for row, what in (
            (drift.start, f"the stream drifts from here on: {DRIFT_IN_WORDS}"),
            (drift.stop, "the stream recovers: applications are as they were"),
            (concept.start, CONCEPT_IN_WORDS),
            (concept.stop, "debts count again"),
        ):
            if self.written_s < self.time_s(row) <= until_s:
                yield f"{clock(self.time_s(row))}  {what}"
        self.written_s = max(self.written_s, until_s)

    def take(self, news: News) -> Iterator[str]:
        """The sidecar judged a window, or the receiver got a webhook."""
        if isinstance(news, Delivery):
            self.deliveries[news.type] = news
            signature = "signature verified" if news.is_verified else "signature NOT valid, refused"
            yield f"       webhook {news.type} delivered, {signature}"
            return
        if news.revision:
            self.n_labelled += 1
        else:
            self.n_windows += 1
        self.status = status(news)
        for alarm in news.alarms:
            if alarm.of_class == "drift":
                self.named |= {line.feature for line in alarm.features}
            if alarm.transition == "opened":
                yield from self._opened(alarm, news)
            elif alarm.transition == "resolved":
                self.resolved[alarm.of_class] = alarm
                like = "three windows in a row are like the reference again"
                yield f"{clock(epoch_s(news.window.end))}  alarm {alarm.id} resolved: {like}"

    def _opened(self, alarm: AlarmLine, decision: Decision) -> Iterator[str]:
        end_s = epoch_s(decision.window.end)
        rows = {"drift": self.plan.drift, "performance": self.plan.concept}.get(alarm.of_class)
        if rows is None or end_s <= self.time_s(rows.start) or alarm.of_class in self.opened:
            self.false += 1
            yield f"{clock(end_s)}  ALARM {alarm.id} ({alarm.of_class}) opened on no change of ours"
            yield from (f"         {words(line)}" for line in alarm.features[:MOST_NAMES])
            return
        self.opened[alarm.of_class] = alarm
        after = f"{(end_s - self.time_s(rows.start)) / 60:.0f} min of event time after the drift began"
        if alarm.of_class == "drift":
            yield f"{clock(end_s)}  ALARM {alarm.id} opened, {after}; kind {alarm.kind}"
            yield from (f"         {words(line)}" for line in alarm.features[:MOST_NAMES])
        else:
            yield f"{clock(self.written_s)}  ALARM {alarm.id} opened by labels that have come; kind {alarm.kind}"
            yield f"         window to {clock(end_s)}, judged again"
            yield from (f"         {sentence}" for sentence in alarm.evidence[:MOST_EVIDENCE])
            yield from (f"         {figures(line)}" for line in decision.performance if line.metric == METRIC)
        yield f"         what to do: {alarm.suggestion.replace('_', ' ')}"

    def summary(self, counted: int, left_out: int) -> Iterator[str]:
        """What was seen, in figures. By the sidecar's own metrics: predictions `counted`, labels `left_out`."""
        verified = sum(delivery.is_verified for delivery in self.deliveries.values())
        on = ", ".join(f"{int(c in self.opened)} on the {drift}" for c, (_, drift) in BECAME.items())
        yield f"Seen: {self.plan.n_applications:,} predictions written and their labels, {counted:,} counted,"
        yield f"      {left_out:,} labels left out; {self.n_windows} windows judged, {self.n_labelled} again on labels;"
        yield f"      {self.false} false alarms, {on}; {verified} webhooks with a valid signature."

    def missing(self, counted: int, left_out: int) -> list[str]:
        """What should have been seen and was not."""
        first, kinds = "", {c: alarm.kind for c, alarm in self.opened.items()}
        if "drift" in self.opened:
            first = next((line.feature for line in self.opened["drift"].features if line.feature != JOINT), "")
        checks = {
            f"every prediction counted; got {counted:,} of {self.plan.n_applications:,}": counted
            == self.plan.n_applications,
            f"every label used; {left_out:,} were not": left_out == 0,
            f"no false alarm; got {self.false}": self.false == 0,
            f"a feature that drifted on top of the alarm; got {first!r}": first in DRIFTED,
            f"all of {', '.join(DRIFTED)} in the alarm; got {', '.join(sorted(self.named))}": self.named >= {*DRIFTED},
        }
        for c, (kind, drift) in BECAME.items():
            ids = {alarms[c].id if c in alarms else None for alarms in (self.opened, self.resolved)}
            checks[f"an alarm of kind {kind} on the {drift}; got {kinds.get(c)}"] = kinds.get(c) == kind
            checks[f"the same alarm on the {drift} resolved"] = len(ids - {None}) == len(ids) == 1
        checks |= {f"the webhook {type} with a valid signature": self._is_verified(type) for type in WEBHOOKS}
        return [what for what, was_seen in checks.items() if not was_seen]

    def _is_verified(self, type: str) -> bool:
        return type in self.deliveries and self.deliveries[type].is_verified


def figures(line: PerformanceLine) -> str:
    """A figure by labels beside what was estimated without them, such as `roc_auc 0.61; estimated 0.78 …`."""
    shown = [f"{line.metric} {line.value:.2f} by labels" if line.value is not None else f"{line.metric} unknown"]
    if line.estimate is not None:
        shown.append(f"{line.estimate:.2f} estimated without them")
    if line.reference is not None:
        shown.append(f"{line.reference:.2f} in the reference")
    return ", ".join(shown)


def status(decision: Decision) -> str:
    """The last window in one line."""
    window, p = decision.window, decision.p_value
    drifting = dict.fromkeys(score.feature for score in decision.scores if score.verdict == "drift")
    leading = ", ".join([*drifting][:MOST_NAMES]) or decision.reason or ""
    likely = "" if p is None else f"  p {p:.0e}"
    told = f"window to {clock(epoch_s(window.end))}{' by labels' if decision.revision else ''}"
    return f"{told}  {window.n_records:,} events  {decision.verdict}{likely}  {leading}"


def words(line: AlarmFeature) -> str:
    """A feature's part in an alarm, such as `income (location, 0.47 sd)`."""
    if line.effect is None:
        return f"{line.feature} ({line.detector})"
    if line.detector in ("location", "scale", "wasserstein"):
        size = f"{line.effect:.2f} sd"
    elif line.detector in ("missing", "invalid", "unseen", "largest_cell"):
        size = f"{line.effect:.1%} of the rows"
    else:
        size = f"{line.effect:.2f}"
    return f"{line.feature} ({line.detector}, {size})"


def epoch_s(time: str) -> float:
    """Epoch seconds of a decision's time."""
    return datetime.fromisoformat(time).timestamp()


def clock(time_s: float) -> str:
    """Hours and minutes of event time, UTC."""
    minutes = int(time_s // 60)
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}"

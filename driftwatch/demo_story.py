"""What the demo is to show: its plan, what has been seen of it so far, and what is missing in the end."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from driftwatch.decision import AlarmFeature, AlarmLine, Decision
from driftwatch.demo_receiver import Delivery
from driftwatch.demo_stream import DRIFT_IN_WORDS, DRIFTED

WINDOW_S = 600
INTO_WINDOW = 0.3  # the drift begins and ends amid a window, as drifts do
JOINT = "*"  # the feature of scores on all features together
OPENED, RESOLVED = "drift.opened", "drift.resolved"
MOST_NAMES = 4

News = Decision | Delivery


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the story is, in windows of `WINDOW_S` of event time, and how fast it is told (`duration_s`)."""

    reference_rows: int
    window_rows: int
    calm: int
    drifting: int
    recovering: int
    duration_s: float

    @property
    def interval_s(self) -> float:
        """From one event to the next, of event time."""
        return WINDOW_S / self.window_rows

    @property
    def n_events(self) -> int:
        """Of the whole stream."""
        return (self.calm + self.drifting + self.recovering) * self.window_rows

    @property
    def drift(self) -> slice:
        """The rows that drift."""
        offset = int(INTO_WINDOW * self.window_rows)
        first = self.calm * self.window_rows + offset
        return slice(first, first + self.drifting * self.window_rows)

    def start_s(self, now_s: float) -> float:
        """The first event's time, at a window's edge, so that the last event's is about `now_s`."""
        return (now_s - self.n_events * self.interval_s) // WINDOW_S * WINDOW_S


@dataclass
class Story:
    """What was seen so far. Its methods answer lines to say."""

    plan: Plan
    start_s: float
    status: str = "no window judged yet"
    n_windows: int = 0
    early: int = 0  # alarms that opened before the drift
    opened: AlarmLine | None = None
    resolved: AlarmLine | None = None
    named: set[str] = field(default_factory=set)  # features in the alarm at any time
    deliveries: dict[str, Delivery] = field(default_factory=dict)  # by type; the one that came last

    @property
    def is_over(self) -> bool:
        """The alarm opened and was resolved, and both webhooks came."""
        return self.opened is not None and self.resolved is not None and {OPENED, RESOLVED} <= set(self.deliveries)

    def time_s(self, row: int) -> float:
        """The event time of a row."""
        return self.start_s + row * self.plan.interval_s

    def wrote(self, first: int, end: int) -> Iterator[str]:
        """The rows from first to before end were written into the stream."""
        drift = self.plan.drift
        if first <= drift.start < end:
            yield f"{clock(self.time_s(drift.start))}  the stream drifts from here on: {DRIFT_IN_WORDS}"
        if first <= drift.stop < end:
            yield f"{clock(self.time_s(drift.stop))}  the stream recovers: applications are as they were"

    def take(self, news: News) -> Iterator[str]:
        """The sidecar judged a window, or the receiver got a webhook."""
        if isinstance(news, Delivery):
            self.deliveries[news.type] = news
            signature = "signature verified" if news.is_verified else "signature NOT valid, refused"
            yield f"       webhook {news.type} delivered, {signature}"
            return
        self.n_windows += 1
        self.status = status(news)
        for alarm in news.alarms:
            self.named |= {line.feature for line in alarm.features}
            yield from self._alarm(alarm, epoch_s(news.window.end))

    def _alarm(self, alarm: AlarmLine, end_s: float) -> Iterator[str]:
        began_s = self.time_s(self.plan.drift.start)
        if alarm.transition == "opened":
            if end_s <= began_s:
                self.early += 1
                yield f"{clock(end_s)}  ALARM {alarm.id} opened although nothing drifts yet"
            else:
                self.opened = self.opened or alarm
                after = f"{(end_s - began_s) / 60:.0f} min of event time"
                yield f"{clock(end_s)}  ALARM {alarm.id} opened, {after} after the drift began"
            yield from (f"         {words(line)}" for line in alarm.features[:MOST_NAMES])
        elif alarm.transition == "resolved":
            self.resolved = alarm
            yield f"{clock(end_s)}  alarm {alarm.id} resolved: three windows in a row are like the reference again"

    def summary(self, counted: int) -> Iterator[str]:
        """What was seen, in figures. `counted`: records by the sidecar's own metrics."""
        verified = sum(delivery.is_verified for delivery in self.deliveries.values())
        on_it = int(self.opened is not None)
        yield f"Seen: {self.plan.n_events:,} events written, {counted:,} counted; {self.n_windows} windows judged;"
        yield f"      {self.early} alarms before the drift, {on_it} on it; {verified} webhooks with a valid signature."

    def missing(self, counted: int) -> list[str]:
        """What should have been seen and was not."""
        first = (
            next((line.feature for line in self.opened.features if line.feature != JOINT), "") if self.opened else ""
        )
        checks = {
            f"every event counted; got {counted:,} of {self.plan.n_events:,}": counted == self.plan.n_events,
            f"no alarm before the drift; got {self.early}": self.early == 0,
            "an alarm on the drift": self.opened is not None,
            f"a feature that drifted on top of the alarm; got {first!r}": first in DRIFTED,
            f"all of {', '.join(DRIFTED)} in the alarm; got {', '.join(sorted(self.named))}": self.named >= {*DRIFTED},
            "the same alarm resolved": self.opened and self.resolved and self.opened.id == self.resolved.id,
        }
        checks |= {f"the webhook {type} with a valid signature": self._is_verified(type) for type in (OPENED, RESOLVED)}
        return [what for what, was_seen in checks.items() if not was_seen]

    def _is_verified(self, type: str) -> bool:
        return type in self.deliveries and self.deliveries[type].is_verified


def status(decision: Decision) -> str:
    """The last window in one line."""
    window, p = decision.window, decision.p_value
    drifting = dict.fromkeys(score.feature for score in decision.scores if score.verdict == "drift")
    leading = ", ".join([*drifting][:MOST_NAMES]) or decision.reason or ""
    likely = "" if p is None else f"  p {p:.0e}"
    return f"window to {clock(epoch_s(window.end))}  {window.n_records:,} events  {decision.verdict}{likely}  {leading}"


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

"""What a webhook of driftwatch says: a CloudEvent whose data is an alarm's."""

import hashlib
import json

import msgspec

from modelops.errors import Refused
from modelops.times import parse_time

PREFIX = "driftwatch."


class WindowSpan(msgspec.Struct, frozen=True):
    """The window in which an alarm opened or resolved."""

    start: str
    end: str
    version: str = ""


class AlarmData(msgspec.Struct, frozen=True):
    """An alarm, as far as it bears on what to do; unknown keys are ignored."""

    model: str
    version: str
    window: WindowSpan
    transition: str
    kind: str
    started_at: str
    pattern: str | None = None
    suggestion: str | None = None
    reason: str | None = None
    evidence: tuple[str, ...] = ()


class Event(msgspec.Struct, frozen=True):
    """The CloudEvent around it."""

    specversion: str
    id: str
    type: str
    data: AlarmData


class Alarm(msgspec.Struct, frozen=True):
    """One webhook. `alarm_class` is drift, data_quality or performance; times are event time, epoch seconds."""

    alarm_id: str
    alarm_class: str
    transition: str
    model: str
    version: str
    kind: str
    started_s: float
    window_start: str
    window_end: str
    suggestion: str | None = None
    reason: str | None = None

    @property
    def job_id(self) -> str:
        """16 hex digits of model, version and opening window: a second webhook of one drift is the same job."""
        text = json.dumps([self.model, self.version, self.window_start, self.window_end])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(webhook_id: str, body: bytes) -> Alarm:
    """The alarm of a verified body. Raises Refused (400) that says what was expected."""
    try:
        event = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"the body must be a CloudEvent of driftwatch: {error}") from error
    alarm_class, _, transition = event.type.removeprefix(PREFIX).partition(".")
    if not event.type.startswith(PREFIX) or not transition:
        raise Refused(400, f"`type` must be driftwatch.CLASS.TRANSITION; got {event.type!r}.")
    if event.id != webhook_id:
        raise Refused(400, "`id` must equal the header `webhook-id`; it does not.")
    data = event.data
    try:
        started_s = parse_time(data.started_at)
        parse_time(data.window.start)
        parse_time(data.window.end)
    except ValueError as error:
        raise Refused(400, f"times must be RFC 3339: {error}.") from error
    return Alarm(
        alarm_id=webhook_id.partition(":")[0],
        alarm_class=alarm_class,
        transition=transition,
        model=data.model,
        version=data.version,
        kind=data.kind,
        started_s=started_s,
        window_start=data.window.start,
        window_end=data.window.end,
        suggestion=data.suggestion,
        reason=data.reason,
    )


_decoder = msgspec.json.Decoder(Event)

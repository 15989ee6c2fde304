"""What a decision tells a target: a webhook for each transition of an alarm that it asked for."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

from driftwatch.decision import AlarmLine, Decision


class Webhook(NamedTuple):
    """A transition to tell a target of."""

    type: str
    id: str
    data: dict[str, object]


def webhooks(decision: Decision, on: Sequence[str]) -> list[Webhook]:
    """What a decision tells a target whose `on` holds globs over the type without `driftwatch.`.

    The id is the alarm's and the transition; of an update after the first also which one it is.
    """
    told = []
    for alarm in decision.alarms:
        kind_of_event = f"{alarm.of_class}.{alarm.transition}"
        if alarm.transition == "continuing" or not any(fnmatchcase(kind_of_event, glob) for glob in on):
            continue
        data: dict[str, object] = {
            "model": decision.window.model,
            "version": decision.window.version if alarm.version is None else alarm.version,
            "window": msgspec.to_builtins(decision.window),
            "transition": alarm.transition,
            "kind": alarm.kind,
            "pattern": alarm.pattern,
            "started_at": alarm.started_at,
            "features": msgspec.to_builtins(alarm.features),
            "evidence": list(alarm.evidence),
            "suggestion": alarm.suggestion,
            "links": {},
        }
        if decision.performance:
            data["performance"] = msgspec.to_builtins(decision.performance)
        if alarm.reason is not None:
            data["reason"] = alarm.reason
        told.append(Webhook(f"driftwatch.{kind_of_event}", webhook_id(alarm), data))
    return told


def webhook_id(alarm: AlarmLine) -> str:
    """The same for the same transition, whoever tells it and however often."""
    which = f":{alarm.updates}" if alarm.transition == "updated" and alarm.updates > 1 else ""
    return f"{alarm.id}:{alarm.transition}{which}"

"""A rollout as one pure state machine: (rollout, plan, observation, now) → (rollout, what is wanted).

What is wanted is level-triggered: the whole of it, each time, so that doing it twice or after a crash does no harm.
Recreate, blue-green, canary and shadow are rows of `WAYS`; ramped and A/B are to be more rows.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from modelops.recipe import Rollout as Plan
from modelops.recipe import Strategy
from modelops.times import rfc3339

Phase = Literal["preparing", "replacing", "observing", "watching", "rolling_back", "promoted", "rolled_back"]
Command = Literal["pause", "resume", "promote", "abort"]

ENDED: frozenset[Phase] = frozenset({"promoted", "rolled_back"})
ABORTED = "aborted by command"


class Way(NamedTuple):
    """What is a strategy's own. `first`: the phase after preparing.

    `shares`: what the challenger answers while it is observed, one step after another. `is_mirrored`: it gets copies
    meanwhile. `is_alone`: the old server ends before the new one begins.
    """

    first: Phase
    shares: Callable[[Plan], tuple[float, ...]] = lambda plan: (0.0,)
    is_mirrored: bool = False
    is_alone: bool = False


WAYS: dict[Strategy, Way] = {
    "recreate": Way("replacing", is_alone=True),
    "blue_green": Way("watching"),
    "canary": Way("observing", shares=lambda plan: plan.steps),
    "shadow": Way("observing", is_mirrored=True),
}

LOST_S = 60.0  # a challenger that is not ready for longer is rolled back
SEEN_S = 5.0  # how old `seen_s` may be, so that not every tick is a change
FEWEST_REQUESTS = 20  # before an error rate is believed
FEWEST_LATENCIES = 200  # before a p99 is: of fewer it is the slowest one
SLOWER_MS = 50.0  # a p99 within so much of the champion's is never too slow


class Rollout(msgspec.Struct, frozen=True):
    """Where a rollout is. `entered_s`: of this phase or step; `seen_s`: when the challenger was ready last.

    `expected`: the challenger's performance at the gate, None where unknown. Times are the machine's, epoch seconds.
    """

    id: str
    model: str
    strategy: Strategy
    champion: int
    challenger: int
    began_s: float
    entered_s: float
    phase: Phase = "preparing"
    step: int = 0
    is_paused: bool = False
    seen_s: float = 0.0
    expected: float | None = None
    reason: str = ""
    log: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.phase not in ENDED


class Traffic(msgspec.Struct, frozen=True):
    """Requests that a version answered since the phase or step began."""

    requests: int = 0
    errors: int = 0
    p99_ms: float = 0.0


class Performance(msgspec.Struct, frozen=True):
    """AUC by the labels of a version's live requests, and its standard error."""

    auc: float
    error: float
    n: int


class Observation(msgspec.Struct, frozen=True):
    """What is seen of the world. `undelivered`: why the profile is not yet at the sidecars; empty = it is."""

    champion: int | None
    ready: frozenset[int] = frozenset()
    undelivered: str = ""
    traffic: dict[int, Traffic] = {}
    performance: dict[int, Performance] = {}
    command: Command | None = None


class Route(msgspec.Struct, frozen=True):
    """The router's table: shares by version, a version that is sent copies, and who answers where a server is gone."""

    shares: tuple[tuple[int, float], ...]
    mirror: int | None = None
    spares: tuple[int, ...] = ()


class Wanted(msgspec.Struct, frozen=True):
    """The world as it is to be: model servers, the route, profiles at the sidecars, the registry's champion."""

    servers: frozenset[int]
    route: Route
    profiles: tuple[int, ...]
    champion: int
    challenger: int | None


def begin(
    *, id: str, model: str, strategy: Strategy, champion: int, challenger: int, expected: float | None, now_s: float
) -> Rollout:
    """A rollout that begins."""
    made = Rollout(id, model, strategy, champion, challenger, now_s, now_s, seen_s=now_s, expected=expected)
    return _noted(made, f"{strategy} of version {challenger} over version {champion} begins", now_s)


def step(rollout: Rollout, plan: Plan, seen: Observation, now_s: float) -> tuple[Rollout, Wanted]:
    """One tick: at most one change of phase, and what is wanted in the phase after it."""
    if rollout.is_open:
        if rollout.challenger in seen.ready and now_s - rollout.seen_s > SEEN_S:
            rollout = _with(rollout, seen_s=now_s)
        rollout = _commanded(rollout, seen, now_s)
        rollout = _advanced(rollout, plan, seen, now_s)
    return rollout, wanted(rollout, plan, seen)


def wanted(rollout: Rollout, plan: Plan, seen: Observation) -> Wanted:
    """What the phase asks for. A share goes only to a version that is ready, while another one is."""
    old, new, way = rollout.champion, rollout.challenger, WAYS[rollout.strategy]
    shares: dict[int, float] = {old: 1.0}
    mirror = None
    servers = {old, new}
    if rollout.phase == "preparing" and way.is_alone:
        servers = {old}
    elif rollout.phase == "replacing":
        servers, shares = {new}, {new: 1.0}
    elif rollout.phase == "observing":
        steps = way.shares(plan)
        share = steps[min(rollout.step, len(steps) - 1)]
        shares = {old: 1.0 - share, new: share}
        mirror = new if way.is_mirrored and new in seen.ready else None
    elif rollout.phase in ("watching", "promoted"):
        shares = {new: 1.0}
        if rollout.phase == "promoted" or way.is_alone:
            servers = {new}
    elif rollout.phase in ("rolling_back", "rolled_back"):
        servers = {old}
    ready = {version: share for version, share in shares.items() if version in seen.ready and share > 0}
    # Only in these phases may the challenger stand in: before them its profile may lack, after them it may be bad.
    may_answer = {old, new} if rollout.phase in ("observing", "watching") else set(shares)
    # One that is not ready is the last to be asked: a busy server may miss a look at it and still answer. One that is
    # just beginning is not asked.
    askable = servers & may_answer & (seen.ready if rollout.phase == "replacing" else servers)
    able = sorted(askable, key=lambda v: (v not in seen.ready, v != old))
    if not ready and able and able[0] in seen.ready:
        ready = {able[0]: 1.0}
    total = sum(ready.values())
    spares = tuple(version for version in able if version not in ready)
    route = Route(tuple(sorted((v, s / total) for v, s in ready.items())), mirror, spares)
    is_new = rollout.phase in ("watching", "promoted")
    ended = rollout.phase in ("rolling_back", "rolled_back", "promoted")
    profiles = (new,) if rollout.phase == "promoted" else (old,) if ended else (old, new)
    return Wanted(frozenset(servers), route, profiles, new if is_new else old, None if is_new or ended else new)


def guardrail(rollout: Rollout, plan: Plan, seen: Observation) -> str:
    """Which guardrail the challenger breaks, in words; empty where none."""
    new = seen.traffic.get(rollout.challenger, Traffic())
    old = seen.traffic.get(rollout.champion, Traffic())
    if new.requests >= FEWEST_REQUESTS and new.errors > plan.max_error_rate * new.requests:
        return (
            f"{new.errors} of {new.requests} requests of version {rollout.challenger} failed; "
            f"`rollout.max_error_rate` is {plan.max_error_rate:g}"
        )
    slowest_ms = max(plan.max_latency_ratio * old.p99_ms, old.p99_ms + SLOWER_MS)
    if min(new.requests, old.requests) >= FEWEST_LATENCIES and new.p99_ms > slowest_ms:
        return f"p99 of version {rollout.challenger} is {new.p99_ms:.0f} ms; at most {slowest_ms:.0f} ms are allowed"
    mine = seen.performance.get(rollout.challenger)
    if mine is None or mine.n < plan.min_labels:
        return ""
    other = seen.performance.get(rollout.champion)
    if rollout.phase == "observing" and other is not None and other.n >= plan.min_labels:
        high = mine.auc - other.auc + 1.645 * math.hypot(mine.error, other.error)
        if high < -plan.max_performance_loss:
            return (
                f"by {mine.n} labels of live requests version {rollout.challenger} has AUC {mine.auc:.3f}, "
                f"version {rollout.champion} {other.auc:.3f}; `rollout.max_performance_loss` is "
                f"{plan.max_performance_loss:g}"
            )
    if rollout.expected is not None and mine.auc + 1.645 * mine.error < rollout.expected - plan.max_performance_loss:
        return (
            f"performance did not recover: by {mine.n} labels AUC is {mine.auc:.3f}, at the gate it was "
            f"{rollout.expected:.3f}"
        )
    return ""


def _commanded(rollout: Rollout, seen: Observation, now_s: float) -> Rollout:
    match seen.command:
        case "pause" if not rollout.is_paused:
            return _noted(_with(rollout, is_paused=True), "paused", now_s)
        case "resume" if rollout.is_paused:
            return _noted(_with(rollout, is_paused=False, entered_s=now_s), "resumed", now_s)
        case "abort" if rollout.phase != "rolling_back":
            return _back(rollout, ABORTED, now_s)
        case "promote" if rollout.phase == "observing":
            return _enter(rollout, "watching", "promoted by command", now_s)
    return rollout


def _advanced(rollout: Rollout, plan: Plan, seen: Observation, now_s: float) -> Rollout:
    old, new = rollout.champion, rollout.challenger
    if rollout.phase == "rolling_back":
        if seen.champion == old and (old in seen.ready or now_s - rollout.entered_s > LOST_S):
            return _enter(rollout, "rolled_back", rollout.reason, now_s)
        return rollout
    if seen.champion not in (old, new):
        return _back(rollout, f"version {seen.champion} became champion meanwhile", now_s)
    if rollout.phase == "preparing":
        return _prepared(rollout, plan, seen, now_s)
    broken = guardrail(rollout, plan, seen)
    if not broken and now_s - max(rollout.seen_s, rollout.entered_s) > LOST_S:
        broken = f"the model server of version {new} was not ready for {LOST_S:.0f} s"
    if broken:
        return _back(rollout, broken, now_s)
    if rollout.phase == "replacing":
        return _enter(rollout, "watching", "the new server is ready", now_s) if new in seen.ready else rollout
    if rollout.is_paused or new not in seen.ready:
        return rollout
    waited_s = now_s - rollout.entered_s
    if rollout.phase == "observing":
        requests = seen.traffic.get(new, Traffic()).requests
        if waited_s < plan.observe or requests < plan.min_requests:
            return rollout
        said = f"{requests} requests without a broken guardrail"
        later = WAYS[rollout.strategy].shares(plan)[rollout.step + 1 :]
        if later:
            changed = _with(rollout, step=rollout.step + 1, entered_s=now_s)
            return _noted(changed, f"{said}: on to {later[0]:.0%}", now_s)
        return _enter(rollout, "watching", said, now_s)
    if waited_s >= plan.watch and seen.champion == new:
        return _enter(rollout, "promoted", f"version {new} is the champion", now_s)
    return rollout


def _prepared(rollout: Rollout, plan: Plan, seen: Observation, now_s: float) -> Rollout:
    missing = seen.undelivered
    if not missing and not WAYS[rollout.strategy].is_alone and rollout.challenger not in seen.ready:
        missing = f"the model server of version {rollout.challenger} is not ready"
    if missing:
        if now_s - rollout.began_s > plan.prepare:
            return _back(rollout, f"`rollout.prepare` is over: {missing}", now_s)
        return _with(rollout, reason=missing)
    if rollout.is_paused:
        return rollout
    return _enter(rollout, WAYS[rollout.strategy].first, "prepared", now_s)


def _enter(rollout: Rollout, phase: Phase, reason: str, now_s: float) -> Rollout:
    return _noted(_with(rollout, phase=phase, step=0, entered_s=now_s, reason=reason), f"{phase}: {reason}", now_s)


def _back(rollout: Rollout, reason: str, now_s: float) -> Rollout:
    return _enter(rollout, "rolling_back", reason, now_s)


def _noted(rollout: Rollout, line: str, now_s: float) -> Rollout:
    return _with(rollout, log=(*rollout.log, f"{rfc3339(round(now_s))} {line}"))


def _with(rollout: Rollout, **changes: object) -> Rollout:
    return msgspec.structs.replace(rollout, **changes)

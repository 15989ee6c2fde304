"""The rollout's state machine: each strategy's way, the guardrails, and what holds in every state."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelops import rollout as machine
from modelops.recipe import Rollout as Plan
from modelops.recipe import Strategy
from modelops.rollout import ENDED, LOST_S, Observation, Performance, Rollout, Traffic, Wanted, begin
from modelops.rollouts import Rollouts
from modelops.state import connect

STRATEGIES: tuple[Strategy, ...] = ("recreate", "blue_green", "canary", "shadow")
PLAN = Plan.model_validate(
    {"observe": "10s", "watch": "10s", "min_requests": 50, "steps": [0.1, 0.5], "prepare": "100s"}
)
GOOD = {1: Traffic(1000, 1, 20.0), 2: Traffic(1000, 1, 20.0)}


def started(strategy: Strategy, expected: float | None = None) -> Rollout:
    return begin(id="r", model="m", strategy=strategy, champion=1, challenger=2, expected=expected, now_s=0.0)


def seen(rollout: Rollout, wanted: Wanted | None, **more: object) -> Observation:
    """The world as it was wanted."""
    servers = frozenset({1}) if wanted is None else wanted.servers
    champion = 1 if wanted is None else wanted.champion
    found: dict[str, object] = {"champion": champion, "ready": servers, "traffic": GOOD}
    return msgspec.convert(found | more, Observation)


def follow(strategy: Strategy, until: str = "promoted", **more: object) -> tuple[Rollout, Wanted, list[Wanted]]:
    """Ticks every 5 s in a world that does what is wanted, until a phase."""
    rollout, wanted, ways = started(strategy), None, []
    for i in range(60):
        rollout, wanted = machine.step(rollout, PLAN, seen(rollout, wanted, **more), i * 5.0)
        ways.append(wanted)
        if rollout.phase == until:
            break
    assert wanted is not None
    return rollout, wanted, ways


@pytest.mark.parametrize(
    ("strategy", "routes"),
    [
        ("recreate", [(), ((2, 1.0),)]),
        ("blue_green", [((1, 1.0),), ((2, 1.0),)]),
        ("canary", [((1, 1.0),), ((1, 0.9), (2, 0.1)), ((1, 0.5), (2, 0.5)), ((2, 1.0),)]),
        ("shadow", [((1, 1.0),), ((2, 1.0),)]),
    ],
)
def test_each_strategy_goes_its_way(strategy: Strategy, routes: list[tuple[tuple[int, float], ...]]) -> None:
    rollout, wanted, ways = follow(strategy)
    assert rollout.phase == "promoted"
    said = [w.route.shares for i, w in enumerate(ways) if i == 0 or w.route.shares != ways[i - 1].route.shares]
    assert said == routes
    assert {w.route.mirror for w in ways} == ({None, 2} if strategy == "shadow" else {None})
    assert (wanted.servers, wanted.champion, wanted.profiles, wanted.challenger) == (frozenset({2}), 2, (2,), None)
    if strategy == "recreate":
        assert all(len(w.servers) == 1 for w in ways)
    else:
        assert all(w.route.shares for w in ways)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_is_sent_to_a_challenger_before_its_profile_is_delivered(strategy: Strategy) -> None:
    rollout, wanted = started(strategy), None
    for i in range(20):
        observed = seen(rollout, wanted, undelivered="http://sidecar: no answer")
        rollout, wanted = machine.step(rollout, PLAN, observed, i * 5.0)
        assert wanted.route.shares == ((1, 1.0),)
        assert wanted.route.mirror is None
        assert 2 in wanted.profiles
    assert (rollout.phase, rollout.reason) == ("preparing", "http://sidecar: no answer")
    rollout, wanted = machine.step(rollout, PLAN, seen(rollout, wanted, undelivered="still"), 101.0)
    assert rollout.phase == "rolling_back"
    assert "`rollout.prepare` is over: still" in rollout.reason


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"traffic": {1: Traffic(100, 0, 20.0), 2: Traffic(100, 3, 20.0)}}, "3 of 100 requests of version 2 failed"),
        ({"traffic": {1: Traffic(200, 0, 20.0), 2: Traffic(200, 0, 90.0)}}, "p99 of version 2 is 90 ms"),
        ({"performance": {2: Performance(0.60, 0.02, 500)}}, "performance did not recover"),
    ],
)
def test_a_broken_guardrail_takes_the_traffic_back_in_the_same_tick(
    strategy: Strategy, broken: dict[str, object], says: str
) -> None:
    rollout, wanted = started(strategy, expected=0.80), None
    for i in range(60):
        is_live = rollout.phase in ("observing", "watching")
        rollout, wanted = machine.step(rollout, PLAN, seen(rollout, wanted, **(broken if is_live else {})), i * 5.0)
        if is_live:
            break
    assert rollout.phase == "rolling_back"
    assert says in rollout.reason
    assert wanted is not None
    assert (wanted.servers, wanted.champion, wanted.challenger) == (frozenset({1}), 1, None)
    assert 2 not in dict(wanted.route.shares) or strategy == "recreate"
    rollout, wanted = machine.step(rollout, PLAN, seen(rollout, wanted), 500.0)
    assert (rollout.phase, wanted.route.shares) == ("rolled_back", ((1, 1.0),))


def test_a_canary_that_loses_by_live_labels_is_rolled_back() -> None:
    rollout, _, _ = follow("canary", until="observing")
    worse = {1: Performance(0.80, 0.02, 400), 2: Performance(0.65, 0.02, 400)}
    after, _ = machine.step(rollout, PLAN, Observation(1, frozenset({1, 2}), traffic=GOOD, performance=worse), 50.0)
    assert "by 400 labels of live requests version 2 has AUC 0.650, version 1 0.800" in after.reason
    few = {1: Performance(0.80, 0.02, 400), 2: Performance(0.65, 0.02, PLAN.min_labels - 1)}
    after, _ = machine.step(rollout, PLAN, Observation(1, frozenset({1, 2}), traffic=GOOD, performance=few), 50.0)
    assert after.phase == "observing"


def test_a_step_needs_its_time_and_its_requests() -> None:
    rollout, _, _ = follow("canary", until="observing")
    began_s = rollout.entered_s
    quiet = Observation(1, frozenset({1, 2}), traffic={2: Traffic(49, 0, 1.0)})
    assert machine.step(rollout, PLAN, quiet, began_s + 1000)[0].step == 0
    busy = Observation(1, frozenset({1, 2}), traffic={2: Traffic(50, 0, 1.0)})
    assert machine.step(rollout, PLAN, busy, began_s + 9.9)[0].step == 0
    assert machine.step(rollout, PLAN, busy, began_s + 10.0)[0].step == 1


def test_commands_are_obeyed() -> None:
    rollout, _, _ = follow("canary", until="observing")
    both = frozenset({1, 2})
    paused, _ = machine.step(rollout, PLAN, Observation(1, both, traffic=GOOD, command="pause"), 6.0)
    still, _ = machine.step(paused, PLAN, Observation(1, both, traffic=GOOD), 5000.0)
    assert (still.phase, still.step, still.is_paused) == ("observing", 0, True)
    broken = Observation(1, both, traffic={2: Traffic(100, 50, 1.0)})
    assert machine.step(still, PLAN, broken, 5001.0)[0].phase == "rolling_back"
    resumed, _ = machine.step(still, PLAN, Observation(1, both, traffic=GOOD, command="resume"), 5001.0)
    assert (resumed.is_paused, resumed.entered_s) == (False, 5001.0)
    promoted, wanted = machine.step(still, PLAN, Observation(1, both, command="promote"), 5001.0)
    assert (promoted.phase, wanted.champion) == ("watching", 2)
    aborted, wanted = machine.step(still, PLAN, Observation(1, both, command="abort"), 5001.0)
    assert (aborted.reason, wanted.route.shares) == ("aborted by command", ((1, 1.0),))


def test_while_the_challengers_server_is_gone_the_champion_answers_and_then_it_is_rolled_back() -> None:
    rollout, _, _ = follow("canary", until="watching")
    after, wanted = machine.step(rollout, PLAN, Observation(2, frozenset({1})), rollout.entered_s + 30)
    assert (after.phase, wanted.route.shares) == ("watching", ((1, 1.0),))
    after, _ = machine.step(after, PLAN, Observation(2, frozenset({1})), rollout.entered_s + LOST_S + 1)
    assert "was not ready for 60 s" in after.reason


def test_a_look_that_nobody_answered_takes_no_version_out_of_service() -> None:
    rollout, _, _ = follow("canary", until="observing")
    _, wanted = machine.step(rollout, PLAN, Observation(1, frozenset()), rollout.entered_s + 1)
    assert (wanted.route.shares, wanted.route.spares) == ((), (1, 2))
    _, wanted = machine.step(started("canary"), PLAN, Observation(1, frozenset()), 1.0)
    assert (wanted.route.shares, wanted.route.spares) == ((), (1,))
    rollout, _, _ = follow("recreate", until="replacing")
    _, wanted = machine.step(rollout, PLAN, Observation(1, frozenset()), rollout.entered_s + 1)
    assert (wanted.servers, wanted.route.spares) == ({2}, ())  # a server that never answered yet is not asked


def test_another_champion_meanwhile_ends_it() -> None:
    rollout, _, _ = follow("canary", until="observing")
    after, _ = machine.step(rollout, PLAN, Observation(3, frozenset({1, 2})), 50.0)
    assert (after.phase, after.reason) == ("rolling_back", "version 3 became champion meanwhile")


VERSIONS = st.sampled_from([1, 2, 3])
OBSERVATIONS = st.builds(
    Observation,
    champion=st.sampled_from([1, 1, 2, 2, 3, None]),
    ready=st.frozensets(st.sampled_from([1, 2])),
    undelivered=st.sampled_from(["", "", "no answer"]),
    traffic=st.dictionaries(VERSIONS, st.builds(Traffic, st.integers(0, 500), st.integers(0, 20), st.floats(0, 500))),
    performance=st.dictionaries(
        VERSIONS, st.builds(Performance, st.floats(0, 1), st.floats(0, 0.1), st.integers(0, 900))
    ),
    command=st.sampled_from([None, None, None, "pause", "resume", "promote", "abort"]),
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(STRATEGIES), st.lists(st.tuples(OBSERVATIONS, st.floats(0, 40)), max_size=15))
def test_whatever_is_seen(strategy: Strategy, ticks: list[tuple[Observation, float]]) -> None:
    rollout, now_s = started(strategy, expected=0.8), 0.0
    for observed, later_s in ticks:
        now_s += later_s
        before = rollout
        rollout, wanted = machine.step(rollout, PLAN, observed, now_s)
        shares = dict(wanted.route.shares)
        assert not shares or sum(shares.values()) == pytest.approx(1)
        assert shares.keys() <= {1, 2} & observed.ready
        assert wanted.champion in (1, 2)
        assert wanted.servers
        assert shares.keys() <= wanted.servers
        assert set(wanted.route.spares) <= wanted.servers - shares.keys()
        assert wanted.route.mirror in (None, 2)
        if rollout.phase in ("preparing", "rolling_back", "rolled_back") or (before.phase == "preparing" and shares):
            assert wanted.champion == (2 if rollout.phase in ("watching", "promoted") else 1)
        if before.phase == "preparing" and observed.undelivered:
            assert 2 not in {*shares, *wanted.route.spares, wanted.route.mirror}
        if before.phase in ENDED:
            assert rollout == before
        if rollout.phase == "promoted" and before.phase != "promoted":
            assert observed.champion == 2
        if rollout.phase == "rolled_back" and before.phase != "rolled_back":
            assert observed.champion == 1
        again, wanted_again = (
            machine.step(rollout, PLAN, observed, now_s) if rollout.phase in ENDED else (rollout, wanted)
        )
        assert (again, wanted_again) == (rollout, wanted)


def test_a_command_that_comes_while_a_tick_is_kept_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "modelops.db"
    database = connect(path)
    rollouts = Rollouts(database, path)
    rollout = started("canary")
    rollouts.add(rollout)
    rollouts.command("m", "pause")
    seen_before, command = rollouts.open("m") or (rollout, None)
    rollouts.command("m", "abort")
    rollouts.save(seen_before, command)
    assert rollouts.open("m") == (rollout, "abort")
    rollouts.save(rollout, "abort")
    assert rollouts.open("m") == (rollout, None)
    database.close()

"""Alarms of several versions of one model: each its own, and superseded by one that is ok."""

import json
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from test_policy import FLOORS, HOUR, JUDGEMENTS, a_policy, a_window, transitions

from driftwatch.alarms import MAX_VERSIONS, PolicyState
from driftwatch.decision import AlarmLine, Decision, encode
from driftwatch.policy import Policy


def judge_all(policy: Policy, steps: Sequence[tuple[int, str, str]]) -> list[Decision]:
    """From (hour, version, verdict)."""
    state, decisions = PolicyState(), []
    for i, version, verdict in steps:
        decision, state = policy.judge(a_window(i, version), JUDGEMENTS[verdict], state)
        state = PolicyState.from_bytes(state.to_bytes())
        decisions.append(decision)
    return decisions


def alarms_of(decisions: Sequence[Decision], version: str) -> list[tuple[int, AlarmLine]]:
    return [(i, a) for i, d in enumerate(decisions) for a in d.alarms if (a.version or d.window.version) == version]


def test_versions_open_alarms_of_their_own() -> None:
    decisions = judge_all(a_policy(1, 1, 0.0, FLOORS), [(0, "3", "drift"), (0, "4", "drift"), (1, "3", "drift")])
    assert transitions(decisions) == ["opened", "opened", "continuing"]
    assert decisions[0].alarms[0].id != decisions[1].alarms[0].id


def test_an_alarm_of_a_replaced_version_is_superseded_in_a_window_of_the_new_one() -> None:
    decisions = judge_all(
        a_policy(2, 5, 0.0, FLOORS), [(i, "3", "drift") for i in range(2)] + [(i, "4", "ok") for i in range(2, 9)]
    )
    (_, opened), (at, resolved) = alarms_of(decisions, "3")
    assert (at, decisions[at].window.version) == (6, "4")
    assert (resolved.id, resolved.transition, resolved.version, resolved.reason) == (
        *(opened.id, "resolved", "3", "superseded"),
    )
    shown = json.loads(encode(decisions[at]))["alarms"][0]
    assert (shown["version"], shown["reason"]) == ("3", "superseded")


def test_a_version_that_still_has_rows_is_not_superseded() -> None:
    steps = [(0, "9", "drift")]
    for i in range(1, 9):
        steps += [(i, "10", "ok"), (i, "9", "undetermined")]
    assert all(a.reason is None for _, a in alarms_of(judge_all(a_policy(1, 1, 0.0, FLOORS), steps), "9"))


def test_a_new_version_that_drifts_supersedes_nothing_until_it_is_ok_in_a_row() -> None:
    verdicts = ["ok", "ok", "drift", "ok", "undetermined", "ok", "ok"]
    steps = [(0, "3", "drift"), *((i + 1, "4", v) for i, v in enumerate(verdicts))]
    alarms = alarms_of(judge_all(a_policy(1, 1, 0.0, FLOORS), steps), "3")
    assert [at for at, a in alarms if a.reason == "superseded"] == [7]


def test_windows_from_before_the_last_rows_of_a_version_supersede_nothing() -> None:
    steps = [(9, "3", "drift"), *((i, "4", "ok") for i in range(9))]
    assert len(alarms_of(judge_all(a_policy(1, 1, 0.0, FLOORS), steps), "3")) == 1


def test_a_version_that_comes_back_begins_with_an_empty_history() -> None:
    steps = [
        (0, "3", "drift"),
        (1, "3", "drift"),
        *((i, "4", "ok") for i in range(2, 7)),
        (7, "3", "drift"),
        (8, "3", "drift"),
    ]
    decisions = judge_all(a_policy(2, 5, 0.0, FLOORS), steps)
    assert transitions(decisions)[-2:] == ["", "opened"]


def test_the_memory_of_versions_is_bounded_and_keeps_open_alarms() -> None:
    steps = [
        (0, "first", "drift"),
        *((i, f"v{i}", "drift" if i == 1 else "undetermined") for i in range(1, 2 * MAX_VERSIONS)),
    ]
    policy, state = a_policy(1, 1, 0.0, FLOORS), PolicyState()
    for i, version, verdict in steps:
        _, state = policy.judge(a_window(i, version), JUDGEMENTS[verdict], state)
    assert len(state.streams) == MAX_VERSIONS
    assert {"first", "v1", f"v{2 * MAX_VERSIONS - 1}"} <= set(state.streams)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from("34"), st.sampled_from(["drift", "ok", "undetermined"])),
        max_size=25,
    ),
    st.integers(0, 25),
)
def test_a_state_read_back_from_bytes_decides_the_same(steps: list[tuple[int, str, str]], at: int) -> None:
    policy, kept, state = a_policy(1, 2, HOUR, FLOORS), PolicyState(), PolicyState()
    for j, (i, version, verdict) in enumerate(sorted(steps)):
        if j == at:
            state = PolicyState.from_bytes(state.to_bytes())
        one, kept = policy.judge(a_window(i, version), JUDGEMENTS[verdict], kept)
        other, state = policy.judge(a_window(i, version), JUDGEMENTS[verdict], state)
        assert encode(one) == encode(other)
    assert kept == state

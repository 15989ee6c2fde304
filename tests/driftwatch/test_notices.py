"""Webhooks of a decision: which are told, and what they say."""

import json

import msgspec
from test_policy import FLOORS, a_policy, run
from test_versions import judge_all

from driftwatch.decision import encode
from driftwatch.notices import webhooks


def test_an_opened_and_a_resolved_alarm_are_told_and_a_continuing_one_is_not() -> None:
    decisions = run(a_policy(1, 1, 0.0, FLOORS), ["drift", "drift", "ok", "ok", "ok"])
    told = [hook for decision in decisions for hook in webhooks(decision, ["*.opened", "*.resolved"])]
    alarm = decisions[0].alarms[0].id
    assert [(hook.type, hook.id) for hook in told] == [
        ("driftwatch.drift.opened", f"{alarm}:opened"),
        ("driftwatch.drift.resolved", f"{alarm}:resolved"),
    ]
    assert "." not in told[0].id


def test_on_chooses_by_glob_over_the_type_without_its_first_word() -> None:
    decision = run(a_policy(1, 1, 0.0, FLOORS), ["drift"])[0]
    assert [
        len(webhooks(decision, on)) for on in (["drift.*"], ["*.resolved"], ["driftwatch.*"], [], ["*", "*.opened"])
    ] == [*(1, 0, 0, 0, 1)]


def test_a_webhook_says_what_drifted_since_when_and_what_to_do() -> None:
    decision = run(a_policy(1, 1, 0.0, FLOORS), ["drift"])[0]
    told = json.loads(msgspec.json.encode(webhooks(decision, ["*"])[0].data))
    shown = json.loads(encode(decision))
    assert told == {
        **{"model": "credit", "version": "3", "window": shown["window"], "transition": "opened"},
        **{"kind": "covariate", "pattern": None, "started_at": "1970-01-01T00:00:00Z"},
        **{"features": shown["alarms"][0]["features"], "evidence": ["`age` moved"], "suggestion": "watch", "links": {}},
    }


def test_a_webhook_of_a_superseded_alarm_names_its_own_version() -> None:
    steps = [(0, "3", "drift"), *((i, "4", "ok") for i in range(1, 4))]
    data = webhooks(judge_all(a_policy(1, 1, 0.0, FLOORS), steps)[-1], ["*.resolved"])[0].data
    assert (data["version"], data["reason"]) == ("3", "superseded")

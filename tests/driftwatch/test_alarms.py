"""Alarms by class: which one a kind opens, and what later judgements make of it."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from detectors.performance.kind import Kind
from detectors.score import Score
from detectors.summary import Table
from driftwatch.alarms import Persistence, PolicyState
from driftwatch.decision import Decision, decode, encode
from driftwatch.notices import webhooks
from driftwatch.policy import Policy
from driftwatch.records import Judgement, Stream, Window

HOUR = 3600.0
COVARIATE = Kind("covariate", ("`age` moved",), "watch")
PRIOR = Kind("prior", ("more labels are 1",), "recalibrate")
CONCEPT = Kind("concept", ("the loss rose",), "retrain")
BROKEN = Kind("data_quality", ("a third of `age` is missing",), "fix_the_pipeline")

Step = tuple[int, int, Kind | str]
"""Hour, revision, and the kind of a drift, else "ok" or "undetermined"."""


def judged(what: Kind | str, feature: str) -> Judgement:
    term = 20.0 if isinstance(what, Kind) else 1.0
    score = Score("ks", 0.5, 1e-6, 0.3, 20_000, 1000, feature)
    reason = "too_few_records" if what == "undetermined" else None
    kind = what if isinstance(what, Kind) else None
    return Judgement((score,), (term,), 0.5, 8.0, 6.0, reason, kind=kind)


def run(
    steps: Sequence[Step], k: int = 1, n: int = 1, cooldown_s: float = 0.0, late: str = "loss", n_losses: int = 0
) -> list[Decision]:
    """The decisions, each read back from its bytes, the memory too. `late`: what drifts in second judgements after the
    first `n_losses` hours; the loss does before.
    """
    policy, state, found = Policy(Persistence(k, n, cooldown_s), {}), PolicyState(), []
    for i, revision, what in steps:
        table = Table(np.zeros(1, np.int64), np.zeros(0))
        window = Window(
            Stream("credit", "3"), i * HOUR, (i + 1) * HOUR, 1000, table, "", revision=revision, n_labels=1000
        )
        feature = "age" if not revision else late if i >= n_losses else "loss"
        decision, state = policy.judge(window, judged(what, feature), state)
        assert decode(encode(decision)) == decision
        assert PolicyState.from_bytes(state.to_bytes()) == state
        found.append(decision)
    return found


def told(decisions: Sequence[Decision]) -> list[str]:
    """What happened in each: class, transition and kind."""
    return [", ".join(f"{a.of_class} {a.transition} {a.kind}" for a in d.alarms) for d in decisions]


@pytest.mark.parametrize(
    ("revision", "kind", "of_class"),
    [
        (0, COVARIATE, "drift"),
        (0, PRIOR, "drift"),
        (0, BROKEN, "data_quality"),
        (1, CONCEPT, "performance"),
        (1, COVARIATE, "performance"),
        (1, BROKEN, "performance"),
    ],
)
def test_the_kind_and_the_judgement_say_which_class_opens(revision: int, kind: Kind, of_class: str) -> None:
    (decision,) = run([(0, revision, kind)])
    (alarm,) = decision.alarms
    assert (alarm.of_class, alarm.transition, alarm.kind) == (of_class, "opened", kind.kind)
    assert (alarm.evidence, alarm.suggestion) == (kind.evidence, kind.suggestion)
    (hook,) = webhooks(decision, ["*.opened"])
    assert (hook.type, hook.id) == (f"driftwatch.{of_class}.opened", f"{alarm.id}:opened")
    assert (hook.data["kind"], hook.data["evidence"]) == (kind.kind, list(kind.evidence))
    shown = json.loads(encode(decision))["alarms"][0]
    assert (shown["class"], shown["suggestion"]) == (of_class, kind.suggestion)


def test_classes_have_alarms_and_ids_of_their_own() -> None:
    steps: list[Step] = [(0, 0, BROKEN), (0, 1, CONCEPT), (1, 0, COVARIATE), (2, 0, "ok"), (3, 0, "ok"), (4, 0, "ok")]
    decisions = run(steps)
    assert told(decisions) == [
        "data_quality opened data_quality",
        "performance opened concept",
        "drift opened covariate, data_quality continuing data_quality",
        "drift continuing covariate, data_quality continuing data_quality",
        "drift continuing covariate, data_quality resolved data_quality",
        "drift resolved covariate",
    ]
    assert len({a.id for d in decisions for a in d.alarms}) == 3


def test_until_an_alarm_is_open_drifts_of_either_class_count() -> None:
    found = told(run([(0, 0, COVARIATE), (1, 0, BROKEN), (2, 0, COVARIATE), (3, 0, "ok"), (4, 0, COVARIATE)], k=2, n=3))
    assert found == [
        "",
        "data_quality opened data_quality",
        "drift opened covariate, data_quality continuing data_quality",
        "drift continuing covariate, data_quality continuing data_quality",
        "drift continuing covariate, data_quality resolved data_quality",
    ]


def test_beside_an_open_alarm_another_class_needs_drifts_of_its_own() -> None:
    found = told(run([(0, 0, COVARIATE), (1, 0, COVARIATE), (2, 0, BROKEN), (3, 0, BROKEN)], k=2, n=3))
    assert found[1:] == [
        "drift opened covariate",
        "drift continuing covariate",
        "drift continuing covariate, data_quality opened data_quality",
    ]


def test_first_judgements_do_not_change_the_kind_of_an_open_alarm() -> None:
    assert told(run([(0, 0, COVARIATE), (1, 0, PRIOR)]))[-1] == "drift continuing covariate"


def test_labels_change_the_kind_of_the_alarm_that_the_first_judgement_opened() -> None:
    decisions = run([(0, 0, COVARIATE), (1, 0, COVARIATE), (0, 1, CONCEPT), (1, 1, CONCEPT), (2, 0, COVARIATE)])
    assert told(decisions)[2:] == [
        "performance opened concept, drift updated concept",
        "performance continuing concept",
        "drift continuing concept",
    ]
    updated = decisions[2].alarms[1]
    assert (updated.id, updated.evidence, updated.suggestion) == (
        *(decisions[0].alarms[0].id, CONCEPT.evidence, "retrain"),
    )
    assert webhooks(decisions[2], ["*.opened"])[0].type == "driftwatch.performance.opened"
    (hook,) = webhooks(decisions[2], ["drift.updated"])
    assert hook.id == f"{updated.id}:updated"


def test_a_window_in_which_little_of_a_concept_drift_is_seen_does_not_take_it_back() -> None:
    with_loss = Kind("covariate", ("`age` moved", "the loss rose"), "retrain")
    prior = Kind("prior", ("40 % of the labels are 1",), "recalibrate")
    found = told(run([(0, 0, COVARIATE), (0, 1, CONCEPT), (1, 0, COVARIATE), (1, 1, with_loss), (2, 1, prior)]))
    assert found[1:] == [
        "performance opened concept, drift updated concept",
        "drift continuing concept",
        "performance continuing concept",
        "performance continuing concept",
    ]


def test_labels_of_the_same_window_change_the_evidence_once() -> None:
    with_loss = Kind("covariate", ("`age` moved", "the loss rose"), "retrain")
    found = told(run([(0, 0, COVARIATE), (0, 1, with_loss), (1, 0, COVARIATE), (1, 1, COVARIATE)]))
    assert found[1:] == [
        "performance opened covariate, drift updated covariate",
        "drift continuing covariate",
        "performance continuing covariate",
    ]


def test_every_update_has_an_id_of_its_own() -> None:
    steps: list[Step] = [
        (i, r, k) for i, k in enumerate([PRIOR, COVARIATE, CONCEPT]) for r, k in ((0, COVARIATE), (1, k))
    ]
    decisions = run(steps)
    ids = [hook.id for d in decisions for hook in webhooks(d, ["*.updated"])]
    drift, performance = (
        next(a.id for d in decisions for a in d.alarms if a.of_class == c) for c in ("drift", "performance")
    )
    assert ids == [
        f"{drift}:updated",
        f"{performance}:updated",
        f"{drift}:updated:2",
        f"{performance}:updated:2",
        f"{drift}:updated:3",
    ]


def test_labels_of_windows_before_an_alarm_do_not_change_it() -> None:
    found = told(run([(3, 0, COVARIATE), (2, 1, CONCEPT), (3, 1, "ok"), (4, 1, "undetermined")]))
    assert found[1:] == [
        "performance opened concept",
        "performance continuing concept",
        "performance continuing concept",
    ]


def test_labels_that_find_a_fault_leave_an_alarm_of_class_drift_as_it_is() -> None:
    found = told(run([(0, 0, COVARIATE), (0, 1, BROKEN)]))
    assert found[1] == "performance opened data_quality"


def test_the_cool_down_is_the_class_s_own() -> None:
    calm: list[Step] = [(i, 0, "ok") for i in range(1, 4)]
    found = told(run([(0, 0, BROKEN), *calm, (4, 0, BROKEN), (5, 0, COVARIATE)], cooldown_s=9 * HOUR))
    assert found[3:] == ["data_quality resolved data_quality", "", "drift opened covariate"]


def test_a_drift_without_a_kind_is_refused() -> None:
    score = Score("ks", 0.5, 1e-6, 0.3, 20_000, 1000, "age")
    window = Window(Stream("credit", "3"), 0.0, HOUR, 1000, Table(np.zeros(1, np.int64), np.zeros(0)), "")
    with pytest.raises(ValueError, match="must say of which kind its drift is; got None"):
        Policy(Persistence(1, 1, 0.0), {}).judge(window, Judgement((score,), (20.0,), 0.5, 8.0, 6.0), PolicyState())


def test_a_kind_without_a_sentence_has_the_loudest_score_as_its_evidence() -> None:
    pair = Score("correlation", 9.0, 1e-6, 0.31, 20_000, 1000, None, detail="age ~ income")
    judgement = Judgement((pair,), (20.0,), 0.5, 8.0, 6.0, kind=Kind("covariate", (), "watch"))
    window = Window(Stream("credit", "3"), 0.0, HOUR, 1000, Table(np.zeros(1, np.int64), np.zeros(0)), "")
    decision, _ = Policy(Persistence(1, 1, 0.0), {}).judge(window, judgement, PolicyState())
    (said,) = decision.alarms[0].evidence
    assert said.endswith("correlation of age ~ income changed, by 0.31")


def test_where_only_the_labels_moved_the_alarm_that_is_open_says_so_and_none_opens() -> None:
    steps: list[Step] = [(0, 0, COVARIATE), (0, 1, PRIOR), (1, 0, COVARIATE), (1, 1, PRIOR)]
    found = run(steps, late="defaulted")
    assert told(found) == ["drift opened covariate", "drift updated prior", "drift continuing prior", ""]
    assert [d.verdict for d in found] == ["drift"] * 4
    assert found[1].caution == ("defaulted",)


def test_labels_that_moved_alone_open_an_alarm_where_none_is_open() -> None:
    found = run([(0, 0, "ok"), (0, 1, PRIOR), (1, 0, COVARIATE)], late="defaulted")
    assert told(found) == ["", "performance opened prior", "drift opened covariate"]


def test_an_alarm_of_the_loss_ends_while_the_labels_stay_moved() -> None:
    steps: list[Step] = [(0, 0, COVARIATE), (0, 1, CONCEPT)]
    for i in range(1, 4):
        steps += [(i, 0, COVARIATE), (i, 1, PRIOR)]
    found = run(steps, late="defaulted", n_losses=1)
    lines = [a.transition for d in found for a in d.alarms if a.of_class == "performance"]
    assert lines == ["opened", "continuing", "continuing", "resolved"]

"""The policy against plain models of its rules: floors, `for`, cool-down, alarm ids."""

import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.openings import count_openings
from detectors.performance.kind import Kind
from detectors.score import Score
from detectors.summary import Table
from driftwatch.alarms import Persistence, PolicyState, alarm_id
from driftwatch.decision import Decision, encode
from driftwatch.policy import Policy
from driftwatch.records import Judgement, Shard, Stream, Window

THRESHOLD, CAUTION = 8.0, 6.0
FLOORS = {"ks": 0.02, "missing": 0.005, "mmd": 0.02}
HOUR = 3600.0


MOVED = Kind("covariate", ("`age` moved",), "watch")


def a_policy(k: int, n: int, cooldown_s: float, floors: dict[str, float]) -> Policy:
    return Policy(Persistence(k, n, cooldown_s), floors)


def a_window(i: int, version: str = "3", *, part: int = 1, partial: bool = False) -> Window:
    table = Table(np.zeros(1, np.int64), np.zeros(0))
    return Window(Stream("credit", version), i * HOUR, (i + 1) * HOUR, 1000, table, "", part, partial)


def a_score(feature: str | None, detector: str, effect: float | None, **changes: object) -> Score:
    fields: dict[str, object] = {"statistic": 0.5, "p_value": 1e-6, "n_reference": 20_000, "n_current": 1000}
    return Score(detector=detector, feature=feature, effect=effect, **{**fields, **changes})


def judged(*scores: tuple[str | None, str, float, float], reason: str | None = None) -> Judgement:
    """From (feature, detector, effect, term)."""
    return Judgement(
        scores=tuple(a_score(feature, detector, effect) for feature, detector, effect, _ in scores),
        terms=tuple(term for *_, term in scores),
        p_value=0.5,
        threshold=THRESHOLD,
        caution_threshold=CAUTION,
        reason=reason,
        kind=MOVED,
    )


JUDGEMENTS = {
    "drift": judged(("age", "ks", 0.3, 20.0)),
    "ok": judged(("age", "ks", 0.3, 1.0)),
    "undetermined": judged(("age", "ks", 0.3, 20.0), reason="too_few_records"),
}


def run(policy: Policy, verdicts: Sequence[str], version: str = "3") -> list[Decision]:
    state, decisions = PolicyState(), []
    for i, verdict in enumerate(verdicts):
        decision, state = policy.judge(a_window(i, version), JUDGEMENTS[verdict], state)
        assert decision.verdict == verdict
        decisions.append(decision)
    return decisions


def transitions(decisions: Sequence[Decision]) -> list[str]:
    return [" ".join(alarm.transition for alarm in decision.alarms) for decision in decisions]


# What counts as drift


@pytest.mark.parametrize(
    ("effect", "term", "verdict"), [(0.3, 20.0, "drift"), (0.019, 20.0, "ok"), (0.3, 8.0, "ok"), (0.02, 8.1, "drift")]
)
def test_a_window_drifts_only_over_the_threshold_and_at_a_floor(effect: float, term: float, verdict: str) -> None:
    decision, _ = a_policy(1, 1, 0.0, FLOORS).judge(a_window(0), judged(("age", "ks", effect, term)), PolicyState())
    assert decision.verdict == verdict
    assert decision.scores[0].verdict == verdict


def test_one_effect_at_its_floor_lets_any_score_of_the_feature_count() -> None:
    judgement = judged(("age", "location", 0.4, 20.0), ("age", "ks", 0.02, 2.0), ("income", "location", 9.0, 20.0))
    decision, _ = a_policy(1, 1, 0.0, FLOORS).judge(a_window(0), judgement, PolicyState())
    assert [s.verdict for s in decision.scores] == ["drift", "ok", "ok"]


def test_without_floors_every_feature_counts() -> None:
    judgement = judged(("age", "location", 0.0, 20.0))
    decision, _ = a_policy(1, 1, 0.0, {}).judge(a_window(0), judgement, PolicyState())
    assert decision.verdict == "drift"


def test_a_fall_of_a_share_reaches_the_floor_as_a_rise_does() -> None:
    decision, _ = a_policy(1, 1, 0.0, FLOORS).judge(a_window(0), judged(("age", "missing", -0.2, 20.0)), PolicyState())
    assert decision.verdict == "drift"


def test_a_floor_of_zero_is_reached_by_no_change_at_all_but_not_by_nan() -> None:
    policy = a_policy(1, 1, 0.0, {"ks": 0.0})
    assert policy.judge(a_window(0), judged(("age", "ks", 0.0, 20.0)), PolicyState())[0].verdict == "drift"
    assert policy.judge(a_window(0), judged(("age", "ks", math.nan, 20.0)), PolicyState())[0].verdict == "ok"


def test_a_score_of_several_features_stands_under_a_star_with_its_detail() -> None:
    score = a_score(None, "mmd", 0.1, detail="age, income")
    psi = a_score("age", "psi", 0.1, detail="caution")
    judgement = Judgement((score, psi), (20.0, 1.0), 0.1, THRESHOLD, CAUTION, kind=MOVED)
    decision, _ = a_policy(1, 1, 0.0, FLOORS).judge(a_window(0), judgement, PolicyState())
    assert [(s.feature, s.detail, s.band) for s in decision.scores] == [
        ("*", "age, income", None),
        ("age", None, "caution"),
    ]


def test_an_undetermined_window_keeps_each_scores_own_reason() -> None:
    scores = (a_score("age", "ks", None, reason="constant"), a_score("income", "ks", 0.5))
    judgement = Judgement(scores, (-math.inf, 20.0), None, None, None, "too_few_records")
    decision, _ = a_policy(1, 1, 0.0, FLOORS).judge(a_window(0), judgement, PolicyState())
    assert (decision.verdict, decision.reason, decision.caution) == ("undetermined", "too_few_records", ())
    assert [(s.verdict, s.reason) for s in decision.scores] == [
        ("undetermined", "constant"),
        ("undetermined", "too_few_records"),
    ]


def test_a_judgement_without_a_threshold_is_never_ok() -> None:
    judgement = Judgement((a_score("age", "ks", 0.3),), (20.0,), None, None, None)
    decision, _ = a_policy(1, 1, 0.0, {}).judge(a_window(0), judgement, PolicyState())
    assert (decision.verdict, decision.reason) == ("undetermined", "no_threshold")


def test_a_score_that_could_not_be_computed_is_undetermined_in_a_determined_window() -> None:
    scores = (a_score("age", "ks", None, reason="constant"), a_score("income", "ks", 0.5))
    decision, _ = a_policy(1, 1, 0.0, FLOORS).judge(
        a_window(0), Judgement(scores, (-math.inf, 1.0), 0.5, THRESHOLD, CAUTION), PolicyState()
    )
    assert decision.verdict == "ok"
    assert [s.verdict for s in decision.scores] == ["undetermined", "ok"]


def test_quality_lines_carry_the_verdict_of_their_score() -> None:
    judgement = Judgement(
        scores=(a_score("age", "missing", 0.3), a_score("age", "invalid", 0.0)),
        terms=(20.0, 0.0),
        p_value=1e-6,
        threshold=THRESHOLD,
        caution_threshold=CAUTION,
        quality=(("age", "missing", 0.31, 0.01), ("age", "invalid", 0.0, 0.0), ("region", "unseen", 0.1, 0.0)),
        kind=MOVED,
    )
    decision, _ = a_policy(1, 1, 0.0, FLOORS).judge(a_window(0), judgement, PolicyState())
    assert [(q.feature, q.check, q.value, q.reference, q.verdict) for q in decision.quality] == [
        ("age", "missing", 0.31, 0.01, "drift"),
        ("age", "invalid", 0.0, 0.0, "ok"),
        ("region", "unseen", 0.1, 0.0, "undetermined"),
    ]


def test_the_window_is_shown_with_its_part_share_and_times() -> None:
    window = Window(
        *(Stream("credit", "3"), 0.0, 300.5, 7, Table(np.zeros(1, np.int64), np.zeros(0)), "", 2, True),
        share=((Shard("p/0"),), 4),
    )
    shown = json.loads(encode(a_policy(1, 1, 0.0, FLOORS).judge(window, JUDGEMENTS["ok"], PolicyState())[0]))
    assert shown["window"] == {
        **{"model": "credit", "version": "3", "segment": None, "n_records": 7},
        **{"start": "1970-01-01T00:00:00Z", "end": "1970-01-01T00:05:00.500000Z"},
    }
    assert (shown["part"], shown["partial"], shown["share"]) == (2, True, {"shards": ["p/0"], "of": 4})


# Caution and the features of an alarm


def test_caution_names_what_is_near_the_threshold_and_over_a_floor_by_falling_term() -> None:
    judgement = judged(("a", "ks", 0.3, 6.5), ("b", "ks", 0.3, 7.5), ("c", "ks", 0.001, 7.7), ("d", "ks", 0.3, 6.0))
    decision, _ = a_policy(1, 1, 0.0, FLOORS).judge(a_window(0), judgement, PolicyState())
    assert decision.caution == ("b", "a")
    assert decision.verdict == "ok"


def test_caution_names_what_drifts_until_for_is_met() -> None:
    decisions = run(a_policy(2, 3, 0.0, FLOORS), ["drift", "drift"])
    assert [d.caution for d in decisions] == [("age",), ()]
    assert transitions(decisions) == ["", "opened"]


def test_an_alarm_names_the_drifting_then_the_near_features_with_their_contributions() -> None:
    judgement = judged(
        *(("near", "ks", 0.3, 7.0), ("second", "location", 0.3, 9.0), ("second", "ks", 0.1, 3.0)),
        *(("first", "ks", 0.06, 12.0), ("none", "ks", 0.3, 1.0)),
    )
    decision, _ = a_policy(1, 1, 0.0, FLOORS).judge(a_window(0), judgement, PolicyState())
    features = decision.alarms[0].features
    assert [(f.feature, f.detector) for f in features] == [("first", "ks"), ("second", "location"), ("near", "ks")]
    assert [f.contribution for f in features] == pytest.approx([12 / 28, 9 / 28, 7 / 28])
    assert [f.severity for f in features] == pytest.approx([3.0, 5.0, 15.0])
    assert decision.caution == ("near",)


def test_an_alarm_names_at_most_twenty_features() -> None:
    judgement = judged(*((f"f{i}", "ks", 0.3, 10.0 + i) for i in range(30)))
    decision, _ = a_policy(1, 1, 0.0, FLOORS).judge(a_window(0), judgement, PolicyState())
    assert [f.feature for f in decision.alarms[0].features] == [f"f{i}" for i in range(29, 9, -1)]
    assert sum(f.contribution or 0 for f in decision.alarms[0].features) == pytest.approx(1)


def test_a_term_beyond_all_numbers_still_gives_contributions() -> None:
    judgement = judged(("age", "ks", 0.3, math.inf), ("income", "ks", 0.3, math.inf))
    decision, _ = a_policy(1, 1, 0.0, FLOORS).judge(a_window(0), judgement, PolicyState())
    assert [f.contribution for f in decision.alarms[0].features] == [0.5, 0.5]


# When alarms open and resolve


def test_a_drift_opens_one_alarm_and_three_calm_windows_resolve_it() -> None:
    decisions = run(a_policy(1, 1, 0.0, FLOORS), ["ok", "drift", "drift", "ok", "ok", "drift", "ok", "ok", "ok", "ok"])
    assert transitions(decisions) == ["", "opened", *["continuing"] * 6, "resolved", ""]
    assert len({alarm.id for decision in decisions for alarm in decision.alarms}) == 1


def test_an_undetermined_window_neither_opens_nor_resolves() -> None:
    verdicts = ["drift", "undetermined", "ok", "undetermined", "ok", "undetermined", "undetermined", "ok"]
    decisions = run(a_policy(1, 1, 0.0, FLOORS), verdicts)
    assert transitions(decisions) == ["opened", *["continuing"] * 6, "resolved"]


def test_an_alarm_began_with_the_first_drifting_window_that_opened_it() -> None:
    decisions = run(a_policy(2, 3, 0.0, FLOORS), ["drift", "ok", "ok", "drift", "ok", "drift"])
    assert transitions(decisions)[-1] == "opened"
    assert decisions[-1].alarms[0].started_at == "1970-01-01T03:00:00Z"


def test_no_alarm_opens_during_the_cool_down_and_drift_is_shown_as_caution() -> None:
    verdicts = ["drift", "ok", "ok", "ok", "drift", "drift", "drift"]
    decisions = run(a_policy(1, 1, 2 * HOUR, FLOORS), verdicts)
    assert transitions(decisions) == ["opened", "continuing", "continuing", "resolved", "", "opened", "continuing"]
    assert decisions[4].caution == ("age",)


def test_an_ok_window_after_the_cool_down_opens_nothing_for_the_drift_within_it() -> None:
    verdicts = [*["drift"] * 2, *["ok"] * 3, *["drift"] * 2, "ok", "ok", "ok"]
    assert transitions(run(a_policy(2, 3, 3 * HOUR, FLOORS), verdicts))[5:] == ["", "", "", "", ""]


def test_a_continuing_alarm_names_the_features_of_the_last_window_that_drifted() -> None:
    policy, state = a_policy(1, 1, 0.0, FLOORS), PolicyState()
    _, state = policy.judge(a_window(0), JUDGEMENTS["drift"], state)
    moved, state = policy.judge(a_window(1), judged(("income", "ks", 0.3, 20.0)), state)
    calm, state = policy.judge(a_window(2), JUDGEMENTS["ok"], state)
    assert [f.feature for f in moved.alarms[0].features] == ["income"]
    assert calm.alarms[0].features == moved.alarms[0].features


def plain_transitions(verdicts: Sequence[str], k: int, n: int, cooldown: int) -> list[str]:
    """The rules read one by one from the text, over the whole history each time."""
    told, determined, opened_at, resolved_at = [], [], None, None
    for i, verdict in enumerate(verdicts):
        if verdict != "undetermined":
            determined.append(verdict)
        calm_needed = max(n, 3)
        if opened_at is not None:
            is_calm = verdict == "ok" and len(determined) - opened_at > calm_needed - 1
            is_calm = is_calm and determined[-calm_needed:] == ["ok"] * calm_needed
            told.append("resolved" if is_calm else "continuing")
            if is_calm:
                opened_at, resolved_at = None, i
        elif verdict == "drift" and determined[-n:].count("drift") >= k:
            is_cooling = resolved_at is not None and i - resolved_at < cooldown
            told.append("" if is_cooling else "opened")
            opened_at = None if is_cooling else len(determined)
        else:
            told.append("")
    return told


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(["drift", "ok", "ok", "undetermined"]), max_size=30),
    st.integers(1, 5).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))),
    st.integers(0, 6),
)
def test_alarms_follow_the_rules_as_they_are_written(
    verdicts: list[str], k_of_n: tuple[int, int], cooldown: int
) -> None:
    k, n = k_of_n
    decisions = run(a_policy(k, n, cooldown * HOUR, FLOORS), verdicts)
    assert transitions(decisions) == plain_transitions(verdicts, k, n, cooldown)


@settings(max_examples=100)
@given(
    st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=4),
    st.integers(1, 5).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))),
)
def test_the_simulated_count_of_openings_is_the_policys(runs: list[list[bool]], k_of_n: tuple[int, int]) -> None:
    k, n = k_of_n
    policy = a_policy(k, n, 0.0, FLOORS)
    counted = [transitions(run(policy, ["drift" if x else "ok" for x in xs])).count("opened") for xs in runs]
    assert count_openings(np.array(runs), k, n).tolist() == counted


def test_openings_are_counted_over_any_leading_axes() -> None:
    exceeds = np.random.default_rng(7).random((3, 4, 50)) < 0.3
    counted = count_openings(exceeds, 2, 4)
    assert counted.shape == (3, 4)
    assert counted.tolist() == [[int(count_openings(run, 2, 4)) for run in runs] for runs in exceeds]


def test_a_for_that_can_never_be_met_is_refused() -> None:
    with pytest.raises(ValueError, match="`for` must be `k of n` with 1 ≤ k ≤ n; got 3 of 2"):
        a_policy(3, 2, 0.0, FLOORS)
    with pytest.raises(ValueError, match="`k` must lie in 1 … `n`; got k=3, n=2"):
        count_openings(np.zeros((1, 1), bool), 3, 2)


# Ids


def test_an_alarm_id_is_the_hash_that_the_docstring_names() -> None:
    decision = run(a_policy(1, 1, 0.0, FLOORS), ["drift"])[0]
    text = "credit\n3\n\ndrift\n1970-01-01T00:00:00Z\n1970-01-01T01:00:00Z"
    assert decision.alarms[0].id == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert alarm_id(decision.window, 2) == hashlib.sha256((text + "\n2").encode()).hexdigest()[:16]


def test_two_members_that_open_in_one_window_give_one_id() -> None:
    policy = a_policy(1, 1, 0.0, FLOORS)
    other = Window(Stream("credit", "3"), 0.0, HOUR, 50, a_window(0).table, "", share=((Shard("p/1"),), 2))
    ids = {policy.judge(w, JUDGEMENTS["drift"], PolicyState())[0].alarms[0].id for w in (a_window(0), other)}
    assert len(ids) == 1

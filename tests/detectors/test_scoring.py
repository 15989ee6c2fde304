"""Windows against a profile: the right feature leads, and nothing is ok by accident."""

from typing import Any

import numpy as np
import pytest
from profile_examples import Built, built, few_draws, mix

from detectors.family import JOINT, WEIGHTS
from detectors.score import Score
from detectors.scoring import MIN_OBSERVED, NO_NULL, Scored, score

N = 500


def by_key(scored: Scored) -> dict[tuple[str | None, str], tuple[Score, float]]:
    return {(s.feature, s.detector): (s, term) for s, term in zip(scored.scores, scored.terms, strict=True)}


def of(scored: Scored, feature: str) -> dict[str, Score]:
    return {s.detector: s for s in scored.scores if s.feature == feature}


def top(scored: Scored) -> str | None:
    return scored.scores[int(np.argmax(scored.terms))].feature


def alarms(reference: Built, scored: Scored, rate: float = 1 / 100) -> bool:
    return max(scored.terms) > reference.profile.calibration.threshold(rate, scored.n)


def assert_sound(scored: Scored) -> None:
    """No NaN, p-values within (0, 1], and a score without an answer says why."""
    for found, term in zip(scored.scores, scored.terms, strict=True):
        assert not np.isnan(term)
        for number in (found.statistic, found.p_value, found.effect):
            assert number is None or np.isfinite(number)
        assert found.p_value is None or 0 < found.p_value <= 1
        assert (found.verdict == "undetermined") == (found.reason is not None)
        if found.reason is None:
            assert found.p_value is not None
            assert found.statistic is not None
            assert np.isfinite(term)
        else:
            assert found.p_value is None
            assert term == -np.inf
    for _, _, now, before in scored.quality:
        assert 0 <= now <= 1
        assert 0 <= before <= 1


def test_every_term_has_a_score_in_the_order_of_the_features(mixed: Built) -> None:
    scored = score(mixed.profile, mixed.window(mixed.rows(N, 0)))
    assert_sound(scored)
    expected = [(name, d) for name, kind in mixed.kinds.items() for d in WEIGHTS[kind]]
    expected += [(JOINT, d) for d in WEIGHTS[JOINT]]
    assert [(s.feature, s.detector) for s in scored.scores] == expected
    assert scored.n == N
    assert {s.n_reference for s in scored.scores if s.feature == "x0"} == {3000}
    gaps = of(scored, "gaps")
    assert gaps["missing"].n_current == N
    assert gaps["ks"].n_current < N
    assert gaps["ks"].n_reference == np.isfinite(mixed.columns["gaps"]).sum()


def test_the_weights_of_a_feature_sum_to_one(mixed: Built) -> None:
    family = mixed.profile.family
    sums = np.add.reduceat(np.exp(family.log_weight), family.starts)
    assert sums == pytest.approx(np.ones(len(mixed.kinds) + 1))


def with_column(reference: Built, name: str, values: Any, seed: int = 1) -> Scored:
    window = reference.rows(len(values), seed)
    window[name] = values
    return score(reference.profile, reference.window(window))


RNG = np.random.default_rng(2)
CHANGES: dict[str, tuple[str, Any]] = {
    "mean": ("x0", RNG.normal(0.5, 1, N)),
    "spread": ("x1", RNG.normal(0, 2, N)),
    "missing": ("x2", np.where(RNG.random(N) < 0.1, np.nan, RNG.normal(size=N))),
    "all missing": ("x3", np.full(N, np.nan)),
    "filled": ("gaps", RNG.standard_t(3, N) + 0.0),
    "stuck": ("lognormal", np.where(RNG.random(N) < 0.1, 1.0, RNG.lognormal(size=N))),
    "all infinite": ("x0", np.full(N, np.inf)),
    "new category": ("ten", np.where(RNG.random(N) < 0.05, "new", np.array(["c0"] * N, object))),
    "shares": ("two", np.array(["c0"] * 200 + ["c1"] * 300, object)),
    "embedding": ("e", RNG.normal(0.8, 1, (N, 3)).astype(np.float32)),
    "lost embedding": ("e", np.full((N, 3), np.nan, np.float32)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_feature_that_changed_leads(mixed: Built, change: str) -> None:
    name, values = CHANGES[change]
    scored = with_column(mixed, name, values)
    assert_sound(scored)
    assert top(scored) == name
    assert alarms(mixed, scored)


def test_correlation_names_the_pair_whose_product_changed(mixed: Built) -> None:
    window = mixed.rows(N, 3)
    window["x2"] = 0.8 * window["x1"] + 0.6 * np.random.default_rng(3).normal(size=N)
    scored = score(mixed.profile, mixed.window(window))
    found, term = by_key(scored)[JOINT, "correlation"]
    assert found.detail == "x1 ~ x2"
    assert found.effect == pytest.approx(0.8, abs=0.15)
    assert term == max(scored.terms)
    assert alarms(mixed, scored)


def test_a_feature_whose_values_are_all_missing_leaves_the_scores_of_its_neighbours_alone(mixed: Built) -> None:
    window = mixed.rows(N, 4)
    before = by_key(score(mixed.profile, mixed.window(window)))
    for name in ("x1", "two", "e"):
        window[name] = np.full_like(window[name], None if name == "two" else np.nan)
    after = by_key(score(mixed.profile, mixed.window(window)))
    changed = {"x1", "two", "e", JOINT}
    for (feature, detector), (found, term) in before.items():
        if feature in changed:
            continue
        again, term_again = after[feature, detector]
        assert again.statistic == pytest.approx(found.statistic, rel=1e-9, abs=1e-12)
        assert term_again == pytest.approx(term, rel=1e-9, abs=1e-9)
    for name in ("x1", "two", "e"):
        assert after[name, "missing"][0].p_value == pytest.approx(0, abs=1e-20)
    for detector in ("location", "ks", "psi", "largest_cell"):
        assert after["x1", detector][0].reason == "nothing_observed"
    assert after["e", "mmd"][0].reason == "nothing_observed"


@pytest.mark.parametrize("n", [0, 1, MIN_OBSERVED - 1])
def test_too_few_rows_are_undetermined_in_every_score(mixed: Built, n: int) -> None:
    window = {name: values[:n] for name, values in mixed.rows(N, 5).items()}
    scored = score(mixed.profile, mixed.window(window))
    assert_sound(scored)
    assert {s.verdict for s in scored.scores} == {"undetermined"}
    assert {s.statistic for s in scored.scores} == {None}
    assert max(scored.terms) == -np.inf
    assert scored.n == n


def test_a_feature_observed_too_rarely_is_undetermined_while_its_gaps_are_judged(mixed: Built) -> None:
    values = np.full(N, np.nan)
    values[: MIN_OBSERVED - 1] = 100.0
    found = of(with_column(mixed, "x0", values), "x0")
    assert found["location"].reason == "too_few_observed"
    assert found["location"].n_current == MIN_OBSERVED - 1
    assert found["missing"].reason is None
    assert found["psi"].detail is None  # no band without a judgement


def test_psi_carries_its_band(mixed: Built) -> None:
    moved = with_column(mixed, "x0", RNG.normal(2, 1, N))
    assert (of(moved, "x0")["psi"].detail, of(moved, "x1")["psi"].detail) == ("unstable", "stable")


def test_one_row_of_a_new_category_or_type_is_no_alarm(mixed: Built) -> None:
    window = mixed.rows(N, 6)
    window["ten"][0] = "new"
    scored = score(mixed.profile, mixed.window(window, {"x0": np.arange(N) == 3}))
    found = by_key(scored)
    assert found["ten", "unseen"][0].effect == pytest.approx(1 / N)
    assert found["x0", "invalid"][0].effect == pytest.approx(1 / N)
    threshold = mixed.profile.calibration.threshold(1 / 100, N)
    assert max(found["ten", "unseen"][1], found["x0", "invalid"][1]) < threshold


def test_quality_tells_the_shares_of_all_rows(mixed: Built) -> None:
    window = mixed.rows(N, 7)
    window["x0"][:50] = np.nan
    window["fifty"][:5] = "new"
    scored = score(mixed.profile, mixed.window(window, {"x1": np.arange(N) < 10}))
    quality = {(feature, check): (now, before) for feature, check, now, before in scored.quality}
    assert quality["x0", "missing"] == (0.1, 0.0)
    assert quality["x1", "invalid"] == (0.02, 0.0)
    assert quality["fifty", "unseen"] == (0.01, 0.0)
    assert ("x0", "unseen") not in quality
    missing = np.isnan(mixed.columns["gaps"]).mean()
    assert quality["gaps", "missing"] == (np.isnan(window["gaps"]).mean(), pytest.approx(missing))


def test_awkward_features_in_an_unchanged_window_are_sound_and_raise_no_alarm(awkward: Built) -> None:
    for seed in range(5):
        window = awkward.rows(N, seed)
        window["ids"] = np.array([f"new-{i}" for i in range(N)], object)
        scored = score(awkward.profile, awkward.window(window))
        assert_sound(scored)
        assert not alarms(awkward, scored, 1 / 1000)
    found = of(scored, "constant")
    assert {d for d, s in found.items() if s.reason == NO_NULL} >= {"location", "scale", "ks", "chi_square"}
    assert {found[d].reason for d in ("largest_cell", "missing", "invalid")} == {None}
    gone = of(scored, "gone")
    assert {gone[d].reason for d in ("ks", "location")} == {"no_reference"}
    assert gone["missing"].reason is None


AWKWARD: dict[str, tuple[str, Any]] = {
    "a constant that moved": ("constant", np.full(N, 2.0)),
    "a constant that moved in a tenth of the rows": ("constant", np.where(np.arange(N) % 10 == 0, 2.0, 1.0)),
    "always missing, now filled": ("gone", np.ones(N)),
    "half missing, now filled": ("half", RNG.normal(size=N)),
    "half missing, now all": ("half", np.full(N, np.nan)),
    "infinities gone to 30 %": ("infinite", np.where(RNG.random(N) < 0.3, np.inf, RNG.normal(size=N))),
    "one category, now another": ("one", np.array(["other"] * N, object)),
    "no category, now one": ("no", np.array(["first"] * N, object)),
    "ids gone missing": ("ids", np.array([None] * N, object)),
}


@pytest.mark.parametrize("change", AWKWARD)
def test_awkward_features_that_changed_lead(awkward: Built, change: str) -> None:
    name, values = AWKWARD[change]
    scored = with_column(awkward, name, values)
    assert_sound(scored)
    assert top(scored) == name
    assert alarms(awkward, scored, 1 / 1000)


@pytest.mark.parametrize(("name", "value"), [("constant", 2.0), ("gone", 1.0), ("one", "other"), ("no", "first")])
def test_one_row_that_is_not_as_always_is_no_alarm(awkward: Built, name: str, value: Any) -> None:
    values = awkward.columns[name][:N].copy()
    values[7] = value
    assert not alarms(awkward, with_column(awkward, name, values))


def test_a_constant_that_moved_shows_its_gap_without_a_p_value(awkward: Built) -> None:
    found = of(with_column(awkward, "constant", np.full(N, 2.0)), "constant")
    ks = found["ks"]
    assert (ks.statistic, ks.effect) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (ks.p_value, ks.verdict, ks.reason) == (None, "undetermined", NO_NULL)
    assert found["largest_cell"].p_value is not None
    assert found["largest_cell"].effect == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["constant", "embedding"])
def test_a_profile_that_nothing_ever_moved_still_has_thresholds(kind: str) -> None:
    values = np.ones(2000) if kind == "constant" else np.random.default_rng(8).normal(size=(2000, 2))
    with few_draws(1000, 2000):
        alone = built({"a": values}, {"a": "numeric" if kind == "constant" else "embedding"}, sizes=(N,), mmd_rows=0)
    for n_missing, expected in ((0, False), (1, False), (100, True)):
        window = values[:N].copy()
        window[:n_missing] = np.nan
        scored = score(alone.profile, alone.window({"a": window}))
        assert alarms(alone, scored) is expected
        p_value = alone.profile.calibration.p_value(max(scored.terms), N)
        assert (p_value > 0.1) is not expected


@pytest.mark.parametrize("seed", range(3))
def test_a_window_of_the_mix_shifted_by_half_a_sd_names_the_feature(mixed: Built, seed: int) -> None:
    columns, _ = mix(N, np.random.default_rng(100 + seed), shift=0.5)
    columns["e"] = np.random.default_rng(seed).normal(size=(N, 3)).astype(np.float32)
    scored = score(mixed.profile, mixed.window(columns))
    assert (top(scored), alarms(mixed, scored)) == ("x0", True)

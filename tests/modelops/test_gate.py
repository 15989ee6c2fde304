"""The gate: who passes, how often it errs, and what it says. The bootstrap against scikit-learn's AUC."""

from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.gate import SIMULATIONS, Setting, passed, scored
from modelops import bootstrap, gate
from modelops.controller import performance
from modelops.gate import Sample, judge
from modelops.recipe import Gate

DOZEN = Setting("12 segments", segments=((1 / 12,) * 12,))


@pytest.mark.slow
@pytest.mark.parametrize("setting", [Setting("no segments"), DOZEN], ids=lambda setting: setting.name)
def test_a_challenger_one_point_worse_rarely_passes_and_two_points_better_mostly(setting: Setting) -> None:
    assert passed(setting, -0.01, kind="concept") <= 0.05 * SIMULATIONS  # the old rows would only stop more of them
    assert passed(setting, +0.02, kind="covariate") >= 0.80 * SIMULATIONS


def test_the_same_on_a_few() -> None:
    assert passed(Setting("no segments"), -0.02, kind="concept", simulations=5) == 0
    assert passed(Setting("no segments"), +0.04, kind="concept", simulations=5) == 5
    assert passed(DOZEN, +0.04, kind="concept", simulations=5) == 5
    assert passed(DOZEN, +0.04, kind="concept", in_segment=-0.2, simulations=5) == 0


@pytest.mark.parametrize("seed", range(5))
def test_weighted_auc_is_scikit_learns(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra modelops")
    rng = np.random.default_rng(seed)
    scores, y = rng.integers(0, 12, 300) / 12, rng.integers(0, 2, 300)
    weights = rng.integers(0, 4, (6, 300)).astype(float)
    ours = bootstrap.roc_auc(scores, y, weights)
    theirs = [metrics.roc_auc_score(y, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    losses = [-metrics.log_loss(y, np.clip(scores, 0.01, 0.99), sample_weight=w) for w in weights]
    np.testing.assert_allclose(bootstrap.log_likelihood(np.clip(scores, 0.01, 0.99), y, weights), losses, rtol=1e-9)


def test_resamples_are_paired() -> None:
    rng = np.random.default_rng(0)
    sample = scored(2000, 0.8, 0.8, rng, rho=0.95)
    gains = bootstrap.differences(
        bootstrap.roc_auc, sample.challenger, sample.champion, sample.y, resamples=300, seed=1
    )
    alone = bootstrap.differences(bootstrap.roc_auc, sample.challenger, np.zeros(2000), sample.y, resamples=300, seed=1)
    assert gains.std() < 0.5 * alone.std()
    same = bootstrap.differences(
        bootstrap.roc_auc, sample.challenger, sample.challenger, sample.y, resamples=50, seed=1
    )
    assert (same == 0).all()


def test_the_standard_error_of_live_performance_is_the_bootstraps() -> None:
    rng = np.random.default_rng(3)
    sample = scored(1500, 0.8, 0.7, rng)
    found = performance(np.column_stack([sample.challenger, sample.y]))
    assert found is not None
    draws = bootstrap.differences(bootstrap.roc_auc, sample.challenger, np.zeros(1500), sample.y, resamples=400, seed=2)
    assert found.n == 1500
    assert found.error == pytest.approx(draws.std(), rel=0.15)
    assert performance(np.column_stack([sample.challenger, np.zeros(1500)])) is None


def test_it_says_in_words_what_failed() -> None:
    rng = np.random.default_rng(1)
    verdict = judge(scored(3000, 0.75, 0.80, rng), None, Gate(), kind="concept")
    assert not verdict.is_better
    assert verdict.report.startswith("not promotable: roc_auc on new rows (3,000 rows) is 0.7")
    assert "against the champion's 0.8" in verdict.report
    assert "FAILS" in gate.table_text(verdict)
    assert "passes" in gate.table_text(judge(scored(3000, 0.90, 0.80, rng), None, Gate(), kind="concept"))


def test_the_old_hold_out_is_judged_unless_the_relation_itself_changed() -> None:
    rng = np.random.default_rng(1)
    new, old = scored(3000, 0.85, 0.75, rng), scored(3000, 0.65, 0.80, rng)
    assert not judge(new, old, Gate(), kind="covariate").is_better
    assert "old hold-out" in judge(new, old, Gate(), kind="covariate").report
    found = judge(new, old, Gate(), kind="concept")
    assert found.is_better
    assert [(line.name, line.passes) for line in found.comparisons] == [("new rows", True), ("old hold-out", None)]
    assert not judge(new, old, Gate(judge_old="always"), kind="concept").is_better


def test_a_segment_that_gets_much_worse_stops_it_and_a_small_one_is_shown() -> None:
    rng = np.random.default_rng(2)
    good, bad, small = scored(4000, 0.90, 0.75, rng), scored(1000, 0.60, 0.80, rng), scored(100, 0.5, 0.9, rng)
    tiny = scored(20, 0.5, 0.9, rng)
    parts: list[tuple[str, Any]] = [("north", good), ("south", bad), ("west", small), ("isle", tiny)]
    whole = Sample(
        np.concatenate([s.challenger for _, s in parts]),
        np.concatenate([s.champion for _, s in parts]),
        np.concatenate([s.y for _, s in parts]),
        {"region": np.concatenate([np.full(len(s.y), name, object) for name, s in parts])},
    )
    verdict = judge(whole, None, Gate(segments=("region",)), kind="concept")
    said = {line.name: line.passes for line in verdict.comparisons}
    assert said == {
        "new rows": True, "region = north": True, "region = south": False, "region = west": None, "region = isle": None,
    }  # fmt: skip
    assert "region = south" in verdict.report
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=gate.Verdict) == verdict
    assert "isle 20 - - - - - (not compared: too few rows of a class)" in " ".join(gate.table_text(verdict).split())


def test_a_recalibration_is_judged_by_likelihood() -> None:
    rng = np.random.default_rng(4)
    y = (rng.random(4000) < 0.5).astype(int)
    right = np.clip(0.5 + 0.3 * (y - 0.5) + 0.1 * rng.standard_normal(4000), 0.01, 0.99)
    wrong = right**3
    assert judge(Sample(right, wrong, y, {}), None, Gate(), kind="prior", recalibrates=True).is_better
    assert not judge(Sample(wrong, right, y, {}), None, Gate(), kind="prior", recalibrates=True).is_better


def test_calibration_has_bins_of_equal_size() -> None:
    rng = np.random.default_rng(5)
    scores = rng.random(1000)
    bins = gate.calibration(scores, (rng.random(1000) < scores).astype(int))
    assert [b.n for b in bins] == [100] * 10
    assert all(abs(b.predicted - b.observed) < 0.2 for b in bins)

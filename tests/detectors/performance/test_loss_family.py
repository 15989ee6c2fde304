"""The loss in the calibrated family: its mean is judged, and nothing else of it."""

from typing import Any

import numpy as np
import pytest

from detectors import calibration
from detectors.grid import LOSS
from detectors.performance.outcome import Delayed
from detectors.profile import Profile
from detectors.reference import build
from detectors.scoring import Scored, score
from detectors.summary import Table

N_REFERENCE, N_WINDOW = 4000, 500


def profile_of(loss: np.ndarray) -> Profile:
    """Of a reference with a feature and a loss."""
    x = np.random.default_rng(0).normal(size=len(loss))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "DRAWS_FIT", 2000)
        patch.setattr(calibration, "DRAWS_THRESHOLD", 4000)
        kinds: Any = {"x": "numeric", LOSS: "numeric"}
        return build({"x": x, LOSS: loss}, kinds, sizes=[N_WINDOW], mmd_rows=0, delayed=Delayed(frozenset({LOSS})))


def judged(profile: Profile, loss: np.ndarray) -> Scored:
    """A window's second judgement."""
    j = profile.grid.names.index(LOSS)
    counts = np.bincount(profile.grid.encode_feature(j, loss), minlength=profile.grid.n_cells)
    return score(profile, Table(counts, np.zeros(1 + profile.n_pairs)), delayed=True)


@pytest.fixture(scope="module")
def brier() -> tuple[Profile, np.ndarray]:
    """Squared errors of a probability that is what it says."""
    rng = np.random.default_rng(1)
    p = rng.uniform(size=N_REFERENCE)
    loss = (p - (rng.random(N_REFERENCE) < p)) ** 2
    return profile_of(loss), loss


def test_losses_that_part_to_both_ends_are_found_by_their_mean(brier: tuple[Profile, np.ndarray]) -> None:
    """Half of them 0 and half of them 1: the middle rank stays, the mean trebles."""
    profile, _ = brier
    threshold = profile.calibration.threshold(1e-3, N_WINDOW)
    found = judged(profile, np.repeat([0.0, 1.0], N_WINDOW // 2))
    at = [s.detector for s in found.scores].index("location")
    assert found.terms[at] > threshold


def test_another_shape_with_the_same_mean_is_no_alarm(brier: tuple[Profile, np.ndarray]) -> None:
    profile, loss = brier
    found = judged(profile, np.full(N_WINDOW, loss.mean()))
    assert {s.detector for s in found.scores} == {"location", "ks"}
    assert max(found.terms) < profile.calibration.threshold(0.05, N_WINDOW)
    effects = {s.detector: s.effect for s in found.scores}
    assert effects["location"] == pytest.approx(0, abs=0.06)  # a cell stands for its mean
    assert effects["ks"] is not None
    assert effects["ks"] > 0.3  # told, for the floor


def test_the_location_is_the_change_of_the_mean_in_reference_sd(brier: tuple[Profile, np.ndarray]) -> None:
    profile, loss = brier
    window = np.sort(loss)[-N_WINDOW:]
    location = next(s.effect for s in judged(profile, window).scores if s.detector == "location")
    assert location == pytest.approx((window.mean() - loss.mean()) / loss.std(), rel=0.03)


@pytest.mark.parametrize(("n_wrong", "drifts"), [(0, False), (40, True)])
def test_a_model_that_was_never_wrong_is_judged_by_a_cell_of_its_own(n_wrong: int, drifts: bool) -> None:
    profile = profile_of(np.zeros(N_REFERENCE))
    found = judged(profile, np.repeat([0.0, 1.0], [N_WINDOW - n_wrong, n_wrong]))
    assert {s.detector for s in found.scores} == {"location", "ks", "largest_cell"}
    assert (max(found.terms) > profile.calibration.threshold(1e-3, N_WINDOW)) is drifts

"""The default floors of the loss: an error rate that doubles counts, one that hardly moves does not."""

from typing import Any

import numpy as np
import pytest

from detectors import calibration
from detectors.performance.loss_baseline import LossBaseline
from detectors.performance.outcome import LOSS, Delayed
from detectors.profile import Profile
from detectors.reference import build
from detectors.scoring import score
from detectors.summary import Table
from driftwatch.config import EFFECTS

N_REFERENCE, N_WINDOW = 20_000, 10_000


def errors(n: int, rate: float) -> np.ndarray:
    """So many wrong answers, spread over the rows."""
    return (np.diff(np.floor(rate * np.arange(n + 1) + 1e-9)) > 0).astype(np.float64)


def profile_of(rate: float) -> Profile:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "DRAWS_FIT", 200)
        patch.setattr(calibration, "DRAWS_THRESHOLD", 400)
        kinds: Any = {LOSS: "numeric"}
        columns = {LOSS: errors(N_REFERENCE, rate)}
        return build(columns, kinds, sizes=[N_WINDOW], mmd_rows=0, delayed=Delayed(frozenset({LOSS})))


def counts(before: float, after: float) -> bool:
    """Whether a floor is reached in a window that holds errors at another rate."""
    profile = profile_of(before)
    found = np.bincount(profile.grid.encode_feature(0, errors(N_WINDOW, after)), minlength=profile.grid.n_cells)
    scored = score(profile, Table(found, np.zeros(1 + profile.n_pairs)), delayed=True)
    floors: dict[str, float] = {**EFFECTS}
    effects = [(s.effect, floors[s.detector]) for s in scored.scores if s.detector in floors]
    return any(effect is not None and effect >= floor for effect, floor in effects)


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [(0.01, 0.02, True), (0.02, 0.04, True), (0.2, 0.225, True), (0.02, 0.022, False), (0.4, 0.41, False)],
)
def test_a_window_counts(before: float, after: float, wanted: bool) -> None:
    assert counts(before, after) == wanted


@pytest.mark.parametrize(("before", "after", "wanted"), [(0.005, 0.01, True), (0.02, 0.04, True), (0.4, 0.41, False)])
def test_a_rise_row_by_row_counts(before: float, after: float, wanted: bool) -> None:
    baseline = LossBaseline.of("binary", errors(N_REFERENCE, before))
    assert ((after - before) / baseline.sd >= EFFECTS["glr"]) == wanted


def test_a_reference_without_errors_has_a_unit_all_the_same() -> None:
    baseline = LossBaseline.of("binary", np.zeros(4000))
    assert 0 < baseline.sd < 0.012
    assert baseline.excess == 1.0

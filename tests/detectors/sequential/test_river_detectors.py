"""river's detectors behind the fold say what river's own say, and are restored bit for bit."""

import sys
from typing import Any

import numpy as np
import pytest

from detectors.sequential import river_detectors as own

river = pytest.importorskip("river.drift", reason="needs river: pip install 'driftwatch-sidecar[analysis]'")

PAIRS = {
    "ADWIN": (own.ADWIN(), river.ADWIN),
    "HDDMA": (own.HDDMA(), river.binary.HDDMA),
    "DDM": (own.DDM(), river.binary.DDM),
    "EDDM": (own.EDDM(), river.binary.EDDM),
    "KSWIN": (own.KSWIN(), lambda: river.KSWIN(seed=0)),
    "PageHinkley": (own.PageHinkley(sd=1.0), lambda: river.PageHinkley(delta=0.1, mode="up")),
}
each = pytest.mark.parametrize(("detector", "make"), PAIRS.values(), ids=PAIRS)


def stream(detector: Any) -> np.ndarray:
    """Errors at three rates; fewer for KSWIN, which takes half a millisecond a row."""
    rng, n = np.random.default_rng(3), 360 if isinstance(detector, own.KSWIN) else 1500
    return (rng.random(n) < np.repeat([0.1, 0.5, 0.2], n // 3)).astype(np.float64)


@each
def test_the_changes_are_those_of_river(detector: Any, make: Any) -> None:
    _, answer = detector.update(detector.init(), stream(detector))
    theirs, rows = make(), []
    for row, loss in enumerate(stream(detector).tolist()):
        theirs.update(loss)
        if theirs.drift_detected:
            rows.append(row)
            theirs = make()
    assert [change.row for change in answer.changes] == rows
    assert rows or isinstance(detector, own.PageHinkley)


@each
def test_split_and_restored_from_bytes_it_goes_on_as_if_nothing_had_been(detector: Any, make: Any) -> None:
    losses = stream(detector)
    whole, answer = detector.update(detector.init(), losses)
    state, changes = detector.init(), ()
    for first in range(0, len(losses), 61):
        state, part = detector.update(detector.from_bytes(detector.to_bytes(state)), losses[first : first + 61])
        changes += part.changes
    assert state == whole
    assert changes == answer.changes


@each
def test_one_nan_switches_nothing_off(detector: Any, make: Any) -> None:
    losses = stream(detector)
    _, plain = detector.update(detector.init(), losses)
    _, gap = detector.update(detector.init(), np.insert(losses, 5, np.nan))
    assert gap.n_skipped == 1
    assert [change.row - 1 for change in gap.changes] == [change.row for change in plain.changes]


@each
def test_an_update_does_not_touch_the_state_it_was_given(detector: Any, make: Any) -> None:
    first, _ = detector.update(detector.init(), stream(detector)[:200])
    before = detector.to_bytes(first)
    detector.update(first, stream(detector)[200:])
    assert detector.to_bytes(first) == before


def test_adwin_dates_the_change() -> None:
    detector = own.ADWIN()
    losses = np.repeat([0.0, 1.0], 1000)
    _, answer = detector.update(detector.init(), losses, np.arange(2000.0))
    assert answer.changes[0].began_row == pytest.approx(1000, abs=64)
    assert answer.changes[0].time_s == answer.changes[0].row


def test_page_hinkley_does_not_depend_on_the_unit() -> None:
    losses = np.repeat([0.1, 0.6], 500)
    small, large = own.PageHinkley(sd=0.3), own.PageHinkley(sd=300.0)
    _, first = small.update(small.init(), losses)
    _, second = large.update(large.init(), losses * 1000)
    assert first.changes == second.changes != ()
    with pytest.raises(ValueError, match="`sd` must be above 0"):
        own.PageHinkley(sd=0.0)


def test_the_state_of_another_detector_is_refused() -> None:
    ddm, adwin = own.DDM(), own.ADWIN()
    with pytest.raises(ValueError, match="must be a river1 state of ADWIN; got river1 of DDM"):
        adwin.from_bytes(ddm.to_bytes(ddm.init()))


def test_a_kind_that_cannot_be_written_down_is_named() -> None:
    class Odd:
        def __init__(self) -> None:
            self.part = {1, 2}

    with pytest.raises(TypeError, match="got set"):
        own.pack(Odd())


def test_without_river_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(ImportError, match=r"driftwatch-sidecar\[analysis\]"):
        own.DDM().init()

"""Losses row by row across windows: one stream however it is cut, named rows, changes that go on, and what is kept."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from detectors.performance.kind import Kind
from detectors.performance.loss_baseline import LossBaseline
from detectors.sequential.glr import GLR, Baseline
from detectors.summary import Table
from driftwatch.decision import AlarmLine, Decision, WindowLine
from driftwatch.loss_watch import MOST_STREAMS, Followed, LossWatch, Watched
from driftwatch.monitor import undetermined
from driftwatch.records import Judgement, Losses, Stream, Window

BASELINE = LossBaseline(0.1, 0.3, 5000, 1.0, 1.0, 0.0, np.inf, np.empty(0))
RATE = 1 / 1000  # false alarms a window
CALM = Judgement((), (), None, 8.0, 6.0)


class Judges:
    """Stands for the monitor."""

    def losses_of(self, window: Window) -> tuple[LossBaseline, float] | None:
        return None if window.profile == "none" else (BASELINE, RATE)

    def thresholds(self, window: Window) -> tuple[float, float]:
        return 8.0, 6.0

    def kind(self, window: Window, *, rose: bool = False) -> Kind:
        return Kind("concept" if rose else "covariate", (), "retrain")


judges: Any = Judges()
WATCH = LossWatch(judges)


def a_window(i: int, losses: np.ndarray | None, *, version: str = "1", profile: str = "p") -> Window:
    """Window i, of one row a second in a thousand seconds."""
    table, start = Table(np.zeros(0, np.int64), np.zeros(0)), 1000.0 * i
    told = None if losses is None else Losses(losses, start + np.arange(len(losses)))
    return Window(Stream("m", version), start, start + 1000, 100, table, profile, revision=1, n_labels=100, losses=told)


def errors(rng: np.random.Generator, n: int, p: float) -> np.ndarray:
    return (rng.random(n) < p).astype(np.float64)


def followed(parts: list[np.ndarray], watched: Watched | None = None) -> tuple[list[Judgement], Watched]:
    """What is said of windows with these losses."""
    said, watched = [], watched or {}
    for i, part in enumerate(parts):
        judgement, watched = WATCH.follow(a_window(i, part), CALM, watched)
        said.append(judgement)
        watched = {k: msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Followed) for k, one in watched.items()}
    return said, watched


def drifts(judgement: Judgement) -> bool:
    assert judgement.threshold is not None
    return max(judgement.terms) > judgement.threshold


def test_windows_make_one_stream() -> None:
    losses = errors(np.random.default_rng(1), 2000, 0.1)
    _, watched = followed(np.split(losses, [130, 131, 700, 1500]))
    glr = GLR(1e5, Baseline(0.1, 5000))
    memory, _ = glr.update(
        glr.init(), losses, np.concatenate([1000.0 * i + np.arange(n) for i, n in enumerate((130, 1, 569, 800, 500))])
    )
    assert watched["1", "p"].memory == glr.to_bytes(memory)
    assert watched["1", "p"].n_rows == 2000


def test_a_rise_is_dated_to_its_row_in_an_earlier_window() -> None:
    rng = np.random.default_rng(2)
    losses = np.concatenate([errors(rng, 780, 0.1), errors(rng, 420, 0.35)])
    said, _ = followed(np.split(losses, 6))
    first = next(i for i, judgement in enumerate(said) if drifts(judgement))
    assert first == 4
    rise, score = said[first].rise, said[first].scores[-1]
    assert rise is not None
    assert rise.began_s is not None
    assert rise.began_s == pytest.approx(3000 + 180, abs=12)
    row = int(rise.began_s) - 3000 + 1
    assert rise.sentence.startswith("mean loss rose from 0.1 to 0.")
    assert (
        f"with labelled row {row} of 1970-01-01T00:50:00Z to 1970-01-01T01:06:40Z, at 1970-01-01T00:5" in rise.sentence
    )
    assert (score.feature, score.detector) == ("loss", "glr")
    assert score.effect == pytest.approx(0.25 / 0.3, abs=0.3)
    assert score.p_value is not None
    assert score.p_value < RATE
    kind = said[first].kind
    assert kind is not None
    assert kind.kind == "concept"
    assert all(later.rise == rise for later in said[first:])  # it goes on, and keeps its date
    datetime.fromisoformat(rise.sentence.rpartition("at ")[2])


def test_a_rise_that_windows_would_find_only_now_and_then_goes_on_without_a_gap_and_ends() -> None:
    rng = np.random.default_rng(3)
    parts = [errors(rng, 200, 0.1) for _ in range(5)]
    parts += [errors(rng, 200, 0.15) for _ in range(40)]
    parts += [errors(rng, 200, 0.1) for _ in range(40)]
    said, watched = followed(parts)
    over = [drifts(judgement) for judgement in said]
    first, last = over.index(True), len(over) - 1 - over[::-1].index(True)
    assert 5 <= first <= 20
    assert all(over[first : last + 1])
    assert 44 <= last < 75
    assert watched["1", "p"].going is None


@pytest.mark.parametrize(("seed", "last"), [(0, 8), (1, 7)])
def test_a_window_after_the_rise_does_not_say_what_kind_of_drift_it_was(seed: int, last: int) -> None:
    class Faulty(Judges):
        """A fault of the pipeline in windows 5 and 6; what comes after looks like a changed rule."""

        def kind(self, window: Window, *, rose: bool = False) -> Kind:
            return Kind("data_quality" if window.start_s in (5000, 6000) else "concept", (), "watch")

    rng = np.random.default_rng(seed)
    faulty: Any = Faulty()
    watch, said = LossWatch(faulty), list[Judgement]()
    watched: Watched = {}
    for i in range(10):  # the rise is found once more by rows of window 6, in the first ones of window 7
        judgement, watched = watch.follow(a_window(i, errors(rng, 203, 0.6 if i in (5, 6) else 0.1)), CALM, watched)
        said.append(judgement)
    assert [i for i, judgement in enumerate(said) if drifts(judgement)] == [*range(5, last + 1)]
    assert {judgement.kind.kind for judgement in said if judgement.kind is not None} == {"data_quality"}


def test_values_that_are_no_loss_switch_nothing_off() -> None:
    rng = np.random.default_rng(4)
    losses = errors(rng, 1200, 0.1)
    losses[900:] = errors(rng, 300, 0.5)
    losses[::3] = np.nan
    said, watched = followed([np.full(50, np.nan), *np.split(losses, 6), np.empty(0)])
    assert [drifts(judgement) for judgement in said[1:6]] == [False] * 4 + [True]
    assert watched["1", "p"].n_rows == 1250
    assert said[-1] is CALM


def test_too_few_labels_for_the_windows_own_terms_are_enough_row_by_row() -> None:
    few, (high, _) = undetermined("too_few_labels"), followed([np.ones(60)])
    assert drifts(high[0])
    quiet, watched = WATCH.follow(a_window(0, np.zeros(40)), few, {})
    assert quiet is few
    loud, _ = WATCH.follow(a_window(1, np.ones(40)), few, watched)
    assert (loud.reason, loud.threshold) == (None, 8.0)
    assert drifts(loud)


def test_where_nothing_is_known_of_losses_nothing_is_followed() -> None:
    for window in (a_window(0, None), a_window(0, np.ones(9), profile="none")):
        assert WATCH.follow(window, CALM, {}) == (CALM, {})


def test_a_version_and_a_profile_have_a_stream_of_their_own_and_the_longest_unfed_is_forgotten() -> None:
    watched: Watched = {}
    for i in range(MOST_STREAMS):
        _, watched = WATCH.follow(a_window(0, np.zeros(5), version=str(i)), CALM, watched)
    _, watched = WATCH.follow(a_window(0, np.zeros(5), version="0"), CALM, watched)
    _, watched = WATCH.follow(a_window(0, np.zeros(5), version="0", profile="q"), CALM, watched)
    assert len(watched) == MOST_STREAMS
    assert ("1", "p") not in watched
    assert list(watched)[-2:] == [("0", "p"), ("0", "q")]
    assert watched["0", "p"].n_rows == 10


@pytest.mark.parametrize(
    ("of_class", "transition", "version", "left"),
    [
        ("performance", "resolved", None, {("2", "p")}),
        ("performance", "resolved", "2", {("1", "p")}),
        ("performance", "continuing", None, {("1", "p"), ("2", "p")}),
        ("drift", "resolved", None, {("1", "p"), ("2", "p")}),
    ],
)
def test_it_begins_anew_when_the_alarm_about_performance_is_resolved(
    of_class: Any, transition: Any, version: str | None, left: set[tuple[str, str]]
) -> None:
    alarm = AlarmLine("id", transition, "concept", None, "t", (), of_class, (), "retrain", version=version)
    decision = Decision(
        WindowLine("m", "1", None, "s", "e", 9), "ok", (), (), (alarm,), 1, False, None, 1, None, None, ()
    )
    watched: Watched = {("1", "p"): Followed(3), ("2", "p"): Followed(4)}
    assert set(WATCH.settled(decision, watched)) == left


def test_losses_without_a_bound_are_told_as_ranks() -> None:
    baseline = LossBaseline.of("numeric", np.random.default_rng(5).exponential(3, 4000))
    ranked = replace(a_window(0, baseline.scaled(np.full(60, 99.0))))
    watch: Any = LossWatch(judges)
    judges.losses_of = lambda window: (baseline, RATE)
    try:
        judgement, _ = watch.follow(ranked, CALM, {})
    finally:
        del judges.losses_of
    assert "mean rank of the loss rose from 0.5 to 1 " in judgement.rise.sentence

"""Follows the losses of each version row by row, as labels land: a sequential detector beside the windows' own terms.

It is fed at a window's second judgement, under its share of the one alarm budget. What it remembers is handed in and
handed back, and is stored with the decision.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf, nextafter

import msgspec
import numpy as np

from detectors.performance.kind import Kind
from detectors.performance.loss_baseline import LossBaseline
from detectors.performance.outcome import LOSS
from detectors.score import Score
from detectors.sequential.change import Change
from detectors.sequential.glr import GLR, Baseline
from detectors.sequential.threshold import LEAST_ROWS, MOST_ROWS, level, rows_per_false_alarm
from driftwatch.decision import Decision, rfc3339
from driftwatch.monitor import Monitor
from driftwatch.records import Judgement, Losses, Rise, Window

MOST_STREAMS = 100  # remembered; beyond them the one that was fed longest ago is forgotten
MOST_WINDOWS = 500  # whose rows can still be named
AGAIN = 2  # a change counts as over when it was not found again in so many times the rows that it took to be found
STILL = 20  # so many times those rows may go by until it is found again where it is over: the threshold is lower then


class Told(msgspec.Struct, frozen=True, array_like=True):
    """A window whose rows were told: the number of the first, and the window's bounds."""

    first_row: int
    start_s: float
    end_s: float


class Going(msgspec.Struct, frozen=True, array_like=True):
    """A change that goes on in windows that end by row `until_row`, or longer where it is found again."""

    until_row: int
    n_rows: int  # from its first to the one with which it was found
    statistic: float
    effect: float  # rise of the mean, in the reference's standard deviations
    sentence: str
    began_s: float | None  # event time of its first row
    kind: Kind  # as the window in which it was found says, or a later one that drifts by its own terms


class Followed(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of the losses of one version on one profile; `memory` is the detector's."""

    n_rows: int = 0
    memory: bytes = b""
    windows: tuple[Told, ...] = ()
    going: Going | None = None


Watched = Mapping[tuple[str, str], Followed]
"""By version and the profile's content hash; the one that was fed last is last."""

NOTHING = Followed()


@dataclass(frozen=True, slots=True)
class LossWatch:
    """Holds the losses of windows against the baselines of the profiles that `monitor` judges on."""

    monitor: Monitor

    def follow(self, window: Window, judgement: Judgement, watched: Watched) -> tuple[Judgement, Watched]:
        """The judgement with what the losses say row by row, and what to remember."""
        losses, found = window.losses, self.monitor.losses_of(window)
        if losses is None or not len(losses) or found is None:
            return judgement, watched
        baseline, rate = found
        n_allowed = min(max(len(losses) / rate, LEAST_ROWS), MOST_ROWS)
        key = window.stream.version, window.profile
        before = watched.get(key, NOTHING)
        going = before.going
        n_again = n_allowed if going is None else min(n_allowed, max(STILL * AGAIN * going.n_rows, LEAST_ROWS))
        glr = glr_of(n_again, baseline)
        memory = glr.from_bytes(before.memory) if before.memory else glr.init()
        memory, answer = glr.update(memory, losses.values, losses.times_s)
        windows = (*before.windows, Told(before.n_rows, window.start_s, window.end_s))
        n_rows = before.n_rows + len(losses)
        if answer.changes:
            going = going or _going(answer.changes[0], windows, baseline, self.monitor.kind(window, rose=True))
            going = msgspec.structs.replace(going, until_row=answer.changes[-1].row + 1 + AGAIN * going.n_rows)
        elif going is not None and n_rows > going.until_row:
            going = None
        if going is not None and judgement.kind is not None:
            # Only a window that drifts by itself tells the kind again: another one may well be after the rise.
            going = msgspec.structs.replace(going, kind=self.monitor.kind(window, rose=True))
        after = Followed(n_rows, glr.to_bytes(memory), _kept(windows, memory.rows), going)
        others = {k: one for k, one in watched.items() if k != key}
        while len(others) >= MOST_STREAMS:
            del others[next(iter(others))]
        if going is not None:
            judgement = replace(judgement, rise=Rise(going.sentence, going.began_s))
        judged = self._judged(
            window, judgement, _score(answer.score, going, losses, baseline.sd), going, level(n_allowed)
        )
        return judged, {**others, key: after}

    def _judged(
        self, window: Window, judgement: Judgement, score: Score, going: Going | None, threshold: float
    ) -> Judgement:
        """The judgement with one score more; `threshold`: what its statistic must reach."""
        if going is None and judgement.reason is not None:
            return judgement  # too few labels for the windows' own terms, and nothing to say here
        if judgement.threshold is None or judgement.caution_threshold is None:
            own = self.monitor.thresholds(window)
            judgement = replace(judgement, reason=None, threshold=own[0], caution_threshold=own[1])
        limit = judgement.threshold if judgement.threshold is not None else inf
        over = -inf if score.statistic is None else score.statistic - threshold
        term, kind = min(limit + over, limit), judgement.kind
        if going is not None:
            term = max(limit + over, nextafter(limit, inf))
            kind = going.kind
        return replace(
            judgement, scores=(*judgement.scores, score), terms=(*judgement.terms, term), kind=kind, reason=None
        )

    def settled(self, decision: Decision, watched: Watched) -> Watched:
        """Begins anew with a version whose alarm about its performance was resolved."""
        over = {
            decision.window.version if alarm.version is None else alarm.version
            for alarm in decision.alarms
            if alarm.of_class == "performance" and alarm.transition == "resolved"
        }
        return {key: one for key, one in watched.items() if key[0] not in over} if over else watched


def glr_of(rows_per_false_alarm: float, baseline: LossBaseline) -> GLR:
    """The scan of losses against those of a reference."""
    return GLR(
        rows_per_false_alarm,
        Baseline(baseline.mean, baseline.n),
        dispersion=baseline.dispersion,
        excess=baseline.excess,
        skewness=baseline.skewness,
        degrees=baseline.degrees,
    )


def _going(change: Change, windows: tuple[Told, ...], baseline: LossBaseline, kind: Kind) -> Going:
    """A change that was found."""
    return Going(
        until_row=change.row + 1,
        n_rows=change.row + 1 - (change.row if change.began_row is None else change.began_row),
        statistic=0.0 if change.statistic is None else change.statistic,
        effect=((change.after or 0.0) - (change.before or 0.0)) / baseline.sd,
        sentence=_sentence(change, windows, baseline),
        began_s=None if change.began_time_s is None else round(change.began_time_s, 3),
        kind=kind,
    )


def _score(newest: Score, going: Going | None, losses: Losses, sd: float) -> Score:
    """The score of a window: of the change that goes on, else of the newest rows."""
    if going is None:
        newest = replace(newest, effect=None if newest.effect is None else newest.effect / sd)
    else:
        newest = replace(newest, statistic=going.statistic, effect=going.effect, n_current=going.n_rows, reason=None)
        newest = replace(newest, verdict=None, detail=going.sentence)
    p_value = None
    if newest.statistic is not None:
        p_value = min(1.0, len(losses) / rows_per_false_alarm(newest.statistic))
    return replace(newest, feature=LOSS, p_value=p_value)


def _sentence(change: Change, windows: tuple[Told, ...], baseline: LossBaseline) -> str:
    """What happened, and in which row of which window it began."""
    what = "mean rank of the loss" if len(baseline.cuts) else "mean loss"
    said = f"{what} rose from {change.before:.3g} to {change.after:.3g}"
    row = -1 if change.began_row is None else change.began_row
    where = next((told for told in reversed(windows) if told.first_row <= row), None)
    if where is not None:
        said += f" with labelled row {row - where.first_row + 1} of {rfc3339(where.start_s)} to {rfc3339(where.end_s)}"
    return said if change.began_time_s is None else f"{said}, at {rfc3339(round(change.began_time_s, 3))}"


def _kept(windows: tuple[Told, ...], rows: np.ndarray) -> tuple[Told, ...]:
    """The windows that hold a row which a change may still be dated to."""
    there = rows[rows >= 0]
    oldest = int(there.min()) if there.size else 0
    ends = [told.first_row for told in windows[1:]] + [oldest + 1]
    return tuple(told for told, end in zip(windows, ends, strict=True) if end > oldest)[-MOST_WINDOWS:]

"""The gate: is the challenger better than the champion, and nowhere worse than it may be? Pure, and in words.

On the new rows two conditions hold together: the estimated gain reaches `better_by`, and the one-sided lower bound
of the gain lies above -`NEW_MARGIN`. So one that is an AUC point worse passes at most as often as the bound errs,
and one that is two points better passes although 4,000 rows cannot prove every gain.

Segments are asked the other way round: one stops a challenger that is shown to lose there. Were each asked for a proof
that it does not, a dozen small ones would stop nearly every challenger, however good.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from modelops import bootstrap
from modelops.recipe import Gate

NEW_MARGIN = 0.01
BINS = 10
FEWEST_OF_CLASS = 10  # rows of a segment, that it is compared at all

Compare = Callable[[str, "Sample", np.ndarray, float], "Comparison"]


class Sample(msgspec.Struct, frozen=True):
    """Rows on which both are judged: scores of both, labels, and for each segment feature its values."""

    challenger: np.ndarray
    champion: np.ndarray
    y: np.ndarray
    segments: Mapping[str, np.ndarray]


class Comparison(msgspec.Struct, frozen=True):
    """One line of the gate's table. `passes` None: shown, not judged.

    `low`, `high`: one-sided bounds of the gain; those of segments hold for all of them together. Figures are None where
    the rows of a class are too few for any.
    """

    name: str
    n: int
    challenger: float | None
    champion: float | None
    gain: float | None
    low: float | None
    needs: str
    passes: bool | None
    high: float | None = None


class Calibration(msgspec.Struct, frozen=True):
    """Predicted and observed share of positives in a bin of the challenger's scores, on the new rows."""

    n: int
    predicted: float
    observed: float


class Verdict(msgspec.Struct, frozen=True):
    """The gate's answer with its table and its reasons."""

    metric: str
    is_better: bool
    comparisons: tuple[Comparison, ...]
    calibration: tuple[Calibration, ...]
    report: str


def judge(
    new: Sample, old: Sample | str | None, settings: Gate, *, kind: str, recalibrates: bool = False, seed: int = 0
) -> Verdict:
    """The verdict on a challenger. `old` None: the champion has no hold-out; text: why the challenger cannot be
    judged on it; `kind`: of the alarm's drift.

    A recalibration keeps the order of rows, so its metric is the log likelihood, else it is the AUC.
    """
    metric = bootstrap.log_likelihood if recalibrates else bootstrap.roc_auc
    name = "log likelihood" if recalibrates else "roc_auc"
    better_by = 0.0 if recalibrates else settings.better_by
    judges_old = settings.judge_old == "always" or kind != "concept"

    def compare(title: str, sample: Sample, rows: np.ndarray, confidence: float = settings.confidence) -> Comparison:
        y = sample.y[rows]
        ours, theirs = sample.challenger[rows], sample.champion[rows]
        gains = bootstrap.differences(metric, ours, theirs, y, resamples=settings.resamples, seed=seed)
        low, high = np.quantile(gains, [1 - confidence, confidence]).tolist()
        mine, other = bootstrap.value(metric, ours, y), bootstrap.value(metric, theirs, y)
        return Comparison(title, len(y), mine, other, mine - other, low, "", None, high)

    table = [_proven(compare("new rows", new, np.arange(len(new.y))), NEW_MARGIN, better_by)]
    if isinstance(old, str):
        table.append(Comparison("old hold-out", 0, None, None, None, None, f"not compared: {old}", None))
    elif old is not None:
        line = _proven(compare("old hold-out", old, np.arange(len(old.y))), settings.old_margin)
        table.append(line if judges_old else _shown(line, "shown only: under concept drift it is another relation"))
    table += _segments(new, settings, compare)
    failed = [line for line in table if line.passes is False]
    said = "; ".join(_words(line, name) for line in (failed or table[:1]))
    verdict = "promotable" if not failed else "not promotable"
    return Verdict(name, not failed, tuple(table), calibration(new.challenger, new.y), f"{verdict}: {said}.")


def _segments(new: Sample, settings: Gate, compare: Compare) -> list[Comparison]:
    """A line for each value of each segment feature; small ones, and those of one class, are shown only."""
    found = [
        (f"{feature} = {value}", np.flatnonzero(new.segments[feature] == value))
        for feature in settings.segments
        for value in sorted({v for v in new.segments[feature] if v is not None})
    ]
    n_judged = sum(len(rows) >= settings.min_segment_rows for _, rows in found)
    confidence = 1 - (1 - settings.confidence) / max(n_judged, 1)  # of all together (Bonferroni)
    lines = []
    for title, rows in found:
        n_positive = int(new.y[rows].sum())
        if min(n_positive, len(rows) - n_positive) < FEWEST_OF_CLASS:
            few = "not compared: too few rows of a class"
            lines.append(Comparison(title, len(rows), None, None, None, None, few, None))
            continue
        line = compare(title, new, rows, confidence)
        is_small = len(rows) < settings.min_segment_rows
        why = f"shown only: fewer than {settings.min_segment_rows} rows"
        lines.append(_shown(line, why) if is_small else _not_lost(line, settings.segment_margin))
    return lines


def _proven(line: Comparison, margin: float, least: float | None = None) -> Comparison:
    """The line, judged by whether it is shown that no more than the margin is lost; `least`: the gain that it needs."""
    assert line.low is not None
    assert line.gain is not None
    needs = f"lower bound over {-margin:+.3f}" + ("" if least is None else f" and gain of at least {least:+.3f}")
    passes = line.low > -margin and (least is None or line.gain >= least)
    return msgspec.structs.replace(line, needs=needs, passes=passes)


def _not_lost(line: Comparison, margin: float) -> Comparison:
    """The line, judged by whether it is shown that something is lost, and more than the margin is."""
    assert line.high is not None
    assert line.gain is not None
    needs = f"gain over {-margin:+.3f}, or upper bound over 0: a loss by chance"
    return msgspec.structs.replace(line, needs=needs, passes=line.gain > -margin or line.high > 0)


def calibration(scores: np.ndarray, y: np.ndarray) -> tuple[Calibration, ...]:
    """Bins of equal size over the scores."""
    parts: Sequence[np.ndarray] = np.array_split(np.argsort(scores, kind="stable"), min(BINS, max(len(y), 1)))
    return tuple(Calibration(len(p), float(scores[p].mean()), float(y[p].mean())) for p in parts if len(p))


def table_text(verdict: Verdict) -> str:
    """The comparisons as a table for a person."""
    lines = [f"{'':24} {'rows':>7} {'champion':>9} {'challenger':>10} {'gain':>8} {'low':>8} {'high':>8}"]
    for line in verdict.comparisons:
        mark = {True: "passes", False: "FAILS", None: ""}[line.passes]
        figures = f"{_figure(line.champion, 9)} {_figure(line.challenger, 10)} {_figure(line.gain, 8, '+')}"
        bounds = f"{_figure(line.low, 8, '+')} {_figure(line.high, 8, '+')}"
        lines.append(f"{line.name[:24]:24} {line.n:7,} {figures} {bounds}  {mark} ({line.needs})")
    return "\n".join(lines)


def _shown(line: Comparison, why: str) -> Comparison:
    return msgspec.structs.replace(line, passes=None, needs=why)


def _figure(value: float | None, width: int, sign: str = "") -> str:
    return "-".rjust(width) if value is None else f"{value:{sign}{width}.4f}"


def _words(line: Comparison, metric: str) -> str:
    return (
        f"{metric} on {line.name} ({line.n:,} rows) is {_figure(line.challenger, 0)} against the champion's "
        f"{_figure(line.champion, 0)}, gain {_figure(line.gain, 0, '+')} with bounds "
        f"{_figure(line.low, 0, '+')} and {_figure(line.high, 0, '+')}, and it needs: {line.needs}"
    )

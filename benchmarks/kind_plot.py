"""A plot of one drift: a feature, performance with its interval, and how far each judgement is from its threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

CLOSED, LABELLED, SHADE = "#0072b2", "#d55e00", "#e6e6e6"  # colours that the colour-blind tell apart
LOW, HIGH = 0.05, 0.95


@dataclass(frozen=True)
class Picture:
    """`values` (windows, rows) of a feature, the decisions of a stream, and which windows were changed."""

    feature: str
    values: np.ndarray
    decisions: Sequence[Mapping[str, Any]]
    changed: range
    log: bool


def draw(picture: Picture, path: Path) -> None:
    """Writes an SVG."""
    mpl.rcParams.update({"svg.hashsalt": "driftwatch", "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(7.2, 6.2), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    for axes in (top, middle, bottom):
        axes.axvspan(picture.changed[0] + 0.5, picture.changed[-1] + 1.5, color=SHADE, linewidth=0)
        axes.spines[["top", "right"]].set_visible(False)
    values(picture, top)
    performance(picture, middle)
    evidence(picture, bottom)
    bottom.set_xlabel("window")
    bottom.set_xticks(range(1, len(picture.values) + 1))
    bottom.set_xlim(0.5, len(picture.values) + 0.5)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def values(picture: Picture, axes: Axes) -> None:
    """The feature's median and middle 90 %."""
    at = np.arange(1, len(picture.values) + 1)
    low, median, high = np.quantile(picture.values, [LOW, 0.5, HIGH], axis=1)
    axes.vlines(at, low, high, color=CLOSED, alpha=0.4, linewidth=5)
    axes.plot(at, median, "o", color=CLOSED, markersize=5)
    if picture.log:
        axes.set_yscale("log")
    axes.set_title(f"{picture.feature}: median and middle 90 %", loc="left")


def judged(picture: Picture, revision: int) -> list[Mapping[str, Any]]:
    """First or second judgements."""
    return [d for d in picture.decisions if d["revision"] == revision]


def performance(picture: Picture, axes: Axes) -> None:
    """The Brier score by labels with its interval, as estimated before, and in the reference."""
    lines = [next(p for p in d["performance"] if p["metric"] == "brier") for d in judged(picture, 1)]
    at = np.arange(1, len(lines) + 1)
    value, low, high = (np.array([line[key] for line in lines]) for key in ("value", "low", "high"))
    axes.errorbar(
        at, value, (value - low, high - value), fmt="o", color=LABELLED, markersize=5, label="by labels, 95 %"
    )
    axes.plot(at, [p["estimate"] for p in lines], "x", color=CLOSED, label="estimated without labels")
    axes.axhline(lines[0]["reference"], color="black", linewidth=1, linestyle=":", label="reference")
    axes.set_title("Brier score, lower is better", loc="left")
    axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.98), borderaxespad=0)


def evidence(picture: Picture, axes: Axes) -> None:
    """−log10 of each judgement's p-value, and where alarms opened and ended."""
    tops = []
    for revision, colour, name, width in ((0, CLOSED, "when the window closes", 3), (1, LABELLED, "on its labels", 1)):
        found = judged(picture, revision)
        heights = [min(-np.log10(d["p_value"]), 30.0) for d in found]
        axes.plot(
            range(1, len(found) + 1), heights, ".-", color=colour, linewidth=width, markersize=6 + width, label=name
        )
        tops += heights
        for i, decision in enumerate(found):
            for alarm in decision["alarms"]:
                mark(axes, alarm, i + 1, colour)
    axes.axhline(3, color="black", linewidth=1, linestyle=":", label="budget, 1 in 1,000")
    axes.set_ylim(-0.5, max(8.0, 1.15 * max(tops)))
    axes.set_title("−log₁₀ of the window's p-value (30 and more drawn at 30)", loc="left")
    axes.legend(frameon=False, loc="upper left")


def mark(axes: Axes, alarm: Mapping[str, Any], at: int, colour: str) -> None:
    """An alarm that opens or ends, by a vertical line with its class."""
    if alarm["transition"] in ("opened", "resolved"):
        offset = -0.15 if colour == CLOSED else 0.15
        style = "-" if alarm["transition"] == "opened" else "--"
        axes.axvline(at + offset, color=colour, linestyle=style, linewidth=1)
        axes.annotate(
            f"{alarm['class']} {alarm['transition']}",
            (at + offset, 1),
            xytext=(-2 if colour == CLOSED else 2, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=90,
            ha="right" if colour == CLOSED else "left",
            va="top",
            color=colour,
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.85},
        )

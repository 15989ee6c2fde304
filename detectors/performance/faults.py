"""Faults of the pipeline that feeds the model, read off a window's counts: each has a shape that no drift has.

A broken share ε of a feature's rows turns its cells q into (1 − ε)·q + ε·s, where s is what the fault does to all
rows: missing, invalid and unseen cells fill; a unit change puts the reference's cells where ten, a thousand … times
their values lie; a frozen sensor puts every row into one cell; what leaves the range lies below or above all cells. A
fault is named where such an s explains nearly all of the change, so a moved mean is none.

Not told apart: a fault from a true change of the same shape (a new product is a new category too); powers of ten that
leave the reference's range alike, of which the smallest is told; and, where it struck a part of the rows only, a power
that puts them all into one cell from a stand-in value such as −999. A partly frozen sensor is seen on continuous
features only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from detectors.grid import INVALID, MISSING, SPECIAL, UNSEEN, Feature, Grid

Fault = Literal["null_spike", "invalid_values", "new_category", "unit_change", "frozen", "out_of_range"]

MIN_RISE: dict[Fault, float] = {"null_spike": 0.02, "invalid_values": 0.002, "new_category": 0.005}
MIN_SHARE = 0.04  # of rows with a unit change, frozen or out of range
ALL = 0.9  # of the rows, in a unit change
NEARLY_ALL = 0.95  # of the rows in one cell, which makes a feature of few values frozen as well
EXPLAINED = 0.80  # of the change of a feature's cells
CONTINUOUS = 20  # cells that hold 1/200 of the reference each
POWERS = (-1, 1, -2, 2, -3, 3, -6, 6)  # of ten
SIGNIFICANT = 4.0  # standard errors
ALIKE = 0.02  # of the rows
TELLING = 0.95  # a power that puts more rows into one cell looks like any stand-in value, unless it took all rows


@dataclass(frozen=True, slots=True)
class Found:
    """A fault of one feature: `share` of the window's rows that it struck, and a sentence with its figures."""

    feature: int
    fault: Fault
    share: float
    sentence: str


def faults(grid: Grid, reference: np.ndarray, current: np.ndarray) -> tuple[Found, ...]:
    """The faults that a window's counts (cells,) show against the reference's, at most one a feature, widest first."""
    found = []
    for j, feature in enumerate(grid.features):
        of_feature = [*_special(grid, j, reference, current)]
        if feature.edges is not None:
            of_feature += _shape(feature, j, reference[grid.slice(j)], current[grid.slice(j)])
        elif feature.kind == "categorical":
            of_feature += _stuck(feature, j, reference[grid.slice(j)], current[grid.slice(j)])
        if of_feature:
            found.append(max(of_feature, key=lambda f: f.share))
    return tuple(sorted(found, key=lambda f: -f.share))


def _special(grid: Grid, j: int, reference: np.ndarray, current: np.ndarray) -> list[Found]:
    """Missing, invalid and unseen cells that hold more of the rows than they did."""
    name = grid.features[j].name
    n_before, n_now = (
        float(side[grid.slice(j)].sum() + side[SPECIAL * j : SPECIAL * (j + 1)].sum()) for side in (reference, current)
    )
    if not n_before or not n_now:
        return []
    found = []
    said: tuple[tuple[Fault, int, str], ...] = (
        ("null_spike", MISSING, "are missing"),
        ("invalid_values", INVALID, "have the wrong type"),
        ("new_category", UNSEEN, "are a value that the reference never had"),
    )
    for fault, cell, words in said:
        before, now = reference[SPECIAL * j + cell] / n_before, current[SPECIAL * j + cell] / n_now
        pooled = (reference[SPECIAL * j + cell] + current[SPECIAL * j + cell] + 1) / (n_before + n_now + 2)
        error = np.sqrt(pooled * (1 - pooled) * (1 / n_before + 1 / n_now))
        if now - before > max(MIN_RISE[fault], SIGNIFICANT * error):
            sentence = f"{now:.1%} of `{name}` {words}; {before:.1%} in the reference"
            found.append(Found(j, fault, float(now - before), sentence))
    return found


def _shape(feature: Feature, j: int, reference: np.ndarray, current: np.ndarray) -> list[Found]:
    """The one of unit change, frozen sensor and values out of range that explains a numeric feature's change best."""
    n_before, n_now = reference.sum(), current.sum()
    if not n_before or not n_now or feature.edges is None or not len(feature.edges):
        return []
    before, now = reference / n_before, current / n_now
    change, noise = now - before, 1 / n_now + 1 / n_before
    chance = float(np.sqrt(2 / np.pi * before * (1 - before) * noise).sum() / 2)
    most = (1 - EXPLAINED) * max(np.abs(change).sum() / 2 - chance, 0.0)
    good: list[tuple[float, float, Fault, str]] = []
    for fault, struck, sentence in _shapes(feature, feature.edges, before, now):
        share, left = mixed(change, struck - before)
        length = float((struck - before) @ (struck - before))
        spread = before @ (struck - before) ** 2 - (before @ (struck - before)) ** 2
        error = np.sqrt(noise * (spread / length**2 + share)) if length > 0 else np.inf
        collapsed = fault == "unit_change" and struck.max() > TELLING and share < ALL
        if share > max(MIN_SHARE, SIGNIFICANT * error) and left - chance < most and not collapsed:
            good.append((left, share, fault, sentence))
    if not good:
        return []
    # of those that explain it alike the first: a unit before a range, a smaller power before a larger
    best = min(left for left, *_ in good)
    _, share, fault, sentence = next(g for g in good if g[0] <= best + ALIKE)
    return [Found(j, fault, share, f"{share:.0%} of {sentence}" if fault == "unit_change" else sentence)]


def _shapes(
    feature: Feature, edges: np.ndarray, before: np.ndarray, now: np.ndarray
) -> Iterator[tuple[Fault, np.ndarray, str]]:
    """Faults that could be, where each would put all rows, and how it is told."""
    for power in POWERS:
        struck = scaled(edges, before, 10.0**power)
        at_the_end = struck[[0, -1]].max() > NEARLY_ALL  # where a larger power would put them as well
        beyond = "" if not at_the_end else " or more" if power > 0 else " or less"
        text = f"`{feature.name}` lie where {10.0**power:g} times the reference's values{beyond} would"
        yield "unit_change", struck, text
    gained = int(np.argmax(now - before))
    struck = (np.arange(len(now)) == gained).astype(np.float64)
    text = f"{now[gained]:.1%} of `{feature.name}` are {_cell(edges, gained)}"
    if gained in (0, len(now) - 1) and before[gained] < 0.001:
        yield "out_of_range", struck, f"{text}, which the reference never was"
    elif (before > 1 / 200).sum() >= CONTINUOUS or now[gained] > NEARLY_ALL:
        yield "frozen", struck, f"{text}; {before[gained]:.1%} in the reference"


def _stuck(feature: Feature, j: int, reference: np.ndarray, current: np.ndarray) -> list[Found]:
    """One category that takes nearly all rows."""
    if not reference.sum() or not current.sum() or not feature.categories:
        return []
    before, now = reference / reference.sum(), current / current.sum()
    cell = int(np.argmax(now))
    if now[cell] < NEARLY_ALL or before[cell] > NEARLY_ALL - 0.1 or cell >= len(feature.categories):
        return []
    name = feature.categories[cell]
    text = f"{now[cell]:.1%} of `{feature.name}` are `{name}`; {before[cell]:.1%} in the reference"
    return [Found(j, "frozen", float(now[cell] - before[cell]), text)]


def mixed(change: np.ndarray, towards: np.ndarray) -> tuple[float, float]:
    """The share ε of rows for which ε · towards is nearest to the change, and half the absolute rest."""
    length = float(towards @ towards)
    share = min(1.0, max(0.0, float(change @ towards) / length)) if length > 0 else 0.0
    return share, float(np.abs(change - share * towards).sum() / 2)


def scaled(edges: np.ndarray, share: np.ndarray, factor: float) -> np.ndarray:
    """The share of each cell when every value is multiplied; values are spread evenly inside their cells."""
    ends = np.concatenate([edges[:1], edges, edges[-1:]])
    low, high = ends[:-1] * factor, ends[1:] * factor
    # how much of each moved cell lies at or below each edge
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        inside = (edges[None, :] - low[:, None]) / (high - low)[:, None]
    point = (high <= low)[:, None]
    below = np.where(point, (low[:, None] <= edges[None, :]).astype(float), np.clip(inside, 0, 1))
    return np.diff(share @ below, prepend=0.0, append=share.sum())


def _cell(edges: np.ndarray, cell: int) -> str:
    if cell == 0:
        return f"at most {edges[0]:.6g}"
    if cell == len(edges):
        return f"above {edges[-1]:.6g}"
    if edges[cell - 1] == np.nextafter(edges[cell], -np.inf):
        return f"exactly {edges[cell]:.6g}"
    return f"between {edges[cell - 1]:.6g} and {edges[cell]:.6g}"

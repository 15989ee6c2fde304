"""What the statistics need to know of the reference beside its counts: scores of cells, distances between them, groups.

Each is a vector over the regular cells of a grid, so that a statistic is a sum of products.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from detectors.grid import UNSEEN, Grid

MIN_EXPECTED = 5.0  # rows that a group of cells must be expected to hold in a window
MIN_SHARE = 1 / 20  # share that a group of numeric cells must hold
WINSOR = (0.005, 0.995)  # quantiles between which values enter a Wasserstein distance on cells


@dataclass(frozen=True)
class Basis:
    """Vectors over regular cells, and groups of cells, of one grid.

    `normal`: the reference's normal score z of the cell (Φ⁻¹ of its mid-rank), centred and scaled on the reference; of
    the loss the winsorised mean of the cell instead, since performance is a mean.
    `spread`: z² − 1 − E[z³]·z, centred and scaled to sd 1; its sd before that is `spread_sd` (features,). `gap`:
    distance from the cell's mean to the next one's, in winsorised reference sd. `groups`: first cell of each group;
    `group_starts`: first group of each feature. `cell_rms`: how much wider than a standard normal a cell's deviance
    is under dependence, inf = the cell takes no part. `singletons`: reference rows that are the only one of their
    category, (features,): the rows that would be unseen if they were left out.
    """

    grid: Grid
    normal: np.ndarray
    spread: np.ndarray
    spread_sd: np.ndarray
    gap: np.ndarray
    groups: np.ndarray
    group_starts: np.ndarray
    cell_rms: np.ndarray
    singletons: np.ndarray


def basis(
    grid: Grid, counts: np.ndarray, columns: Mapping[str, np.ndarray], *, n_current: float, codes: np.ndarray
) -> Basis:
    """The basis of a reference: its counts (cells,), its columns, its codes (rows, features).

    `n_current`: rows that a window is expected to hold; cells are pooled to at least five of them.
    """
    n_regular = int(grid.sizes.sum())
    normal, spread, gap = np.zeros(n_regular), np.zeros(n_regular), np.zeros(n_regular)
    spread_sd, singletons = np.ones(len(grid.features)), np.zeros(len(grid.features))
    groups: list[int] = []
    group_starts: list[int] = []
    for j, feature in enumerate(grid.features):
        cells = grid.slice(j)
        here = slice(cells.start - grid.n_special, cells.stop - grid.n_special)
        shares = counts[cells] / max(counts[cells].sum(), 1.0)
        least = MIN_EXPECTED / n_current
        if feature.edges is not None:
            normal[here], spread[here], spread_sd[j] = scores_of_cells(shares, counts[cells].sum())
            gap[here] = gaps(feature.edges, columns[feature.name], codes[:, j] - cells.start, len(shares))
            if feature.is_loss:
                normal[here], spread[here], spread_sd[j] = scores_of_means(shares, gap[here]), 0.0, 1.0
            least = max(least, MIN_SHARE)
        elif feature.kind == "categorical" and not feature.buckets:
            singletons[j] = (counts[cells] == 1).sum() + counts[3 * j + UNSEEN]
        group_starts.append(len(groups))
        groups += [here.start + first for first in pooled(shares, least)]
    ones = np.ones(n_regular)
    return Basis(grid, normal, spread, spread_sd, gap, np.array(groups), np.array(group_starts), ones, singletons)


def scores_of_cells(shares: np.ndarray, n: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Normal score and spread score of each cell, and the sd of the latter before it was scaled to 1."""
    rank = np.clip(np.cumsum(shares) - shares / 2, 0.5 / max(n, 1), 1 - 0.5 / max(n, 1))
    z = ndtri(rank)
    mean = shares @ z
    sd = np.sqrt(shares @ (z - mean) ** 2)
    if not sd > 1e-6:  # a constant, or nothing observed
        return np.zeros_like(z), np.zeros_like(z), 1.0
    z = (z - mean) / sd
    s = z * z - 1 - (shares @ z**3) * z
    s = s - shares @ s
    spread_sd = float(np.sqrt(shares @ s**2))
    if spread_sd <= 1e-3:  # two values: the spread follows from the location
        return z, np.zeros_like(z), 1.0
    return z, s / spread_sd, spread_sd


def scores_of_means(shares: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """The mean of each cell, from the distances between them, centred and scaled on the reference."""
    z = np.concatenate([[0.0], np.cumsum(gap[:-1])])
    z = z - shares @ z
    sd = np.sqrt(shares @ z**2)
    return np.asarray(z / sd if sd > 1e-6 else np.zeros_like(z))


def gaps(edges: np.ndarray, values: np.ndarray, cells: np.ndarray, n_cells: int) -> np.ndarray:
    """Distances between the means of neighbouring cells, in winsorised standard deviations; the last entry is 0."""
    inside = (cells >= 0) & ~np.isnan(values)
    finite = values[inside & np.isfinite(values)]
    if not len(finite):
        return np.zeros(n_cells)
    cells, values = cells[inside], values[inside]
    low, high = np.quantile(finite, WINSOR, method="inverted_cdf")
    clipped = np.clip(values, low, high)
    with np.errstate(over="ignore", invalid="ignore"):  # the square of a number beyond 1e154
        sd = clipped.std()
    if not (np.isfinite(sd) and sd > 0):
        return np.zeros(n_cells)
    rows = np.bincount(cells, minlength=n_cells)
    mean = np.bincount(cells, weights=clipped, minlength=n_cells) / np.maximum(rows, 1)
    empty = np.clip(np.concatenate([edges, edges[-1:]]), low, high)
    mean = np.maximum.accumulate(np.where(rows > 0, mean, empty))
    return np.asarray(np.append(np.diff(mean), 0.0) / sd)


def pooled(shares: np.ndarray, least: float) -> list[int]:
    """First cell of each group of neighbouring cells that together hold at least the share `least`."""
    firsts, held = [0], 0.0
    for i, share in enumerate(shares[:-1]):
        held += share
        if held >= least:
            firsts.append(i + 1)
            held = 0.0
    if len(firsts) > 1 and held + shares[-1] < least:
        firsts.pop()  # what remains at the end joins the group before it
    return firsts

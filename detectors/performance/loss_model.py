"""The loss to expect of a row, from the cells that its features and its prediction lie in.

E[loss | row] = mean · Π over features f_j(cell) · Π over triples f_jkl(group, group, group of four). The factors are
those with which, cell by cell, the expected losses of the reference add up to the true ones (minimum-bias factors,
fitted in turn), each shrunk as if SHRINK more rows of an ordinary loss lay in the cell. Products, because errors
multiply (a dear car's error is dearer); triples, because correlations move while single features stay: on used-car
prices with that very drift, the RMSE from sums over single cells was off by up to 20 %, from products by 11, with
pairs by 5, with triples by 2.4; from boosted trees by 4.

A row costs one look-up a feature and 56 for the triples, about .3 µs; only sums of the result need be kept, and those
over a bounded sample of the rows will do.

Not to be trusted: where Y given X changes (it knows only the reference), and where today's rows lie where the
reference had none: an unknown cell counts as ordinary.

References: Bailey & Simon 1960, Two studies in automobile insurance ratemaking (factors); Lou, Caruana, Gehrke & Hooker
2013, Accurate intelligible models with pairwise interactions (ours: on coarse groups).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from detectors.grid import Grid

SHRINK = 50.0  # rows
PASSES = 12
MAX_FEATURES = 32
JOINT_FEATURES = 8  # the most telling ones, whose interactions are tried: 56 of three
TOGETHER = 3  # features in an interaction
GROUPS = 4  # of a feature in an interaction, and one more for missing, invalid and unseen
WIDTH = GROUPS + 1


@dataclass(frozen=True)
class LossModel:
    """Logarithms of factors: `cells` (cells of the grid,), `joint_cells` (interactions, joint cells); 0 where unused.

    `features`: indices of those that take part; `group` (cells of the grid,): a cell's group in interactions, whose
    features are `interactions` (interactions, 3). `dispersion`: mean (loss − expected)² ÷ mean expected², the noise of
    a row. `n_rows`: of the reference.
    """

    mean: float
    cells: np.ndarray
    features: np.ndarray
    group: np.ndarray
    interactions: np.ndarray
    joint_cells: np.ndarray
    dispersion: float
    n_rows: int

    def expected(self, codes: np.ndarray) -> np.ndarray:
        """The loss to expect of each row, float64 (rows,), from flat cells (rows, features) as `Grid.encode` gives."""
        log = np.zeros(len(codes))
        for j in self.features:
            log += self.cells.take(codes[:, j])
        group = {int(j): self.group.take(codes[:, j]) for j in np.unique(self.interactions)}
        for features, factors in zip(self.interactions.tolist(), self.joint_cells, strict=True):
            log += factors.take(joint(group, features))
        return np.asarray(self.mean * np.exp(log))


def fit(grid: Grid, codes: np.ndarray, loss: np.ndarray, features: np.ndarray) -> LossModel:
    """The model of a reference: flat cells (rows, all features), the loss of each row (NaN = unknown), not negative.

    `features`: indices of the features that may explain it; never the label or the loss itself.
    """
    known = np.isfinite(loss)
    if not known.any():
        raise ValueError("`loss` must hold at least one number; got none. Give a reference with labels.")
    codes, loss = codes[known], loss[known]
    mean, n_cells = float(loss.mean()), grid.n_cells
    start, passes = np.full(len(loss), mean), PASSES if mean > 0 else 0
    single = {int(j): codes[:, j] for j in features}
    factors, _ = balanced(list(single.values()), [n_cells] * len(single), loss, start, passes=passes)
    told = {j: float((f[cells] ** 2).mean()) for (j, cells), f in zip(single.items(), factors, strict=True)}
    chosen = sorted(told, key=lambda j: -told[j])[:MAX_FEATURES]
    group = groups_of(grid, np.bincount(codes.ravel(), minlength=n_cells), sum(factors, np.zeros(n_cells)))
    start = mean * np.exp(sum((f[single[j]] for j, f in zip(single, factors, strict=True)), np.zeros(len(loss))))
    together = interactions(chosen[:JOINT_FEATURES], codes, group, loss, start) if passes else []
    groups = {j: group[codes[:, j]] for j in chosen}
    width = min(TOGETHER, len(chosen))
    n_joint = WIDTH**width
    sizes = [n_cells] * len(chosen) + [n_joint] * len(together)
    columns = [single[j] for j in chosen] + [joint(groups, features) for features in together]
    factors, expected = balanced(columns, sizes, loss, np.full(len(loss), mean), passes=passes)
    return LossModel(
        mean=mean,
        cells=sum(factors[: len(chosen)], np.zeros(n_cells)),
        features=np.array(chosen, np.intp),
        group=group,
        interactions=np.array(together, np.intp).reshape(-1, width),
        joint_cells=np.array(factors[len(chosen) :]).reshape(-1, n_joint),
        dispersion=float(((loss - expected) ** 2).mean() / (expected**2).mean()) if mean > 0 else 0.0,
        n_rows=len(loss),
    )


def balanced(
    columns: list[np.ndarray], sizes: list[int], loss: np.ndarray, start: np.ndarray, *, passes: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Logarithms of each column's factors, after which expected and true losses of every cell agree; and the former."""
    expected, prior = start.copy(), SHRINK * float(loss.mean())
    factors = [np.ones(size) for size in sizes]
    true = [np.bincount(cells, loss, minlength=size) for cells, size in zip(columns, sizes, strict=True)]
    for _ in range(passes):
        for i, (cells, size) in enumerate(zip(columns, sizes, strict=True)):
            here = np.bincount(cells, expected, minlength=size)
            whole = (true[i] + prior) / (here / factors[i] + prior)
            expected *= (whole / factors[i])[cells]
            factors[i] = whole
    return [np.log(f) for f in factors], expected


def groups_of(grid: Grid, counts: np.ndarray, log_factors: np.ndarray) -> np.ndarray:
    """The group of each flat cell, intp: about a quarter of the reference's rows each, special cells in the last.

    Numeric cells in the order of their values, categories in the order of their factors.
    """
    group = np.full(grid.n_cells, GROUPS, np.intp)
    for j, feature in enumerate(grid.features):
        cells = np.arange(grid.slice(j).start, grid.slice(j).stop)
        if feature.edges is None:
            cells = cells[np.argsort(log_factors[cells], kind="stable")]
        rows = counts[cells]
        rank = (np.cumsum(rows) - rows / 2) / max(rows.sum(), 1)
        group[cells] = np.minimum(GROUPS * rank, GROUPS - 1).astype(np.intp)
    return group


def joint(groups: Mapping[int, np.ndarray], features: Sequence[int]) -> np.ndarray:
    """The joint cell of each row in the groups of some features, intp."""
    cell = groups[features[0]]
    for j in features[1:]:
        cell = cell * WIDTH + groups[j]
    return cell


def interactions(
    features: list[int], codes: np.ndarray, group: np.ndarray, loss: np.ndarray, expected: np.ndarray
) -> list[tuple[int, ...]]:
    """The sets of features whose joint cells leave more unexplained than they would by chance."""
    left = {}
    groups = {j: group[codes[:, j]] for j in features}
    together = min(TOGETHER, len(features))
    for some in combinations(features, together):
        cells, size = joint(groups, some), WIDTH**together
        off, noise = (np.bincount(cells, v, minlength=size) for v in (loss - expected, (loss - expected) ** 2))
        left[some] = float((off**2 / np.where(noise > 0, noise, 1) - (noise > 0)).sum())
    return [some for some in left if left[some] > 0]

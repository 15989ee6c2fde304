"""Two arrays as a contrast: the exact special case, in which every distinct value is a cell of its own."""

from collections.abc import Callable
from typing import Any

import numpy as np

from detectors.basis import Basis, pooled
from detectors.contrast import Contrast
from detectors.grid import Feature, Grid
from detectors.score import Score

GROUPS = 20  # quantile groups of a numeric reference
Measured = tuple[float, float | None, float | None]  # statistic, p-value, effect
PORTION = 2_000_000  # counts of permuted samples held at a time


def observed(values: Any, name: str) -> tuple[np.ndarray, int]:
    """A sample as a 1-D float64 array, or one of strings, without its missing values; and how many were missing.

    Lists, arrays, pandas Series and one-column DataFrames are taken. Raises TypeError or ValueError for others.
    """
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"`{name}` must be one-dimensional; got shape {array.shape}. Compare column by column.")
    if array.dtype.kind in "biuf":
        numbers = array.astype(np.float64)
        kept = numbers[~np.isnan(numbers)]
    elif array.dtype.kind in "OUS":
        here = [v for v in array.tolist() if v is not None and not (isinstance(v, float) and np.isnan(v))]
        numeric = all(isinstance(v, int | float) for v in here)  # a bool is 0 or 1, as in an array of bools
        kept = np.array(here, np.float64) if numeric else np.array([str(v) for v in here])
    else:
        raise TypeError(f"`{name}` must hold numbers or strings; got dtype {array.dtype}. Convert it first.")
    return kept, len(array) - len(kept)


def require_numbers(reference: np.ndarray, current: np.ndarray, *, finite: bool = False) -> None:
    """Raises TypeError where a sample holds strings, and with `finite` ValueError where it holds infinities."""
    for name, side in (("reference", reference), ("current", current)):
        if side.dtype.kind != "f":
            raise TypeError(f"`{name}` must hold numbers; got strings. Compare categories by `ChiSquare`.")
        if finite and not np.isfinite(side).all():
            raise ValueError(
                f"`{name}` must be finite; got infinite values. Leave them out, or use `KolmogorovSmirnov`."
            )


def exact(reference: np.ndarray, current: np.ndarray, *, min_expected: float = 0.0) -> Contrast:
    """Both samples on the grid of their pooled distinct values.

    Groups of cells are pooled, in the order of the values, to an expected count of `min_expected` in either sample.
    """
    if reference.dtype.kind != current.dtype.kind:
        reference, current = reference.astype(str), current.astype(str)
    values, cells = np.unique(np.concatenate([reference, current]), return_inverse=True)
    counts = [np.bincount(part, minlength=len(values)) for part in np.split(cells, [len(reference)])]
    with_special = [np.concatenate([np.zeros(3), part]) for part in counts]
    shares = (counts[0] + counts[1]) / max(len(cells), 1)
    grid = Grid((Feature("value", "numeric", np.arange(len(values) - 1, dtype=np.float64)),))
    gap = np.append(np.diff(values), 0.0) if values.dtype.kind == "f" else np.zeros(len(values))
    zeros, ones = np.zeros(len(values)), np.ones(len(values))
    groups = pooled(shares, min_expected / max(min(len(reference), len(current)), 1))
    basis = Basis(grid, zeros, zeros, np.ones(1), gap, np.array(groups), np.zeros(1, np.intp), ones, np.zeros(1))
    return Contrast(basis, reference=with_special[0], current=with_special[1])


def permutation_p_value(
    contrast: Contrast, statistic: Callable[[Contrast], np.ndarray], permutations: int, seed: int
) -> float:
    """(1 + permuted statistics as large as the observed one) ÷ (1 + permutations); rows change sides at random."""
    rng = np.random.default_rng(seed)
    total = (contrast.reference + contrast.current).astype(np.int64)
    seen = float(statistic(contrast)[0]) * (1 - 1e-12)
    n_current, as_large = int(contrast.n_current[0]), 0
    step = max(1, PORTION // len(total))
    for first in range(0, permutations, step):
        size = min(step, permutations - first)
        current = rng.multivariate_hypergeometric(total, n_current, size=size, method="marginals").astype(np.float64)
        permuted = Contrast(contrast.basis, reference=total - current, current=current)
        as_large += int((statistic(permuted)[..., 0] >= seen).sum())
    return (1 + as_large) / (1 + permutations)


def compare(
    detector: str, reference: Any, current: Any, measure: Callable[[np.ndarray, np.ndarray], Measured]
) -> Score:
    """The score of two samples by `measure`, missing values left out and said so; undetermined below two rows."""
    (x, missing_x), (y, missing_y) = observed(reference, "reference"), observed(current, "current")
    if min(len(x), len(y)) < 2:
        reason = "too_few_records"
        return Score(detector, None, None, None, len(x), len(y), verdict="undetermined", reason=reason)
    detail = None
    if missing_x or missing_y:
        detail = f"missing values left out: {missing_x} of the reference, {missing_y} of the current sample"
    statistic, p_value, effect = measure(x, y)
    return Score(detector, statistic, p_value, effect, len(x), len(y), detail=detail)


def on_reference(reference: np.ndarray, current: np.ndarray) -> Contrast:
    """Both samples on groups that the reference alone makes: 20 quantile groups of numbers, or its categories.

    Values beyond the reference's range fall into the outer groups, categories that it does not have into one more.
    """
    if reference.dtype.kind == "f" and current.dtype.kind == "f":
        last = -(-np.arange(1, GROUPS) * len(reference) // GROUPS) - 1  # of each group, in whole numbers
        inner = np.unique(np.sort(reference)[last])
        cells = [np.searchsorted(inner, side, "left") for side in (reference, current)]
        n_cells = len(inner) + 1
    else:
        names = np.unique(reference.astype(str))
        texts = [side.astype(str) for side in (reference, current)]
        places = [np.minimum(np.searchsorted(names, side), len(names) - 1) for side in texts]
        cells = [np.where(names[at] == side, at, len(names)) for at, side in zip(places, texts, strict=True)]
        n_cells = len(names) + int((cells[1] == len(names)).any())
    counts = [np.concatenate([np.zeros(3), np.bincount(side, minlength=n_cells)]) for side in cells]
    grid = Grid((Feature("value", "numeric", np.arange(n_cells - 1, dtype=np.float64)),))
    zeros, ones, one = np.zeros(n_cells), np.ones(n_cells), np.ones(1)
    basis = Basis(grid, zeros, zeros, one, zeros, np.arange(n_cells), np.zeros(1, np.intp), ones, np.zeros(1))
    return Contrast(basis, reference=counts[0], current=counts[1])

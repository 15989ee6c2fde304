"""A change of the mean loss, taken apart: what today's X explains, and what must be a change of Y given X.

With l(x) the loss that the reference lets one expect of a row,
mean loss today − mean loss before = [mean l(x) today − mean loss before] + [mean loss today − mean l(x) today]:
the first bracket re-weights the reference to today's X, the second is left to concept drift. The same with the label in
the place of x re-weights to today's labels (prior shift).

Not to be trusted where today's rows lie where the reference had none (l is then a guess: out-of-range and unseen cells
show it); Cai et al. restrict the comparison to what both samples share, which counts alone do not allow.

References: Cai, Namkoong & Yadlowsky 2023, Diagnosing model performance under distribution shift (X and Y|X terms);
Blinder 1973, Wage discrimination: reduced form and structural estimates (the same two terms for a mean).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class LossShift:
    """`before` and `now`: mean losses; `explained` and `rest`: the two parts, each with its standard error."""

    before: float
    now: float
    explained: float
    explained_error: float
    rest: float
    rest_error: float

    @property
    def z(self) -> float:
        """The rest in standard errors."""
        return self.rest / self.rest_error if self.rest_error > 0 else 0.0


def by_features(
    sums: np.ndarray, *, before: float, dispersion: float, n_reference: float, distance: float
) -> LossShift:
    """From sums (rows, loss, its square, expected loss, its square, loss · expected loss) over today's rows.

    `dispersion`: of the loss around what is expected of it, in units of the latter's square. `distance`: chi-square
    distance Σ (p − q)² / q between today's and the reference's cells, summed over features: the leverage of today's
    mean, so the variance of the model's mean is the rows' noise · (1 + distance) ÷ n_reference.
    """
    n, loss, loss_2, expected, expected_2, both = (float(s) for s in sums)
    now, mean = loss / n, expected / n
    model = dispersion * expected_2 / n * (1 + distance) / n_reference
    of_rows = max(expected_2 / n - mean**2, 0.0) / n
    rest = max((loss_2 - 2 * both + expected_2) / n - (now - mean) ** 2, 0.0) / n
    errors = float(np.sqrt(of_rows + model)), float(np.sqrt(rest + model))
    return LossShift(before, now, mean - before, errors[0], now - mean, errors[1])


def by_labels(
    counts: np.ndarray, loss: float, loss_2: float, *, mean: np.ndarray, variance: np.ndarray, rows: np.ndarray
) -> LossShift:
    """From today's counts of labels and sum of the loss; the loss's mean, variance and rows for each label before."""
    n = counts.sum()
    share, now = counts / n, loss / n
    expected = float(share @ mean)
    before = float(rows @ mean / rows.sum())
    model = float(share**2 @ (variance / np.maximum(rows, 1)))
    of_rows = float(share @ (mean - expected) ** 2) / n
    spread = max(max(loss_2 / n - now**2, 0.0) / n - of_rows, 0.0)
    return LossShift(
        before, now, expected - before, float(np.sqrt(of_rows + model)), now - expected, float(np.sqrt(spread + model))
    )

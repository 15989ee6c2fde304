"""The null distribution of every term, and of the window's largest one, as curves that a profile can keep."""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtri

from detectors.family import Family

RATES = np.geomspace(0.5, 1e-9, 80)  # rates at which a curve of thresholds is kept
EMPIRICAL = 0.02  # rates below it come from the exponential tail above that point
N_QUANTILES = 14


@dataclass(frozen=True, slots=True)
class Fit:
    """Upper tail of every term at one window size: T = a + b z + c z², z a standard normal quantile; (terms,) each.

    `flat`: the term never moved in the draws (a constant, nothing missing …) and has no tail of its own.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    flat: np.ndarray


def fit(family: Family, draws: np.ndarray, skewed: np.ndarray) -> Fit:
    """The fit to null draws (draws, terms), by least squares on 14 quantiles from p = .2 to .001, weights √p.

    Location and scale are normal around zero, but for the terms that are `skewed` (terms,), a mean of so lopsided
    values that a window's rows do not make it normal: those have a tail of their own like all others. Missing,
    invalid and unseen are normal scores already: their draws may only widen them (a bootstrap never contains what the
    reference never showed).
    """
    p = np.geomspace(0.2, max(0.0005, 10 / len(draws)), N_QUANTILES)
    weights = np.sqrt(p / p[0])[:, None]
    quantiles = np.quantile(draws, 1 - p, axis=0)
    coefficients = np.zeros((3, draws.shape[1]))
    for two_sided in (False, True):
        z = -ndtri(p / 2 if two_sided else p)
        full = np.stack([np.ones_like(z), z, z * z], axis=1)
        curved = np.linalg.lstsq(full * weights, quantiles * weights, rcond=None)[0]
        straight = np.linalg.lstsq(full[:, :2] * weights, quantiles * weights, rcond=None)[0]
        concave = (curved[2] <= 1e-4 * np.abs(straight[1])) | (curved[1] <= 0)
        straight = np.concatenate([straight, np.zeros_like(straight[:1])])
        chosen = np.where(concave, straight, curved)
        coefficients = np.where(family.two_sided == two_sided, chosen, coefficients)
    a, b, c = coefficients
    smooth = np.isin(family.detector, ["location", "scale"]) & ~skewed
    exact = np.isin(family.detector, ["missing", "invalid", "unseen"])
    rms = np.sqrt((draws.astype(np.float64) ** 2).mean(axis=0))
    z = -ndtri(np.where(family.two_sided, 0.5, 1.0) * p[:, None])
    widening = np.maximum(1, (z * quantiles).sum(axis=0) / (z * z).sum(axis=0))
    b = np.where(smooth, rms, np.where(exact, widening, b))
    a, c = np.where(smooth | exact, 0, a), np.where(smooth | exact, 0, c)
    flat = b < 1e-3  # of what sums in single precision leave of a constant; a term that moves has a b near 1
    return Fit(a, np.where(flat, 1, b), c, flat)


def normal_score(fitted: Fit, pivots: np.ndarray) -> np.ndarray:
    """The z at which T = a + b z + c z² equals the pivot."""
    off = pivots - fitted.a
    root = fitted.b + np.sqrt(np.maximum(fitted.b**2 + 4 * fitted.c * off, 1e-12))
    return np.asarray(np.where(fitted.c > 0, 2 * off / root, off / fitted.b))


def minus_log_p(family: Family, fitted: Fit, pivots: np.ndarray, student: np.ndarray | None = None) -> np.ndarray:
    """−log p of every term, (…, terms); −inf for a flat term.

    `student` (…, terms) multiplies positive scores: the uncertainty of what a short reference says of its spread. The
    largest cell is never more significant than Bonferroni over its cells, and that bound is all that is left of it
    where it is flat.
    """
    z = normal_score(fitted, pivots)
    if student is not None:
        z = np.where(z > 0, z * student, z)
    out = np.asarray(-(log_ndtr(-z) + np.where(family.two_sided, np.log(2), 0)))
    out[..., fitted.flat] = -np.inf
    at = family.of("largest_cell")
    bound = np.maximum(-(log_ndtr(-pivots[..., at]) + np.log(2 * family.n_cells[at])), 0)
    out[..., at] = np.where(fitted.flat[at], bound, np.minimum(out[..., at], bound))
    return out


def threshold_curve(largest: np.ndarray) -> np.ndarray:
    """Thresholds at RATES for a sample of null window statistics: quantiles, then an exponential tail."""
    largest = np.sort(largest)
    n = max(2, int(EMPIRICAL * len(largest)))
    point = largest[-n - 1]
    excess = float((largest[-n:] - point).mean())
    empirical = np.quantile(largest, 1 - RATES)
    return np.asarray(np.where(RATES >= EMPIRICAL, empirical, point + excess * np.log(n / len(largest) / RATES)))


def exact_curve(family: Family, draws: np.ndarray) -> np.ndarray:
    """Thresholds at RATES that null draws (draws, terms) cannot show: of terms with an exact p-value that never moved.

    What the reference never showed (a missing value, another value than its constant) is in no draw; together such
    terms exceed t in at most Σ weight · exp(−t) of the windows.
    """
    still = np.isin(family.detector, ["missing", "invalid", "unseen", "largest_cell"]) & (np.ptp(draws, axis=0) == 0)
    weight = np.exp(family.log_weight[still]).sum()
    return np.asarray(np.log(max(weight, 1e-300) / RATES))


def opening_curve(thresholds: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Thresholds at RATES from pairs (threshold, alarms opened a window), the thresholds rising.

    Below the threshold at which most alarms open, a lower one only makes them merge: it is never gone below. Beyond
    what was simulated the log rate goes on falling as it did over the last decade.
    """
    first = int(np.argmax(rates))
    positive = np.flatnonzero(rates[first:] > 0) + first
    u, log_rate = thresholds[positive], np.minimum.accumulate(np.log(rates[positive]))
    tail = log_rate <= max(log_rate[-1] + np.log(10), np.log(EMPIRICAL) - np.log(10))
    tail[-max(3, int(tail.sum())) :] = True
    slope = min(float(np.polyfit(u[tail], log_rate[tail], 1)[0]), -0.2) if len(u) > 2 else -1.0
    inside = np.interp(-np.log(RATES), -log_rate, u)
    return np.asarray(np.where(np.log(RATES) >= log_rate[-1], inside, u[-1] + (np.log(RATES) - log_rate[-1]) / slope))

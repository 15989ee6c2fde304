"""How far the mean of newer losses lies over that before, on the scale of a log likelihood ratio."""

import numpy as np

from detectors.sequential.blocks import BLOCKS, UNIT, Ints
from detectors.sequential.change import Floats
from detectors.sequential.threshold import LAGS

LEAST = 1e-300


def statistic(
    n1: Floats, s1: Floats, n2: Floats, s2: Floats, *, dispersion: Floats, skewness: float = 0.0, degrees: float
) -> Floats:
    """The evidence that the mean rose, from sums s1 of n1 rows and s2 of n2; 0 where the second is not the larger.

    The ratio G of independent errors, divided by the losses' `dispersion` φ: at most the same of a Markov chain of
    errors with that dispersion, whose runs give short windows a longer tail than φ says. `skewness`: by how much sums
    are more skewed than that chain's (`skewed`). `degrees` ν: of what is known of φ; G becomes ν/2 · log(1 + 2G/ν),
    which is a t statistic's in place of a normal one's.
    """
    ratio = likelihood_ratio(n1, s1, n2, s2) / dispersion
    p = np.clip((s1 + s2) / (n1 + n2), LEAST, 1.0)
    correlation = np.maximum((dispersion - 1) / (dispersion + 1), 0.0)
    rates = chain_rate(np.stack([s1 / n1, s2 / n2]), p, correlation)
    chain = n1 * rates[0] + n2 * rates[1]
    ratio = np.where(correlation > 0, np.minimum(ratio, np.maximum(chain, 0.0)), ratio)
    ratio = skewed(n1, n2, ratio, skewness) if skewness > 0 else ratio
    return ratio if np.isinf(degrees) else degrees / 2 * np.log1p(2 * ratio / degrees)


def likelihood_ratio(n1: Floats, s1: Floats, n2: Floats, s2: Floats) -> Floats:
    """G of two Bernoulli samples with sums s1 of n1 and s2 of n2 rows; 0 where the second mean is not the larger."""
    ratio = _likelihood(n1, s1) + _likelihood(n2, s2) - _likelihood(n1 + n2, s1 + s2)
    return np.where(s2 * n1 > s1 * n2, np.maximum(ratio, 0.0), 0.0)


def skewed(n1: Floats, n2: Floats, ratio: Floats, skewness: float) -> Floats:
    """The evidence √(2G) standard errors up, were sums of l rows not normal but gamma with `skewness` ÷ √l.

    The difference of means of n₂ and of n₁ rows has γ = skewness (n₂⁻² − n₁⁻²) (n₂⁻¹ + n₁⁻¹)^−1.5. A gamma of k = 4/γ²
    lies y √k standard errors up with rate k (y − log(1 + y)) = k (y²/2 − y³/3 + …): its tail is exponential, as that of
    bursts of random length.
    """
    gamma = skewness * np.maximum(n2**-2.0 - n1**-2.0, 0.0) * (1 / n2 + 1 / n1) ** -1.5
    y = np.sqrt(2 * ratio) * gamma / 2
    factor = np.divide(2 * (y - np.log1p(y)), y * y, out=np.ones_like(y), where=y > 1e-3)
    return np.asarray(ratio * factor)


def chain_skewness(p: float, dispersion: float) -> float:
    """What sums of l rows are skewed by, × √l, in the ratio of `statistic`: those of a Markov chain of errors.

    The chain's third cumulant is p(1 − p)(1 − 2p)(3φ² − 1)/2 a row; for φ < 1 the ratio ÷ φ is that of φ² in its place.
    """
    factor = (3 * dispersion**2 - 1) / 2 if dispersion > 1 else dispersion**2
    return float((1 - 2 * p) * factor / np.sqrt(p * (1 - p) * dispersion**3))


def chain_rate(x: Floats, p: Floats, correlation: Floats) -> Floats:
    """Rate at which the probability falls, a row, that a Markov chain of zeros and ones has a share x of ones.

    `p`: its share in the long run; `correlation` of neighbours, in [0, 1): its dispersion is (1 + r) / (1 − r). With
    0 it is KL(x ‖ p). Of the chains of pairs with a share x the nearest has as many changes u from 1 to 0 as from 0 to
    1, u² / ((x − u)(1 − x − u)) = κ; its relative entropy is the rate.

    References: Dembo & Zeitouni (1998), Large deviations techniques and applications, section 3.1.
    """
    rise = p * (1 - correlation)  # probability of a one after a zero
    stay = p + correlation * (1 - p)  # and after a one
    kappa, t = rise * (1 - stay) / np.maximum(stay * (1 - rise), LEAST), x * (1 - x)
    u = 2 * kappa * t / np.maximum(kappa + np.sqrt(kappa**2 + 4 * (1 - kappa) * kappa * t), LEAST)
    ones = _entropy(x - u, x * stay) + _entropy(u, x * (1 - stay))
    return np.asarray(ones + _entropy(u, (1 - x) * rise) + _entropy(1 - x - u, (1 - x) * (1 - rise)))


def least_sums(n1: float, s1: float, least: Floats) -> Ints:
    """(levels, lags): the sums, in units, below which a window's χ² against s1 of n1 rows is under `least`.

    χ² reaches L where (x n₁ − s₁ n₂)² n ≥ L s (n − s) n₁ n₂ for the sum x of n₂ rows, n = n₁ + n₂, s = s₁ + x: from the
    larger root of a square in x on. It is never below the likelihood ratio.
    """
    n2 = (LAGS * BLOCKS).astype(np.float64)
    n, k = n1 + n2, least * n1 * n2
    a, b = n * n1**2 + k, -2 * n * n1 * n2 * s1 - k * (n - 2 * s1)
    c = n * (s1 * n2) ** 2 - k * s1 * (n - s1)
    root = (-b + np.sqrt(np.maximum(b * b - 4 * a * c, 0.0))) / (2 * a)
    return np.asarray(np.floor(root * (1 - 1e-9) * UNIT).astype(np.int64) - 1)


def _entropy(part: Floats, of: Floats) -> Floats:
    """part · log(part / of), 0 where there is no part."""
    return np.where(part > 0, part * np.log(np.maximum(part, LEAST) / np.maximum(of, LEAST)), 0.0)


def _likelihood(n: Floats, s: Floats) -> Floats:
    """Largest log likelihood of s ones among n: s log(s / n) + (n − s) log(1 − s / n)."""
    inside = (s > 0) & (s < n)
    p = np.where(inside, s, 0.5 * n) / n
    return np.where(inside, s * np.log(p) + (n - s) * np.log1p(-p), 0.0)

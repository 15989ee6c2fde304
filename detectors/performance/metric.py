"""A performance metric with its interval, and the intervals: Wilson's, a mean's, one on the logit scale."""

from dataclasses import dataclass

import numpy as np

Z = 1.959963984540054  # intervals hold 95 %


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of one window: `value` in [`low`, `high`] with 95 % confidence, from `n` rows.

    All three are None where `reason` says why the metric is not defined.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None


def undefined(metric: str, n: float, reason: str) -> Metric:
    """A metric that these rows do not define."""
    return Metric(metric, None, None, None, int(n), reason)


def share(metric: str, hits: float, trials: float, n: float, reason: str) -> Metric:
    """A share of trials with Wilson's score interval (1927); undefined for `reason` without a trial."""
    if trials <= 0:
        return undefined(metric, n, reason)
    return Metric(metric, hits / trials, *wilson(hits / trials, trials), int(n))


def wilson(value: float, trials: float) -> tuple[float, float]:
    """Wilson's score interval: never empty, never outside [0, 1], right also for a share near 0 or 1."""
    scale = 1 + Z**2 / trials
    centre = (value + Z**2 / (2 * trials)) / scale
    half = Z * np.sqrt(value * (1 - value) / trials + Z**2 / (4 * trials**2)) / scale
    return max(0.0, min(value, float(centre - half))), min(1.0, max(value, float(centre + half)))


def around(
    metric: str, value: float, variance: float, n: float, *, least: float = -np.inf, most: float = np.inf
) -> Metric:
    """A value with a normal interval, cut to [`least`, `most`]; undefined where the sums ran over."""
    if not (np.isfinite(value) and np.isfinite(variance)):
        return undefined(metric, n, "overflow")
    half = Z * float(np.sqrt(max(variance, 0.0)))
    return Metric(metric, float(value), max(least, float(value) - half), min(most, float(value) + half), int(n))


def mean(metric: str, total: float, squares: float, n: float, *, least: float = -np.inf) -> Metric:
    """A mean of n rows from their sum and sum of squares; one row alone has no interval and is not told."""
    if n < 2:
        return undefined(metric, n, "too_few_labels")
    return around(metric, total / n, (squares / n - (total / n) ** 2) / (n - 1), n, least=least)


def between_0_and_1(metric: str, value: float, variance: float, n: float, *, trials: float) -> Metric:
    """A value in [0, 1] with a normal interval on the logit scale.

    At 0 and 1, and where no row varied, it is Wilson's for a share of `trials`.
    """
    if value <= 0 or value >= 1 or variance <= 0:
        value = min(1.0, max(0.0, float(value)))
        return Metric(metric, value, *wilson(value, trials), int(n))
    logit, half = np.log(value / (1 - value)), Z * np.sqrt(variance) / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-(logit + side)))) for side in (-half, half))
    return Metric(metric, float(value), low, high, int(n))

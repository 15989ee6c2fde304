"""The threshold of the scan over change points, from its budget of false alarms."""

import numpy as np

LAGS = np.array([8, 10, 12, 14])  # in blocks of 2^level rows: windows of 8 to 7,168 rows, four an octave
N_LEVELS = 10

CONSTANT = -1.15
LEAST_ROWS, MOST_ROWS = 1e3, 1e15


def level(rows_per_false_alarm: float) -> float:
    """The threshold h of a window of 8 rows; a window of l rows has h − log(l / 8).

    A window of l rows is a new one only every l rows or so: were all thresholds equal, the short windows would use the
    whole budget. Lowered by log(l / 8) every octave of lengths has about the same share of it. In the limit of many
    rows the rate of false alarms is about K √h exp(−h); K was fitted to simulated Bernoulli streams, whose base rate
    hardly matters.

    References: Dümbgen & Spokoiny (2001), Multiscale testing of qualitative hypotheses, Annals of Statistics 29;
    Siegmund & Venkatraman (1995), Using the generalized likelihood ratio statistic for sequential detection of a
    change-point, Annals of Statistics 23, for the form of the rate.
    """
    if not LEAST_ROWS <= rows_per_false_alarm <= MOST_ROWS:
        raise ValueError(
            f"`rows_per_false_alarm` must lie in [1e3, 1e15]; got {rows_per_false_alarm!r}. "
            "Pass how many rows may go by for one false alarm."
        )
    h = float(np.log(rows_per_false_alarm))
    for _ in range(50):
        h = float(np.log(rows_per_false_alarm) + 0.5 * np.log(max(h, 1.0)) + CONSTANT)
    return h


def rows_per_false_alarm(statistic: float) -> float:
    """The inverse of `level`: the budget at which a statistic would just reach the threshold of a window of 8 rows."""
    h = max(statistic, 0.0)
    return float(np.exp(min(h - CONSTANT, 700.0)) / np.sqrt(max(h, 1.0)))


def thresholds(rows_per_false_alarm: float) -> np.ndarray:
    """(levels, lags): what the statistic of each window must reach."""
    rows = LAGS << np.arange(N_LEVELS)[:, None]
    return np.asarray(level(rows_per_false_alarm) - np.log(rows / LAGS[0]))

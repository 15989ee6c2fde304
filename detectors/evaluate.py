"""How well alarms met the truth: delays, false alarms and misses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate` found. Times are in the unit of its arguments: rows, windows or seconds.

    `delays[i]` and `recoveries[i]` belong to the i-th drift: from its start to the opening that detected it, and from
    its end to that alarm's resolution (0 where it came before); None where it was missed, or where nothing resolved.
    Every opening is one of `detections`, `repeats` (a further opening during a drift already detected) and
    `false_alarms`; every drift is one of `detections` and `misses`. `quiet_time` is the time without drift, in which
    false alarms can open. A mean or rate is None where there is nothing to take it over.
    """

    delays: tuple[float | None, ...]
    recoveries: tuple[float | None, ...]
    detections: int
    misses: int
    repeats: int
    false_alarms: int
    quiet_time: float
    mean_time_between_false_alarms_interval: tuple[float, float] | None  # 95 %; up to inf where there was none

    @property
    def detection_delay(self) -> float | None:
        """The mean delay over the drifts that were detected."""
        delays = [delay for delay in self.delays if delay is not None]
        return sum(delays) / len(delays) if delays else None

    @property
    def missed_detection_rate(self) -> float | None:
        """The share of the drifts that were missed."""
        return self.misses / len(self.delays) if self.delays else None

    @property
    def false_alarm_rate(self) -> float | None:
        """False alarms per unit of quiet time."""
        return self.false_alarms / self.quiet_time if self.quiet_time else None

    @property
    def mean_time_between_false_alarms(self) -> float | None:
        """Quiet time per false alarm; inf where there was none."""
        if not self.quiet_time:
            return None
        return self.quiet_time / self.false_alarms if self.false_alarms else float("inf")


def evaluate(
    openings: Sequence[float],
    drifts: Sequence[tuple[float, float]],
    *,
    start: float,
    end: float,
    resolutions: Sequence[float | None] | None = None,
    grace: float = 0,
) -> Evaluation:
    """Hold the openings of alarms against the intervals in which there truly was a drift.

    An opening at t belongs to the drift [a, b) with a ≤ t < b + grace; the first one detects it, later ones are
    repeats. Any other opening is a false alarm. An alarm that opened before a drift detects nothing, even where it
    still stands during the drift: it was raised by something else. With k false alarms in the quiet time T, the exact
    Poisson (Garwood) interval of their expected number is [G⁻¹(k, .025), G⁻¹(k + 1, .975)] at 95 %, where G⁻¹(k, ·) are
    the quantiles of the gamma law of shape k, and the mean time between false alarms lies in T over it. It takes false
    alarms for independent: those of overlapping windows come in bursts, for which it is too narrow.

    Parameters
    ----------
    openings
        Times at which alarms opened, in any order, in [start, end]. For alarms of windows: the window's end.
    drifts
        Ascending intervals [a, b) in [start, end], farther apart than `grace`.
    start, end
        What was observed.
    resolutions
        The time at which each alarm of `openings` resolved, or None where it did not. Left out: no recoveries.
    grace
        How long after its end a drift still explains an opening, at least 0: the length of a window that may hold its
        last rows. Raising it excuses more false alarms and takes from the quiet time.

    References: Garwood, "Fiducial Limits for the Poisson Distribution", Biometrika 28, 1936.

    >>> result = evaluate([120, 400, 900], [(100, 300), (600, 700)], start=0, end=1000)
    >>> result.delays, result.misses, result.false_alarms, result.mean_time_between_false_alarms
    ((20.0, None), 1, 2, 350.0)
    """
    opened, bounds = _checked(openings, drifts, start, end, grace)
    resolved = _resolved(opened, resolutions)
    order = np.argsort(opened, kind="stable")
    opened, resolved = opened[order], resolved[order]
    drift = np.searchsorted(bounds[:, 0], opened, side="right") - 1  # the last one that began by then; −1: none had
    belongs = (drift >= 0) & (opened < np.append(bounds[:, 1] + grace, -np.inf)[drift])
    detected, first = np.unique(drift[belongs], return_index=True)
    delays, recoveries = np.full((2, len(bounds)), np.nan)
    delays[detected] = opened[belongs][first] - bounds[detected, 0]
    recoveries[detected] = np.maximum(resolved[belongs][first] - bounds[detected, 1], 0.0)
    false_alarms = int((~belongs).sum())
    quiet_time = float(end - start - (np.minimum(bounds[:, 1] + grace, end) - bounds[:, 0]).sum())
    return Evaluation(
        delays=_none_for_nan(delays),
        recoveries=_none_for_nan(recoveries),
        detections=len(detected),
        misses=len(bounds) - len(detected),
        repeats=len(opened) - false_alarms - len(detected),
        false_alarms=false_alarms,
        quiet_time=quiet_time,
        mean_time_between_false_alarms_interval=_poisson_interval(false_alarms, quiet_time),
    )


def _poisson_interval(false_alarms: int, quiet_time: float) -> tuple[float, float] | None:
    if not quiet_time:
        return None
    high = quiet_time / float(gammaincinv(false_alarms, 0.025)) if false_alarms else float("inf")
    return quiet_time / float(gammaincinv(false_alarms + 1, 0.975)), high


def _checked(
    openings: Sequence[float], drifts: Sequence[tuple[float, float]], start: float, end: float, grace: float
) -> tuple[np.ndarray, np.ndarray]:
    """The openings as an array, (n,), and the drifts as one of (n, 2)."""
    opened, bounds = np.asarray(openings, np.float64), np.asarray(drifts, np.float64).reshape(-1, 2)
    if not start < end:
        raise ValueError(f"`end` must lie after `start`, {start!r}; got {end!r}. Pass the time that was observed.")
    if not grace >= 0:
        raise ValueError(f"`grace` must be at least 0; got {grace!r}. Pass the length of a window.")
    outside = opened[~((opened >= start) & (opened <= end))]
    if outside.size:
        raise ValueError(
            f"`openings` must lie in [{start!r}, {end!r}]; got {outside[0]}. Leave out what was not observed."
        )
    steps = np.concatenate([[start], np.ravel(bounds), [end]])
    gaps = np.diff(steps)
    if not ((gaps[1::2] > 0).all() and (gaps[2:-1:2] >= grace).all() and gaps[0] >= 0 and gaps[-1] >= 0):
        raise ValueError(
            f"`drifts` must be ascending intervals in [{start!r}, {end!r}], at least `grace` apart; got {drifts!r}. "
            "Sort them and merge those that touch."
        )
    return opened, bounds


def _resolved(opened: np.ndarray, resolutions: Sequence[float | None] | None) -> np.ndarray:
    """The time at which each alarm resolved, NaN where it did not."""
    if resolutions is None:
        return np.full(len(opened), np.nan)
    resolved = np.array([np.nan if time is None else time for time in resolutions], np.float64)
    if len(resolved) != len(opened):
        raise ValueError(
            f"`resolutions` must have one entry an opening, {len(opened)}; got {len(resolved)}. "
            "Pass None where an alarm did not resolve."
        )
    early = np.flatnonzero(resolved < opened)
    if early.size:
        raise ValueError(
            f"`resolutions` must not come before their openings; got {resolved[early[0]]} for {opened[early[0]]}. "
            "Pass both in the same order."
        )
    return resolved


def _none_for_nan(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else value for value in values.tolist())

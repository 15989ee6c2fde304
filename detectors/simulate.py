"""Streams with their truth: columns of many kinds, and drifts of every shape and change put into them.

A column is a function of standard normal numbers (`latent`), so that dependence between columns, autocorrelation and a
season are the same for every kind. A drift is a `Schedule`, which says how far each row has drifted, and a change of a
column by that much. Nothing is random but by the generator passed in.

>>> rng = np.random.default_rng(0)
>>> schedule = Schedule("abrupt", start=500, end=1000)
>>> age = shift_mean(normal(latent(1000, 1, rng)[:, 0], mean=40, sd=12), schedule.intensity(1000, rng), by=9)
>>> stream = Stream({"age": age}, times(1000, start_s=0, interval_s=60), Truth(schedule, "mean", ("age",)))
>>> bool(stream.columns["age"][500:].mean() - stream.columns["age"][:500].mean() > 8)
True
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

Shape = Literal["abrupt", "gradual", "incremental", "recurring"]
Change = Literal["mean", "variance", "tail", "category", "missing", "correlation"]

Floats = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a drift is on, in rows: from `start` up to, not including, `end`.

    abrupt: all of it at once. gradual: ever more rows have drifted wholly, their share rising over `ramp_rows`.
    incremental: every row has drifted a little more than the one before, over `ramp_rows`. recurring: on for `on_rows`,
    off for `off_rows`, and so on.
    """

    shape: Shape
    start: int
    end: int
    ramp_rows: int = 0
    on_rows: int = 0
    off_rows: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(
                f"`end` must lie after `start`, which is at least 0; got {self.start} and {self.end}. "
                "Pass rows: the first that drifts and the first that no longer does."
            )
        ramps = self.shape in {"gradual", "incremental"}
        if ramps != (self.ramp_rows > 0):
            raise ValueError(
                f"`ramp_rows` must be {'above 0' if ramps else '0'} for a drift that is {self.shape}; "
                f"got {self.ramp_rows}. Only gradual and incremental drifts have a ramp."
            )
        recurs = self.shape == "recurring"
        if (recurs and min(self.on_rows, self.off_rows) < 1) or (not recurs and (self.on_rows or self.off_rows)):
            raise ValueError(
                f"`on_rows` and `off_rows` must be {'above 0' if recurs else '0'} for a drift that is {self.shape}; "
                f"got {self.on_rows} and {self.off_rows}. Only recurring drifts switch on and off."
            )

    def intervals(self) -> tuple[tuple[int, int], ...]:
        """The runs of rows with a drift, each as (first, one past the last)."""
        if self.shape != "recurring":
            return ((self.start, self.end),)
        firsts = range(self.start, self.end, self.on_rows + self.off_rows)
        return tuple((first, min(first + self.on_rows, self.end)) for first in firsts)

    def intensity(self, n: int, rng: np.random.Generator) -> Floats:
        """How far each of n rows has drifted: float64 in [0, 1], (n,). Gradual: 0 or 1 at random."""
        share = np.zeros(n)
        for first, end in self.intervals():
            share[first:end] = 1.0
        if self.ramp_rows:
            share *= np.clip((np.arange(n) - self.start + 1) / self.ramp_rows, 0.0, 1.0)
        if self.shape == "gradual":
            share = (rng.random(n) < share).astype(np.float64)
        return share


@dataclass(frozen=True, slots=True)
class Truth:
    """What was done to a stream: which change to which features, and when."""

    schedule: Schedule
    change: Change
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """Columns of equal length with their event times; `truth` is None where nothing drifts.

    A numeric column is float64 with NaN for missing, a categorical one object with None.
    """

    columns: dict[str, np.ndarray]
    times_s: Floats  # (n,): epoch seconds
    truth: Truth | None


def times(n: int, *, start_s: float, interval_s: float) -> Floats:
    """Event times of n rows, one every `interval_s` seconds; float64 epoch seconds, (n,)."""
    return start_s + interval_s * np.arange(n, dtype=np.float64)


def latent(n: int, n_columns: int, rng: np.random.Generator, *, correlation: float = 0.0, phi: float = 0.0) -> Floats:
    """Standard normal numbers, (n, n_columns).

    Parameters
    ----------
    correlation
        Between any two columns, in [0, 1].
    phi
        Autocorrelation from one row to the next, in [0, 1): zₜ = φ·zₜ₋₁ + √(1−φ²)·εₜ, stationary from the first row.
    """
    if not 0 <= correlation <= 1:
        raise ValueError(f"`correlation` must lie in [0, 1]; got {correlation!r}. `recorrelate` makes negative ones.")
    if not 0 <= phi < 1:
        raise ValueError(f"`phi` must lie in [0, 1); got {phi!r}. 0 makes the rows independent.")
    noise = math.sqrt(1 - correlation) * rng.standard_normal((n, n_columns))
    noise += math.sqrt(correlation) * rng.standard_normal((n, 1))
    if phi == 0:
        return noise
    from scipy.signal import lfilter  # here: importing it takes longer than most simulations

    noise[1:] *= math.sqrt(1 - phi**2)
    return np.asarray(lfilter([1.0], [1.0, -phi], noise, axis=0))


def with_season(z: Floats, times_s: Floats, *, strength: float, period_s: float = DAY_S) -> Floats:
    """Standard normal numbers with a sine added that makes up the share `strength`, in [0, 1], of their variance.

    z is (n,) or (n, columns). Over whole periods mean 0 and variance 1 are kept; the law is no longer quite normal.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"`strength` must lie in [0, 1]; got {strength!r}. It is the season's share of the variance.")
    sine = math.sqrt(2 * strength) * np.sin(2 * np.pi / period_s * times_s)
    return math.sqrt(1 - strength) * z + (sine if z.ndim == 1 else sine[:, np.newaxis])


def normal(z: Floats, *, mean: float = 0.0, sd: float = 1.0) -> Floats:
    """A normal column."""
    return mean + sd * z


def lognormal(z: Floats, *, median: float = 1.0, sigma: float = 0.5) -> Floats:
    """A skewed positive column: the logarithm is normal with standard deviation `sigma`."""
    return median * np.exp(sigma * z)


def heavy_tailed(z: Floats, *, scale: float = 1.0) -> Floats:
    """Student's t with 2 degrees of freedom: the variance is infinite."""
    # the quantile function is (2u − 1)/√(2u(1 − u)); 1 − u as ndtr(−z) keeps its digits in the upper tail
    upper: Floats = ndtr(-z)
    lower: Floats = ndtr(z)
    return scale * (lower - upper) / np.sqrt(2 * upper * lower)


def zero_inflated(z: Floats, *, zeros: float = 0.6, median: float = 1.0, sigma: float = 0.5) -> Floats:
    """0 in the share `zeros` of the rows, else lognormal numbers that rise with z."""
    if not 0 <= zeros < 1:
        raise ValueError(f"`zeros` must lie in [0, 1); got {zeros!r}. It is the share of rows that are 0.")
    upper = ndtr(-z) / (1 - zeros)  # of the positive rows the share that lies above
    positive = upper < 1
    values = np.zeros(z.shape)
    values[positive] = lognormal(-ndtri(upper[positive]), median=median, sigma=sigma)
    return values


def integer(z: Floats, *, median: float = 12.0, sigma: float = 0.8) -> Floats:
    """Whole numbers from 0 with many ties: lognormal numbers rounded down."""
    return np.floor(lognormal(z, median=median, sigma=sigma))


def category(z: Floats, *, names: Sequence[str], exponent: float = 1.0) -> Objects:
    """Categories with Zipf's shares, 1/rankᵉˣᵖᵒⁿᵉⁿᵗ; a raised exponent makes the first more frequent. Object, (n,)."""
    shares = np.arange(1, len(names) + 1) ** -float(exponent)
    edges = np.cumsum(shares / shares.sum())[:-1]
    drawn: Objects = np.array(names, object)[np.searchsorted(edges, ndtr(z), side="right")]
    return drawn


def boolean(z: Floats, *, share: float = 0.5) -> Objects:
    """True in `share` of the rows. Object, (n,), of Python's own bool."""
    return np.asarray(ndtr(z) >= 1 - share).astype(object)


def shift_mean(values: Floats, intensity: Floats, *, by: float) -> Floats:
    """Add `by`, in the column's unit."""
    return values + by * intensity


def scale_spread(values: Floats, intensity: Floats, *, centre: float, factor: float) -> Floats:
    """Multiply the distances from `centre`, in the column's unit, by `factor`: the variance grows by its square."""
    return centre + (values - centre) * (1 + (factor - 1) * intensity)


def stretch_tail(values: Floats, intensity: Floats, *, above: float, factor: float) -> Floats:
    """Multiply what exceeds `above`, in the column's unit, by `factor`: the rows below do not change."""
    excess = np.maximum(values - above, 0.0)
    return values + (factor - 1) * intensity * excess


def add_category(values: Objects, intensity: Floats, rng: np.random.Generator, *, name: str, share: float) -> Objects:
    """Put the category `name` into `share` of the rows that have drifted."""
    renamed = values.copy()
    renamed[rng.random(len(values)) < share * intensity] = name
    return renamed


def drop_values(values: np.ndarray, intensity: Floats, rng: np.random.Generator, *, share: float) -> np.ndarray:
    """Make `share` of the rows that have drifted missing: NaN, or None in a column of objects."""
    dropped = values.copy()
    dropped[rng.random(len(values)) < share * intensity] = None if values.dtype == object else np.nan
    return dropped


def recorrelate(first: Floats, second: Floats, intensity: Floats, *, before: float, after: float) -> Floats:
    """The second of two latent columns with its correlation to the first moved from `before` to `after`.

    Both are standard normal with the correlation `before`, in (−1, 1), and have the same φ. What comes back is standard
    normal: neither column's own law changes, nor, while the intensity stands still, its autocorrelation. Apply it
    before a latent column is made into one of another kind.
    """
    if not (-1 < before < 1 and -1 <= after <= 1):
        raise ValueError(
            f"`before` must lie in (-1, 1) and `after` in [-1, 1]; got {before!r} and {after!r}. "
            "They are correlation coefficients."
        )
    own = (second - before * first) / math.sqrt(1 - before**2)  # what the second does not share with the first
    correlation = before + (after - before) * intensity
    return correlation * first + np.sqrt(1 - correlation**2) * own

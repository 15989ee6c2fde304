"""Changes of known size, applied to the rows of a window."""

from collections.abc import Callable

import numpy as np

from benchmarks import answers
from benchmarks.streams import Rows

CATEGORIES = 12  # of every categorical feature

Applied = Callable[[Rows, np.random.Generator], None]


def shifted(rows: Rows, rng: np.random.Generator, *, by: float) -> None:
    """The first numeric feature moves."""
    rows.numeric[:, 0] += by


def spread(rows: Rows, rng: np.random.Generator, *, by: float) -> None:
    """Its standard deviation grows."""
    rows.numeric[:, 0] *= by


def lost(rows: Rows, rng: np.random.Generator, *, share: float) -> None:
    """This share of its values is missing."""
    rows.numeric[rng.random(len(rows.numeric)) < share, 0] = np.nan


def renamed(rows: Rows, rng: np.random.Generator, *, share: float) -> None:
    """This share of the rows of the first categorical feature has a category that the reference never showed."""
    rows.ranks[rng.random(len(rows.ranks)) < share, 0] = CATEGORIES


def tied(rows: Rows, rng: np.random.Generator, *, share: float) -> None:
    """In this share of the rows every feature is as far from its centre as the first; its side stays its own.

    For independent symmetric features margins and pairs' correlations stay.
    """
    chosen = rng.random(len(rows.numeric)) < share
    rows.numeric[chosen] = np.copysign(rows.numeric[chosen, :1], rows.numeric[chosen])


def wronger(rows: Rows, rng: np.random.Generator, *, by: float) -> None:
    """The noise of the label grows."""
    if rows.answers is not None:
        rows.answers.label = rows.answers.prediction + by * (rows.answers.label - rows.answers.prediction)


def biased(rows: Rows, rng: np.random.Generator, *, by: float) -> None:
    """The label moves, by so many standard deviations of its noise."""
    if rows.answers is not None:
        rows.answers.label = rows.answers.label + by * answers.NOISE


def mixed_up(rows: Rows, rng: np.random.Generator, *, share: float) -> None:
    """This share of the rows has the label of another of them; how many of each there are stays."""
    if rows.answers is not None:
        chosen = np.flatnonzero(rng.random(len(rows.numeric)) < share)
        rows.answers.label[chosen] = rows.answers.label[rng.permutation(chosen)]


def flipped(rows: Rows, rng: np.random.Generator, *, share: float) -> None:
    """This share of the rows has the other label."""
    if rows.answers is not None:
        chosen = rng.random(len(rows.numeric)) < share
        rows.answers.label = np.where(chosen, 1 - rows.answers.label, rows.answers.label)

"""A window's table against a profile: every score, its place in the calibrated family, and what it comes to."""

from dataclasses import dataclass

import numpy as np

from detectors.contrast import Contrast
from detectors.family import Family, JointDifference, JointEffects
from detectors.profile import Profile
from detectors.score import Score
from detectors.summary import Table
from detectors.two_sample import psi
from detectors.two_sample.special_cells import CELLS

MIN_OBSERVED = 10  # rows with a value that a feature's distribution is judged on
NO_NULL = "no_null"  # the reference never moved the statistic (a constant): it is shown, but has no p-value
PAIRS = "correlation"
LARGEST = 690.0  # −log of the smallest p-value that is told apart, 1e-300


@dataclass(frozen=True, slots=True)
class Scored:
    """`terms[i]` = −log p + log weight of scores[i], −inf where it takes no part. `n`: rows that were judged.

    `quality`: (feature, check, share in the window, share in the reference) of missing, invalid and unseen values.
    """

    scores: tuple[Score, ...]
    terms: tuple[float, ...]
    quality: tuple[tuple[str, str, float, float], ...]
    n: int


def score(profile: Profile, table: Table, *, delayed: bool = False) -> Scored:
    """The scores of one window, feature by feature, the joint ones last; those of what comes with the labels apart."""
    family = profile.family
    contrast = Contrast(profile.basis, reference=profile.counts, current=table.counts.astype(np.float64))
    n = int(contrast.rows[1][profile.grid.delayed == delayed].max(initial=0))
    joint, joint_effects = joint_difference(profile, table)
    pivots = family.pivots(contrast, joint)
    effects = family.effects(contrast, joint_effects)
    minus_log_p = np.minimum(profile.calibration.minus_log_p(family, pivots, n), LARGEST)
    rows = rows_behind(profile, contrast, table)
    reasons = reasons_of(family, rows)
    known = np.array([reason is None for reason in reasons])
    flat = known & np.isneginf(minus_log_p)
    for t in np.flatnonzero(flat):
        reasons[t] = NO_NULL
    p_values = np.where(flat, np.nan, np.exp(-minus_log_p))
    values = np.stack([family.statistics(contrast, effects, pivots), p_values, effects])
    numbers = values.astype(object)
    numbers[np.isnan(values) | ~known] = None
    names, bands = family.names, [psi.band(v) for v in psi.unbiased(contrast).tolist()]
    scores = tuple(
        Score(
            detector,
            statistic,
            p_value,
            effect,
            n_reference,
            n_current,
            names[j],
            None if reason is None else "undetermined",
            reason,
            None if reason else bands[j] if detector == "psi" else joint_effects.pair if detector == PAIRS else None,
        )
        for (j, detector), reason, (statistic, p_value, effect), (n_reference, n_current), is_delayed in zip(
            family.terms,
            reasons,
            numbers.T.tolist(),
            rows.T.astype(int).tolist(),
            family.delayed.tolist(),
            strict=True,
        )
        if is_delayed == delayed
    )
    terms = np.where(known, minus_log_p + family.log_weight, -np.inf)[family.delayed == delayed]
    return Scored(scores, tuple(terms.tolist()), quality(profile, contrast, delayed), n)


def joint_difference(profile: Profile, table: Table) -> tuple[JointDifference, JointEffects]:
    """The joint terms of one window, in null sds and in their own units."""
    n, pairs = float(table.sums[0]), profile.n_pairs
    off = table.sums[1:] / max(n, 1.0) - profile.joint_means[:pairs] * (n > 0)
    size = 1 / np.sqrt(1 / max(n, 1.0) + 1 / profile.n_rows)
    correlation = off * size / profile.calibration.pair_sd(n) if pairs else off
    squares, sizes, effects = [], [], []
    samples = table.samples[: len(profile.random_features)]
    means = np.split(profile.joint_means[pairs:], max(1, len(samples)))
    for sample, reference in zip(samples, means, strict=False):
        noise = 1 / max(sample.n, 1) + 1 / profile.n_rows
        square = 2 * np.mean((sample.sums.sum(axis=0) / max(sample.n, 1) - reference) ** 2) * (sample.n > 0)
        squares.append(np.asarray(square))
        sizes.append(np.asarray(1 / np.sqrt(noise)))
        by_chance = (1 - 2 * np.mean(reference**2)) * noise
        effects.append(float(np.sqrt(max(square - by_chance, 0.0))))
    largest = int(np.argmax(np.abs(correlation))) if pairs else 0
    pair = None
    if pairs:
        first, second = (profile.normal_scores.features[side[largest]] for side in profile.normal_scores.pairs)
        pair = f"{profile.grid.names[first]} ~ {profile.grid.names[second]}"
    change = float(np.abs(off).max(initial=0.0))
    return JointDifference(correlation, tuple(squares), tuple(sizes)), JointEffects(change, pair, tuple(effects))


def rows_behind(profile: Profile, contrast: Contrast, table: Table) -> np.ndarray:
    """Reference and current rows behind every term, float64 (2, terms).

    All of the feature's rows for special cells, those with a value for its distribution; of a joint term those of its
    sums or its sample.
    """
    family = profile.family
    rows = np.zeros((2, len(family.terms)))
    special, single = np.isin(family.detector, list(CELLS)), family.feature < len(profile.grid.features)
    observed = np.stack([contrast.n_reference, contrast.n_current])
    rows[:, special] = np.stack(contrast.rows)[:, family.feature[special]]
    rows[:, ~special & single] = observed[:, family.feature[~special & single]]
    rows[:, family.of("correlation")] = [[profile.n_rows], [table.sums[0]]]
    for sample, name in zip(table.samples, family.samples, strict=False):
        rows[:, family.sample_term(name)] = profile.n_rows, sample.n
    return rows


def reasons_of(family: Family, rows: np.ndarray) -> list[str | None]:
    """Why each term cannot be decided, or None. A special cell needs no observed reference row."""
    special = np.isin(family.detector, list(CELLS))
    reasons: list[str | None] = [None] * len(special)
    for t in np.flatnonzero((rows[1] < MIN_OBSERVED) | (~special & (rows[0] == 0))):
        n_reference, n_current = rows[:, t]
        without = not special[t] and n_reference == 0
        reasons[t] = "no_reference" if without else "too_few_observed" if n_current else "nothing_observed"
    return reasons


def quality(profile: Profile, contrast: Contrast, delayed: bool) -> tuple[tuple[str, str, float, float], ...]:
    """Shares of missing, invalid and unseen rows of each feature in the window and in the reference."""
    shares = [side / np.maximum(rows, 1)[:, None] for side, rows in zip(contrast.special, contrast.rows, strict=True)]
    return tuple(
        (feature.name, check, float(shares[1][j, cell]), float(shares[0][j, cell]))
        for j, feature in enumerate(profile.grid.features)
        for check, cell in CELLS.items()
        if feature.delayed == delayed and (feature.kind == "categorical" if check == "unseen" else not feature.delayed)
    )

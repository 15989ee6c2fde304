"""A window's table against a profile: every score, its place in the calibrated family, and what it comes to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectors.contrast import Contrast
from detectors.family import JointDifference, JointEffects
from detectors.profile import Profile
from detectors.score import Score
from detectors.summary import Table
from detectors.two_sample import psi
from detectors.two_sample.special_cells import CELLS

MIN_OBSERVED = 10  # rows with a value that a feature's distribution is judged on
NO_NULL = "no_null"  # the reference never moved the statistic (a constant): it is shown, but has no p-value
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


def score(profile: Profile, table: Table) -> Scored:
    """The scores of one window, feature by feature, the joint ones last."""
    family = profile.family
    contrast = Contrast(profile.basis, reference=profile.counts, current=table.counts.astype(np.float64))
    n = int(contrast.rows[1].max(initial=0))
    joint, joint_effects = joint_difference(profile, table)
    pivots = family.pivots(contrast, joint)
    effects = family.effects(contrast, joint_effects)
    minus_log_p = np.minimum(profile.calibration.minus_log_p(family, pivots, n), LARGEST)
    reasons = [reason_of(profile, contrast, table, j, detector) for j, detector in family.terms]
    known = np.array([reason is None for reason in reasons])
    for i in np.flatnonzero(known & np.isneginf(minus_log_p)):
        reasons[i] = NO_NULL
    features = family.names
    values = np.stack([family.statistics(contrast, effects, pivots), np.exp(-minus_log_p), effects])
    rows = np.stack([rows_of(profile, contrast, table, j, detector) for j, detector in family.terms])
    bands = [psi.band(v) for v in psi.unbiased(contrast).tolist()]
    details: dict[str, Sequence[str | None]] = {"psi": bands, "correlation": [joint_effects.pair] * len(family.names)}
    scores = tuple(
        Score(
            detector=detector,
            feature=features[j],
            statistic=statistic if ok else None,
            p_value=p if reason is None else None,
            effect=effect if ok else None,
            n_reference=int(n_reference),
            n_current=int(n_current),
            verdict=None if reason is None else "undetermined",
            reason=reason,
            detail=details[detector][j] if reason is None and detector in details else None,
        )
        for (j, detector), ok, reason, (statistic, p, effect), (n_reference, n_current) in zip(
            family.terms, known, reasons, values.T.tolist(), rows.tolist(), strict=True
        )
    )
    terms = np.where(known, minus_log_p + family.log_weight, -np.inf)
    return Scored(scores, tuple(terms.tolist()), quality(profile, contrast), n)


def joint_difference(profile: Profile, table: Table) -> tuple[JointDifference, JointEffects]:
    """The joint terms of one window, in null sds and in their own units."""
    n, pairs = float(table.sums[0]), profile.n_pairs
    off = table.sums[1:] / max(n, 1.0) - profile.joint_means[:pairs] * (n > 0)
    size = 1 / np.sqrt(1 / max(n, 1.0) + 1 / profile.n_rows)
    correlation = off * size / profile.calibration.pair_sd(n) if pairs else off
    squares, sizes, effects = [], [], []
    means = np.split(profile.joint_means[pairs:], max(1, len(table.samples)))
    for sample, reference in zip(table.samples, means, strict=False):
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


def reason_of(profile: Profile, contrast: Contrast, table: Table, j: int, detector: str) -> str | None:
    """Why a term cannot be decided, or None."""
    if j == len(profile.grid.features):
        n = table.sums[0] if detector == "correlation" else table.samples[-1].n
        return None if n >= MIN_OBSERVED else "too_few_observed"
    if detector not in CELLS and contrast.n_reference[j] == 0:
        return "no_reference"
    n = contrast.rows[1][j] if detector in CELLS else contrast.n_current[j]
    return None if n >= MIN_OBSERVED else "too_few_observed" if n else "nothing_observed"


def rows_of(profile: Profile, contrast: Contrast, table: Table, j: int, detector: str) -> tuple[float, float]:
    """Reference and current rows behind a term: all of the feature's for special cells, else those observed."""
    if j == len(profile.grid.features):
        return profile.n_rows, table.sums[0] if detector == "correlation" else table.samples[-1].n
    if detector in CELLS:
        return contrast.rows[0][j], contrast.rows[1][j]
    return contrast.n_reference[j], contrast.n_current[j]


def quality(profile: Profile, contrast: Contrast) -> tuple[tuple[str, str, float, float], ...]:
    """Shares of missing, invalid and unseen rows of each feature in the window and in the reference."""
    shares = [side / np.maximum(rows, 1)[:, None] for side, rows in zip(contrast.special, contrast.rows, strict=True)]
    return tuple(
        (feature.name, check, float(shares[1][j, cell]), float(shares[0][j, cell]))
        for j, feature in enumerate(profile.grid.features)
        for check, cell in CELLS.items()
        if check != "unseen" or feature.kind == "categorical"
    )

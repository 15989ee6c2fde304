"""The calibrated family: every (feature, statistic) that can raise the alarm, and its share of the budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from detectors.basis import Basis
from detectors.contrast import Contrast
from detectors.grid import Feature
from detectors.two_sample import cells, chi_square, ks, psi, smooth, special_cells, wasserstein

WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "numeric": {
        "location": 0.58,
        "scale": 0.20,
        "ks": 0.03,
        "wasserstein": 0.03,
        "chi_square": 0.02,
        "psi": 0.02,
        "largest_cell": 0.05,
        "missing": 0.05,
        "invalid": 0.02,
    },
    "categorical": {
        "chi_square": 0.25,
        "psi": 0.05,
        "largest_cell": 0.15,
        "missing": 0.12,
        "invalid": 0.03,
        "unseen": 0.40,
    },
    "loss": {"location": 1.0, "ks": 0.0, "largest_cell": 0.1},
    "embedding": {"mmd": 0.80, "missing": 0.12, "invalid": 0.08},
    "*": {"correlation": 0.5, "mmd": 0.5},
}
"""Share of a feature's significance that each of its statistics gets; the joint ones share one more feature's.

The loss of each row is asked one question, whether its mean is another than it was: its distribution takes another
shape with every change of the predictions, also where the model answers as well as before. Its largest CDF gap is there
for the floors alone; a single cell counts where the reference never showed but one loss.
"""

JOINT = "*"
NOWHERE = np.empty(0, np.intp)
TWO_SIDED = frozenset({"location", "scale", "missing"})


def role(feature: Feature) -> str:
    """The weights that a feature's statistics have: those of its kind, or of the loss."""
    return "loss" if feature.is_loss else feature.kind


@dataclass(frozen=True, slots=True)
class JointDifference:
    """What a window and the reference differ by jointly; leading axes broadcast.

    `correlation`: change of the mean product of each watched pair, in null sds (…, pairs); `mmd`: one (…) array of
    the squared distance between mean random features for each sample, with the sample's own size (1/n + 1/N)^-½.
    """

    correlation: np.ndarray
    mmd: tuple[np.ndarray, ...]
    mmd_size: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Family:
    """Terms in the order of their features, the joint feature `*` last.

    `samples` names the feature of each MMD sample ("*" for the numeric features together).
    """

    basis: Basis
    n_pairs: int
    samples: tuple[str, ...]

    @cached_property
    def terms(self) -> tuple[tuple[int, str], ...]:
        """(feature index, detector) of every term; the index of `*` is the number of features."""
        grid = self.basis.grid
        terms = [(j, name) for j, f in enumerate(grid.features) for name in WEIGHTS[role(f)] if self._has(f, name)]
        return (*terms, *((len(grid.features), name) for name in WEIGHTS[JOINT] if self._has(None, name)))

    def _has(self, feature: Feature | None, detector: str) -> bool:
        """Whether a feature (None: the joint one) has the detector. A missing label is none, and not counted."""
        if detector == "mmd":
            return (JOINT if feature is None else feature.name) in self.samples
        if feature is not None and role(feature) == "loss":
            return detector != "largest_cell" or self._is_constant(feature.name)
        if feature is not None and feature.delayed:
            return detector not in {"missing", "invalid"}
        return detector != "correlation" or self.n_pairs > 0

    def _is_constant(self, name: str) -> bool:
        """Whether the reference never showed but one value: then only a new one can tell that it moved."""
        grid = self.basis.grid
        return not self.basis.normal[grid.owner == grid.names.index(name)].any()

    @cached_property
    def delayed(self) -> np.ndarray:
        """Which terms are of what comes with the labels, bool (terms,)."""
        return np.asarray(np.append(self.basis.grid.delayed, False)[self.feature])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features' names and `*`."""
        return (*self.basis.grid.names, JOINT)

    @cached_property
    def feature(self) -> np.ndarray:
        """The feature index of every term, intp."""
        return np.array([j for j, _ in self.terms], np.intp)

    @cached_property
    def starts(self) -> np.ndarray:
        """The first term of each feature that has terms, intp."""
        return np.flatnonzero(np.diff(self.feature, prepend=-1))

    @cached_property
    def detector(self) -> np.ndarray:
        """The detector's name of every term."""
        return np.array([name for _, name in self.terms])

    @cached_property
    def log_weight(self) -> np.ndarray:
        """Log of every term's weight within its feature."""
        roles = [*(role(f) for f in self.basis.grid.features), JOINT]
        weights = np.array([WEIGHTS[roles[j]][name] for j, name in self.terms])
        whole = np.bincount(self.feature, weights, minlength=len(roles))
        with np.errstate(divide="ignore"):  # a weight of 0 has no part in the alarm
            return np.asarray(np.log(weights / whole[self.feature]))

    @cached_property
    def two_sided(self) -> np.ndarray:
        """Whether a term's p-value is two-sided, bool."""
        return np.isin(self.detector, list(TWO_SIDED))

    @cached_property
    def n_cells(self) -> np.ndarray:
        """Regular cells of every term's feature, for the bound of `largest_cell`."""
        return np.asarray(np.append(self.basis.grid.sizes, 1)[self.feature])

    def of(self, detector: str) -> np.ndarray:
        """The terms of one detector, intp."""
        return self._places.get(detector, NOWHERE)

    @cached_property
    def _places(self) -> dict[str, np.ndarray]:
        return {str(name): np.flatnonzero(self.detector == name) for name in np.unique(self.detector)}

    def pivots(self, contrast: Contrast, joint: JointDifference) -> np.ndarray:
        """Every term in the form whose null distribution hardly depends on the sample sizes, (…, terms).

        Larger = more drift, except for `missing`, which has its sign.
        """
        size = contrast.size
        pivots = {
            "location": np.abs(smooth.location(contrast)) * size,
            "scale": np.abs(smooth.scale(contrast)) * size,
            "ks": ks.statistic(contrast) * size,
            "wasserstein": wasserstein.statistic(contrast) * size,
            "chi_square": np.sqrt(chi_square.statistic(contrast)),
            "psi": np.sqrt(psi.statistic(contrast)) * size,
            "largest_cell": cells.statistic(contrast),
            "missing": np.abs(special_cells.statistic(contrast, "missing")),
            "invalid": np.maximum(special_cells.statistic(contrast, "invalid"), 0),
            "unseen": np.maximum(special_cells.statistic(contrast, "unseen"), 0),
        }
        out = np.zeros((*np.broadcast_shapes(size.shape[:-1]), len(self.terms)), contrast.current.dtype)
        for name, values in pivots.items():
            at = self.of(name)
            out[..., at] = values[..., self.feature[at]]
        if self.n_pairs:
            out[..., self.of("correlation")] = np.abs(joint.correlation).max(axis=-1)[..., None]
        for k, name in enumerate(self.samples):
            out[..., self.sample_term(name)] = np.sqrt(joint.mmd[k]) * joint.mmd_size[k]
        return out

    def sample_term(self, name: str) -> int:
        """The MMD term of a sample."""
        return self.terms.index((self.names.index(name), "mmd"))

    def effects(self, contrast: Contrast, joint: "JointEffects") -> np.ndarray:
        """Every term's change in its own unit (interfaces: `effect`), at least 0, (terms,); for one window."""
        effects = {
            "location": np.abs(smooth.location(contrast)),
            "scale": np.abs(smooth.scale(contrast)),
            "ks": ks.statistic(contrast),
            "wasserstein": wasserstein.statistic(contrast),
            "chi_square": chi_square.half_l1(contrast),
            "psi": psi.unbiased(contrast),
            "largest_cell": cells.change(contrast),
            "missing": np.abs(special_cells.change(contrast, "missing")),
            "invalid": np.maximum(special_cells.change(contrast, "invalid"), 0),
            "unseen": np.maximum(special_cells.change(contrast, "unseen"), 0),
        }
        out = np.zeros(len(self.terms))
        for name, values in effects.items():
            at = self.of(name)
            out[at] = values[self.feature[at]]
        out[self.of("correlation")] = joint.correlation
        for k, name in enumerate(self.samples):
            out[self.sample_term(name)] = joint.mmd[k]
        return out

    def statistics(self, contrast: Contrast, effects: np.ndarray, pivots: np.ndarray) -> np.ndarray:
        """Every term's statistic as its literature reports it, (terms,); for one window."""
        out = effects.copy()
        at = self.of("chi_square")
        out[at] = chi_square.statistic(contrast)[self.feature[at]]
        at = self.of("psi")
        out[at] = psi.statistic(contrast)[self.feature[at]]
        at = np.isin(self.detector, ["largest_cell", "missing", "invalid", "unseen", "correlation"])
        out[at] = pivots[at]
        return out


@dataclass(frozen=True, slots=True)
class JointEffects:
    """The joint differences of one window in their own units: change of a pair's mean product, and MMD."""

    correlation: float
    pair: str | None  # the features whose product changed most
    mmd: tuple[float, ...]

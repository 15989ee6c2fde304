"""All that performance needs of a reference with predictions and labels, in one record; to and from plain arrays.

tally and sums: its own metrics; confidence: estimates for probabilities; direct_loss: estimates for all others; labels:
what kinds of drift need. Whoever keeps a profile keeps these arrays beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from detectors.performance import direct_loss
from detectors.performance.confidence import Confidence, confidence
from detectors.performance.confusion import Confusion, is_binary
from detectors.performance.direct_loss import DirectLoss
from detectors.performance.kind import Labels, Learnt, labels_of
from detectors.performance.loss import loss, residual
from detectors.performance.loss_baseline import LossBaseline
from detectors.performance.loss_model import LossModel
from detectors.performance.metric import Metric
from detectors.performance.multiclass import Multiclass
from detectors.performance.regression import Regression
from detectors.performance.scores import Scores
from detectors.performance.tally import PredictionKind, Tally, tally_of

LOSSES = 3  # sums of the loss: rows, loss, its square
BASELINE = tuple(f.name for f in fields(LossBaseline))
FIFTHS = (0.2, 0.4, 0.6, 0.8)  # of a numeric label, as its groups


@dataclass(frozen=True)
class PerformanceReference:
    """`sums` are the reference's own; `edges` stand between the groups of a numeric label, (0.5) for 0 and 1."""

    kind: PredictionKind
    tally: Tally
    sums: np.ndarray
    edges: np.ndarray
    labels: Labels
    baseline: LossBaseline
    direct_loss: DirectLoss | None = None  # not for probabilities

    @cached_property
    def confidence(self) -> Confidence | None:
        """The estimator for probabilities."""
        return confidence(self.tally, self.sums) if isinstance(self.tally, Scores) else None

    def group(self, label: np.ndarray) -> np.ndarray:
        """Index of each label's group, intp, −1 for none; labels as `Tally.count` takes them."""
        return groups(self.tally, self.edges, label)

    @cached_property
    def expectation(self) -> DirectLoss:
        """What to expect of a row's losses, the judged one first."""
        return self.direct_loss or DirectLoss({"loss": self.labels.model})

    @property
    def size(self) -> int:
        """Length of a window's sums: the tally's, then rows, their loss and its square, rows of each label."""
        return self.tally.size + LOSSES + len(self.labels.names)

    def count(self, prediction: np.ndarray, label: np.ndarray, loss: np.ndarray) -> np.ndarray:
        """The sums of a batch, float64 (size,); rows as `Tally.count` takes them, with the loss of each."""
        group = self.group(label)
        known = np.isfinite(loss) & (group >= 0)
        true = loss[known]
        by_label = np.bincount(group[known], minlength=len(self.labels.names))
        with np.errstate(over="ignore"):
            of_loss = [len(true), true.sum(), (true**2).sum()]
        return np.concatenate([self.tally.count(prediction, label), of_loss, by_label])

    def estimates(self, cells: np.ndarray, expected: np.ndarray) -> tuple[Metric, ...]:
        """Metrics without labels: from the rows in each cell of the prediction, and the sums of `expectation`."""
        if self.confidence is not None:
            return self.confidence.metrics(cells)
        n_sample = max(float(expected[0]), 1.0)
        return self.expectation.metrics(expected * (max(float(cells.sum()), n_sample) / n_sample))

    def labelled(self, sums: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """What `kind_of` takes, of a window's sums and those of `expectation` over a sample of the window's rows.

        Which rows of the sample have their label is not known. The sample stands for all; loss and expected loss vary
        together as they do where the expectation is right. The rest of the loss then has the variance
        (var loss − 2 var expected) / n + var expected / sample.
        """
        n, loss, loss_2 = sums[self.tally.size :][:LOSSES].tolist()
        by_label = sums[self.tally.size + LOSSES :]
        n_sample = max(float(expected[0]), 1.0)
        mean, square = (float(v) / n_sample for v in expected[1:3])
        together = max(square - mean**2, 0.0) * (3 - n / n_sample) / 2
        both = n * together + loss * mean
        return np.concatenate([[n, loss, loss_2, n * mean, n * square, both], by_label])

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Every part by its name; `from_arrays` is the inverse."""
        tally = self.tally
        arrays: dict[str, Any] = {"kind": self.kind, "sums": self.sums, "edges": self.edges}
        if isinstance(tally, Scores):
            arrays |= {"tally.edges": tally.edges, "tally.threshold": tally.threshold}
        elif isinstance(tally, Multiclass):
            arrays["tally.classes"] = list(tally.classes)
        elif isinstance(tally, Regression):
            arrays["tally.centre"] = tally.centre
        arrays |= {f"labels.{f.name}": getattr(self.labels, f.name) for f in fields(Labels) if f.name != "model"}
        arrays |= {f"baseline.{name}": part for name, part in self.baseline.to_arrays().items()}
        models = {"labels": self.labels.model}
        if self.kind == "numeric" and self.direct_loss is not None:
            models |= self.direct_loss.models
        for name, model in models.items():
            arrays |= {f"model.{name}.{f.name}": getattr(model, f.name) for f in fields(LossModel)}
        return {name: np.asarray(values) for name, values in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "PerformanceReference":
        """The inverse of `to_arrays`; KeyError where one is missing."""
        kinds: dict[str, PredictionKind] = {kind: kind for kind in get_args(PredictionKind)}
        kind = kinds[str(arrays["kind"])]
        tally: Tally = Confusion()
        if kind == "probability":
            tally = Scores(arrays["tally.edges"], float(arrays["tally.threshold"]))
        elif kind == "categorical":
            tally = Multiclass(tuple(arrays["tally.classes"].tolist()))
        elif kind == "numeric":
            tally = Regression(float(arrays["tally.centre"]))
        parts = {f.name: arrays[f"labels.{f.name}"] for f in fields(Labels) if f.name != "model"}
        names, largest = tuple(parts.pop("names").tolist()), float(parts.pop("largest_loss"))
        labels = Labels(names=names, largest_loss=largest, model=read(arrays, "labels"), **parts)
        estimator = None if kind == "probability" else DirectLoss({"accuracy": labels.model})
        if kind == "numeric":
            estimator = DirectLoss({"mae": read(arrays, "mae"), "rmse": read(arrays, "rmse")})
        return cls(
            kind=kind,
            tally=tally,
            sums=arrays["sums"],
            edges=arrays["edges"],
            labels=labels,
            baseline=LossBaseline.from_arrays({name: arrays[f"baseline.{name}"] for name in BASELINE}),
            direct_loss=estimator,
        )


def read(arrays: Mapping[str, np.ndarray], name: str) -> LossModel:
    """A loss model out of its arrays."""
    parts: dict[str, Any] = {f.name: arrays[f"model.{name}.{f.name}"] for f in fields(LossModel)}
    scalars = {"mean": float, "dispersion": float, "n_rows": int}
    return LossModel(**{part: scalars[part](v) if part in scalars else v for part, v in parts.items()})


def performance_reference(
    kind: PredictionKind,
    prediction: Any,
    label: Any,
    *,
    learnt: Learnt,
    codes: np.ndarray,
    threshold: float = 0.5,
) -> PerformanceReference:
    """From a reference's rows: predictions and labels as `tally_of` takes them, and the flat cells of all features.

    `learnt` names the features that the model sees, and the prediction, on the grid of `codes`. Where the prediction's
    cells on that grid part at the threshold (`score_edges` gives such edges), they are the score cells as well: a
    window's counts of them are all that `confidence` needs.
    """
    tally = tally_of(kind, prediction, label, threshold=threshold)
    of_grid = None if learnt.prediction is None else learnt.basis.grid.features[learnt.prediction].edges
    if isinstance(tally, Scores) and of_grid is not None and np.nextafter(threshold, -np.inf) in of_grid:
        tally = Scores(of_grid, threshold)
    edges = np.array([0.5])
    names: tuple[str, ...] = ("0", "1")
    if isinstance(tally, Multiclass):
        prediction, label = tally.codes(prediction), tally.codes(label)
        names = (*tally.classes, "others")
    elif kind == "numeric":
        finite = label[np.isfinite(label)]
        edges = np.unique(np.quantile(finite, FIFTHS)) if len(finite) else np.empty(0)
        names = ranges(edges)
    losses = loss(kind, prediction, label)
    labels, baseline = (
        labels_of(learnt, codes, names, groups(tally, edges, label), losses),
        LossBaseline.of(kind, losses),
    )
    estimator = None if kind == "probability" else DirectLoss({"accuracy": labels.model})
    if kind == "numeric":
        seen = np.append(learnt.features, [] if learnt.prediction is None else [learnt.prediction]).astype(np.intp)
        estimator = direct_loss.of_numbers(learnt.basis.grid, codes, residual(kind, prediction, label), seen)
    return PerformanceReference(kind, tally, tally.count(prediction, label), edges, labels, baseline, estimator)


def groups(tally: Tally, edges: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Index of each label's group, −1 for none: the class, or between which edges it lies."""
    if isinstance(tally, Multiclass):
        return np.where(label < 0, -1, np.minimum(label, len(tally.classes)))
    usable = np.isfinite(label) if isinstance(tally, Regression) else is_binary(label)
    return np.where(usable, np.searchsorted(edges, label, "left"), -1)


def ranges(edges: np.ndarray) -> tuple[str, ...]:
    """What the groups between some edges are called."""
    if not len(edges):
        return ("any",)
    inner = (f"above {low:.4g} to {high:.4g}" for low, high in pairwise(edges.tolist()))
    return (f"at most {edges[0]:.4g}", *inner, f"above {edges[-1]:.4g}")

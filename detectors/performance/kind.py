"""Which kind of drift a window shows, with the figures that say so and what to do about it.

Asked in this order, of a window that has raised an alarm already:
data_quality: a pipeline fault struck a larger share of the rows than changed cells in any other feature (`faults`; of
the prediction only that it is missing, of a wrong type or unknown: otherwise it moves with what moves it);
prior: the labels' shares moved, and the features moved as the reference re-weighted to them says (`label_shift`);
concept: the loss moved by more than the reference re-weighted to today's features explains, and that rest is larger
than what they explain (`loss_shift`); labels are needed to see it;
covariate: the features moved; also where none of the above can be shown.

Not to be trusted to the letter: kinds mix, and one name is given. Without labels no concept drift is seen. In a
regression where Y all but follows from one feature, prior and covariate shift are the same thing. Standard errors are
those of independent rows: that something moved is the alarm's word, here it is only asked what.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from detectors.basis import Basis
from detectors.grid import SPECIAL
from detectors.performance import label_shift, loss_model, loss_shift
from detectors.performance.faults import MIN_RISE, faults
from detectors.performance.label_shift import LabelShift
from detectors.performance.loss_model import LossModel
from detectors.performance.loss_shift import LossShift
from detectors.performance.moves import Moves, moves

Name = Literal["covariate", "prior", "concept", "data_quality"]
Suggestion = Literal["retrain", "fix_the_pipeline", "recalibrate", "watch"]

MOVED = 4.0  # standard errors beyond which a feature, the labels' shares or the loss count as moved
CLEAR = 2.0  # standard errors, of one look where an alarm or another feature has spoken already
BEYOND = 3.0
MIN_LABELS = 30
SUMS = 6  # of labelled rows, before the counts of their labels
TOLD = 3  # features or faults in the evidence


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of drift; `evidence` are short sentences with figures, the strongest first."""

    kind: Name
    evidence: tuple[str, ...]
    suggestion: Suggestion


@dataclass(frozen=True)
class Labels:
    """What the reference says of labels (classes, or groups of a number) and losses.

    `counts` (labels, cells): rows of each label in each cell; `rows`, `loss_mean`, `loss_variance` (labels,).
    """

    names: tuple[str, ...]
    counts: np.ndarray
    rows: np.ndarray
    loss_mean: np.ndarray
    loss_variance: np.ndarray
    largest_loss: float
    model: LossModel

    def count(self, codes: np.ndarray, label: np.ndarray, loss: np.ndarray) -> np.ndarray:
        """Sums of rows whose label has come: flat cells (rows, features), index of the label, loss; sums add.

        (rows, loss, its square, expected loss, its square, loss · expected, then rows of each label). Rows with label
        −1 or without a loss (NaN) are left out.
        """
        known = np.isfinite(loss) & (label >= 0)
        true, expected = loss[known], self.model.expected(codes[known])
        powers = (true, true**2, expected, expected**2, true * expected)
        rows = np.bincount(label[known], minlength=len(self.names))
        return np.concatenate([[known.sum(), *(power.sum() for power in powers)], rows]).astype(np.float64)


@dataclass(frozen=True)
class Learnt:
    """What the reference says: `counts` (cells,); `features`, indices of what the model sees; the `prediction`'s."""

    basis: Basis
    counts: np.ndarray
    features: np.ndarray
    prediction: int | None = None
    labels: Labels | None = None

    def rows(self, counts: np.ndarray) -> float:
        """Rows of a table: the most that any feature has which the model sees."""
        grid = self.basis.grid
        special = counts[: grid.n_special].reshape(-1, SPECIAL).sum(axis=1)
        seen = self.features.tolist() or [0 if self.prediction is None else self.prediction]
        return max(float(counts[grid.slice(j)].sum() + special[j]) for j in seen)


def labels_of(learnt: Learnt, codes: np.ndarray, names: tuple[str, ...], label: np.ndarray, loss: np.ndarray) -> Labels:
    """From a reference's flat cells (rows, all features), each row's label (index, −1 = none) and loss (NaN = none)."""
    known = np.isfinite(loss) & (label >= 0)
    groups = [np.flatnonzero(known & (label == k)) for k in range(len(names))]
    seen = [*learnt.features.tolist(), *([] if learnt.prediction is None else [learnt.prediction])]
    return Labels(
        names=names,
        counts=np.array([learnt.basis.grid.count(codes[rows]) for rows in groups]),
        rows=np.array([len(rows) for rows in groups], np.float64),
        loss_mean=np.array([loss[rows].mean() if len(rows) else 0.0 for rows in groups]),
        loss_variance=np.array([loss[rows].var() if len(rows) else 0.0 for rows in groups]),
        largest_loss=float(loss[known].max(initial=0.0)),
        model=loss_model.fit(learnt.basis.grid, codes[known], loss[known], np.array(seen, np.intp)),
    )


def kind_of(
    learnt: Learnt, current: np.ndarray, labelled: np.ndarray | None = None, *, loss_rose: bool = False
) -> Kind:
    """The kind of a window's drift, from its counts (cells,) and, where labels have come, `Labels.count` of them.

    `loss_rose`: row by row the loss was seen to rise, maybe in few of the window's rows; what does not explain it need
    not be seen in this window then.
    """
    if labelled is not None and labelled[0] < MIN_LABELS:
        labelled = None
    n_reference = learnt.rows(learnt.counts)
    moved = moves(learnt.basis, learnt.counts, current, learnt.features, n_reference)
    loss = explained_by_features(learnt, labelled, float(moved.distance.sum()))
    said = sentences(learnt, current, moved)
    broken = [
        f
        for f in faults(learnt.basis.grid, learnt.counts, current)
        if f.feature in learnt.features or (f.feature == learnt.prediction and f.fault in MIN_RISE)
    ]
    if broken:
        whole = ~np.isin(learnt.features, [f.feature for f in broken])
        beside, struck = np.sqrt(moved.distance[whole & (moved.z > MOVED)].max(initial=0.0)) / 2, broken[0].share
        if struck >= beside and not is_beyond(loss, struck, learnt, current):
            return Kind("data_quality", tuple(f.sentence for f in broken[:TOLD]), "fix_the_pipeline")
        said = (*said, broken[0].sentence)
        if not is_beyond(loss, struck, learnt, current):
            loss = None  # what the features leave of it may be the fault's
    shift = shift_of_labels(learnt, current, labelled)
    if shift is not None and shift.z > (MOVED if said else CLEAR) and learnt.labels is not None:
        about_labels = share_sentence(shift, learnt.labels)
        if follow(learnt, shift, learnt.labels, current) and is_explained(learnt.labels, labelled, loss):
            return Kind("prior", (about_labels, *said), "recalibrate")
        if shift.source == "labels" and not said:
            about_loss = (loss_sentence(loss),) if loss is not None and abs(loss.z) > CLEAR else ()
            return Kind("concept", (*about_loss, about_labels, "no feature moved"), "retrain")
    if loss is not None and abs(loss.z) > (MOVED if said else CLEAR) and abs(loss.rest) >= abs(loss.explained):
        return Kind("concept", (loss_sentence(loss), *said), "retrain")
    hurts = loss is not None and loss.explained > MOVED * loss.explained_error
    said = (*said, *([loss_sentence(loss)] if loss else []))
    if loss_rose and not hurts and not moved.z.max(initial=0.0) > MOVED:
        return Kind("concept", said, "retrain")
    return Kind("covariate", said, "retrain" if hurts or loss_rose else "watch")


def explained_by_features(learnt: Learnt, labelled: np.ndarray | None, distance: float) -> LossShift | None:
    """The loss's change beside what today's features explain; None without labels."""
    if labelled is None or learnt.labels is None:
        return None
    model = learnt.labels.model
    return loss_shift.by_features(
        labelled[:SUMS],
        before=model.mean,
        dispersion=model.dispersion,
        n_reference=model.n_rows,
        distance=distance,
    )


def follow(learnt: Learnt, shift: LabelShift, labels: Labels, current: np.ndarray) -> bool:
    """Whether features moved as the reference re-weighted to today's labels says, rather than stayed.

    Each that fits the mixture has a say: chi-square to the reference less that to the mixture, which is about +c where
    it moved as the mixture says and −c where it stayed (c = chi-square between the two), with standard error 2√c.
    One that fits not moved for a reason of its own; then the others must be clear. The prediction has no say: it moves
    with the label under covariate drift too.
    """
    some = learnt.features
    n_reference, n = learnt.rows(learnt.counts), learnt.rows(current)
    mixture = label_shift.expected(shift, labels.counts)
    stayed = moves(learnt.basis, learnt.counts, current, some, n_reference)
    moved = moves(learnt.basis, mixture, current, some, n_reference)
    apart = moves(learnt.basis, learnt.counts, mixture / mixture.sum() * current.sum(), some, n_reference).square
    fits = moved.z <= MOVED
    say = np.clip(stayed.square - moved.square, -apart, apart)[fits].sum() / (2 * np.sqrt(apart[fits].sum() + 1e-9))
    return bool(n > 0 and say > (0 if fits.all() else CLEAR))


def is_explained(labels: Labels, labelled: np.ndarray | None, loss: LossShift | None) -> bool:
    """Whether today's labels explain the loss: better than today's features do, or within its error."""
    if labelled is None or loss is None:
        return True
    rest = loss_shift.by_labels(
        labelled[SUMS:],
        labelled[1],
        labelled[2],
        mean=labels.loss_mean,
        variance=labels.loss_variance,
        rows=labels.rows,
    )
    return abs(rest.z) < max(MOVED, abs(loss.z))


def is_beyond(loss: LossShift | None, struck: float, learnt: Learnt, current: np.ndarray) -> bool:
    """Whether the loss rose by more than the share of struck rows could make it, each with the largest loss.

    A loss without a bound may grow to BEYOND times the largest that was seen; where predictions left the reference's
    range, to any size.
    """
    if loss is None or learnt.labels is None or learnt.prediction is None:
        return False
    before, now = (side[learnt.basis.grid.slice(learnt.prediction)] for side in (learnt.counts, current))
    ends = [side[[0, -1]].sum() / max(side.sum(), 1) for side in (before, now)]
    in_range = ends[1] - ends[0] < struck / 10
    largest = learnt.labels.largest_loss
    most = struck * (largest if largest <= 1 else BEYOND * largest)
    return bool(in_range and loss.rest - MOVED * loss.rest_error > most)


def shift_of_labels(learnt: Learnt, current: np.ndarray, labelled: np.ndarray | None) -> LabelShift | None:
    """From labels, or else from predictions; None without either."""
    if learnt.labels is None:
        return None
    if labelled is not None:
        return label_shift.from_labels(learnt.labels.rows, labelled[SUMS:])
    if learnt.prediction is None:
        return None
    cells = learnt.basis.grid.slice(learnt.prediction)
    return label_shift.from_predictions(learnt.labels.counts[:, cells], current[cells])


def sentences(learnt: Learnt, current: np.ndarray, moved: Moves) -> tuple[str, ...]:
    """A sentence for each of the features that moved most."""
    grid, said = learnt.basis.grid, []
    for i in np.argsort(-moved.distance, kind="stable")[:TOLD].tolist():
        cells = grid.slice(int(learnt.features[i]))
        if moved.z[i] > MOVED:
            before, now = (side[cells] / max(float(side[cells].sum()), 1.0) for side in (learnt.counts, current))
            share = np.abs(now - before).sum() / 2
            said.append(f"`{grid.names[int(learnt.features[i])]}` moved: {share:.0%} of its rows changed cells")
    return tuple(said)


def share_sentence(shift: LabelShift, labels: Labels) -> str:
    """The label whose share changed most."""
    k = int(np.argmax(np.abs(shift.now - shift.before)))
    how = "are" if shift.source == "labels" else "are, to judge by the predictions,"
    return f"{shift.now[k]:.1%} of the labels {how} {labels.names[k]}; {shift.before[k]:.1%} in the reference"


def loss_sentence(loss: LossShift) -> str:
    """The loss before and now, and what of its change the features explain."""
    return (
        f"mean loss {loss.now:.4g}; {loss.before:.4g} in the reference: "
        f"today's features explain {loss.explained:+.2g}, {loss.rest:+.2g} ± {loss.rest_error:.1g} is left"
    )

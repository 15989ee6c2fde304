"""How often the kind of a drift is named right: simulated drifts of each of the four kinds alone, and mixed.

`python -m benchmarks.kinds` writes docs/kinds.md in about two minutes.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from benchmarks import document, kind_drifts
from benchmarks.kind_streams import FEATURES, KINDS, Model, Rows, Task, World, columns, fitted, world
from detectors.grid import FeatureKind
from detectors.performance.kind import Learnt, kind_of, labels_of
from detectors.performance.loss import loss
from detectors.performance.outcome import Delayed
from detectors.profile import Profile
from detectors.reference import build
from detectors.scoring import score
from detectors.summary import Table

WORLDS = 10  # half predict a probability, half a number
STREAMS = 5  # of each kind in each world
N_TRAINING, N_REFERENCE, N_WINDOW = 5000, 20_000, 1000
SEED = 90_000  # of the worlds that judge; others were used to develop
RATE = 1 / 1000  # false alarms a window
NAMES = ("covariate", "prior", "concept", "data_quality")
MIXED = (("covariate", "concept"), ("covariate", "data_quality"), ("concept", "data_quality"), ("prior", "covariate"))
ALL_KINDS: dict[str, FeatureKind] = {**KINDS, "prediction": "numeric", "label": "numeric", "loss": "numeric"}


@dataclass(frozen=True)
class Place:
    """A world, the model that was fitted in it, its profile and what the reference says of kinds."""

    world: World
    model: Model
    profile: Profile
    learnt: Learnt
    edges: np.ndarray  # between groups of the label

    def groups(self, label: np.ndarray) -> np.ndarray:
        """Index of each label's group."""
        return np.searchsorted(self.edges, label, "left")

    def sent(self, rows: Rows, label: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Columns with the prediction, the label and the loss, and masks of invalid values."""
        sent, invalid = columns(rows)
        prediction = self.model.predict(sent, invalid)
        lost = loss(self.model.task, prediction, label)
        return {**sent, "prediction": prediction, "label": label, "loss": lost}, invalid


def place(task: Task, seed: int) -> Place:
    """A world with its reference."""
    rng = np.random.default_rng(seed)
    here = world(task, rng)
    training = here.rows(N_TRAINING, rng)
    model = fitted(task, columns(training)[0], here.label(training, rng))
    rows = here.rows(N_REFERENCE, rng)
    label = here.label(rows, rng)
    sent, _ = columns(rows)
    prediction = model.predict(sent, {})
    sent |= {"prediction": prediction, "label": label, "loss": loss(task, prediction, label)}
    late = Delayed(frozenset({"label", "loss"}))
    profile = build(sent, ALL_KINDS, sizes=(N_WINDOW,), mmd_rows=0, delayed=late)
    edges = np.array([0.5]) if task == "probability" else np.quantile(label, [0.2, 0.4, 0.6, 0.8])
    names = ("0", "1") if task == "probability" else tuple(f"fifth {k + 1}" for k in range(5))
    learnt = Learnt(profile.basis, profile.counts, np.arange(len(FEATURES)), len(FEATURES))
    labels = labels_of(learnt, profile.codes, names, np.searchsorted(edges, label, "left"), sent["loss"])
    return Place(
        here, model, profile, Learnt(profile.basis, profile.counts, learnt.features, learnt.prediction, labels), edges
    )


def drifted(at: Place, kinds: Sequence[str], rng: np.random.Generator) -> tuple[Rows, np.ndarray, str]:
    """A window's rows, labels and what was done to them."""
    done = []
    if "prior" in kinds:
        rows, label, how = kind_drifts.prior(at.world, N_WINDOW, rng)
        if "covariate" in kinds:
            how += f", {kind_drifts.covariate(rows, rng)}"
        return rows, label, how
    here, rows = at.world, at.world.rows(N_WINDOW, rng)
    if "covariate" in kinds:
        done.append(kind_drifts.covariate(rows, rng))
    if "concept" in kinds:
        here, how = kind_drifts.concept(here, rng)
        done.append(how)
    if "data_quality" in kinds:
        done.append(kind_drifts.fault(rows, rng))
    return rows, here.label(rows, rng), ", ".join(done)


@dataclass(frozen=True)
class Outcome:
    """What one window was said to be: when it closed (None = no alarm), and with its labels."""

    truth: tuple[str, ...]
    how: str
    closed: str | None
    labelled: str | None
    evidence: tuple[str, ...]


def outcome(at: Place, truth: tuple[str, ...], rng: np.random.Generator) -> Outcome:
    """One stream's drifted window through the alarm and the kinds."""
    rows, label, how = (
        drifted(at, truth, rng) if truth else (r := at.world.rows(N_WINDOW, rng), at.world.label(r, rng), "")
    )
    sent, invalid = at.sent(rows, label)
    codes = at.profile.grid.encode(sent, invalid)
    counts = at.profile.grid.count(codes)
    normal = at.profile.normal_scores
    z = normal(codes[:, normal.features])
    products = (z[:, normal.pairs[0]] * z[:, normal.pairs[1]]).sum(axis=0)
    table = Table(counts.astype(np.int64), np.concatenate([[len(codes)], products]))
    threshold = at.profile.calibration.threshold(RATE, N_WINDOW)
    before_labels, on_labels = (max(score(at.profile, table, delayed=d).terms) > threshold for d in (False, True))
    assert at.learnt.labels is not None
    sums = at.learnt.labels.count(codes, at.groups(label), sent["loss"])
    closed = kind_of(at.learnt, counts).kind if before_labels else None
    final = kind_of(at.learnt, counts, sums) if before_labels or on_labels else None
    return Outcome(truth, how, closed, final and final.kind, final.evidence if final else ())


def outcomes() -> Iterator[Outcome]:
    """Every stream of every world."""
    for w in tqdm(range(WORLDS), unit="world"):
        at = place("probability" if w % 2 == 0 else "numeric", SEED + w)
        for k, truth in enumerate([*((name,) for name in NAMES), *MIXED, ()]):
            for s in range(STREAMS):
                yield outcome(at, truth, np.random.default_rng([SEED, w, k, s]))


def confusion(found: Sequence[Outcome], which: str) -> str:
    """Rows: truth; columns: the kind named, and no alarm."""
    body = []
    for truth in [*((name,) for name in NAMES), *MIXED, ()]:
        said = Counter(getattr(o, which) for o in found if o.truth == truth)
        n_alarms = sum(said.values()) - said[None]
        right = sum(said[name] for name in truth)
        share = f"{right / n_alarms:.0%}" if n_alarms and truth else ""
        body.append([" + ".join(truth) or "nothing", *(str(said[name]) for name in NAMES), str(said[None]), share])
    return document.table(["truth", *NAMES, "no alarm", "right of those that alarm"], body)


def by_shape(found: Sequence[Outcome]) -> str:
    """What was named, for each shape of a drift of one kind."""
    shapes = sorted({(o.truth[0], o.how) for o in found if len(o.truth) == 1})
    body = []
    for truth, how in shapes:
        said = Counter(o.labelled for o in found if o.truth == (truth,) and o.how == how)
        body.append([f"{truth}: {how}", *(str(said[name]) for name in (*NAMES, None))])
    return document.table(["drift", *NAMES, "no alarm"], body)


def main() -> None:
    """Measures and writes."""
    document.parser(__doc__).parse_args()
    found = list(outcomes())
    alone = [o for o in found if len(o.truth) == 1 and o.labelled]
    right = sum(o.labelled in o.truth for o in alone) / len(alone)
    document.write(
        "kinds",
        "How often the kind of a drift is named right",
        document.command(),
        [
            f"{WORLDS} worlds (half a logistic model's probabilities, half a linear model's numbers; five numeric and "
            f"two categorical features), {N_REFERENCE:,} reference rows, one window of {N_WINDOW:,} rows a stream, "
            f"asked only where it alarms at one false alarm in {1 / RATE:,.0f} windows. Of the drifts of one kind that "
            f"alarm **{right:.0%}** are named right once labels are there. Of a mixed drift either name counts.",
            "## With labels",
            confusion(found, "labelled"),
            "## When the window closes, before labels",
            "Concept drift then shows in nothing; what alarms is chance, or a label shift seen through predictions.",
            confusion(found, "closed"),
            "## By shape, with labels",
            by_shape(found),
        ],
    )


if __name__ == "__main__":
    main()

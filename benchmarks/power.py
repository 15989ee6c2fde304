"""How often small real changes are found, beside the bars that were set and what an optimal test could do.

`python -m benchmarks.power [--fast]` writes docs/power.md; with `--labels` only its section on labels.

A change counts as found where a term of the changed feature itself is over the threshold (and, in the second table,
over an effect floor): what other features do by chance does not count.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: two processes share two cores

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import binom
from scipy.stats import f as f_distribution
from tqdm import tqdm

from benchmarks import answers, document
from benchmarks.changes import (
    CATEGORIES,
    Applied,
    biased,
    flipped,
    lost,
    mixed_up,
    renamed,
    shifted,
    spread,
    tied,
    wronger,
)
from benchmarks.streams import Encoder, Stream, World, profile_of, tables
from detectors.calibration import SAFETY
from detectors.family import JOINT
from detectors.performance.outcome import LOSS
from detectors.profile import Profile
from detectors.scoring import score
from detectors.summary import Table
from driftwatch.config import EFFECTS

REFERENCES, FAST_REFERENCES, LABELLED_REFERENCES = 10, 2, 6
WORKERS = 2
FAMILY_WISE = 0.05
ASKED = FAMILY_WISE / SAFETY  # thresholds aim at SAFETY of what they are asked for: then at FAMILY_WISE
WITH_LABELS = "with-labels"  # marks the section on labels
ANY = ""  # feature: a change must be found by the terms of any feature
BUDGET = 1 / 2592  # one alarm in 30 days of windows that take 1,000 s
NO_FLOORS: Mapping[str, float] = {}
FLOORS: Mapping[str, float] = {str(name): floor for name, floor in EFFECTS.items()}

MIXED = World(categories=(CATEGORIES,))
DEPENDENT = World("ar1", categories=(CATEGORIES,))
INDEPENDENT = replace(MIXED, correlation=0.0)


@dataclass(frozen=True, slots=True)
class Change:
    """One change, in windows of `n_current`, and the share of runs in which it must be found.

    `world`: what the windows are drawn from, where the change is another world; `lacking`: share of missing values in
    the first feature of reference and windows alike. `bar` None: measured, nothing was promised.
    """

    name: str
    applied: Applied | None
    n_current: int
    bar: float | None
    optimum: float | None = None
    feature: str = "x0"
    world: World | None = None
    lacking: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes that are judged against the same references. `within`: windows in which a change must be found."""

    name: str
    world: World
    n_reference: int
    changes: tuple[Change, ...]
    rate: float
    floors: Mapping[str, float]
    n_runs: int
    within: int = 1
    mmd_rows: int = 1000
    most_references: int = REFERENCES

    @property
    def sizes(self) -> list[int]:
        """Window sizes to simulate."""
        return sorted({change.n_current for change in self.changes})


def of_mean(by: float, n: int, m: int, *, rate: float = FAMILY_WISE, within: int = 1) -> float:
    """Power of the z-test of two means at the level of one of 25 columns, in one of some windows."""
    missed = ndtr(-by / np.sqrt(1 / n + 1 / m) - ndtri(rate / 25 / 2))
    return float(1 - missed**within)


def of_variance(ratio: float, n: int, m: int, *, level: float = FAMILY_WISE / 25, within: int = 1) -> float:
    """Power of the F-test of two variances at a level, in one of some windows."""
    found = float(f_distribution.sf(f_distribution.isf(level / 2, n - 1, m - 1) / ratio, n - 1, m - 1))
    return 1 - (1 - found) ** within


def of_share(before: float, now: float, n: int, *, level: float, within: int = 1) -> float:
    """Power of the binomial test of a share that is known, in one of some windows."""
    return float(1 - binom.cdf(binom.isf(level / 2, n, before), n, now) ** within)


M = 10_000
FAMILY = (
    *(Change(f"nothing, by any feature, {n:,} rows", None, n, None, feature=ANY) for n in (1000, 200)),
    Change("mean +.1 sd", partial(shifted, by=0.1), 1000, 0.40, of_mean(0.1, 1000, M)),
    Change("mean +.25 sd", partial(shifted, by=0.25), 200, 0.60, of_mean(0.25, 200, M)),
    Change("variance × 1.2", partial(spread, by=1.2**0.5), 1000, 0.63, of_variance(1.2, 1000, M)),
    Change("new category 2 %", partial(renamed, share=0.02), 200, 0.89, float(binom.sf(1, 200, 0.02)), "c0"),
    Change("missing 0 → 5 %", partial(lost, share=0.05), 200, 0.97),
)
SOME_MISSING = (Change("missing 1 → 6 %", partial(lost, share=0.05 / 0.99), 200, 0.76, lacking=0.01),)
BUDGETED = (
    Change("mean +.2 sd", partial(shifted, by=0.2), 1000, 0.99, of_mean(0.2, 1000, 40_000, rate=BUDGET, within=2)),
    Change("mean +.15 sd", partial(shifted, by=0.15), 1000, 0.91, of_mean(0.15, 1000, 40_000, rate=BUDGET, within=2)),
    Change("variance × 1.5", partial(spread, by=1.5**0.5), 1000, 1.0),
    Change("missing 1 %", partial(lost, share=0.01), 1000, 1.0),
    Change("new category 1 %", partial(renamed, share=0.01), 1000, 1.0, feature="c0"),
    Change("correlation .3 → 0", None, 1000, 1.0, feature=JOINT, world=INDEPENDENT),
)
UNDER_DEPENDENCE = (
    Change("AR(1) .9: mean +.8 sd", partial(shifted, by=0.8), 1000, 0.99),
    Change("AR(1) .9: sd × 1.5", partial(spread, by=1.5), 1000, 0.98),
)
LARGE = (
    Change("mean +.02 sd, must not be found", partial(shifted, by=0.02), 100_000, 0.0),
    Change("mean +.1 sd", partial(shifted, by=0.1), 100_000, 1.0),
)
JOINT_CHANGES = tuple(
    Change(f"{share:.0%} of the rows", partial(tied, share=share), 10_000, None, feature=JOINT)
    for share in (1.0, 0.75, 0.6)
)
N_LABELLED = round(answers.LABELLED * 1000)
LEVEL = BUDGET / 28  # of one of 25 features, the prediction, the label, the loss
ERRORS = answers.WRONG + 0.03 * (1 - 2 * answers.WRONG)
NUMBER_CHANGES = (
    Change(
        "number: noise × 1.15",
        partial(wronger, by=1.15),
        1000,
        None,
        of_variance(1.15**2, N_LABELLED, 40_000, level=LEVEL, within=2),
        LOSS,
    ),
    Change(
        "number: noise × 1.25",
        partial(wronger, by=1.25),
        1000,
        None,
        of_variance(1.25**2, N_LABELLED, 40_000, level=LEVEL, within=2),
        LOSS,
    ),
    Change("number: bias of half the noise", partial(biased, by=0.5), 1000, None, None, LOSS),
)
CLASS_CHANGES = (
    Change(
        f"class: wrong 2 → {ERRORS:.1%}",
        partial(flipped, share=0.03),
        1000,
        None,
        of_share(answers.WRONG, ERRORS, N_LABELLED, level=LEVEL, within=2),
        LOSS,
    ),
)
PROBABILITY_CHANGES = tuple(
    Change(f"probability: {share:.0%} of the labels mixed up", partial(mixed_up, share=share), 1000, None, None, LOSS)
    for share in (0.1, 0.2)
)
LABELLED_PLANS = (
    Plan(
        "labels: probability",
        replace(MIXED, model="probability"),
        40_000,
        (*BUDGETED[:5], *PROBABILITY_CHANGES),
        BUDGET,
        FLOORS,
        100,
        within=2,
        most_references=LABELLED_REFERENCES,
    ),
    Plan(
        "labels: number",
        replace(MIXED, model="numeric"),
        40_000,
        NUMBER_CHANGES,
        BUDGET,
        FLOORS,
        100,
        within=2,
        most_references=LABELLED_REFERENCES,
    ),
    Plan(
        "labels: class",
        replace(MIXED, model="binary"),
        40_000,
        CLASS_CHANGES,
        BUDGET,
        FLOORS,
        100,
        within=2,
        most_references=LABELLED_REFERENCES,
    ),
)
PLANS = (
    Plan("family-wise 5 %", MIXED, M, FAMILY, ASKED, NO_FLOORS, 400),
    Plan("family-wise 5 %, some missing", MIXED, M, SOME_MISSING, ASKED, NO_FLOORS, 400),
    Plan("budget", MIXED, 40_000, BUDGETED, BUDGET, FLOORS, 100, within=2),
    Plan("budget, AR(1)", DEPENDENT, 40_000, UNDER_DEPENDENCE, BUDGET, FLOORS, 100, within=2),
    Plan("floors", MIXED, 100_000, LARGE, BUDGET, FLOORS, 10, most_references=1),
    *(
        Plan(
            f"MMD of {rows:,}", INDEPENDENT, 40_000, JOINT_CHANGES, BUDGET, FLOORS, 50, mmd_rows=rows, most_references=3
        )
        for rows in (250, 1000, 4000)
    ),
)


def judge(plan: Plan, seed: int) -> Counter[str]:
    """How often each change of a plan was found against one reference."""
    stream, rng = Stream(plan.world, (seed, plan.n_reference)), np.random.default_rng(seed)
    reference = stream.take(plan.n_reference)
    lost(reference, rng, share=plan.changes[0].lacking)
    profile = profile_of(stream, plan.world, plan.n_reference, plan.sizes, mmd_rows=plan.mmd_rows, rows=reference)
    found: Counter[str] = Counter()
    for i, change in enumerate(plan.changes):
        source = stream if change.world is None else Stream(change.world, (seed, i))
        encode = Encoder(profile.grid, change.world or plan.world)
        threshold = profile.calibration.threshold(plan.rate, change.n_current)
        for _ in range(plan.n_runs):
            rows = source.take(plan.within * change.n_current)
            lost(rows, rng, share=change.lacking)
            if change.applied is not None:
                change.applied(rows, rng)
            if rows.answers is not None:
                answers.forget(rows.answers, rng)
            codes = encode(rows).reshape(plan.within, change.n_current, -1)
            found[change.name] += any(
                drifts(profile, table, change.feature, threshold, plan.floors) for table in tables(profile, codes, rng)
            )
    return found


def drifts(profile: Profile, table: Table, feature: str, threshold: float, floors: Mapping[str, float]) -> bool:
    """Whether a feature's own terms (ANY: some feature's) put a window over the threshold and over a floor.

    What comes with the labels is judged on them.
    """
    scored = score(profile, table, delayed=feature == LOSS)
    own = [(s, term) for s, term in zip(scored.scores, scored.terms, strict=True) if feature in (ANY, s.feature)]
    if max(term for _, term in own) <= threshold:
        return False
    return not floors or any((s.effect or 0.0) >= floors.get(s.detector, np.inf) for s, _ in own)


def measure(plans: Sequence[Plan], n_references: int) -> dict[tuple[str, str], float]:
    """The share of runs in which each (plan, change) was found; references are spread over two processes."""
    tasks = [(plan, seed) for plan in plans for seed in range(min(n_references, plan.most_references))]
    found: Counter[tuple[str, str]] = Counter()
    runs: Counter[str] = Counter()
    with ProcessPoolExecutor(WORKERS) as pool, tqdm(total=len(tasks), unit="reference") as bar:
        waiting = {pool.submit(judge, *task): task[0] for task in tasks}
        for done in as_completed(waiting):
            plan = waiting[done]
            runs[plan.name] += plan.n_runs
            for name, n in done.result().items():
                found[plan.name, name] += n
            bar.update()
    return {(plan.name, c.name): found[plan.name, c.name] / runs[plan.name] for plan in plans for c in plan.changes}


def body(shares: Mapping[tuple[str, str], float], n_references: int) -> list[str]:
    """The document's paragraphs."""
    by_name = {plan.name: plan for plan in PLANS}

    def rows(*plans: str) -> list[list[str]]:
        return [
            [c.name, f"{c.n_current:,}", percent(c.bar), percent(shares[plan, c.name]), percent(c.optimum)]
            for plan in plans
            for c in by_name[plan].changes
        ]

    head = ["change", "rows in a window", "bar", "measured", "optimal test"]
    bounds = [plan for plan in PLANS if plan.name.startswith("MMD")]
    return [
        f"Shares of windows in which a change in one of 25 features (20 numeric with correlations of .3, 5 categorical "
        f"of 12 categories) is found by that feature's own terms, over {n_references} references.",
        "## One window, family-wise false-alarm rate 5 %, reference 10,000",
        document.table(head, rows("family-wise 5 %", "family-wise 5 %, some missing")),
        "Optimal test: the z-test, the F-test, or two rows of the new category, of that one feature at a level of 5 % "
        "÷ 25.",
        "## Within two windows, at one alarm in 2,592 windows, reference 40,000, default floors",
        document.table(head, rows("budget", "budget, AR(1)")),
        "Optimal test: the z-test of that one feature at the level of the budget ÷ 25, in one of two windows. The bar "
        "of +.15 sd lies above it.",
        "## Floors: windows and reference of 100,000",
        document.table(head[:-1], [row[:-1] for row in rows("floors")]),
        "## What the bound of the MMD's sample costs",
        "Windows of 10,000 in which the 20 numeric features keep their margins and every pair's correlation (0), but "
        "in a share of the rows all are equally far from their centres; one window, one alarm in 2,592, default "
        "floors (MMD .02; the change is of .037, .028 and .023).",
        document.table(
            ["change", *(f"{plan.mmd_rows:,} rows" for plan in bounds)],
            [[c.name, *(percent(shares[plan.name, c.name]) for plan in bounds)] for c in JOINT_CHANGES],
        ),
    ]


def labels_section(shares: Mapping[tuple[str, str], float], n_references: int) -> list[str]:
    """The paragraphs on a model that is watched with its labels."""
    rows = [
        [c.name, percent(c.bar), percent(shares[plan.name, c.name]), percent(c.optimum)]
        for plan in LABELLED_PLANS
        for c in plan.changes
    ]
    return [
        document.made(document.command()),
        "The same 25 features and budget, with a model's prediction, its label and the loss of each row in the family, "
        f"95 % of the labels there; windows of 1,000, within two windows, {min(n_references, LABELLED_REFERENCES)} "
        "references. The first five changes are of a feature, the others of how the label follows from the features: "
        "found by the loss.",
        document.table(["change", "bar", "measured", "optimal test"], rows),
        "Optimal test: the z-test of one feature as above; the F-test of the noise and the binomial test of the share "
        "that is wrong, at the level of the budget ÷ 28. Half a noise of bias raises the mean loss by 12 %.",
    ]


def percent(share: float | None) -> str:
    """A share as text."""
    return "–" if share is None else f"{100 * share:.1f} %"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, writes the document."""
    parser = document.parser(__doc__)
    parser.add_argument("--fast", action="store_true", help=f"{FAST_REFERENCES} references instead of {REFERENCES}")
    parser.add_argument("--labels", action="store_true", help="only the section on labels")
    given = parser.parse_args(arguments)
    n_references = FAST_REFERENCES if given.fast else REFERENCES
    if not given.labels:
        text = [*body(measure(PLANS, n_references), n_references), "## With labels", document.marked(WITH_LABELS, [])]
        print("\n\n".join(text))
        document.write("power", "Power: how often small changes are found", document.command(), text)
    text = labels_section(measure(LABELLED_PLANS, n_references), n_references)
    print("\n\n".join(text))
    document.embed(WITH_LABELS, text, document.DOCS / "power.md")


if __name__ == "__main__":
    main()

"""How often the gate errs: challengers one AUC point worse that pass, and challengers two points better that do not.

`python -m benchmarks.gate [SETTING …]` simulates champion and challenger on 4,000 rows in each set, 20 % positive, and
writes docs/gate.md. Where settings are named (a part of the name will do), only their rows are written anew.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm
from tqdm import tqdm

from benchmarks import document
from modelops.gate import Sample, judge
from modelops.recipe import Gate

ROWS, POSITIVE = 4000, 5  # every fifth row
SIMULATIONS = 400
RESAMPLES = 200  # of each bootstrap: a fifth of the recipe's, for speed
WORSE, BETTER, HARMED = -0.01, 0.02, -0.10  # gains in AUC
COLUMNS = ("worse", "better", "harmed")
WORKERS = 2
MOST_WORSE, LEAST_BETTER = 0.05, 0.80
HEAD = ("setting", "one point worse passes", "two points better passes", "stopped for its segment", "within", "commit")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `auc`: of the champion; `rho`: how the scores of both correlate within a class;
    `segments`: of each feature, the shares of its values."""

    name: str
    auc: float = 0.80
    rho: float = 0.7
    segments: tuple[tuple[float, ...], ...] = ()


UNEVEN = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
SETTINGS = (
    Setting("AUC .80"),
    Setting("AUC .70", auc=0.70),
    Setting("AUC .90", auc=0.90),
    Setting("scores correlate by .5", rho=0.5),
    Setting("scores correlate by .9", rho=0.9),
    Setting("5 segments", segments=((0.2,) * 5,)),
    Setting("12 segments", segments=((1 / 12,) * 12,)),
    Setting("6 uneven segments", segments=(UNEVEN,)),
    Setting("6 uneven and 12 segments", segments=(UNEVEN, (1 / 12,) * 12)),
    Setting("12 segments, AUC .70", auc=0.70, segments=((1 / 12,) * 12,)),
)


def scored(n: int, ours: float | np.ndarray, theirs: float, rng: np.random.Generator, rho: float = 0.7) -> Sample:
    """n rows on which two models have these AUCs (binormal; ours of each row) and scores that correlate by rho."""
    y = (np.arange(n) < n // POSITIVE).astype(int)
    noise = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
    gaps = [np.sqrt(2) * norm.ppf(auc) for auc in (ours, theirs)]
    return Sample(noise[:, 0] + y * gaps[0], noise[:, 1] + y * gaps[1], y, {})


def drawn(setting: Setting, gain: float, rng: np.random.Generator, *, in_segment: float | None = None) -> Sample:
    """Rows on which the challenger gains so much; `in_segment`: in the first segment instead."""
    segments = {f"s{i}": rng.choice(len(p), ROWS, p=p).astype(str).astype(object)
                for i, p in enumerate(setting.segments)}  # fmt: skip
    ours = np.full(ROWS, setting.auc + gain)
    if in_segment is not None:
        ours[segments["s0"] == "0"] = setting.auc + in_segment
    made = scored(ROWS, ours, setting.auc, rng, setting.rho)
    return Sample(made.challenger, made.champion, made.y, segments)


def passed(setting: Setting, gain: float, *, kind: str, in_segment: float | None = None,
           simulations: int = SIMULATIONS) -> int:  # fmt: skip
    """How many challengers pass. Under `concept` the old hold-out is not judged: it would only stop more of them."""
    asked = Gate(resamples=RESAMPLES, segments=tuple(f"s{i}" for i in range(len(setting.segments))))
    bare = Gate(resamples=RESAMPLES)
    count = 0
    for seed in range(simulations):
        rng = np.random.default_rng(seed)
        new = drawn(setting, gain, rng, in_segment=in_segment)
        old = None if kind == "concept" else drawn(setting, gain, rng)
        if judge(new, None, bare, kind=kind, seed=seed).is_better:  # what is judged beside can only stop more
            count += judge(new, old, asked, kind=kind, seed=seed).is_better
    return count


def shown(count: int) -> str:
    """A share with its 95 % interval (Clopper and Pearson)."""
    found = binomtest(count, SIMULATIONS).proportion_ci()
    return f"{count / SIMULATIONS:.1%} ({found.low:.1%}–{found.high:.1%})"


def column(setting: Setting, name: str) -> int:
    """How many pass: of the worse, of the better, of those that lose in a segment."""
    if name == "worse":
        return passed(setting, WORSE, kind="concept")
    if name == "better":
        return passed(setting, BETTER, kind="covariate")
    return passed(setting, BETTER, kind="concept", in_segment=HARMED) if setting.segments else 0


def row(setting: Setting, worse: int, better: int, harmed: int) -> list[str]:
    """A setting's row of the table, from how many pass."""
    is_within = worse <= MOST_WORSE * SIMULATIONS and better >= LEAST_BETTER * SIMULATIONS
    stopped = shown(SIMULATIONS - harmed) if setting.segments else "-"
    return [setting.name, shown(worse), shown(better), stopped, "yes" if is_within else "**no**", document.commit()]


TEXT = (
    f"Champion and challenger are simulated {SIMULATIONS} times in each column: {ROWS:,} rows in each set, 20 % "
    "positive, normal scores in each class. A challenger one AUC point worse is judged on the new rows and their "
    "segments, one two points better on the old hold-out as well. The promise: at most 5 % of the worse and at least "
    "80 % of the better pass. The first row's champion has an AUC of .80, the scores of both models correlate by .7, "
    "and no segments are declared; each row differs from it as named.",
    "*Stopped for its segment*: the challenger is two points better, but ten points worse in one segment (the first: "
    "of uneven ones the largest); how many of these the gate stops, which it should. In brackets the 95 % interval.",
)


def main() -> None:
    """Measures, prints, writes the document."""
    parser = document.parser(__doc__)
    parser.add_argument("settings", nargs="*", metavar="SETTING", help="only settings whose name contains one of these")
    named = parser.parse_args().settings
    chosen = [s for s in SETTINGS if not named or any(part in s.name for part in named)]
    tasks = [(setting, name) for setting in chosen for name in COLUMNS]
    with ProcessPoolExecutor(WORKERS) as pool:
        counts = list(tqdm(pool.map(column, *zip(*tasks, strict=True)), total=len(tasks), unit="column"))
    rows = [row(setting, *counts[3 * i : 3 * i + 3]) for i, setting in enumerate(chosen)]
    for line in rows:
        print(" | ".join(line))
    page = document.DOCS / "gate.md"
    if not named or not page.exists():
        document.write(
            "gate", "How often the gate errs", "python -m benchmarks.gate", [*TEXT, document.marked("gate", [])]
        )
    document.embed_rows("gate", HEAD, rows, [s.name for s in SETTINGS], page)


if __name__ == "__main__":
    main()

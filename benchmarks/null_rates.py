"""False alarms against the budget while nothing changes, averaged over references.

`python -m benchmarks.null_rates [--fast] [SETTING …]` writes docs/null_rates.md. Where settings are named, only those
are measured, and of the page only their rows among the settings with labels are written anew.

A false alarm is a window whose largest term is over the threshold, whatever its effect: effect floors, and windows in a
row that make one alarm, only lower what a user sees. The reference is the past of the stream that is judged. With
labels a window is judged twice and its losses are followed row by row, at the shares that the service gives to each.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: two processes share two cores

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks import document
from benchmarks.streams import Stream, World, drawn_tables, profile_of, terms, windows
from detectors.calibration import SAFETY
from detectors.performance.outcome import LOSS
from detectors.profile import Profile
from driftwatch.loss_watch import glr_of
from driftwatch.monitor import OF_ROWS, baseline_of, windows_rate

RATES = (1 / 100, 1 / 1000)
BANDS = ((0.5, 1.2), (0.0, 1.5))  # of the mean rate ÷ budget, at RATES
NEVER_ABOVE = ((0.0, 1.0), (0.0, 1.0))
REFERENCES, FAST_REFERENCES = 20, 4
WORKERS = 2
BY_ROWS = "loss's glr"
BASE = World()
INDEPENDENT = World(correlation=0.0)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `drawn`: tables without rows. `most_references`: where a profile takes minutes."""

    name: str
    world: World = BASE
    n_reference: int = 40_000
    n_current: int = 1000
    n_windows: int = 1000
    drawn: bool = False
    bands: tuple[tuple[float, float], ...] = BANDS
    most_references: int = 20

    def n_references(self, wanted: int) -> int:
        """How many references it is averaged over."""
        return min(wanted, self.most_references)


SETTINGS = (
    Setting("base: 20 normal, 5 categorical"),
    Setting("lognormal", World("lognormal")),
    Setting("heavy tails, t(2)", World("heavy")),
    Setting("ties", World("ties")),
    Setting("2 categories", World(categories=(2,))),
    Setting("50 categories", World(categories=(50,))),
    Setting("500 categories", World(categories=(500,))),
    Setting("AR(1) .9", World("ar1")),
    Setting("AR(1) .9, categories too", World("ar1", dependent=True)),
    Setting("season", World("season"), bands=NEVER_ABOVE),
    Setting("1 feature", World(n_numeric=1, n_categorical=0), n_windows=2000),
    Setting("5 features", World(n_numeric=4, n_categorical=1), n_windows=2000),
    Setting("100 features", World(n_numeric=80, n_categorical=20), n_windows=1000, most_references=8),
    Setting("200 features", World(n_numeric=160, n_categorical=40), n_windows=1000, most_references=5),
    Setting("windows of 100", n_current=100, n_windows=2000),
    Setting("windows of 300", n_current=300, n_windows=2000),
    Setting("windows of 3,000", n_current=3000, n_windows=600),
    Setting("windows of 10,000", INDEPENDENT, n_current=10_000, drawn=True),
    Setting("windows of 100,000, reference 400,000", INDEPENDENT, 400_000, 100_000, drawn=True, most_references=8),
    Setting("windows of 100,000", INDEPENDENT, n_current=100_000, drawn=True),
)
SMALL = World(n_numeric=5, n_categorical=1, model="probability")
NUMBER = replace(SMALL, model="numeric")
LABELLED = (
    Setting("probability, 25 features", replace(BASE, model="probability"), most_references=8),
    Setting("probability, plain", SMALL, most_references=10),
    Setting("probability, AR(1) .9", replace(SMALL, kind="ar1"), most_references=10),
    Setting("probability, season", replace(SMALL, kind="season"), bands=NEVER_ABOVE, most_references=10),
    Setting("probability, windows of 200, reference 10,000", SMALL, 10_000, 200, most_references=10),
    Setting("number, plain", NUMBER, most_references=10),
    Setting("number, heavy tails, t(2)", replace(NUMBER, kind="heavy"), most_references=10),
    Setting("number, skewed", replace(NUMBER, kind="lognormal"), most_references=10),
    Setting("number, AR(1) .9", replace(NUMBER, kind="ar1"), most_references=10),
    Setting("class, 2 % wrong", replace(SMALL, model="binary"), most_references=10),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """False alarms of one reference at RATES, which detectors led those at the first, and each detector's weight.

    `on_labels`: those at the first rate that the second judgement opened. `by_rows`: of those the ones that losses row
    by row opened.
    """

    alarms: tuple[int, ...]
    n_windows: int
    leaders: Counter[str]
    weights: Mapping[str, float]
    on_labels: int = 0
    by_rows: int = 0


def judge(setting: Setting, seed: int) -> Outcome:
    """One reference and its windows."""
    stream = Stream(setting.world, (seed, setting.n_reference))
    profile = profile_of(stream, setting.world, setting.n_reference, [setting.n_current])
    losses: list[np.ndarray] = []
    if setting.drawn:
        rng = np.random.default_rng((seed, setting.n_current))
        portions = drawn_tables(profile, setting.world, setting.n_current, setting.n_windows, rng)
    else:
        portions = windows(profile, stream, setting.world, setting.n_current, setting.n_windows, losses)
    found = np.concatenate([terms(profile, portion) for portion in portions])
    weights = weights_of(profile)
    opened = [opened_alarms(profile, rate, found, losses, setting.n_current) for rate in RATES]
    leaders, n_on_labels, n_by_rows = opened[0]
    return Outcome(tuple(o[0].total() for o in opened), len(found), leaders, weights, n_on_labels, n_by_rows)


def weights_of(profile: Profile) -> dict[str, float]:
    """The share of the budget of each detector."""
    family, weights = profile.family, defaultdict[str, float](float)
    for name, weight in zip(names_of(profile), np.exp(family.log_weight).tolist(), strict=True):
        weights[name] += windows_rate(profile, 1.0) * weight / len(family.starts)
    weights[BY_ROWS] = 1 - windows_rate(profile, 1.0)
    return dict(weights)


def names_of(profile: Profile) -> list[str]:
    """What each term is called: by its detector, and of what comes with the labels by its column."""
    family = profile.family
    return [
        f"{family.names[j]}'s {detector}" if is_delayed else str(detector)
        for (j, detector), is_delayed in zip(family.terms, family.delayed.tolist(), strict=True)
    ]


def opened_alarms(
    profile: Profile, rate: float, found: np.ndarray, losses: Sequence[np.ndarray], n_current: int
) -> tuple[Counter[str], int, int]:
    """False alarms by leading detector, how many of them the second judgement opened, and losses row by row.

    As the service counts them: a window's second judgement opens an alarm of its own where losses are high, in its
    terms or row by row; where only the label's distribution moved, it tells the alarm that the first one opened.
    """
    family, threshold = profile.family, profile.calibration.threshold(windows_rate(profile, rate), n_current)
    names, late = np.array(names_of(profile)), family.delayed
    first = np.where(late, -np.inf, found)
    leaders = Counter(names[first.argmax(axis=1)[first.max(axis=1) > threshold]].tolist())
    if not late.any():
        return leaders, 0, 0
    is_loss = late & (np.array(family.names)[family.feature] == LOSS)
    second, lost = np.where(late, found, -np.inf), np.where(is_loss, found, -np.inf).max(axis=1) > threshold
    opened = (second.max(axis=1) > threshold) & (lost | (first.max(axis=1) <= threshold))
    rose = rises(profile, rate, losses, n_current, len(found)) & ~opened
    leaders += Counter(names[second.argmax(axis=1)[opened]].tolist())
    leaders[BY_ROWS] += int(rose.sum())
    return +leaders, int(opened.sum() + rose.sum()), int(rose.sum())


def rises(
    profile: Profile, rate: float, losses: Sequence[np.ndarray], n_current: int, n_windows: int
) -> npt.NDArray[np.bool_]:
    """(windows,): whether losses row by row are found to have risen in them."""
    rose, baseline = np.zeros(n_windows, bool), baseline_of(profile)
    if baseline is not None:
        glr = glr_of(n_current / (rate * OF_ROWS), baseline)
        memory = glr.init()
        for portion in losses:
            memory, answer = glr.update(memory, baseline.scaled(portion))
            rose[[change.row // n_current for change in answer.changes]] = True
    return rose


@dataclass(frozen=True, slots=True)
class Row:
    """A setting's outcomes: false alarms ÷ budget at RATES, mean over references and its standard error."""

    setting: Setting
    n_references: int
    mean: tuple[float, ...]
    error: tuple[float, ...]
    leaders: str
    outside: bool
    on_labels: str  # false alarms that the second judgement opened, and how many are to be expected
    by_rows: str  # of them those of losses row by row


def summarised(setting: Setting, outcomes: Sequence[Outcome]) -> Row:
    """The row of a setting."""
    ratios = np.array([[k / (o.n_windows * r) for k, r in zip(o.alarms, RATES, strict=True)] for o in outcomes])
    mean, error = ratios.mean(axis=0), ratios.std(axis=0, ddof=1) / np.sqrt(len(ratios))
    counted = np.sqrt(mean / (np.array(RATES) * sum(o.n_windows for o in outcomes)))  # the error of a Poisson count
    error = np.maximum(error, counted)
    leaders = sum((o.leaders for o in outcomes), Counter[str]())
    expected = SAFETY * RATES[0] * sum(o.n_windows for o in outcomes)
    said = [f"{name} {n} ({outcomes[0].weights[name] * expected:.0f})" for name, n in leaders.most_common(4)]
    outside = any(not low <= value <= high for value, (low, high) in zip(mean, setting.bands, strict=True))
    weights = outcomes[0].weights
    late = sum(weight for name, weight in weights.items() if "'s " in name)
    on_labels = f"{sum(o.on_labels for o in outcomes)} ({late * expected:.0f})"
    by_rows = f"{sum(o.by_rows for o in outcomes)} ({weights[BY_ROWS] * expected:.0f})"
    errors = tuple(error.tolist())
    return Row(setting, len(outcomes), tuple(mean.tolist()), errors, ", ".join(said), outside, on_labels, by_rows)


def measure(settings: Sequence[Setting], n_references: int) -> list[Row]:
    """All settings, the references spread over two processes."""
    tasks = [(setting, seed) for setting in settings for seed in range(setting.n_references(n_references))]
    outcomes: dict[tuple[Setting, int], Outcome] = {}
    with ProcessPoolExecutor(WORKERS) as pool, tqdm(total=len(tasks), unit="reference") as bar:
        waiting = {pool.submit(judge, *task): task for task in tasks}
        for done in as_completed(waiting):
            setting, seed = waiting[done]
            outcomes[setting, seed] = done.result()
            bar.update()
            found = [outcome for (each, _), outcome in outcomes.items() if each == setting]
            if len(found) == setting.n_references(n_references):
                bar.write(" | ".join(cells(summarised(setting, found))))
    return [summarised(s, [outcome for (each, _), outcome in outcomes.items() if each == s]) for s in settings]


def cells(row: Row) -> list[str]:
    """A row of the table as text."""
    setting = row.setting
    shown = [f"{m:.2f} ± {e:.2f}" for m, e in zip(row.mean, row.error, strict=True)]
    size = f"{row.n_references} × {setting.n_windows:,}"
    return [setting.name, size, *shown, "**outside**" if row.outside else "yes", row.leaders]


HEAD = ("setting", "references × windows", "at 1/100", "at 1/1,000", "within")


def with_labels(rows: Sequence[Row]) -> list[list[str]]:
    """The rows of the settings with labels, each with the commit at which it was measured."""
    return [[*cells(row)[:-1], row.on_labels, row.by_rows, document.commit()] for row in rows]


def labels_section() -> list[str]:
    """What stands around the table of the settings with labels."""
    return [
        "## With labels",
        "A model is watched as well, so that its prediction, the label and the loss of each row are columns of the "
        "family, every window is judged twice, and losses are followed row by row, all under the one budget. Alarms "
        "are counted as the service opens them: a second judgement in which only the label's distribution moved opens "
        "none where the first opened one. The error is at least that of a Poisson count. "
        "5 numeric features and a categorical one, so that label and loss have much of the budget (the first row has "
        "the base's 25). The model predicts from the features a probability, a number, or a class that is wrong in 2 % "
        "of the rows; a number's noise is distributed as the features are (heavy, skewed, autocorrelated), and a "
        "probability's too where they are autocorrelated. 95 % of the labels have come, which ones is chance. In "
        "brackets: how many alarms of the second judgement, and of those row by row, their share lets expect.",
        "Estimates of performance are not judged, and so cost nothing of the budget.",
        document.marked("with-labels", []),
    ]


def body(rows: Sequence[Row]) -> list[str]:
    """The document's paragraphs."""
    head = [*HEAD, "leaders of the alarms at 1/100"]
    return [
        "False alarms ÷ budget while nothing changes: the mean over references ± its standard error, at least that of "
        "a Poisson count. Each setting differs from the base in one thing: 20 numeric features, every pair with a "
        "correlation of .3, and 5 categorical ones of 2 to 50 categories, a reference of 40,000 rows, windows of "
        "1,000. The promise is a mean within .5 to 1.2 at 1/100 and up to 1.5 at 1/1,000; "
        f"for a season, up to 1. Thresholds aim at {SAFETY} of the budget. Effect floors are left out: with them a "
        "user sees fewer.",
        document.table(head, [cells(row) for row in rows]),
        "Leaders: the detectors whose term was the largest in the windows over the threshold, with how often, and in "
        "brackets how often their share of the family's weight lets expect. Windows of 10,000 and more are drawn as "
        "tables, of independent features: counts are multinomial, mean products normal, the MMD's sample rows.",
        "Windows that are larger than the reference all share the reference's own error, so that a reference has many "
        "false alarms or none and the mean over references is known badly; `check` shows between which bounds. "
        "A reference of four times the window keeps the promise.",
    ]


def front(rows: Sequence[Row]) -> list[str]:
    """What the README shows of it."""
    head = ["false alarms ÷ budget while nothing changes", "at 1 in 100 windows", "at 1 in 1,000"]
    n = sorted({row.n_references for row in rows})
    return [
        document.table(head, [[name, *rates] for name, _, *rates, _, _ in map(cells, rows)]),
        f"Mean over {n[-1]} references (where a profile takes minutes, {n[0]}) ± its standard error; the promise is at "
        "most 1.2 and 1.5. [All of it](docs/null_rates.md), and the [power](docs/power.md) that this costs.",
    ]


def main() -> None:
    """Measures, prints, writes the document."""
    parser = document.parser(__doc__)
    parser.add_argument("--fast", action="store_true", help=f"{FAST_REFERENCES} references instead of {REFERENCES}")
    parser.add_argument("settings", nargs="*", metavar="SETTING", help="only settings whose name contains one of these")
    options = parser.parse_args()
    named = [s for s in (*SETTINGS, *LABELLED) if any(part in s.name for part in options.settings)]
    n_references = FAST_REFERENCES if options.fast else REFERENCES
    rows = measure(named or (*SETTINGS, *LABELLED), n_references)
    labelled = [row for row in rows if row.setting in LABELLED]
    if not named:
        plain = [row for row in rows if row.setting in SETTINGS]
        text = [*body(plain), *labels_section()]
        document.write("null_rates", "False alarms against the budget", document.command(), text)
        document.embed("null-rates", front(plain))
    if labelled:
        head = [*HEAD, "on labels at 1/100", "row by row", "commit"]
        order = [setting.name for setting in LABELLED]
        document.embed_rows("with-labels", head, with_labels(labelled), order, document.DOCS / "null_rates.md")


if __name__ == "__main__":
    main()

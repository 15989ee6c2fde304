"""False alarms against the budget under the profile of a promoted version, while nothing changes any more.

`python -m benchmarks.promoted [SETTING …]` trains with the demo's recipe on rows of after the demo's change, builds the
profile as a job does, and replays later rows with their labels through driftwatch. It writes docs/promoted.md; where
settings are named (a part of the name will do), only their lines are written anew.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # before numpy

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml
from scipy.stats import chi2
from tqdm import tqdm

from benchmarks import document
from benchmarks.concept_alarms import driftwatch
from demo import settings
from demo.stream import FEATURES, Applications, applications
from modelops import train
from modelops.data import Rows
from modelops.models import Model
from modelops.profile import build_profile
from modelops.recipe import Recipe

PER = 100  # the budget: one alarm in so many windows
WINDOWS = 300  # that each model judges
SEEDS = 8
WORKERS = 2
T0 = 1_767_571_200
ROWS_PER_S = 300
CLASSES = ("0", "1")
DEEP = {"kind": "hist_gradient_boosting", "parameters": {"max_iter": 200}}


@dataclass(frozen=True, slots=True)
class Setting:
    """Rows of the snapshot, and the model."""

    name: str
    n_rows: int
    is_deep: bool = False

    @property
    def recipe(self) -> Recipe:
        """The demo's recipe, maybe with another model."""
        return Recipe.model_validate(settings.RECIPE | ({"model": DEEP} if self.is_deep else {}))


SETTINGS = (
    Setting("1,300 rows", 1300),
    Setting("2,600 rows", 2600),
    Setting("5,200 rows", 5200),
    Setting("2,600, learnt by heart", 2600, is_deep=True),
)


HEAD = ("snapshot", "models × windows", "alarms", "÷ budget (95 %)", "of performance",
        "windows that differ ÷ budget", "leaders", "commit")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """What one model's windows came to."""

    setting: str
    opened: int
    of_performance: int
    over: int
    leaders: Counter[str]


def rows_of(made: Applications) -> Rows:
    """As a snapshot has them."""
    columns = {
        name: values.astype(object) if FEATURES[name] == "categorical" else values.astype(float)
        for name, values in made.columns.items()
    }
    n = len(made.defaulted)
    return Rows(columns, made.defaulted, T0 + np.arange(n, dtype=float), np.arange(n).astype(str))


def challenger(recipe: Recipe, rows: Rows, folder: Path) -> tuple[Model, bytes]:
    """The model of a snapshot and its profile, as a job makes them."""
    learnt = train.train(rows, recipe, champion=None, folder=folder, progress=lambda _: None)
    predictions = train.unseen_predictions(learnt.model, rows, learnt.n_train, recipe.model)
    about = {"model": "credit", "version": "2"}
    profile = build_profile(rows, recipe.data.features, predictions, recipe.profile, about=about, classes=CLASSES)
    return learnt.model, profile.to_bytes()


def events(model: Model, made: Applications) -> Iterator[bytes]:
    """The prediction log, with the label beside each prediction."""
    scores = model.score(rows_of(made).columns).tolist()
    for i, (row, score, label) in enumerate(zip(made.rows(), scores, made.defaulted.tolist(), strict=True)):
        time_s = T0 + i / ROWS_PER_S
        yield msgspec.json.encode({"id": f"a{i}", "time": time_s, "features": row, "prediction": score, "label": label})


def judged(setting: Setting, seed: int) -> Found:
    """One model, its profile, and what driftwatch decides on later rows."""
    rng = np.random.default_rng([seed, setting.n_rows])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, profile = challenger(setting.recipe, rows_of(applications(setting.n_rows, rng, changed=True)), folder)
        (folder / "2.profile").write_bytes(profile)
        later = applications(WINDOWS * settings.WINDOW, rng, changed=True)
        (folder / "events.jsonl").write_bytes(b"\n".join(events(model, later)) + b"\n")
        places = settings.Places(folder, *(f"http://127.0.0.1:{port}" for port in range(1, 5)))  # nobody is asked
        settings.write_driftwatch(places, version="2", profile="2.profile")
        config = yaml.safe_load(places.driftwatch.read_text()) | {"sinks": [{"kind": "log"}]}
        config["alarms"] = {"budget": f"1 per {PER} windows"}
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        said = driftwatch(folder, "replay", "events.jsonl", "-c", "config.yaml", "--json")
        return counted(setting.name, [json.loads(line) for line in said.splitlines()])


def counted(setting: str, decisions: Sequence[Any]) -> Found:
    """What was decided, in numbers."""
    opened = [a for d in decisions for a in d["alarms"] if a["transition"] == "opened"]
    over = [d for d in decisions if d["verdict"] == "drift"]
    leaders = Counter(f"{a['features'][0]['feature']}'s {a['features'][0]['detector']}" for a in opened)
    of_performance = sum(a["class"] == "performance" for a in opened)
    return Found(setting, len(opened), of_performance, len(over), leaders)


def row(found: Sequence[Found]) -> list[str]:
    """A line of the table: the models of one setting."""
    alarms, expected = sum(f.opened for f in found), len(found) * WINDOWS / PER
    low, high = chi2.ppf(0.025, 2 * alarms) / 2 if alarms else 0.0, chi2.ppf(0.975, 2 * alarms + 2) / 2
    leaders = sum((f.leaders for f in found), Counter[str]()).most_common(3)
    return [
        found[0].setting, f"{len(found)} × {WINDOWS:,}", str(alarms),
        f"{alarms / expected:.2f} ({low / expected:.2f}–{high / expected:.2f})",
        str(sum(f.of_performance for f in found)), f"{sum(f.over for f in found) / expected:.2f}",
        ", ".join(f"{name} {k}" for name, k in leaders) or "-", document.commit(),
    ]  # fmt: skip


TEXT = (
    "The alarm budget under the profile that a promoted version brings. A model of the demo's recipe is trained on "
    "rows of after the demo's change, the newest quarter of them held out; its profile is built as a job builds it; "
    "then later rows of the same kind are replayed through driftwatch with their labels, in windows of "
    f"{settings.WINDOW} rows, each judged twice, and their losses row by row, under a budget of one alarm in {PER} "
    "windows. Every alarm is false. In brackets the 95 % interval of Poisson's law.",
    "*Learnt by heart*: 200 trees of 31 leaves, which know the rows that they were fitted on by heart. *Windows that "
    "differ*: those over the threshold, whether or not they open an alarm of their own; a window may differ in both "
    "judgements.",
)


def main() -> None:
    """Measures, prints, writes the document."""
    parser = document.parser(__doc__)
    parser.add_argument("settings", nargs="*", metavar="SETTING", help="only settings whose name contains one of these")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help=f"models of each; default {SEEDS}")
    options = parser.parse_args()
    asked = options.settings
    chosen = [s for s in SETTINGS if not asked or any(part in s.name for part in asked)]
    tasks = [(setting, seed) for setting in chosen for seed in range(options.seeds)]
    found: list[Found] = []
    with ProcessPoolExecutor(WORKERS) as pool:
        for each in tqdm(pool.map(judged, *zip(*tasks, strict=True)), total=len(tasks), unit="model"):
            found.append(each)
    rows = [row([f for f in found if f.setting == setting.name]) for setting in chosen]
    for line in rows:
        print(" | ".join(line))
    page = document.DOCS / "promoted.md"
    if not asked or not page.exists():
        text = [*TEXT, document.marked("promoted", [])]
        document.write("promoted", "False alarms after a promotion", "python -m benchmarks.promoted", text)
    document.embed_rows("promoted", HEAD, rows, [s.name for s in SETTINGS], page)


if __name__ == "__main__":
    main()

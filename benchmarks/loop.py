"""The whole loop again and again: how much of the lost AUC comes back, how soon, and whether any request fails.

`python -m benchmarks.loop` runs `python -m demo --json` with 20 seeds, about two minutes each on an idle machine, and
writes docs/loop.md after each run. `--seeds 1 2 3` runs those only.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks import document
from demo import report, settings
from demo.stream import CHANNELS, REGIONS, Applications, applications

SEEDS = range(1, 21)
DAY_ROWS = 6000  # of a day, in the middle of which everything changes
JUDGED_ROWS = 6000


@dataclass(frozen=True)
class Run:
    """One run of the demo; `nightly`: AUC after the change, of a model that is fitted every night on the day's rows."""

    seed: int
    made: dict[str, Any]
    nightly: float
    exit_code: int

    @property
    def back(self) -> float:
        """Share of the lost AUC that came back; 0 where no version was promoted."""
        return share(self.made["performance"], self.made["performance"]["after"])

    @property
    def own_s(self) -> float:
        """From the alarm to the promoted champion, without the chosen time of observation; infinite where none was."""
        seconds = self.made["seconds"]
        promoted_s = seconds["alarm_to_promoted"]
        return float("inf") if promoted_s is None else float(promoted_s - seconds["observation"])


def share(performance: dict[str, float | None], after: float | None) -> float:
    """(after − stayed) ÷ (before − stayed)."""
    before, stayed = performance["before"], performance["no_retraining"]
    if before is None or stayed is None or after is None or before == stayed:
        return 0.0
    return (after - stayed) / (before - stayed)


def matrix(made: Applications) -> np.ndarray:
    """As the model sees it: categories by number."""
    known = {"channel": [*CHANNELS], "region": [*REGIONS]}
    columns = [
        np.array([known[name].index(v) for v in values], float) if name in known else values
        for name, values in made.columns.items()
    ]
    return np.column_stack(columns)


def nightly(seed: int) -> float:
    """AUC after the change of the model that is fitted the night after, on a day whose second half is of after it."""
    rng = np.random.default_rng([seed, 1])
    halves = [applications(DAY_ROWS // 2, rng, changed=changed) for changed in (False, True)]
    judged = applications(JUDGED_ROWS, rng, changed=True)
    model = HistGradientBoostingClassifier(
        **settings.RECIPE["model"]["parameters"], early_stopping=False, categorical_features=[5, 6], random_state=0
    )
    model.fit(np.vstack([matrix(h) for h in halves]), np.concatenate([h.defaulted for h in halves]))
    auc = report.roc_auc(model.predict_proba(matrix(judged))[:, 1], judged.defaulted.tolist())
    assert auc is not None
    return auc


def runs(seeds: Sequence[int]) -> Iterator[Run]:
    """One after the other; what the demo says goes to standard error."""
    for seed in seeds:
        words = [sys.executable, "-m", "demo", "--json", "--seed", str(seed)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        lines = done.stdout.splitlines()
        if not lines:
            raise SystemExit(f"the demo with seed {seed} must end with its table; it ended with {done.returncode}.")
        yield Run(seed, json.loads(lines[-1]), nightly(seed), done.returncode)


def page(found: Sequence[Run]) -> list[str]:
    """The page's parts."""
    back, own_s = [run.back for run in found], [run.own_s for run in found]
    of_night = [share(run.made["performance"], run.nightly) for run in found]
    sent, failed = (sum(run.made["requests"][name] for run in found) for name in ("sent", "failed"))
    p95 = float(np.quantile(own_s, 0.95, method="inverted_cdf"))
    closed = sum(run.exit_code == 0 for run in found)
    median = {
        name: np.median([run.made["performance"][name] or np.nan for run in found])
        for name in ("before", "during", "after", "no_retraining")
    }
    rows = [
        ["modelops", median["before"], median["during"], median["after"], np.median(back)],
        ["nightly retraining", median["before"], median["during"], np.median([r.nightly for r in found]),
         np.median(of_night)],
        ["no retraining", median["before"], median["during"], median["no_retraining"], 0.0],
    ]  # fmt: skip
    return [
        f"`make demo` with {len(found)} seeds: **{closed} of {len(found)}** closed the loop; the median run has "
        f"**{np.median(back):.0%}** of the lost AUC back; from the alarm's opening to the promoted champion, without "
        f"the {settings.OBSERVATION_S} s for which a challenger is observed, p95 is **{p95:.0f} s**; "
        f"{failed:,} of {sent:,} requests failed. Seconds are those of a machine with nothing else to do; at the end "
        f"its load was {os.getloadavg()[2]:.0f}, of which the demo is about 2.",
        "Medians of the AUC. Nightly retraining is a model of the same recipe, fitted the night after the change on "
        f"the {DAY_ROWS:,} rows of that day, of which half are from before it; until that night it loses what the "
        "model that stays loses.",
        document.table(
            ["", "before", "during", "after", "of the loss back"],
            [[str(name), *(f"{v:.3f}" for v in aucs), f"{won:.0%}"] for name, *aucs, won in rows],
        ),
        "## Each run",
        document.table(
            ["seed", "before", "during", "after", "no retraining", "nightly", "back", "alarm → promoted, s", "failed"],
            [
                [
                    str(run.seed),
                    *(
                        "-" if run.made["performance"][name] is None else f"{run.made['performance'][name]:.3f}"
                        for name in ("before", "during", "after", "no_retraining")
                    ),
                    f"{run.nightly:.3f}",
                    f"{run.back:.0%}",
                    f"{run.own_s:.1f}",
                    str(run.made["requests"]["failed"]),
                ]
                for run in found
            ],
        ),
    ]


def main() -> None:
    """Measures and writes."""
    parser = document.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), metavar="N", help="default: 1 to 20")
    found: list[Run] = []
    for run in runs(parser.parse_args().seeds):
        found.append(run)
        document.write("loop", "The whole loop, measured", document.command(), page(found))


if __name__ == "__main__":
    main()

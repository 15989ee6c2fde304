"""A worked example of each kind of drift: a made-up lender, the commands, what they said, and a plot.

`python -m benchmarks.kind_examples [--keep FOLDER]` writes docs/kind_examples.md and docs/kind_examples/*.svg in a
minute; `--keep` leaves the events in FOLDER. Needs the extra `docs`.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import document, kind_plot
from benchmarks.kind_streams import KINDS, POOL, Rows, World, columns, fitted, world

SEED = 7
N_TRAINING, N_REFERENCE, N_WINDOW, N_WINDOWS = 5000, 20_000, 1000, 13
CHANGED = range(5, 8)  # windows
START = 1_767_225_600 // N_WINDOW * N_WINDOW  # epoch seconds, an edge of windows; one application a second
LATE_S = 300.0  # a label comes so long after its prediction, on average
CONFIG: dict[str, Any] = {
    "model": {"name": "credit", "version": "3"},
    "events": {
        "features": dict(KINDS),
        "prediction": {"name": "risk", "kind": "probability"},
        "label": {"name": "defaulted", "kind": "binary", "wait": "1h"},
    },
    "reference": {"profile": "reference.profile"},
    "window": {"length": f"{N_WINDOW}s"},
    "alarms": {"budget": "1 per 1000 windows"},
}
FILTER = (
    'jq -c \'.window.start as $at | .revision as $r | .alarms[] | select(.transition != "continuing")\n'
    "       | {at: $at, revision: $r, class, transition, kind, started_at, evidence, suggestion}'"
)


@dataclass(frozen=True)
class Example:
    """One kind: what happened and what to see, what the plot shows of the features, and how a window is drawn."""

    kind: str
    happened: str
    seen: str
    watched: str  # a column
    draw: Callable[[World, np.random.Generator], tuple[Rows, np.ndarray]]
    log: bool = False


def richer(here: World, rng: np.random.Generator) -> tuple[Rows, np.ndarray]:
    """Other people apply; who defaults follows from what they are, as before."""
    rows = here.rows(N_WINDOW, rng)
    rows.latent[:, 1] += 0.8
    return rows, here.label(rows, rng)


def crisis(here: World, rng: np.random.Generator) -> tuple[Rows, np.ndarray]:
    """Defaults are more frequent; who defaults is like those who did before."""
    pool = here.rows(POOL * N_WINDOW, rng)
    label = here.label(pool, rng)
    weight = np.where(label == 1, 2.5, 1.0)
    kept = rng.choice(len(label), N_WINDOW, p=weight / weight.sum())
    return Rows(pool.latent[kept], pool.category[kept]), label[kept]


def new_rule(here: World, rng: np.random.Generator) -> tuple[Rows, np.ndarray]:
    """The same people apply; two of the features say the opposite of what they said."""
    weights = here.weights.copy()
    weights[[1, 2]] *= -1
    rows = here.rows(N_WINDOW, rng)
    return rows, replace(here, weights=weights).label(rows, rng)


def cents(here: World, rng: np.random.Generator) -> tuple[Rows, np.ndarray]:
    """A producer sends thousandths."""
    rows = here.rows(N_WINDOW, rng)

    def strike(sent: dict[str, np.ndarray], invalid: dict[str, np.ndarray]) -> None:
        sent["amount"] = 1000 * sent["amount"]

    rows.broken.append(strike)
    return rows, here.label(rows, rng)


EXAMPLES = (
    Example(
        "covariate",
        "A campaign brings applications for larger sums: `amount` moves up by .8 of its standard deviation. Who "
        "defaults follows from the features as before.",
        "The first judgement finds it when the window closes, before any label. The labels of the same window then say "
        "that performance stayed, as had been estimated: the open alarm is `updated` with it, none of class "
        "`performance` opens, and the suggestion stays `watch`. Had the loss risen with the features, it would have "
        "become `retrain`.",
        "amount",
        richer,
    ),
    Example(
        "prior",
        "Times get worse: defaults are more frequent, and those who default look like those who did before.",
        "The features move a little, all of them as the share of defaults says. Before the labels come the share is "
        "judged by the predictions, then by the labels themselves. The scores still rank rightly: `recalibrate`.",
        "amount",
        crisis,
    ),
    Example(
        "concept",
        "The same people apply, and `amount` and `balance` come to mean the opposite of what they meant.",
        "Nothing shows when the windows close: no feature and no prediction moved. The loss of the labelled rows does, "
        "and the features explain nothing of it: the alarm is of class `performance`, and asks for retraining.",
        "amount",
        new_rule,
    ),
    Example(
        "data_quality",
        "A producer deploys a change and sends `amount` in thousandths.",
        "Every value lies beyond the reference's range, where ten or more times its values would: the pipeline is "
        "broken, not the world. Retraining would make the fault part of the model. The estimate of performance is far "
        "off, since it trusts the scores: an alarm of class `data_quality` says not to. With the producer repaired, "
        "the alarms resolve by themselves.",
        "amount",
        cents,
        log=True,
    ),
)


def events(example: Example | None, here: World, seed: int) -> list[tuple[Rows, np.ndarray]]:
    """Rows and labels of every window."""
    rng = np.random.default_rng(seed)
    found = []
    for w in range(N_WINDOWS):
        if example is not None and w in CHANGED:
            found.append(example.draw(here, rng))
        else:
            rows = here.rows(N_WINDOW, rng)
            found.append((rows, here.label(rows, rng)))
    return found


def written(folder: Path, example: Example, here: World, predict: Callable[[Any], np.ndarray], seed: int) -> np.ndarray:
    """Writes predictions.jsonl and labels.jsonl; the values of the column that the plot shows, (windows, rows)."""
    rng = np.random.default_rng(seed + 1)
    watched, lines, labels = [], [], []
    for w, (rows, label) in enumerate(events(example, here, seed)):
        sent, _ = columns(rows)
        values = {name: [v if isinstance(v, str) else round(v, 4) for v in c.tolist()] for name, c in sent.items()}
        delays = rng.exponential(LATE_S, N_WINDOW)
        watched.append(sent[example.watched])
        for i, p in enumerate(predict(sent).round(4).tolist()):
            n = w * N_WINDOW + i
            features = {name: column[i] for name, column in values.items()}
            lines.append({"id": f"a{n}", "time": START + n, "features": features, "prediction": p})
            labels.append({"id": f"a{n}", "time": round(START + n + delays[i], 3), "label": int(label[i])})
    labels.sort(key=lambda event: event["time"])
    for name, some in (("predictions", lines), ("labels", labels)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(event) + "\n" for event in some), "utf-8")
    return np.array(watched)


def command(folder: Path, *words: str) -> str:
    """What a command of driftwatch prints."""
    ran = subprocess.run(
        [sys.executable, "-m", "driftwatch", *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return ran.stdout


def prepare(folder: Path) -> tuple[World, Callable[[Any], np.ndarray]]:
    """The world, the model that was trained in it, config.yaml and the profile of a reference."""
    rng = np.random.default_rng(SEED)
    here = world("probability", rng)
    training = here.rows(N_TRAINING, rng)
    model = fitted("probability", columns(training)[0], here.label(training, rng))
    rows = here.rows(N_REFERENCE, rng)
    sent, _ = columns(rows)
    times = START - N_REFERENCE + np.arange(N_REFERENCE)
    table = {"time": times, **sent, "risk": model.predict(sent, {}).round(4), "defaulted": here.label(rows, rng)}
    with (folder / "reference.csv").open("w") as file:
        file.write(",".join(table) + "\n")
        for row in zip(*(column.tolist() for column in table.values()), strict=True):
            file.write(",".join(str(round(v, 4)) if isinstance(v, float) else str(v) for v in row) + "\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False), "utf-8")
    command(folder, "profile", "reference.csv", "-c", "config.yaml", "-o", "reference.profile")
    return here, lambda sent: model.predict(sent, {})


def changes(decisions: Sequence[Mapping[str, Any]]) -> str:
    """What FILTER prints of decisions."""
    keys = ("class", "transition", "kind", "started_at", "evidence", "suggestion")
    return "\n".join(
        json.dumps(
            {"at": d["window"]["start"], "revision": d["revision"], **{k: a[k] for k in keys}}, ensure_ascii=False
        )
        for d in decisions
        for a in d["alarms"]
        if a["transition"] != "continuing"
    )


def body(folder: Path) -> list[str]:
    """The page's paragraphs; the plots are written."""
    here, predict = prepare(folder)
    text = [
        "A made-up lender: five numbers and two categories of each application, a logistic model's risk of default, "
        f"and some minutes later whether it came true. {N_WINDOWS} windows of {N_WINDOW:,} applications, of which "
        f"windows {CHANGED[0] + 1} to {CHANGED[-1] + 1} are changed and the others not; a budget of one false alarm in "
        "1,000 windows. The event files are made by the command above with `--keep FOLDER`, beside the configuration:",
        f"```yaml\n{yaml.safe_dump(CONFIG, sort_keys=False, default_flow_style=None, width=110)}```",
        "The commands, the same for each; the last line shows what becomes of alarms:",
        "```bash\ndriftwatch profile reference.csv -c config.yaml -o reference.profile\n"
        f"driftwatch replay KIND/predictions.jsonl KIND/labels.jsonl -c config.yaml --json |\n  {FILTER}\n```",
        "In the plots the changed windows are grey. What each kind means stands in [alarms](alarms.md); how often it "
        "is named right, in [kinds](kinds.md).",
    ]
    for i, example in enumerate(EXAMPLES):
        place = folder / example.kind
        place.mkdir(exist_ok=True)
        watched = written(place, example, here, predict, SEED + 100 * i)
        files = [f"{example.kind}/{name}.jsonl" for name in ("predictions", "labels")]
        out = command(folder, "replay", *files, "-c", "config.yaml", "--json")
        decisions = [json.loads(line) for line in out.splitlines()]
        picture = kind_plot.Picture(example.watched, watched, decisions, CHANGED, example.log)
        kind_plot.draw(picture, document.DOCS / "kind_examples" / f"{example.kind}.svg")
        text += [
            f"## {example.kind}",
            example.happened,
            f"![{example.kind}: the feature, performance and how far each window is from its threshold]"
            f"(kind_examples/{example.kind}.svg)",
            example.seen,
            f"```json\n{changes(decisions)}\n```",
        ]
    return text


def main() -> None:
    """Makes the page."""
    parser = document.parser(__doc__)
    parser.add_argument("--keep", type=Path, help="leave events, configuration and profile here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = given.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        text = body(folder)
    title = "A worked example of each kind of drift"
    document.write("kind_examples", title, "OPENBLAS_NUM_THREADS=1 python -m benchmarks.kind_examples", text)


if __name__ == "__main__":
    main()

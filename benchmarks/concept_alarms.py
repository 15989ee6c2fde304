"""Concept drift through the whole pipeline: the sidecar's alarms on streams in which only the label's rule changes.

`DRIFTWATCH_TEST_DATA=FOLDER python -m benchmarks.concept_alarms` writes docs/concept_alarms.md: streams of FOLDER's
harvard/*abrupto*.csv.gz, and streams made by river. Others: `python -m benchmarks.concept_alarms FILE …` prints their
table and writes nothing.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri
from sklearn.tree import DecisionTreeClassifier
from tqdm import tqdm

from benchmarks import document
from benchmarks.concept_drift import VARIABLE, Stream, generated, harvard
from detectors.performance.loss_baseline import LossBaseline
from driftwatch.loss_watch import glr_of

LEARNED, REFERENCE, DRIFT, END = 2_000, 6_000, 10_000, 20_000  # rows at which parts of a stream end
WINDOW, LENGTH_S = 200, 300.0
SECONDS = LENGTH_S / WINDOW  # between rows
BUDGET, WITHIN = "1 per 3d", 1_000
DELAY_S = 600.0  # of a label, on average
NULL_RATE, NULL_WINDOWS, REFERENCES = 1 / 2_000, 2_000, 40
NULL_REFERENCES = REFERENCE - LEARNED, 40_000
T0 = 1_700_000_100  # a window's edge


@dataclass(frozen=True)
class Rows:
    """Rows of a stream in their order, with what a model said of them; `drift`: the first of the second concept."""

    features: list[dict[str, Any]]
    prediction: np.ndarray
    label: np.ndarray
    drift: int

    @property
    def errors(self) -> tuple[float, float]:
        """The share of wrong predictions before the drift and after."""
        wrong = self.prediction != self.label
        return float(wrong[: self.drift].mean()), float(wrong[self.drift :].mean())


def predicted(stream: Stream) -> Rows:
    """Rows after those that the model learned from; it learns no more."""
    x = np.array([list(row.values()) for row in stream.rows[:END]])
    label = np.array(stream.classes[:END]).astype(int)
    model = DecisionTreeClassifier(min_samples_leaf=20, random_state=0).fit(x[:LEARNED], label[:LEARNED])
    few = [len(np.unique(column)) <= 10 for column in x.T]  # then a feature is a category
    features = [{f"x{i}": str(int(v)) if few[i] else v for i, v in enumerate(row)} for row in x[LEARNED:].tolist()]
    return Rows(features, model.predict(x[LEARNED:]), label[LEARNED:], DRIFT - LEARNED)


def balanced(rows: Rows, rng: np.random.Generator) -> Rows:
    """As many rows of either prediction and of either label, before and after: neither of the two moves by itself.

    Rows are left out by chance, by the cell of (prediction, label) that they are in, so that the odds ratio stays.
    """
    kept = np.zeros(len(rows.label), bool)
    for part in (slice(0, rows.drift), slice(rows.drift, None)):
        prediction, label = rows.prediction[part], rows.label[part]
        table = np.histogram2d(prediction, label, bins=2, range=((0, 1), (0, 1)))[0]
        wanted = table + 0.5
        for _ in range(200):
            wanted *= 0.5 / wanted.sum(axis=1, keepdims=True)
            wanted *= 0.5 / wanted.sum(axis=0, keepdims=True)
        share = wanted / np.maximum(table, 1)
        kept[part] = rng.random(len(label)) < (share / share.max())[prediction, label]
    places = np.flatnonzero(kept)
    features = [rows.features[i] for i in places.tolist()]
    return Rows(features, rows.prediction[places], rows.label[places], int(kept[: rows.drift].sum()))


def events(rows: Rows, first: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Predictions from row `first` on and their labels, events of their own that come later, by their times."""
    found: list[dict[str, Any]] = []
    delays = rng.exponential(DELAY_S, len(rows.label))
    for i in range(first, len(rows.label)):
        time_s = T0 + (i - first) * SECONDS
        said = {"features": rows.features[i], "prediction": int(rows.prediction[i])}
        found.append({"id": f"r{i}", "time": time_s, **said})
        found.append({"id": f"r{i}", "time": round(time_s + float(delays[i]), 3), "label": int(rows.label[i])})
    return sorted(found, key=lambda event: event["time"])


def settings(rows: Rows) -> dict[str, Any]:
    """The configuration: nothing but what the stream is, its windows and the budget."""
    features = {
        name: "categorical" if isinstance(value, str) else "numeric" for name, value in rows.features[0].items()
    }
    return {
        "model": {"name": "stream", "version": "1"},
        "source": {"kind": "file", "path": "events.jsonl"},
        "events": {
            "features": features,
            "prediction": {"name": "prediction", "kind": "binary"},
            "label": {"name": "label", "kind": "binary", "wait": "1d"},
        },
        "reference": {"profile": "reference.profile"},
        "window": {"length": f"{LENGTH_S:.0f}s", "min_records": WINDOW // 2},
        "alarms": {"budget": BUDGET},
        "state": {"path": "state.db"},
    }


def decisions(rows: Rows, rng: np.random.Generator) -> tuple[list[dict[str, Any]], int]:
    """What the sidecar decides, replaying the stream after its reference; and the first row of that stream."""
    first = round(rows.drift * (REFERENCE - LEARNED) / (DRIFT - LEARNED))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "reference.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["time", *rows.features[0], "prediction", "label"])
            for i in range(first):
                time_s = T0 + (i - first) * SECONDS
                writer.writerow([time_s, *rows.features[i].values(), rows.prediction[i], rows.label[i]])
        (folder / "config.yaml").write_text(yaml.safe_dump(settings(rows), sort_keys=False))
        with (folder / "events.jsonl").open("w") as out:
            out.writelines(json.dumps(event) + "\n" for event in events(rows, first, rng))
        driftwatch(folder, "profile", "reference.csv", "-c", "config.yaml", "-o", "reference.profile")
        said = driftwatch(folder, "replay", "events.jsonl", "-c", "config.yaml", "--json")
    return [json.loads(line) for line in said.splitlines()], first


def driftwatch(folder: Path, *arguments: str) -> str:
    """A command's standard output. Raises CalledProcessError."""
    path = f"{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", "driftwatch", *arguments],
        cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def row_of(text: str, first: int) -> int:
    """The row at a time, as a decision writes it."""
    return first + round((datetime.fromisoformat(text).timestamp() - T0) / SECONDS)


def line(name: str, rows: Rows, rng: np.random.Generator) -> list[str]:
    """What the table says of a stream."""
    decided, first = decisions(rows, rng)
    before, after = rows.errors
    opened = [(d["window"], a) for d in decided for a in d["alarms"] if a["transition"] == "opened"]
    early = [a for window, a in opened if row_of(window["end"], first) <= rows.drift]
    late = [(window, a) for window, a in opened if row_of(window["end"], first) > rows.drift]
    concept = next(((window, a) for window, a in late if a["kind"] == "concept"), None)
    by = {
        score["detector"]
        for d in decided
        for score in d["scores"]
        if concept and d["window"] == concept[0] and score["feature"] == "loss" and score["verdict"] == "drift"
    }
    found_by = " and ".join(["rows"] * ("glr" in by) + ["windows"] * bool(by - {"glr"}))
    said = [name, f"{before:.3f}", f"{after:.3f}", str(len(early))]
    if concept is None:
        return [*said, "–", "–", "–", ", ".join(f"{a['class']}: {a['kind']}" for _, a in late) or "–"]
    window, alarm = concept
    after_it = row_of(window["end"], first) - rows.drift
    others = [f"{a['class']}: {a['kind']}" for _, a in late if a is not alarm]
    dated = row_of(alarm["started_at"], first) - rows.drift
    return [*said, str(after_it), f"{dated:+d}", found_by, ", ".join(others) or "–"]


def made() -> Iterator[Stream]:
    """Streams by river: without noise, and with a fifth of the labels flipped."""
    for noise in (0.0, 0.2):
        for stream in generated(7, noise):
            yield Stream(f"river {stream.name}, {noise:.0%} flipped", stream.kind, stream.rows, stream.classes)


HEAD = [
    *("stream", "error before", "error after", "alarms before", "concept alarm after rows", "dated by rows"),
    *("found by", "other alarms"),
]


def table(streams: Sequence[Stream]) -> str:
    """A row a stream."""
    rows = []
    for stream in tqdm(streams, desc="streams", file=sys.stderr):
        rng = np.random.default_rng(1)
        rows.append(line(stream.name, balanced(predicted(stream), rng), rng))
    return document.table(HEAD, rows)


def false_alarms() -> str:
    """Rises found while nothing changes ÷ the share of the budget, over references of two lengths."""
    rows = []
    for name, draw in NULLS.items():
        said = [name]
        for n_reference in NULL_REFERENCES:
            found = np.array([rises(draw, n_reference, seed) for seed in range(REFERENCES)])
            error = max(found.std(ddof=1), np.sqrt(found.mean())) / np.sqrt(REFERENCES) / (NULL_WINDOWS * NULL_RATE)
            said.append(f"{found.mean() / (NULL_WINDOWS * NULL_RATE):.2f} ± {error:.2f}")
        rows.append(said)
    return document.table(["losses", *(f"reference of {n:,}" for n in NULL_REFERENCES)], rows)


def rises(draw: Callable[[int, np.random.Generator], np.ndarray], n_reference: int, seed: int) -> int:
    """How many are found after one reference."""
    rng = np.random.default_rng(seed)
    reference = draw(n_reference, rng)
    baseline = LossBaseline.of("probability" if reference.max() <= 1 else "numeric", reference)
    glr = glr_of(WINDOW / NULL_RATE, baseline)
    _, answer = glr.update(glr.init(), baseline.scaled(draw(WINDOW * NULL_WINDOWS, rng)))
    return len(answer.changes)


def main() -> None:
    """Judges, prints, writes the document."""
    parser = document.parser(__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="only print what comes of these streams")
    if files := parser.parse_args().files:
        print(table(list(harvard(files))))
        return
    place = os.environ.get(VARIABLE)
    if place is None:
        print(f"skipped: `{VARIABLE}` must name the folder of the data sets; got nothing. Set it.", file=sys.stderr)
        return
    found = harvard(sorted((Path(place) / "harvard").glob("*abrupto*.csv.gz")))
    text = [INTRODUCTION, table(list(chain(found, made()))), READING, "## False alarms", NULL, false_alarms()]
    print("\n\n".join(text))
    document.write("concept_alarms", "Concept drift, as alarms", f"{VARIABLE}=FOLDER {document.command()}", text)


def normal(n: int, phi: float, rng: np.random.Generator) -> np.ndarray:
    """A standard normal AR(1)."""
    noise = rng.normal(size=n) * np.sqrt(1 - phi**2)
    noise[0] /= np.sqrt(1 - phi**2)
    return np.asarray(lfilter([1.0], [1.0, -phi], noise))


def alike(n: int, rate: float, phi: float, rng: np.random.Generator) -> np.ndarray:
    """Errors of which neighbours are alike: a normal AR(1) over its quantile."""
    return (normal(n, phi, rng) > ndtri(1 - rate)).astype(np.float64)


def bursts(n: int, burst: int, rng: np.random.Generator) -> np.ndarray:
    """Errors at 5 %, and at 50 % in a tenth of the rows, which come `burst` at a time on average."""
    n_spells = 4 * n // (burst * 10) + 10
    lengths = np.stack([rng.geometric(1 / (9 * burst), n_spells), rng.geometric(1 / burst, n_spells)], axis=1)
    rates = np.repeat(np.tile([0.05, 0.5], n_spells), lengths.ravel())
    first = int(rng.integers(0, 10 * burst))
    return (rng.random(n) < rates[first : first + n]).astype(np.float64)


NULLS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "errors at 0.02 %": lambda n, rng: (rng.random(n) < 0.0002).astype(np.float64),
    "errors at 2 %": lambda n, rng: (rng.random(n) < 0.02).astype(np.float64),
    "errors at 10 %": lambda n, rng: (rng.random(n) < 0.1).astype(np.float64),
    "errors at 40 %": lambda n, rng: (rng.random(n) < 0.4).astype(np.float64),
    "Brier losses, uniform": lambda n, rng: rng.random(n) ** 2,
    "errors at 10 %, neighbours alike": lambda n, rng: alike(n, 0.1, 0.8, rng),
    "errors at 2 %, neighbours alike": lambda n, rng: alike(n, 0.02, 0.8, rng),
    "errors at 10 %, long runs": lambda n, rng: alike(n, 0.1, 0.95, rng),
    "Brier losses, neighbours alike": lambda n, rng: ndtr(normal(n, 0.9, rng)) ** 2,
    "errors in bursts of 30": lambda n, rng: bursts(n, 30, rng),
    "errors in bursts of 200": lambda n, rng: bursts(n, 200, rng),
    "numbers, neighbours slightly alike": lambda n, rng: np.abs(normal(n, 0.5, rng)),
    "numbers, neighbours alike": lambda n, rng: np.abs(normal(n, 0.9, rng)),
}

INTRODUCTION = f"""\
A decision tree (scikit-learn {version("scikit-learn")}) learns the first {LEARNED:,} rows of a stream and then no
more. The next {REFERENCE - LEARNED:,} are its reference; at row {DRIFT:,} the label's rule changes; the stream ends
at {END:,}. Rows are left out by chance so that either prediction and either label has half of the rows before the
change and after it. The sidecar replays what follows the reference in windows of {LENGTH_S / 60:.0f} minutes, {WINDOW}
rows, with labels that come {DELAY_S / 60:.0f} minutes later on average, at one false alarm in three days: one
configuration for all."""

READING = f"""\
"Alarms before" are false. "Concept alarm after rows": from the change to the end of the window whose second judgement
opened an alarm of kind `concept`; {WITHIN:,} is the aim. "Dated by rows": where the alarm's `started_at` lies beside
the change. "Found by": the detector that goes row by row, `glr`, and those that compare the window's losses with the
reference's ([how it works](decisions/0017-losses-are-followed-in-the-order-of-judgement.md),
[beside others](concept_drift.md)). Where leaving rows out moves features, first judgements say so. In SEA the errors
do not become more, or by one row in a hundred: nothing is to be found."""

NULL = f"""\
{REFERENCES} references, {NULL_WINDOWS:,} windows of {WINDOW} rows after each in which nothing changes, at one false
alarm in {1 / NULL_RATE:,.0f} windows for the losses row by row: what their tenth of the budget allows. The table tells
what was found ÷ that, ± the standard error over references, at least that of a Poisson count. Neighbours are alike
where a normal AR(1) (φ = .8, in long runs .95, of Brier losses .9) is over its quantile; in bursts half of the rows are
wrong, one of 20 otherwise, and a reference of 4,000 rows may hold no burst of 200; the loss of a number is its distance
from an AR(1)'s mean (φ = .5 and .9), as a rank.
[How they are judged](decisions/0018-errors-that-are-alike-as-a-markov-chain.md)."""


if __name__ == "__main__":
    main()

"""Sequential detectors on the errors of a model that learns as it goes, on streams with known drifts.

`DRIFTWATCH_TEST_DATA=FOLDER python -m benchmarks.concept_drift` writes docs/concept_drift.md. FOLDER holds
harvard/*.csv.gz. Other streams: `python -m benchmarks.concept_drift FILE …` prints their table and writes nothing. A
stream's columns are features and `class`; its drifts are known by the word `abrupto` or `gradual` in its name. Streams
made by river, without and with label noise: `python -m benchmarks.concept_drift --made`.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from river import naive_bayes
from river.datasets import synth
from tqdm import tqdm

from benchmarks import document
from detectors.evaluate import evaluate
from detectors.sequential import river_detectors as river
from detectors.sequential.change import SequentialDetector
from detectors.sequential.glr import GLR

VARIABLE = "DRIFTWATCH_TEST_DATA"
FEWEST, MOST = 32, 1024  # rows handed in at once, ever more after a start: a detector's answers do not depend on it
REFERENCE = 1_000  # first errors of a stream, whose spread Page-Hinkley is told
SOON = 300  # rows within which HDDM_A finds the drifts on which delays are compared


@dataclass(frozen=True, slots=True)
class Kind:
    """Where the drifts of a kind of stream begin, and for how many rows an alarm counts as their detection."""

    drifts: tuple[int, ...]
    within: int


KINDS = {"abrupto": Kind((10_000, 20_000, 30_000), 1_000), "gradual": Kind((9_500, 20_000, 30_500), 2_000)}


@dataclass
class Stream:
    """Rows and classes, and the errors of models that began at some row, as far as they were asked for."""

    name: str
    kind: str
    rows: list[dict[int, float]]
    classes: list[Any]
    begun: dict[int, tuple[Any, list[float]]] = field(default_factory=dict)

    def errors(self, start: int, first: int, end: int) -> np.ndarray:
        """Errors in rows [first, end) of a model that was new at `start`: each row is predicted, then learned."""
        model, errors = self.begun.setdefault(start, (naive_bayes.GaussianNB(), []))
        for i in range(start + len(errors), end):
            errors.append(float(model.predict_one(self.rows[i]) != self.classes[i]))
            model.learn_one(self.rows[i], self.classes[i])
        return np.array(errors[first - start : end - start])


@dataclass(frozen=True, slots=True)
class Result:
    """One detector on one stream: the rows of its alarms, where it says that each change began, and delays."""

    alarms: tuple[int, ...]
    began: tuple[int | None, ...]
    delays: tuple[float | None, ...]
    false_alarms: int
    repeats: int


def contestants(stream: Stream, *, few: bool) -> Mapping[str, SequentialDetector[Any]]:
    """Every detector, or the `few` that alarm seldom; with one setting for all streams."""
    seldom: Mapping[str, SequentialDetector[Any]] = {
        "ours: GLR, one false alarm in 400,000 rows": GLR(rows_per_false_alarm=400_000),
        "ADWIN": river.ADWIN(),
        "HDDM_A": river.HDDMA(),
        "DDM": river.DDM(),
    }
    if few:
        return seldom
    return {
        **seldom,
        "EDDM": river.EDDM(),
        "KSWIN": river.KSWIN(),
        "Page-Hinkley, standardised": river.PageHinkley(sd=float(stream.errors(0, 0, REFERENCE).std())),
    }


def alarmed(stream: Stream, detector: SequentialDetector[Any]) -> Iterator[tuple[int, int | None]]:
    """The row of each alarm and that at which the change is said to begin; model and detector begin anew after it."""
    start = row = 0
    state = detector.init()
    while row < len(stream.rows):
        end = min(row + min(max(row - start, FEWEST), MOST), len(stream.rows))
        state, answer = detector.update(state, stream.errors(start, row, end))
        row = end
        if answer.changes:
            change = answer.changes[0]  # what follows it in the block is of a model that is replaced
            yield start + change.row, None if change.began_row is None else start + change.began_row
            start = row = start + change.row + 1
            state = detector.init()


def judged(stream: Stream, detector: SequentialDetector[Any]) -> Result:
    """One detector on one stream, held against the truth."""
    said = list(alarmed(stream, detector))
    alarms, began = tuple(alarm for alarm, _ in said), tuple(begin for _, begin in said)
    kind = KINDS[stream.kind]
    drifts = [(drift, drift + kind.within) for drift in kind.drifts]
    found = evaluate(alarms, drifts, start=0, end=len(stream.rows))
    return Result(alarms, began, found.delays, found.false_alarms, found.repeats)


def harvard(paths: Sequence[Path]) -> Iterator[Stream]:
    """Streams from files."""
    for path in paths:
        table = pd.read_csv(path)
        classes = table.pop("class").tolist()
        rows = [dict(enumerate(row)) for row in table.to_numpy(np.float64).tolist()]
        yield Stream(path.name.partition(".")[0], kind_of(path), rows, classes)


def kind_of(path: Path) -> str:
    """The kind in a file's name. Raises ValueError where it has none."""
    for kind in KINDS:
        if kind in path.name:
            return kind
    raise ValueError(f"`{path.name}` must hold one of {', '.join(KINDS)}; it does not. Rename the file.")


CONCEPTS: Mapping[str, tuple[Callable[[int, int], Any], tuple[int, ...]]] = {
    "sine": (lambda c, seed: synth.Sine(classification_function=c, seed=seed), (0, 1, 2, 3)),
    "stagger": (lambda c, seed: synth.STAGGER(classification_function=c, seed=seed), (0, 1, 2, 0)),
    "mixed": (lambda c, seed: synth.Mixed(classification_function=c, seed=seed), (0, 1, 0, 1)),
    "sea": (lambda c, seed: synth.SEA(variant=c, seed=seed), (3, 2, 1, 0)),
    "tree": (lambda c, seed: synth.RandomTree(seed_tree=c, seed_sample=seed), (11, 12, 13, 14)),
}


def generated(seed: int, noise: float) -> Iterator[Stream]:
    """Five streams with balanced classes, a drift every 10,000 rows, and this share of labels flipped.

    A drift need not raise the error: from one concept of SEA to another it can fall.
    """
    for name, (make, concepts) in CONCEPTS.items():
        rows: list[dict[int, float]] = []
        classes: list[bool] = []
        for part, concept in enumerate(concepts):
            for x, y in balanced(make(concept, 100 * seed + part), 10_000):
                rows.append({i: float(value) for i, value in enumerate(x.values())})
                classes.append(y)
        flips = np.random.default_rng(seed).random(len(rows)) < noise
        labels = [y != flip for y, flip in zip(classes, flips.tolist(), strict=True)]
        yield Stream(name, "abrupto", rows, labels)


def balanced(rows: Any, n: int) -> Iterator[tuple[Mapping[Any, Any], bool]]:
    """n rows whose classes take turns."""
    wanted = True
    for x, y in rows:
        if bool(y) == wanted:
            yield x, wanted
            wanted, n = not wanted, n - 1
        if n == 0:
            return


def compare(streams: Sequence[Stream], *, few: bool) -> dict[str, list[Result]]:
    """The detectors on every stream."""
    results: dict[str, list[Result]] = {}
    for stream in tqdm(streams, desc="streams", file=sys.stderr):
        for name, detector in contestants(stream, few=few).items():
            results.setdefault(name, []).append(judged(stream, detector))
        stream.begun.clear()
    return results


def soon(results: Mapping[str, Sequence[Result]]) -> list[tuple[int, int]]:
    """(stream, drift) that HDDM_A finds within SOON rows."""
    return [
        (s, d)
        for s, result in enumerate(results["HDDM_A"])
        for d, delay in enumerate(result.delays)
        if delay is not None and delay <= SOON
    ]


def mean(values: Sequence[float]) -> str:
    """The mean as text."""
    return f"{np.mean(values):.0f}" if len(values) else "–"


def summary(streams: Sequence[Stream], results: Mapping[str, Sequence[Result]]) -> str:
    """A row a detector."""
    quick = soon(results)
    rows = []
    for name, of in results.items():
        delays = [delay for result in of for delay in result.delays]
        hits = [delay for delay in delays if delay is not None]
        both = [delay for s, d in quick if (delay := of[s].delays[d]) is not None]
        off = [abs(b - drift) for stream, result in zip(streams, of, strict=True) for b, drift in dated(stream, result)]
        rows.append(
            [
                name,
                f"{len(hits)} of {len(delays)}",
                str(sum(result.false_alarms for result in of)),
                str(sum(result.repeats for result in of)),
                mean(hits),
                f"{mean(both)} ({len(both)} of {len(quick)})",
                mean(off),
            ]
        )
    head = ["detector", "hits", "false alarms", "repeats", "delay", "delay where HDDM_A is quick", "dated wrong by"]
    return document.table(head, rows)


def dated(stream: Stream, result: Result) -> Iterator[tuple[int, int]]:
    """(where the change is said to begin, where it does) of each hit that is dated."""
    kind = KINDS[stream.kind]
    for drift, delay in zip(kind.drifts, result.delays, strict=True):
        if delay is not None:
            began = result.began[result.alarms.index(int(drift + delay))]
            if began is not None:
                yield began, drift


def details(streams: Sequence[Stream], results: Mapping[str, Sequence[Result]]) -> str:
    """A row a stream: what the detectors with few alarms said."""
    names = list(results)[:3]
    rows = []
    for s, stream in enumerate(streams):
        said = []
        for name in names:
            result = results[name][s]
            delays = ", ".join("–" if delay is None else f"{delay:.0f}" for delay in result.delays)
            said.append(f"{delays}; {result.false_alarms}")
        rows.append([stream.name, *said])
    return document.table(["delay of each drift; false alarms", *names], rows)


def speed() -> str:
    """Rows in a CPU-second while nothing changes, in batches of 1,000 and 10,000."""
    rng = np.random.default_rng(1)
    rows = []
    for name, detector, n in (("ours", GLR(), 400_000), ("ADWIN", river.ADWIN(), 400_000)):
        said = [name]
        for batch in (1_000, 10_000):
            losses = (rng.random(n) < 0.1).astype(np.float64)
            state: Any = detector.init()
            began = time.process_time()
            for first in range(0, n, batch):
                state, _ = detector.update(state, losses[first : first + batch])
            said.append(f"{n / (time.process_time() - began) / 1e6:.2f} million")
        rows.append(said)
    return document.table(["rows in a CPU-second", "batches of 1,000", "batches of 10,000"], rows)


def sections(streams: Sequence[Stream], *, few: bool = False) -> list[str]:
    """The tables of these streams."""
    results = compare(streams, few=few)
    return [summary(streams, results), details(streams, results)]


def main() -> None:
    """Judges, prints, writes the document."""
    parser = document.parser(__doc__)
    parser.add_argument("--made", action="store_true", help="only print what comes of river's generators")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="only print what comes of these streams")
    options = parser.parse_args()
    if options.made:
        for noise in (0.0, 0.2):
            print("\n\n".join([f"{noise:.0%} of the labels flipped", *sections(list(generated(7, noise)), few=True)]))
        return
    if options.files:
        streams = list(harvard(options.files))
        for kind in KINDS:
            of_kind = [stream for stream in streams if stream.kind == kind]
            if of_kind:
                print("\n\n".join([kind, *sections(of_kind)]))
        return
    place = os.environ.get(VARIABLE)
    if place is None:
        print(f"skipped: `{VARIABLE}` must name the folder of the data sets; got nothing. Set it.", file=sys.stderr)
        return
    streams = list(harvard(sorted((Path(place) / "harvard").glob("*.csv.gz"))))
    text = [
        INTRODUCTION,
        "## The Harvard streams at hand: abrupt drifts",
        *sections([stream for stream in streams if stream.kind == "abrupto"]),
        "## The Harvard streams at hand: gradual drifts",
        *sections([stream for stream in streams if stream.kind == "gradual"]),
        "## Speed",
        speed(),
    ]
    print("\n\n".join(text))
    document.write("concept_drift", "Concept drift, row by row", f"{VARIABLE}=FOLDER {document.command()}", text)


INTRODUCTION = f"""\
A Gaussian naive Bayes model (of river {version("river")}) predicts each row and then learns it; its 0/1 errors are what
the detectors see. At an alarm model and detector begin anew. A drift is hit by the first alarm within 1,000 rows of its
begin (2,000 where it is gradual); further alarms in that time are repeats, all others false, also those that find a
small drift too late. Delays are in rows, means over the hits; "delay where HDDM_A is quick" is over the drifts that
HDDM_A hits within {SOON} rows, with how many of them the detector hits. Each detector has one setting on all streams:
river's defaults, but for Page-Hinkley, which is told the standard deviation of the first {REFERENCE:,} errors.
How the sidecar follows losses with ours, and what comes of it as alarms: [concept_alarms.md](concept_alarms.md)."""


if __name__ == "__main__":
    main()

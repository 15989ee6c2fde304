"""What late labels cost: a replay with them beside one without them, and a sidecar that holds as many as it may.

`python -m benchmarks.labels [cost | memory]` prints tables. Costs are CPU time on one core, less that of a replay of an
empty file. A machine that others use is not equally fast all the time: each replay is divided by those without labels
right before and after it, and the median over rounds is told, with the quartiles that say how steady the machine was.
The sidecar reads as many predictions as may wait, is killed, starts again on its state, and then reads labels for half
of them.
"""

import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from benchmarks import document
from benchmarks.speed import MB, high_water, one_core, run

EVENTS, ROUNDS, REFERENCE_ROWS = 200_000, 9, 20_000
T0_S, STEP_S, WINDOW, DELAY_S = 1_700_000_000, 0.01, "100s", 600.0
SIZES, FEW = (25, 4), 4  # features
MAX_PENDING, PORTION = 2_000_000, 10_000
LABEL = {"name": "defaulted", "kind": "binary", "wait": "1d"}
RUNS = 8  # a round
WAYS = {"beside": ("in the event", 1.3), "apart": ("a file of label events", 1.6), "merged": ("among them", 1.6)}


def features(n: int) -> dict[str, str]:
    """Of n features a fifth are categorical."""
    return {f"f{i}": "categorical" if i % 5 == 4 else "numeric" for i in range(n)}


def columns(kinds: Mapping[str, str], n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Normal numbers and six letters; a probability that is right about itself, and what came true."""
    found: dict[str, np.ndarray] = {
        name: rng.normal(size=n).round(6) if kind == "numeric" else rng.choice(list("abcdef"), n)
        for name, kind in kinds.items()
    }
    p = rng.random(n).round(4)
    return {**found, "prediction": p, "defaulted": (rng.random(n) < p).astype(int)}


def configure(folder: Path, kinds: Mapping[str, str]) -> None:
    """Configurations without and with labels, and a profile for each."""
    reference = columns(kinds, REFERENCE_ROWS, np.random.default_rng(1))
    times = T0_S - 10_000_000 + np.arange(REFERENCE_ROWS) * STEP_S
    pd.DataFrame({"time": times, **reference}).to_csv(folder / "reference.csv", index=False)
    events = {"features": dict(kinds), "prediction": {"kind": "probability"}}
    for name, read in (("without", events), ("with", events | {"label": LABEL})):
        settings = {
            "model": {"name": "labels", "version": "1"},
            "events": read,
            "reference": {"profile": f"{name}.profile"},
            "window": {"length": WINDOW},
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
        out = str(folder / f"{name}.profile")
        driftwatch("profile", str(folder / "reference.csv"), "-c", str(path), "-o", out, folder=folder)


def driftwatch(*arguments: str, folder: Path) -> float:
    """CPU seconds of a command."""
    return run(sys.executable, "-m", "driftwatch", *arguments, folder=folder).cpu_s


def write_streams(folder: Path, kinds: Mapping[str, str], n: int) -> None:
    """The same predictions alone, with the label in each, with a file of labels, and with label events among them."""
    rng, encode = np.random.default_rng(3), msgspec.json.encode
    drawn = {name: column.tolist() for name, column in columns(kinds, n, rng).items()}
    truths, predictions = drawn.pop("defaulted"), drawn.pop("prediction")
    times = T0_S + np.arange(n) * STEP_S
    known = (times + rng.exponential(DELAY_S, n)).round(3)
    plain, labels = [], []
    with (folder / "beside.jsonl").open("wb") as beside:
        rows = zip(times.tolist(), predictions, truths, known.tolist(), *drawn.values(), strict=True)
        for i, (time, prediction, label, at, *row) in enumerate(rows):
            values = dict(zip(kinds, row, strict=True))
            event = {"id": f"req-{i}", "time": time, "features": values, "prediction": prediction}
            plain.append(encode(event) + b"\n")
            beside.write(encode(event | {"label": label}) + b"\n")
            labels.append(encode({"id": f"req-{i}", "time": at, "label": label}) + b"\n")
    (folder / "without.jsonl").write_bytes(b"".join(plain))
    with (folder / "labels.jsonl").open("wb") as file:
        file.writelines(labels[i] for i in np.argsort(known, kind="stable").tolist())
    both = plain + labels
    with (folder / "merged.jsonl").open("wb") as file:
        file.writelines(both[i] for i in np.argsort(np.concatenate([times, known]), kind="stable").tolist())


def costs(folder: Path, rounds: int, bar: "tqdm[None]") -> dict[str, np.ndarray]:
    """What a replay costs by one without labels, for each way that labels come, (rounds,)."""
    (folder / "empty.jsonl").write_bytes(b"")
    streams = {"beside": ["beside.jsonl"], "apart": ["without.jsonl", "labels.jsonl"], "merged": ["merged.jsonl"]}

    def seconds(*names: str, config: str = "without.yaml") -> float:
        paths = [str(folder / name) for name in names]
        bar.update()
        return driftwatch("replay", *paths, "-c", str(folder / config), "--json", folder=folder)

    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        start, before = seconds("empty.jsonl"), seconds("without.jsonl")
        for way, names in streams.items():
            taken, after = seconds(*names, config="with.yaml"), seconds("without.jsonl")
            found[way].append((taken - start) / ((before + after) / 2 - start))
            before = after
    return {way: np.array(ratios) for way, ratios in found.items()}


def prediction_lines(kinds: Mapping[str, str], n: int) -> Iterator[bytes]:
    """Predictions as JSON lines, drawn in portions."""
    rng, encode = np.random.default_rng(3), msgspec.json.encode
    for start in range(0, n, PORTION):
        drawn = [column.tolist() for column in columns(kinds, PORTION, rng).values()]
        for i, (*row, p, _) in enumerate(zip(*drawn, strict=True), start):
            features = dict(zip(kinds, row, strict=True))
            yield encode({"id": f"req-{i}", "time": T0_S + i * STEP_S, "features": features, "prediction": p}) + b"\n"


def label_lines(n: int) -> Iterator[bytes]:
    """Labels of every second one of n predictions, in some order, once all of them have come."""
    order = np.random.default_rng(4).permutation(n)[: n // 2].tolist()
    for k, i in enumerate(order):
        yield msgspec.json.encode({"id": f"req-{i}", "time": T0_S + n * STEP_S + k * 0.001, "label": i % 2}) + b"\n"


def peak_at_end(folder: Path, events: Path) -> float:
    """Runs the sidecar until it has stored all of a file, then kills it; the most memory that it had, in MB."""
    peak, state = 0, folder / "state" / "state.db"
    command = (sys.executable, "-m", "driftwatch", "run", "-c", str(folder / "with.yaml"))
    with (folder / "err").open("wb") as err:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err)
        while child.poll() is None and position(state) < events.stat().st_size:
            peak = max(peak, high_water(child.pid))
            time.sleep(0.1)
        peak = max(peak, high_water(child.pid))
        child.kill()
        if child.wait() != -signal.SIGKILL:
            sys.exit(f"{' '.join(command)} ended by itself: {(folder / 'err').read_text('utf-8')[-2000:]}")
    return peak / MB


def position(state: Path) -> int:
    """How far the sidecar has stored to have read."""
    if not state.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT max(position) FROM shards").fetchone()
    except sqlite3.OperationalError:  # the file is just being made
        return 0
    return int(found[0] or 0)


def measure_memory(folder: Path, most: int) -> list[list[str]]:
    """Peaks of a sidecar with few predictions, with as many as may wait, and once it has started anew."""
    kinds, rows = features(FEW), []
    label = LABEL | {"wait": "30d", "max_pending": most}
    events = {"features": dict(kinds), "prediction": {"kind": "probability"}, "label": label}
    source = {"kind": "file", "path": str(folder / "events.jsonl"), "follow": True}
    configure(folder, kinds)
    settings = yaml.safe_load((folder / "with.yaml").read_text("utf-8"))
    settings |= {"events": events, "source": source, "state": {"path": str(folder / "state" / "state.db")}}
    (folder / "with.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    path = folder / "events.jsonl"
    predictions = prediction_lines(kinds, most)
    with path.open("ab") as file:
        file.writelines(islice(predictions, PORTION))
    rows.append([f"{PORTION:,} predictions", f"{peak_at_end(folder, path):.0f}"])
    with path.open("ab") as file:
        file.writelines(predictions)
    rows.append([f"{most:,} predictions wait", f"{peak_at_end(folder, path):.0f}"])
    *labels, last = label_lines(most)
    with path.open("ab") as file:
        file.writelines(labels)
    rows.append([f"a start on them, and {most // 2:,} labels", f"{peak_at_end(folder, path):.0f}"])
    with path.open("ab") as file:
        file.write(last)
    rows.append(["a start on all of it", f"{peak_at_end(folder, path):.0f}"])
    return rows


def measure_cost(folder: Path, rounds: int) -> list[list[str]]:
    """Ratios of each way that labels come, for each number of features."""
    rows = []
    with one_core(), tqdm(total=len(SIZES) * rounds * RUNS) as bar:
        for n in SIZES:
            here = folder / str(n)
            here.mkdir(exist_ok=True)
            configure(here, features(n))
            write_streams(here, features(n), EVENTS)
            for way, ratios in costs(here, rounds, bar).items():
                what, most = WAYS[way]
                low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
                rows.append([f"{n} features, {what}", f"{middle:.2f}", f"{low:.2f} – {high:.2f}", f"{most:.1f}"])
    return rows


def main() -> None:
    """Measures and prints."""
    parser = document.parser(__doc__)
    parser.add_argument("what", choices=["cost", "memory"], nargs="?")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"default {ROUNDS}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.what != "memory":
            head = ["labels", "times the replay without labels", "quartiles", "bar"]
            print(document.table(head, measure_cost(Path(name), options.rounds)))
    with tempfile.TemporaryDirectory() as name:
        if options.what != "cost":
            print(document.table(["sidecar, peak", "MB"], measure_memory(Path(name), MAX_PENDING)))


if __name__ == "__main__":
    main()

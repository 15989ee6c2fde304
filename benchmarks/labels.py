"""What late labels cost: a replay with them beside one without them, on the same predictions.

`python -m benchmarks.labels` prints a table. Everything runs on one core, one after the other; costs are CPU time with
the start of the process, told as ratios within a round.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from benchmarks import document
from benchmarks.speed import one_core, run

EVENTS, ROUNDS, REFERENCE_ROWS = 200_000, 3, 20_000
T0_S, STEP_S, WINDOW, DELAY_S = 1_700_000_000, 0.01, "100s", 600.0
SIZES = (25, 4)  # features
LABEL = {"name": "defaulted", "kind": "binary", "wait": "1d"}
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


def configure(folder: Path, kinds: Mapping[str, str], **changed: Any) -> None:
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
        path.write_text(yaml.safe_dump(settings | changed, sort_keys=False), "utf-8")
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


def ratios(folder: Path, rounds: int, bar: "tqdm[None]") -> dict[str, list[float]]:
    """Of each way that labels come, what a replay costs by that of one without labels, each round."""
    ways = {"without": ["without.jsonl"], "beside": ["beside.jsonl"]}
    ways |= {"apart": ["without.jsonl", "labels.jsonl"], "merged": ["merged.jsonl"]}
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        costs = {}
        for way, names in ways.items():
            config = folder / ("without.yaml" if way == "without" else "with.yaml")
            paths = [str(folder / name) for name in names]
            costs[way] = driftwatch("replay", *paths, "-c", str(config), "--json", folder=folder)
            bar.update()
        for way in WAYS:
            found[way].append(costs[way] / costs["without"])
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--keep", type=Path, help="a folder to leave the streams in")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, one_core(), tqdm(total=len(SIZES) * options.rounds * 4) as bar:
        for n in SIZES:
            folder = (options.keep or Path(name)) / str(n)
            folder.mkdir(parents=True, exist_ok=True)
            configure(folder, features(n))
            write_streams(folder, features(n), EVENTS)
            for way, found in ratios(folder, options.rounds, bar).items():
                what, most = WAYS[way]
                middle, low, high = statistics.median(found), min(found), max(found)
                rows.append([f"{n} features, {what}", f"{middle:.2f}", f"{low:.2f} – {high:.2f}", f"{most:.1f}"])
    print(document.table(["labels", "times the replay without labels", "least – most", "bar"], rows))


if __name__ == "__main__":
    main()

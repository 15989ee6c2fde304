"""What a replay costs beside a bare decode of the same events; memory, start-up, profile building, size.

`python -m benchmarks.speed [--install]` writes docs/speed.md. Everything runs on one core, one after the other; rates
are events a CPU-second. `--install` also installs the package into an empty folder (from an index) and weighs it.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from benchmarks import document

EVENTS, FEW = 1_000_000, 200_000
REFERENCE_ROWS = 100_000
N_NUMERIC, N_CATEGORICAL = 20, 5
WINDOW = 10_000
T0_S = 1_700_000_000.0
LACKING, WRONG_TYPE = 0.02, 0.05  # of dirty events: nulls in each numeric feature; rows with a number as text
BARS = {"clean": 0.30, "dirty": 0.20}
PASSES, BATCH = 5, 1000
MB = 1e6
FEATURES = {f"f{i}": "numeric" for i in range(N_NUMERIC)} | {f"g{i}": "categorical" for i in range(N_CATEGORICAL)}


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command took. `peak_bytes`: the most resident memory it had."""

    cpu_s: float
    peak_bytes: int
    lines: int


def run(*command: str, folder: Path) -> Finished:
    """Runs a command to its end; one that fails ends the benchmark with what it said."""
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        child = subprocess.Popen(command, stdout=out, stderr=err)
        peak = 0
        while True:
            peak = max(peak, high_water(child.pid))
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.02)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}: {(folder / 'err').read_text('utf-8')[-2000:]}")
    with (folder / "out").open("rb") as text:
        return Finished(usage.ru_utime + usage.ru_stime, peak, sum(1 for _ in text))


def high_water(pid: int) -> int:
    """The most resident bytes that a process has had; 0 once it is over. (`ru_maxrss` would count its parent's.)"""
    try:
        found = Path(f"/proc/{pid}/status").read_text("utf-8").partition("VmHWM:")[2].split()
    except ProcessLookupError:
        return 0
    return 1024 * int(found[0]) if found else 0


def columns(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Normal numbers and six equally frequent letters."""
    return {
        name: rng.normal(size=n) if kind == "numeric" else rng.choice(list("abcdef"), n)
        for name, kind in FEATURES.items()
    }


def lines(n: int, rng: np.random.Generator, *, dirty: bool) -> Iterator[bytes]:
    """Events as JSON lines, about 700 bytes each."""
    encode = msgspec.json.encode
    for start in range(0, n, BATCH):
        drawn = [column.tolist() for column in columns(BATCH, rng).values()]
        lacking = rng.random((BATCH, N_NUMERIC)) < LACKING
        wrong = rng.random(BATCH) < WRONG_TYPE
        for i, row in enumerate(zip(*drawn, strict=True)):
            features: dict[str, Any] = dict(zip(FEATURES, row, strict=True))
            if dirty:
                features.update({f"f{k}": None for k in np.flatnonzero(lacking[i])})
                if wrong[i]:
                    features["f7"] = str(row[7])
            at = start + i
            event = {"id": f"req-{at}", "time": T0_S + at * 0.01, "features": features, "prediction": 0.5}
            yield encode(event) + b"\n"


def bare_decode(path: Path) -> float:
    """Events a CPU-second of a decode into structs, in batches: the median of PASSES passes."""
    of_features = [(name, float if kind == "numeric" else str) for name, kind in FEATURES.items()]
    features = msgspec.defstruct("Features", of_features, gc=False)
    event = msgspec.defstruct(
        "Event", [("id", str), ("time", float), ("features", features), ("prediction", float)], gc=False
    )
    decode = msgspec.json.Decoder(event).decode
    events = path.read_bytes().splitlines()
    rates = []
    for _ in range(PASSES):
        start = time.process_time()
        for i in range(0, len(events), BATCH):
            [decode(line) for line in events[i : i + BATCH]]
        rates.append(len(events) / (time.process_time() - start))
    return statistics.median(rates)


@contextmanager
def one_core() -> Iterator[None]:
    """This process and its children on the first core that it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def configure(folder: Path) -> Path:
    """Writes the reference and the configuration."""
    reference = columns(REFERENCE_ROWS, np.random.default_rng(1))
    times = T0_S - 10_000_000 + np.arange(REFERENCE_ROWS) * 0.01
    pd.DataFrame({"time": times, **reference}).to_csv(folder / "reference.csv", index=False)
    settings = {
        "model": {"name": "speed", "version": "1"},
        "events": {"features": FEATURES},
        "reference": {"profile": "reference.profile"},
        "window": {"count": WINDOW},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return path


def measure(folder: Path, n_events: int, bar: "tqdm[None]") -> tuple[list[list[str]], list[list[str]]]:
    """Rows about replays, and rows about all else."""
    config = configure(folder)
    python, command = sys.executable, (sys.executable, "-m", "driftwatch")
    others: list[list[str]] = []

    def note(what: str, found: Finished) -> None:
        bar.update()
        others.append([what, f"{found.cpu_s:.2f}", f"{found.peak_bytes / MB:.0f}" if found.peak_bytes else "–"])

    out = str(folder / "reference.profile")
    profile = run(*command, "profile", str(folder / "reference.csv"), "-c", str(config), "-o", out, folder=folder)
    note(f"`driftwatch profile`: {REFERENCE_ROWS:,} rows × {len(FEATURES)} features, from CSV, three sizes", profile)
    note("`python -c pass`", run(python, "-c", "pass", folder=folder))
    note("`import driftwatch.app`", run(python, "-c", "import driftwatch.app", folder=folder))
    (folder / "empty.jsonl").write_bytes(b"")
    empty = run(*command, "replay", str(folder / "empty.jsonl"), "-c", str(config), "--json", folder=folder)
    note("`driftwatch replay` of an empty file", empty)
    few, events = folder / "few.jsonl", folder / "events.jsonl"
    replays = []
    for what, bar_ratio in BARS.items():
        n_few = min(FEW, n_events)
        write(few, n_few, dirty=False)
        before = bare_decode(few)
        write(few, n_few, dirty=what == "dirty")
        write(events, n_events, dirty=what == "dirty")
        short, full = (
            run(*command, "replay", str(path), "-c", str(config), "--json", folder=folder) for path in (few, events)
        )
        size = events.stat().st_size / n_events
        write(few, n_few, dirty=False)
        bare = (before + bare_decode(few)) / 2
        rate = n_events / full.cpu_s
        replays.append(
            [
                what,
                f"{size:.0f}",
                f"{bare:,.0f}",
                f"{rate:,.0f}",
                f"{rate / bare:.2f}",
                f"{bar_ratio:.2f}",
                f"{full.peak_bytes / MB:.0f}",
                f"{(full.peak_bytes - short.peak_bytes) / MB:+.0f}",
                f"{full.lines:,}",
            ]
        )
        bar.update()
    return replays, others


def write(path: Path, n: int, *, dirty: bool) -> None:
    """The first n events of a stream, always the same."""
    with path.open("wb") as file:
        file.writelines(lines(n, np.random.default_rng(3), dirty=dirty))


def installed(folder: Path) -> str:
    """What the base install weighs, by its largest parts."""
    target = folder / "site-packages"
    root = str(document.DOCS.parent)
    run(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), root, folder=folder)
    sizes = {
        part.name: sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        for part in target.iterdir()
        if part.is_dir()
    }
    largest = sorted(sizes, key=lambda name: -sizes[name])[:6]
    parts = ", ".join(f"{name} {sizes[name] / MB:.0f}" for name in largest)
    return f"Base install: {sum(sizes.values()) / MB:.0f} MB in site-packages ({parts})."


def main() -> None:
    """Measures, prints, writes the document."""
    parser = document.parser(__doc__)
    parser.add_argument("--install", action="store_true", help="install the package afresh and weigh it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, one_core(), tqdm(total=6, unit="measurement") as bar:
        replays, others = measure(Path(name), EVENTS, bar)
        size = [installed(Path(name))] if options.install else []
    head = ["events", "bytes each", "bare decode, events/s", "replay, events/s", "ratio", "bar", "peak MB"]
    text = [
        f"A replay of {EVENTS:,} JSON events ({N_NUMERIC} numeric and {N_CATEGORICAL} categorical features) in windows "
        f"of {WINDOW:,}, against a bare msgspec decode of clean events into structs, before and after it on the same "
        f"core. Dirty: {LACKING:.0%} nulls in each numeric feature, and {WRONG_TYPE:.0%} of the rows with a number as "
        "text. Rates are of CPU time and include the start of the process.",
        document.table([*head, f"MB grown after {FEW:,}", "windows"], replays),
        document.table(["once", "CPU-s", "peak MB"], others),
        *size,
    ]
    print("\n\n".join(text))
    document.write("speed", "Speed and size", document.command(), text)


if __name__ == "__main__":
    main()

"""What a snapshot costs when 1 % of rows are new, against making it from nothing: processor time, alternated pairs.

python benchmarks/snapshots.py [--rows 200000] [--pairs 5]
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import document
from modelops.data import Selection, Snapshot, Warehouse
from modelops.recipe import Data

START_S = 1_800_000_000.0
RECIPE = Data.model_validate(
    {"features": {**{f"x{j}": "numeric" for j in range(8)}, "region": "categorical"}, "window": "100s"}
)


def grow(log: Path, labels: Path, first: int, end: int) -> None:
    """Appends predictions and their labels."""
    numbers = np.random.default_rng(first).normal(size=(end - first, 8)).round(4).tolist()
    with log.open("a") as events, labels.open("a") as answers:
        for i, row in zip(range(first, end), numbers, strict=True):
            features = {f"x{j}": value for j, value in enumerate(row)} | {"region": ("north", "south", "west")[i % 3]}
            event = {"id": f"r{i}", "time": START_S + i / 10, "model": "m", "version": "1", "prediction": 0.5}
            events.write(json.dumps(event | {"features": features}) + "\n")
            answers.write(json.dumps({"id": f"r{i}", "time": START_S + i / 10 + 5, "label": int(i % 4 == 0)}) + "\n")


def made(warehouse: Warehouse, files: list[Path]) -> tuple[float, Snapshot]:
    """Seconds of the processor, and the snapshot."""
    began_s = time.process_time()
    found = warehouse.snapshot(files, RECIPE, Selection("m", START_S))
    return time.process_time() - began_s, found


def main() -> None:
    """Prints each pair and the median ratio."""
    parser = document.parser(__doc__)
    parser.add_argument("--rows", type=int, default=200_000, metavar="N", help="rows of the log; default 200000")
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="pairs; default 5")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, n = Path(name), options.rows
        files = [folder / "predictions.jsonl", folder / "labels.jsonl"]
        grow(*files, 0, n)
        kept = Warehouse(folder / "kept")
        made(kept, files)
        ratios = []
        for i in range(options.pairs):
            end = n + n // 100
            grow(*files, n, end)
            n = end
            grown_s, grown = made(kept, files)
            fresh_s, fresh = made(Warehouse(folder / f"fresh-{i}"), files)
            assert grown.id == fresh.id
            assert Path(grown.path).read_bytes() == Path(fresh.path).read_bytes()
            ratios.append(grown_s / fresh_s)
            print(f"{n:,} rows, 1 % of them new: {grown_s:.2f} s, from nothing {fresh_s:.2f} s, {ratios[-1]:.3f}")
        print(f"median ratio {statistics.median(ratios):.3f}; the same rows each time")


if __name__ == "__main__":
    main()

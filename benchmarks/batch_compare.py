"""Two batches of 100,000 rows × 25 numeric columns: four statistics on tables, and SciPy's KS alone.

`OPENBLAS_NUM_THREADS=1 python -m benchmarks.batch_compare` writes docs/batch_compare.md. evidently
takes part where it can be imported; figures are CPU-seconds, the median of three.
"""

import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.stats import ks_2samp
from tqdm import tqdm

from benchmarks import document
from detectors import PSI, ChiSquare, KolmogorovSmirnov, Wasserstein
from detectors.basis import Basis, basis
from detectors.contrast import Contrast
from detectors.grid import FeatureKind
from detectors.lookup import CellLookup
from detectors.reference import make_grid
from detectors.two_sample import chi_square, ks, psi, wasserstein

ROWS, COLUMNS = 100_000, 25
PASSES = 3
NO_MARKS = np.empty((0, 2), np.intp), np.empty(0, np.uint8)
NAMES = [f"x{i}" for i in range(COLUMNS)]
KINDS: dict[str, FeatureKind] = dict.fromkeys(NAMES, "numeric")

Batch = np.ndarray  # float64 (rows, columns)


def grid_of(reference: Batch) -> tuple[Basis, CellLookup]:
    """Cells, scores and distances of a reference: done once for it."""
    columns = dict(zip(NAMES, reference.T, strict=True))
    grid = make_grid(columns, KINDS, need=1.0)
    lookup = CellLookup(grid)
    codes = lookup(reference, *NO_MARKS)
    return basis(grid, grid.count(codes), columns, n_current=len(reference), codes=codes), lookup


def on_tables(measures: Basis, lookup: CellLookup, reference: Batch, current: Batch) -> np.ndarray:
    """KS, PSI, Wasserstein and chi-square of every column, both batches counted anew, (4, columns)."""
    counts = [measures.grid.count(lookup(batch, *NO_MARKS)) for batch in (reference, current)]
    contrast = Contrast(measures, reference=counts[0], current=counts[1])
    return np.stack([f.statistic(contrast) for f in (ks, psi, wasserstein, chi_square)])


def from_nothing(reference: Batch, current: Batch) -> np.ndarray:
    """The same, the grid made as well."""
    return on_tables(*grid_of(reference), reference, current)


def exactly(reference: Batch, current: Batch) -> np.ndarray:
    """KS, PSI, Wasserstein and chi-square of the arrays as they are, (4, columns)."""
    detectors = (KolmogorovSmirnov(), PSI(), Wasserstein(), ChiSquare())
    return np.array(
        [
            [d.compare(reference=x, current=y).statistic for x, y in zip(reference.T, current.T, strict=True)]
            for d in detectors
        ]
    )


def exact_ks(reference: Batch, current: Batch) -> list[float | None]:
    """Our KS of the arrays, its p-value with it."""
    detector = KolmogorovSmirnov()
    return [detector.compare(reference=x, current=y).statistic for x, y in zip(reference.T, current.T, strict=True)]


def scipy_ks(reference: Batch, current: Batch) -> np.ndarray:
    """SciPy's KS of every column."""
    return np.array([ks_2samp(x, y).statistic for x, y in zip(reference.T, current.T, strict=True)])


def with_evidently(reference: Batch, current: Batch) -> object:
    """evidently's data-drift preset, its defaults (Wasserstein at this size)."""
    import pandas as pd

    evidently, presets = importlib.import_module("evidently"), importlib.import_module("evidently.presets")
    frames = [pd.DataFrame(batch, columns=NAMES) for batch in (current, reference)]
    return evidently.Report([presets.DataDriftPreset()]).run(*frames).dict()


def cpu_s(action: Callable[[], object]) -> float:
    """CPU-seconds, the median of PASSES."""
    taken = []
    for _ in range(PASSES):
        start = time.process_time()
        action()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def main() -> None:
    """Measures, prints, writes the document."""
    document.parser(__doc__).parse_args()
    rng = np.random.default_rng(0)
    reference, current = rng.normal(size=(ROWS, COLUMNS)), rng.normal(0.02, 1, size=(ROWS, COLUMNS))
    measures, lookup = grid_of(reference)
    contenders: list[tuple[str, Callable[[], object]]] = [
        ("SciPy, KS alone", partial(scipy_ks, reference, current)),
        ("four on tables, the grid known", partial(on_tables, measures, lookup, reference, current)),
        ("four on tables, the grid made as well", partial(from_nothing, reference, current)),
        ("exact, KS with its p-value", partial(exact_ks, reference, current)),
        ("exact, all four", partial(exactly, reference, current)),
    ]
    absent = importlib.util.find_spec("evidently") is None
    if not absent:
        contenders.append(("evidently's data-drift preset", partial(with_evidently, reference, current)))
    seconds = {name: cpu_s(action) for name, action in tqdm(contenders, unit="contender")}
    base = seconds["SciPy, KS alone"]
    rows = [[name, f"{value:.3f}", f"{base / value:.1f}"] for name, value in seconds.items()]
    gap = np.abs(on_tables(measures, lookup, reference, current)[0] - scipy_ks(reference, current)).max()
    text = [
        f"{ROWS:,} × {COLUMNS} against {ROWS:,} × {COLUMNS} normal numbers, shifted by .02. The four: KS, PSI, "
        "Wasserstein, chi-square.",
        document.table(["what", "CPU-s", "times as fast as SciPy's KS"], rows),
        f"On tables the KS statistic is at most {gap:.5f} below the exact one here.",
        *(["evidently could not be imported where this was measured."] if absent else []),
    ]
    print("\n\n".join(text))
    document.write("batch_compare", "Comparing two batches", document.command(), text)


if __name__ == "__main__":
    main()

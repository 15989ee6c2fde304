"""The exact MMD against a naive numpy version and, where they can be imported, torch and alibi-detect.

`OPENBLAS_NUM_THREADS=1 python benchmarks/mmd.py [ROWS] [COLUMNS] [PERMUTATIONS]` compares ROWS (10,000) rows of COLUMNS
(32) columns with as many others, with PERMUTATIONS (100). Each contender runs in a process of its own, so that its peak
memory is its own: what it adds to the imports and the data. The naive version keeps the whole kernel matrix and
multiplies it with one labelling after the other; it runs on at most 4,000 rows, its time scaled by the square of the
rest, since 20,000 pooled rows would take 3.2 GB and as much again.
"""

import importlib
import importlib.util
import multiprocessing
import resource
import time
from collections.abc import Callable

import numpy as np

from benchmarks import document
from detectors.two_sample.exact_mmd import mmd

NAIVE_ROWS = 4000
ALIBI = "alibi_detect"


def ours(x: np.ndarray, y: np.ndarray, permutations: int) -> tuple[float, float | None]:
    """The library's version."""
    result = mmd(x, y, permutations=permutations, bandwidth=bandwidth(x))
    return result.mmd2, result.p_value


def naive(x: np.ndarray, y: np.ndarray, permutations: int) -> tuple[float, float | None]:
    """The definition with a full kernel matrix in float64."""
    rows = np.concatenate([x, y])
    squares = (rows**2).sum(axis=1)
    kernel = np.exp(-(squares[:, None] + squares - 2 * rows @ rows.T) / (2 * bandwidth(x) ** 2))
    np.fill_diagonal(kernel, 0.0)
    n, m = len(x), len(y)
    total = kernel.sum()

    def statistic(is_reference: np.ndarray) -> float:
        product = kernel @ is_reference
        xx, xy = is_reference @ product, (1 - is_reference) @ product
        return float(xx / (n * (n - 1)) + (total - xx - 2 * xy) / (m * (m - 1)) - 2 * xy / (n * m))

    rng = np.random.default_rng(0)
    labels = np.repeat([1.0, 0.0], [n, m])
    observed = statistic(labels)
    at_least = sum(statistic(rng.permutation(labels)) >= observed for _ in range(permutations))
    return observed, (1 + at_least) / (1 + permutations)


def with_torch(x: np.ndarray, y: np.ndarray, permutations: int) -> tuple[float, float | None]:
    """A full kernel matrix in float32 and one matrix product for all permutations, on one thread of the CPU."""
    torch = importlib.import_module("torch")

    torch.set_num_threads(1)
    rows = torch.from_numpy(np.concatenate([x, y]).astype(np.float32))
    kernel = torch.exp(-(torch.cdist(rows, rows) ** 2) / (2 * bandwidth(x) ** 2)).fill_diagonal_(0.0)
    n, m = len(x), len(y)
    rng = np.random.default_rng(0)
    labels = np.zeros((n + m, permutations + 1), np.float32)
    labels[:n] = 1.0
    labels[:, 1:] = rng.permuted(labels[:, 1:], axis=0)
    first = torch.from_numpy(labels)
    second = 1 - first
    product = kernel @ first
    xx, xy = (first * product).double().sum(0), (second * product).double().sum(0)
    yy = kernel.double().sum() - xx - 2 * xy
    values = xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)
    return float(values[0]), (1 + int((values[1:] >= values[0]).sum())) / (1 + permutations)


def with_alibi_detect(x: np.ndarray, y: np.ndarray, permutations: int) -> tuple[float, float | None]:
    """alibi-detect's MMDDrift on its PyTorch backend."""
    detector = importlib.import_module(f"{ALIBI}.cd").MMDDrift(
        x.astype(np.float32), backend="pytorch", n_permutations=permutations
    )
    answer = detector.predict(y.astype(np.float32))
    return float(answer["data"]["distance"]), float(answer["data"]["p_val"])


def bandwidth(x: np.ndarray) -> float:
    """One for all: about the median distance of standard normal rows."""
    return float(np.sqrt(2 * x.shape[1]))


Contender = Callable[[np.ndarray, np.ndarray, int], tuple[float, float | None]]


def measured(contender: Contender, rows: int, columns: int, permutations: int) -> tuple[float, float, float]:
    """MMD², seconds of wall clock and MB of peak memory above the start, of one call in this process."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows, columns)), rng.normal(size=(rows, columns))
    contender(x[:200], y[:200], 2)  # imports and warms up
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    value, _ = contender(x, y, permutations)
    seconds = time.perf_counter() - start
    return value, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Print a table, each contender's time as a multiple of ours."""
    parser = document.parser(__doc__)
    for name, usual in (("rows", 10_000), ("columns", 32), ("permutations", 100)):
        parser.add_argument(name, nargs="?", type=int, default=usual, help=f"default {usual}")
    options = parser.parse_args()
    rows, columns, permutations = options.rows, options.columns, options.permutations
    contenders: list[tuple[str, Contender, int]] = [
        ("ours", ours, rows),
        ("naive numpy", naive, min(rows, NAIVE_ROWS)),
    ]
    if importlib.util.find_spec("torch"):
        contenders.append(("torch", with_torch, rows))
    if importlib.util.find_spec(ALIBI):
        contenders.append(("alibi-detect", with_alibi_detect, rows))
    print(f"{rows} x {rows} rows, {columns} columns, {permutations} permutations")
    print(f"{'':14}{'rows':>8}{'seconds':>10}{'x ours':>9}{'peak MB':>9}{'MMD2':>12}")
    ours_s = 0.0
    for name, contender, own_rows in contenders:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            value, seconds, peak_mb = pool.apply(measured, (contender, own_rows, columns, permutations))
        ours_s = ours_s or seconds
        ratio = seconds * (rows / own_rows) ** 2 / ours_s
        print(f"{name:14}{own_rows:8}{seconds:10.2f}{ratio:9.1f}{peak_mb:9.0f}{value:12.2e}")


if __name__ == "__main__":
    main()

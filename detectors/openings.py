"""How often an alarm opens, given which windows were over the threshold."""

import numpy as np

MIN_CALM = 3  # windows in a row without drift that resolve an alarm, at least


def count_openings(exceeds: np.ndarray, k: int, n: int) -> np.ndarray:
    """Counts the alarms that `for: k of n` opens over runs of consecutive windows, each from a fresh state.

    An alarm opens at a window that is over the threshold when k of the last n windows are and none is open; it
    resolves when max(n, 3) windows in a row are not. There is no cool-down: with one, alarms can only be fewer.

    Parameters
    ----------
    exceeds : (..., n_windows) of bool, in the order of time; leading axes are runs of their own.
    k, n : 1 ≤ k ≤ n.

    Returns
    -------
    (...) of int64, the openings of each run.

    Cost: O(windows) in vectorised steps over the runs, 16 bytes a window.

    >>> count_openings(np.array([[True, False, False, False, True], [True, False, True, True, False]]), 1, 1)
    array([2, 1])
    >>> count_openings(np.array([[True, False, False, False, True], [True, False, True, True, False]]), 2, 3)
    array([0, 1])
    """
    if not 1 <= k <= n:
        raise ValueError(f"`k` must lie in 1 … `n`; got k={k}, n={n}. k of the last n windows open an alarm.")
    met = exceeds & (_of_last(exceeds, n) >= k)
    calm = _of_last(exceeds, max(n, MIN_CALM)) == 0
    is_open = np.zeros(exceeds.shape[:-1], bool)
    openings = np.zeros(exceeds.shape[:-1], np.int64)
    for t in range(exceeds.shape[-1]):
        openings += met[..., t] & ~is_open
        is_open = (is_open | met[..., t]) & ~calm[..., t]
    return openings


def _of_last(exceeds: np.ndarray, n: int) -> np.ndarray:
    """How many of the last n windows, each one included, are over the threshold; fewer than n at the beginning."""
    total = np.cumsum(exceeds, axis=-1, dtype=np.int64)
    before = np.zeros_like(total)
    before[..., n:] = total[..., :-n]
    return np.asarray(total - before)

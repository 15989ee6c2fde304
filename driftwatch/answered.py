"""The labels that stood beside the latest predictions, so that another label of the same id is known for what it is."""

import numpy as np

_SHARE = 8  # of the predictions that may wait: so many are remembered, in 16 bytes each
_LEAST = 1 << 10


class Answered:
    """Of each id's hash its label, in the slot of the hash's low bits, until another id comes there.

    Memory that a crash takes and nothing gives back: no decision knows of it.
    """

    def __init__(self, max_pending: int) -> None:
        n = _LEAST
        while n < max_pending // _SHARE:
            n *= 2
        self._low = np.uint64(n - 1)
        self._hashes, self._labels = np.zeros(0, np.uint64), np.zeros(0)  # until there is one

    def add(self, hashes: np.ndarray, labels: np.ndarray) -> None:
        """Predictions that had their label."""
        if not len(self._hashes):
            n = int(self._low) + 1
            self._hashes, self._labels = np.zeros(n, np.uint64), np.zeros(n)
        slots = self._slots(hashes)
        self._hashes[slots], self._labels[slots] = hashes, labels

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of these ids are known, bool (n,), and the labels of those that are."""
        if not len(self._hashes):
            return np.zeros(len(hashes), bool), self._labels
        slots = self._slots(hashes)
        known = self._hashes[slots] == hashes
        return known, self._labels[slots[known]]

    def _slots(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes & self._low).astype(np.intp)

"""A column of 32-bit codes that takes a byte a row, as long as few of them are different."""

import numpy as np

_MOST = 256  # that a byte tells apart


class CodeColumn:
    """Uint32 (n,), zeros at first; read and written by places like an array.

    `few`: whether few different codes are to be expected. Once there are more than a byte tells apart, each row takes
    four bytes.
    """

    def __init__(self, n: int, *, few: bool) -> None:
        self.stored: np.ndarray = np.zeros(n, np.uint8 if few else np.uint32)
        self._codes = np.zeros(1, np.uint32)  # by the byte that stands for it
        self._order = np.zeros(1, np.intp)  # of the codes

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        stored = self.stored[places]
        return np.asarray(stored if stored.dtype == np.uint32 else self._codes.take(stored))

    def __setitem__(self, places: np.ndarray, codes: np.ndarray) -> None:
        self.stored[places] = codes if self.stored.dtype == np.uint32 else self._as_stored(codes)

    def _as_stored(self, codes: np.ndarray) -> np.ndarray:
        at = self._at(codes)
        is_new = self._codes.take(at) != codes
        if not is_new.any():
            return at
        known = np.concatenate([self._codes, np.unique(codes[is_new])])
        if len(known) > _MOST:
            self.stored = self._codes.take(self.stored)
            return codes
        self._codes, self._order = known, np.argsort(known)
        return self._at(codes)

    def _at(self, codes: np.ndarray) -> np.ndarray:
        """The place among the known codes, intp; of one that is not there some other's."""
        at = np.searchsorted(self._codes, codes, sorter=self._order)
        return np.asarray(self._order.take(at, mode="clip"))

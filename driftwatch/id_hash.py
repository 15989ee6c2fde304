"""64-bit hashes of ids: the same in every process and however ids are batched."""

from collections.abc import Callable, Sequence

import numpy as np

_ODD = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)  # masks of a word's first n bytes
_ONE, _MOST_BITS = np.uint64(1), np.uint64(63)
_BETWEEN = "\0"  # ids

Rows = slice | np.ndarray
Words = Callable[[int, Rows], np.ndarray]
"""The k-th eight bytes of some ids, uint64, zeros after an id's end."""


def hash_ids(ids: Sequence[str]) -> np.ndarray:
    """Uint64 (n,), never 0. Of two million ids two have one hash in one of ten million cases.

    Each eight bytes are mixed in by the finaliser of splitmix64 (Steele, Lea & Flood 2014), for all ids at once.
    """
    letters, starts, lengths = _laid_out(ids)
    shortest, longest = (int(lengths.min()), int(lengths.max())) if ids else (0, 0)
    words = _cut_even(letters, len(ids), longest) if shortest == longest else _cut(letters, starts, lengths)
    found = lengths.astype(np.uint64) * _ODD
    for k in range(max(1, -(-longest // 8))):
        # No matter how long the longest is: only ids that reach so far go on.
        rows = slice(None) if not k or shortest > 8 * k else np.flatnonzero(lengths > 8 * k)
        found[rows] = _mix(found[rows] ^ words(k, rows))
    return np.asarray(np.maximum(found, _ONE))


def _laid_out(ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bytes of all ids with one between them, zeros after the last; where each begins; its bytes, int64 (n,)."""
    data = _BETWEEN.join(ids).encode()
    letters = np.zeros(8 * (len(data) // 8 + 2), np.uint8)
    letters[: len(data)] = np.frombuffer(data, np.uint8)
    ends = np.append(np.flatnonzero(letters[: len(data)] == 0), len(data))
    if len(ends) != len(ids):  # an id holds what stands between ids
        ends = np.cumsum([len(name.encode()) + 1 for name in ids], dtype=np.int64) - 1
    starts = np.append(0, ends[:-1] + 1)[: len(ids)]
    return letters, starts, ends - starts


def _cut(letters: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Words:
    """Words of ids wherever they begin: each is put together of two that begin at a multiple of eight."""
    whole = letters.view("<u8")
    at, right = starts >> 3, ((starts & 7) << 3).astype(np.uint64)

    def words(k: int, rows: Rows) -> np.ndarray:
        first, shift = at[rows] + k, right[rows]
        word = whole.take(first) >> shift | whole.take(first + 1) << _ONE << (_MOST_BITS - shift)
        return np.asarray(word & _BYTES.take(np.minimum(lengths[rows] - 8 * k, 8)))

    return words


def _cut_even(letters: np.ndarray, n: int, length: int) -> Words:
    """Words of n ids of one length."""
    padded = np.zeros((n, 8 * max(1, -(-length // 8))), np.uint8)
    padded[:, :length] = letters[: n * (length + 1)].reshape(n, length + 1)[:, :length]
    columns = padded.view("<u8").T.copy()
    return lambda k, rows: columns[k][rows]


def _mix(h: np.ndarray) -> np.ndarray:
    h = h + _ODD
    h = (h ^ (h >> np.uint64(30))) * _FIRST
    h = (h ^ (h >> np.uint64(27))) * _SECOND
    return np.asarray(h ^ (h >> np.uint64(31)))


def has_twins(hashes: np.ndarray) -> bool:
    """Whether one of them is there twice."""
    in_order = np.sort(hashes)
    return bool((in_order[1:] == in_order[:-1]).any())

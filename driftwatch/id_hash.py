"""64-bit hashes of ids: the same in every process and however ids are batched."""

from collections.abc import Sequence

import numpy as np

_ODD = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def hash_ids(ids: Sequence[str]) -> np.ndarray:
    """Uint64 (n,), never 0. Of two million ids two have one hash in one of ten million cases.

    Each eight bytes are mixed in by the finaliser of splitmix64 (Steele, Lea & Flood 2014), for all ids at once.
    """
    lengths, letters = _letters(ids)
    n_words = max(1, -(-letters.shape[1] // 8))
    padded = np.zeros((len(ids), n_words * 8), np.uint8)
    padded[:, : letters.shape[1]] = letters
    words = padded.view("<u8").T.copy()
    found = lengths.astype(np.uint64) * _ODD
    for k in range(n_words):
        mixed = _mix(found ^ words[k])
        found = mixed if not k else np.where(lengths > 8 * k, mixed, found)  # no matter how long the longest is
    return np.asarray(np.maximum(found, np.uint64(1)))


def _letters(ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of each id, int64 (n,), and the bytes themselves, uint8 (n, longest), zeros after the end."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    text = "".join(ids)
    if text.isascii() and len(text) == len(ids) * int(lengths.max(initial=0)):  # all of one length
        return lengths, np.frombuffer(text.encode(), np.uint8).reshape(len(ids), int(lengths.max(initial=0)))
    if not text.isascii():
        encoded = [name.encode() for name in ids]
        lengths = np.fromiter(map(len, encoded), np.int64, len(ids))
        table = np.array(encoded, "S")
    else:
        table = np.array(ids, "S")
    return lengths, table.view(np.uint8).reshape(len(ids), table.itemsize)


def _mix(h: np.ndarray) -> np.ndarray:
    h = h + _ODD
    h = (h ^ (h >> np.uint64(30))) * _FIRST
    h = (h ^ (h >> np.uint64(27))) * _SECOND
    return np.asarray(h ^ (h >> np.uint64(31)))


def has_twins(hashes: np.ndarray) -> bool:
    """Whether one of them is there twice."""
    in_order = np.sort(hashes)
    return bool((in_order[1:] == in_order[:-1]).any())

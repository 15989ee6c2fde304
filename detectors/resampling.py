"""Null draws: pseudo-windows and fresh pseudo-references from one reference, its dependence preserved.

A window is circular moving blocks of rows; its reference is multinomial weights over block tables: both samples are
random. All features come from the same rows, so that what ties them together is in every draw.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BASE_BLOCKS = 2000
GATHER = 60_000  # up to this many cells, a pseudo-window is gathered row by row; beyond it is a sum of block tables
PORTION = 3e6  # cells of the windows that are drawn at once
SUB_BLOCKS = 10  # of a segment


@dataclass(frozen=True, slots=True)
class Draws:
    """D null draws: counts of windows and of references (D, cells) and means of the joint features (D, joint)."""

    current: np.ndarray
    reference: np.ndarray
    joint_current: np.ndarray
    joint_reference: np.ndarray


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows to draw from: flat cells (rows, features) and joint features summed over base blocks.

    `n_reference`: rows that the reference has, of which these may be only some runs.
    """

    codes: np.ndarray
    n_cells: int
    joint: np.ndarray
    n_reference: int


class Resampler:
    """Draws from the rows of a reference.

    `block`: rows of a block. `segments`: the dependence is longer than any block; then a window is a random place in
    the reference and the reference stays as it is. Base blocks are neighbouring rows, about 2,000 of them.
    """

    def __init__(self, rows: Rows, *, block: int, segments: bool, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.block, self.segments = block, segments
        codes, n_cells, joint = rows.codes, rows.n_cells, rows.joint
        self._codes, self._n_cells, self._n_reference = codes, n_cells, rows.n_reference
        n_rows = len(codes)
        self._base = base_rows(n_rows)
        n_base = n_rows // self._base
        of_block = np.minimum(np.arange(n_rows) // self._base, n_base - 1)
        flat = of_block[:, None].astype(np.int64) * n_cells + codes
        tables = np.bincount(flat.ravel(), minlength=n_base * n_cells).reshape(n_base, n_cells).astype(np.float32)
        self.total = tables.sum(axis=0)
        self.joint_mean = (joint.sum(axis=0) / n_rows).astype(np.float32)
        width = max(1, round(block / self._base))
        self.block_rows = width * self._base
        self._tables, self._joint = circular_sums(tables, width), circular_sums(joint.astype(np.float32), width)

    @property
    def joint_variance(self) -> np.ndarray:
        """n · variance of a mean of n rows of each joint feature, from the blocks."""
        return np.asarray((self._joint / self.block_rows).var(axis=0) * self.block_rows)

    def draws(self, n_draws: int, n_current: int, *, windows: int = 4) -> Iterator[Draws]:
        """Draws in portions; each pseudo-reference is shared by `windows` windows in a row."""
        n_references = -(-n_draws // windows)
        cells = n_current * self._codes.shape[1] if self._gathers(n_current) else self._n_cells
        step = max(1, min(64, int(PORTION / (cells * windows))))
        for first in range(0, n_references, step):
            n = min(step, n_references - first)
            reference, joint_reference = self._references(n)
            current = self._windows(n * windows, n_current)
            joint_current = self._joint_windows(n * windows, n_current)
            yield Draws(current, reference.repeat(windows, 0), joint_current, joint_reference.repeat(windows, 0))

    def runs(self, n_runs: int, length: int, pane_rows: int) -> Iterator[Draws]:
        """Runs of `length` consecutive panes against one pseudo-reference each; one run a portion."""
        for _ in range(n_runs):
            reference, joint_reference = self._references(1)
            current, joint_current = self._windows(length, pane_rows), self._joint_windows(length, pane_rows)
            yield Draws(current, reference, joint_current, joint_reference)

    def _references(self, n_draws: int) -> tuple[np.ndarray, np.ndarray]:
        mean = self.total * np.float32(self._n_reference / len(self._codes))
        if self.segments:
            return mean[None].repeat(n_draws, 0), self.joint_mean[None].repeat(n_draws, 0)
        weights = self._weights(n_draws, max(1, round(len(self._codes) / self.block_rows)))
        taken = np.float32(weights[0].sum() * self.block_rows)
        narrower = np.float32(np.sqrt(taken / self._n_reference))  # where only some runs of a longer reference are here
        off = weights @ self._tables * np.float32(self._n_reference / taken) - mean
        joint_off = weights @ self._joint / taken - self.joint_mean
        return np.maximum(mean + off * narrower, 0), self.joint_mean + joint_off * narrower

    def _weights(self, n_draws: int, n_blocks: int) -> np.ndarray:
        """How often each block is drawn, float32 (draws, blocks)."""
        n_base = len(self._tables)
        chosen = self._rng.integers(0, n_base, (n_draws, n_blocks)) + np.arange(n_draws)[:, None] * n_base
        counts = np.bincount(chosen.ravel(), minlength=n_draws * n_base)
        return counts.reshape(n_draws, n_base).astype(np.float32)

    def _windows(self, n_draws: int, n_current: int) -> np.ndarray:
        if self.segments:
            return self._count(self._segment_rows(n_draws, n_current))
        if self._gathers(n_current):
            starts = self._rng.integers(0, len(self._codes), (n_draws, -(-n_current // self.block)))
            rows = starts[:, :, None] + np.arange(self.block)
            return self._count(rows.reshape(n_draws, -1)[:, :n_current] % len(self._codes))
        weights = self._weights(n_draws, max(1, -(-n_current // self.block_rows)))
        taken = float(weights[0].sum() * self.block_rows)
        mean = self.total * np.float32(n_current / len(self._codes))
        off = weights @ self._tables * np.float32(n_current / taken) - mean
        return np.asarray(np.maximum(mean + off * np.float32(np.sqrt(taken / n_current)), 0))

    def _joint_windows(self, n_draws: int, n_current: int) -> np.ndarray:
        """Means of the joint features; drawn by themselves, which makes the largest term hardly larger."""
        if not self._joint.shape[1]:
            return np.zeros((n_draws, 0), np.float32)
        if self.segments:
            return np.asarray(
                self._joint[self._rng.integers(0, len(self._joint), n_draws)] / np.float32(self.block_rows)
            )
        weights = self._weights(n_draws, max(1, -(-n_current // self.block_rows)))
        taken = float(weights[0].sum() * self.block_rows)
        off = weights @ self._joint / np.float32(taken) - self.joint_mean
        return np.asarray(self.joint_mean + off * np.float32(np.sqrt(taken / n_current)))

    def _gathers(self, n_current: int) -> bool:
        """Whether a window's rows are gathered one by one; else it is a sum of block tables."""
        few = n_current * self._codes.shape[1] <= GATHER
        return self.segments or few or self.block >= n_current

    def _segment_rows(self, n_draws: int, n_current: int) -> np.ndarray:
        """Rows of ten sub-blocks around a random place, each moved by up to half a window."""
        n_rows = len(self._codes)
        length = -(-n_current // SUB_BLOCKS)
        place = self._rng.integers(0, max(1, n_rows - n_current + 1), n_draws)[:, None] + np.arange(SUB_BLOCKS) * length
        place = place + (self._rng.uniform(-0.5, 0.5, (n_draws, SUB_BLOCKS)) * n_current).astype(np.intp)
        rows = np.clip(place, 0, max(0, n_rows - length))[:, :, None] + np.arange(length)
        return np.asarray(np.minimum(rows.reshape(n_draws, -1)[:, :n_current], n_rows - 1))

    def _count(self, rows: np.ndarray) -> np.ndarray:
        """Counts of the cells of chosen rows (draws, rows), float32 (draws, cells)."""
        counts = np.empty((len(rows), self._n_cells), np.float32)
        for i, chosen in enumerate(rows):  # one by one: a window's codes stay in the processor's cache
            counts[i] = np.bincount(self._codes.take(chosen, axis=0).ravel(), minlength=self._n_cells)
        return counts


def base_rows(n_rows: int) -> int:
    """Rows of a base block."""
    return max(1, n_rows // BASE_BLOCKS)


def block_sums(rows: np.ndarray, base: int) -> np.ndarray:
    """Sums of row features over base blocks (the last one takes what is left), float32 (blocks, features)."""
    starts = np.arange(0, max(1, len(rows) // base)) * base
    return np.add.reduceat(rows, starts, axis=0).astype(np.float32)


def circular_sums(tables: np.ndarray, width: int) -> np.ndarray:
    """Sums of `width` neighbouring blocks, going round at the end."""
    if width == 1:
        return tables
    doubled = np.concatenate([tables, tables[: width - 1]]).astype(np.float64)
    cumulative = np.concatenate([np.zeros((1, tables.shape[1])), np.cumsum(doubled, axis=0)])
    return np.asarray(cumulative[width:] - cumulative[:-width], np.float32)

"""Windows as unions of blocks of 1, 2, 4, 8, … consecutive samples.

What is asked of a block, its sum or its largest value, is worked out for blocks of doubling size at every position at
once, each from two of half its size. The work then grows with the logarithm of the windows' lengths, where a visit to
every sample of every window would grow with the lengths themselves.

A column of blocks is laid out like the values or times that it comes from; entry i is the block that begins at i.
Entries too close to the end of a series reach into the next one, or are 0 at the end of the array. No window uses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.query.promql.windows import Bounds, Number, Windows, take


def halves(column: npt.NDArray[Number], half: int) -> tuple[npt.NDArray[Number], npt.NDArray[Number]]:
    """The two blocks of `half` samples that make up each block of twice the size, as flat views."""
    flat = column.reshape(-1)
    return flat[:-half], flat[half:]


def unfilled(column: npt.NDArray[Number], half: int) -> tuple[npt.NDArray[Number], npt.NDArray[Number]]:
    """A column for blocks of twice `half` samples, and the flat view of it that is to be filled from `halves`."""
    blocks = np.empty(column.shape, column.dtype)
    flat = blocks.reshape(-1)
    flat[-half:] = 0
    return blocks, flat[:-half]


@dataclass(frozen=True, slots=True)
class Block:
    """The blocks of one size in the binary partition of each window: at most one a window, beginning at `positions`
    where `within`. `used` tells whether any window has one, `everywhere` whether all have."""

    size: int
    positions: Int64s
    within: Bools
    used: bool
    everywhere: bool

    def of(self, column: Floats) -> Floats:
        """The entries of a column of blocks of this size, [series, steps]; 0 where the window has none."""
        entries = take(column, self.positions)
        return entries if self.everywhere else np.where(self.within, entries, 0.0)


def partition(windows: Windows) -> Iterator[Block]:
    """Cut each window into blocks of different sizes, the smallest first. All sizes up to the largest are given, also
    those that no window uses."""
    bounds = windows.bounds
    sizes = int(np.bitwise_or.reduce(bounds.count, axis=None))
    for bit in range(sizes.bit_length()):
        size = 1 << bit
        used = sizes & size != 0
        within = (bounds.count & size) != 0
        yield Block(size, bounds.first + (bounds.count & (size - 1)), within, used, bool(within.all()))


@dataclass(frozen=True, slots=True)
class Cover:
    """The blocks of one size that cover windows of up to twice that size, two for each, which may overlap: one from the
    window's first sample on and one up to its last. `within` tells which windows; None: no window."""

    size: int
    first: Int64s
    second: Int64s
    within: Bools | None


def covers(windows: Windows) -> Iterator[Cover]:
    """Cover each window by two blocks. All sizes up to the largest are given, also those that no window uses."""
    bounds: Bounds = windows.bounds
    for bit in range(windows.longest.bit_length()):
        size = 1 << bit
        within = (bounds.count >= size) & (bounds.count < 2 * size)
        yield Cover(size, bounds.first, bounds.last - (size - 1), within if within.any() else None)

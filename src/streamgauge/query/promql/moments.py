"""Sums and central moments over windows, in doubled precision, without visiting each sample of each window.

Sums of 1, 2, 4, 8, … consecutive samples are built from one another for every position at once, and a window of, say,
13 samples is a block of 1, one of 4 and one of 8. That takes a number of vector operations that grows with the
logarithm of the window's length.

A sum is a pair of float64 arrays: its rounded value, and the rounding errors made so far (Ogita, Rump and Oishi,
"Accurate Sum and Dot Product", 2005), which makes it as exact as compensated summation in order. No running total over
the whole series is kept: NaN, an infinity or 1e100 would spoil it for all windows that follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.query.promql.windows import Windows, take


def two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """The rounded sum and its exact rounding error (Knuth)."""
    total = a + b
    virtual = total - a
    error = total - virtual
    np.subtract(a, error, out=error)
    np.subtract(b, virtual, out=virtual)
    error += virtual
    return total, error


def window_sums(windows: Windows, column: Floats) -> tuple[Floats, Floats]:
    """The sum of a column over each window, as its rounded value and what rounding lost, [series, steps] each.

    A sum that is not finite has no meaningful error. Sums that overflow on the way are infinite or NaN.
    """
    total, lost = np.zeros(windows.shape), np.zeros(windows.shape)
    rounded, errors = column, np.zeros(column.shape)
    for block in _blocks(windows):
        if block.size > 1:
            half = block.size // 2
            rounded, fresh = two_sum(rounded[..., :-half], rounded[..., half:])
            fresh += errors[..., :-half]
            fresh += errors[..., half:]
            errors = fresh
        if block.used:
            total, fresh = two_sum(total, block.of(rounded))
            lost += fresh
            lost += block.of(errors)
    return total, lost


@dataclass(frozen=True, slots=True)
class Moments:
    """Means of columns over each window, and for pairs of columns the sums of the products of deviations from them.
    Each broadcasts to [series, steps]."""

    means: list[Floats]
    products: list[Floats]


def window_moments(windows: Windows, columns: Sequence[Floats], pairs: Sequence[tuple[int, int]]) -> Moments:
    """Means and central moments over each window, by merging those of blocks (Chan, Golub and LeVeque, "Updating
    Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979).

    The moments of a pair are NaN where a value of either column is not finite.
    """
    sums = [(column, np.zeros(column.shape)) for column in columns]
    products = [(columns[i] - columns[i]) + (columns[j] - columns[j]) for i, j in pairs]
    merged = _Merged(windows, len(columns), pairs)
    for block in _blocks(windows):
        if block.size > 1:
            half = block.size // 2
            apart = []
            joined = []
            for rounded, errors in sums:
                left, right = slice(None, -half), slice(half, None)
                total, fresh = two_sum(rounded[..., left], rounded[..., right])
                fresh += errors[..., left] + errors[..., right]
                joined.append((total, fresh))
                distance = rounded[..., right] - rounded[..., left]
                distance += errors[..., right] - errors[..., left]
                apart.append(distance)
            sums = joined
            products = [
                product[..., :-half] + product[..., half:] + apart[i] * apart[j] * (0.5 / half)
                for product, (i, j) in zip(products, pairs, strict=True)
            ]
        if block.used:
            merged.add(block, sums, products)
    return merged.moments()


@dataclass(frozen=True, slots=True)
class _Block:
    """The blocks of one size. A window has one of them, beginning at `positions`, where `within`."""

    size: int
    used: bool
    positions: Int64s
    within: Bools
    everywhere: bool

    def of(self, column: Floats) -> Floats:
        """The blocks' entries of a column, 0 where the window has none."""
        entries = take(column, self.positions)
        if not self.everywhere:
            np.copyto(entries, 0.0, where=~self.within)
        return entries


def _blocks(windows: Windows) -> Iterator[_Block]:
    """Each window as a row of blocks whose sizes are powers of two, the smallest first. Sizes up to the largest used
    are given, also those that no window uses."""
    sizes = int(np.bitwise_or.reduce(windows.count, axis=None))
    positions = windows.left
    for bit in range(sizes.bit_length()):
        size = 1 << bit
        if not sizes & size:
            yield _Block(size, False, positions, np.zeros(0, np.bool_), False)
            continue
        within = (windows.count & size) != 0
        yield _Block(size, True, positions, within, bool(within.all()))
        positions = positions + np.where(within, size, 0)


class _Merged:
    """The moments of the blocks seen so far, for each window.

    Sums are kept as deviations from a reference, the mean of the window's first block. That is exact for values close
    to each other and far from zero, where dividing whole sums by a window's length would round the deviations away.
    """

    def __init__(self, windows: Windows, columns: int, pairs: Sequence[tuple[int, int]]) -> None:
        self._pairs = pairs
        self._count: Int64s = np.zeros(windows.count.shape, np.int64)
        self._references: list[Floats] = [np.zeros(()) for _ in range(columns)]
        self._deviations: list[Floats] = [np.zeros(()) for _ in range(columns)]
        self._products: list[Floats] = [np.zeros(()) for _ in pairs]

    def add(self, block: _Block, sums: Sequence[tuple[Floats, Floats]], products: Sequence[Floats]) -> None:
        first = block.within & (self._count == 0)
        counted = np.maximum(self._count, 1)
        apart = []
        for i, (rounded, errors) in enumerate(sums):
            total = block.of(rounded)
            reference = np.where(first, total / block.size, self._references[i])
            deviation = np.where(block.within, (total - block.size * reference) + block.of(errors), 0.0)
            apart.append(deviation / block.size - self._deviations[i] / counted)
            self._references[i] = reference
            self._deviations[i] = self._deviations[i] + deviation
        weight = np.where(block.within, self._count * block.size / (self._count + block.size), 0.0)
        for p, (i, j) in enumerate(self._pairs):
            self._products[p] = self._products[p] + block.of(products[p]) + apart[i] * apart[j] * weight
        self._count = self._count + np.where(block.within, block.size, 0)

    def moments(self) -> Moments:
        means = [
            reference + deviation / self._count
            for reference, deviation in zip(self._references, self._deviations, strict=True)
        ]
        return Moments(means, self._products)

"""Sums and central moments over windows, in doubled precision, from blocks (see blocks.py).

A sum is a pair of float64 arrays: its rounded value, and the rounding errors made so far (Ogita, Rump and Oishi,
"Accurate Sum and Dot Product", 2005), which makes it as exact as compensated summation in order. No running total over
the whole series is kept: NaN, an infinity or 1e100 would spoil it for all windows that follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamgauge.model.arrays import Floats
from streamgauge.query.promql.blocks import Block, halves, partition, unfilled
from streamgauge.query.promql.windows import Windows


def two_sum(a: Floats, b: Floats, total: Floats | None = None, error: Floats | None = None) -> tuple[Floats, Floats]:
    """The rounded sum and its exact rounding error (Knuth), in the given arrays if any."""
    total = np.add(a, b, out=total)
    virtual = total - a
    error = np.subtract(total, virtual, out=error)
    np.subtract(a, error, out=error)
    np.subtract(b, virtual, out=virtual)
    error += virtual
    return total, error


def window_sums(windows: Windows, column: Floats) -> tuple[Floats, Floats]:
    """The sum of a column over each window, as its rounded value and what rounding lost, [series, steps] each.

    A sum that is not finite has no meaningful error. Sums that overflow on the way are infinite or NaN.
    """
    total, lost = np.zeros(1), np.zeros(1)
    sums = _Sums(column, np.zeros(1))
    for block in partition(windows):
        if block.size > 1:
            sums = sums.doubled(block.size // 2)
        if block.used:
            total, fresh = two_sum(total, block.of(sums.rounded))
            lost = lost + fresh
            if block.size > 1:
                lost += block.of(sums.errors)
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
    sums = [_Sums(column, np.zeros(1)) for column in columns]
    products = [(columns[i] - columns[i]) + (columns[j] - columns[j]) for i, j in pairs]
    merged = _Merged(windows, len(columns), pairs)
    for block in partition(windows):
        if block.size > 1:
            half = block.size // 2
            apart = [each.apart(half) for each in sums]
            products = [
                _doubled(product, apart[i], apart[j], half) for product, (i, j) in zip(products, pairs, strict=True)
            ]
            sums = [each.doubled(half) for each in sums]
        if block.used:
            merged.add(block, sums, products)
    return merged.moments()


@dataclass(frozen=True, slots=True)
class _Sums:
    """The sums of blocks. Single samples have no errors yet: a single 0 stands for them."""

    rounded: Floats
    errors: Floats

    def doubled(self, half: int) -> _Sums:
        rounded, total = unfilled(self.rounded, half)
        errors, lost = unfilled(self.rounded, half)
        two_sum(*halves(self.rounded, half), total, lost)
        if half > 1:
            first, second = halves(self.errors, half)
            lost += first
            lost += second
        return _Sums(rounded, errors)

    def apart(self, half: int) -> Floats:
        """By how much the second half of each block of twice the size exceeds the first."""
        difference, filled = unfilled(self.rounded, half)
        first, second = halves(self.rounded, half)
        np.subtract(second, first, out=filled)
        if half > 1:
            first, second = halves(self.errors, half)
            filled += second - first
        return difference


def _doubled(product: Floats, one: Floats, other: Floats, half: int) -> Floats:
    """The central moment of blocks of twice `half` samples, whose halves' sums are apart by `one` and `other`."""
    doubled, filled = unfilled(product, half)
    np.add(*halves(product, half), out=filled)
    doubled += one * other * (0.5 / half)
    return doubled


class _Merged:
    """The moments of the blocks seen so far, for each window.

    Sums are kept as deviations from a reference, the mean of the window's first block. That is exact for values close
    to each other and far from zero, where dividing whole sums by a window's length would round the deviations away.
    """

    def __init__(self, windows: Windows, columns: int, pairs: Sequence[tuple[int, int]]) -> None:
        self._pairs = pairs
        self._count = np.zeros(windows.count.shape)
        self._references: list[Floats] = [np.zeros(1) for _ in range(columns)]
        self._deviations: list[Floats] = [np.zeros(1) for _ in range(columns)]
        self._products: list[Floats] = [np.zeros(1) for _ in pairs]

    def add(self, block: Block, sums: Sequence[_Sums], products: Sequence[Floats]) -> None:
        size = np.where(block.within, float(block.size), 0.0)
        first = block.within & (self._count == 0)
        counted = np.maximum(self._count, 1)
        apart = []
        for i, each in enumerate(sums):
            total = block.of(each.rounded)
            self._references[i] = np.where(first, total / block.size, self._references[i])
            deviation = total - size * self._references[i]
            if block.size > 1:
                deviation += block.of(each.errors)
            apart.append(deviation / block.size - self._deviations[i] / counted)
            self._deviations[i] = self._deviations[i] + deviation
        weight = self._count * size / (self._count + block.size)
        for p, (i, j) in enumerate(self._pairs):
            self._products[p] = self._products[p] + block.of(products[p]) + apart[i] * weight * apart[j]
        self._count = self._count + size

    def moments(self) -> Moments:
        means = [
            reference + deviation / self._count
            for reference, deviation in zip(self._references, self._deviations, strict=True)
        ]
        return Moments(means, self._products)

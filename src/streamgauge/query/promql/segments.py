"""Reductions of a matrix over groups of its rows.

Rows are visited in lanes. A group with many rows is cut into several lanes, lanes of similar length stand side by side
in a block, and a block advances one row of each lane at a time: every NumPy call then works on some thousand numbers
that stay in the cache, whatever the number and the sizes of the groups. No loop runs over groups or steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from streamgauge.model.arrays import Bools, Floats, Int64s

BLOCK = 16_384
"""Numbers that one call works on: 128 KiB for each of the handful of arrays in use."""

SHORTEST_LANE = 8
"""Rows below which a group is not cut."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Block:
    """Lanes side by side, longest first: lane `at[i]` covers lengths[i] of the sorted rows from starts[i] on."""

    at: Int64s
    starts: Int64s
    lengths: Int64s

    def positions(self) -> Iterator[tuple[int, Int64s]]:
        """For each position after the first: how many lanes reach it, and the sorted row of each of those."""
        shortest_first = self.lengths[::-1]
        reach = len(self.lengths) - np.searchsorted(shortest_first, np.arange(int(self.lengths[0])), side="right")
        for position in range(1, int(self.lengths[0])):
            active = int(reach[position])
            yield active, self.starts[:active] + position


@dataclass(frozen=True, slots=True)
class _Lanes:
    group: Int64s  # of each lane
    blocks: list[_Block]


class Segments:
    """Groups of rows. `group` is int64 [rows], the number of each row's group; every one of `groups` has a row."""

    def __init__(self, group: Int64s, groups: int) -> None:
        self.group = group
        self.groups = groups
        self.sizes: Int64s = np.bincount(group, minlength=groups)
        self.starts: Int64s = np.cumsum(self.sizes) - self.sizes

    @cached_property
    def order(self) -> Int64s:
        """The rows sorted by group, in their own order within one."""
        if len(self.group) > 1 and bool((self.group[1:] < self.group[:-1]).any()):
            return np.argsort(self.group, kind="stable")
        return np.arange(len(self.group))

    def count(self, present: Bools) -> Int64s:
        """Present rows of each group: int64 [groups, steps]."""
        if (column := _whole_columns(present)) is not None:
            return self.sizes[:, None] * column
        return self._fold(np.add, present.astype(np.int32), None, 0).astype(np.int64)

    def largest(self, numbers: Int64s) -> Int64s:
        """The largest number of each group: int64 [groups, steps]."""
        return self._fold(np.maximum, numbers, None, 0)

    def maximum(self, values: Floats, present: Bools) -> Floats:
        """The largest present value that is not NaN, NaN if there is none."""
        return self._fold(np.fmax, values, _mask(present), np.nan)

    def minimum(self, values: Floats, present: Bools) -> Floats:
        """The smallest present value that is not NaN, NaN if there is none."""
        return self._fold(np.fmin, values, _mask(present), np.nan)

    def sum(self, values: Floats, present: Bools) -> tuple[Floats, Floats]:
        """The sum of the present values and a correction to add to it: float64 [groups, steps] each.

        With error-free addition (Knuth's TwoSum), so that their sum is as good as if computed in twice the precision,
        in whatever order the rows come. The correction is 0 where the sum is not finite.
        """
        with np.errstate(all="ignore"):
            total, correction = self._sum(values, _mask(present), None)
        return total, np.where(np.isfinite(total), correction, 0.0)

    def _fold(self, operation: np.ufunc, matrix: Array, mask: Bools | None, neutral: float) -> Array:
        width = matrix.shape[1]
        if self.groups == len(self.group):
            return _rows(matrix, self.order, mask, neutral)
        lanes = self._lanes(width)
        result = np.empty((len(lanes.group), width), matrix.dtype)
        for block in lanes.blocks:
            state = _rows(matrix, self.order[block.starts], mask, neutral)
            for active, at in block.positions():
                operation(state[:active], _rows(matrix, self.order[at], mask, neutral), out=state[:active])
            result[block.at] = state
        return Segments(lanes.group, self.groups)._fold(operation, result, None, neutral)

    def _sum(self, matrix: Floats, mask: Bools | None, corrections: Floats | None) -> tuple[Floats, Floats]:
        if self.groups == len(self.group):
            rest = np.zeros_like(matrix) if corrections is None else corrections[self.order]
            return _rows(matrix, self.order, mask, 0.0), rest
        width = matrix.shape[1]
        lanes = self._lanes(width)
        totals, rests = np.empty((len(lanes.group), width)), np.zeros((len(lanes.group), width))
        for block in lanes.blocks:
            rows = self.order[block.starts]
            total = _rows(matrix, rows, mask, 0.0)
            rest = np.zeros_like(total) if corrections is None else corrections[rows]
            buffers = np.empty((3, *total.shape))
            for active, at in block.positions():
                rows = self.order[at]
                _add(_rows(matrix, rows, mask, 0.0), total[:active], rest[:active], buffers[:, :active])
                if corrections is not None:
                    rest[:active] += corrections[rows]
            totals[block.at], rests[block.at] = total, rest
        return Segments(lanes.group, self.groups)._sum(totals, None, rests)

    def _lanes(self, width: int) -> _Lanes:
        abreast = max(1, BLOCK // max(width, 1))
        longest = max(SHORTEST_LANE, -(-len(self.group) // abreast))
        cuts = -(-self.sizes // longest)
        group = np.repeat(np.arange(self.groups), cuts)
        skipped = (np.arange(len(group)) - (np.cumsum(cuts) - cuts)[group]) * longest
        starts = self.starts[group] + skipped
        lengths = np.minimum(longest, self.sizes[group] - skipped)
        by_length = np.argsort(-lengths, kind="stable")
        blocks = []
        for first in range(0, len(group), abreast):
            at = by_length[first : first + abreast]
            blocks.append(_Block(at, starts[at], lengths[at]))
        return _Lanes(group, blocks)


def _whole_columns(present: Bools) -> Bools | None:
    """bool [steps], whether all rows are present, if at each step either all or none are; else None."""
    counts = np.count_nonzero(present, axis=0)
    full = counts == len(present)
    return full if bool((full | (counts == 0)).all()) else None


def _mask(present: Bools) -> Bools | None:
    """`present`, or None where it need not be heeded: what is summed where nothing is present does not matter."""
    return present if _whole_columns(present) is None else None


def _rows(matrix: Array, rows: Int64s, mask: Bools | None, neutral: float) -> Array:
    """A copy of the rows, with `neutral` where the mask is False."""
    copy = matrix.take(rows, axis=0)
    if mask is not None:
        np.copyto(copy, neutral, where=~mask.take(rows, axis=0))
    return copy


def _add(x: Floats, total: Floats, rest: Floats, buffers: Floats) -> None:
    """total += x, and what rounding lost to `rest`."""
    new, part, lost = buffers
    np.add(total, x, out=new)
    np.subtract(new, total, out=part)
    np.subtract(new, part, out=lost)
    np.subtract(total, lost, out=lost)
    np.subtract(x, part, out=part)
    np.add(lost, part, out=lost)
    np.add(rest, lost, out=rest)
    total[:] = new

"""The samples in the window that ends at each step, for many series at once.

A window function sees a chunk of series as one `Windows` object, in one of two layouts, and is written once for both:

    shared   the series have the same time vector     values [series, n]   times [n]         positions [steps]
    ragged   every series has times of its own        values [samples]     times [samples]   positions [series, steps]

In both, time runs along the last axis, positions index that axis, and `take` together with broadcasting does the rest:
what depends on times alone is worked out once for all series that share them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from streamgauge.model.arrays import Floats, Int64s
from streamgauge.query.promql.steps import Grid

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where windows begin and end: the positions first, first + 1, …, last; an empty one has last == first - 1."""

    first: Int64s  # [steps] or [series, steps]
    last: Int64s
    count: Int64s

    @staticmethod
    def between(first: Int64s, end: Int64s) -> Bounds:
        """Windows of the positions first, …, end - 1."""
        return Bounds(np.ascontiguousarray(first), end - 1, end - first)


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows (end - range_ms, end] of a chunk of series that holds at least one sample.

    `check` raises when the query is out of time; long loops call it.
    """

    series: int
    values: Floats  # [series, n] or [samples], contiguous
    times: Int64s  # [n] or [samples], ms
    bounds: Bounds
    longest: int  # number of samples in the longest window
    ends: Int64s  # [steps], ms
    range_ms: int
    check: Callable[[], None]

    @property
    def shape(self) -> tuple[int, int]:
        return self.series, len(self.ends)

    @property
    def count(self) -> Int64s:
        """Samples in each window, [steps] or [series, steps]."""
        return self.bounds.count

    def first(self) -> Floats:
        """The first value of each window, [series, steps]."""
        return take(self.values, self.bounds.first)

    def last(self) -> Floats:
        return take(self.values, self.bounds.last)

    def elapsed(self) -> Floats:
        """Times in ms since the first window's end, [n] or [samples]: whole numbers, and exact."""
        elapsed: Floats = (self.times - self.ends[0]).astype(np.float64)
        return elapsed


def take(column: npt.NDArray[Number], positions: Int64s) -> npt.NDArray[Number]:
    """What a column laid out like times or values holds at positions; its first or last entry where they lie outside,
    as they may where a window is empty."""
    return column.take(positions, axis=-1, mode="clip")


def window_bounds(offsets: Int64s, times: Int64s, grid: Grid, range_ms: int) -> tuple[Int64s, Int64s]:
    """Bounds of the windows (t - range_ms, t] of series in compressed-row form.

    Returns (first, end), int64 [series, grid.count]: positions in `times` of each window's first sample and of the one
    after its last. The cost is in proportion to samples plus windows.
    """
    if grid.step == 0:
        instant = Grid(grid.first, max(range_ms, 1), 1)
        first, end = window_bounds(offsets, times, instant, range_ms)
        shape = (len(first), grid.count)
        return np.broadcast_to(first, shape), np.broadcast_to(end, shape)
    back, rest = divmod(range_ms, grid.step)
    if rest == 0 and back <= grid.count:
        longer = Grid(grid.first - range_ms, grid.step, grid.count + back)
        ends = _samples_until(offsets, times, longer)
        return ends[:, : grid.count], ends[:, back:]
    return _samples_until(offsets, times, grid.shifted(-range_ms)), _samples_until(offsets, times, grid)


def _samples_until(offsets: Int64s, times: Int64s, grid: Grid) -> Int64s:
    """The position after the last sample of each series that is not later than each step, [series, grid.count]."""
    series, slots = len(offsets) - 1, grid.count + 1
    # Each sample belongs to the first step that sees it, 0 to count, where the last means none. Quotients of integers
    # this small are exact enough in floating point for rounding up, and much faster than integer division.
    slot = (np.clip(times, grid.first, grid.last + 1) - grid.first) / grid.step
    np.ceil(slot, out=slot)
    slot += np.repeat(np.arange(0.0, series * slots, slots), np.diff(offsets))
    until = np.cumsum(np.bincount(slot.astype(np.int64), minlength=series * slots))
    return until.reshape(series, slots)[:, : grid.count]

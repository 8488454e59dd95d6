"""Arithmetic on many ranges of rows at once: the tool of everything here that keeps series as (first row, count)."""

from __future__ import annotations

import numpy as np

from streamgauge.model.arrays import Floats, Int64s


def starts_of(counts: Int64s) -> Int64s:
    """Where each of consecutive ranges begins: the exclusive running sum of `counts`."""
    starts: Int64s = np.cumsum(counts) - counts
    return starts


def ranges(starts: Int64s, counts: Int64s) -> Int64s:
    """The numbers starts[0], starts[0] + 1, … (counts[0] of them), then those of the next range, and so on."""
    if len(counts) == 0:
        return np.empty(0, np.int64)
    shift = starts - starts_of(counts)
    out: Int64s = np.repeat(shift, counts)
    out += np.arange(len(out))
    return out


def take_ranges(columns: tuple[Int64s, Floats], starts: Int64s, counts: Int64s) -> tuple[Int64s, Floats]:
    """The rows of the ranges, one range behind the other, of two columns. May return views."""
    times, values = columns
    if len(starts) == 0:
        return times[:0], values[:0]
    if np.array_equal(starts[1:], starts[:-1] + counts[:-1]):
        whole = slice(int(starts[0]), int(starts[-1] + counts[-1]))
        return times[whole], values[whole]
    index = ranges(starts, counts)
    return times[index], values[index]


def lower_bound(times: Int64s, starts: Int64s, counts: Int64s, bound: int) -> Int64s:
    """For each range of ascending `times`, the row of its first time >= `bound`, or its end.

    One bisection of all ranges together: about log2(max(counts)) gathers of len(starts) elements.
    """
    low, high = starts.copy(), starts + counts
    open_ = np.flatnonzero(counts > 0)
    while len(open_):
        middle = (low[open_] + high[open_]) >> 1
        below = times[middle] < bound
        low[open_[below]] = middle[below] + 1
        high[open_[~below]] = middle[~below]
        open_ = open_[low[open_] < high[open_]]
    return low

"""Range functions that compare samples with the ones before them: rate and its kin, changes and resets."""

from __future__ import annotations

import numpy as np

from streamgauge.model.arrays import Bools, Floats
from streamgauge.query.promql.blocks import halves
from streamgauge.query.promql.windows import Windows, take

_NEAR = 1.1
"""A window's edge that is closer to a sample than this many average intervals is taken to be covered by the series."""


def rate(windows: Windows) -> Floats:
    return _extrapolated_increase(windows, windows.range_ms / 1000)


def increase(windows: Windows) -> Floats:
    return _extrapolated_increase(windows, 1.0)


def delta(windows: Windows) -> Floats:
    sampled, to_start, to_end = _coverage(windows)
    change = windows.last() - windows.first()
    change *= (sampled + to_start + to_end) / sampled
    return change


def _coverage(windows: Windows) -> tuple[Floats, Floats, Floats]:
    """How long the series is taken to exist in each window, in seconds: from the first to the last sample, before it,
    and after it. [steps] or [series, steps]

    At either edge that is up to the edge where a sample is near, and else half an average interval.
    """
    elapsed = windows.elapsed()
    first, last = take(elapsed, windows.bounds.first), take(elapsed, windows.bounds.last)
    ends = (windows.ends - windows.ends[0]).astype(np.float64)
    sampled = (last - first) / 1000
    average = sampled / (windows.count - 1)
    near = average * _NEAR
    average /= 2
    to_start = (first - (ends - windows.range_ms)) / 1000
    to_end = (ends - last) / 1000
    return sampled, np.where(to_start >= near, average, to_start), np.where(to_end >= near, average, to_end)


def _extrapolated_increase(windows: Windows, seconds: float) -> Floats:
    """What a counter gained over each whole window, divided by `seconds`. [series, steps]

    Beyond its samples it is taken to have grown at the same rate, but not from below zero: the gain before the first
    sample is at most the first value.
    """
    sampled, to_start, to_end = _coverage(windows)
    per_second = 1 / (sampled * seconds)
    first = windows.first()
    gained = windows.last()
    gained -= first
    _add_resets(windows, gained)
    from_zero = gained * ((sampled + to_end) * per_second)
    gained *= (sampled + to_start + to_end) * per_second
    if np.fmin.reduce(first, axis=None) < 0:
        first = np.where(first < 0, np.inf, first)  # not a counter: there is no zero that it started from
    first /= seconds
    from_zero += first
    return np.fmin(gained, from_zero, out=gained)


def _add_resets(windows: Windows, gained: Floats) -> None:
    """Add to the difference of last and first value, for each counter reset in a window, the value before it."""
    before, after = halves(windows.values, 1)
    dropped = after < before
    if not dropped.any():
        return
    # Number the resets of the chunk. Those in a window are a run of numbers: the ones up to its last sample, without
    # those up to its first. Steps from one series to the next get numbers too, but no window holds one.
    until = np.zeros(windows.values.shape, np.int64)
    np.cumsum(dropped, out=until.reshape(-1)[1:])
    begin, end = take(until, windows.bounds.first), take(until, windows.bounds.last)
    at = np.flatnonzero((end > begin) & (windows.count > 1))
    if not len(at):
        return
    # The values are added up anew for each window, not taken from a running total, which one huge value would spoil.
    runs = np.stack((begin.reshape(-1)[at], end.reshape(-1)[at]), axis=1).reshape(-1)
    gained.reshape(-1)[at] += np.add.reduceat(np.append(before[dropped], 0.0), runs)[::2]


def irate(windows: Windows) -> Floats:
    previous_at = windows.bounds.last - 1
    last, previous = windows.last(), take(windows.values, previous_at)
    change = np.where(last < previous, last, last - previous)
    interval = take(windows.times, windows.bounds.last) - take(windows.times, previous_at)
    return change / (interval / 1000)


def idelta(windows: Windows) -> Floats:
    return windows.last() - take(windows.values, windows.bounds.last - 1)


def changes(windows: Windows) -> Floats:
    """How often the value changed; from NaN to NaN it does not."""
    before, after = halves(windows.values, 1)
    changed = before != after
    unknown = np.isnan(before)
    if unknown.any():
        changed &= ~(unknown & np.isnan(after))
    return _count_between(windows, changed)


def resets(windows: Windows) -> Floats:
    before, after = halves(windows.values, 1)
    return _count_between(windows, after < before)


def _count_between(windows: Windows, happened: Bools) -> Floats:
    """Count in each window what happened between samples i and i + 1, flat, [number of values - 1]."""
    until = np.zeros(windows.values.shape)
    np.cumsum(happened, dtype=np.float64, out=until.reshape(-1)[1:])
    counted = take(until, windows.bounds.last)
    counted -= take(until, windows.bounds.first)
    return counted

"""Range functions that compare samples with the ones before them: rate and its kin, changes and resets."""

from __future__ import annotations

import numpy as np

from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.query.promql.windows import Windows, take

_NEAR = 1.1
"""A window's edge that is closer to a sample than this many average intervals is taken to be covered by the series."""


def rate(windows: Windows) -> Floats:
    return _extrapolate(windows, _corrected_increase(windows), counter=True, seconds=windows.range_ms / 1000)


def increase(windows: Windows) -> Floats:
    return _extrapolate(windows, _corrected_increase(windows), counter=True)


def delta(windows: Windows) -> Floats:
    return _extrapolate(windows, windows.last() - windows.first(), counter=False)


def _extrapolate(windows: Windows, change: Floats, counter: bool, seconds: float = 1.0) -> Floats:
    """Scale the change between a window's first and last sample, float64 [series, steps], to the whole window, and
    divide it by `seconds`.

    At either edge the change goes on to the edge where a sample is near, and else for half an average interval. A
    counter does not go on to below zero: `change` would have taken it from its first value down to zero in a time that
    limits how far it is extended.
    """
    first_time, last_time = windows.first_time(), windows.last_time()
    sampled = (last_time - first_time) / 1000
    average = sampled / (windows.count - 1)
    near = average * _NEAR
    to_start = (first_time - (windows.ends - windows.range_ms)) / 1000
    to_start = np.where(to_start >= near, average / 2, to_start)
    to_end = (windows.ends - last_time) / 1000
    to_end = np.where(to_end >= near, average / 2, to_end)
    if not counter:
        return change * ((sampled + to_start + to_end) / sampled)
    first = windows.first()
    factor = first / change
    factor *= sampled
    np.copyto(factor, np.inf, where=(change <= 0) | (first < 0))
    # fmin: where the counter stood still, at 0 or not a number, there is no such limit.
    np.fmin(factor, to_start, out=factor)
    factor += sampled
    factor += to_end
    factor /= sampled * seconds
    factor *= change
    return factor


def _corrected_increase(windows: Windows) -> Floats:
    """Last value less first, plus, for each counter reset between, the value before it. [series, steps]"""
    change = windows.last()
    change -= windows.first()
    values = windows.values
    dropped = values[..., 1:] < values[..., :-1]
    if not dropped.any():
        return change
    # Number the resets of the chunk. Those in a window are a run of numbers: the ones up to its last sample, without
    # those up to its first. In the ragged layout the steps from one series to the next get numbers too; no window
    # holds one.
    reset = np.zeros(values.shape, np.bool_)
    reset[..., 1:] = dropped
    until = np.cumsum(reset).reshape(values.shape)
    begin, end = take(until, windows.left), take(until, windows.right - 1)
    at = np.flatnonzero((end > begin) & (windows.count > 1))
    if not len(at):
        return change
    # The values are added up anew for each window, not taken from a running total, which one huge value would spoil.
    before = np.append(values[..., :-1][dropped], 0.0)
    runs = np.stack((begin.ravel()[at], end.ravel()[at]), axis=1)
    change.ravel()[at] += np.add.reduceat(before, runs.ravel())[::2]
    return change


def irate(windows: Windows) -> Floats:
    last, previous = windows.last(), windows.at(windows.right - 2)
    change = np.where(last < previous, last, last - previous)
    interval = windows.last_time() - take(windows.times, windows.right - 2)
    return change / (interval / 1000)


def idelta(windows: Windows) -> Floats:
    return windows.last() - windows.at(windows.right - 2)


def changes(windows: Windows) -> Floats:
    """How often the value changed; from NaN to NaN it does not."""
    values = windows.values
    before, after = values[..., :-1], values[..., 1:]
    changed = before != after
    changed &= ~(np.isnan(before) & np.isnan(after))
    return _count_between(windows, changed)


def resets(windows: Windows) -> Floats:
    return _count_between(windows, windows.values[..., 1:] < windows.values[..., :-1])


def _count_between(windows: Windows, happened: Bools) -> Floats:
    """Count, in each window, the positions i with happened[..., i], something between samples i and i + 1."""
    shape = windows.values.shape
    until: Int64s = np.zeros(shape, np.int64)
    np.cumsum(happened, axis=-1, out=until[..., 1:])
    counted = take(until, windows.right - 1) - take(until, windows.left)
    return counted.astype(np.float64)

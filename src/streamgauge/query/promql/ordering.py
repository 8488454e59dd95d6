"""Range functions that compare values with each other: extremes, quantiles, and the times of samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.query.promql.blocks import covers, halves, unfilled
from streamgauge.query.promql.windows import Windows, take

_SORTED = 1 << 17
"""Values sorted at once."""


def min_over_time(windows: Windows) -> Floats:
    return _extreme(windows, np.fmin)


def max_over_time(windows: Windows) -> Floats:
    return _extreme(windows, np.fmax)


def ts_of_min_over_time(windows: Windows) -> Floats:
    return _time_of_extreme(windows, np.less_equal)


def ts_of_max_over_time(windows: Windows) -> Floats:
    return _time_of_extreme(windows, np.greater_equal)


def _extreme(windows: Windows, extreme: np.ufunc) -> Floats:
    """The smallest or largest value of each window, NaN where all are NaN."""
    result = np.zeros(1)
    blocks = windows.values
    for cover in covers(windows):
        if cover.size > 1:
            half = cover.size // 2
            doubled, filled = unfilled(blocks, half)
            extreme(*halves(blocks, half), out=filled)
            blocks = doubled
        if cover.within is not None:
            found = extreme(take(blocks, cover.first), take(blocks, cover.second))
            result = np.where(cover.within, found, result)
    return result


def _time_of_extreme(windows: Windows, at_least: np.ufunc) -> Floats:
    """When the extreme was last reached, in seconds; the last sample's time where all values are NaN."""

    def later(one: Floats, other: Floats) -> Bools:
        """Whether the extreme of the later block is the one to take."""
        replaced: Bools = at_least(other, one) | np.isnan(one)
        return replaced

    result = np.zeros(1)
    values = windows.values
    times = np.broadcast_to(windows.times / 1000, values.shape)
    for cover in covers(windows):
        if cover.size > 1:
            half = cover.size // 2
            (one, other), (before, after) = halves(values, half), halves(times, half)
            values, best = unfilled(values, half)
            times, when = unfilled(times, half)
            second = later(one, other)
            best[:], when[:] = np.where(second, other, one), np.where(second, after, before)
        if cover.within is not None:
            second = later(take(values, cover.first), take(values, cover.second))
            found = np.where(second, take(times, cover.second), take(times, cover.first))
            result = np.where(cover.within, found, result)
    return result


def quantile_over_time(windows: Windows, q: Floats) -> Floats:
    """The q-quantile of each window, q float64 [steps], between neighbouring values as if evenly spread.

    NaN sorts before all numbers. -Inf for q < 0, +Inf for q > 1, NaN for a NaN q.
    """
    valid = (q >= 0) & (q <= 1)
    levels = np.broadcast_to(np.where(valid, q, 0.0), windows.shape).reshape(-1)
    result = np.empty(len(levels))
    for part, values, counts in _gathered(windows):
        result[part] = _quantile(values, counts, levels[part])
    outside = np.where(np.isnan(q), np.nan, np.where(q < 0, -np.inf, np.inf))
    return np.where(valid, result.reshape(windows.shape), outside)


def mad_over_time(windows: Windows) -> Floats:
    """The median absolute deviation from the median; NaN where a value is NaN."""
    result = np.empty(windows.shape)
    half = np.full(1, 0.5)
    for part, values, counts in _gathered(windows):
        median = _quantile(values, counts, half)
        spoiled = _missing(values, counts) > 0
        values -= median[:, None]
        np.abs(values, out=values)
        result.reshape(-1)[part] = np.where(spoiled, np.nan, _quantile(values, counts, half))
    return result


def _gathered(windows: Windows) -> Iterator[tuple[slice, Floats, Int64s]]:
    """The values of windows as rows, some windows at a time.

    Yields which windows these are, counted along [series, steps]; float64 [windows, longest], with NaN after a window's
    end, to be changed at will; and the number of samples of each window.
    """
    shape, longest = windows.shape, windows.longest
    counts = np.broadcast_to(windows.count, shape).reshape(-1)
    first = windows.bounds.first
    if first.ndim == 1:
        first = windows.starts[:, None] + first
    first = np.minimum(first.reshape(-1), windows.values.size)
    padded = np.append(windows.values, np.full(longest, np.nan))
    runs = sliding_window_view(padded, longest)
    full = bool((counts == longest).all())
    together = max(1, _SORTED // longest)
    for begin in range(0, len(counts), together):
        windows.check()
        part = slice(begin, begin + together)
        values = runs[first[part]]
        if not full:
            values = np.where(np.arange(longest) < counts[part, None], values, np.nan)
        yield part, values, counts[part]


def _missing(values: Floats, counts: Int64s) -> Int64s:
    """How many of the first `counts` values of each row are NaN, given that all after them are."""
    missing: Int64s = np.isnan(values).sum(axis=1) - (values.shape[1] - counts)
    return missing


def _quantile(values: Floats, counts: Int64s, q: Floats) -> Floats:
    """Quantiles of rows as `_gathered` gives them, which are sorted in place."""
    values.sort(axis=1)  # NaN last
    rank = q * (counts - 1)
    low = np.floor(rank)
    weight = rank - low
    lower = np.maximum(low, 0).astype(np.int64)
    upper = np.minimum(lower + 1, np.maximum(counts - 1, 0))
    begin = np.arange(0, values.size, values.shape[1])
    flat = values.reshape(-1)
    last = np.take(flat, begin + np.maximum(counts - 1, 0))
    if not np.isnan(last).any():
        between: Floats = flat[begin + lower] * (1 - weight) + flat[begin + upper] * weight
        return between
    # In PromQL's order NaN comes first.
    missing = _missing(values, counts)

    def nth(index: Int64s) -> Floats:
        return np.where(index < missing, np.nan, flat[begin + np.maximum(index - missing, 0)])

    return nth(lower) * (1 - weight) + nth(upper) * weight

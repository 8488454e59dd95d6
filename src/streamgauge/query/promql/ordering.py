"""Range functions that compare values with each other: extremes, quantiles, and the times of samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

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
    levels = np.broadcast_to(q, windows.shape)

    def quantiles(values: Floats, counts: Int64s, windows_at: slice) -> Floats:
        return _quantile(values, counts, levels.ravel()[windows_at])

    valid = (q >= 0) & (q <= 1)
    outside = np.where(np.isnan(q), np.nan, np.where(q < 0, -np.inf, np.inf))
    return np.where(valid, _on_values(windows, quantiles), outside)


def mad_over_time(windows: Windows) -> Floats:
    """The median absolute deviation from the median; NaN where a value is NaN."""

    def deviation(values: Floats, counts: Int64s, windows_at: slice) -> Floats:
        half = np.full(len(values), 0.5)
        spoiled = np.isnan(values).sum(axis=1) > values.shape[1] - counts
        median = _quantile(values, counts, half)
        return np.where(spoiled, np.nan, _quantile(np.abs(values - median[:, None]), counts, half))

    return _on_values(windows, deviation)


def _on_values(windows: Windows, function: Callable[[Floats, Int64s, slice], Floats]) -> Floats:
    """Evaluate a function of the values of each window.

    The function gets float64 [some windows, longest] with NaN after the end of a window, the windows' counts, and
    which of all windows these are, counted along [series, steps].
    """
    shape, longest = windows.shape, windows.longest
    counts = np.broadcast_to(windows.count, shape).ravel()
    first = windows.bounds.first
    if windows.values.ndim == 2:
        first = first + np.arange(shape[0])[:, None] * windows.values.shape[1]
    first = np.broadcast_to(first, shape).ravel()
    values, result = windows.values.ravel(), np.zeros(counts.shape)
    together = max(1, _SORTED // max(longest, 1))
    positions = np.arange(longest)
    for begin in range(0, len(counts), together):
        part = slice(begin, begin + together)
        gathered = values.take(first[part, None] + positions, mode="clip")
        np.copyto(gathered, np.nan, where=positions >= counts[part, None])
        result[part] = function(gathered, counts[part], part)
        windows.check()
    return result.reshape(shape)


def _quantile(values: Floats, counts: Int64s, q: Floats) -> Floats:
    """Quantiles of rows of which the first `counts` entries, and none after, count; the rest is NaN."""
    ordered = np.sort(values, axis=1)  # NaN last, of the row itself and after its end
    missing = np.isnan(ordered).sum(axis=1) - (values.shape[1] - counts)
    rank = q * (counts - 1)
    low = np.floor(rank)
    weight = rank - low

    def nth(index: Floats) -> Floats:
        """The entries at an index in an order that has NaN first."""
        at = np.clip(index - missing, 0, values.shape[1] - 1).astype(np.int64)
        entries = np.take_along_axis(ordered, at[:, None], axis=1)[:, 0]
        return np.where(index < missing, np.nan, entries)

    lower = np.maximum(0, low)
    upper = np.minimum(counts - 1, lower + 1)
    return nth(lower) * (1 - weight) + nth(upper) * weight

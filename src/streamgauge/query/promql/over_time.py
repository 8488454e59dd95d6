"""Range functions that add up or smooth: sums, averages, deviations, regression, exponential smoothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from streamgauge.model.arrays import Bools, Floats
from streamgauge.query.promql.moments import two_sum, window_moments, window_sums
from streamgauge.query.promql.windows import Windows, take

_SHRINK = 2.0**-64
"""Values so scaled do not overflow when fewer than 2^64 of them are added up."""

_CHECK_EVERY = 256
"""Samples of a window between two looks at the clock."""


def sum_over_time(windows: Windows) -> Floats:
    """Compensated sums. One that overflows on the way stays infinite, even if what follows would bring it back."""
    if _may_overflow(windows):
        return _sum_in_order(windows)
    return _plus_lost(*window_sums(windows, windows.values))


def avg_over_time(windows: Windows) -> Floats:
    def average(values: Floats) -> Floats:
        total, lost = window_sums(windows, values)
        return _plus_lost(total / windows.count, lost / windows.count)

    return _homogeneous(windows, 1, average)


def stdvar_over_time(windows: Windows) -> Floats:
    def variance(values: Floats) -> Floats:
        return window_moments(windows, [values], [(0, 0)]).products[0] / windows.count

    return _homogeneous(windows, 2, variance)


def stddev_over_time(windows: Windows) -> Floats:
    return np.sqrt(stdvar_over_time(windows))


def deriv(windows: Windows) -> Floats:
    """Slope of the least-squares line, per second."""
    return _homogeneous(windows, 1, lambda values: _line(windows, values)[0])


def predict_linear(windows: Windows, seconds: Floats) -> Floats:
    """The least-squares line at `seconds`, float64 [steps], after the end of each window."""

    def predict(values: Floats) -> Floats:
        slope, mean, mean_time = _line(windows, values)
        return mean + slope * (seconds - mean_time)

    return _homogeneous(windows, 1, predict)


def _line(windows: Windows, values: Floats) -> tuple[Floats, Floats, Floats]:
    """Least-squares line of each window: slope per second, mean value, and mean time in seconds from the window's end.
    All is NaN for a window with a value that is not finite."""
    moments = window_moments(windows, [windows.elapsed(), values], [(0, 0), (0, 1)])
    of_time, with_time = moments.products
    mean_time, mean = moments.means
    slope = with_time / of_time * 1000
    return slope, mean, (mean_time - (windows.ends - windows.ends[0])) / 1000


def double_exponential_smoothing(windows: Windows, smoothing: Floats, trend: Floats) -> Floats:
    """Holt's linear method: a level and a trend, each smoothed by a factor from 0 to 1, float64 [steps]."""
    shape = windows.shape
    previous, smoothed = np.zeros(shape), windows.first()
    slope = take(windows.values, windows.bounds.first + 1) - smoothed
    for position, value, inside in _in_order(windows, 1):
        if position > 1:
            slope = trend * (smoothed - previous) + (1 - trend) * slope
        following = smoothing * value + (1 - smoothing) * (smoothed + slope)
        previous = smoothed
        smoothed = np.where(inside, following, smoothed)
    return smoothed


def _in_order(windows: Windows, start: int = 0) -> Iterator[tuple[int, Floats, Bools]]:
    """Visit the samples of all windows at once, from the one at `start` in each window on.

    Yields the position in the window, the values there, [series, steps], and where the windows are that long.
    """
    for position in range(start, windows.longest):
        if position % _CHECK_EVERY == 0:
            windows.check()
        yield position, take(windows.values, windows.bounds.first + position), windows.count > position


def _sum_in_order(windows: Windows) -> Floats:
    total, lost = np.zeros(windows.shape), np.zeros(windows.shape)
    for _, value, inside in _in_order(windows):
        added, fresh = two_sum(total, np.where(inside, value, 0.0))
        lost = np.where(np.isinf(added), 0.0, lost + fresh)
        total = added
    return _plus_lost(total, lost)


def _plus_lost(total: Floats, lost: Floats) -> Floats:
    return np.where(np.isinf(total), total, total + lost)


def _may_overflow(windows: Windows) -> bool:
    """Whether a sum of finite values over a window might leave the range of float64."""
    magnitudes = np.abs(windows.values)
    largest = np.fmax.reduce(magnitudes, axis=None)
    if np.isinf(largest):
        largest = np.max(magnitudes, where=np.isfinite(magnitudes), initial=0.0)
    return bool(largest * windows.longest >= np.finfo(np.float64).max / 2)


def _homogeneous(windows: Windows, degree: int, function: Callable[[Floats], Floats]) -> Floats:
    """A function of the values that grows with their `degree`-th power, from smaller values where it overflows."""
    result = function(windows.values)
    if not _may_overflow(windows):
        return result
    shrunk = function(windows.values * _SHRINK)
    for _ in range(degree):
        shrunk /= _SHRINK
    return np.where(np.isfinite(result), result, shrunk)

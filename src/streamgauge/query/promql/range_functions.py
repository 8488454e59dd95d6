"""Functions of range vectors, `rate(metric[5m])` and the like, for all series and steps at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from streamgauge.errors import QueryFailed
from streamgauge.model.arrays import Floats, stale_mask
from streamgauge.model.source import Samples
from streamgauge.query.budget import Budget
from streamgauge.query.promql.steps import Grid, Steps

INVALID_QUANTILE = "invalid quantile"
"""Note: a quantile outside of 0 to 1, or NaN, was asked for where there was something to take it of."""


@dataclass(frozen=True, slots=True)
class Ranged:
    """The answer of a range function. `notes` are kinds of annotations, which the engine puts into words."""

    steps: Steps
    notes: frozenset[str] = frozenset()


def drop_stale(samples: Samples) -> Samples:
    """The samples without stale markers; the same object when there are none. Series stay, if only as empty ones."""
    stale = stale_mask(samples.values)
    if not stale.any():
        return samples
    keep = ~stale
    before = np.concatenate(([0], np.cumsum(keep)))
    return Samples(before[samples.offsets], samples.times[keep], samples.values[keep])


Point = tuple[int, float]


def _neumaier(x: float, total: float, c: float) -> tuple[float, float]:
    t = total + x
    if math.isinf(t):
        return t, 0.0
    c += (total - t) + x if abs(total) >= abs(x) else (x - t) + total
    return t, c


def _div(a: float, b: float) -> float:
    return float(np.float64(a) / np.float64(b))


def _extrapolated(w: list[Point], start: int, end: int, counter: bool, rate: bool) -> float | None:
    if len(w) < 2:
        return None
    result = w[-1][1] - w[0][1]
    if counter:
        for (_, a), (_, b) in itertools.pairwise(w):
            if b < a:
                result += a
    to_start, to_end = (w[0][0] - start) / 1000, (end - w[-1][0]) / 1000
    sampled = (w[-1][0] - w[0][0]) / 1000
    average = sampled / (len(w) - 1)
    threshold = average * 1.1
    if to_start >= threshold:
        to_start = average / 2
    if counter and result > 0 and w[0][1] >= 0:
        to_start = min(to_start, sampled * _div(w[0][1], result))
    if to_end >= threshold:
        to_end = average / 2
    factor = (sampled + to_start + to_end) / sampled
    if rate:
        factor /= (end - start) / 1000
    return result * factor


def _instant(w: list[Point], rate: bool) -> float | None:
    if len(w) < 2:
        return None
    (t0, a), (t1, b) = w[-2:]
    value = b if rate and b < a else b - a
    return value / ((t1 - t0) / 1000) if rate else value


def _regression(w: list[Point], at: int) -> tuple[float, float]:
    sums = [(0.0, 0.0)] * 4
    first = w[0][1]
    constant = all(y == first for _, y in w[1:])
    for t, y in w:
        x = (t - at) / 1e3
        sums = [_neumaier(v, *s) for v, s in zip((x, y, x * y, x * x), sums, strict=True)]
    if constant:
        return (math.nan, math.nan) if math.isinf(first) else (0.0, first)
    x, y, xy, xx = (a + c for a, c in sums)
    n = len(w)
    slope = _div(xy - x * y / n, xx - x * x / n)
    return slope, y / n - slope * x / n


def _smooth(w: list[Point], sf: float, tf: float) -> float | None:
    for what, factor in (("smoothing", sf), ("trend", tf)):
        if factor <= 0 or factor >= 1:
            raise QueryFailed(f"the {what} factor must lie between 0 and 1, both excluded; got {factor:g}")
    if len(w) < 2:
        return None
    s0, s1, b = 0.0, w[0][1], w[1][1] - w[0][1]
    for i in range(1, len(w)):
        b = b if i == 1 else tf * (s1 - s0) + (1 - tf) * b
        s0, s1 = s1, sf * w[i][1] + (1 - sf) * (s1 + b)
    return s1


def _sum(w: list[Point]) -> float:
    total = c = 0.0
    for _, v in w:
        total, c = _neumaier(v, total, c)
    return total if math.isinf(total) else total + c


def _avg(w: list[Point]) -> float:
    total, count, mean, c, incremental = w[0][1], 1.0, 0.0, 0.0, False
    for i, (_, v) in enumerate(w[1:]):
        count = i + 2.0
        if not incremental:
            new, new_c = _neumaier(v, total, c)
            if not math.isinf(new):
                total, c = new, new_c
                continue
            incremental, mean, c = True, total / (count - 1), c / (count - 1)
        q = (count - 1) / count
        mean, c = _neumaier(v / count, q * mean, q * c)
    return mean + c if incremental else total / count + c / count


def _variance(w: list[Point]) -> float:
    count = mean = c_mean = aux = c_aux = 0.0
    for _, v in w:
        count += 1
        delta = v - (mean + c_mean)
        mean, c_mean = _neumaier(delta / count, mean, c_mean)
        aux, c_aux = _neumaier(delta * (v - (mean + c_mean)), aux, c_aux)
    return (aux + c_aux) / count


def quantile_of(q: float, values: list[float]) -> float:
    if math.isnan(q):
        return math.nan
    if q < 0:
        return -math.inf
    if q > 1:
        return math.inf
    values = sorted(values, key=lambda v: (not math.isnan(v), v if v == v else 0.0))
    rank = q * (len(values) - 1)
    low = int(max(0, math.floor(rank)))
    high = min(len(values) - 1, low + 1)
    weight = rank - math.floor(rank)
    return values[low] * (1 - weight) + values[high] * weight


def _mad(w: list[Point]) -> float:
    values = [v for _, v in w]
    if any(math.isnan(v) for v in values):
        return math.nan
    median = quantile_of(0.5, values)
    return quantile_of(0.5, [abs(v - median) for v in values])


def _compare(w: list[Point], better: Callable[[float, float], bool]) -> Point:
    best = w[0]
    for point in w:
        if better(point[1], best[1]) or math.isnan(best[1]):
            best = point
    return best


def _changes(w: list[Point]) -> float:
    return float(sum(a != b and not (a != a and b != b) for (_, a), (_, b) in itertools.pairwise(w)))


def _evaluate(name: str, w: list[Point], start: int, end: int, at: int, args: list[float]) -> float | None:
    if name in ("rate", "increase", "delta"):
        return _extrapolated(w, start, end, name != "delta", name == "rate")
    if name in ("irate", "idelta"):
        return _instant(w, name == "irate")
    if name == "deriv":
        return _regression(w, w[0][0])[0] if len(w) > 1 else None
    if name == "predict_linear":
        if len(w) < 2:
            return None
        slope, intercept = _regression(w, at)
        return slope * args[0] + intercept
    if name in ("double_exponential_smoothing", "holt_winters"):
        return _smooth(w, *args)
    if name == "quantile_over_time":
        return quantile_of(args[0], [v for _, v in w])
    simple: dict[str, Callable[[list[Point]], float]] = {
        "changes": _changes,
        "resets": lambda w: float(sum(b < a for (_, a), (_, b) in itertools.pairwise(w))),
        "sum_over_time": _sum,
        "avg_over_time": _avg,
        "min_over_time": lambda w: _compare(w, lambda a, b: a < b)[1],
        "max_over_time": lambda w: _compare(w, lambda a, b: a > b)[1],
        "ts_of_min_over_time": lambda w: _compare(w, lambda a, b: a <= b)[0] / 1000,
        "ts_of_max_over_time": lambda w: _compare(w, lambda a, b: a >= b)[0] / 1000,
        "ts_of_first_over_time": lambda w: w[0][0] / 1000,
        "ts_of_last_over_time": lambda w: w[-1][0] / 1000,
        "first_over_time": lambda w: w[0][1],
        "last_over_time": lambda w: w[-1][1],
        "count_over_time": lambda w: float(len(w)),
        "present_over_time": lambda w: 1.0,
        "stdvar_over_time": _variance,
        "stddev_over_time": lambda w: float(np.sqrt(_variance(w))),
        "mad_over_time": _mad,
    }
    return simple[name](w)


RANGE_FUNCTIONS: frozenset[str] = frozenset(
    {
        "avg_over_time",
        "changes",
        "count_over_time",
        "delta",
        "deriv",
        "double_exponential_smoothing",
        "first_over_time",
        "holt_winters",
        "idelta",
        "increase",
        "irate",
        "last_over_time",
        "mad_over_time",
        "max_over_time",
        "min_over_time",
        "predict_linear",
        "present_over_time",
        "quantile_over_time",
        "rate",
        "resets",
        "stddev_over_time",
        "stdvar_over_time",
        "sum_over_time",
        "ts_of_first_over_time",
        "ts_of_last_over_time",
        "ts_of_max_over_time",
        "ts_of_min_over_time",
    }
)


def apply_range(
    name: str,
    samples: Samples,
    grid: Grid,
    range_ms: int,
    args: Sequence[Floats],
    budget: Budget,
    evaluated: Grid | None = None,
) -> Ranged:
    """Evaluate a range function over the windows (t - range_ms, t] for each t of `grid`.

    samples: without stale markers (`drop_stale`).
    grid: ends of the windows, already shifted by `offset` and `@`; its step may be 0.
    args: scalar parameters, float64 [grid.count] each, in PromQL's order.
    evaluated: evaluation times, where they differ from the ends of the windows; only predict_linear asks.

    Charges the budget for the result's points and 9 bytes each, which the caller gives back when it drops them.
    Raises QueryFailed for a smoothing or trend factor outside of 0 to 1, and the budget's errors.
    """
    shape = (len(samples), grid.count)
    budget.charge(shape[0] * shape[1], 9 * shape[0] * shape[1])
    values, present = np.zeros(shape), np.zeros(shape, np.bool_)
    ends = grid.times().tolist()
    times_at = (evaluated or grid).times().tolist()
    notes: set[str] = set()
    with np.errstate(all="ignore"):
        for row in range(shape[0]):
            low, high = int(samples.offsets[row]), int(samples.offsets[row + 1])
            points = list(zip(samples.times[low:high].tolist(), samples.values[low:high].tolist(), strict=True))
            for step, end in enumerate(ends):
                window = [point for point in points if end - range_ms < point[0] <= end]
                if not window:
                    continue
                given = [float(arg[step]) for arg in args]
                if name == "quantile_over_time" and not 0 <= given[0] <= 1:
                    notes.add(INVALID_QUANTILE)
                got = _evaluate(name, window, end - range_ms, end, times_at[step], given)
                if got is not None:
                    values[row, step], present[row, step] = got, True
    return Ranged(Steps(values, present), frozenset(notes))

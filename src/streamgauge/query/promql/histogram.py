"""Quantiles and fractions of classic histograms: series that count observations up to a bound, their label `le`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.frame import ABSENT, LabelFrame
from streamgauge.query.promql.range_functions import INVALID_QUANTILE
from streamgauge.query.promql.steps import Steps

BAD_BUCKET_LABEL = "bad bucket label"
"""Note: series without a usable `le` were left out."""

FORCED_MONOTONICITY = "forced monotonicity"
"""Note: a bucket held fewer observations than a lower one, and was raised to it."""

_TOLERANCE = 1e-12
"""Neighbouring counts whose difference is within this share of their sum are one count with rounding errors."""

_SMALLEST_NORMAL = float(np.finfo(np.float64).smallest_normal)

_CELLS = 1 << 19
"""Bucket counts evaluated at once: enough to keep NumPy's overhead small, few enough to stay in the cache."""


@dataclass(frozen=True, slots=True)
class Repair:
    """Where counts were forced to be monotonic: the lowest and the highest bucket bound, the largest difference between
    two counts, the number of points, and the first and the last step."""

    lowest: float
    highest: float
    difference: float
    points: int
    first_step: int
    last_step: int

    def merge(self, other: Repair | None) -> Repair:
        if other is None:
            return self
        return Repair(
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            max(self.difference, other.difference),
            self.points + other.points,
            min(self.first_step, other.first_step),
            max(self.last_step, other.last_step),
        )


@dataclass(frozen=True, slots=True)
class HistogramResult:
    """One row a histogram.

    labels: without `le` and the metric's name. Two metrics that differ by name alone give two rows of equal labels.
    notes: kinds of annotations, of those named in this module and INVALID_QUANTILE.
    bad_buckets: metric name and `le` ("" where there is none) of the series left out, distinct, sorted.
    repair: given with FORCED_MONOTONICITY.
    """

    labels: LabelFrame
    steps: Steps
    notes: frozenset[str] = frozenset()
    bad_buckets: tuple[tuple[str, str], ...] = ()
    repair: Repair | None = None


@dataclass(frozen=True, slots=True)
class _Histograms:
    """Buckets sorted by histogram and bound; histogram i has rows starts[i] to starts[i] + sizes[i] of the arrays."""

    labels: LabelFrame
    bounds: Floats  # [buckets]
    values: Floats  # [buckets, steps]
    present: Bools  # [buckets, steps]
    starts: Int64s
    sizes: Int64s
    bad_buckets: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Layer:
    """The buckets at one position in each histogram, of those histograms that are large enough. They are sorted by
    size, so that these are the first `count` of a chunk."""

    count: int
    bounds: Floats  # [count, 1]
    values: Floats  # [count, steps]
    present: Bools  # [count, steps]


def histogram_quantile(labels: LabelFrame, steps: Steps, q: Floats) -> HistogramResult:
    """The q-quantile of each histogram, float64 [steps] of q, interpolated within a bucket as if evenly filled.

    NaN without a +Inf bucket, with fewer than two buckets, without observations and for a NaN q; -Inf for q < 0 and
    +Inf for q > 1.
    """
    histograms = _gather(labels, steps)
    valid = (q >= 0) & (q <= 1)
    outside = np.where(np.isnan(q), np.nan, np.where(q < 0, -np.inf, np.inf))
    repairs: list[Repair] = []

    def evaluate(layers: list[_Layer]) -> Floats:
        repaired, repair = _monotonic(layers, valid)
        repairs.extend([repair] if repair else [])
        return np.where(valid, _quantile(repaired, np.where(valid, q, 0.0)), outside)

    result = _each_chunk(histograms, evaluate)
    notes = {FORCED_MONOTONICITY} if repairs else set()
    if (result.present & ~valid).any():
        notes.add(INVALID_QUANTILE)
    repair = None
    for part in repairs:
        repair = part.merge(repair)
    return _result(histograms, result, notes, repair)


def histogram_fraction(labels: LabelFrame, steps: Steps, lower: Floats, upper: Floats) -> HistogramResult:
    """The share of each histogram's observations between two bounds, float64 [steps] each, interpolated likewise.

    NaN without a +Inf bucket, without observations and for a NaN bound; 0 where lower >= upper.
    """
    histograms = _gather(labels, steps)
    result = _each_chunk(histograms, lambda layers: _fraction(layers, lower, upper))
    return _result(histograms, result, set(), None)


def _result(histograms: _Histograms, steps: Steps, notes: set[str], repair: Repair | None) -> HistogramResult:
    if histograms.bad_buckets:
        notes = notes | {BAD_BUCKET_LABEL}
    labels = histograms.labels.without(["__name__"])
    return HistogramResult(labels, steps, frozenset(notes), histograms.bad_buckets, repair)


_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_HEX_FLOAT = re.compile(r"[+-]?0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+", re.ASCII)
_INFINITY = re.compile(r"[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)


def parse_bound(text: str) -> float | None:
    """A bucket's bound as `le` spells it; None when it is no number, or one that float64 cannot hold."""
    if _INFINITY.fullmatch(text):
        return float(text)
    try:
        if _FLOAT.fullmatch(text):
            bound = float(text)
        elif _HEX_FLOAT.fullmatch(text):
            bound = float.fromhex(text)
        else:
            return None
    except OverflowError:
        return None
    return bound if math.isfinite(bound) else None


def _bounds(labels: LabelFrame) -> Floats:
    """The bound of each row, NaN where `le` is absent or unusable."""
    column = labels.columns.get("le")
    if column is None:
        return np.full(len(labels), np.nan)
    used, inverse = np.unique(column.codes, return_inverse=True)
    parsed = [None if code == ABSENT else parse_bound(column.values[code].as_py()) for code in used.tolist()]
    return np.array([np.nan if bound is None else bound for bound in parsed], np.float64)[inverse]


def _bad_buckets(labels: LabelFrame, rows: Int64s) -> tuple[tuple[str, str], ...]:
    bad = labels.only(["__name__", "le"]).take(rows)
    _, first = bad.group()
    sets = (bad.labels(row) for row in first.tolist())
    return tuple(sorted((found.get("__name__", ""), found.get("le", "")) for found in sets))


def _gather(labels: LabelFrame, steps: Steps) -> _Histograms:
    """Sort buckets by histogram and bound, and add up those that have the same bound."""
    bounds = _bounds(labels)
    seen = steps.present.any(axis=1)
    good = np.flatnonzero(seen & ~np.isnan(bounds))
    bad = np.flatnonzero(seen & np.isnan(bounds))
    without = labels.without(["le"]).take(good)
    group, first = without.group()
    order = np.lexsort((bounds[good], group))
    rows, group, bounds = good[order], group[order], bounds[good][order]
    values, present = steps.values[rows], steps.present[rows]
    starts = np.flatnonzero(np.append(True, (group[1:] != group[:-1]) | (bounds[1:] != bounds[:-1]))[: len(rows)])
    if len(starts) < len(rows):
        values = np.add.reduceat(np.where(present, values, 0.0), starts, axis=0)
        present = np.logical_or.reduceat(present, starts, axis=0)
        group, bounds = group[starts], bounds[starts]
    sizes = np.bincount(group, minlength=len(first)).astype(np.int64)
    return _Histograms(
        without.take(first),
        bounds,
        values,
        present,
        np.cumsum(sizes) - sizes,
        sizes,
        _bad_buckets(labels, bad) if len(bad) else (),
    )


def _each_chunk(histograms: _Histograms, evaluate: Callable[[list[_Layer]], Floats]) -> Steps:
    """Evaluate histograms of similar size together. A point is present where any bucket is."""
    shape = (len(histograms.labels), histograms.values.shape[1])
    values, present = np.zeros(shape), np.zeros(shape, np.bool_)
    for chunk in _chunks(histograms):
        layers = list(_layers(histograms, chunk))
        with np.errstate(all="ignore"):
            values[chunk] = evaluate(layers)
        seen = np.zeros((len(chunk), shape[1]), np.bool_)
        for layer in layers:
            seen[: layer.count] |= layer.present
        present[chunk] = seen
    return Steps(values, present)


def _chunks(histograms: _Histograms) -> Iterator[Int64s]:
    """Histograms from the largest to the smallest, in chunks of about _CELLS bucket counts."""
    order = np.argsort(-histograms.sizes, kind="stable")
    steps = max(histograms.values.shape[1], 1)
    start = 0
    while start < len(order):
        count = max(1, _CELLS // (int(histograms.sizes[order[start]]) * steps))
        yield order[start : start + count]
        start += count


def _layers(histograms: _Histograms, chunk: Int64s) -> Iterator[_Layer]:
    sizes, starts = histograms.sizes[chunk], histograms.starts[chunk]
    for position in range(int(sizes[0])):
        rows = starts[: int(np.count_nonzero(sizes > position))] + position
        yield _Layer(len(rows), histograms.bounds[rows, None], histograms.values[rows], histograms.present[rows])


def _nearly_equal(a: Floats, b: Floats) -> Bools:
    """Whether two counts are equal but for rounding errors."""
    total, difference = np.abs(a) + np.abs(b), np.abs(a - b)
    tiny = (a == 0) | (b == 0) | (total < _SMALLEST_NORMAL)
    near: Bools = np.where(
        tiny,
        difference < _TOLERANCE * _SMALLEST_NORMAL,
        difference / np.minimum(total, np.finfo(np.float64).max) < _TOLERANCE,
    )
    near |= (a == b) | (np.isnan(a) & np.isnan(b))
    return near


def _highest(layers: list[_Layer]) -> Floats:
    """The bound of each histogram's highest present bucket, [histograms, steps]; NaN where none is."""
    highest = np.full(layers[0].values.shape, np.nan)
    for layer in layers:
        np.copyto(highest[: layer.count], layer.bounds, where=layer.present)
    return highest


def _monotonic(layers: list[_Layer], valid: Bools) -> tuple[list[_Layer], Repair | None]:
    """Raise counts that are lower than one before them, and level out differences that are rounding errors.

    A repair is reported at the `valid` steps of histograms that have a +Inf bucket.
    """
    shape = layers[0].values.shape
    previous, started = np.zeros(shape), np.zeros(shape, np.bool_)
    counted = valid & (_highest(layers) == np.inf)
    touched = np.zeros(shape, np.bool_)
    lowest, highest, largest = np.inf, -np.inf, 0.0
    repaired = []
    for layer in layers:
        before, begun = previous[: layer.count], started[: layer.count]
        compared = layer.present & begun
        level = compared & _nearly_equal(before, layer.values)
        forced = compared & ~level & (layer.values < before)
        counts = np.where(level | forced, before, layer.values)
        np.copyto(before, counts, where=layer.present)
        begun |= layer.present
        repaired.append(_Layer(layer.count, layer.bounds, counts, layer.present))
        forced &= counted[: layer.count]
        if forced.any():
            touched[: layer.count] |= forced
            bounds = np.broadcast_to(layer.bounds, forced.shape)[forced]
            lowest, highest = min(lowest, float(bounds.min())), max(highest, float(bounds.max()))
            largest = max(largest, float((before - layer.values)[forced].max()))
    if not touched.any():
        return repaired, None
    steps = np.flatnonzero(touched.any(axis=0))
    points = int(np.count_nonzero(touched))
    return repaired, Repair(lowest, highest, largest, points, int(steps[0]), int(steps[-1]))


def _quantile(layers: list[_Layer], q: Floats) -> Floats:
    """The quantile for 0 <= q <= 1 from monotonic counts."""
    shape = layers[0].values.shape
    total, buckets = np.full(shape, np.nan), np.zeros(shape, np.int64)
    for layer in layers:
        np.copyto(total[: layer.count], layer.values, where=layer.present)
        buckets[: layer.count] += layer.present
    highest = _highest(layers)
    rank = q * total
    result = np.full(shape, np.nan)
    found = np.zeros(shape, np.bool_)
    below, lower, started = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.bool_)
    for layer in layers:
        top = slice(0, layer.count)
        hit = layer.present & ~found[top] & ((layer.values >= rank[top]) | (layer.bounds == np.inf))
        inside = lower[top] + (layer.bounds - lower[top]) * ((rank[top] - below[top]) / (layer.values - below[top]))
        # The first bucket reaches down to 0, or, where its bound is not above 0, is taken as if all were at its bound;
        # of what lies above the highest finite bound nothing is known but that bound.
        inside = np.where(~started[top] & (layer.bounds <= 0), layer.bounds, inside)
        inside = np.where(layer.bounds == np.inf, lower[top], inside)
        np.copyto(result[top], inside, where=hit)
        found[top] |= hit
        np.copyto(below[top], layer.values, where=layer.present)
        np.copyto(lower[top], layer.bounds, where=layer.present)
        started[top] |= layer.present
    result[(buckets < 2) | (total == 0) | (highest != np.inf)] = np.nan
    return result


def _fraction(layers: list[_Layer], lower: Floats, upper: Floats) -> Floats:
    shape = layers[0].values.shape
    below, bottom, started = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.bool_)
    ranks = (np.full(shape, np.nan), np.full(shape, np.nan))
    known = (np.zeros(shape, np.bool_), np.zeros(shape, np.bool_))
    for layer in layers:
        top = slice(0, layer.count)
        bounds, counts = layer.bounds, layer.values
        start = np.where(started[top], bottom[top], np.where(bounds <= 0, -np.inf, 0.0))
        for limit, rank, done in zip((lower, upper), ranks, known, strict=True):
            at_start = layer.present & ~done[top] & (start >= limit)
            within = layer.present & ~done[top] & (start < limit) & (bounds > limit)
            part = below[top] + (counts - below[top]) * (limit - start) / (bounds - start)
            # A bucket that reaches down to -Inf cannot be interpolated: all of it counts.
            part = np.where(start == -np.inf, counts, part)
            np.copyto(rank[top], below[top], where=at_start)
            np.copyto(rank[top], part, where=within)
            done[top] |= at_start | within
        np.copyto(below[top], counts, where=layer.present)
        np.copyto(bottom[top], bounds, where=layer.present)
        started[top] |= layer.present
    total = below
    first, last = (np.where(~done | (rank > total), total, rank) for rank, done in zip(ranks, known, strict=True))
    result = np.where(lower >= upper, 0.0, (last - first) / total)
    undefined = (total == 0) | np.isnan(lower) | np.isnan(upper) | (_highest(layers) != np.inf)
    return np.where(undefined, np.nan, result)

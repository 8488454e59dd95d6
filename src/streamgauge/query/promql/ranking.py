"""Aggregations that order the rows of a group: quantile, topk, bottomk, limitk; and limit_ratio.

Groups of similar size are laid out together as [groups, places, steps], padded to the next power of two, so that
sorting along the places serves all of them at once and there are at most 30 such layouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.frame import LabelFrame
from streamgauge.query.promql.frames import fractions
from streamgauge.query.promql.segments import Segments
from streamgauge.query.promql.steps import Steps

_CELLS = 1 << 21
"""Numbers laid out at once, 16 MiB: sorting needs several copies of them."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Some groups of similar size. rows: int64 [groups, places], the row at each place; real: where there is one."""

    groups: Int64s
    rows: Int64s
    real: Bools

    def take(self, values: Floats, present: Bools) -> tuple[Floats, Bools]:
        """[groups, places, steps] each."""
        return values[self.rows], present[self.rows] & self.real[:, :, None]


def _layouts(segments: Segments, width: int) -> Iterator[_Layout]:
    places = np.int64(1) << np.ceil(np.log2(np.maximum(segments.sizes, 1))).astype(np.int64)
    for size in np.unique(places).tolist():
        groups = np.flatnonzero(places == size)
        at_once = max(1, _CELLS // (size * max(width, 1)))
        for first in range(0, len(groups), at_once):
            chunk = groups[first : first + at_once]
            place = np.arange(size)
            real = place < segments.sizes[chunk][:, None]
            at = np.minimum(segments.starts[chunk][:, None] + place, len(segments.order) - 1)
            yield _Layout(chunk, segments.order[at], real)


def group_quantile(segments: Segments, steps: Steps, q: Floats) -> Floats:
    """The q-quantile of each group, interpolated, NaN being the smallest value; -Inf for q < 0, +Inf for q > 1.

    q is float64 [steps]. Returns [groups, steps]; anything where a group has no value.
    """
    result = np.empty((segments.groups, len(q)))
    valid = (q >= 0) & (q <= 1)
    for layout in _layouts(segments, len(q)):
        values, present = layout.take(steps.values, steps.present)
        nans = (np.isnan(values) & present).sum(axis=1)
        count = present.sum(axis=1)
        # Sorted, the places are: NaN (as -Inf), the numbers, what is absent (as NaN, which sort puts last).
        values = np.sort(np.where(present, np.where(np.isnan(values), -np.inf, values), np.nan), axis=1)
        result[layout.groups] = _interpolated(values, nans, count, np.where(valid, q, 0.0))
    return np.where(valid, result, np.where(np.isnan(q), np.nan, np.where(q < 0, -np.inf, np.inf)))


def _interpolated(values: Floats, nans: Int64s, count: Int64s, q: Floats) -> Floats:
    rank = q * np.maximum(count - 1, 0)
    low = np.floor(rank).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    weight = rank - low

    def at(place: Int64s) -> Floats:
        found = np.take_along_axis(values, place[:, None, :], axis=1)[:, 0, :]
        return np.where(place < nans, np.nan, found)

    with np.errstate(all="ignore"):
        result: Floats = at(low) * (1 - weight) + at(high) * weight
    return result


def largest_rows(segments: Segments, steps: Steps, k: Int64s, *, smallest: bool) -> Bools:
    """Which k values of each group are the largest (or smallest) at each step: bool [rows, steps].

    k is int64 [steps], >= 0. A NaN is taken only for want of numbers; of equal values the earlier rows are taken.
    """
    chosen = np.zeros(steps.present.shape, np.bool_)
    for layout in _layouts(segments, len(k)):
        values, present = layout.take(steps.values, steps.present)
        key = np.where(present, values if smallest else -values, np.nan)  # ascending, the best first, NaN last
        limit = _kth(key, k)
        best = np.where(np.isnan(limit), ~np.isnan(key), key < limit)
        tied = np.where(np.isnan(limit), np.isnan(key) & present, key == limit)
        wanted = k - best.sum(axis=1)
        picked = best | (tied & (np.cumsum(tied, axis=1) <= wanted[:, None, :]))
        chosen[layout.rows[layout.real]] = (picked & (k > 0))[layout.real]
    return chosen


def _kth(key: Floats, k: Int64s) -> Floats:
    """The k-th smallest key of each group, NaN where there are fewer: [groups, 1, steps]."""
    places = key.shape[1]
    place = np.clip(k - 1, 0, places - 1)
    distinct = np.unique(place)
    ordered = np.partition(key, distinct, axis=1) if len(distinct) <= 4 else np.sort(key, axis=1)
    limit = np.take_along_axis(ordered, np.broadcast_to(place, (len(key), 1, len(k))), axis=1)
    return np.where(k > places, np.nan, limit)


def first_rows(segments: Segments, present: Bools, k: Int64s) -> Bools:
    """The first k present rows of each group at each step: bool [rows, steps]."""
    ordered = present[segments.order]
    seen = np.cumsum(ordered, axis=0)
    before: Int64s = seen[segments.starts] - ordered[segments.starts]
    place: Int64s = seen - np.repeat(before, segments.sizes, axis=0)
    chosen = np.empty_like(present)
    chosen[segments.order] = ordered & (place <= k)
    return chosen


def hashed_share(labels: LabelFrame, ratio: Floats) -> Bools:
    """A pseudo-random share of the series: those that hash below `ratio`; for a negative one the complement.

    ratio is float64 [steps] in -1 to 1. A series is in or out by its labels alone, so that ratios r and r - 1 share the
    series out between them. Returns bool [series, steps].
    """
    place = fractions(labels)[:, None]
    return np.where(ratio >= 0, place < ratio, place >= 1 + ratio)

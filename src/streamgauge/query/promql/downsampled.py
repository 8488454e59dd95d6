"""Selectors over times of which only aggregates are kept.

A selector's grid is cut where the resolution of what it looks at changes. Each stretch is evaluated by the same kernels
as samples are, over the aggregate that serves the function best and windows that are wide enough to hold one, and the
results are laid side by side. Which of its aggregates a window has is told by their times: a bucket counts whole where
its end lies in the window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamgauge.model.arrays import Floats, Int64s
from streamgauge.model.source import AggregateKind, Horizon
from streamgauge.query.promql.frames import concat
from streamgauge.query.promql.lookback import Looked
from streamgauge.query.promql.nodes import MatrixSelector, Selector
from streamgauge.query.promql.range_functions import apply_range, drop_stale, samples_needed
from streamgauge.query.promql.steps import Grid, Steps
from streamgauge.query.promql.values import InstantVector, no_names

if TYPE_CHECKING:
    from streamgauge.query.promql.evaluator import Evaluator


@dataclass(frozen=True, slots=True)
class _Reading:
    """A function of aggregates that gives what another one gives of the samples."""

    aggregate: AggregateKind
    function: str


_EXACT: Mapping[str, _Reading] = {
    "count_over_time": _Reading(AggregateKind.COUNT, "sum_over_time"),
    "increase": _Reading(AggregateKind.INCREASE, "sum_over_time"),
    "last_over_time": _Reading(AggregateKind.LAST_NUMBER, "last_over_time"),
    "max_over_time": _Reading(AggregateKind.MAX, "max_over_time"),
    "min_over_time": _Reading(AggregateKind.MIN, "min_over_time"),
    "present_over_time": _Reading(AggregateKind.COUNT, "present_over_time"),
    "rate": _Reading(AggregateKind.INCREASE, "sum_over_time"),
    "sum_over_time": _Reading(AggregateKind.SUM, "sum_over_time"),
}
"""Beside these there is avg_over_time, of two aggregates. Any other function is evaluated on the last sample of each
bucket, as if there were no other."""

_IN_PROPORTION = frozenset({"count_over_time", "increase", "rate", "sum_over_time"})
"""What they give grows with the range: they give a share of what is in the buckets and samples that a window has, by
the time that these cover. That is the next multiple of the resolution or, over a horizon, up to a bucket more."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Steps of a grid, from the one numbered `first` on, that look at one resolution, in ms; 0 for samples."""

    grid: Grid
    first: int
    resolution: int

    def of(self, whole: Grid) -> Grid:
        """The same steps of another grid."""
        return Grid(whole.first + whole.step * self.first, whole.step, self.grid.count)


def stretches(grid: Grid, back: int, horizons: Sequence[Horizon]) -> list[_Stretch]:
    """The grid, cut by what is kept of the times `back` ms before its steps."""
    first = grid.first - back
    if grid.step == 0:
        resolution = next((horizon.resolution for horizon in horizons if first < horizon.time), 0)
        return [_Stretch(grid, 0, resolution)]
    found, start = [], 0
    for horizon in (*horizons, None):
        until = grid.count if horizon is None else min(max(-(-(horizon.time - first) // grid.step), start), grid.count)
        if until > start:
            part = Grid(grid.first + grid.step * start, grid.step, until - start)
            found.append(_Stretch(part, start, 0 if horizon is None else horizon.resolution))
        start = until
    return found


def look(ev: Evaluator, node: Selector, times: Grid) -> tuple[InstantVector, Looked]:
    """What an instant selector sees: as `Evaluator.look`, of which `times` are the times to look at."""
    parts, stamps = [], []
    for stretch in stretches(times, 0, ev.horizons):
        lookback_ms = max(ev.lookback, stretch.resolution)
        vector, looked = ev.look_back(node, stretch.grid, lookback_ms)
        if stretch.resolution > ev.lookback and len(vector):
            ev.notes.widened(stretch.resolution)
        parts.append((stretch, vector))
        stamps.append(looked.times)
    if len(parts) == 1:
        return parts[0][1], looked
    vector, group = _side_by_side(ev, parts, times.count)
    ev.budget.charge(0, 8 * vector.steps.values.size)
    seen = np.zeros(vector.steps.values.shape, np.int64)
    for (stretch, _), rows, own in zip(parts, group, stamps, strict=True):
        seen[rows, stretch.first : stretch.first + stretch.grid.count] = own
    return vector, Looked(vector.steps, seen)


def range_function(
    ev: Evaluator, name: str, node: MatrixSelector, args: Sequence[Floats], grid: Grid, ends: Grid
) -> InstantVector:
    """A range function at each step of `grid`, whose windows end at the times `ends`. It keeps the metric names."""
    parts = []
    for stretch in stretches(ends, node.range - 1, ev.horizons):
        own = [arg[stretch.first : stretch.first + stretch.grid.count] for arg in args]
        call = _Call(ev, node, stretch.grid, own, stretch.of(grid))
        if stretch.resolution == 0:
            vector = call.apply(name, AggregateKind.LAST_NUMBER, node.range)
        else:
            vector = _of_aggregates(call, name, stretch.resolution)
        parts.append((stretch, vector))
    return parts[0][1] if len(parts) == 1 else _side_by_side(ev, parts, ends.count)[0]


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a range function in one stretch."""

    ev: Evaluator
    node: MatrixSelector
    ends: Grid
    args: Sequence[Floats]
    grid: Grid

    def apply(self, function: str, aggregate: AggregateKind, range_ms: int) -> InstantVector:
        first = self.ends.first - range_ms + 1
        selection = self.ev.select(self.node.selector.matchers, first, self.ends.last, aggregate)
        samples = drop_stale(selection.samples)
        ranged = apply_range(function, samples, self.ends, range_ms, self.args, self.ev.budget, self.grid)
        return InstantVector(selection.labels, ranged.steps, no_names(len(selection.labels)))


def _of_aggregates(call: _Call, name: str, resolution: int) -> InstantVector:
    asked, notes = call.node.range, call.ev.notes
    least = resolution * (1 if name in _EXACT else samples_needed(name))
    if asked < least:
        notes.widened(least)
    if name == "avg_over_time":
        total = call.apply("sum_over_time", AggregateKind.SUM, max(asked, least))
        count = call.apply("sum_over_time", AggregateKind.COUNT, max(asked, least))
        values = np.divide(total.steps.values, count.steps.values, out=total.steps.values)
        return total.with_steps(Steps(values, total.steps.present))
    if name not in _EXACT:
        notes.approximate(name)
        return call.apply(name, AggregateKind.LAST_NUMBER, max(asked, least))
    reading = _EXACT[name]
    if name not in _IN_PROPORTION:
        return call.apply(reading.function, reading.aggregate, max(asked, least))
    covered = -(-asked // resolution) * resolution
    if covered != asked:
        notes.approximate(name)
    vector = call.apply(reading.function, reading.aggregate, covered)
    times = call.ends.times()
    spans = _bucket_starts(times + 1, call.ev.horizons) - _bucket_starts(times + 1 - covered, call.ev.horizons)
    vector.steps.values[...] *= (1000 if name == "rate" else asked) / spans
    return vector


def _bucket_starts(times: Int64s, horizons: Sequence[Horizon]) -> Int64s:
    """For each time (ms) where the bucket begins that it lies in; the time itself where samples are kept."""
    at = np.searchsorted([horizon.time for horizon in horizons], times, "right")
    resolutions = np.array([*(horizon.resolution for horizon in horizons), 1])[at]
    starts: Int64s = times - times % resolutions
    return starts


def _side_by_side(
    ev: Evaluator, parts: Sequence[tuple[_Stretch, InstantVector]], steps: int
) -> tuple[InstantVector, list[Int64s]]:
    """Vectors over stretches of a grid as one over all of it; and for each of them which rows its own have become."""
    labels = concat([vector.labels for _, vector in parts])
    group, first = labels.group()
    shape = (len(first), steps)
    ev.budget.charge(shape[0] * shape[1], 9 * shape[0] * shape[1])
    values, present = np.zeros(shape), np.zeros(shape, np.bool_)
    rows = np.split(group, np.cumsum([len(vector) for _, vector in parts])[:-1])
    for (stretch, vector), own in zip(parts, rows, strict=True):
        columns = slice(stretch.first, stretch.first + stretch.grid.count)
        values[own, columns] = vector.steps.values
        present[own, columns] = vector.steps.present
    return InstantVector(labels.take(first), Steps(values, present), no_names(len(first))), rows

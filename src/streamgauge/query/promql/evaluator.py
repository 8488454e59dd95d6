"""Walks the syntax tree. Each node becomes arrays over all steps of a grid at once; a subquery brings its own grid."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from streamgauge.model.arrays import Floats, Int64s
from streamgauge.model.frame import empty_frame
from streamgauge.model.source import AggregateKind, Matcher, Samples, Selection, Source, empty_samples
from streamgauge.query.budget import Budget
from streamgauge.query.promql import downsampled
from streamgauge.query.promql.aggregate import aggregate
from streamgauge.query.promql.annotations import Annotations
from streamgauge.query.promql.binary import binary
from streamgauge.query.promql.calls import call
from streamgauge.query.promql.lookback import Looked, lookback
from streamgauge.query.promql.nodes import (
    Aggregate,
    Anchor,
    At,
    Binary,
    Call,
    MatrixSelector,
    Node,
    Number,
    Selector,
    Subquery,
    Text,
    Type,
    Unary,
    bare,
)
from streamgauge.query.promql.range_functions import drop_stale
from streamgauge.query.promql.steps import Grid, Steps
from streamgauge.query.promql.values import InstantVector, RangeSelection, Value, no_names

SUBQUERY_STEP_MS = 60_000
"""The step of `[range:]`: Prometheus' default evaluation interval."""

_POINT_BYTES = 9  # float64 and a flag

Held = TypeVar("Held", bound="Value | RangeSelection")


class Evaluator:
    """Evaluates one query. Used once, on one thread.

    query: the grid of the whole query, of which start() and step() speak.
    end: the end that was asked for, of which end() and range() speak; the last step may come before it.
    lookback: ms.
    """

    def __init__(
        self,
        source: Source,
        budget: Budget,
        notes: Annotations,
        query: Grid,
        end: int,
        lookback_ms: int,
        *,
        instant: bool,
    ) -> None:
        self.source = source
        self.horizons = source.horizons
        self.budget = budget
        self.notes = notes
        self.query: Grid = query
        self.end: int = end
        self.lookback = lookback_ms
        self.instant = instant

    def value(self, node: Node, grid: Grid) -> Value:
        """Evaluate a scalar, a vector or a string on a grid.

        What was charged to the budget on the way is given back, except for what the result holds.
        """
        node = bare(node)
        if isinstance(node, Text):
            return node.value
        samples, size = self.budget.samples, self.budget.bytes
        self.budget.charge(grid.count, 8 * grid.count)
        if node.invariant and grid.count > 1:
            result = _spread(self._evaluate(node, Grid.instant(grid.first)), grid.count)
        else:
            result = self._evaluate(node, grid)
        return self._holding(result, samples, size)

    def vector(self, node: Node, grid: Grid) -> InstantVector:
        result = self.value(node, grid)
        assert isinstance(result, InstantVector)
        return result

    def scalar(self, node: Node, grid: Grid) -> Floats:
        """float64 [steps]"""
        result = self.value(node, grid)
        assert isinstance(result, np.ndarray)
        return result

    def _holding(self, result: Held, samples: int, size: int) -> Held:
        """Settle the budget: since it stood at `samples` and `size`, only `result` has come to be held."""
        points, held = _cost(result)
        self.budget.release(self.budget.samples - samples - points, self.budget.bytes - size - held)
        self.budget.check()
        return result

    def _evaluate(self, node: Node, grid: Grid) -> Value:
        match node:
            case Number():
                return np.full(grid.count, node.value)
            case Selector():
                selection, looked = self.look(node, grid)
                return replace(selection, steps=looked.steps).present_only()
            case Call():
                return call(self, node, grid)
            case Aggregate():
                return self._aggregate(node, grid)
            case Binary():
                return self._binary(node, grid)
            case Unary():
                inner = self.value(node.expr, grid)
                if isinstance(inner, InstantVector):
                    return inner.renamed(Steps(-inner.steps.values, inner.steps.present))
                assert isinstance(inner, np.ndarray)
                return -inner
        raise AssertionError(f"{type(node).__name__} has no value on a grid")

    def _binary(self, node: Binary, grid: Grid) -> Value:
        """A chain of operators leans to the left: walk down it here, so that its length costs no stack."""
        chain = [node]
        while isinstance(lhs := bare(chain[-1].lhs), Binary) and not (lhs.invariant and grid.count > 1):
            chain.append(lhs)
        samples, size = self.budget.samples, self.budget.bytes
        result = self.value(chain[-1].lhs, grid)
        for link in reversed(chain):
            right = self.value(link.rhs, grid)
            assert not isinstance(result, str)
            assert not isinstance(right, str)
            self._charge(result, right)
            result = self._holding(binary(link, result, right, self.budget), samples, size)
        return result

    def _charge(self, *values: Value) -> None:
        """Account for a result as large as the largest of these, before it is made."""
        self.budget.charge(*max(map(_cost, values)))

    def _aggregate(self, node: Aggregate, grid: Grid) -> InstantVector:
        param = None
        if node.param is not None and node.param.type is Type.SCALAR:
            param = self.scalar(node.param, grid)
        vector = self.vector(node.expr, grid)
        self._charge(vector)
        return aggregate(node, vector, param, self.notes, self.budget, instant=self.instant and grid.count == 1)

    def look(self, node: Selector, grid: Grid) -> tuple[InstantVector, Looked]:
        """What an instant selector sees: its series, all of them, and their latest samples at each step."""
        times = self._times(node.at, node.offset, grid)
        if self._reaches_aggregates(times, self.lookback):
            return downsampled.look(self, node, times)
        return self.look_back(node, times, self.lookback)

    def look_back(self, node: Selector, times: Grid, lookback_ms: int) -> tuple[InstantVector, Looked]:
        """`look` at these times, and `lookback_ms` back from them."""
        selection = self.select(node.matchers, times.first - lookback_ms + 1, times.last)
        points = len(selection.labels) * times.count
        self.budget.charge(points, (_POINT_BYTES + 8) * points)
        looked = lookback(selection.samples, times, lookback_ms, self.budget)
        return InstantVector(selection.labels, looked.steps, no_names(len(selection.labels))), looked

    def windows(self, node: Node, grid: Grid) -> RangeSelection:
        """The samples that a range selector or subquery sees, and its windows on a grid."""
        node = bare(node)
        if isinstance(node, MatrixSelector):
            ends = self._times(node.selector.at, node.selector.offset, grid)
            first = ends.first - node.range + 1
            selection = self.select(node.selector.matchers, first, ends.last, AggregateKind.LAST_NUMBER)
            rows = len(selection.labels)
            return RangeSelection(selection.labels, drop_stale(selection.samples), no_names(rows), ends, node.range)
        assert isinstance(node, Subquery)
        ends = self._times(node.at, node.offset, grid)
        step = node.step or SUBQUERY_STEP_MS
        first = ((ends.first - node.range) // step + 1) * step
        inner = Grid(first, step, (ends.last - first) // step + 1)
        if inner.count <= 0:  # no multiple of the step lies in the range
            return RangeSelection(empty_frame(), empty_samples(), no_names(0), ends, node.range)
        self.budget.charge(inner.count, 8 * inner.count)
        vector = self.vector(node.expr, inner)
        self._charge(vector)
        return RangeSelection(vector.labels, _samples(vector.steps, inner), vector.nameless, ends, node.range)

    def select(
        self, matchers: tuple[Matcher, ...], start: int, end: int, aggregate: AggregateKind = AggregateKind.LAST
    ) -> Selection:
        """As `Source.select`. That there are aggregates among the samples is noted."""
        selection = self.source.select(matchers, start, end, self.budget, aggregate)
        if self.horizons and start < self.horizons[-1].time and len(selection.samples.times):
            self.notes.aggregates(self.horizons, selection.samples.times)
        return selection

    def windows_of_aggregates(self, node: Node, grid: Grid) -> Grid | None:
        """Where the windows end that a range selector sees on a grid, if they reach back to where only aggregates are
        kept."""
        node = bare(node)
        if not self.horizons or not isinstance(node, MatrixSelector):
            return None
        ends = self._times(node.selector.at, node.selector.offset, grid)
        return ends if self._reaches_aggregates(ends, node.range) else None

    def _reaches_aggregates(self, times: Grid, back: int) -> bool:
        return bool(self.horizons) and times.first - back + 1 < self.horizons[-1].time

    def _times(self, at: At, offset: int, grid: Grid) -> Grid:
        """The times that a selector with these modifiers looks at; a step of 0 where `@` pins them."""
        if at is None:
            return grid.shifted(-offset)
        if isinstance(at, Anchor):
            at = self.query.first if at is Anchor.START else self.end
        return Grid(at - offset, 0, grid.count)


def _spread(value: Value, steps: int) -> Value:
    """The value of one step as that of `steps` steps, without copying it."""
    if isinstance(value, InstantVector):
        shape = (len(value), steps)
        values, present = value.steps.values, value.steps.present
        return value.with_steps(Steps(np.broadcast_to(values, shape), np.broadcast_to(present, shape)))
    assert isinstance(value, np.ndarray)
    return np.broadcast_to(value, (steps,))


def _cost(value: Value | RangeSelection) -> tuple[int, int]:
    """Points and bytes that a value holds."""
    if isinstance(value, InstantVector):
        labels = 4 * len(value) * len(value.labels.columns)
        return value.steps.values.size, _POINT_BYTES * value.steps.values.size + labels
    if isinstance(value, RangeSelection):
        return len(value.samples.times), 16 * len(value.samples.times)
    return len(value), 8 * len(value)


def _samples(steps: Steps, grid: Grid) -> Samples:
    """The present points as samples."""
    counts = steps.present.sum(axis=1)
    offsets: Int64s = np.concatenate(([0], np.cumsum(counts)))
    if steps.present.all():
        return Samples(offsets, np.tile(grid.times(), len(steps)), np.ascontiguousarray(steps.values).reshape(-1))
    rows, columns = np.nonzero(steps.present)
    return Samples(offsets, grid.times()[columns], steps.values[rows, columns])

"""PromQL: text in, result out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.frame import empty_frame
from streamgauge.model.source import Samples, Source
from streamgauge.query.budget import Budget
from streamgauge.query.promql.annotations import Annotations
from streamgauge.query.promql.evaluator import Evaluator
from streamgauge.query.promql.frames import drop_names, order
from streamgauge.query.promql.nodes import Node, Type
from streamgauge.query.promql.parser import parse
from streamgauge.query.promql.steps import Grid
from streamgauge.query.promql.values import InstantVector, RangeSelection, Value, single, without_names
from streamgauge.query.requests import DEFAULT_LOOKBACK_MS
from streamgauge.query.result import Evaluation, Matrix, RangeVector, Result, Scalar, String, Vector


def evaluate(
    expr: str,
    source: Source,
    grid: Grid,
    budget: Budget,
    *,
    lookback: int = DEFAULT_LOOKBACK_MS,
    end: int | None = None,
    instant: bool,
) -> Evaluation:
    """Evaluate a PromQL expression at each time of `grid`, or, if `instant`, at its single one.

    lookback: ms. end: the end that was asked for, ms, which is what `@ end()` means; by default the last step.
    A range query's answer is a Matrix; an instant query's is of the type of the expression. Vectors and matrices are
    ordered by labels, unless the expression orders them.
    Raises BadInput, QueryFailed and the budget's errors.
    """
    node = parse(expr)
    if not instant and node.type in (Type.MATRIX, Type.STRING):
        raise BadInput(f'invalid expression type "{node.type.value}" for range query, must be scalar or instant vector')
    notes = Annotations(expr)
    evaluator = Evaluator(source, budget, notes, grid, grid.last if end is None else end, lookback, instant=instant)
    try:
        with np.errstate(all="ignore"):  # NaN and infinities are answers, and absent points hold anything
            result = _instant(evaluator, node, grid) if instant else _matrix(evaluator.value(node, grid), grid)
    except RecursionError:
        raise BadInput("the query is nested too deeply") from None
    return Evaluation(result, *notes.told())


def _instant(evaluator: Evaluator, node: Node, grid: Grid) -> Result:
    if node.type is Type.MATRIX:
        return _range_vector(evaluator.windows(node, grid))
    value = evaluator.value(node, grid)
    if isinstance(value, str):
        return String(grid.first, value)
    if isinstance(value, np.ndarray):
        return Scalar(grid.first, float(value[0]))
    vector = _shown(value)
    return Vector(vector.labels, grid.first, vector.steps.values[:, 0])


def _matrix(value: Value, grid: Grid) -> Matrix:
    assert not isinstance(value, str)
    if isinstance(value, np.ndarray):
        value = single(empty_frame(1), value, np.ones(grid.count, np.bool_))
    vector = _shown(replace(value, ordered=False))
    return Matrix(vector.labels, grid.times(), vector.steps.values, vector.steps.present)


def _shown(vector: InstantVector) -> InstantVector:
    """The vector as its reader sees it: names dropped, empty rows gone, in order."""
    vector = without_names(vector.present_only())
    if vector.ordered:
        return vector
    rows = order(vector.labels)
    return vector if (rows[1:] > rows[:-1]).all() else vector.take(rows)


def _range_vector(selected: RangeSelection) -> RangeVector:
    """The samples inside of the single window, of the series that have any."""
    samples, end = selected.samples, selected.ends.first
    row = np.repeat(np.arange(len(samples)), np.diff(samples.offsets))
    inside = (samples.times > end - selected.range) & (samples.times <= end)
    counts = np.bincount(row[inside], minlength=len(samples))
    labels = drop_names(selected.labels, selected.nameless)
    rows = np.flatnonzero(counts > 0)
    rows = rows[order(labels.take(rows))]
    position = np.repeat((np.cumsum(counts) - counts)[rows], counts[rows])
    offsets = np.concatenate(([0], np.cumsum(counts[rows])))
    position += np.arange(len(position)) - np.repeat(offsets[:-1], counts[rows])
    chosen = np.flatnonzero(inside)[position]
    return RangeVector(labels.take(rows), Samples(offsets, samples.times[chosen], samples.values[chosen]))

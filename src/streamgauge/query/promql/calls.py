"""Function calls: which function is evaluated where, and the small ones themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from streamgauge.errors import QueryFailed
from streamgauge.model.arrays import Floats
from streamgauge.model.frame import LabelFrame, empty_frame
from streamgauge.model.source import Matcher
from streamgauge.query.promql import downsampled
from streamgauge.query.promql.frames import METRIC_NAME, constant_column, constant_frame, with_columns
from streamgauge.query.promql.histogram import HistogramResult, histogram_fraction, histogram_quantile
from streamgauge.query.promql.info import info
from streamgauge.query.promql.label_functions import (
    absent_labels,
    label_join,
    label_replace,
    sort_by_labels,
    sort_by_value,
)
from streamgauge.query.promql.math_functions import MATH_FUNCTIONS, clamp_undefined
from streamgauge.query.promql.nodes import Call, MatrixSelector, Node, Selector, Type, bare, text_of
from streamgauge.query.promql.numbers import open_metrics_format
from streamgauge.query.promql.range_functions import RANGE_FUNCTIONS, apply_range
from streamgauge.query.promql.steps import Grid, Steps
from streamgauge.query.promql.values import (
    InstantVector,
    Value,
    empty_vector,
    merge_equal,
    no_names,
    present_steps,
    single,
    stacked,
)

if TYPE_CHECKING:
    from streamgauge.query.promql.evaluator import Evaluator

_KEEPING_NAMES = frozenset({"last_over_time", "first_over_time"})
"""They give the samples back as they are."""


def call(ev: Evaluator, node: Call, grid: Grid) -> Value:
    """Evaluate a function call on a grid."""
    if node.function in RANGE_FUNCTIONS:
        return _range_function(ev, node, grid)
    if node.function in MATH_FUNCTIONS:
        return _elementwise(ev, node, grid)
    if node.function not in _FUNCTIONS:  # the parser may know more: start_timestamp() needs what is not stored
        raise QueryFailed(f"function {node.function}() is not supported")
    return _FUNCTIONS[node.function](ev, node, grid)


def _range_function(ev: Evaluator, node: Call, grid: Grid, name: str = "") -> InstantVector:
    name = name or node.function
    at = next(i for i, arg in enumerate(node.args) if arg.type is Type.MATRIX)
    args = [ev.scalar(arg, grid) for i, arg in enumerate(node.args) if i != at]
    result = _ranged(ev, name, node.args[at], args, grid)
    if name not in _KEEPING_NAMES:
        result = result.renamed(result.steps)
    result = result.present_only()
    if name in ("rate", "increase"):
        for metric in _metric_names(result.labels):
            ev.notes.possible_non_counter(metric, node.args[at].position)
    if name == "quantile_over_time":
        _note_quantiles(ev, args[0], result, node.args[0].position)
    return result


def _ranged(ev: Evaluator, name: str, node: Node, args: list[Floats], grid: Grid) -> InstantVector:
    """A function of a range selector or subquery, with the metric names that these have."""
    if ends := ev.windows_of_aggregates(node, grid):
        selector = bare(node)
        assert isinstance(selector, MatrixSelector)
        return downsampled.range_function(ev, name, selector, args, grid, ends)
    selected = ev.windows(node, grid)
    ranged = apply_range(name, selected.samples, selected.ends, selected.range, args, ev.budget, grid)
    return InstantVector(selected.labels, ranged.steps, selected.nameless)


def _note_quantiles(ev: Evaluator, quantiles: Floats, result: InstantVector, position: int) -> None:
    used = np.unique(np.broadcast_to(quantiles, result.steps.present.shape[1:])[result.steps.present.any(axis=0)])
    for value in used[~((used >= 0) & (used <= 1))].tolist():
        ev.notes.invalid_quantile(value, position)


def _metric_names(labels: LabelFrame) -> list[str]:
    name = labels.columns.get(METRIC_NAME)
    if name is None:
        return []
    used = np.unique(name.codes[name.codes >= 0])
    return sorted(map(str, name.values.take(used).to_pylist()))


def _elementwise(ev: Evaluator, node: Call, grid: Grid) -> Value:
    function = MATH_FUNCTIONS[node.function]
    if not node.args:  # the calendar functions, of the evaluation time
        return single(empty_frame(1), function(_seconds(grid)), np.ones(grid.count, np.bool_))
    vector = ev.vector(node.args[0], grid)
    args = [ev.scalar(arg, grid) for arg in node.args[1:]]
    ev.budget.charge(vector.steps.values.size, 9 * vector.steps.values.size)
    present = vector.steps.present
    if node.function == "clamp":
        present = present & ~clamp_undefined(*args)
    return vector.renamed(Steps(function(vector.steps.values, *args), present))


def _seconds(grid: Grid) -> Floats:
    return grid.times() / 1000


# ---- scalars ------------------------------------------------------------------------------------------------------


def _scalar(ev: Evaluator, node: Call, grid: Grid) -> Value:
    vector = ev.vector(node.args[0], grid)
    values, present = vector.steps.values, vector.steps.present
    if not len(vector):
        return np.full(grid.count, np.nan)
    only = present.argmax(axis=0)
    return np.where(present.sum(axis=0) == 1, values[only, np.arange(grid.count)], np.nan)


def _vector(ev: Evaluator, node: Call, grid: Grid) -> Value:
    return single(empty_frame(1), ev.scalar(node.args[0], grid), np.ones(grid.count, np.bool_))


def _constant(value: Callable[[Evaluator], float]) -> Callable[[Evaluator, Call, Grid], Value]:
    return lambda ev, node, grid: np.full(grid.count, value(ev))


def _of_two(choose: Callable[[Floats, Floats], Floats]) -> Callable[[Evaluator, Call, Grid], Value]:
    return lambda ev, node, grid: choose(ev.scalar(node.args[0], grid), ev.scalar(node.args[1], grid))


def _step(ev: Evaluator) -> float:
    return ev.query.step / 1000 if ev.query.first != ev.end else 0.0


# ---- vectors ------------------------------------------------------------------------------------------------------


def _timestamp(ev: Evaluator, node: Call, grid: Grid) -> Value:
    """Of a selector the times of its samples, of anything else the evaluation time."""
    inner = bare(node.args[0])
    if isinstance(inner, Selector):
        vector, looked = ev.look(inner, grid)
        return vector.renamed(Steps(looked.times / 1000, looked.steps.present)).present_only()
    vector = ev.vector(inner, grid)
    values = np.broadcast_to(_seconds(grid), vector.steps.values.shape)
    return vector.renamed(Steps(values, vector.steps.present))


def _absent(ev: Evaluator, node: Call, grid: Grid) -> Value:
    inner = bare(node.args[0])
    vector = ev.vector(inner, grid)
    return _absence(vector, inner.matchers if isinstance(inner, Selector) else ())


def _absent_over_time(ev: Evaluator, node: Call, grid: Grid) -> Value:
    inner = bare(node.args[0])
    vector = _range_function(ev, node, grid, "present_over_time")
    return _absence(vector, inner.selector.matchers if isinstance(inner, MatrixSelector) else ())


def _absence(vector: InstantVector, matchers: tuple[Matcher, ...]) -> InstantVector:
    absent = ~present_steps(vector.steps)
    if not absent.any():
        return empty_vector(len(absent))
    return single(constant_frame(absent_labels(matchers)), np.ones(len(absent)), absent)


def _sort(ev: Evaluator, node: Call, grid: Grid) -> Value:
    vector = ev.vector(node.args[0], grid)
    if not ev.instant:
        ev.notes.sort_in_range_query(node.position)
        return vector
    descending = node.function.endswith("_desc")
    if grid.count != 1:  # inside a subquery
        return vector
    if node.function.startswith("sort_by_label"):
        return sort_by_labels(vector, [text_of(arg) for arg in node.args[1:]], descending=descending)
    return sort_by_value(vector, descending=descending)


def _label_replace(ev: Evaluator, node: Call, grid: Grid) -> Value:
    target, replacement, source, pattern = (text_of(arg) for arg in node.args[1:])
    return label_replace(ev.vector(node.args[0], grid), target, replacement, source, pattern)


def _label_join(ev: Evaluator, node: Call, grid: Grid) -> Value:
    target, separator, *sources = (text_of(arg) for arg in node.args[1:])
    return label_join(ev.vector(node.args[0], grid), target, separator, sources)


# ---- histograms ---------------------------------------------------------------------------------------------------


def _no_native_histograms(ev: Evaluator, node: Call, grid: Grid) -> Value:
    """histogram_count and its like speak of native histograms; float samples have no place in their answer."""
    ev.vector(node.args[0], grid)
    return empty_vector(grid.count)


def _histogram_quantile(ev: Evaluator, node: Call, grid: Grid) -> Value:
    q = ev.scalar(node.args[0], grid)
    vector = ev.vector(node.args[1], grid).present_only()
    result = histogram_quantile(vector.labels, vector.steps, q)
    return _histogram_result(ev, result, grid, {node.args[0].position: q}, node.args[1])


def _histogram_quantiles(ev: Evaluator, node: Call, grid: Grid) -> Value:
    """histogram_quantile for several quantiles at once, told apart by a label."""
    vector = ev.vector(node.args[0], grid).present_only()
    label = text_of(node.args[1])
    parts = []
    for arg in node.args[2:]:
        q = ev.scalar(arg, grid)
        result = histogram_quantile(vector.labels, vector.steps, q)
        ev.budget.charge(result.steps.values.size, 9 * result.steps.values.size)
        found = _histogram_result(ev, result, grid, {arg.position: q}, node.args[0])
        for value in np.unique(q).tolist():
            at_step = np.isnan(q) if np.isnan(value) else q == value
            named = with_columns(found.labels, {label: constant_column(len(found), open_metrics_format(value))})
            steps = Steps(found.steps.values, found.steps.present & at_step)
            parts.append(replace(found, labels=named, steps=steps))
    return merge_equal(stacked(parts))


def _histogram_fraction(ev: Evaluator, node: Call, grid: Grid) -> Value:
    lower, upper = ev.scalar(node.args[0], grid), ev.scalar(node.args[1], grid)
    vector = ev.vector(node.args[2], grid).present_only()
    return _histogram_result(ev, histogram_fraction(vector.labels, vector.steps, lower, upper), grid, {}, node.args[2])


def _histogram_result(
    ev: Evaluator, result: HistogramResult, grid: Grid, quantiles: Mapping[int, Floats], arg: Node
) -> InstantVector:
    """The result as a vector, after noting what was wrong with the buckets and with the quantiles, by position."""
    for position, q in quantiles.items():
        for value in np.unique(q[~((q >= 0) & (q <= 1))]).tolist():
            ev.notes.invalid_quantile(value, position)
    for metric, bound in result.bad_buckets:
        ev.notes.bad_bucket_label(metric, bound, arg.position)
    if repair := result.repair:
        times = grid.times()
        ev.notes.forced_monotonicity(
            (repair.lowest, repair.highest),
            repair.difference,
            repair.points,
            (int(times[repair.first_step]), int(times[repair.last_step])),
            arg.position,
        )
    return merge_equal(InstantVector(result.labels, result.steps, no_names(len(result.labels))))


_FUNCTIONS: Mapping[str, Callable[[Evaluator, Call, Grid], Value]] = {
    "absent": _absent,
    "absent_over_time": _absent_over_time,
    "end": _constant(lambda ev: ev.end / 1000),
    "histogram_avg": _no_native_histograms,
    "histogram_count": _no_native_histograms,
    "histogram_fraction": _histogram_fraction,
    "histogram_quantile": _histogram_quantile,
    "histogram_quantiles": _histogram_quantiles,
    "histogram_stddev": _no_native_histograms,
    "histogram_stdvar": _no_native_histograms,
    "histogram_sum": _no_native_histograms,
    "info": info,
    "label_join": _label_join,
    "label_replace": _label_replace,
    "max_of": _of_two(np.maximum),
    "min_of": _of_two(np.minimum),
    "pi": _constant(lambda ev: np.pi),
    "range": _constant(lambda ev: (ev.end - ev.query.first) / 1000),
    "scalar": _scalar,
    "sort": _sort,
    "sort_by_label": _sort,
    "sort_by_label_desc": _sort,
    "sort_desc": _sort,
    "start": _constant(lambda ev: ev.query.first / 1000),
    "step": _constant(_step),
    "time": lambda ev, node, grid: _seconds(grid),
    "timestamp": _timestamp,
    "vector": _vector,
}

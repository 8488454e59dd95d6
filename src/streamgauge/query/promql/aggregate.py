"""Aggregations: sum by (…), topk, quantile and the others. Everything works on all groups and steps at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from streamgauge.errors import QueryFailed
from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import Meter
from streamgauge.query.promql.annotations import Annotations
from streamgauge.query.promql.count_values import count_values
from streamgauge.query.promql.frames import METRIC_NAME
from streamgauge.query.promql.nodes import Aggregate, text_of
from streamgauge.query.promql.ranking import first_rows, group_quantile, hashed_share, largest_rows
from streamgauge.query.promql.segments import Segments
from streamgauge.query.promql.steps import Steps
from streamgauge.query.promql.values import InstantVector, empty_vector

_INT64 = 2.0**63


def aggregate(
    node: Aggregate, vector: InstantVector, param: Floats | None, notes: Annotations, meter: Meter, *, instant: bool
) -> InstantVector:
    """Evaluate an aggregation of `vector`. `param` is its scalar parameter, float64 [steps], if it has one.

    The caller accounts for a result as large as `vector`; what may be larger is charged to `meter`.
    topk, bottomk, limitk and limit_ratio return series of `vector`, in an instant query the ranked ones in order.
    """
    if node.op == "count_values":
        return count_values(vector, text_of(node.param), node.grouping, meter, without=node.without)
    if param is not None:
        _check_param(node, param, notes)
    vector = vector.present_only()
    if not len(vector):
        return empty_vector(vector.steps.values.shape[1])
    keys = group_labels(vector.labels, node.grouping, without=node.without)
    group, first = keys.group()
    segments = Segments(group, len(first))
    if param is not None and node.op != "quantile":
        return _selected(node.op, vector, segments, param, instant=instant)
    values, present = _reduced(node.op, segments, vector.steps, param)
    nameless = np.zeros(len(first), np.bool_)
    if METRIC_NAME in keys.columns:
        nameless = np.bincount(group, vector.nameless, len(first)) > 0
    return InstantVector(keys.take(first), Steps(values, present), nameless)


def group_labels(labels: LabelFrame, grouping: tuple[str, ...], *, without: bool) -> LabelFrame:
    """The labels that an aggregation keeps."""
    return labels.without([*grouping, METRIC_NAME]) if without else labels.only(grouping)


def _reduced(op: str, segments: Segments, steps: Steps, param: Floats | None) -> tuple[Floats, Bools]:
    count = segments.count(steps.present)
    if param is not None:
        return group_quantile(segments, steps, param), count > 0
    return _REDUCTIONS[op](segments, steps, count.astype(np.float64)), count > 0


def _sum(segments: Segments, steps: Steps, count: Floats) -> Floats:
    total, rest = segments.sum(steps.values, steps.present)
    return total + rest


def _mean(segments: Segments, steps: Steps, count: Floats) -> Floats:
    total, rest = segments.sum(steps.values, steps.present)
    overflown: Bools = np.logical_or.reduce(~np.isfinite(total) & (count > 0), axis=1)
    count = np.maximum(count, 1)
    mean = total / count + rest / count
    if not overflown.any():
        return mean
    # The sum of finite numbers may overflow where their mean does not: sum 2**-64 of each.
    rows = np.flatnonzero(overflown[segments.group])
    number = np.cumsum(overflown) - 1
    scaled = Segments(number[segments.group[rows]], int(overflown.sum()))
    small, small_rest = scaled.sum(steps.values[rows] * 2.0**-64, steps.present[rows])
    mean[overflown] = np.where(
        np.isfinite(total[overflown]),
        mean[overflown],
        (small / count[overflown] + small_rest / count[overflown]) * 2.0**64,
    )
    return mean


def _variance(segments: Segments, steps: Steps, count: Floats) -> Floats:
    """The population's, in two passes: about the mean, corrected by the mean's own rounding error."""
    with np.errstate(all="ignore"):
        distance = steps.values - _mean(segments, steps, count)[segments.group]
        squares, squares_rest = segments.sum(distance * distance, steps.present)
        drift, drift_rest = segments.sum(distance, steps.present)
        count = np.maximum(count, 1)
        variance: Floats = (squares + squares_rest) / count - ((drift + drift_rest) / count) ** 2
    return np.maximum(variance, 0.0)


_REDUCTIONS: Mapping[str, Callable[[Segments, Steps, Floats], Floats]] = {
    "sum": _sum,
    "avg": _mean,
    "min": lambda segments, steps, count: segments.minimum(steps.values, steps.present),
    "max": lambda segments, steps, count: segments.maximum(steps.values, steps.present),
    "count": lambda segments, steps, count: count,
    "group": lambda segments, steps, count: np.ones_like(count),
    "stddev": lambda segments, steps, count: np.sqrt(_variance(segments, steps, count)),
    "stdvar": _variance,
}


def _selected(op: str, vector: InstantVector, segments: Segments, param: Floats, *, instant: bool) -> InstantVector:
    steps = vector.steps
    if op == "limitk":
        chosen = first_rows(segments, steps.present, _whole(param, len(vector)))
    elif op == "limit_ratio":
        chosen = steps.present & hashed_share(vector.labels, np.clip(param, -1.0, 1.0))
    else:
        chosen = largest_rows(segments, steps, _whole(param, len(vector)), smallest=op == "bottomk")
    result = vector.with_steps(Steps(steps.values, chosen))
    rows = np.flatnonzero(chosen.any(axis=1))
    if not instant or op in ("limitk", "limit_ratio"):
        return result.take(rows)
    value = steps.values[rows, 0]
    value = value if op == "bottomk" else -value
    by_rank = np.lexsort((value, segments.group[rows]))  # NaN comes last
    ranked = result.take(rows[by_rank])
    return InstantVector(ranked.labels, ranked.steps, ranked.nameless, ordered=True)


def _whole(param: Floats, most: int) -> Int64s:
    return np.clip(np.trunc(param), 0, most).astype(np.int64)


def _check_param(node: Aggregate, param: Floats, notes: Annotations) -> None:
    position = node.param.position if node.param is not None else node.position
    low, high, nan = float(np.nanmin(param, initial=np.inf)), float(np.nanmax(param, initial=-np.inf)), np.isnan(param)
    if node.op == "quantile":
        if nan.any():
            notes.invalid_quantile(float("nan"), position)
        if high > 1:
            notes.invalid_quantile(high, position)
        if low < 0:
            notes.invalid_quantile(low, position)
    elif node.op == "limit_ratio":
        if nan.any():
            raise QueryFailed("Ratio value is NaN")
        if high > 1:
            notes.invalid_ratio(high, 1.0, position)
        if low < -1:
            notes.invalid_ratio(low, -1.0, position)
    elif nan.any():
        raise QueryFailed("Parameter value is NaN")
    elif low <= -_INT64 or high >= _INT64:
        outside = low if low <= -_INT64 else high
        raise QueryFailed(f"Scalar value {outside:g} {'underflows' if outside < 0 else 'overflows'} int64")

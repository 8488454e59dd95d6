"""Vector matching: which series of two vectors are paired by an arithmetic or comparison operator.

One side is the "one" side: at each step at most one of its series may carry the labels matched on. Its rows are first
laid over each other, one row for each set of matched labels (and of the labels that group_left takes from it). Each row
of the other, the "many" side, is then joined to those. Which series exist may change from step to step, and so may
what matches; two series clash only where both have a value at one step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from streamgauge.errors import QueryFailed
from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.frame import LabelFrame, number_keys
from streamgauge.query.promql.frames import METADATA, METRIC_NAME, column_of, concat, describe, no_column, with_columns
from streamgauge.query.promql.nodes import Cardinality, Matching
from streamgauge.query.promql.segments import Segments
from streamgauge.query.promql.steps import Steps
from streamgauge.query.promql.values import InstantVector, collapse, no_names, present_steps

_NOT_EXPLICIT = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
_NOT_UNIQUE = "multiple matches for labels: grouping labels must ensure unique matches"


@dataclass(frozen=True, slots=True)
class Operation:
    """What is computed of each pair.

    compute: from the left and the right values the result, and where it is kept (None: everywhere).
    keeps_name: the result carries the metric name of the many side; nameless: but only until the query is done.
    """

    compute: Callable[[Floats, Floats], tuple[Floats, Bools | None]]
    keeps_name: bool
    nameless: bool


@dataclass(frozen=True, slots=True)
class _Side:
    vector: InstantVector
    key: Int64s  # [series], the number of the labels matched on; both sides count alike
    fill: float | None  # the value to take where this side has none


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Rows of the result before they are joined where their labels are equal."""

    labels: LabelFrame
    many: Floats
    one: Floats
    present: Bools
    nameless: Bools


def matched_labels(labels: LabelFrame, matching: Matching) -> LabelFrame:
    """The labels that series are matched on."""
    return labels.only(matching.labels) if matching.on else labels.without([*matching.labels, METRIC_NAME])


def common_keys(lhs: InstantVector, rhs: InstantVector, matching: Matching) -> tuple[Int64s, Int64s, int]:
    """Number the distinct matched label sets of both sides: (number of each left row, of each right row, how many)."""
    frames = [matched_labels(lhs.labels, matching), matched_labels(rhs.labels, matching)]
    group, first = concat(frames).group()
    return group[: len(lhs)], group[len(lhs) :], len(first)


def any_present(key: Int64s, keys: int, present: Bools) -> Bools:
    """bool [keys, steps]: whether any row of that key has a value."""
    result = np.zeros((keys, present.shape[1]), np.bool_)
    if len(key):
        group, first = number_keys(key, keys)
        result[key[first]] = Segments(group, len(first)).count(present) > 0
    return result


def match_vectors(lhs: InstantVector, rhs: InstantVector, matching: Matching, operation: Operation) -> InstantVector:
    """Apply an operation to matched pairs.

    Raises QueryFailed when several series match where only one may, at any step.
    """
    left, right, keys = common_keys(lhs, rhs, matching)
    swapped = matching.cardinality is Cardinality.ONE_TO_MANY
    # Prometheus 3 does not swap the fill values: with group_right, fill_left is that of the right, the many side.
    if swapped:
        many, one = _Side(rhs, right, matching.fill_left), _Side(lhs, left, matching.fill_right)
    else:
        many, one = _Side(lhs, left, matching.fill_left), _Side(rhs, right, matching.fill_right)
    together = _both_sides_matter(many, one)
    one = replace(
        one, vector=one.vector.with_steps(Steps(one.vector.steps.values, one.vector.steps.present & together))
    )
    one = _laid_over(one, keys, matching, swapped=swapped)
    pairs = [_join(many, one, matching)]
    if one.fill is not None:
        pairs.append(_unmatched_many(many, one, keys, matching, one.fill))
    if many.fill is not None:
        pairs.append(_unmatched_one(many, one, keys, matching, many.fill))
    result = _check_unique(pairs[0] if len(pairs) == 1 else _stacked(pairs), matching, operation)
    ordered = many.vector.ordered and len(pairs) == 1
    return _computed(result, operation, ordered=ordered, swapped=swapped)


def _both_sides_matter(many: _Side, one: _Side) -> Bools:
    """The steps at which anything is matched: with one side empty nothing is, and no clash is found, unless filled."""
    if many.fill is not None or one.fill is not None:
        return np.ones(many.vector.steps.present.shape[1], np.bool_)
    return present_steps(many.vector.steps) & present_steps(one.vector.steps)


def _laid_over(one: _Side, keys: int, matching: Matching, *, swapped: bool) -> _Side:
    """The one side with a single row for each key and set of included labels."""
    rows = len(one.vector)
    by_key, first = number_keys(one.key, keys)
    if len(first) == rows:
        return one
    clash = Segments(by_key, len(first)).count(one.vector.steps.present) > 1
    if clash.any():
        raise _clash(one, by_key, clash, matching, swapped=swapped)
    if matching.include:
        included, distinct = one.vector.labels.only(matching.include).group()
        by_key, first = number_keys(one.key * len(distinct) + included, keys * len(distinct))
    steps, _ = collapse(one.vector.steps, Segments(by_key, len(first)))
    labels = one.vector.labels.take(first)
    return _Side(InstantVector(labels, steps, no_names(len(first))), one.key[first], one.fill)


def _clash(one: _Side, by_key: Int64s, clash: Bools, matching: Matching, *, swapped: bool) -> QueryFailed:
    key, step = np.argwhere(clash)[0].tolist()
    rows = np.flatnonzero((by_key == key) & one.vector.steps.present[:, step])[:2].tolist()
    labels = one.vector.labels
    series = sorted(describe(labels, row) for row in rows)
    return QueryFailed(
        f"found duplicate series for the match group {describe(matched_labels(labels, matching), rows[0])} on the "
        f"{'left' if swapped else 'right'} hand-side of the operation: [{', '.join(series)}]; many-to-many matching "
        "not allowed: matching labels must be unique on one side"
    )


def join(left: Int64s, right: Int64s) -> tuple[Int64s, Int64s]:
    """All pairs of a left and a right row of equal keys, in order of the left rows: (left rows, right rows)."""
    order = np.argsort(right, kind="stable")
    ordered = right[order]
    low = np.searchsorted(ordered, left, side="left")
    partners = np.searchsorted(ordered, left, side="right") - low
    left_rows = np.repeat(np.arange(len(left)), partners)
    within = np.arange(len(left_rows)) - np.repeat(np.cumsum(partners) - partners, partners)
    return left_rows, order[np.repeat(low, partners) + within]


def _join(many: _Side, one: _Side, matching: Matching) -> _Pairs:
    """Every row of the many side with every row of the one side that has its key."""
    many_rows, one_rows = join(many.key, one.key)
    many_steps, one_steps = many.vector.steps, one.vector.steps
    if np.array_equal(many_rows, np.arange(len(many_steps))):
        values, present = many_steps.values, many_steps.present  # the usual case: spare the copy
    else:
        values, present = many_steps.values[many_rows], many_steps.present[many_rows]
    return _Pairs(
        _result_labels(many.vector.labels.take(many_rows), one.vector.labels.take(one_rows), matching),
        values,
        one_steps.values[one_rows],
        present & one_steps.present[one_rows],
        many.vector.nameless[many_rows],
    )


def _result_labels(many: LabelFrame, one: LabelFrame, matching: Matching) -> LabelFrame:
    if matching.cardinality is Cardinality.ONE_TO_ONE:
        return many.only(matching.labels) if matching.on else many.without(matching.labels)
    return with_columns(many, {name: column_of(one, name) for name in matching.include})


def _unmatched_many(many: _Side, one: _Side, keys: int, matching: Matching, fill: float) -> _Pairs:
    """Rows of the many side at the steps where the one side has nothing."""
    steps = many.vector.steps
    present = steps.present & ~any_present(one.key, keys, one.vector.steps.present)[many.key]
    labels = many.vector.labels
    labels = _result_labels(labels, matched_labels(labels, matching), matching)
    return _Pairs(labels, steps.values, np.full_like(steps.values, fill), present, many.vector.nameless)


def _unmatched_one(many: _Side, one: _Side, keys: int, matching: Matching, fill: float) -> _Pairs:
    steps = one.vector.steps
    present = steps.present & ~any_present(many.key, keys, many.vector.steps.present)[one.key]
    labels = _result_labels(matched_labels(one.vector.labels, matching), one.vector.labels, matching)
    return _Pairs(labels, np.full_like(steps.values, fill), steps.values, present, no_names(len(one.key)))


def _stacked(pairs: list[_Pairs]) -> _Pairs:
    names = {name for part in pairs for name in part.labels.columns}
    frames = [
        with_columns(part.labels, {name: no_column(len(part.labels)) for name in names - part.labels.columns.keys()})
        for part in pairs
    ]
    return _Pairs(
        concat(frames),
        np.concatenate([part.many for part in pairs]),
        np.concatenate([part.one for part in pairs]),
        np.concatenate([part.present for part in pairs]),
        np.concatenate([part.nameless for part in pairs]),
    )


def _check_unique(pairs: _Pairs, matching: Matching, operation: Operation) -> _Pairs:
    """Join rows of equal labels, and refuse two of them at one step, also where a comparison would drop them."""
    labels = pairs.labels if operation.keeps_name else pairs.labels.without(METADATA)
    one_to_one = matching.cardinality is Cardinality.ONE_TO_ONE
    # A one-to-one match is decided by the labels matched on, a name is not one of them.
    compared = labels.without([METRIC_NAME]) if one_to_one and not matching.on else labels
    group, first = compared.group()
    if len(first) == len(labels):
        return replace(pairs, labels=labels)
    segments = Segments(group, len(first))
    if (segments.count(pairs.present) > 1).any():
        raise QueryFailed(_NOT_EXPLICIT if one_to_one else _NOT_UNIQUE)
    group, first = labels.group()
    segments = Segments(group, len(first))
    many, _ = collapse(Steps(pairs.many, pairs.present), segments)
    one, _ = collapse(Steps(pairs.one, pairs.present), segments)
    nameless = np.bincount(group, pairs.nameless, len(first)) > 0
    return _Pairs(labels.take(first), many.values, one.values, many.present, nameless)


def _computed(pairs: _Pairs, operation: Operation, *, ordered: bool, swapped: bool) -> InstantVector:
    left, right = (pairs.one, pairs.many) if swapped else (pairs.many, pairs.one)
    values, kept = operation.compute(left, right)
    present = pairs.present if kept is None else pairs.present & kept
    nameless = np.ones(len(present), np.bool_) if operation.nameless else pairs.nameless
    return InstantVector(pairs.labels, Steps(values, present), nameless, ordered)

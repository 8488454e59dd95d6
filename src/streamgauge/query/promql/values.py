"""What an expression is while it is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from streamgauge.errors import QueryFailed
from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.frame import LabelFrame, empty_frame
from streamgauge.model.source import Samples
from streamgauge.query.promql.frames import concat, drop_names
from streamgauge.query.promql.segments import Segments
from streamgauge.query.promql.steps import Grid, Steps

SAME_LABELSET = "vector cannot contain metrics with the same labelset"


@dataclass(frozen=True, slots=True)
class InstantVector:
    """Series by steps.

    labels: with the metric names, even of series that lose theirs.
    nameless: bool [series], True for series whose metric name goes when the query is done (Prometheus' delayed name
    removal: until then label_replace and `by (__name__)` still see it).
    ordered: the order of the rows is part of the answer.
    """

    labels: LabelFrame
    steps: Steps
    nameless: Bools
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Int64s) -> InstantVector:
        steps = Steps(self.steps.values[rows], self.steps.present[rows])
        return InstantVector(self.labels.take(rows), steps, self.nameless[rows], self.ordered)

    def with_steps(self, steps: Steps) -> InstantVector:
        return replace(self, steps=steps)

    def renamed(self, steps: Steps) -> InstantVector:
        """Other values, of which the metric name says nothing any more."""
        return InstantVector(self.labels, steps, np.ones(len(self), np.bool_), self.ordered)

    def present_only(self) -> InstantVector:
        """Without the rows that have no value at any step."""
        some = self.steps.present.any(axis=1)
        return self if some.all() else self.take(np.flatnonzero(some))


@dataclass(frozen=True, slots=True)
class RangeSelection:
    """Samples and the windows (t - range, t] over them, t from `ends`, whose step is 0 where `@` pins them."""

    labels: LabelFrame
    samples: Samples  # without stale markers
    nameless: Bools
    ends: Grid
    range: int  # ms


Value = InstantVector | Floats | str
"""A vector, a scalar (float64 [steps]) or a string."""


def no_names(rows: int) -> Bools:
    """The `nameless` of rows that keep their names."""
    return np.zeros(rows, np.bool_)


def empty_vector(steps: int) -> InstantVector:
    return InstantVector(empty_frame(), Steps(np.empty((0, steps)), np.empty((0, steps), np.bool_)), no_names(0))


def single(labels: LabelFrame, values: Floats, present: Bools) -> InstantVector:
    """A vector of one series. `values` and `present` are [steps]."""
    return InstantVector(labels, Steps(values[None, :], present[None, :]), no_names(1))


def present_steps(steps: Steps) -> Bools:
    """bool [steps]: whether any series has a value there."""
    some: Bools = np.logical_or.reduce(steps.present, axis=0)
    return some


def stacked(vectors: Sequence[InstantVector]) -> InstantVector:
    """The rows of all vectors, in order."""
    steps = Steps(
        np.concatenate([vector.steps.values for vector in vectors]),
        np.concatenate([vector.steps.present for vector in vectors]),
    )
    nameless = np.concatenate([vector.nameless for vector in vectors])
    return InstantVector(concat([vector.labels for vector in vectors]), steps, nameless)


def collapse(steps: Steps, segments: Segments) -> tuple[Steps, Bools]:
    """Lay the rows of each group over each other.

    Returns one row a group, and where more than one row of a group had a value: bool [groups, steps].
    """
    count = segments.count(steps.present)
    number = np.arange(1, len(steps) + 1)[:, None]
    row = segments.largest(np.where(steps.present, number, 0)) - 1
    values = np.take_along_axis(steps.values, np.maximum(row, 0), axis=0)
    return Steps(values, count > 0), count > 1


def merge_equal(vector: InstantVector, message: str = SAME_LABELSET) -> InstantVector:
    """Join rows of equal labels, which must not have values at the same step: that raises QueryFailed(message)."""
    group, first = vector.labels.group()
    if len(first) == len(vector):
        return vector
    segments = Segments(group, len(first))
    steps, clash = collapse(vector.steps, segments)
    if clash.any():
        raise QueryFailed(message)
    nameless = np.bincount(group, vector.nameless, len(first)) > 0
    return InstantVector(vector.labels.take(first), steps, nameless, vector.ordered)


def without_names(vector: InstantVector) -> InstantVector:
    """The vector as it is shown: `nameless` series have lost their names.

    Raises QueryFailed when two then have the same labels at the same step.
    """
    if not vector.nameless.any():
        return vector
    vector = replace(vector, labels=drop_names(vector.labels, vector.nameless), nameless=no_names(len(vector)))
    return merge_equal(vector)

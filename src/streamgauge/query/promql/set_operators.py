"""and, or, unless: series of one vector by whether the other has series of the same labels."""

from __future__ import annotations

from streamgauge.model.source import Meter
from streamgauge.query.promql.matching import any_present, common_keys
from streamgauge.query.promql.nodes import Matching
from streamgauge.query.promql.steps import Steps
from streamgauge.query.promql.values import InstantVector, merge_equal, stacked


def combine_sets(op: str, lhs: InstantVector, rhs: InstantVector, matching: Matching, meter: Meter) -> InstantVector:
    """Evaluate a set operator, step by step."""
    left, right, keys = common_keys(lhs, rhs, matching)
    if op == "or":
        taken = any_present(left, keys, lhs.steps.present)
        rest = rhs.with_steps(Steps(rhs.steps.values, rhs.steps.present & ~taken[right]))
        points = rest.steps.present.size
        meter.charge(points, 9 * points)
        return merge_equal(stacked([lhs.present_only(), rest.present_only()]))
    matched = any_present(right, keys, rhs.steps.present)[left]
    present = lhs.steps.present & (matched if op == "and" else ~matched)
    return lhs.with_steps(Steps(lhs.steps.values, present))

"""Binary operators on scalars and vectors. How series of two vectors find each other is in `matching`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from streamgauge.model.arrays import Bools, Floats
from streamgauge.model.source import Meter
from streamgauge.query.promql.matching import Operation, match_vectors
from streamgauge.query.promql.nodes import COMPARISONS, SET_OPERATORS, Binary
from streamgauge.query.promql.set_operators import combine_sets
from streamgauge.query.promql.steps import Steps
from streamgauge.query.promql.values import InstantVector

_ARITHMETIC: Mapping[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
}
_COMPARE: Mapping[str, Callable[[Floats, Floats], Bools]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
}


def binary(
    node: Binary, lhs: InstantVector | Floats, rhs: InstantVector | Floats, meter: Meter
) -> InstantVector | Floats:
    """Apply the operator of `node`. Scalars are float64 [steps].

    The caller accounts for a result as large as the larger side; what goes beyond is charged to `meter`.
    Raises QueryFailed where series do not match up.
    """
    with np.errstate(all="ignore"):
        if isinstance(lhs, InstantVector) and isinstance(rhs, InstantVector):
            assert node.matching is not None
            if node.op in SET_OPERATORS:
                return combine_sets(node.op, lhs, rhs, node.matching, meter)
            return match_vectors(lhs, rhs, node.matching, _operation(node), meter)
        if isinstance(lhs, InstantVector):
            assert not isinstance(rhs, InstantVector)
            return _with_scalar(node, lhs, lhs.steps.values, rhs)
        if isinstance(rhs, InstantVector):
            return _with_scalar(node, rhs, lhs, rhs.steps.values)
        if node.op in COMPARISONS:
            return _COMPARE[node.op](lhs, rhs).astype(np.float64)
        return _ARITHMETIC[node.op](lhs, rhs)


def _with_scalar(node: Binary, vector: InstantVector, left: Floats, right: Floats) -> InstantVector:
    if node.op in _ARITHMETIC:
        return vector.renamed(Steps(_ARITHMETIC[node.op](left, right), vector.steps.present))
    holds = _COMPARE[node.op](left, right)
    if node.return_bool:
        return vector.renamed(Steps(holds.astype(np.float64), vector.steps.present))
    return vector.with_steps(Steps(vector.steps.values, vector.steps.present & holds))


def _operation(node: Binary) -> Operation:
    if node.op in _ARITHMETIC:
        compute = _ARITHMETIC[node.op]
        return Operation(lambda left, right: (compute(left, right), None), keeps_name=False, nameless=False)
    compare = _COMPARE[node.op]
    if node.return_bool:
        return Operation(
            lambda left, right: (compare(left, right).astype(np.float64), None), keeps_name=True, nameless=True
        )
    return Operation(lambda left, right: (left, compare(left, right)), keeps_name=True, nameless=False)

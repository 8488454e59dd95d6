"""Functions of range vectors, `rate(metric[5m])` and the like, for all series and steps at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamgauge.errors import QueryFailed
from streamgauge.model.arrays import Bools, Floats, stale_mask
from streamgauge.model.source import Samples
from streamgauge.query.budget import Budget
from streamgauge.query.promql import counters, ordering, over_time
from streamgauge.query.promql.chunks import over_windows
from streamgauge.query.promql.steps import Grid, Steps
from streamgauge.query.promql.windows import Windows, take

INVALID_QUANTILE = "invalid quantile"
"""Note: a quantile outside of 0 to 1, or NaN, was asked for where there was something to take it of."""


@dataclass(frozen=True, slots=True)
class Ranged:
    """The answer of a range function. `notes` are kinds of annotations, which the engine puts into words."""

    steps: Steps
    notes: frozenset[str] = frozenset()


def drop_stale(samples: Samples) -> Samples:
    """The samples without stale markers; the same object when there are none. Series stay, if only as empty ones."""
    stale = stale_mask(samples.values)
    if not stale.any():
        return samples
    keep = ~stale
    before = np.concatenate(([0], np.cumsum(keep)))
    return Samples(before[samples.offsets], samples.times[keep], samples.values[keep])


@dataclass(frozen=True, slots=True)
class _Function:
    """A function of windows, with its scalar arguments as float64 [steps], whose result broadcasts to [series, steps].

    needs: samples that a window must hold for the function to have a value.
    in_order: it visits the samples of windows one after the other.
    """

    evaluate: Callable[..., Floats]
    needs: int = 1
    in_order: bool = False


_FUNCTIONS: Mapping[str, _Function] = {
    "avg_over_time": _Function(over_time.avg_over_time),
    "changes": _Function(counters.changes),
    "count_over_time": _Function(lambda windows: windows.count.astype(np.float64)),
    "delta": _Function(counters.delta, needs=2),
    "deriv": _Function(over_time.deriv, needs=2),
    "double_exponential_smoothing": _Function(over_time.double_exponential_smoothing, needs=2, in_order=True),
    "first_over_time": _Function(Windows.first),
    "holt_winters": _Function(over_time.double_exponential_smoothing, needs=2, in_order=True),
    "idelta": _Function(counters.idelta, needs=2),
    "increase": _Function(counters.increase, needs=2),
    "irate": _Function(counters.irate, needs=2),
    "last_over_time": _Function(Windows.last),
    "mad_over_time": _Function(ordering.mad_over_time),
    "max_over_time": _Function(ordering.max_over_time),
    "min_over_time": _Function(ordering.min_over_time),
    "predict_linear": _Function(over_time.predict_linear, needs=2),
    "present_over_time": _Function(lambda windows: np.ones(1)),
    "quantile_over_time": _Function(ordering.quantile_over_time),
    "rate": _Function(counters.rate, needs=2),
    "resets": _Function(counters.resets),
    "stddev_over_time": _Function(over_time.stddev_over_time),
    "stdvar_over_time": _Function(over_time.stdvar_over_time),
    "sum_over_time": _Function(over_time.sum_over_time),
    "ts_of_first_over_time": _Function(lambda windows: take(windows.times, windows.bounds.first) / 1000),
    "ts_of_last_over_time": _Function(lambda windows: take(windows.times, windows.bounds.last) / 1000),
    "ts_of_max_over_time": _Function(ordering.ts_of_max_over_time),
    "ts_of_min_over_time": _Function(ordering.ts_of_min_over_time),
}

RANGE_FUNCTIONS: frozenset[str] = frozenset(_FUNCTIONS)


def samples_needed(name: str) -> int:
    """How many samples a window must hold for the function to have a value."""
    return _FUNCTIONS[name].needs


def apply_range(
    name: str,
    samples: Samples,
    grid: Grid,
    range_ms: int,
    args: Sequence[Floats],
    budget: Budget,
    evaluated: Grid | None = None,
) -> Ranged:
    """Evaluate a range function over the windows (t - range_ms, t] for each t of `grid`.

    samples: without stale markers (`drop_stale`).
    grid: ends of the windows, already shifted by `offset` and `@`; its step may be 0.
    args: scalar parameters, float64 [grid.count] each, in PromQL's order.
    evaluated: evaluation times, where they differ from the ends of the windows; only predict_linear asks.

    Charges the budget for the result's points and 9 bytes each, which the caller gives back when it drops them.
    Raises QueryFailed for a smoothing or trend factor outside of 0 to 1, and the budget's errors.
    """
    function = _FUNCTIONS[name]
    shape = (len(samples), grid.count)
    budget.charge(shape[0] * shape[1], 9 * shape[0] * shape[1])
    values, present = np.zeros(shape), np.zeros(shape, np.bool_)
    if name == "predict_linear" and evaluated is not None:
        args = [args[0] + (evaluated.times() - grid.times()) / 1000]

    def evaluate(windows: Windows) -> tuple[Floats, Bools]:
        return function.evaluate(windows, *args), windows.count >= function.needs

    over_windows(evaluate, (values, present), samples, grid, range_ms, budget, function.in_order)
    if name in ("double_exponential_smoothing", "holt_winters"):
        _check_factors(args[0], args[1], present)
    notes = set()
    if name == "quantile_over_time" and (present & ~((args[0] >= 0) & (args[0] <= 1))).any():
        notes.add(INVALID_QUANTILE)
    return Ranged(Steps(values, present), frozenset(notes))


def _check_factors(smoothing: Floats, trend: Floats, present: Bools) -> None:
    used = present.any(axis=0)
    for what, factors in (("smoothing", smoothing), ("trend", trend)):
        wrong = used & ((factors <= 0) | (factors >= 1))
        if wrong.any():
            raise QueryFailed(f"the {what} factor must lie between 0 and 1, both excluded; got {factors[wrong][0]:g}")

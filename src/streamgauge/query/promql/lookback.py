"""Instant selectors: the latest sample of each series at each evaluation time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamgauge.model.arrays import Bools, Floats, Int64s, stale_mask
from streamgauge.model.source import Samples
from streamgauge.query.budget import Budget
from streamgauge.query.promql.chunks import over_windows
from streamgauge.query.promql.steps import Grid, Steps
from streamgauge.query.promql.windows import Windows, take


@dataclass(frozen=True, slots=True)
class Looked:
    """What an instant selector sees. `times` are the timestamps of the chosen samples, in ms, int64 [series, steps];
    anything where a step is not present."""

    steps: Steps
    times: Int64s


def lookback(samples: Samples, grid: Grid, lookback_ms: int, budget: Budget | None = None) -> Looked:
    """The latest sample in (t - lookback_ms, t] for each series and each time t of the grid.

    A point is absent where that window is empty and where its latest sample is a stale marker.
    The caller charges `budget` for the result, 17 bytes for each series and step; here it is charged for what is needed
    meanwhile, and raises its errors. Without one there is no limit.
    """
    shape = (len(samples), grid.count)
    values, present, times = np.zeros(shape), np.zeros(shape, np.bool_), np.zeros(shape, np.int64)
    over_windows(_latest, (values, present, times), samples, grid, lookback_ms, budget)
    return Looked(Steps(values, present), times)


def _latest(windows: Windows) -> tuple[Floats, Bools, Int64s]:
    values = windows.last()
    return values, (windows.count > 0) & ~stale_mask(values), take(windows.times, windows.bounds.last)

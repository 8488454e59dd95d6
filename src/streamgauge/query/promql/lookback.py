"""Instant selectors: the latest sample of each series at each evaluation time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamgauge.model.arrays import Int64s, stale_mask
from streamgauge.model.source import Samples
from streamgauge.query.promql.steps import Grid, Steps


@dataclass(frozen=True, slots=True)
class Looked:
    """What an instant selector sees. `times` are the timestamps of the chosen samples, in ms, int64 [series, steps],
    possibly a read-only view; anything where a step is not present."""

    steps: Steps
    times: Int64s


def lookback(samples: Samples, grid: Grid, lookback_ms: int) -> Looked:
    """The latest sample in (t - lookback_ms, t] for each series and each time t of the grid.

    A point is absent where that window is empty and where its latest sample is a stale marker.
    """
    shape = (len(samples), grid.count)
    values, present, times = np.zeros(shape), np.zeros(shape, np.bool_), np.zeros(shape, np.int64)
    ends = grid.times()
    for row in range(len(samples)):
        low, high = int(samples.offsets[row]), int(samples.offsets[row + 1])
        if low == high:
            continue
        last = np.searchsorted(samples.times[low:high], ends, side="right") - 1 + low
        at = np.maximum(last, low)
        values[row], times[row] = samples.values[at], samples.times[at]
        present[row] = (last >= low) & (times[row] > ends - lookback_ms) & ~stale_mask(samples.values[at])
    return Looked(Steps(values, present), times)

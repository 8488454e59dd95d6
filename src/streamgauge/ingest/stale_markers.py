"""A batch of stale markers, as it may be appended."""

from __future__ import annotations

import numpy as np

from streamgauge.model.arrays import Int64s, UInt32s, stale_marker
from streamgauge.model.batch import SampleBatch


def stale_markers(series: UInt32s, times: Int64s, admitted: tuple[int, int]) -> SampleBatch:
    """A marker for each of the series at its time, in ms. admitted: the oldest and the newest that the sink takes; what
    is older is left out, and what would be newer is at the newest."""
    oldest, newest = admitted
    kept = times >= oldest
    return SampleBatch(series[kept], np.minimum(times[kept], newest), stale_marker(int(kept.sum())))

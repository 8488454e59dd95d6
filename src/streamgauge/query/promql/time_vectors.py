"""Which series have identical time vectors, as all that one scrape returns do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from streamgauge.model.arrays import Bools, Int64s
from streamgauge.model.source import Samples
from streamgauge.query.promql.windows import Number

_PROBES = 8
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: spreads low bits over high ones


def group_by_times(samples: Samples, steps: int, smallest: int) -> tuple[list[Int64s], Int64s]:
    """Find groups of series that most likely have the same time vector.

    steps: windows of each series.
    smallest: samples plus windows of a group from which on it is worth having.

    Returns (groups, rest): the series of each group, ascending, the groups in the order of their first series; and all
    other series, ascending. Series without samples are in neither.

    Series of a group have equally many samples and agree in a few times along the way. That costs little even when all
    vectors differ, but is no proof: `same_times` is, where a group is used.
    """
    sizes = np.diff(samples.offsets)
    rows = np.flatnonzero(sizes)
    sizes = sizes[rows]
    if len(samples.times) + len(rows) * steps < smallest:
        return [], rows
    _, first, candidate, counts = np.unique(
        _fingerprints(samples, rows), return_index=True, return_inverse=True, return_counts=True
    )
    worthwhile = counts * (sizes[first] + steps) >= smallest
    grouped = worthwhile[candidate] & (sizes == sizes[first][candidate])
    order = np.argsort(candidate[grouped], kind="stable")
    cuts = np.flatnonzero(np.diff(candidate[grouped][order])) + 1
    groups = [group for group in np.split(rows[grouped][order], cuts) if len(group)]
    groups.sort(key=lambda members: int(members[0]))
    return groups, rows[~grouped]


def same_times(samples: Samples, series: Int64s, times: Int64s) -> Bools:
    """Which of the series, ascending and of len(times) samples each, have exactly these times."""
    same: Bools = (matrix(samples.times, samples.offsets[series], len(times)) == times).all(axis=1)
    return same


def matrix(column: npt.NDArray[Number], starts: Int64s, length: int) -> npt.NDArray[Number]:
    """The entries start, …, start + length - 1 for each start, [starts, length]; a view where they adjoin.

    starts: ascending, at least `length` apart.
    """
    if starts[-1] - starts[0] == (len(starts) - 1) * length:
        return column[starts[0] : starts[-1] + length].reshape(len(starts), length)
    (stride,) = column.strides
    runs = as_strided(column, (len(column) - length + 1, length), (stride, stride), writeable=False)
    return runs[starts]


def _fingerprints(samples: Samples, rows: Int64s) -> npt.NDArray[np.uint64]:
    starts = samples.offsets[rows]
    lengths = samples.offsets[rows + 1] - starts
    key = lengths.astype(np.uint64)
    for probe in range(_PROBES):
        key ^= samples.times[starts + (lengths - 1) * probe // (_PROBES - 1)].view(np.uint64)
        key *= _MIX
        key ^= key >> np.uint64(32)
    return key

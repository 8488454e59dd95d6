"""Which series have identical time vectors, as all that one scrape returns do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streamgauge.model.arrays import Bools, Int64s
from streamgauge.model.source import Samples
from streamgauge.query.promql.windows import Number

_PROBES = 8
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: spreads low bits over high ones
_CHUNK = 1 << 17


def group_by_times(samples: Samples, smallest: int) -> tuple[list[Int64s], Int64s]:
    """Find groups of at least `smallest` series that have the same time vector.

    Returns (groups, rest): the series of each group, ascending, the groups in the order of their first series; and all
    other series, ascending. Series without samples are in neither.

    Candidates agree in length and in a few times along the way, which costs little when all vectors differ; they are
    then compared in full with one of them. A series that turns out to differ joins the rest.
    """
    lengths = np.diff(samples.offsets)
    rows = np.flatnonzero(lengths)
    if len(rows) < smallest:
        return [], rows
    _, candidate, counts = np.unique(_fingerprints(samples, rows), return_inverse=True, return_counts=True)
    large = counts >= smallest
    rest = [rows[~large[candidate]]]
    order = np.argsort(candidate, kind="stable")
    ends = np.cumsum(counts)
    groups = []
    for end, count in zip(ends[large].tolist(), counts[large].tolist(), strict=True):
        members = rows[order[end - count : end]]
        same = _same_as_first(samples, members, int(lengths[members[0]]))
        groups.append(members[same])
        rest.append(members[~same])
    groups.sort(key=lambda members: int(members[0]))
    return groups, np.sort(np.concatenate(rest))


def matrix(column: npt.NDArray[Number], starts: Int64s, length: int) -> npt.NDArray[Number]:
    """The entries start, …, start + length - 1 for each start, [starts, length]; a view where they adjoin.

    starts: ascending, at least `length` apart.
    """
    if starts[-1] - starts[0] == (len(starts) - 1) * length:
        return column[starts[0] : starts[-1] + length].reshape(len(starts), length)
    return column.take(starts[:, None] + np.arange(length))


def _fingerprints(samples: Samples, rows: Int64s) -> npt.NDArray[np.uint64]:
    starts = samples.offsets[rows]
    lengths = samples.offsets[rows + 1] - starts
    key = lengths.astype(np.uint64)
    for probe in range(_PROBES):
        key ^= samples.times[starts + (lengths - 1) * probe // (_PROBES - 1)].view(np.uint64)
        key *= _MIX
        key ^= key >> np.uint64(32)
    return key


def _same_as_first(samples: Samples, members: Int64s, length: int) -> Bools:
    """Whether each member's times are those of the first. They all have `length` times, unless fingerprints collide."""
    starts = samples.offsets[members]
    expected = samples.times[starts[0] : starts[0] + length]
    same: Bools = samples.offsets[members + 1] - starts == length
    compared = np.flatnonzero(same)
    count = max(1, _CHUNK // length)
    for first in range(0, len(compared), count):
        part = compared[first : first + count]
        same[part] = (matrix(samples.times, starts[part], length) == expected).all(axis=1)
    return same

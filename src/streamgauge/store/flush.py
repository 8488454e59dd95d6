"""What a flush writes: the oldest commits of the head as blocks, one a day, and late ones for what came out of order.

Runs where the caller likes, best in a helper process: sorting keys holds the interpreter lock.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow.compute as pc

from streamgauge.errors import StorageError
from streamgauge.model.arrays import Floats, Int64s, UInt32s
from streamgauge.store import arrow
from streamgauge.store.block_format import new_block_id
from streamgauge.store.failpoints import hit
from streamgauge.store.ports import DAY_MS, BlockMeta, Blocks, SortedRows
from streamgauge.store.ranges import take_ranges

MAX_LATE_DAYS = 8
"""Late rows over more days than this become one block over all of them: a backfill of a year would otherwise write
hundreds of small blocks at each flush. Compaction splits it."""


@dataclass(frozen=True, slots=True)
class FlushJob:
    """Rows of the head with first_commit <= commit <= last_commit.

    Rows are ordered by (series id, time), without duplicates. `keys` and `watermarks` have one entry for each distinct
    series id, in ascending order of ids; a watermark is the highest time of the series in any block, in ms.
    """

    ids: UInt32s
    times: Int64s
    values: Floats
    keys: arrow.Keys
    watermarks: Int64s
    first_commit: int
    last_commit: int


@dataclass(frozen=True, slots=True)
class _Segments:
    """Runs of rows that go to the same block and are of the same series, ordered by block, key and time."""

    starts: Int64s  # row of the job
    counts: Int64s
    series: Int64s  # index into keys
    late: Int64s  # 0 or 1
    window: Int64s  # ms, -1 for several days

    def part(self, rows: slice) -> _Segments:
        return _Segments(self.starts[rows], self.counts[rows], self.series[rows], self.late[rows], self.window[rows])


def perform_flush(job: FlushJob, blocks: Blocks) -> list[BlockMeta]:
    """Write the rows of a job. Rows above their series' watermark go to normal blocks, the others to late ones.

    Returns what was written. Raises StorageError; nothing is then left behind but what a scan will find without a
    catalog entry.
    """
    hit("flush.before_blocks")
    segments = _segments(job)
    changed = (segments.late[1:] != segments.late[:-1]) | (segments.window[1:] != segments.window[:-1])
    edges = [0, *(np.flatnonzero(changed) + 1).tolist(), len(segments.starts)]
    written: list[BlockMeta] = []
    try:
        for start, stop in pairwise(edges):
            if start == stop:
                continue
            written.append(_write_block(job, segments.part(slice(start, stop)), blocks))
            hit("flush.after_block_written")
    except BaseException:
        for meta in written:
            with suppress(StorageError):
                blocks.remove(meta.id)
        raise
    return written


def _segments(job: FlushJob) -> _Segments:
    if len(job.ids) == 0:
        none = np.empty(0, np.int64)
        return _Segments(none, none, none, none, none)
    new_series = np.diff(job.ids, prepend=job.ids[0]) != 0
    series = np.cumsum(new_series)
    late = job.times <= job.watermarks[series]
    day = job.times // DAY_MS
    edge = new_series
    edge[0] = True
    edge[1:] |= (late[1:] != late[:-1]) | (day[1:] != day[:-1])
    starts = np.flatnonzero(edge)
    counts = np.diff(starts, append=len(job.ids))
    late_days = np.unique(day[starts][late[starts]])
    window = day[starts] * DAY_MS
    if len(late_days) > MAX_LATE_DAYS:
        window[late[starts]] = -1
    rank = np.empty(len(job.keys), np.int64)
    rank[pc.sort_indices(job.keys).to_numpy()] = np.arange(len(job.keys))
    order = np.lexsort((rank[series[starts]], window, late[starts]))  # stable: a series' days stay in order of time
    return _Segments(
        starts[order], counts[order], series[starts][order], late[starts][order].astype(np.int64), window[order]
    )


def _write_block(job: FlushJob, segments: _Segments, blocks: Blocks) -> BlockMeta:
    times, values = take_ranges((job.times, job.values), segments.starts, segments.counts)
    first = np.flatnonzero(np.diff(segments.series, prepend=-1))
    series = segments.series[first]
    rows = SortedRows(
        ids=job.ids[segments.starts[first]],
        keys=job.keys.take(series),
        counts=np.add.reduceat(segments.counts, first),
        times=times,
        values=values,
    )
    window = int(segments.window[0])
    meta = BlockMeta(
        id=new_block_id(window, job.first_commit, job.last_commit),
        first_commit=job.first_commit,
        last_commit=job.last_commit,
        min_time=int(times.min()),
        max_time=int(times.max()),
        window=window,
        late=bool(segments.late[0]),
        level=0,
        series=len(series),
        samples=len(times),
        bytes=0,
    )
    return blocks.write(meta, rows)

"""What the helper process does for the store, as functions of picklable arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamgauge.errors import Corrupt
from streamgauge.model.arrays import Int64s, UInt32s
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.columns import IndexSnapshot
from streamgauge.store.compact import CompactionPlan, perform_compaction
from streamgauge.store.flush import NO_WATERMARK, FlushJob, perform_flush
from streamgauge.store.head_view import head_series, rows_of
from streamgauge.store.index_view import ViewCache
from streamgauge.store.ports import FIRST_TIME, LAST_TIME, BlockMeta
from streamgauge.store.runs import HeadSnapshot, Run


@dataclass(frozen=True, slots=True)
class FlushOrder:
    """The oldest runs of the head, and what is needed to write them as blocks. Everything it names is leased."""

    data: Path
    runs: tuple[Run, ...]
    index: IndexSnapshot
    watermarks: Int64s  # by series id: the latest time that is in a block, or NO_WATERMARK


@dataclass(frozen=True, slots=True)
class FlushResult:
    blocks: tuple[BlockMeta, ...]
    ids: UInt32s  # series in the flush
    latest: Int64s  # latest time of each of them in the flush


def run_flush(order: FlushOrder) -> FlushResult:
    """Write the blocks of a flush. They count for nothing until the catalog names them."""
    ids, times, values = rows_of(order.runs)
    ends = np.flatnonzero(np.diff(ids, append=ids[-1:] + 1))
    series = ids[ends]
    view = ViewCache().open(order.index)
    watermarks = np.full(len(series), NO_WATERMARK, np.int64)
    known = series < len(order.watermarks)
    watermarks[known] = order.watermarks[series[known]]
    job = FlushJob(
        ids=ids,
        times=times,
        values=values,
        keys=view.keys(view.rows_of(series)),
        watermarks=watermarks,
        first_commit=order.runs[0].first_commit,
        last_commit=order.runs[-1].last_commit,
    )
    written = perform_flush(job, LocalBlocks(order.data))
    return FlushResult(tuple(written), series, times[ends])


def run_compaction(data: Path, plan: CompactionPlan) -> Sequence[BlockMeta]:
    """Write the blocks of a compaction. They count for nothing until the catalog names them."""
    return perform_compaction(plan, LocalBlocks(data))


def series_with_data(data: Path, metas: Sequence[BlockMeta], head: HeadSnapshot) -> list[UInt32s]:
    """The ids of every series that some blocks or the head hold, with repetitions. Raises Corrupt."""
    blocks = LocalBlocks(data)
    found = [head_series(head, FIRST_TIME, LAST_TIME)]
    for meta in metas:
        with blocks.open(meta.id) as reader:
            found.append(reader.series_ids())
    return found


def find_damage(data: Path, metas: Sequence[BlockMeta]) -> list[tuple[BlockMeta, str]]:
    """Blocks that do not read back as they were written, with the reason."""
    blocks = LocalBlocks(data)
    damaged = []
    for meta in metas:
        try:
            with blocks.open(meta.id) as reader:
                reader.keys()
                cursor = reader.cursor()
                while len(cursor.take(1 << 20)[0]):
                    pass
        except Corrupt as error:  # also for a file that is missing
            damaged.append((meta, error.message))
    return damaged

"""What the helper process does for the store, as functions of picklable arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from streamgauge.errors import Corrupt
from streamgauge.model.arrays import UInt32s
from streamgauge.model.source import Matcher
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.clean import Cleaned, perform_clean
from streamgauge.store.columns import IndexSnapshot
from streamgauge.store.compact import CompactionPlan, perform_compaction
from streamgauge.store.downsample import ThinningPlan
from streamgauge.store.flush import FlushJob, perform_flush
from streamgauge.store.head_view import head_series, rows_of
from streamgauge.store.id_set import IdSet
from streamgauge.store.index_view import ViewCache
from streamgauge.store.patience import Patience
from streamgauge.store.ports import FIRST_TIME, LAST_TIME, BlockMeta, Tombstone, no_ids
from streamgauge.store.runs import Run
from streamgauge.store.snapshot import StoreSnapshot
from streamgauge.store.thinning import perform_thinning
from streamgauge.store.tombstones import applying, last_meant, would_lose
from streamgauge.store.watermarks import Watermarks


@dataclass(frozen=True, slots=True)
class FlushOrder:
    """The oldest runs of the head, and what is needed to write them as blocks. Everything it names is leased."""

    data: Path
    runs: tuple[Run, ...]
    index: IndexSnapshot
    watermarks: Watermarks


@dataclass(frozen=True, slots=True)
class FlushResult:
    blocks: tuple[BlockMeta, ...]
    watermarks: Watermarks  # the order's, raised by what was written


def run_flush(order: FlushOrder) -> FlushResult:
    """Write the blocks of a flush. They count for nothing until the catalog names them."""
    ids, times, values = rows_of(order.runs)
    ends = np.flatnonzero(np.diff(ids, append=ids[-1:] + 1))
    series = ids[ends]
    view = ViewCache().open(order.index)
    job = FlushJob(
        ids=ids,
        times=times,
        values=values,
        keys=view.keys(view.rows_of(series)),
        watermarks=order.watermarks.of(series),
        first_commit=order.runs[0].first_commit,
        last_commit=order.runs[-1].last_commit,
    )
    written = perform_flush(job, LocalBlocks(order.data))
    return FlushResult(tuple(written), order.watermarks.raised(series, times[ends]))


def run_plan(data: Path, plan: CompactionPlan | ThinningPlan) -> Sequence[BlockMeta]:
    """Write what takes the place of the plan's blocks. It counts for nothing until the catalog names it."""
    if isinstance(plan, ThinningPlan):
        return [perform_thinning(plan, LocalBlocks(data))]
    return perform_compaction(plan, LocalBlocks(data))


@dataclass(frozen=True, slots=True)
class DeletionOrder:
    """Samples to delete: start <= time <= end (ms), of the series that match any of the sets, and none of `spared`."""

    matcher_sets: Sequence[Sequence[Matcher]]
    start: int
    end: int
    spared: Sequence[Sequence[Matcher]] = ()


@dataclass(frozen=True, slots=True)
class Affected:
    """Series, ascending, that may have such samples in blocks, and the ids of those blocks."""

    series: UInt32s
    blocks: tuple[str, ...]


def what_is_affected(snapshot: StoreSnapshot, order: DeletionOrder) -> Affected:
    """What a deletion would take from the blocks that it has not lost already. Raises BadInput and Corrupt."""
    view, blocks = ViewCache().open(snapshot.index), LocalBlocks(snapshot.data)
    matching = np.zeros(view.rows, np.bool_)
    for matchers in order.matcher_sets:
        matching[view.match(matchers)] = True
    for matchers in order.spared:
        matching[view.match(matchers)] = False
    ids = view.ids(np.flatnonzero(matching))
    lost: list[UInt32s] = [no_ids()]
    affected: list[str] = []
    for meta in snapshot.blocks if len(ids) else ():
        end = last_meant(order.end, meta)
        if meta.min_time <= end and meta.max_time >= order.start:
            with blocks.open(meta.id) as reader:
                found = would_lose(reader, ids, order.start, end, applying(snapshot.tombstones, meta))
            if len(found):
                lost.append(found)
                affected.append(meta.id)
    return Affected(np.unique(np.concatenate(lost)), tuple(affected))


def run_clean(data: Path, meta: BlockMeta, tombstones: Sequence[Tombstone]) -> Cleaned:
    """Write a block without what was deleted. It counts for nothing until the catalog names it."""
    return perform_clean(meta, tombstones, LocalBlocks(data))


def series_without_data(snapshot: StoreSnapshot) -> UInt32s:
    """The ids, ascending, of the series in the index that neither a block nor the head holds. Raises Corrupt."""
    blocks = LocalBlocks(snapshot.data)
    view = ViewCache().open(snapshot.index)
    held = IdSet()
    held.add(head_series(snapshot.head, FIRST_TIME, LAST_TIME))
    for meta in snapshot.blocks:
        with blocks.open(meta.id) as reader:
            held.add(reader.series_ids())
    ids = view.ids(view.match([]))
    return ids[~held.contains(ids)]


def find_damage(data: Path, metas: Sequence[BlockMeta]) -> list[tuple[BlockMeta, str]]:
    """Blocks that do not read back as they were written, with the reason. A disk that fails is asked again."""
    blocks, patience = LocalBlocks(data), Patience()
    damaged = []
    for meta in metas:
        try:
            patience.read(partial(_read_all, blocks, meta.id))
        except Corrupt as error:  # also for a file that is missing
            damaged.append((meta, error.message))
    return damaged


def _read_all(blocks: LocalBlocks, block_id: str) -> None:
    with blocks.open(block_id) as reader:
        reader.keys()
        cursor = reader.cursor()
        while len(cursor.take(1 << 20)[0]):
            pass

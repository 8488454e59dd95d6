"""What the helper process does for the store: a flush and a compaction, as functions of picklable arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamgauge.model.arrays import Int64s, UInt32s
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.compact import CompactionPlan, perform_compaction
from streamgauge.store.flush import write_flush
from streamgauge.store.head_view import FlushInput, rows_of
from streamgauge.store.index_view import IndexSnapshot, ViewCache
from streamgauge.store.ports import BlockMeta


@dataclass(frozen=True, slots=True)
class FlushJob:
    """The oldest rows of the head, and what is needed to write them as blocks."""

    data: Path
    rows: FlushInput
    index: IndexSnapshot
    watermarks: Int64s  # by series id: the latest time that is in a block, or the least int64


@dataclass(frozen=True, slots=True)
class FlushResult:
    blocks: tuple[BlockMeta, ...]
    ids: UInt32s  # series in the flush
    latest: Int64s  # latest time of each of them in the flush


def run_flush(job: FlushJob) -> FlushResult:
    """Write the blocks of a flush. They count for nothing until the catalog names them."""
    raise NotImplementedError


def run_compaction(data: Path, plan: CompactionPlan) -> Sequence[BlockMeta]:
    """Write the blocks of a compaction. They count for nothing until the catalog names them."""
    return perform_compaction(plan, LocalBlocks(data))

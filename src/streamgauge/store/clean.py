"""Writing a block anew without what was deleted from it, in the memory that a compaction takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streamgauge.errors import StorageError
from streamgauge.model.arrays import Bools
from streamgauge.store.block_encodings import compacted
from streamgauge.store.block_format import successor
from streamgauge.store.block_merge import MergedSeries, merge_rows, merge_series
from streamgauge.store.block_reader import LocalBlockReader
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.failpoints import hit
from streamgauge.store.ports import BlockMeta, Rows, Tombstone
from streamgauge.store.tombstones import contains, counts_of, kept


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What came of a block. Where nothing was removed from it, it stays as it is."""

    removed: int  # samples
    written: tuple[BlockMeta, ...] = ()  # what takes its place; nothing where no sample is left


def perform_clean(meta: BlockMeta, tombstones: Sequence[Tombstone], blocks: LocalBlocks) -> Cleaned:
    """Write a block without the samples that the tombstones, which apply to it, mean; the block itself stays.

    What is written is of the same commits, as late, and of the same day, so it stands to all other blocks as the block
    did. Raises Corrupt, naming the block, and StorageError; nothing is then left behind but what a scan will find
    without a catalog entry.
    """
    hit("clean.before_write")
    with blocks.open(meta.id) as reader:
        left = samples_left(reader, tombstones)
        if left in (0, meta.samples):
            return Cleaned(meta.samples - left)
        written = _write(meta, tombstones, reader, blocks)
    try:
        hit("clean.after_write")
    except BaseException:
        with suppress(StorageError):
            blocks.remove(written.id)
        raise
    return Cleaned(meta.samples - left, (written,))


def samples_left(reader: LocalBlockReader, tombstones: Sequence[Tombstone]) -> int:
    """How many samples of a block the tombstones that apply to it do not mean. Reads its rows only where the series
    file does not tell."""
    if not any(_may_touch(reader, tombstone) for tombstone in tombstones):
        return reader.meta.samples
    series = merge_series([reader])
    return sum(int(np.count_nonzero(keep)) for _, _, keep in _rows(reader, series, tombstones))


def _may_touch(reader: LocalBlockReader, tombstone: Tombstone) -> bool:
    first, last = reader.time_bounds()
    return bool((contains(tombstone, reader.series_ids()) & (first <= tombstone.end) & (last >= tombstone.start)).any())


def _rows(
    reader: LocalBlockReader, series: MergedSeries, tombstones: Sequence[Tombstone]
) -> Iterator[tuple[slice, Rows, Bools]]:
    """All rows in order, as (which series, their rows, which of them stay)."""
    for which, rows in merge_rows([reader], series):
        yield which, rows, kept(rows.counts, rows.times, series.ids[which], tombstones)


def _write(
    meta: BlockMeta, tombstones: Sequence[Tombstone], reader: LocalBlockReader, blocks: LocalBlocks
) -> BlockMeta:
    series = merge_series([reader])
    present = np.zeros(len(series.ids), np.bool_)
    encoding = compacted(lasting=meta.level > 0)
    carried_out = [tombstone.id for tombstone in tombstones]
    output = successor([meta], meta.window, meta.late, meta.resolution, carried_out)
    with blocks.writer(output, encoding) as writer:
        for which, rows, keep in _rows(reader, series, tombstones):
            counts = counts_of(keep, rows.counts)
            some = counts > 0
            present[which] |= some
            writer.append(series.ids[which][some], counts[some], rows.times[keep], rows.values[keep])
        return writer.finish(series.keys.filter(pa.array(present)))

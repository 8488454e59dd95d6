"""Deletions that wait to be carried out: which blocks they mean, and which samples of those.

A tombstone means the blocks of its commit and before; what was written later is in blocks of later commits, and in the
head. So nothing that is written after a deletion is ever masked, at whatever times it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from streamgauge.model.arrays import Bools, Int64s, UInt32s
from streamgauge.model.source import Meter
from streamgauge.store.block_reader import LocalBlockReader
from streamgauge.store.ports import BlockMeta, Part, Tombstone
from streamgauge.store.ranges import lower_bound, ranges, starts_of

EARLIEST, LATEST = -(1 << 62), 1 << 62
"""ms. The bounds of a tombstone, so that one more or less does not overflow."""
_MASK_BYTES = 17
"""Of a sample while it is decided whether it stays: a flag, its row where it goes, and how many stay before it."""
_ROWS_AT_ONCE = 1 << 19
"""Read to find series that have a sample left."""


def series_of(tombstone: Tombstone) -> UInt32s:
    """The series ids, ascending."""
    return np.frombuffer(tombstone.series, "<u4")


def contains(tombstone: Tombstone, ids: UInt32s) -> Bools:
    """For each of the ids, in any order, whether the tombstone means the series."""
    own = series_of(tombstone)
    at = np.searchsorted(own, ids)
    at[at == len(own)] = 0
    found: Bools = own[at] == ids
    return found


def applies(tombstone: Tombstone, meta: BlockMeta) -> bool:
    """Whether, as far as the catalog tells, a block may hold samples that the tombstone means."""
    return (
        meta.last_commit <= tombstone.commit
        and meta.min_time <= last_meant(tombstone.end, meta)
        and meta.max_time >= tombstone.start
        and tombstone.id not in meta.tombstones
    )


def last_meant(end: int, meta: BlockMeta) -> int:
    """The last time, ms, of rows of a block that a deletion up to `end` means. An aggregate bears the time at which its
    stretch ends; it goes if any of that is deleted, since it cannot be told what of it the rest would be."""
    return end + max(meta.resolution - 1, 0)


def applying(tombstones: Iterable[Tombstone], meta: BlockMeta) -> list[Tombstone]:
    """Those that apply to a block, with the times of the rows of that block that they mean."""
    mine = [tombstone for tombstone in tombstones if applies(tombstone, meta)]
    if meta.resolution:
        return [replace(tombstone, end=last_meant(tombstone.end, meta)) for tombstone in mine]
    return mine


# ---- rows -----------------------------------------------------------------------------------------------------------


def kept(counts: Int64s, times: Int64s, ids: UInt32s, tombstones: Sequence[Tombstone]) -> Bools:
    """Which of a block's rows stay: counts[i] rows of series ids[i] behind each other, their times ascending. All the
    tombstones apply to the block."""
    keep = np.ones(len(times), np.bool_)
    starts = starts_of(counts)
    for tombstone in tombstones:
        which = np.flatnonzero(contains(tombstone, ids) & (counts > 0))
        first, rows = starts[which], counts[which]
        low = lower_bound(times, first, rows, tombstone.start)
        high = lower_bound(times, low, first + rows - low, tombstone.end + 1)
        keep[ranges(low, high - low)] = False
    return keep


def counts_of(keep: Bools, counts: Int64s) -> Int64s:
    """How many rows each series keeps, where counts[i] says how many it had."""
    before = np.concatenate(([0], np.cumsum(keep)))
    starts = starts_of(counts)
    left: Int64s = before[starts + counts] - before[starts]
    return left


def without(part: Part, ids: UInt32s, tombstones: Sequence[Tombstone], meter: Meter) -> Part:
    """A part, read from a block for the series `ids`, without what the tombstones that apply to the block mean. It is
    charged to the meter as the one before was, which it replaces."""
    if not tombstones or not len(part.times):
        return part
    mask = _MASK_BYTES * len(part.times)
    meter.charge(0, mask)
    keep = kept(part.counts, part.times, ids, tombstones)
    if keep.all():
        left = part
    else:
        counts = counts_of(keep, part.counts)
        meter.charge(0, part.size)
        left = Part(counts, part.times[keep], part.values[keep])
        meter.release(len(part.times) - len(left.times), 2 * part.size - left.size)
    meter.release(0, mask)
    return left


# ---- series ---------------------------------------------------------------------------------------------------------


def undeleted(reader: LocalBlockReader, tombstones: Sequence[Tombstone], start: int, end: int, meter: Meter) -> UInt32s:
    """The block's series that may have a sample with start <= time <= end, as far as their first and last times tell;
    those that the tombstones mean only if they do have one. The tombstones apply to the block."""
    ids = reader.series_ids()
    first, last = reader.time_bounds()
    low, high = _left(ids, first, last, start, end, tombstones)
    may = low <= high
    meant = np.zeros(len(ids), np.bool_)
    for tombstone in tombstones:
        meant |= contains(tombstone, ids)
    sure = (low == first) | (high == last)  # that sample is there, and in the range
    unsure = np.flatnonzero(may & meant & ~sure)
    may[unsure] = False
    return np.concatenate([ids[may], *_with_samples(reader, unsure, tombstones, start, end, meter)])


def would_lose(
    reader: LocalBlockReader, ids: UInt32s, start: int, end: int, tombstones: Sequence[Tombstone]
) -> UInt32s:
    """Those of the series `ids` (ascending) that a further deletion of start <= time <= end may take samples from,
    judged by their first and last times, where the tombstones already apply to the block."""
    own = reader.series_ids()
    low, high = _left(own, *reader.time_bounds(), start, end, tombstones)
    candidates = own[low <= high]
    at = np.searchsorted(ids, candidates)
    at[at == len(ids)] = 0
    found: UInt32s = candidates[ids[at] == candidates]
    return found


def _left(
    ids: UInt32s, first: Int64s, last: Int64s, start: int, end: int, tombstones: Sequence[Tombstone]
) -> tuple[Int64s, Int64s]:
    """For each series the range of times, both inclusive, in which it may have samples of the range that are left:
    whatever tombstones cover is cut off at either end. Empty where the first is above the second."""
    low, high = np.maximum(first, start), np.minimum(last, end)
    for tombstone in sorted(tombstones, key=lambda tombstone: tombstone.start):
        covered = contains(tombstone, ids) & (low >= tombstone.start) & (low <= tombstone.end)
        low[covered] = tombstone.end + 1
    for tombstone in sorted(tombstones, key=lambda tombstone: -tombstone.end):
        covered = contains(tombstone, ids) & (high >= tombstone.start) & (high <= tombstone.end)
        high[covered] = tombstone.start - 1
    return low, high


def undeleted_bounds(
    reader: LocalBlockReader, tombstones: Sequence[Tombstone], meter: Meter
) -> tuple[UInt32s, Int64s, Int64s]:
    """The block's series that have a sample left, and the first and last time of each. The tombstones apply to the
    block; where they may have taken the first sample or the last, the rows are read."""
    ids = reader.series_ids()
    first, last = reader.time_bounds()
    low, high = _left(ids, first, last, EARLIEST, LATEST, tombstones)
    whole = (low == first) & (high == last)
    parts = [(ids[whole], first[whole], last[whole])]
    for some, part in _parts(reader, np.flatnonzero(~whole & (low <= high)), tombstones, EARLIEST, LATEST, meter):
        filled = np.flatnonzero(part.counts)
        starts = starts_of(part.counts)[filled]
        parts.append((some[filled], part.times[starts], part.times[starts + part.counts[filled] - 1]))
    series, firsts, lasts = zip(*parts, strict=True)
    return np.concatenate(series), np.concatenate(firsts), np.concatenate(lasts)


def _with_samples(
    reader: LocalBlockReader, series: Int64s, tombstones: Sequence[Tombstone], start: int, end: int, meter: Meter
) -> Iterable[UInt32s]:
    """Those of some of the block's series that have a sample left in the range, by reading their rows."""
    for ids, part in _parts(reader, series, tombstones, start, end, meter):
        yield ids[part.counts > 0]


def _parts(
    reader: LocalBlockReader, series: Int64s, tombstones: Sequence[Tombstone], start: int, end: int, meter: Meter
) -> Iterable[tuple[UInt32s, Part]]:
    """What is left of some of the block's series in the range, a bounded number of rows at a time."""
    series = series[np.argsort(reader.series_ids()[series], kind="stable")]
    batch = np.cumsum(reader.rows[series]) // _ROWS_AT_ONCE
    for some in np.split(series, np.flatnonzero(np.diff(batch)) + 1):
        if len(some):
            ids = reader.series_ids()[some]
            part = without(reader.read(ids, start, end, meter), ids, tombstones, meter)
            yield ids, part
            meter.release(len(part.times), part.size)

"""Merging the rows of several blocks in chunks of half a million, whole columns at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.errors import Corrupt
from streamgauge.model.arrays import Int64s, UInt32s
from streamgauge.store import arrow
from streamgauge.store.block_reader import LocalBlockReader, RowCursor
from streamgauge.store.ports import Rows
from streamgauge.store.ranges import ranges, starts_of

CHUNK_ROWS = 1 << 19
"""Rows merged at a time: large enough that the cost of a chunk does not count, and some 30 MB with all copies."""


@dataclass(frozen=True, slots=True)
class MergedSeries:
    """All series of some blocks, ordered by key. `ranks[i]` says for each series of block i where it stands here."""

    ids: UInt32s
    keys: arrow.Keys
    ranks: list[Int64s]


def merge_series(readers: Sequence[LocalBlockReader]) -> MergedSeries:
    """Raises Corrupt for a block whose series are not in order. Holds each distinct key once."""
    by_size = sorted(readers, key=lambda reader: -reader.meta.series)
    ids, keys = [by_size[0].series_ids()], [by_size[0].keys()]
    for reader in by_size[1:]:
        unseen = ~np.isin(reader.series_ids(), np.concatenate(ids))
        if unseen.any():
            ids.append(reader.series_ids()[unseen])
            keys.append(reader.keys().filter(pa.array(unseen)))
    all_ids, all_keys = np.concatenate(ids), arrow.keys_of(keys)
    if len(keys) > 1:
        order = pc.sort_indices(all_keys)
        all_ids, all_keys = all_ids[order.to_numpy()], all_keys.take(order)
    by_id = np.argsort(all_ids)
    sorted_ids = all_ids[by_id]
    ranks = []
    for reader in readers:
        rank = by_id[np.searchsorted(sorted_ids, reader.series_ids())]
        if np.any(rank[1:] <= rank[:-1]):
            raise Corrupt(f"block {reader.meta.id}: its series are not in the order of their keys")
        ranks.append(rank)
    return MergedSeries(all_ids, all_keys, ranks)


def merge_rows(readers: Sequence[LocalBlockReader], series: MergedSeries) -> Iterator[tuple[slice, Rows]]:
    """All rows, in order, as (which series, their rows). A later reader's row wins over the same (series, time) of an
    earlier one's. A series of more than CHUNK_ROWS rows comes in several chunks, alone in each."""
    ends = _row_ends(readers, series)
    cursors = [reader.cursor() for reader in readers]
    start = done = 0
    while start < len(ends):
        stop = int(np.searchsorted(ends, done + CHUNK_ROWS, "right"))
        if stop <= start:
            stop = start + 1
            remaining = [
                int(reader.rows[rank == start].sum()) for reader, rank in zip(readers, series.ranks, strict=True)
            ]
            for rows in _merge_long_series(cursors, remaining):
                yield slice(start, stop), rows
        else:
            parts = [
                _take(reader, rank, cursor, start, stop)
                for reader, rank, cursor in zip(readers, series.ranks, cursors, strict=True)
            ]
            yield slice(start, stop), interleave(stop - start, parts)
        start, done = stop, int(ends[stop - 1])


def _row_ends(readers: Sequence[LocalBlockReader], series: MergedSeries) -> Int64s:
    """Rows up to the end of each series, counting those that the merge will drop."""
    totals = np.zeros(len(series.ids), np.int64)
    for reader, rank in zip(readers, series.ranks, strict=True):
        totals[rank] += reader.rows
    ends: Int64s = np.cumsum(totals)
    return ends


def _take(reader: LocalBlockReader, rank: Int64s, cursor: RowCursor, start: int, stop: int) -> tuple[Int64s, Rows]:
    """A block's rows of the merged series start <= series < stop."""
    mine = slice(int(np.searchsorted(rank, start)), int(np.searchsorted(rank, stop)))
    counts = reader.rows[mine]
    return rank[mine] - start, Rows(counts, *cursor.take(int(counts.sum())))


def _merge_long_series(cursors: Sequence[RowCursor], remaining: list[int]) -> Iterator[Rows]:
    """One series that is too long for a chunk, by stretches of time. remaining[i] rows of it are at cursor i."""
    piece = max(CHUNK_ROWS // len(cursors), 1)
    held: list[tuple[Int64s, npt.NDArray[Any]]] = [cursor.take(0) for cursor in cursors]
    while any(remaining) or any(len(times) for times, _ in held):
        for i, cursor in enumerate(cursors):
            if len(held[i][0]) == 0 and remaining[i]:
                held[i] = cursor.take(min(piece, remaining[i]))
                remaining[i] -= len(held[i][0])
        # What is held is complete up to the earliest end of a block that has more.
        limits = [held[i][0][-1] for i in range(len(cursors)) if remaining[i]]
        cuts = [int(np.searchsorted(times, min(limits), "right")) if limits else len(times) for times, _ in held]
        parts = [
            (np.zeros(min(cut, 1), np.int64), Rows(np.full(min(cut, 1), cut), times[:cut], values[:cut]))
            for cut, (times, values) in zip(cuts, held, strict=True)
        ]
        yield interleave(1, parts)
        held = [(times[cut:], values[cut:]) for cut, (times, values) in zip(cuts, held, strict=True)]


def interleave(series: int, parts: Sequence[tuple[Int64s, Rows]]) -> Rows:
    """Rows of `series` series from several places, a later place winning where times are equal.

    A part says which series it has, ascending, and their rows. Every series is in some part.
    """
    counts = np.zeros(series, np.int64)
    for which, rows in parts:
        counts[which] += rows.counts
    total = int(counts.sum())
    times, values = np.empty(total, np.int64), np.empty(total, parts[0][1].values.dtype)
    free = starts_of(counts)
    for which, rows in parts:
        to = ranges(free[which], rows.counts)
        times[to], values[to] = rows.times, rows.values
        free[which] += rows.counts
    return _in_order_of_time(Rows(counts, times, values))


def _in_order_of_time(rows: Rows) -> Rows:
    """Sort the series whose rows are not in order and drop all but the last of equal times. Blocks mostly follow each
    other in time, so that there is nothing to sort."""
    times, values = rows.times, rows.values
    starts = starts_of(rows.counts)
    wrong = times[1:] <= times[:-1]
    wrong[starts[1:] - 1] = False
    if not wrong.any():
        return rows
    ends = starts + rows.counts
    series = np.unique(np.searchsorted(ends, np.flatnonzero(wrong), "right"))
    index = ranges(starts[series], rows.counts[series])
    owner = np.repeat(np.arange(len(series)), rows.counts[series])
    order = np.lexsort((times[index], owner))  # stable: of equal times the last stays last
    times[index], values[index] = times[index][order], values[index][order]
    keep = np.ones(len(times), np.bool_)
    keep[:-1] = times[1:] != times[:-1]
    keep[ends - 1] = True
    return Rows(np.add.reduceat(keep, starts, dtype=np.int64), times[keep], values[keep])

"""The head as query workers and the flush see it: samples of chosen series from the runs of a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from streamgauge.model.arrays import Floats, Int32s, Int64s, UInt32s
from streamgauge.model.batch import SampleBatch
from streamgauge.model.source import Meter, NoMeter, Samples, empty_samples
from streamgauge.store.merge import merge
from streamgauge.store.ports import Part, no_ids, part_bytes
from streamgauge.store.ranges import lower_bound, ranges
from streamgauge.store.runs import HeadSnapshot, Run, SortedColumns, UnsortedColumns, sort
from streamgauge.store.shm import attach

_TABLE_ITEMS_PER_ID = 8
_TABLE_ITEMS = 1 << 20
"""A table over the span of the chosen ids is many times faster than searching, unless it is mostly empty."""
_ROWS_PER_RANGE = 64
"""Copying a range of rows takes about as long as taking 64 rows one by one."""


def read_head(snapshot: HeadSnapshot, ids: UInt32s, start: int, end: int, meter: Meter) -> list[Part]:
    """The samples of the series `ids` (ascending) with start <= time <= end, a part for each run that has some, in
    order of commit.

    Parts may share the memory of the head and are read-only; they stay charged to the meter all the same. Raises
    StorageError if the snapshot's lease has ended.
    """
    if not len(ids):
        return []
    chosen = Chosen(ids)
    overlapping = [run for run in snapshot.runs if run.min_time <= end and run.max_time >= start]
    parts = [_read(_open(run), chosen, *_clip(run, start, end), meter) for run in overlapping]
    return [part for part in parts if part is not None]


def head_series(snapshot: HeadSnapshot, start: int, end: int) -> UInt32s:
    """The ids, ascending, of the series that may have a sample with start <= time <= end in the head: all that have
    one in a run that overlaps the range."""
    runs = [run for run in snapshot.runs if run.min_time <= end and run.max_time >= start]
    return _union([_open(run).ids for run in runs])


def head_bounds(snapshot: HeadSnapshot) -> Iterator[tuple[UInt32s, Int64s, Int64s]]:
    """Of each run its series, each once, and the first and the last time of each."""
    for run in snapshot.runs:
        columns = _sorted(_open(run))
        yield columns.ids, columns.times[columns.starts[:-1]], columns.times[columns.starts[1:] - 1]


def columns_of(run: Run) -> SampleBatch:
    """Every row of a run, copied: in order of arrival, or, where the run is sorted, of (id, time, commit)."""
    columns = _open(run)
    if isinstance(columns, SortedColumns):
        ids = np.repeat(columns.ids, np.diff(columns.starts).astype(np.int64))
        return SampleBatch(ids, columns.times.copy(), columns.values.copy())
    return SampleBatch(columns.ids.copy(), columns.times.copy(), columns.values.copy())


def rows_of(runs: Sequence[Run]) -> tuple[UInt32s, Int64s, Floats]:
    """Every sample of some runs as (ids, times, values), strictly ascending by (id, time): of equal ones the one with
    the higher commit stands."""
    series, samples = merged(runs)
    return np.repeat(series, np.diff(samples.offsets)), samples.times, samples.values


def sorted_run(runs: Sequence[Run], make: Callable[[int, int], SortedColumns]) -> SortedColumns:
    """Every sample of some runs, of which there is one at least, in the columns that `make` gave last for a number of
    rows and of series: it is asked again where samples repeat others."""
    if len(runs) == 1 and isinstance(columns := _open(runs[0]), UnsortedColumns):
        result = sort(columns, make)
        if _has_no_repetition(result):
            return result
    series, parts = _all_parts([_sorted(_open(run)) for run in runs])
    result = make(sum(len(part.times) for part in parts), len(series))
    samples = merge(len(series), parts, NoMeter(), threads=1, into=(result.times, result.values))
    if samples.times is not result.times:
        result = make(len(samples.times), len(series))
        result.times[:], result.values[:] = samples.times, samples.values
    result.ids[:], result.starts[:] = series, samples.offsets
    return result


def merged(runs: Sequence[Run]) -> tuple[UInt32s, Samples]:
    """Every sample of some runs as (series ids, ascending, and their samples)."""
    if not runs:
        return no_ids(), empty_samples()
    columns = [_sorted(_open(run)) for run in runs]
    if len(columns) == 1 and _has_no_repetition(columns[0]):
        return columns[0].ids, Samples(columns[0].starts.astype(np.int64), columns[0].times, columns[0].values)
    series, parts = _all_parts(columns)
    return series, merge(len(series), parts, NoMeter(), threads=1)


def _all_parts(runs: Sequence[SortedColumns]) -> tuple[UInt32s, list[Part]]:
    """The series of some runs, ascending, and all that each run has of them."""
    series = runs[0].ids
    if not all(np.array_equal(run.ids, series) for run in runs[1:]):
        series = _union([run.ids for run in runs])
    chosen = Chosen(series)
    return series, [_whole(run, chosen) for run in runs]


def _whole(columns: SortedColumns, chosen: Chosen) -> Part:
    """A run all of whose series are chosen."""
    counts = np.subtract(columns.starts[1:], columns.starts[:-1], dtype=np.int64)
    if len(counts) < chosen.count:
        present, counts = counts, np.zeros(chosen.count, np.int64)
        counts[chosen.positions(columns.ids)] = present
    return Part(counts, columns.times, columns.values)


def _has_no_repetition(columns: SortedColumns) -> bool:
    """Whether no series has two samples of one time."""
    ascends = columns.times[1:] > columns.times[:-1]
    ascends[columns.starts[1:-1] - 1] = True  # from one series to the next
    return bool(ascends.all())


class Chosen:
    """Finds the position of an id among the chosen ones."""

    def __init__(self, ids: UInt32s) -> None:
        self.count = len(ids)
        self.low = int(ids[0])
        self.high = int(ids[-1])
        self._ids = ids
        self._table: Int32s | None = None
        span = self.high - self.low + 1
        if span <= _TABLE_ITEMS + _TABLE_ITEMS_PER_ID * len(ids):
            self._table = np.full(span, -1, np.int32)
            self._table[ids - np.uint32(self.low)] = np.arange(len(ids), dtype=np.int32)

    def positions(self, ids: UInt32s) -> Int32s:
        """Position of each of the ids, which lie in [low, high]; -1 for one that is not chosen."""
        if self._table is not None:
            positions: Int32s = self._table[ids - np.uint32(self.low)]
            return positions
        positions = np.searchsorted(self._ids, ids).astype(np.int32)
        positions[self._ids[positions] != ids] = -1
        return positions


def _open(run: Run) -> SortedColumns | UnsortedColumns:
    segment = attach(run.name, run.size)
    if run.series:
        return SortedColumns.of(segment, run.rows, run.series)
    return UnsortedColumns.of(segment).first(run.rows)


def _sorted(columns: SortedColumns | UnsortedColumns) -> SortedColumns:
    return columns if isinstance(columns, SortedColumns) else sort(columns)


def _clip(run: Run, start: int, end: int) -> tuple[int | None, int | None]:
    """The ends of the range that cut something off the run."""
    return start if run.min_time < start else None, end if run.max_time > end else None


def _read(
    columns: SortedColumns | UnsortedColumns, chosen: Chosen, start: int | None, end: int | None, meter: Meter
) -> Part | None:
    if isinstance(columns, UnsortedColumns):  # the newest run, of bounded size
        few = _select_unsorted(columns, chosen, start, end)
        return _read_sorted(sort(few), chosen, None, None, meter) if len(few.ids) else None
    return _read_sorted(columns, chosen, start, end, meter)


def _select_unsorted(columns: UnsortedColumns, chosen: Chosen, start: int | None, end: int | None) -> UnsortedColumns:
    """The rows in question, still in order of commit."""
    rows = np.flatnonzero((columns.ids >= chosen.low) & (columns.ids <= chosen.high))
    rows = rows[chosen.positions(columns.ids[rows]) >= 0]
    if start is not None:
        rows = rows[columns.times[rows] >= start]
    if end is not None:
        rows = rows[columns.times[rows] <= end]
    return UnsortedColumns(columns.ids[rows], columns.times[rows], columns.values[rows])


def _read_sorted(
    columns: SortedColumns, chosen: Chosen, start: int | None, end: int | None, meter: Meter
) -> Part | None:
    low = int(np.searchsorted(columns.ids, np.uint32(chosen.low)))
    high = int(np.searchsorted(columns.ids, np.uint32(chosen.high), side="right"))
    positions = chosen.positions(columns.ids[low:high])
    starts = columns.starts[low : high + 1].astype(np.int64)
    firsts, ends = starts[:-1], starts[1:]
    if positions.min(initial=0) < 0:
        hit = positions >= 0
        positions, firsts, ends = positions[hit], firsts[hit], ends[hit]
    if start is not None:
        firsts = lower_bound(columns.times, firsts, ends - firsts, start)
    if end is not None:
        ends = lower_bound(columns.times, firsts, ends - firsts, end + 1)
    total = int((ends - firsts).sum())
    if total == 0:
        return None
    meter.charge(total, part_bytes(chosen.count, total))
    counts = np.zeros(chosen.count, np.int64)
    counts[positions] = ends - firsts
    return Part(counts, *_ranges(columns, firsts, ends))


def _ranges(columns: SortedColumns, firsts: Int64s, ends: Int64s) -> tuple[Int64s, Floats]:
    """The rows of ascending ranges; a view when they are one."""
    if not len(firsts):
        return columns.times[:0], columns.values[:0]
    gaps = np.flatnonzero(firsts[1:] != ends[:-1])
    if (len(gaps) + 1) * _ROWS_PER_RANGE > (ends - firsts).sum():
        rows = ranges(firsts, ends - firsts)
        return columns.times[rows], columns.values[rows]
    bounds = zip(firsts[[0, *(gaps + 1)]].tolist(), ends[[*gaps, -1]].tolist(), strict=True)
    slices = [slice(first, end) for first, end in bounds]
    if len(slices) == 1:
        return columns.times[slices[0]], columns.values[slices[0]]
    times, values = [columns.times[rows] for rows in slices], [columns.values[rows] for rows in slices]
    return np.concatenate(times), np.concatenate(values)


def _union(ids: Sequence[UInt32s]) -> UInt32s:
    """The distinct ids, ascending. Unlike np.unique it does not hold the interpreter's lock."""
    ids = [some for some in ids if len(some)]
    if not ids:
        return no_ids()
    low, high = min(int(some.min()) for some in ids), max(int(some.max()) for some in ids)
    if high - low < _TABLE_ITEMS + _TABLE_ITEMS_PER_ID * sum(map(len, ids)):
        flags = np.zeros(high - low + 1, np.bool_)
        for some in ids:
            flags[some - np.uint32(low)] = True
        distinct: UInt32s = np.flatnonzero(flags).astype(np.uint32)
        distinct += np.uint32(low)
        return distinct
    everything = np.concatenate(ids)
    everything.sort()
    first = np.ones(len(everything), np.bool_)
    first[1:] = everything[1:] != everything[:-1]
    return everything[first]

"""Samples of the same series from several places, brought together."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.source import Meter, Samples
from streamgauge.store.ports import SAMPLE_BYTES, Part
from streamgauge.store.ranges import ranges

_ROWS_PER_THREAD = 250_000
"""With fewer, starting a thread costs about what it saves. NumPy copies without the interpreter's lock."""
_MAX_THREADS = 2
_TABLE_ROWS = 16_384
"""Rows written at a time, so that they stay in the processor's cache while it goes from part to part."""
_SERIES_PER_BLOCK = 8
"""Copying a block of series takes about as long as copying 8 short series one sample at a time."""


def merge(
    series: int,
    parts: Sequence[Part],
    meter: Meter,
    threads: int = _MAX_THREADS,
    into: tuple[Int64s, Floats] | None = None,
) -> Samples:
    """The samples of `series` series from parts in ascending priority: of equal (series, time) the later part's stands,
    and within a part the later row's.

    The answer may share the memory of a part, so it is not to be written to. The parts have been charged to the meter;
    what is allocated is charged before, and in the end only the answer is.

    into: times and values with room for all rows of the parts, which the answer has where nothing is to be put right.
    """
    held = sum(part.size for part in parts)
    parts = [part for part in parts if len(part.times)]
    totals = sum((part.counts for part in parts), np.zeros(series, np.int64))
    offsets = np.concatenate(([0], np.cumsum(totals)))
    total = int(offsets[-1])
    if into is not None:
        samples = Samples(offsets, *into)
    elif len(parts) == 1:
        samples = Samples(offsets, parts[0].times, parts[0].values)
        parts = []
    else:
        meter.charge(0, total * SAMPLE_BYTES)
        held += total * SAMPLE_BYTES
        samples = Samples(offsets, np.empty(total, np.int64), np.empty(total, np.float64))
    shards = _shards(offsets, max(1, min(threads, os.cpu_count() or 1, total // _ROWS_PER_THREAD)))
    if len(shards) == 1:
        disordered = _fill(samples, parts, *shards[0])
    else:
        with ThreadPoolExecutor(len(shards)) as pool:
            disordered = np.concatenate(list(pool.map(lambda shard: _fill(samples, parts, *shard), shards)))
    if len(disordered):
        meter.charge(0, total * SAMPLE_BYTES)
        held += total * SAMPLE_BYTES
        samples = _repair(samples, disordered)
    meter.release(total - len(samples.times), held - len(samples.times) * SAMPLE_BYTES)
    return samples


def _shards(offsets: Int64s, count: int) -> list[tuple[int, int]]:
    """Ranges of series with about equally many samples each."""
    cuts = np.searchsorted(offsets, offsets[-1] * np.arange(1, count) // count).tolist()
    bounds = [0, *cuts, len(offsets) - 1]
    return list(itertools.pairwise(bounds))


def _fill(samples: Samples, parts: Sequence[Part], low: int, high: int) -> Int64s:
    """Put the samples of the series [low, high) in place, part behind part; returns those series whose times then do
    not ascend."""
    blocks = _blocks_of_all(parts, low, high) if parts else None
    if blocks is not None:
        _interleave(samples, parts, blocks)
        return _disordered(samples, low, high)
    position = samples.offsets[low:high].copy()
    for part in parts:
        counts = part.counts[low:high]
        start = int(part.counts[:low].sum())
        end = start + int(counts.sum())
        if end > start:
            _place(samples, position, counts, part.times[start:end], part.values[start:end])
            position += counts
    return _disordered(samples, low, high)


def _blocks_of_all(parts: Sequence[Part], low: int, high: int) -> list[int] | None:
    """Where blocks of the series [low, high) begin, and where the last one ends, such that in no part a series has
    another count than the next of its block; None when they are too small to be worth it."""
    new_block = np.zeros(max(0, high - low - 1), np.bool_)
    for part in parts:
        counts = part.counts[low:high]
        new_block |= counts[1:] != counts[:-1]
    if (np.count_nonzero(new_block) + 1) * len(parts) * _SERIES_PER_BLOCK > high - low:
        return None
    return [low, *(np.flatnonzero(new_block) + low + 1).tolist(), high]


def _interleave(samples: Samples, parts: Sequence[Part], blocks: Sequence[int]) -> None:
    """Put the samples of blocks of series in place in the order of the answer, which takes half the time of going
    through it part by part. A block is a table with as many columns of each part as each series has samples in it."""
    times, values = [part.times for part in parts], [part.values for part in parts]
    columns: tuple[tuple[npt.NDArray[Any], Sequence[npt.NDArray[Any]]], ...] = (
        (samples.times, times),
        (samples.values, values),
    )
    at = [int(part.counts[: blocks[0]].sum()) for part in parts]
    row = int(samples.offsets[blocks[0]])
    for first, end in itertools.pairwise(blocks):
        widths = [int(part.counts[first]) for part in parts]
        width = sum(widths)
        height = max(1, _TABLE_ROWS // max(1, width))
        for start in range(first, end, height) if width else ():
            lines = min(height, end - start)
            table = slice(row, row + lines * width)
            pieces = [slice(begin, begin + lines * each) for begin, each in zip(at, widths, strict=True)]
            for target, sources in columns:
                side_by_side = [source[piece].reshape(lines, -1) for source, piece in zip(sources, pieces, strict=True)]
                np.concatenate(side_by_side, axis=1, out=target[table].reshape(lines, width))
            row, at = table.stop, [piece.stop for piece in pieces]


def _place(samples: Samples, position: Int64s, counts: Int64s, times: Int64s, values: Floats) -> None:
    """Copy the next counts[i] rows to position[i] on, for each i in turn.

    Scraped series have equally many samples: neighbours with equal counts and equal distances are one strided copy,
    which takes a quarter of the time of an indexed one.
    """
    if not counts.all():
        some = np.flatnonzero(counts)
        position, counts = position[some], counts[some]
    distance = np.diff(position, append=position[-1])
    distance[-1] = distance[-2:][0]
    new_block = (counts[1:] != counts[:-1]) | (distance[1:] != distance[:-1])
    blocks = np.concatenate(([0], np.flatnonzero(new_block) + 1, [len(counts)]))
    if len(blocks) * _SERIES_PER_BLOCK > len(counts):
        rows = ranges(position, counts)
        samples.times[rows] = times
        samples.values[rows] = values
        return
    source = 0
    for first, end in itertools.pairwise(blocks.tolist()):
        shape = (end - first, int(counts[first]))
        strides = (int(distance[first]) * 8, 8)
        size = shape[0] * shape[1]
        for target, rows_in in ((samples.times, times), (samples.values, values)):
            block = np.ndarray(shape, target.dtype, target, int(position[first]) * 8, strides)
            block[...] = rows_in[source : source + size].reshape(shape)
        source += size


def _disordered(samples: Samples, low: int, high: int) -> Int64s:
    """Which of the series [low, high) have times that do not strictly ascend."""
    offsets = samples.offsets
    first = int(offsets[low])
    times = samples.times[first : offsets[high]]
    ascends: Bools = times[1:] > times[:-1]
    starts = offsets[low + 1 : high] - first
    starts = starts[(starts > 0) & (starts < len(times))]
    ascends[starts - 1] = True  # from one series to the next
    if ascends.all():
        return np.empty(0, np.int64)
    return np.unique(np.searchsorted(offsets, np.flatnonzero(~ascends) + first, side="right") - 1)


def _repair(samples: Samples, series: Int64s) -> Samples:
    """Bring the samples of the given series into order; of equal times only the last stays."""
    offsets = samples.offsets
    rows = ranges(offsets[series], offsets[series + 1] - offsets[series])
    owner = np.repeat(np.arange(len(series)), offsets[series + 1] - offsets[series])
    order = np.lexsort((samples.times[rows], owner))  # stable: later parts stay behind earlier ones
    times, values = samples.times.copy(), samples.values.copy()
    times[rows], values[rows] = times[rows[order]], values[rows[order]]
    stays = np.ones(len(rows), np.bool_)
    stays[:-1] = (times[rows[1:]] != times[rows[:-1]]) | (owner[1:] != owner[:-1])
    if stays.all():
        return Samples(offsets, times, values)
    counts = np.diff(offsets)
    counts[series] = np.bincount(owner[stays], minlength=len(series))
    kept = np.ones(len(times), np.bool_)
    kept[rows] = stays
    return Samples(np.concatenate(([0], np.cumsum(counts))), times[kept], values[kept])

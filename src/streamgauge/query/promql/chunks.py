"""Runs a window function over all series of a selection: in chunks that fit the processor's cache, on two threads."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from streamgauge.heap import keep_freed
from streamgauge.model.arrays import Floats, Int64s
from streamgauge.model.source import Samples
from streamgauge.query.budget import Budget
from streamgauge.query.promql.steps import Grid
from streamgauge.query.promql.time_vectors import group_by_times, matrix, same_times
from streamgauge.query.promql.windows import Bounds, Windows, window_bounds

CHUNK = 1 << 16
"""Samples, and windows, in a chunk. Its arrays then stay in the second-level cache, and each vector operation is long
enough to be worth more than the call, and for the other thread to take the interpreter lock meanwhile."""

_CHUNK_IN_ORDER = 1 << 20
"""Samples in a chunk for functions that visit them in order."""

SMALLEST_GROUP = 20_000
"""Samples plus windows from which on a group of series that share a time vector is cheaper as a chunk of its own (about
40 series for an hour at 15 s)."""

PARALLEL = 300_000
"""Samples plus windows from which on a second thread pays."""

_LARGEST_KEPT = (32 << 20) - (64 << 10)
"""Bytes of a temporary array whose memory the next one is to have: the most that can be asked for."""

_TEMPORARIES = 64
"""Bytes of temporary arrays for each sample and window of a chunk, a generous estimate."""

WindowFunction = Callable[[Windows], tuple[npt.NDArray[Any], ...]]
"""Returns arrays that broadcast to [series, steps], one for each output."""

_Chunk = Callable[[], Iterator[tuple[Int64s, Windows]]]
"""Series, ascending, and their windows, to be made by the thread that evaluates them."""


def over_windows(
    function: WindowFunction,
    outputs: Sequence[npt.NDArray[Any]],
    samples: Samples,
    grid: Grid,
    range_ms: int,
    budget: Budget | None,
    in_order: bool = False,
) -> None:
    """Evaluate `function` on the windows (t - range_ms, t] of every series and write what it returns to `outputs`.

    outputs: arrays [series, grid.count]. Rows of series without samples in any window may be left as they are.
    budget: charged for temporary arrays while it runs, and asked between chunks, on either thread, whether time is up.
    in_order: the function visits the samples of windows one after the other. Many series in a chunk then serve it best,
    and one thread: two of them would pass the interpreter lock to and fro at each of many short operations.
    """
    chunk_samples = _CHUNK_IN_ORDER if in_order else CHUNK
    work = len(samples.times) + len(samples) * grid.count
    parallel = work >= PARALLEL and not in_order and (os.cpu_count() or 1) > 1
    longest = int(np.diff(samples.offsets).max(initial=0))
    temporary = max(chunk_samples, grid.count, longest) * _TEMPORARIES * (1 + parallel)
    check = _no_limit if budget is None else budget.check
    if budget is not None:
        budget.charge(0, temporary)

    def evaluate(chunk: _Chunk) -> None:
        for series, windows in chunk():
            if windows.longest:
                rows = _adjoining(series)
                for output, result in zip(outputs, function(windows), strict=True):
                    output[rows] = result
        check()

    keep_freed(_LARGEST_KEPT)
    _run(evaluate, deque(_Chunks(samples, grid, range_ms, check, chunk_samples).all()), parallel)
    if budget is not None:
        budget.release(0, temporary)


def _no_limit() -> None:
    """In place of a budget's check."""


def _run(evaluate: Callable[[_Chunk], None], chunks: deque[_Chunk], parallel: bool) -> None:
    def work() -> None:
        with np.errstate(all="ignore"):
            try:
                while (chunk := _next(chunks)) is not None:
                    evaluate(chunk)
            except BaseException:
                chunks.clear()
                raise

    if not parallel:
        return work()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(work)
        work()
        return other.result()


def _next(chunks: deque[_Chunk]) -> _Chunk | None:
    try:
        return chunks.popleft()
    except IndexError:
        return None


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Cuts the series of one evaluation into chunks."""

    samples: Samples
    grid: Grid
    range_ms: int
    check: Callable[[], None]
    chunk_samples: int

    def all(self) -> Iterator[_Chunk]:
        groups, rest = group_by_times(self.samples, self.grid.count, SMALLEST_GROUP)
        if groups:
            yield from self._cut_groups(groups)
        if len(rest):
            yield from self._cut_rest(rest)

    def _cut_groups(self, groups: list[Int64s]) -> Iterator[_Chunk]:
        vectors = _select(self.samples, np.array([members[0] for members in groups]))
        firsts, ends = window_bounds(vectors.offsets, vectors.times, self.grid, self.range_ms)
        for group, members in enumerate(groups):
            start, end = vectors.offsets[group : group + 2].tolist()
            times = vectors.times[start:end]
            bounds = Bounds.between(firsts[group] - start, ends[group] - start)
            count = max(1, min(CHUNK // self.grid.count, self.chunk_samples // len(times)))
            for begin in range(0, len(members), count):
                yield partial(self._shared, members[begin : begin + count], times, bounds)

    def _cut_rest(self, rest: Int64s) -> Iterator[_Chunk]:
        sizes = self.samples.offsets[rest + 1] - self.samples.offsets[rest]
        # A series takes up a share of its chunk, by whichever limit it is closer to.
        shares = np.cumsum(np.maximum(sizes / self.chunk_samples, self.grid.count / CHUNK))
        cuts = np.flatnonzero(np.diff(np.floor(shares))) + 1
        for begin, end in itertools.pairwise([0, *cuts.tolist(), len(rest)]):
            yield partial(self._ragged, rest[begin:end])

    def _shared(self, series: Int64s, times: Int64s, bounds: Bounds) -> Iterator[tuple[Int64s, Windows]]:
        same = same_times(self.samples, series, times)
        if not same.all():
            yield from self._ragged(series[~same])
            series = series[same]
        if len(series):
            values = matrix(self.samples.values, self.samples.offsets[series], len(times))
            yield series, self._windows(np.arange(len(series)) * len(times), values, times, bounds)

    def _ragged(self, series: Int64s) -> Iterator[tuple[Int64s, Windows]]:
        part = _select(self.samples, series)
        bounds = Bounds.between(*window_bounds(part.offsets, part.times, self.grid, self.range_ms))
        yield series, self._windows(part.offsets[:-1], part.values, part.times, bounds)

    def _windows(self, starts: Int64s, values: Floats, times: Int64s, bounds: Bounds) -> Windows:
        longest = int(bounds.count.max())
        return Windows(starts, values, times, bounds, longest, self.grid.times(), self.range_ms, self.check)


def _adjoining(rows: Int64s) -> Int64s | slice:
    """Ascending rows as a slice where they adjoin: assigning to that is a plain copy."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _select(samples: Samples, rows: Int64s) -> Samples:
    """The samples of some series, ascending; views where they adjoin."""
    starts = samples.offsets[rows]
    sizes = samples.offsets[rows + 1] - starts
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    if rows[-1] - rows[0] + 1 == len(rows):
        part = slice(starts[0], starts[0] + offsets[-1])
        return Samples(offsets, samples.times[part], samples.values[part])
    index = np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])
    return Samples(offsets, samples.times[index], samples.values[index])

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

from streamgauge.model.arrays import Floats, Int64s
from streamgauge.model.source import Samples
from streamgauge.query.budget import Budget
from streamgauge.query.promql.steps import Grid
from streamgauge.query.promql.time_vectors import group_by_times, matrix
from streamgauge.query.promql.windows import Bounds, Windows, window_bounds

CHUNK = 15_000
"""Samples, and windows, in a chunk. Its arrays then stay in the second-level cache and, at 8 bytes each, below the
128 KiB from which malloc maps fresh memory for every temporary array: 30,000 took 1.7 times as long a sample."""

SMALLEST_GROUP = 24
"""From this many series on it pays to treat those that share a time vector as a chunk of their own."""

PARALLEL = 300_000
"""Samples plus windows from which on a second thread pays."""

_TEMPORARIES = 64
"""Bytes of temporary arrays for each sample and window of a chunk, a generous estimate."""

WindowFunction = Callable[[Windows], tuple[npt.NDArray[Any], ...]]
"""Returns arrays that broadcast to [series, steps], one for each output."""

_Chunk = tuple[Int64s, Callable[[], Windows]]
"""Series, ascending, and their windows, to be made by the thread that evaluates them."""


def over_windows(
    function: WindowFunction,
    outputs: Sequence[npt.NDArray[Any]],
    samples: Samples,
    grid: Grid,
    range_ms: int,
    budget: Budget,
    chunk_samples: int = CHUNK,
) -> None:
    """Evaluate `function` on the windows (t - range_ms, t] of every series and write what it returns to `outputs`.

    outputs: arrays [series, grid.count]. Rows of series without samples in any window may be left as they are.
    chunk_samples: more of them make sense for a function that costs much for each chunk and little for each sample.
    """
    parallel = len(samples.times) + len(samples) * grid.count >= PARALLEL and (os.cpu_count() or 1) > 1
    longest = int(np.diff(samples.offsets).max(initial=0))
    temporary = max(chunk_samples, CHUNK, grid.count, longest) * _TEMPORARIES * (1 + parallel)
    budget.charge(0, temporary)

    def evaluate(chunk: _Chunk) -> None:
        series, make_windows = chunk
        windows = make_windows()
        if windows.longest:
            rows = _adjoining(series)
            for output, result in zip(outputs, function(windows), strict=True):
                output[rows] = result
        budget.check()

    _run(evaluate, deque(_Chunks(samples, grid, range_ms, budget.check, chunk_samples).all()), parallel)
    budget.release(0, temporary)


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
        groups, rest = group_by_times(self.samples, SMALLEST_GROUP)
        if groups:
            yield from self._shared(groups)
        if len(rest):
            yield from self._ragged(rest)

    def _shared(self, groups: list[Int64s]) -> Iterator[_Chunk]:
        vectors = _select(self.samples, np.array([members[0] for members in groups]))
        firsts, ends = window_bounds(vectors.offsets, vectors.times, self.grid, self.range_ms)
        for group, members in enumerate(groups):
            start, end = vectors.offsets[group : group + 2].tolist()
            times = vectors.times[start:end]
            bounds = Bounds.between(firsts[group] - start, ends[group] - start)
            count = max(1, min(CHUNK // self.grid.count, self.chunk_samples // len(times)))
            for begin in range(0, len(members), count):
                series = members[begin : begin + count]
                yield series, partial(self._shared_windows, series, times, bounds)

    def _shared_windows(self, series: Int64s, times: Int64s, bounds: Bounds) -> Windows:
        values = matrix(self.samples.values, self.samples.offsets[series], len(times))
        return self._windows(series, values, times, bounds)

    def _ragged(self, rest: Int64s) -> Iterator[_Chunk]:
        sizes = self.samples.offsets[rest + 1] - self.samples.offsets[rest]
        # A series takes up a share of its chunk, by whichever limit it is closer to.
        shares = np.cumsum(np.maximum(sizes / self.chunk_samples, self.grid.count / CHUNK))
        cuts = np.flatnonzero(np.diff(np.floor(shares))) + 1
        for begin, end in itertools.pairwise([0, *cuts.tolist(), len(rest)]):
            series = rest[begin:end]
            yield series, partial(self._ragged_windows, series)

    def _ragged_windows(self, series: Int64s) -> Windows:
        part = _select(self.samples, series)
        bounds = Bounds.between(*window_bounds(part.offsets, part.times, self.grid, self.range_ms))
        return self._windows(series, part.values, part.times, bounds)

    def _windows(self, series: Int64s, values: Floats, times: Int64s, bounds: Bounds) -> Windows:
        longest = int(bounds.count.max())
        return Windows(len(series), values, times, bounds, longest, self.grid.times(), self.range_ms, self.check)


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

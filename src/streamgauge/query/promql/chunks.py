"""Runs a window function over all series of a selection: in chunks that fit the processor's cache, on two threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from streamgauge.model.arrays import Int64s
from streamgauge.model.source import Samples
from streamgauge.query.budget import Budget
from streamgauge.query.promql.steps import Grid
from streamgauge.query.promql.time_vectors import group_by_times, matrix
from streamgauge.query.promql.windows import Windows, window_bounds

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

Rows = Int64s | slice
_Chunk = tuple[Rows, Callable[[], Windows]]


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
    groups, rest = group_by_times(samples, SMALLEST_GROUP)
    sizes = np.diff(samples.offsets)
    largest = max(chunk_samples, CHUNK, grid.count, int(sizes.max(initial=0)))
    parallel = len(samples.times) + len(samples) * grid.count >= PARALLEL and (os.cpu_count() or 1) > 1
    temporary = largest * _TEMPORARIES * (1 + parallel)
    budget.charge(0, temporary)

    def evaluate(chunk: _Chunk) -> None:
        rows, make_windows = chunk
        windows = make_windows()
        if windows.longest:
            for output, result in zip(outputs, function(windows), strict=True):
                output[rows] = result
        budget.check()

    chunks = deque(_shared_chunks(samples, groups, grid, range_ms, budget, chunk_samples))
    chunks.extend(_ragged_chunks(samples, rest, grid, range_ms, budget, chunk_samples))
    _run(evaluate, chunks, parallel)
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


def _shared_chunks(
    samples: Samples, groups: list[Int64s], grid: Grid, range_ms: int, budget: Budget, chunk_samples: int
) -> Iterator[_Chunk]:
    if not groups:
        return
    first = np.array([members[0] for members in groups])
    vectors = _select(samples, first)
    left, right = window_bounds(vectors.offsets, vectors.times, grid, range_ms)
    for group, members in enumerate(groups):
        start, end = vectors.offsets[group : group + 2].tolist()
        bounds = left[group] - start, right[group] - start
        count = max(1, min(CHUNK // grid.count, chunk_samples // (end - start)))
        for begin in range(0, len(members), count):
            rows = members[begin : begin + count]

            def windows(
                rows: Int64s = rows,
                times: Int64s = vectors.times[start:end],
                bounds: tuple[Int64s, Int64s] = bounds,
            ) -> Windows:
                values = matrix(samples.values, samples.offsets[rows], len(times))
                left, right = bounds
                return Windows(
                    len(rows), values, times, left, right, right - left, grid.times(), range_ms, budget.check
                )

            yield _compact(rows), windows


def _ragged_chunks(
    samples: Samples, rest: Int64s, grid: Grid, range_ms: int, budget: Budget, chunk_samples: int
) -> Iterator[_Chunk]:
    sizes = np.diff(samples.offsets)[rest]
    # A series is worth its share of whichever limit it is closer to.
    shares = np.cumsum(np.maximum(sizes / chunk_samples, grid.count / CHUNK))
    cuts = np.flatnonzero(np.diff(np.floor(shares))) + 1
    for rows in np.split(rest, cuts):
        if not len(rows):
            continue

        def windows(rows: Int64s = rows) -> Windows:
            part = _select(samples, rows)
            left, right = window_bounds(part.offsets, part.times, grid, range_ms)
            return Windows(
                len(rows), part.values, part.times, left, right, right - left, grid.times(), range_ms, budget.check
            )

        yield _compact(rows), windows


def _compact(rows: Int64s) -> Rows:
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

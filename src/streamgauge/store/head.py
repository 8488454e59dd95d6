"""The head: the newest samples, in shared memory, in order of commit.

Commits go to the last segment until one does not fit. A full segment is sorted by (series, time) into another in a
pool thread, and sorted ones are merged eight at a time, so that a query reads a few long runs. What a query's snapshot
names stays until its lease ends. Flushed commits are dropped from the front.
"""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from streamgauge.heap import keep_freed
from streamgauge.model.batch import SampleBatch
from streamgauge.store.head_view import sorted_run
from streamgauge.store.leases import Leases
from streamgauge.store.runs import (
    SEGMENT_ROWS,
    UNSORTED_BYTES,
    HeadSnapshot,
    Run,
    SortedColumns,
    UnsortedColumns,
    sorted_bytes,
)
from streamgauge.store.shm import Segment, SharedMemory

MAX_COMMIT_ROWS = 16_384
"""Rows of one commit: none straddles two segments, so that the end of one wastes at most an eighth of it."""
DEFAULT_ROWS = 4 << 20
"""About 80 MB."""

_MERGED_RUNS = 8
_TEMPORARY_BYTES = 4 << 20
"""Of arrays that sorting a segment uses for a moment: they are to have the same memory the next time."""
_USABLE_ROWS = SEGMENT_ROWS - MAX_COMMIT_ROWS + 1
"""Rows that surely fit an empty segment, however they are divided into commits."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FlushInput:
    """The oldest runs of the head. `names` must be leased while they are read."""

    runs: tuple[Run, ...]
    through: int  # every commit up to here is in these runs, has no samples, or was dropped before

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(run.name for run in self.runs)

    @property
    def rows(self) -> int:
        return sum(run.rows for run in self.runs)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """`future` replaces `sources`, neighbours in the head, by one sorted run."""

    sources: tuple[Run, ...]
    future: Future[Run]
    release: Callable[[], None]


class _Active:
    """The segment that is written to."""

    def __init__(self, segment: Segment, first_commit: int) -> None:
        self._columns = UnsortedColumns.of(segment)
        self._name = segment.name
        self.rows = 0
        self.first_commit = self._last_commit = first_commit
        self.min_time, self._max_time = (1 << 63) - 1, -(1 << 63)

    @property
    def run(self) -> Run:
        return Run(self._name, self.rows, 0, self.first_commit, self._last_commit, self.min_time, self._max_time)

    def append(self, commit: int, batch: SampleBatch, span: tuple[int, int]) -> None:
        columns, end = self._columns, self.rows + len(batch.series)
        rows = slice(self.rows, end)
        columns.ids[rows] = batch.series
        columns.times[rows] = batch.times
        columns.values[rows] = batch.values
        self.rows, self._last_commit = end, commit
        if span[0] < self.min_time:
            self.min_time = span[0]
        if span[1] > self._max_time:
            self._max_time = span[1]


class Head:
    """The writing side. Everything is called on the event loop's thread and returns within about a millisecond.

    memory: where the segments live. leases: what queries read. pool: sorts and merges; what it has done is taken in at
    the next call. max_rows: with more than that many rows, writers are to wait for a flush (`full`).
    """

    def __init__(self, memory: SharedMemory, leases: Leases, pool: Executor, *, max_rows: int = DEFAULT_ROWS) -> None:
        keep_freed(_TEMPORARY_BYTES)
        self._memory = memory
        self._leases = leases
        self._pool = pool
        self._max_rows = max_rows
        self._runs: list[Run] = []  # sealed, in order of commit
        self._sealed_rows = 0  # of those
        self._active: _Active | None = None
        self._spares: list[Segment] = []
        self._jobs: list[_Job] = []
        self._left_alone: set[str] = set()  # runs that could not be sorted or merged: not tried again
        self._last_commit = -1
        self._taken_through = -1  # the last commit that a flush was given

    @property
    def rows(self) -> int:
        return self._sealed_rows + (self._active.rows if self._active else 0)

    @property
    def full(self) -> bool:
        """Writers must wait until a flush has made room."""
        return self.rows >= self._max_rows

    @property
    def last_commit(self) -> int:
        return self._last_commit

    def rows_reaching_before(self, time: int) -> int:
        """How many of the oldest rows there are up to the last segment that has a sample older than `time` (ms)."""
        runs = self._all_runs()
        reach = max((number for number, run in enumerate(runs, 1) if run.min_time < time), default=0)
        return sum(run.rows for run in runs[:reach])

    def sealed_through(self) -> int:
        """The last commit such that it and all before it are in sealed segments, or have no samples."""
        return self._active.first_commit - 1 if self._active else self._last_commit

    def reserve(self, rows: int) -> None:
        """Make sure that commits of `rows` rows in all, from the next on, can be appended, unless `seal` comes between.

        Called before they are logged, since what is logged must become visible. Raises Overloaded when there is no
        shared memory left.
        """
        free = SEGMENT_ROWS - self._active.rows if self._active else 0
        if rows <= free:
            return
        surely_free = max(free - MAX_COMMIT_ROWS + 1, 0)
        needed = -(-(rows - surely_free) // _USABLE_ROWS)
        while len(self._spares) < needed:
            self._spares.append(self._memory.take(UNSORTED_BYTES))

    def append(self, commit: int, batch: SampleBatch, span: tuple[int, int] | None = None) -> None:
        """Make a commit's samples part of every later snapshot. Commits ascend and have at most MAX_COMMIT_ROWS rows.

        span: the first and the last of the batch's times, where they are known.
        Raises Overloaded when there is no shared memory left and none was reserved; nothing has changed then.
        """
        rows = len(batch.series)
        assert commit > self._last_commit, "commits ascend"
        assert rows <= MAX_COMMIT_ROWS
        if self._jobs:
            self.settle()
        if rows:
            if self._active is None or SEGMENT_ROWS - self._active.rows < rows:
                spare = self._spares.pop() if self._spares else self._memory.take(UNSORTED_BYTES)
                self.seal()
                self._active = _Active(spare, commit)
            self._active.append(commit, batch, span or batch.span())
        self._last_commit = commit

    def seal(self) -> None:
        """Close the segment that is written to, so that a flush can take it."""
        if self._active is not None:
            run = self._active.run
            self._runs.append(run)
            self._sealed_rows += run.rows
            self._submit((run,))
            self._active = None

    def seal_between(self) -> None:
        """`seal` while rows are on their way to the disk: what `reserve` promised them holds. Raises Overloaded."""
        if self._active is not None:
            self._spares.append(self._memory.take(UNSORTED_BYTES))
            self.seal()

    def seal_before(self, time: int) -> None:
        """`seal_between` if the segment that is written to has a sample older than `time` (ms)."""
        if self._active is not None and self._active.min_time < time:
            self.seal_between()

    def snapshot(self) -> HeadSnapshot:
        self.settle()
        return HeadSnapshot(tuple(self._all_runs()), self._last_commit)

    def take_oldest(self, max_rows: int) -> FlushInput | None:
        """The oldest sealed segments, whole: as many as have `max_rows` rows together, and at least one. None when
        none is sealed.

        They stay in the head until `drop`; after a flush that failed, take them again.
        """
        self.settle()
        runs: list[Run] = []
        for run in self._runs:
            if runs and sum(taken.rows for taken in runs) + run.rows > max_rows:
                break
            runs.append(run)
        if not runs:
            return None
        rest = self._runs[len(runs) :]
        through = rest[0].first_commit - 1 if rest else self.sealed_through()
        self._taken_through = max(self._taken_through, through)
        return FlushInput(tuple(runs), through)

    def drop(self, through: int) -> None:
        """Forget the commits up to `through`, as a FlushInput says: they are in blocks now."""
        dropped = [run for run in self._runs if run.last_commit <= through]
        self._runs = self._runs[len(dropped) :]
        self._sealed_rows -= sum(run.rows for run in dropped)
        assert not self._runs or self._runs[0].first_commit > through, "only whole segments can be dropped"
        for run in dropped:
            self._retire(run)

    def settle(self, *, wait: bool = False) -> None:
        """Take in what the pool has done; with `wait`, wait until nothing is left for it to do."""
        while self._jobs:
            if wait:
                concurrent.futures.wait([job.future for job in self._jobs])
            finished = [job for job in self._jobs if job.future.done()]
            if not finished:
                return
            for job in finished:
                self._jobs.remove(job)
                self._finish(job)
            self._merge_small_runs()

    def close(self) -> None:
        """Wait for the pool. The segments go with the SharedMemory."""
        concurrent.futures.wait([job.future for job in self._jobs])

    def _all_runs(self) -> Sequence[Run]:
        return [*self._runs, self._active.run] if self._active else self._runs

    def _submit(self, sources: tuple[Run, ...]) -> None:
        release = self._leases.acquire(run.name for run in sources)
        self._jobs.append(_Job(sources, self._pool.submit(_write_sorted, self._memory, sources), release))

    def _finish(self, job: _Job) -> None:
        job.release()
        if job.future.cancelled():
            return
        if error := job.future.exception():
            # They can be read as they are, if more slowly, and the next flush takes them away.
            _log.warning("cannot sort %d segments of the head: %s", len(job.sources), error, exc_info=error)
            self._left_alone |= {run.name for run in job.sources}
            return
        result = job.future.result()
        at = next((at for at, run in enumerate(self._runs) if run is job.sources[0]), None)
        # What a flush was given stays as it is: it has yet to take its lease, and drops what it was given and no more.
        if at is None or result.first_commit <= self._taken_through:
            self._memory.remove(result.name)
            return
        self._runs[at : at + len(job.sources)] = [result]
        self._sealed_rows += result.rows - sum(run.rows for run in job.sources)  # repetitions have gone
        for run in job.sources:
            self._retire(run)

    def _merge_small_runs(self) -> None:
        busy = self._left_alone.union(run.name for job in self._jobs for run in job.sources)
        neighbours: list[Run] = []
        for run in self._runs:
            small = run.series > 0 and run.rows <= SEGMENT_ROWS
            if not small or run.name in busy or run.first_commit <= self._taken_through:
                neighbours = []
                continue
            neighbours.append(run)
            if len(neighbours) == _MERGED_RUNS:
                self._submit(tuple(neighbours))
                neighbours = []

    def _retire(self, run: Run) -> None:
        self._left_alone.discard(run.name)
        self._leases.retire(run.name, lambda: self._memory.recycle(run.name))


def _write_sorted(memory: SharedMemory, runs: tuple[Run, ...]) -> Run:
    """One sorted run that holds what `runs` hold. Runs in the pool."""
    made: list[Segment] = []

    def make(rows: int, series: int) -> SortedColumns:
        made.append(memory.take(sorted_bytes(rows, series)))
        return SortedColumns.of(made[-1], rows, series)

    try:
        columns = sorted_run(runs, make)
    except BaseException:
        for segment in made:
            memory.remove(segment.name)
        raise
    for segment in made[:-1]:
        memory.remove(segment.name)
    return Run(
        made[-1].name,
        len(columns.times),
        len(columns.ids),
        runs[0].first_commit,
        runs[-1].last_commit,
        min(run.min_time for run in runs),
        max(run.max_time for run in runs),
    )

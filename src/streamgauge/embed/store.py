"""Samples of hosts, recorded without ever making the program wait, and everything that can be asked of them.

    record ─> queue of 256 ─> all that waits, as one batch ─> synced ─> query, promql, sql

The store and the engines are the server's.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from streamgauge.durations import parse_duration
from streamgauge.errors import BadInput, Overloaded, StorageError, StreamgaugeError
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.host_history import DAY_MS, DEFAULT_RANGE, HELP, METRICS, HostSample, range_of
from streamgauge.model.labels import series_key
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.dispatch import execute
from streamgauge.query.hosts.history import HostHistoryQuery, HostNamesQuery
from streamgauge.query.requests import HistoryQuery, InstantQuery, Job, RangeQuery, SqlFormat, SqlQuery, SqlValue
from streamgauge.store.snapshot import StoreSnapshot
from streamgauge.store.store import StoreSettings
from streamgauge.store.threaded import ThreadedStore

QUEUE_CALLS = 256
"""Of `record` and `record_all` that wait for the disk. A sync takes milliseconds."""
HEAD_SAMPLES = 262_144
"""In memory, 5 MB, before they are written as a block: three weeks of a host."""
MAX_HOST_BYTES = 1024

LOG = logging.getLogger(__name__)

Recorded = Sequence[tuple[str, HostSample]]
"""Hosts, and a sample of each."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A sample as it is stored: its series and values in the order of METRICS, its time in ms."""

    series: tuple[int, ...]
    time: int
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many samples are on disk, and how many were dropped by why: "queue" was full, the store was "closed", a
    "value" that is no number, a "time" that no store takes, a "host" that is no name, no room for another "series",
    "storage" that took nothing."""

    recorded: int
    dropped: Mapping[str, int]


class Store:
    """A data folder of this program alone. Used from any thread; not in children after a fork.

    retention: how long samples are kept, as 24h or 90d. limits: of each query.
    Raises FolderInUse while another program holds the folder, FormatTooNew, StorageError and BadInput.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        retention: str = "24h",
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        settings = StoreSettings(retention=parse_duration(retention), head_samples=HEAD_SAMPLES)
        self._limits = limits or Limits()
        self._clock = clock
        self._lock = threading.Lock()  # of what follows
        self._queue: deque[Recorded] = deque()
        self._dropped: Counter[str] = Counter()
        self._recorded = 0
        self._closed = False
        # The loop's own from here on:
        self._series: dict[bytes, tuple[int, ...]] = {}
        self._generation: int | None = None
        self._described = False
        self._failing = False
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: dict[str, object] = {}  # of queries; whoever has the store in use
        self._opened = ThreadedStore(Path(folder), settings, helpers=False)

    # ---- writing ----------------------------------------------------------------------------------------------------

    def record(self, host: str, sample: HostSample) -> bool:
        """Have a sample stored soon. Never waits; False when it is dropped, which is counted."""
        return self.record_all([(host, sample)])

    def record_all(self, samples: Recorded) -> bool:
        """As `record`, of several hosts at once, all of them or none."""
        samples = tuple(samples)
        with self._lock:
            if self._closed or len(self._queue) >= QUEUE_CALLS:
                self._dropped["closed" if self._closed else "queue"] += len(samples)
                return False
            self._queue.append(samples)
            if len(self._queue) == 1:
                self._opened.call_soon(self._start_writing)
            return True

    def flush(self) -> None:
        """Return when everything recorded before is on disk, or counted as dropped."""
        with self._opened.in_use():
            self._opened.run(self._write)

    def counts(self) -> Counts:
        with self._lock:
            return Counts(self._recorded, dict(self._dropped))

    def close(self) -> None:
        """Flush, and let the folder go. Raises StorageError when not all could be written into blocks; the log then
        keeps it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._opened.close(self._write)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- asking -----------------------------------------------------------------------------------------------------

    def query(self, host: str, range: str = DEFAULT_RANGE) -> list[HostSample]:
        """The first sample of each stretch of a range of RANGES, oldest first. Raises BadInput for another range."""
        chosen, now = range_of(range), round(self._clock() * 1000)
        asked = HostHistoryQuery(host, chosen.label, now - chosen.length, now, chosen.resolution)
        found = json.loads(self._answer(HistoryQuery(asked)))["samples"]
        return [HostSample(**sample) for sample in found]

    def hosts(self) -> list[str]:
        """Those that have samples of the last day."""
        now = round(self._clock() * 1000)
        names: list[str] = json.loads(self._answer(HistoryQuery(HostNamesQuery(now - DAY_MS, now))))["hosts"]
        return names

    def promql(
        self, expression: str, *, at: float | None = None, start: float | None = None, step: float = 60.0
    ) -> dict[str, Any]:
        """What PromQL finds at a time (Unix seconds; default now), or with `start` each `step` seconds from there to
        it: `resultType` and `result` as in the HTTP API of Prometheus. Raises BadInput, QueryFailed and QueryTimeout.
        """
        end = round((self._clock() if at is None else at) * 1000)
        if start is None:
            answer = self._answer(InstantQuery(expression, end))
        else:
            first, width = round(start * 1000), round(step * 1000)
            if width <= 0 or first > end:
                raise BadInput("a step is longer than 0, and a range does not end before it begins")
            answer = self._answer(RangeQuery(expression, first, end, width))
        data: dict[str, Any] = json.loads(answer)["data"]
        return data

    def sql(self, query: str, parameters: Sequence[SqlValue] = ()) -> pa.Table:
        """What one SELECT finds in the views of docs/sql.md. parameters: of $1, $2, …

        Raises BadInput, QueryFailed and QueryTimeout."""
        named = tuple((str(number), value) for number, value in enumerate(parameters, 1))
        answer = self._answer(SqlQuery(query, SqlFormat.ARROW, named))
        return pa.ipc.open_stream(io.BytesIO(answer)).read_all()

    def _answer(self, query: HistoryQuery | InstantQuery | RangeQuery | SqlQuery) -> bytes:
        """What a server would answer, made on the caller's thread, one at a time."""

        async def take() -> tuple[StoreSnapshot, Callable[[], None]]:
            return self._opened.store.snapshot()

        with self._opened.in_use():
            snapshot, release = self._opened.run(take)
            try:
                source = snapshot.open(self._kept)
                return b"".join(execute(Job(query, self._limits), source, Budget(self._limits), kept=self._kept).body)
            finally:
                self._opened.call_soon(release)

    # ---- on the loop ------------------------------------------------------------------------------------------------

    def _start_writing(self) -> None:
        task = asyncio.get_running_loop().create_task(self._write())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self) -> None:
        """Store all that waits."""
        async with self._writing:
            while batch := self._taken():
                rows = self._rows(batch)
                try:
                    await self._append(rows)
                except StreamgaugeError as error:
                    self._fail(rows, error.message)
                except Exception as error:  # of a kind that is not foreseen: the next batch is tried all the same
                    self._fail(rows, repr(error))
                else:
                    self._failing = False
                    with self._lock:
                        self._recorded += len(rows)

    def _fail(self, rows: Sequence[_Row], why: str) -> None:
        self._drop("storage", len(rows))
        if not self._failing:
            LOG.warning("samples of hosts cannot be stored: %s", why)
        self._failing = True

    def _taken(self) -> list[tuple[str, HostSample]]:
        with self._lock:
            batch = [sample for samples in self._queue for sample in samples]
            self._queue.clear()
        return batch

    def _rows(self, batch: Recorded) -> list[_Row]:
        """Those that can be stored."""
        store = self._opened.store
        if self._generation != store.generation:
            self._generation = store.generation
            self._series.clear()
        oldest, newest = store.admitted()
        rows = []
        for recorded in batch:
            try:
                host, time, values = _converted(*recorded)
            except Exception:  # the program may record anything, and its other samples do not suffer for it
                self._drop("value")
                continue
            if not oldest <= time <= newest:
                self._drop("time")
            elif (series := self._series_of(host)) is not None:
                rows.append(_Row(series, time, values))
        return rows

    def _series_of(self, host: bytes) -> tuple[int, ...] | None:
        if (known := self._series.get(host)) is not None:
            return known
        if not host or len(host) > MAX_HOST_BYTES:
            self._drop("host")
            return None
        try:
            keys = [series_key([(b"__name__", metric.encode()), (b"host", host)]) for metric in METRICS.values()]
            self._series[host] = known = tuple(self._opened.store.resolve(key) for key in keys)
        except (BadInput, Overloaded, StorageError):
            self._drop("series")
        return known

    async def _append(self, rows: Sequence[_Row]) -> None:
        series = np.array([row.series for row in rows], np.uint32).reshape(-1)
        times = np.repeat(np.array([row.time for row in rows], np.int64), len(METRICS))
        values = np.array([row.values for row in rows], np.float64).reshape(-1)
        described = () if self._described else _described()
        await self._opened.store.append(SampleBatch(series, times, values), described)
        self._described = True

    def _drop(self, why: str, count: int = 1) -> None:
        with self._lock:
            self._dropped[why] += count


def _converted(host: str, sample: HostSample) -> tuple[bytes, int, tuple[float, ...]]:
    """The host, the time (ms) and the values of METRICS. Raises what a value raises that is none."""
    values = tuple(float(getattr(sample, member)) for member in METRICS)
    return host.encode(errors="replace"), int(sample.ts) * 1000, values


def _described() -> tuple[Metadata, ...]:
    return tuple(Metadata(metric, "gauge", HELP[member]) for member, metric in METRICS.items())

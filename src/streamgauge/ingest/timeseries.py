"""Rows of time series that clients of a gRPC store send, one or a stream of them, whatever transport brings them.

A row that is acknowledged is on disk. Of a stream the valid rows are stored as they come, and its end is answered with
the first that is not: the same rows again change nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from streamgauge.clock import Clock
from streamgauge.errors import (
    BadInput,
    ForeignLabel,
    IndexFull,
    Overloaded,
    StreamgaugeError,
    TimeNotAdmitted,
)
from streamgauge.ingest.admission import Held, InFlight, count
from streamgauge.ingest.bound import Bindings, Bound
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import SampleBatch, empty_batch
from streamgauge.model.sink import Sink
from streamgauge.stats import Stats
from streamgauge.wire.findings import Findings, Reason
from streamgauge.wire.samples import BATCH_ROWS
from streamgauge.wire.series_cache import SpellingCache
from streamgauge.wire.timeseries_rows import Refusal, RowDecoder

SOURCE = "grpc"

GATHER_SECONDS = 0.1
"""From the first row that waits to the append that it is part of, unless there are enough of them, or no more."""
GATHER_BYTES = 1 << 20
"""Of rows that wait, of one stream, however few they are."""
_ROW_BYTES = 100
"""Of a row that waits, beside its message."""
_CACHE_BYTES = 128 << 20
"""Of spellings of series, those of all who are bound to labels together; 400,000 series of five labels."""
_BOUND_CACHE_BYTES = 16 << 20
_ATTEMPTS = 3

_NO_ROOM = frozenset({Reason.SERIES_LIMIT, Reason.METRIC_LIMIT, Reason.LABEL_LIMIT})
_TIMES = frozenset({Reason.TOO_OLD, Reason.TOO_NEW})


@dataclass(eq=False, slots=True)
class _Way:
    """Where rows of some senders go, and what is remembered of their series: `limit` bytes at most."""

    sink: Sink
    limit: int
    cache: SpellingCache = field(default_factory=SpellingCache)
    generation: int | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.cache.size

    def current(self) -> SpellingCache:
        """The cache, whose ids are of the sink's generation."""
        if self.generation != self.sink.generation:
            self.generation, self.cache = self.sink.generation, SpellingCache()
        if self.cache.size > self.limit // 2:
            self.cache.rotate()
        return self.cache


class TimeSeries:
    """One for a server; used on the event loop. missing_is_now: whether a row that is sent by itself may have no
    timestamp, and then has the time at which it comes."""

    def __init__(
        self,
        sink: Sink,
        stats: Stats,
        clock: Clock,
        inflight: InFlight,
        turns: Turns,
        missing_is_now: bool = False,
        gather: float = GATHER_SECONDS,
    ) -> None:
        self.stats = stats
        self.clock = clock
        self.turns = turns
        self.gather = gather
        self._inflight = inflight
        self._missing_is_now = missing_is_now
        self._everything = _Way(sink, _CACHE_BYTES)
        self._bindings = Bindings(sink, lambda own: _Way(own, _BOUND_CACHE_BYTES), _CACHE_BYTES)

    async def insert_row(self, message: bytes, bound: Bound = ()) -> None:
        """Store one row. bound: the labels that its sender's series have. Raises BadInput and its kin, Overloaded, and
        StorageError."""
        async with self.stream(bound) as rows:
            rows.now = self.clock.now_ns() if self._missing_is_now else None
            await rows.put(message)
            await rows.finish()

    @asynccontextmanager
    async def stream(self, bound: Bound = ()) -> AsyncIterator[RowStream]:
        """For the rows of one call. However it ends, what has come is stored then."""
        way = self._bindings.of(bound) if bound else self._everything
        with self._inflight.account() as held:
            rows = RowStream(self, way, held)
            storing = asyncio.create_task(rows.run())
            try:
                yield rows
            finally:
                try:
                    await rows.end(storing)
                finally:
                    if bound:
                        self._bindings.used(bound)


class RowStream:
    """What one call brings. now: ns, for rows without a time; None refuses these."""

    def __init__(self, owner: TimeSeries, way: _Way, held: Held) -> None:
        self.now: int | None = None
        self.rows = 0  # that came
        self.stored = 0
        self._owner = owner
        self._way = way
        self._held = held
        self._refused: Counter[Reason] = Counter()
        self._first: Refusal | None = None  # of those
        self._waiting: list[bytes] = []
        self._bytes = 0  # of those that wait
        self._some = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._failure: Exception | None = None

    async def put(self, message: bytes) -> None:
        """Take a row; returns when there is room for the next. Raises what storing the rows before has raised."""
        try:
            self._held.add(len(message) + _ROW_BYTES)
        except Overloaded:
            self._lose("overload", 1)
            raise
        self._waiting.append(message)
        self._bytes += len(message) + _ROW_BYTES
        self._some.set()
        if len(self._waiting) >= BATCH_ROWS or self._bytes >= GATHER_BYTES:
            await self._step()
        if self._failure is not None:
            raise self._failure

    async def finish(self) -> None:
        """All rows are there: returns when each is on disk. Raises for the first that is not, naming it."""
        await self._step()
        if self._failure is not None:
            raise self._failure
        if self._first is not None:
            raise self._told_of(self._first)

    async def run(self) -> None:
        """Store what waits, until cancelled."""
        while self._failure is None:
            await self._some.wait()
            self._some.clear()
            await self._owner.clock.sleep(self._owner.gather)
            await self._step()

    async def end(self, storing: asyncio.Task[None]) -> None:
        """Store what still waits, unless that has failed already. storing: the task that `run` is."""
        try:
            await self._step()
        finally:
            storing.cancel()
            try:
                await asyncio.gather(storing, return_exceptions=True)
            finally:  # only who is cancelled here, too, leaves something
                self._lose("cancelled", len(self._waiting))

    def told(self, error: StreamgaugeError) -> str:
        """An error as the sender of a stream is told it, who does not know what became of the other rows."""
        reasons = [f"{number} {reason.value}" for reason, number in sorted(self._refused.items())]
        refused = f", and refused: {', '.join(reasons)}" if reasons else ""
        return f"{error.message}; {self.stored} of {self.rows} rows were stored{refused}"

    async def _step(self) -> None:
        async with self._one_at_a_time:
            messages, self._waiting, size, self._bytes = self._waiting, [], self._bytes, 0
            try:
                if self._failure is not None:
                    raise self._failure
                if messages:
                    await self._store(messages, self.rows + 1)
            except asyncio.CancelledError:  # whoever comes next stores them: should they be on the disk, twice is once
                self._waiting[:0] = messages
                self._bytes += size
                raise
            except Exception as error:  # nobody may be told that these rows are stored, whatever it was
                self._failure = error
                self._lose("overload" if isinstance(error, Overloaded) else "storage", len(messages))
            self.rows += len(messages)
            self._held.add(-size)

    def _lose(self, reason: str, count: int) -> None:
        if count:
            self._owner.stats.refused.labels(SOURCE, reason).inc(count)

    async def _store(self, messages: Sequence[bytes], first: int) -> None:
        """Decode and append, from the beginning again when series ids became invalid."""
        way, stats = self._way, self._owner.stats
        stats.ingest_request_bytes.labels(SOURCE).inc(sum(map(len, messages)))
        for _ in range(_ATTEMPTS):
            cache, generation = way.current(), way.sink.generation
            findings = Findings()
            decoder = RowDecoder(cache, way.sink.resolve, way.sink.admitted(), findings)
            batch = await self._decoded(decoder.decode(messages, first, self.now))
            if way.sink.generation != generation:
                continue
            if len(batch):
                try:
                    await way.sink.append(batch)
                except StreamgaugeError:
                    if way.sink.generation != generation:
                        continue
                    raise
            self.stored += len(batch)
            self._refused.update(findings.refused)
            self._first = self._first or decoder.first
            count(stats, SOURCE, len(batch), findings)
            stats.grpc_collisions.labels(SOURCE).inc(decoder.collisions)
            return
        raise Overloaded("series were pruned while the rows were being stored", retry_after=1)

    async def _decoded(self, batches: Iterator[SampleBatch]) -> SampleBatch:
        """The last batch. Those before are pauses."""
        last = empty_batch()
        while (batch := await self._owner.turns.take(lambda: next(batches, None))) is not None:
            last = batch
        return last

    def _told_of(self, refusal: Refusal) -> StreamgaugeError:
        text = refusal.text if self.rows > 1 else refusal.text.removeprefix("row 1: ")
        if refusal.reason in _NO_ROOM:
            return IndexFull(text)
        if refusal.reason in _TIMES:
            return TimeNotAdmitted(text)
        return ForeignLabel(text) if refusal.reason is Reason.FOREIGN else BadInput(text)

"""The receiver of the InfluxDB line protocol, whatever of its APIs brings the request.

A request may be repeated as often as its sender likes: the same values again change nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from streamgauge.clock import Clock
from streamgauge.errors import Overloaded, StreamgaugeError, TooLarge
from streamgauge.ingest.admission import Held, InFlight, Limits, count
from streamgauge.ingest.bound import Bindings, Bound
from streamgauge.ingest.coded_body import pieces
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import SampleBatch, joined
from streamgauge.model.sink import Sink
from streamgauge.stats import Stats
from streamgauge.wire.findings import Findings, Reason
from streamgauge.wire.influx import CACHE_BYTES, InfluxCache, decode
from streamgauge.wire.influx_lines import Precision

SOURCE = "influx"

APPEND_ROWS = 65_536
"""Values handed to the store at once."""
_BOUND_CACHE_BYTES = 16 << 20
"""Of the spellings of one binding; all of them have together as much as everybody else."""
_ATTEMPTS = 3
_LINES = (Reason.LINE, Reason.LINE_TOO_LONG)


@dataclass(slots=True)
class Written:
    """What has become of a request. stored: values on disk."""

    stored: int = 0
    findings: Findings = field(default_factory=Findings)

    @property
    def unread(self) -> int:
        """Lines that are none, or too long."""
        return sum(self.findings.refused[reason] for reason in _LINES)

    @property
    def complaint(self) -> str:
        """What was not stored and why, as InfluxDB words it; "" where all was."""
        findings = self.findings
        if not findings.refused:
            return ""
        dropped = findings.refused.total() - self.unread
        sentences = [_sentence(*pair) for pair in zip(findings.example_reasons, findings.examples, strict=True)]
        if more := findings.refused.total() - len(findings.examples):
            sentences.append(f"and {more} more")
        text = "\n".join(sentences)
        return f"partial write: {text} dropped={dropped}" if self.stored or dropped else text


def _sentence(reason: Reason, example: str) -> str:
    return f"points beyond retention policy: {example}" if reason is Reason.TOO_OLD else example


@dataclass(eq=False, slots=True)
class _Way:
    """Where values of some senders go, and what is remembered of their series."""

    sink: Sink
    cache: InfluxCache

    @property
    def size(self) -> int:
        """Bytes."""
        return self.cache.size


class InfluxWrite:
    """Receives requests. One for a server; used on the event loop."""

    def __init__(
        self, sink: Sink, stats: Stats, clock: Clock, inflight: InFlight, turns: Turns, limits: Limits | None = None
    ) -> None:
        self._everything = _Way(sink, InfluxCache())
        self._bindings = Bindings(sink, lambda own: _Way(own, InfluxCache(_BOUND_CACHE_BYTES)), CACHE_BYTES)
        self._stats = stats
        self._clock = clock
        self._inflight = inflight
        self._turns = turns
        self._limits = limits or Limits()

    async def receive(
        self, headers: Mapping[str, str], body: AsyncIterator[bytes], precision: Precision, bound: Bound = ()
    ) -> Written:
        """Store everything that is valid in one request. It is on disk then.

        headers: by name in lower case. bound: the labels that its sender's series have. Raises BadInput, TooLarge and
        UnsupportedMedia when nothing is stored, and Overloaded or StorageError when it is not known how much is. What
        `body` raises goes through.
        """
        status = 0  # of one whose sender goes away
        written = Written()
        way = self._bindings.of(bound) if bound else self._everything
        try:
            with self._inflight.account() as held:
                data = await self._read(headers, body, held)
                started = self._clock.monotonic()
                held.add(len(data))  # what is decoded takes as much again
                written = await self._store(data, precision, way)
                self._stats.ingest_seconds.labels(SOURCE).observe(self._clock.monotonic() - started)
            status = 400 if written.findings.refused else 204
        except StreamgaugeError as error:
            status = error.status
            raise
        finally:
            if status:
                self._stats.ingest_requests.labels(SOURCE, str(status)).inc()
            if bound:
                self._bindings.used(bound)
            count(self._stats, SOURCE, written.stored, written.findings)
        return written

    async def _read(self, headers: Mapping[str, str], body: AsyncIterator[bytes], held: Held) -> bytes:
        """The body without its content coding. Raises TooLarge, Overloaded, BadInput and UnsupportedMedia."""
        limits = self._limits
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limits.body:
            raise TooLarge(f"the body has {announced} bytes; the limit is {limits.body}")
        parts: list[bytes] = []
        size = 0
        async for piece in pieces(headers, self._counted(body), limits.body, held):
            size += len(piece)
            if size > limits.content:
                raise TooLarge(f"the body has more than {limits.content} bytes, decompressed; that is the limit")
            if piece:
                held.add(len(piece))
                parts.append(piece)
            await asyncio.sleep(0)  # inflating one takes up to a millisecond
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _counted(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in body:
            size += len(chunk)
            if size > self._limits.body:
                raise TooLarge(f"the body has more than {self._limits.body} bytes, which is the limit")
            self._stats.ingest_request_bytes.labels(SOURCE).inc(len(chunk))
            yield chunk

    async def _store(self, data: bytes, precision: Precision, way: _Way) -> Written:
        """Decode a request and append what it holds, from the beginning again when series ids became invalid."""
        now = self._clock.now_ms()
        for _ in range(_ATTEMPTS):
            way.cache = way.cache.for_generation(way.sink.generation)
            written = Written()
            if await self._attempt(data, precision, now, way, written):
                return written
        raise Overloaded("series were pruned while the request was being stored", retry_after=1)

    async def _attempt(self, data: bytes, precision: Precision, now: int, way: _Way, written: Written) -> bool:
        """False when the sink pruned series on the way: ids that were resolved before may name nothing now."""
        sink, generation = way.sink, way.sink.generation
        batches = decode(data, precision, now, way.cache, sink.resolve, sink.admitted(), written.findings)
        gathered: list[SampleBatch] = []
        rows = 0
        more = True
        while more:
            batch = await self._turns.take(lambda: next(batches, None))
            if sink.generation != generation:
                return False
            if batch is not None:
                gathered.append(batch)
                rows += len(batch)
            more = batch is not None
            if rows >= APPEND_ROWS or (rows and not more):
                try:
                    await sink.append(joined(gathered))
                except Overloaded:
                    if sink.generation == generation:
                        raise
                    return False
                written.stored += rows
                gathered, rows = [], 0
        return True

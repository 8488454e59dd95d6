"""The remote-write receiver, whatever transport brings the request.

Specifications: https://prometheus.io/docs/specs/prw/remote_write_spec/ and .../remote_write_spec_2_0/
A request may be repeated as often as its sender likes: the same samples again change nothing.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from streamgauge.clock import Clock
from streamgauge.errors import (
    BadInput,
    Busy,
    Overloaded,
    StorageError,
    StreamgaugeError,
    UnsupportedMedia,
)
from streamgauge.ingest.admission import Held, InFlight, Limits, count, read_body, refusal_text
from streamgauge.ingest.bound import Bindings, Bound
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata, SampleBatch, empty_batch, joined
from streamgauge.model.sink import Sink
from streamgauge.stats import Stats, Tally
from streamgauge.wire import remote_write_v1, remote_write_v2, snappy
from streamgauge.wire.findings import Findings
from streamgauge.wire.samples import Window
from streamgauge.wire.series_cache import DEFAULT_LIMIT, SeriesCache

SOURCE = "remote_write"

_TEXT = "text/plain; charset=utf-8"
_OFF_LOOP_BYTES = 1 << 20  # bodies that decompress to more than this, 1 ms of work, do so on a thread
AT_ONCE_BYTES = 128 << 10
"""Of a request's content that is read where it arrives: about a millisecond of work."""
_APPENDS_AT_ONCE = 64  # of one request: 128,000 samples on their way to the disk
_BOUND_CACHE_BYTES = 64 << 20
"""Of the series cache of one binding; all of them have together as much as everybody else."""
_ATTEMPTS = 3
_RETRY_SECONDS = 5

Decode = Callable[[bytes, SeriesCache, Callable[[bytes], int], Window, Findings], Iterator[SampleBatch]]
"""A decoder: a pure function of the request's bytes and the cache. A compiled one fits here."""


class Protocol(enum.Enum):
    """The message of each version, as the `proto` parameter of the content type names it."""

    V1 = "prometheus.WriteRequest"
    V2 = "io.prometheus.write.v2.Request"


DECODERS: Mapping[Protocol, Decode] = {Protocol.V1: remote_write_v1.decode, Protocol.V2: remote_write_v2.decode}


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer: header names in lower case, a text body, empty with 204."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(slots=True)
class _Outcome:
    """What has become of one request so far."""

    stored: int = 0  # samples on disk
    findings: Findings = field(default_factory=Findings)
    broken: BadInput | None = None  # why the rest of the request could not be read
    failures: list[StreamgaugeError] = field(default_factory=list)  # of appends


@dataclass(eq=False, slots=True)
class _Way:
    """Where samples of some senders go, and what is remembered of their series."""

    sink: Sink
    cache: SeriesCache = field(default_factory=SeriesCache)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.cache.size


class RemoteWrite:
    """Receives requests of both versions. One for a server; used on the event loop."""

    def __init__(
        self, sink: Sink, stats: Stats, clock: Clock, inflight: InFlight, turns: Turns, limits: Limits | None = None
    ) -> None:
        self._everything = _Way(sink)
        self._bindings = Bindings(sink, lambda own: _Way(own, SeriesCache(_BOUND_CACHE_BYTES)), DEFAULT_LIMIT)
        self._stats = stats
        self._bytes = stats.ingest_request_bytes.labels(SOURCE)
        self._seconds = stats.ingest_seconds.labels(SOURCE)
        self._clock = clock
        self._inflight = inflight
        self._limits = limits or Limits()
        self._turns = turns
        self._tally = Tally(stats, SOURCE, 204)
        stats.before(lambda: stats.series_cache_bytes.set(self._everything.size + self._bindings.size))

    def begin(self, headers: Mapping[str, str], block: bytes, done: Callable[[Reply], None]) -> bool:
        """Begin to answer a POST of somebody who is not bound, and whose body is there, if it is small and needs no
        waiting. False: nothing has happened, and it is to be received as others are. done: called once, and not before
        this has returned."""
        small = len(block) <= self._limits.body
        return small and bool(self._turns.at_once(partial(self._begin, headers, block, done)))

    def _begin(self, headers: Mapping[str, str], block: bytes, done: Callable[[Reply], None]) -> bool:
        started = self._clock.monotonic()
        decode, way, outcome = DECODERS[negotiate(headers)], self._everything, _Outcome()
        data = snappy.decompress(block, min(AT_ONCE_BYTES, self._limits.content))
        cache = way.cache = way.cache.for_generation(way.sink.generation)
        batch, begun = None, False
        try:
            batch = whole(decode(data, cache, way.sink.resolve, way.sink.admitted(), outcome.findings))
            if batch is not None:
                metadata = tuple(outcome.findings.metadata.values())
                ended = partial(self._ended, outcome, len(batch.series), len(block), started, done)
                begun = way.sink.begin(batch, ended, metadata)
        finally:
            if not begun and outcome.findings.metadata:
                cache.forget_metadata()
        return begun

    def _ended(
        self,
        outcome: _Outcome,
        samples: int,
        size: int,
        started: float,
        done: Callable[[Reply], None],
        error: StreamgaugeError | None,
    ) -> None:
        if error is None:
            outcome.stored = samples
            reply = _reply(outcome)
        else:
            self._everything.cache.forget_metadata()
            reply = _error_reply(error, outcome)
        if reply.status == 204 and not outcome.findings.start_times:
            self._tally.add(size, samples, self._clock.monotonic() - started)
        else:
            self._bytes.inc(size)
            self._seconds.observe(self._clock.monotonic() - started)
            count(self._stats, SOURCE, outcome.stored, outcome.findings)
            self._stats.ingest_requests.labels(SOURCE, str(reply.status)).inc()
        done(reply)

    async def receive(self, headers: Mapping[str, str], body: AsyncIterator[bytes], bound: Bound = ()) -> Reply:
        """Answer one POST, after everything that is valid in it is on disk.

        headers: by name in lower case. bound: the labels that its sender's series have. What `body` raises goes
        through: the sender is gone then.
        """
        outcome = _Outcome()
        way = self._bindings.of(bound) if bound else self._everything
        try:
            with self._inflight.account() as held:
                protocol = negotiate(headers)
                block = await read_body(headers, body, self._limits.body, held)
                self._bytes.inc(len(block))
                started = self._clock.monotonic()
                data = await self._decompress(block, held)
                outcome = await self._store(data, DECODERS[protocol], way)
                self._seconds.observe(self._clock.monotonic() - started)
            reply = _reply(outcome)
        except StreamgaugeError as error:
            reply = _error_reply(error, outcome)
        finally:
            if bound:
                self._bindings.used(bound)
        count(self._stats, SOURCE, outcome.stored, outcome.findings)
        self._stats.ingest_requests.labels(SOURCE, str(reply.status)).inc()
        return reply

    async def _decompress(self, block: bytes, held: Held) -> bytes:
        length = snappy.decompressed_length(block)
        if length <= self._limits.content:
            held.add(length)
        if length > _OFF_LOOP_BYTES:
            return await asyncio.to_thread(snappy.decompress, block, self._limits.content)
        return snappy.decompress(block, self._limits.content)

    async def _store(self, data: bytes, decode: Decode, way: _Way) -> _Outcome:
        """Decode a request and append what it holds, from the beginning again when series ids became invalid."""
        for _ in range(_ATTEMPTS):
            generation = way.sink.generation
            cache = way.cache = way.cache.for_generation(generation)
            outcome, kept = _Outcome(), False
            try:
                valid = await self._attempt(data, decode, way.sink, cache, outcome)
                kept = not outcome.failures
            finally:
                if not kept:  # failed, or cancelled: let the metadata come again with the retry
                    cache.forget_metadata()
            if valid:
                return outcome
        raise Overloaded("series were pruned while the request was being stored", retry_after=1)

    async def _attempt(self, data: bytes, decode: Decode, sink: Sink, cache: SeriesCache, outcome: _Outcome) -> bool:
        """False when the sink pruned series on the way: ids that were resolved before may name nothing now."""
        generation, findings = sink.generation, outcome.findings
        room = asyncio.Semaphore(_APPENDS_AT_ONCE)
        valid = True

        async def append(batch: SampleBatch, metadata: tuple[Metadata, ...]) -> None:
            nonlocal valid
            try:
                valid = valid and sink.generation == generation
                if valid:
                    await sink.append(batch, metadata)
                    outcome.stored += len(batch)
            except StreamgaugeError as error:
                # While it waited for room its series may have gone, and then they have other ids by now.
                valid = valid and sink.generation == generation
                if valid:
                    outcome.failures.append(error)
            finally:
                room.release()

        batches = decode(data, cache, sink.resolve, sink.admitted(), findings)

        def step() -> SampleBatch | None:
            nonlocal valid
            valid = valid and sink.generation == generation
            return next(batches, None) if valid else None

        last: tuple[SampleBatch, tuple[Metadata, ...]] | None = None  # what was read, until more is
        async with asyncio.TaskGroup() as appends:
            while valid and not outcome.failures:
                try:
                    batch = await self._turns.take(step)
                except BadInput as error:
                    outcome.broken = error
                    batch = None
                except StreamgaugeError as error:  # no memory for a new series: that is not its sender's fault
                    outcome.failures.append(error)
                    break
                metadata = tuple(findings.metadata.values())
                findings.metadata.clear()
                if metadata or (batch is not None and len(batch)):
                    if last is not None:
                        await room.acquire()
                        appends.create_task(append(*last))
                    last = empty_batch() if batch is None else batch, metadata
                if batch is None:
                    break
            if last is not None:  # mostly all there is: a task of its own would cost as much again
                await room.acquire()
                await append(*last)
        return valid


def whole(batches: Iterator[SampleBatch]) -> SampleBatch | None:
    """What a decoder hands over, as one batch; None where there is nothing, or it wants others to have their turn.
    Raises what the decoder does."""
    found: list[SampleBatch] = []
    for batch in batches:
        if not len(batch.series):
            return None
        found.append(batch)
    return joined(found) if found else None


def negotiate(headers: Mapping[str, str]) -> Protocol:
    """The message that a request carries. Raises UnsupportedMedia, naming what is spoken.

    A missing type or encoding means 1.0 and snappy, as the first senders left them out.
    """
    kind, *parameters = (part.strip() for part in headers.get("content-type", "").split(";"))
    if kind and kind.lower() != "application/x-protobuf":
        raise UnsupportedMedia(f'content type "{kind}" is not spoken here; send application/x-protobuf')
    encoding = headers.get("content-encoding", "").strip()
    if encoding and encoding.lower() != "snappy":
        raise UnsupportedMedia(f'content encoding "{encoding}" is not spoken here; send snappy (block format)')
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "proto":
            try:
                return Protocol(value.strip().strip('"'))
            except ValueError:
                spoken = " or ".join(protocol.value for protocol in Protocol)
                raise UnsupportedMedia(f'message "{value.strip()}" is not spoken here; send {spoken}') from None
    return Protocol.V1


def _reply(outcome: _Outcome) -> Reply:
    if outcome.failures:
        raise outcome.failures[0]
    headers = _written(outcome)
    if outcome.broken is not None:
        before = f"; {outcome.stored} samples before that were stored"
        return Reply(400, headers | {"content-type": _TEXT}, f"{outcome.broken.message}{before}\n")
    if outcome.findings.refused:
        body = refusal_text(outcome.stored, outcome.findings)
        return Reply(400, headers | {"content-type": _TEXT}, body)
    return Reply(204, headers, "")


def _error_reply(error: StreamgaugeError, outcome: _Outcome) -> Reply:
    headers = _written(outcome) | {"content-type": _TEXT}
    if isinstance(error, (Busy, StorageError)):
        seconds = error.retry_after if isinstance(error, Busy) else None
        headers["retry-after"] = str(seconds or _RETRY_SECONDS)
    return Reply(error.status, headers, f"{error.message}\n")


def _written(outcome: _Outcome) -> dict[str, str]:
    """How much of what was stored. Histograms and exemplars are not, so that their senders must hear 0."""
    return {
        "x-prometheus-remote-write-samples-written": str(outcome.stored),
        "x-prometheus-remote-write-histograms-written": "0",
        "x-prometheus-remote-write-exemplars-written": "0",
    }

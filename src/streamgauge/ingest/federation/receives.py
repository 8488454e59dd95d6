"""The receiver of remote writes from clusters: those of `ingest.remote_write`, held against the rules for pushes.

A series that breaks a rule for labels refuses the whole request, as with uploads. Samples whose time is not taken, and
series without room, are left out, and the answer says so while the rest is stored: a sender that hears 400 does not
send any of it again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from streamgauge.auth.cluster_authority import ClusterIdentity
from streamgauge.clock import Clock
from streamgauge.errors import BadInput, Overloaded, StreamgaugeError, TooLarge
from streamgauge.ingest.admission import Held, InFlight, Limits, count, read_body, refusal_text
from streamgauge.ingest.federation.cluster_sink import ClusterSeries
from streamgauge.ingest.federation.layouts import LEFT_OUT
from streamgauge.ingest.federation.liveness import Liveness
from streamgauge.ingest.federation.policy import PAUSE_METRICS, Policy
from streamgauge.ingest.federation.pushes import Admission, Described, Sender
from streamgauge.ingest.federation.settings import PushSettings
from streamgauge.ingest.federation.stats import RECEIVE, PushStats
from streamgauge.ingest.federation.uploads import in_turns
from streamgauge.ingest.remote_write import AT_ONCE_BYTES, DECODERS, Protocol, negotiate, whole
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata, SampleBatch, empty_batch, joined
from streamgauge.model.sink import Sink
from streamgauge.wire import snappy
from streamgauge.wire.findings import Findings, Reason
from streamgauge.wire.series_cache import SeriesCache

CACHES_LIMIT = 256 << 20
"""Bytes of all clusters' caches of series; those used longest ago leave first."""
_CACHE_OVERHEAD = 6000  # bytes of an empty one
_CACHE_LIMIT = 64 << 20  # of one cluster
_ATTEMPTS = 3

Received = Callable[[StreamgaugeError | None, Mapping[str, str]], None]
"""Called with why a request was not stored, or None and headers for the answer."""


class _Caches:
    """A cache for each cluster, so that no spelling of one cluster's series resolves for another, and for each way in
    which labels are looked at."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.nbytes = 0
        self._caches: OrderedDict[tuple[tuple[tuple[str, str], ...], bool], tuple[SeriesCache, int]] = OrderedDict()

    def for_generation(self, generation: int) -> _Caches:
        return self if generation == self.generation else _Caches(generation)

    def of(self, sender: Sender) -> SeriesCache:
        entry = self._caches.get((sender.owner, sender.adds))
        if entry is None:
            return SeriesCache(_CACHE_LIMIT, self.generation)
        return entry[0]

    def keep(self, sender: Sender, cache: SeriesCache) -> None:
        key = (sender.owner, sender.adds)
        _, before = self._caches.pop(key, (cache, 0))
        size = cache.size + _CACHE_OVERHEAD
        self._caches[key] = (cache, size)
        self.nbytes += size - before
        while self.nbytes > CACHES_LIMIT:
            _, (_, oldest) = self._caches.popitem(last=False)
            self.nbytes -= oldest


@dataclass(slots=True)
class _Request:
    """What a request holds. batch: of samples that are to be stored."""

    batch: SampleBatch = field(default_factory=empty_batch)
    left_out: int = 0
    findings: Findings = field(default_factory=Findings)
    metadata: tuple[Metadata, ...] = ()


class Receives:
    """Receives remote writes of all clusters. One for a server; used on the event loop."""

    def __init__(
        self,
        sink: Sink,
        stats: PushStats,
        clock: Clock,
        inflight: InFlight,
        turns: Turns,
        liveness: Liveness,
        settings: PushSettings,
        described: Described,
        limits: Limits | None = None,
    ) -> None:
        """Raises ConfigError for settings that cannot be."""
        self._described = described
        limits = limits or Limits()
        self._sink = sink
        self._stats = stats
        self._bytes = stats.shared.ingest_request_bytes.labels(RECEIVE)
        self._seconds = stats.shared.ingest_seconds.labels(RECEIVE)
        self._clock = clock
        self._inflight = inflight
        self._turns = turns
        self._liveness = liveness
        self._policy = Policy(settings)
        self._admission = Admission(clock, settings, liveness, stats, RECEIVE)
        self._body_limit = _smaller(settings.limit_receive_bytes, limits.body)
        self._content_limit = _smaller(settings.limit_receive_content_bytes, limits.content)
        self._caches = _Caches(sink.generation)

    @property
    def cache_bytes(self) -> int:
        return self._caches.nbytes

    def begin(self, identity: ClusterIdentity, headers: Mapping[str, str], block: bytes, done: Received) -> bool:
        """Begin to store a remote write that is there as a whole, if it is small, needs no waiting, and breaks no rule.
        False: nothing has happened, and it is to be received as others are. done: called once, and not before this has
        returned."""
        small = len(block) <= self._body_limit
        return small and bool(self._turns.at_once(partial(self._begin, identity, headers, block, done)))

    def _begin(self, identity: ClusterIdentity, headers: Mapping[str, str], block: bytes, done: Received) -> bool:
        started = self._clock.monotonic()
        sender = self._admission.welcome(identity)
        if sender is None:
            return False
        protocol, request = negotiate(headers), _Request()
        data = snappy.decompress(block, min(AT_ONCE_BYTES, self._content_limit))
        self._caches = self._caches.for_generation(self._sink.generation)
        cache = self._caches.of(sender)
        series, batches = self._decoder(sender, protocol, data, cache, request)
        begun = False
        try:
            batch = whole(batches)
            broken = series.fault is not None or request.findings.refused[Reason.LABELS]
            if batch is not None and not broken and not request.findings.metadata:
                self._caches.keep(sender, cache)
                _take(request, [batch])
                ended = partial(self._ended, sender, protocol, request, len(block), started, done)
                begun = self._admission.begin(sender.cluster, self._sink, request.batch, ended)
        finally:
            if not begun and request.findings.metadata:
                cache.forget_metadata()
        return begun

    def _ended(
        self,
        sender: Sender,
        protocol: Protocol,
        request: _Request,
        size: int,
        started: float,
        done: Received,
        error: StreamgaugeError | None,
    ) -> None:
        if error is not None:
            done(error, {})
            return
        now = self._clock.monotonic()
        self._liveness.receive(sender.cluster, request.batch.series, request.batch.span()[1], now)
        if not (request.findings.refused or request.findings.start_times or request.left_out):
            self._stats.receives.add(size, len(request.batch.series), now - started)
            done(None, _headers(protocol, len(request.batch.series)))
            return
        self._bytes.inc(size)
        self._seconds.observe(now - started)
        try:
            headers = self._answer(protocol, request)
        except BadInput as broken:
            self._admission.fault(sender.cluster)
            self._admission.count(broken.status)
            done(broken, {})
        else:
            self._admission.count(200)
            done(None, headers)

    async def receive(
        self, identity: ClusterIdentity, headers: Mapping[str, str], body: AsyncIterator[bytes]
    ) -> Mapping[str, str]:
        """Store a remote write of the cluster; headers for the answer. It is on disk when this returns.

        headers: by name in lower case. Raises ClientErrors for what is wrong with it, RateLimited, Overloaded and
        StorageErrors. What `body` raises goes through.
        """
        with self._admission.receiving(identity, self._inflight) as (sender, held):
            return await self._receive(sender, headers, body, held)

    async def _receive(
        self, sender: Sender, headers: Mapping[str, str], body: AsyncIterator[bytes], held: Held
    ) -> Mapping[str, str]:
        protocol = negotiate(headers)
        async with self._admission.turn(sender.cluster):
            request = await self._read_and_store(sender, headers, body, held, protocol)
        return self._answer(protocol, request)

    def _answer(self, protocol: Protocol, request: _Request) -> Mapping[str, str]:
        """To a request of which what could be is stored. Raises BadInput."""
        stored = len(request.batch)
        count(self._stats.shared, RECEIVE, stored, request.findings)
        if request.left_out:
            self._stats.left_out.labels(RECEIVE).inc(request.left_out)
        if request.findings.refused:
            raise BadInput(refusal_text(stored, request.findings).rstrip("\n"))
        if request.left_out and not stored:
            raise BadInput("empty remote write request after telemeter processing: the whitelist allows none of it")
        return _headers(protocol, stored)

    async def _read_and_store(
        self, sender: Sender, headers: Mapping[str, str], body: AsyncIterator[bytes], held: Held, protocol: Protocol
    ) -> _Request:
        block = await read_body(headers, body, self._body_limit, held)
        self._bytes.inc(len(block))
        started = self._clock.monotonic()
        length = snappy.decompressed_length(block)
        if length > self._content_limit:
            raise TooLarge(f"the body decompresses to {length} bytes; the limit is {self._content_limit}")
        held.add(length)
        request = await self._store(sender, snappy.decompress(block, self._content_limit), protocol)
        self._seconds.observe(self._clock.monotonic() - started)
        return request

    async def _store(self, sender: Sender, data: bytes, protocol: Protocol) -> _Request:
        """Read a request and append it, from the beginning again when series ids became invalid."""
        for _ in range(_ATTEMPTS):
            generation = self._sink.generation
            self._caches = self._caches.for_generation(generation)
            request = await self._read(sender, data, protocol, generation)
            if request is None:
                continue
            try:
                await self._sink.append(request.batch, request.metadata)
            except Overloaded:
                if self._sink.generation == generation:
                    raise
                continue
            batch, now = request.batch, self._clock.monotonic()
            self._liveness.receive(sender.cluster, batch.series, batch.span()[1], now)
            return request
        raise Overloaded("series were pruned while the request was being stored", retry_after=1)

    async def _read(self, sender: Sender, data: bytes, protocol: Protocol, generation: int) -> _Request | None:
        """None when the sink pruned series on the way. Raises BadInput and PushRefused."""
        cache, request = self._caches.of(sender), _Request()
        series, batches = self._decoder(sender, protocol, data, cache, request)
        gathered: list[SampleBatch] = []
        while (batch := await self._turns.take(lambda: next(batches, None))) is not None:
            if self._sink.generation != generation:
                return None
            if len(batch):
                gathered.append(batch)
            if series.fault is not None:
                raise series.fault
        if request.findings.metadata:
            request.metadata = await in_turns(self._turns, self._news(request.findings.metadata.values()))
            request.findings.metadata.clear()
        if self._sink.generation != generation:  # while it waited for its last turn
            return None
        if series.fault is not None:
            raise series.fault
        if request.findings.refused[Reason.LABELS]:
            raise BadInput(refusal_text(0, request.findings).rstrip("\n"))
        self._caches.keep(sender, cache)
        _take(request, gathered)
        return request

    def _decoder(
        self, sender: Sender, protocol: Protocol, data: bytes, cache: SeriesCache, request: _Request
    ) -> tuple[ClusterSeries, Iterator[SampleBatch]]:
        known = self._liveness.of(sender.cluster) if self._policy.settings.max_series else None
        series = ClusterSeries(self._sink, self._policy, sender, known)
        oldest, newest = self._sink.admitted()
        window = (oldest, self._policy.bounds(self._clock.now_ms(), (oldest, newest)).newest)
        return series, DECODERS[protocol](data, cache, series.resolve, window, request.findings)

    def _news(self, told: Collection[Metadata]) -> Generator[None, None, tuple[Metadata, ...]]:
        """What is said of metrics of which nothing is known, and of which the whitelist allows something."""
        news: list[Metadata] = []
        describes = self._policy.whitelist.describes
        for number, one in enumerate(told, 1):
            if not self._described(one.metric) and describes(one.metric):
                news.append(one)
            if number % PAUSE_METRICS == 0:
                yield
        return tuple(news)


def _take(request: _Request, gathered: list[SampleBatch]) -> None:
    """What was gathered, without what the whitelist leaves out."""
    if not gathered:
        return
    batch = joined(gathered)
    kept = batch.series != LEFT_OUT
    if not kept.all():
        request.left_out = int(np.count_nonzero(~kept))
        batch = SampleBatch(batch.series[kept], batch.times[kept], batch.values[kept])
    request.batch = batch


def _headers(protocol: Protocol, stored: int) -> Mapping[str, str]:
    if protocol is Protocol.V1:
        return {}
    written = {"samples": stored, "histograms": 0, "exemplars": 0}
    return {f"x-prometheus-remote-write-{what}-written": str(number) for what, number in written.items()}


def _smaller(limit: int, other: int) -> int:
    """Where a limit of 0 is none."""
    return min(limit, other) if limit > 0 else other

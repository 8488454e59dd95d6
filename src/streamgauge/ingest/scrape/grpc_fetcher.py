"""Polling a data reader over gRPC: asking for its values, and reading the stream of them."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import aclosing

from streamgauge.clock import Clock
from streamgauge.errors import BadInput, BodyTooLarge, ConfigError
from streamgauge.ingest.scrape.gate import Gate
from streamgauge.ingest.scrape.job import ScrapeJob
from streamgauge.ingest.scrape.scraper import TOO_LARGE, Outcome, Scraper
from streamgauge.ingest.scrape.series import TargetSeries
from streamgauge.ingest.scrape.target import Target
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata
from streamgauge.model.sink import Sink
from streamgauge.relabel import Relabelling
from streamgauge.rpc.channel import Peer, RpcChannel, RpcFailed
from streamgauge.stats import Stats
from streamgauge.wire.scraped import Scraped
from streamgauge.wire.timeseries import EMPTY, GET_DATA
from streamgauge.wire.timeseries_scrape import PollCache, decode

SOURCE = "grpc_poll"
_ROW_BYTES = 100
"""Of a message that is held, beside its bytes."""


def grpc_scraper(
    job: ScrapeJob,
    target: Target,
    relabelling: Relabelling,
    sink: Sink,
    stats: Stats,
    clock: Clock,
    turns: Turns,
    max_body: int,
    gate: Gate,
) -> Scraper:
    """A scraper of a data reader."""
    series = TargetSeries(job, target.labels, relabelling, sink.resolve)
    fetcher = GrpcFetcher(job, target, series, stats, turns, max_body, gate)
    return Scraper(job, target, series, fetcher, sink, stats, clock, SOURCE)


class GrpcFetcher:
    """Implements scraper.Fetcher. The connection is kept from one poll to the next, as long as these succeed: after one
    that does not, it is made anew, so that a reader that is back is found at once."""

    notice = ""

    def __init__(
        self,
        job: ScrapeJob,
        target: Target,
        series: TargetSeries,
        stats: Stats,
        turns: Turns,
        max_body: int,
        gate: Gate,
    ) -> None:
        self._job = job
        self._target = target
        self._series = series
        self._stats = stats
        self._gate = gate
        self._turns = turns
        self._max_bytes = min(job.limits.body or max_body, max_body)
        scheme, _, address = target.url.partition("://")
        self._peer = Peer(address, scheme == "grpcs", job.http)
        self._channel: RpcChannel | None = None
        self._cache = PollCache()
        self._closing: set[asyncio.Task[None]] = set()

    def metadata(self) -> dict[str, Metadata]:
        return {}

    def forget(self) -> None:
        self._cache = PollCache()

    def close(self) -> None:
        if self._channel is not None:
            task = asyncio.create_task(self._channel.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            self._channel = None

    async def take(self, begun: float) -> Outcome:
        with self._turns.expecting():
            return await self._take(begun)

    async def _take(self, begun: float) -> Outcome:
        limit = self._target.timeout / 1000
        try:
            async with self._gate.passing():
                messages, size = await self._read(limit)
        except RpcFailed as error:
            if error.code == "DEADLINE_EXCEEDED":
                return self._failed("timeout", f"no whole answer within {limit:g} s, the timeout")
            return self._failed("fetch", error.message)
        except BodyTooLarge as error:
            return self._failed("fetch", error.message, TOO_LARGE)
        except ConfigError as error:
            return self._failed("fetch", error.message)
        self._stats.ingest_request_bytes.labels(SOURCE).inc(size)
        self._series.begin()
        try:
            return Outcome(await self._decoded(messages), "", size)
        except BadInput as error:
            return self._failed("content", error.message, size)

    async def _read(self, seconds: float) -> tuple[list[bytes], int]:
        """All that the reader gives now, and its bytes. Raises BodyTooLarge."""
        if self._channel is None:
            self._channel = RpcChannel(self._peer)
        messages: list[bytes] = []
        size = 0
        async with aclosing(self._channel.read(GET_DATA, EMPTY, seconds)) as answer:
            async for message in answer:
                size += len(message)
                messages.append(message)
                if size + len(messages) * _ROW_BYTES > self._max_bytes:
                    raise BodyTooLarge(f"the answer takes more than {self._max_bytes} bytes, which is the limit")
        return messages, size

    async def _decoded(self, messages: list[bytes]) -> Scraped:
        reading = decode(messages, self._cache, self._series.of, self._job.limits.samples)
        while (done := await self._turns.take(lambda: _step(reading))) is None:
            pass
        scraped, collisions = done
        self._stats.grpc_collisions.labels(SOURCE).inc(collisions)
        return scraped

    def _failed(self, reason: str, message: str, size: int = 0) -> Outcome:
        self._stats.scrape_failures.labels(reason).inc()
        self.close()
        return Outcome(None, message, size)


def _step(reading: Generator[None, None, tuple[Scraped, int]]) -> tuple[Scraped, int] | None:
    """What has been read, once that is all."""
    try:
        next(reading)
    except StopIteration as end:
        found: tuple[Scraped, int] = end.value
        return found
    return None

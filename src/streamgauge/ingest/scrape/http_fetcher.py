"""Fetching a target over HTTP, and reading the text that it gives."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import replace

from streamgauge.clock import Clock
from streamgauge.errors import (
    BadInput,
    BodyTooLarge,
    ConfigError,
    FetchFailed,
    NotAllowed,
    UnsupportedMedia,
)
from streamgauge.http.client import HttpClient
from streamgauge.ingest.scrape.job import TEXTS, ScrapeJob
from streamgauge.ingest.scrape.negotiation import Format, format_of, request_headers
from streamgauge.ingest.scrape.scraper import SOURCE, TOO_LARGE, Outcome, Scraper
from streamgauge.ingest.scrape.series import TargetSeries
from streamgauge.ingest.scrape.target import Target
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata
from streamgauge.model.sink import Sink
from streamgauge.relabel import Relabelling
from streamgauge.stats import Stats
from streamgauge.wire import openmetrics, text_scrape
from streamgauge.wire.line_words import samples_in
from streamgauge.wire.scraped import ScrapeCache, Scraped, merged_notes


def http_scraper(
    job: ScrapeJob,
    target: Target,
    relabelling: Relabelling,
    client: HttpClient,
    sink: Sink,
    stats: Stats,
    clock: Clock,
    turns: Turns,
    max_body: int,
) -> Scraper:
    """A scraper of a target over HTTP."""
    series = TargetSeries(job, target.labels, relabelling, sink.resolve)
    fetcher = HttpFetcher(job, target, series, client, stats, clock, turns, max_body)
    return Scraper(job, target, series, fetcher, sink, stats, clock)


class HttpFetcher:
    """Implements scraper.Fetcher. notice: why OpenMetrics is not asked for any more."""

    def __init__(
        self,
        job: ScrapeJob,
        target: Target,
        series: TargetSeries,
        client: HttpClient,
        stats: Stats,
        clock: Clock,
        turns: Turns,
        max_body: int,
    ) -> None:
        self.notice = ""
        self._job = job
        self._target = target
        self._series = series
        self._client = client
        self._stats = stats
        self._clock = clock
        self._turns = turns
        self._max_body = min(job.limits.body or max_body, max_body)
        self._headers = request_headers(job, target.timeout)
        self._cache = ScrapeCache()
        self._format: Format | None = None

    def metadata(self) -> dict[str, Metadata]:
        return merged_notes(self._cache.chunks)

    def forget(self) -> None:
        self._cache.clear()

    def close(self) -> None:
        self._client.close()

    async def take(self, begun: float) -> Outcome:
        with self._turns.expecting():
            return await self._take(begun)

    async def _take(self, begun: float) -> Outcome:
        limit = self._target.timeout / 1000
        try:
            async with asyncio.timeout(max(0.0, limit - (self._clock.monotonic() - begun))):
                answer = await self._client.get(self._target.url, self._headers, self._max_body)
        except TimeoutError:
            return self._failed("timeout", f"no whole answer within {limit:g} s, the scrape timeout")
        except BodyTooLarge as error:
            return self._failed("fetch", error.message, TOO_LARGE)
        except (FetchFailed, ConfigError) as error:
            return self._failed("fetch", error.message)
        self._stats.ingest_request_bytes.labels(SOURCE).inc(answer.size)
        if answer.status != 200:
            return self._failed("status", f"the answer was {answer.status} {answer.reason}".rstrip())
        try:
            kind = format_of(answer.headers.get("content-type", ""), self._job.fallback_protocol)
        except UnsupportedMedia as error:
            return self._failed("content", error.message, len(answer.body))
        if kind is not self._format:
            self._format = kind
            self._cache.clear()
        self._series.begin()
        decode = openmetrics.decode if kind is Format.OPENMETRICS else text_scrape.decode
        try:
            reading = decode(answer.body, self._cache, self._series.of, self._job.limits.samples)
            return Outcome(await _run(reading, self._turns), "", len(answer.body))
        except BadInput as error:
            if isinstance(error, NotAllowed):
                lines = await asyncio.to_thread(samples_in, answer.body)
                return self._failed("content", error.message, len(answer.body), lines)
            broken = not self._cut_off(answer.body)
            if broken and kind is Format.OPENMETRICS and self._settle_for_text(error):
                return await self._take(begun)
            return self._failed("content", error.message, len(answer.body))

    def _cut_off(self, body: bytes) -> bool:
        """Whether a target whose answers have been whole leaves out the end of one."""
        return bool(self._cache.chunks) and b"# EOF" not in body[-8:]

    def _settle_for_text(self, error: BadInput) -> bool:
        """Ask for text from now on, where the target may have it: much that calls itself OpenMetrics is none, and
        Prometheus, which is less strict, has always scraped it."""
        protocols = tuple(one for one in self._job.protocols if one in TEXTS)
        if self.notice or not protocols:
            return False
        self.notice = f"this is not valid OpenMetrics, so text was asked for instead: {error.message}"
        self._headers = request_headers(replace(self._job, protocols=protocols), self._target.timeout)
        return True

    def _failed(self, reason: str, message: str, size: int = 0, lines: int = 0) -> Outcome:
        self._stats.scrape_failures.labels(reason).inc()
        return Outcome(None, message, size, lines)


async def _run(reading: Generator[None, None, Scraped], turns: Turns) -> Scraped:
    """Let a decoder run to its end, a step in each turn."""
    while True:
        scraped = await turns.take(lambda: _step(reading))
        if scraped is not None:
            return scraped


def _step(reading: Generator[None, None, Scraped]) -> Scraped | None:
    """What has been read, once that is all."""
    try:
        next(reading)
    except StopIteration as end:
        scraped: Scraped = end.value
        return scraped
    return None

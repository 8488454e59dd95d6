"""Scrapers of real targets on loopback, into a sink that keeps everything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from streamgauge.clock import ManualClock
from streamgauge.http.client import HttpClient, Resolver
from streamgauge.http.options import TlsContexts
from streamgauge.ingest.discovery.groups import ADDRESS, Group
from streamgauge.ingest.scrape.http_fetcher import http_scraper
from streamgauge.ingest.scrape.job import ScrapeJob
from streamgauge.ingest.scrape.scraper import Scraper
from streamgauge.ingest.scrape.target import Target, targets_of
from streamgauge.ingest.turns import Turns
from streamgauge.relabel import Relabelling
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink
from streamgauge.testing.target import HttpTarget, http_target

MakeScraper = Callable[..., Scraper]


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
async def target() -> AsyncIterator[HttpTarget]:
    async with http_target() as serving:
        yield serving


@pytest.fixture
async def make(target: HttpTarget, sink: MemorySink, stats: Stats, clock: ManualClock) -> AsyncIterator[MakeScraper]:
    """A scraper of `target` under a job, which has the name j."""
    async with AsyncExitStack() as stack:
        resolver, turns = Resolver(), Turns()
        stack.callback(resolver.close)

        def scraper(job: ScrapeJob | None = None, max_body: int = 1 << 20) -> Scraper:
            job = job or ScrapeJob("j")
            group = Group("test", ({ADDRESS: target.address},), {"instance": "i"})
            (found,) = targets_of(group, job, Relabelling(job.relabel))
            assert isinstance(found, Target), found
            client = HttpClient(job.http, TlsContexts(job.http.tls), resolver)
            made = http_scraper(
                job, found, Relabelling(job.metric_relabel), client, sink, stats, clock, turns, max_body
            )
            stack.callback(made.close)
            return made

        yield scraper

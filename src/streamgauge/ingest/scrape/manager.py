"""All scrape jobs of a server: starts and stops their pools as the configuration says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence

from streamgauge.clock import Clock
from streamgauge.http.client import Resolver
from streamgauge.ingest.departed import Departed
from streamgauge.ingest.discovery.groups import Discovery
from streamgauge.ingest.gathering import GatheringSink
from streamgauge.ingest.scrape.job import ScrapeJob
from streamgauge.ingest.scrape.loop import Waking
from streamgauge.ingest.scrape.pool import ScrapeContext, ScrapePool
from streamgauge.ingest.turns import Turns
from streamgauge.model.arrays import UInt32s
from streamgauge.model.sink import Sink
from streamgauge.stats import Reading, Stats

LOG = logging.getLogger(__name__)

MakeDiscoveries = Callable[[ScrapeJob, Resolver], Sequence[Discovery]]


class ScrapeManager:
    """Runs until cancelled. Used on the event loop.

    turns: those of all that decode. seed: tells servers apart that scrape the same targets. max_body: bytes of one
    answer, inflated, whatever a job says. discoveries: makes those of a job.
    """

    def __init__(
        self,
        sink: Sink,
        stats: Stats,
        clock: Clock,
        turns: Turns,
        seed: str,
        max_body: int,
        discoveries: MakeDiscoveries,
    ) -> None:
        self.pools: dict[str, ScrapePool] = {}  # by job
        self._resolver = Resolver()
        self._departed = Departed(sink, clock, self._present)
        gathering = GatheringSink(sink, turns)
        self._context = ScrapeContext(
            gathering, stats, clock, Waking(clock), turns, self._resolver, self._departed, seed, max_body
        )
        self._discoveries = discoveries
        self._running: dict[str, asyncio.Task[None]] = {}
        self._jobs: Sequence[ScrapeJob] = ()
        self._news = asyncio.Event()

    def apply(self, jobs: Sequence[ScrapeJob]) -> None:
        """From now on scrape these. Jobs that are as they were go on undisturbed."""
        self._jobs = jobs
        self._news.set()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._departed.run())
                while True:
                    await self._news.wait()
                    self._news.clear()
                    self._change(group)
        finally:
            self._resolver.close()

    def _change(self, group: asyncio.TaskGroup) -> None:
        wanted = {job.name: job for job in self._jobs}
        for name, pool in list(self.pools.items()):
            if wanted.get(name) != pool.job:
                pool.retire()
                self._running.pop(name).cancel()
                del self.pools[name]
        for name, job in wanted.items():
            if name not in self.pools:
                pool = ScrapePool(job, self._discoveries(job, self._resolver), self._context)
                self.pools[name] = pool
                self._running[name] = group.create_task(pool.run())
        self.pools = {name: self.pools[name] for name in wanted}

    def _present(self) -> Iterator[UInt32s]:
        for pool in self.pools.values():
            for loop in pool.loops:
                yield loop.scraper.present
                yield loop.scraper.present_reports

    def readings(self) -> Iterator[Reading]:
        """Totals for /metrics."""
        names = list(self.pools)
        yield Reading(
            "streamgauge_scrape_targets",
            "gauge",
            "Targets that are scraped, by job.",
            {(name,): float(len(list(self.pools[name].loops))) for name in names},
            ("job",),
        )
        yield Reading(
            "streamgauge_scrape_targets_dropped",
            "gauge",
            "Targets that relabelling drops, by job.",
            {(name,): float(self.pools[name].dropped_count) for name in names},
            ("job",),
        )
        yield Reading(
            "streamgauge_scrape_targets_invalid",
            "gauge",
            "Targets that were discovered and cannot be scraped, by job: no address, for example.",
            {(name,): float(len(self.pools[name].failures)) for name in names},
            ("job",),
        )

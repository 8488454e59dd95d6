"""The targets of one job: from what discovery finds to the loops that scrape them."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from streamgauge.clock import Clock
from streamgauge.http.client import HttpClient, Resolver
from streamgauge.http.options import TlsContexts
from streamgauge.ingest.departed import Departed
from streamgauge.ingest.discovery.groups import Discovery, Group
from streamgauge.ingest.scrape.gate import Gate
from streamgauge.ingest.scrape.http_fetcher import http_scraper
from streamgauge.ingest.scrape.job import ScrapeJob
from streamgauge.ingest.scrape.loop import ScrapeLoop, Waking
from streamgauge.ingest.scrape.target import Dropped, Labels, Target, targets_of
from streamgauge.ingest.turns import Turns
from streamgauge.model.sink import Sink
from streamgauge.relabel import Relabelling
from streamgauge.stats import Stats

LOG = logging.getLogger(__name__)

SYNC_SECONDS = 1.0
"""Between two rounds of taking over what discovery found: a hundred files that change together are one round."""
_TURN = 64  # targets made, started or stopped before other tasks get their turn

Key = tuple[str, tuple[tuple[str, str], ...], int, int]


@dataclass(frozen=True, slots=True)
class ScrapeContext:
    """What all pools of a server share. max_body: bytes, of one answer, inflated. seed: see ScrapeLoop."""

    sink: Sink
    stats: Stats
    clock: Clock
    waking: Waking
    turns: Turns
    resolver: Resolver
    departed: Departed
    seed: str
    max_body: int


class ScrapePool:
    """Runs until cancelled; `retire` before that when the job is gone, and not the whole server."""

    def __init__(self, job: ScrapeJob, discoveries: Sequence[Discovery], context: ScrapeContext) -> None:
        self.job = job
        self.dropped: list[Labels] = []  # as discovered, those that relabelling drops
        self.dropped_count = 0
        self.failures: list[str] = []  # what was found and is no target
        self._context = context
        self._discoveries = discoveries
        self._found: dict[int, Sequence[Group]] = {}
        self._news = asyncio.Event()
        self._loops: dict[Key, tuple[ScrapeLoop, asyncio.Task[None]]] = {}
        self._relabelling = Relabelling(job.relabel)
        self._metric_relabelling = Relabelling(job.metric_relabel)
        self._contexts = TlsContexts(job.http.tls)
        self._gate = Gate(context.clock)

    @property
    def loops(self) -> Iterator[ScrapeLoop]:
        return (loop for loop, _ in self._loops.values())

    async def run(self) -> None:
        if self.job.over_grpc:  # the library takes a tenth of a second to import
            await asyncio.to_thread(importlib.import_module, "streamgauge.ingest.scrape.grpc_fetcher")
        try:
            async with asyncio.TaskGroup() as group:
                for number, discovery in enumerate(self._discoveries):
                    group.create_task(discovery.run(self._taker(number)))
                while True:
                    await self._news.wait()
                    self._news.clear()
                    await self._sync(group)
                    await self._context.clock.sleep(SYNC_SECONDS)
        finally:
            for loop in self.loops:
                loop.scraper.close()

    def retire(self) -> None:
        """The job is gone: its series are to be marked stale."""
        for loop in self.loops:
            self._depart(loop)

    def _taker(self, number: int) -> Callable[[Sequence[Group]], None]:
        def take(groups: Sequence[Group]) -> None:
            self._found[number] = groups
            self._news.set()

        return take

    async def _sync(self, group: asyncio.TaskGroup) -> None:
        """Start loops for targets that are new, and stop those of targets that are gone."""
        wanted = await self._targets()
        for number, key in enumerate([key for key in self._loops if key not in wanted]):
            loop, task = self._loops.pop(key)
            task.cancel()
            self._depart(loop)
            loop.scraper.close()
            await _pause(number)
        for number, (key, target) in enumerate(wanted.items()):
            if key not in self._loops:
                loop = self._loop(target)
                self._loops[key] = (loop, group.create_task(loop.run()))
            await _pause(number)

    async def _targets(self) -> dict[Key, Target]:
        wanted: dict[Key, Target] = {}
        dropped: list[Labels] = []
        failures: list[str] = []
        count = 0
        found = [group for groups in self._found.values() for group in groups]
        made = (one for group in found for one in targets_of(group, self.job, self._relabelling))
        for number, one in enumerate(made):
            if isinstance(one, Target):
                wanted.setdefault(one.key, one)
            elif isinstance(one, Dropped):
                count += 1
                if not self.job.keep_dropped or len(dropped) < self.job.keep_dropped:
                    dropped.append(one.discovered)
            else:
                failures.append(one.message)
            await _pause(number)
        for failure in failures[:5]:
            if failure not in self.failures:
                LOG.error("job %s: %s", self.job.name, failure)
        self.dropped, self.dropped_count, self.failures = dropped, count, failures
        return wanted

    def _loop(self, target: Target) -> ScrapeLoop:
        context = self._context
        shared = (context.sink, context.stats, context.clock, context.turns, context.max_body)
        if self.job.over_grpc:
            from streamgauge.ingest.scrape.grpc_fetcher import grpc_scraper

            scraper = grpc_scraper(self.job, target, self._metric_relabelling, *shared, self._gate)
        else:
            client = HttpClient(self.job.http, self._contexts, context.resolver)
            scraper = http_scraper(self.job, target, self._metric_relabelling, client, *shared)
        return ScrapeLoop(
            scraper, context.clock, context.waking, context.seed, self._refusal, aligned=self.job.over_grpc
        )

    def _depart(self, loop: ScrapeLoop) -> None:
        scraper = loop.scraper
        self._context.departed.add((scraper.present, scraper.present_reports), loop.next_due, loop.interval)

    def _refusal(self) -> str:
        limit = self.job.target_limit
        if limit and len(self._loops) > limit:
            return f"target_limit exceeded: the job has {len(self._loops)} targets; the limit is {limit}"
        return ""


async def _pause(number: int) -> None:
    if number % _TURN == _TURN - 1:
        await asyncio.sleep(0)

"""The discoveries of a job, of whatever kinds it has."""

from __future__ import annotations

from collections.abc import Sequence

from streamgauge.clock import Clock
from streamgauge.http.client import Resolver
from streamgauge.ingest.discovery.groups import Discovery
from streamgauge.ingest.discovery.static import StaticDiscovery
from streamgauge.ingest.scrape.job import DnsSource, FileSource, HttpSource, ScrapeJob
from streamgauge.stats import Stats


class Discoveries:
    """Makes them; each kind is imported when a job has it."""

    def __init__(self, clock: Clock, stats: Stats) -> None:
        self._clock = clock
        self._stats = stats

    def of(self, job: ScrapeJob, resolver: Resolver) -> Sequence[Discovery]:
        found: list[Discovery] = [StaticDiscovery(job.static)] if job.static else []
        return found + [self._one(source, resolver) for source in job.sources]

    def _one(self, source: FileSource | HttpSource | DnsSource, resolver: Resolver) -> Discovery:
        clock, stats = self._clock, self._stats
        match source:
            case FileSource():
                from streamgauge.ingest.discovery.file import FileDiscovery

                return FileDiscovery(source, clock, stats)
            case HttpSource():
                from streamgauge.ingest.discovery.http import HttpDiscovery

                return HttpDiscovery(source, resolver, clock, stats)
            case DnsSource():
                from streamgauge.ingest.discovery.dns import DnsDiscovery

                return DnsDiscovery(source, clock, stats)

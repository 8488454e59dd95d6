"""The discoveries of a job, of whatever kinds it has."""

from __future__ import annotations

from collections.abc import Sequence

from streamgauge.ingest.discovery.groups import Discovery
from streamgauge.ingest.discovery.static import StaticDiscovery
from streamgauge.ingest.http_client import Resolver
from streamgauge.ingest.scrape.job import ScrapeJob


def discoveries_of(job: ScrapeJob, resolver: Resolver) -> Sequence[Discovery]:
    found: list[Discovery] = []
    if job.static:
        found.append(StaticDiscovery(job.static))
    return found

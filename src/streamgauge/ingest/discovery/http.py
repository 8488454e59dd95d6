"""Targets that an HTTP server lists as JSON. Any other kind of discovery can be put behind one.

https://prometheus.io/docs/prometheus/latest/http_sd/
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

from streamgauge.clock import Clock
from streamgauge.errors import BadInput, FetchFailed
from streamgauge.http.client import HttpClient, Resolver
from streamgauge.http.options import USER_AGENT, TlsContexts
from streamgauge.http.urls import host_of, shown_url, split_url
from streamgauge.ingest.discovery.groups import Found, Group, parse_groups
from streamgauge.ingest.discovery.refresh import Parts, Refresh
from streamgauge.ingest.scrape.job import HttpSource
from streamgauge.stats import Stats

MAX_ANSWER_BYTES = 16 << 20
TIMEOUT_SECONDS = 60.0


class HttpDiscovery:
    def __init__(self, source: HttpSource, resolver: Resolver, clock: Clock, stats: Stats) -> None:
        self._url = source.url
        self._client = HttpClient(source.http, TlsContexts(source.http.tls), resolver)
        self._headers = {
            "user-agent": USER_AGENT,
            "accept": "application/json",
            "accept-encoding": "gzip",
            "x-prometheus-refresh-interval-seconds": f"{source.interval / 1000:.3f}".rstrip("0").rstrip("."),
        }
        self._refresh = Refresh(self._ask, source.interval, "http", shown_url(source.url), clock, stats)

    async def run(self, found: Found) -> None:
        try:
            await self._refresh.run(found)
        finally:
            self._client.close()

    async def _ask(self) -> Parts:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await self._client.get(self._url, self._headers, MAX_ANSWER_BYTES)
        except TimeoutError:
            raise FetchFailed(f"no whole answer within {TIMEOUT_SECONDS:g} s") from None
        if answer.status != 200:
            raise FetchFailed(f"the answer was {answer.status} {answer.reason}".rstrip())
        media = answer.headers.get("content-type", "").split(";")[0].strip().lower()
        if media != "application/json":
            raise FetchFailed(f'the answer has content type "{media[:100]}" and not application/json')
        groups = await asyncio.to_thread(_parsed, answer.body, shown_url(self._url))
        parts = split_url(self._url)
        url = parts._replace(netloc=host_of(parts)).geturl()  # labels are shown to whoever may see targets
        return Parts({"": [replace(group, labels={**group.labels, "__meta_url": url}) for group in groups]})


def _parsed(body: bytes, source: str) -> list[Group]:
    try:
        document: Any = json.loads(body.decode())
    except UnicodeDecodeError:
        raise BadInput("the answer is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the answer is not valid JSON: {error}") from None
    return parse_groups(document, source)

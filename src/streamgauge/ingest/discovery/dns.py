"""Targets that DNS names: by SRV, MX, A and AAAA records. The only module that knows the DNS library."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.resolver

from streamgauge.clock import Clock
from streamgauge.errors import FetchFailed
from streamgauge.ingest.discovery.groups import ADDRESS, Found, Group
from streamgauge.ingest.discovery.refresh import Parts, Refresh
from streamgauge.ingest.scrape.job import DnsSource
from streamgauge.stats import Stats

LOG = logging.getLogger(__name__)

META = "__meta_dns_"


class DnsDiscovery:
    """A name that does not exist has no targets; a server that does not answer leaves those of its name as they were.

    make_resolver: by default one that does as the system's configuration says.
    """

    def __init__(
        self,
        source: DnsSource,
        clock: Clock,
        stats: Stats,
        make_resolver: Callable[[], dns.asyncresolver.Resolver] = dns.asyncresolver.Resolver,
    ) -> None:
        self._source = source
        self._make_resolver = make_resolver
        self._empty: set[str] = set()  # names without records, which the log knows of
        self._refresh = Refresh(self._ask, source.interval, "dns", ", ".join(source.names), clock, stats)

    async def run(self, found: Found) -> None:
        await self._refresh.run(found)

    async def _ask(self) -> Parts:
        try:
            resolver = self._make_resolver()
        except dns.exception.DNSException as error:
            raise FetchFailed(f"no DNS server is configured: {error}") from None
        parts = Parts()
        await asyncio.gather(*(self._lookup(resolver, name, parts) for name in self._source.names))
        return parts

    async def _lookup(self, resolver: dns.asyncresolver.Resolver, name: str, parts: Parts) -> None:
        kind = self._source.type
        try:
            records: Any = await resolver.resolve(name, kind, search=True)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            records = ()
            if name not in self._empty:
                LOG.warning("dns discovery, %s: it has no %s records, and so no targets", name, kind)
                self._empty.add(name)
        except dns.exception.DNSException as error:
            parts.failures[name] = f"looking up {kind} of {name}: {error}"
            return
        if records:
            self._empty.discard(name)
        targets = sorted(self._targets(records), key=lambda labels: labels[ADDRESS])
        parts.groups[name] = [Group(name, tuple({**target, f"{META}name": name} for target in targets), {})]

    def _targets(self, records: Any) -> Iterator[dict[str, str]]:
        port = self._source.port
        for record in records:
            match self._source.type:
                case "SRV":
                    host = record.target.to_text()
                    yield {
                        ADDRESS: f"{host.rstrip('.')}:{port or record.port}",
                        f"{META}srv_record_target": host,
                        f"{META}srv_record_port": str(record.port),
                    }
                case "MX":
                    host = record.exchange.to_text()
                    yield {ADDRESS: f"{host.rstrip('.')}:{port}", f"{META}mx_record_target": host}
                case "AAAA":
                    yield {ADDRESS: f"[{record.address}]:{port}"}
                case _:
                    yield {ADDRESS: f"{record.address}:{port}"}

"""Targets that DNS names, from a name server of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import cast

import dns.asyncresolver
import dns.message
import dns.rcode
import dns.rrset
import pytest

from streamgauge.clock import ManualClock
from streamgauge.ingest.discovery.dns import DnsDiscovery
from streamgauge.ingest.discovery.groups import Discovery, Group
from streamgauge.ingest.scrape.job import DnsSource
from streamgauge.stats import Stats
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio

Follow = Callable[[Discovery], list[Sequence[Group]]]


class NameServer(asyncio.DatagramProtocol):
    """records: texts by (name, type). What is not there does not exist; with `failing`, nothing can be told."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.failing = False
        self.mute: set[str] = set()  # names of which nothing can be told
        self.port = 0
        self.closed = asyncio.Event()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        (question,) = query.question
        kind = question.to_text().split()[-1]
        texts = self.records.get((question.name.to_text(), kind))
        if self.failing or question.name.to_text() in self.mute:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif texts is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        else:
            answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", kind, *texts))
        assert self._transport is not None
        self._transport.sendto(answer.to_wire(), address)

    def resolver(self) -> dns.asyncresolver.Resolver:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], self.port, 2.0
        return resolver


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    yield server
    transport.close()
    await server.closed.wait()


@pytest.mark.parametrize(
    ("kind", "port", "records", "target"),
    [
        ("A", 9, ["192.0.2.1"], {"__address__": "192.0.2.1:9"}),
        ("AAAA", 9, ["2001:db8::1"], {"__address__": "[2001:db8::1]:9"}),
        (
            "MX",
            9,
            ["5 mail.example."],
            {"__address__": "mail.example:9", "__meta_dns_mx_record_target": "mail.example."},
        ),
        (
            "SRV",
            0,
            ["1 1 8080 web.example."],
            {
                "__address__": "web.example:8080",
                "__meta_dns_srv_record_target": "web.example.",
                "__meta_dns_srv_record_port": "8080",
            },
        ),
    ],
)
async def test_records(
    server: NameServer,
    follow: Follow,
    clock: ManualClock,
    stats: Stats,
    kind: str,
    port: int,
    records: list[str],
    target: dict[str, str],
) -> None:
    server.records["n.example.", kind] = records
    source = DnsSource(("n.example", "other.example"), kind, port, 30_000)
    found = follow(DnsDiscovery(source, clock, stats, server.resolver))
    await until(lambda: found)
    assert found[0] == [
        Group("n.example", ({**target, "__meta_dns_name": "n.example"},), {}),
        Group("other.example", (), {}),
    ]


async def test_a_server_that_fails_leaves_the_targets(
    server: NameServer, follow: Follow, clock: ManualClock, stats: Stats, caplog: pytest.LogCaptureFixture
) -> None:
    server.records["n.example.", "A"] = ["192.0.2.2", "192.0.2.1"]
    found = follow(DnsDiscovery(DnsSource(("n.example",), "A", 9, 30_000), clock, stats, server.resolver))
    await until(lambda: found)
    assert [target["__address__"] for target in found[0][0].targets] == ["192.0.2.1:9", "192.0.2.2:9"]
    server.failing = True
    await clock.advance(30)
    await until(lambda: "looking up A of n.example" in caplog.text)
    server.failing = False
    del server.records["n.example.", "A"]
    await clock.advance(30)
    await until(lambda: len(found) == 2)
    assert found[1] == [Group("n.example", (), {})], "a name that does not exist has no targets"
    server.records["n.example.", "A"] = ["192.0.2.3"]
    await clock.advance(30)
    await until(lambda: len(found) == 3)
    del server.records["n.example.", "A"]
    await clock.advance(30)
    await until(lambda: len(found) == 4)
    said = "dns discovery, n.example: it has no A records, and so no targets"
    assert caplog.text.count(said) == 2, "once each time that it begins"


async def test_a_name_that_fails_does_not_hold_up_the_others(
    server: NameServer, follow: Follow, clock: ManualClock, stats: Stats
) -> None:
    server.records |= {("a.example.", "A"): ["192.0.2.1"], ("b.example.", "A"): ["192.0.2.2"]}
    source = DnsSource(("a.example", "b.example"), "A", 9, 30_000)
    found = follow(DnsDiscovery(source, clock, stats, server.resolver))
    await until(lambda: found)
    server.mute.add("a.example.")
    server.records["b.example.", "A"] = ["192.0.2.3"]
    await clock.advance(30)
    await until(lambda: len(found) == 2)
    assert [target["__address__"] for group in found[1] for target in group.targets] == ["192.0.2.1:9", "192.0.2.3:9"]

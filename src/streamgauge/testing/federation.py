"""A Prometheus and a server on loopback, whose every answer a test decides, for a federation client between them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from streamgauge.federate.config import FederateConfig, make_config
from streamgauge.testing.target import HttpTarget, Request, answer, http_target
from streamgauge.wire import metric_family_protobuf, snappy_frames
from streamgauge.wire.metric_family import Metric, MetricFamily, MetricType

NOW = 1_790_000_000_000
PROTOBUF = metric_family_protobuf.CONTENT_TYPE


def samples(*times: int, name: str = "up", labels: tuple[tuple[str, str], ...] = (("i", "a"),)) -> list[MetricFamily]:
    """A family with a metric at each time."""
    metrics = tuple(Metric(labels, MetricType.UNTYPED, float(time - NOW), time) for time in times)
    return [MetricFamily(name, MetricType.UNTYPED, metrics)]


@dataclass(slots=True)
class Peers:
    """What /federate gives; what /authorize and /upload answer, one after the other, and 200 when there is nothing
    left. pushes: decoded bodies of all uploads; taken: of those that were answered 200."""

    target: HttpTarget
    families: list[MetricFamily] = field(default_factory=lambda: samples(NOW))
    scrape: list[bytes | None] = field(default_factory=list)
    grants: list[bytes | None] = field(default_factory=list)
    uploads: list[bytes | None] = field(default_factory=list)
    pushes: list[list[MetricFamily]] = field(default_factory=list)
    taken: list[list[MetricFamily]] = field(default_factory=list)
    granted: int = 0

    def reply(self, request: Request) -> bytes | None:
        path = request.target.partition("?")[0]
        if path == "/federate":
            body = metric_family_protobuf.encode(self.families)
            return self.scrape.pop(0) if self.scrape else answer(body, PROTOBUF)
        if path == "/authorize":
            self.granted += 1
            return self.grants.pop(0) if self.grants else grant(f"token-{self.granted}")
        push = metric_family_protobuf.decode_now(snappy_frames.decode(request.body, 1 << 20))
        self.pushes.append(push)
        if self.uploads:
            return self.uploads.pop(0)
        self.taken.append(push)
        return answer("")

    def requests(self, path: str) -> list[Request]:
        return [request for request in self.target.requests if request.target.partition("?")[0] == path]

    def times(self) -> list[list[int | None]]:
        """Of the pushes that were taken: their timestamps."""
        return [[metric.timestamp for family in push for metric in family.metrics] for push in self.taken]

    def config(self, **flags: str) -> FederateConfig:
        """Of a client between them. Flags with underscores for hyphens."""
        url = self.target.url("")
        given = {"from": url, "to": url, "to_token": "secret", "id": "c 1", "interval": "100s", **flags}
        return make_config({name.replace("_", "-"): [value] for name, value in given.items()})


def grant(token: str, seconds: int | None = 86_400, **labels: str) -> bytes:
    reply = {"version": 1, "token": token, "expiresInSeconds": seconds, "labels": labels or {"_id": "c 1"}}
    return answer(json.dumps(reply), "text/plain; charset=utf-8")


def status(code: str, headers: dict[str, str] | None = None) -> bytes:
    return answer(f"because of {code}\n", "text/plain", code, headers)


@asynccontextmanager
async def federation_peers() -> AsyncIterator[Peers]:
    """Both on a free loopback port, for as long as the `with`."""
    async with http_target() as target:
        made = Peers(target)
        target.reply = made.reply
        yield made

"""The receivers of pushes on a sink in memory, with a clock that tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from streamgauge.auth.cluster_authority import ClusterIdentity
from streamgauge.clock import ManualClock
from streamgauge.errors import StreamgaugeError
from streamgauge.ingest.admission import InFlight
from streamgauge.ingest.federation.receiver import PushReceiver
from streamgauge.ingest.federation.settings import PushSettings
from streamgauge.ingest.turns import Turns
from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.stats import Stats
from streamgauge.testing import pushes, requests
from streamgauge.testing.sink import MemorySink
from streamgauge.wire.metric_family import MetricFamily


def rule(**labels: str) -> tuple[Matcher, ...]:
    return tuple(Matcher(name, MatchOp.EQUAL, value) for name, value in labels.items())


EVERYTHING = PushSettings(whitelist=((),), ratelimit=0, receive_ratelimit=0)


def receiver_of(
    sink: MemorySink,
    stats: Stats,
    clock: ManualClock,
    settings: PushSettings = EVERYTHING,
    turns: Turns | None = None,
) -> PushReceiver:
    inflight = InFlight(1 << 28, stats)
    return PushReceiver(sink, stats, clock, inflight, turns or Turns(clock), settings, described=sink.is_described)


async def push(receiver: PushReceiver, sender: ClusterIdentity, headers: Mapping[str, str], body: bytes) -> bool:
    """Upload a body as a connection does that has all of it. Whether it was taken at once."""
    ended: asyncio.Future[StreamgaugeError | None] = asyncio.get_running_loop().create_future()
    if not receiver.begin_upload(sender, headers, body, ended.set_result):
        await receiver.upload(sender, headers, pushes.body_of(body, 100_000))
        return False
    assert not ended.done(), "answered before it was begun"
    if (error := await ended) is not None:
        raise error
    return True


async def write(
    receiver: PushReceiver, sender: ClusterIdentity, headers: Mapping[str, str], body: bytes
) -> tuple[Mapping[str, str], bool]:
    """The same of a remote write: headers of the answer, and whether it was taken at once."""
    ended: asyncio.Future[tuple[StreamgaugeError | None, Mapping[str, str]]]
    ended = asyncio.get_running_loop().create_future()
    if not receiver.begin_receive(sender, headers, body, lambda *answer: ended.set_result(answer)):
        return await receiver.receive(sender, headers, pushes.body_of(body)), False
    assert not ended.done(), "answered before it was begun"
    error, answer = await ended
    if error is not None:
        raise error
    return answer, True


@dataclass
class Federation:
    """A receiver and what it writes to."""

    clock: ManualClock
    sink: MemorySink
    stats: Stats
    receiver: PushReceiver

    @property
    def now(self) -> int:
        return self.clock.now_ms()

    async def upload(self, *families: MetricFamily, cluster: str = "one", **required: str) -> bool:
        return await self.send(pushes.upload(families), pushes.HEADERS, cluster, **required)

    async def send(
        self, body: bytes, headers: Mapping[str, str] = pushes.HEADERS, cluster: str = "one", **required: str
    ) -> bool:
        """Whether it was taken at once."""
        return await push(self.receiver, pushes.identity(cluster, **required), headers, body)

    async def write(
        self, series: Iterable[requests.Series], message: str = requests.V1, cluster: str = "one", **required: str
    ) -> dict[str, str]:
        encode = requests.v1 if message == requests.V1 else requests.v2
        return await self.write_body(requests.snappy(encode(series)), message, cluster, **required)

    async def write_body(
        self, body: bytes, message: str = requests.V1, cluster: str = "one", **required: str
    ) -> dict[str, str]:
        sender = pushes.identity(cluster, **required)
        answer, _ = await write(self.receiver, sender, requests.headers(message), body)
        return dict(answer)

    def stale(self, **labels: str) -> list[int]:
        """Times of the stale markers of a series."""
        return [time for time, bits in self.sink.bits(**labels) if bits == STALE_BITS]

    def metric(self, name: str) -> float:
        lines = self.stats.exposition().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)

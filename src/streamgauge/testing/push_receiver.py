"""The receivers of pushes on a sink in memory, with a clock that tests move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from streamgauge.clock import ManualClock
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
    return PushReceiver(sink, stats, clock, inflight, turns or Turns(), settings, described=sink.is_described)


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

    async def upload(self, *families: MetricFamily, cluster: str = "one", **required: str) -> None:
        await self.send(pushes.upload(families), pushes.HEADERS, cluster, **required)

    async def send(
        self, body: bytes, headers: Mapping[str, str] = pushes.HEADERS, cluster: str = "one", **required: str
    ) -> None:
        await self.receiver.upload(pushes.identity(cluster, **required), headers, pushes.body_of(body, 100_000))

    async def write(
        self, series: Iterable[requests.Series], message: str = requests.V1, cluster: str = "one", **required: str
    ) -> dict[str, str]:
        encode = requests.v1 if message == requests.V1 else requests.v2
        return await self.write_body(requests.snappy(encode(series)), message, cluster, **required)

    async def write_body(
        self, body: bytes, message: str = requests.V1, cluster: str = "one", **required: str
    ) -> dict[str, str]:
        sender = pushes.identity(cluster, **required)
        return dict(await self.receiver.receive(sender, requests.headers(message), pushes.body_of(body)))

    def stale(self, **labels: str) -> list[int]:
        """Times of the stale markers of a series."""
        return [time for time, bits in self.sink.bits(**labels) if bits == STALE_BITS]

    def metric(self, name: str) -> float:
        lines = self.stats.exposition().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)

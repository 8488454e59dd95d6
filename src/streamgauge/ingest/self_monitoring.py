"""Our own metrics, stored like anybody's: job="streamgauge", instance the address that we listen on."""

from __future__ import annotations

from streamgauge.clock import Clock
from streamgauge.ingest.sampling import Recorder, Reporter, rounds, single
from streamgauge.model.sink import Sink
from streamgauge.stats import Stats

SOURCE = "self"


class SelfMonitoring:
    """Samples `stats` into `sink` until cancelled."""

    def __init__(self, sink: Sink, stats: Stats, clock: Clock, instance: str) -> None:
        self._stats = stats
        self._clock = clock
        recorder = Recorder(sink, {"job": "streamgauge", "instance": instance})
        self._reporter = Reporter(recorder, stats, SOURCE, "self-monitoring")

    async def run(self) -> None:
        async for time in rounds(self._clock):
            await self.sample(time)

    async def sample(self, time: int) -> None:
        """One round at `time` (ms)."""
        up = single("up", "gauge", "1: the server samples itself.", 1.0)
        await self._reporter.report((*self._stats.families(), up), time)

"""Our own metrics, stored like anybody's: job="streamgauge", instance the address that we listen on."""

from __future__ import annotations

import logging

from streamgauge.clock import Clock
from streamgauge.errors import StreamgaugeError
from streamgauge.ingest.sampling import Recorder, rounds, single
from streamgauge.model.sink import Sink
from streamgauge.stats import Stats

SOURCE = "self"

_log = logging.getLogger(__name__)


class SelfMonitoring:
    """Samples `stats` into `sink` until cancelled."""

    def __init__(self, sink: Sink, stats: Stats, clock: Clock, instance: str) -> None:
        self._stats = stats
        self._clock = clock
        self._recorder = Recorder(sink, {"job": "streamgauge", "instance": instance})
        self._failing = False

    async def run(self) -> None:
        async for time in rounds(self._clock):
            await self.sample(time)

    async def sample(self, time: int) -> None:
        """One round at `time` (ms). A failure to store is counted, and logged when it begins and when it ends."""
        up = single("up", "gauge", "1: the server samples itself.", 1.0)
        try:
            stored = await self._recorder.record((*self._stats.families(), up), time)
        except StreamgaugeError as error:
            self._stats.sampling_failures.labels(SOURCE).inc()
            if not self._failing:
                _log.warning("self-monitoring cannot be stored: %s", error.message)
            self._failing = True
            return
        if self._failing:
            _log.info("self-monitoring is stored again")
        self._failing = False
        self._stats.ingested_samples.labels(SOURCE).inc(stored)

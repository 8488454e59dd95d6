"""Stale markers for pushed series that have ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import numpy as np

from streamgauge.clock import Clock
from streamgauge.errors import StreamgaugeError
from streamgauge.ingest.federation.liveness import Ended, Liveness
from streamgauge.ingest.federation.stats import MISSING, SILENT, PushStats
from streamgauge.ingest.stale_markers import stale_markers
from streamgauge.model.sink import Sink

LOG = logging.getLogger(__name__)

_APPEND_ROWS = 65_536
_MAX_WAITING = 4_000_000
"""Markers that wait for a store that refuses writes: 16 MB of ids. Those of longest ago go beyond it; their series drop
out of answers a little later by themselves."""
_LOOKS = 20
"""How often in each `ttl` it is looked who is silent."""


class Markers:
    """Writes them, and tries again while the store refuses. Used on the event loop. ttl: ms; a reload changes it."""

    def __init__(self, sink: Sink, clock: Clock, liveness: Liveness, ttl: int, stats: PushStats) -> None:
        self.ttl = ttl
        self._sink = sink
        self._clock = clock
        self._liveness = liveness
        self._stats = stats
        self._waiting: list[tuple[Ended, int]] = []  # with the sink's generation in which the ids were valid

    async def run(self) -> None:
        """Until cancelled: mark what ends because its cluster is silent."""
        while True:
            await self._clock.sleep(self.ttl / 1000 / _LOOKS)
            waiting, self._waiting = self._waiting, []
            await self._write(waiting)
            await self.mark_silent()

    async def mark_silent(self) -> None:
        since = self._clock.monotonic() - self.ttl / 1000
        silent = list(self._liveness.silent(since, self.ttl))
        self._stats.markers.labels(SILENT).inc(sum(len(ended.series) for ended in silent))
        generation = self._sink.generation
        await self._write([(ended, generation) for ended in silent])

    async def mark(self, ended: Ended) -> None:
        """Mark what is missing from its cluster's next push."""
        self._stats.markers.labels(MISSING).inc(len(ended.series))
        await self._write([(ended, self._sink.generation)])

    async def _write(self, ended: list[tuple[Ended, int]]) -> None:
        for part in _parts(ended):
            series = np.concatenate([one.series for one, _ in part])
            times = np.concatenate([np.full(len(one.series), one.time, np.int64) for one, _ in part])
            batch = stale_markers(series, times, self._sink.admitted())
            try:
                await self._sink.append(batch)
            except StreamgaugeError as error:
                LOG.warning("stale markers for %d series wait, the store refuses them: %s", len(series), error.message)
                self._wait(part)

    def _wait(self, ended: Iterable[tuple[Ended, int]]) -> None:
        """Keep what is still valid for the next time: where series were pruned since, the store says no for ever."""
        self._waiting += [(one, generation) for one, generation in ended if generation == self._sink.generation]
        count = sum(len(one.series) for one, _ in self._waiting)
        while count > _MAX_WAITING:
            count -= len(self._waiting.pop(0)[0].series)


def _parts(ended: list[tuple[Ended, int]]) -> Iterator[list[tuple[Ended, int]]]:
    part: list[tuple[Ended, int]] = []
    rows = 0
    for one in ended:
        if part and rows + len(one[0].series) > _APPEND_ROWS:
            yield part
            part, rows = [], 0
        part.append(one)
        rows += len(one[0].series)
    if part:
        yield part

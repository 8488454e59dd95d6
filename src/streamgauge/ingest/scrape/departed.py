"""Stale markers for the series of targets that are gone.

A target that is gone may be back at once, under another scrape configuration or from another discovery. So its series
are marked, as of the time of the scrape that did not happen, only when two more intervals have passed and nobody has
scraped them since.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from streamgauge.clock import Clock
from streamgauge.errors import StreamgaugeError
from streamgauge.model.arrays import UInt32s, stale_marker
from streamgauge.model.batch import SampleBatch
from streamgauge.model.sink import Sink

LOG = logging.getLogger(__name__)

_RETRY_SECONDS = 30


@dataclass(frozen=True, slots=True, eq=False)
class _Gone:
    series: UInt32s
    time: int  # ms, of the marker
    due: float  # on the monotonic clock
    generation: int  # of the sink, in which the ids are valid


class Departed:
    """present: the series that are being scraped at this moment."""

    def __init__(self, sink: Sink, clock: Clock, present: Callable[[], Iterable[UInt32s]]) -> None:
        self._sink = sink
        self._clock = clock
        self._present = present
        self._gone: list[_Gone] = []
        self._some = asyncio.Event()

    def add(self, series: Sequence[UInt32s], next_due: int, interval: int) -> None:
        """A target with these series is gone. next_due: when its next scrape would have been; interval: ms."""
        ids = np.concatenate([np.empty(0, np.uint32), *series])
        if not len(ids):
            return
        wait = max(0, next_due - self._clock.now_ms()) + interval + interval // 10
        due = self._clock.monotonic() + wait / 1000
        self._gone.append(_Gone(ids, next_due, due, self._sink.generation))
        self._some.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._gone:
                await self._clock.sleep(max(0.0, min(one.due for one in self._gone) - self._clock.monotonic()))
                await self._mark(self._clock.monotonic())

    async def _mark(self, now: float) -> None:
        """Mark all whose time has come. What the store refuses is tried again."""
        due = [one for one in self._gone if one.due <= now]
        self._gone = [one for one in self._gone if one.due > now]
        valid = [one for one in due if one.generation == self._sink.generation]
        if not valid:
            return
        series = np.concatenate([one.series for one in valid])
        times = np.concatenate([np.full(len(one.series), one.time, np.int64) for one in valid])
        present = [ids for ids in self._present() if len(ids)]
        if present:
            left = ~np.isin(series, np.concatenate(present))
            series, times = series[left], times[left]
        try:
            await self._sink.append(SampleBatch(series, times, stale_marker(len(series))))
        except StreamgaugeError as error:
            LOG.warning("stale markers for %d series wait, the store refuses them: %s", len(series), error.message)
            self._gone += [replace(one, due=now + _RETRY_SECONDS) for one in valid]

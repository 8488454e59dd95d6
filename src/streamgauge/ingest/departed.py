"""Stale markers for the series of targets and relays that are gone.

One that is gone may be back at once, under another scrape configuration, from another discovery, or by another
connection. So its series are marked, as of the time of the scrape that did not happen, only when two more intervals
have passed and nobody has brought them since.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from streamgauge.clock import Clock
from streamgauge.errors import StreamgaugeError
from streamgauge.ingest.stale_markers import stale_markers
from streamgauge.model.arrays import Int64s, UInt32s
from streamgauge.model.sink import Sink

LOG = logging.getLogger(__name__)

_RETRY_SECONDS = 30
_TOGETHER_SECONDS = 0.5
"""Those whose time comes so soon are marked at once with those whose time has come: thousands may go one by one."""
_AT_ONCE = 200
"""Of those that know their present series themselves, which are asked one by one: relays of some dozen series each."""

Present = Callable[[], Iterable[UInt32s]]


@dataclass(frozen=True, slots=True, eq=False)
class _Gone:
    """present: as that of all, where it has one of its own."""

    series: UInt32s
    time: int  # ms, of the marker
    due: float  # on the monotonic clock
    generation: int  # of the sink, in which the ids are valid
    present: Present | None


class Departed:
    """present: the series that are being brought at this moment."""

    def __init__(self, sink: Sink, clock: Clock, present: Present = lambda: ()) -> None:
        self._sink = sink
        self._clock = clock
        self._present = present
        self.waiting = 0  # series that may be marked
        self._gone: list[_Gone] = []
        self._earliest = math.inf  # when the time of one comes, on the monotonic clock
        self._sooner = asyncio.Event()  # one was added whose time comes before that

    def add(self, series: Sequence[UInt32s], next_due: int, interval: int, present: Present | None = None) -> None:
        """A target with these series is gone. next_due: when its next scrape would have been; interval: ms. present:
        where it is known by what these could be brought, those that it brings when their time has come."""
        ids = _joined(series)
        if not len(ids):
            return
        wait = max(0, next_due - self._clock.now_ms()) + interval + interval // 10
        due = self._clock.monotonic() + wait / 1000
        self._gone.append(_Gone(ids, next_due, due, self._sink.generation, present))
        self.waiting += len(ids)
        if due < self._earliest:
            self._earliest = due
            self._sooner.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._earliest = min((one.due for one in self._gone), default=math.inf)
            self._sooner.clear()
            await self._wait()
            await self._mark(self._clock.monotonic())

    async def _wait(self) -> None:
        """Until the time of the earliest has come, or another will sooner."""
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(self._sooner.wait())]
        if self._gone:
            seconds = max(0.0, self._earliest - self._clock.monotonic())
            waits.append(asyncio.ensure_future(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def _mark(self, now: float) -> None:
        """Mark all whose time has come. What the store refuses is tried again."""
        soon = now + _TOGETHER_SECONDS
        due = [one for one in self._gone if one.due <= soon]
        self._gone = [one for one in self._gone if one.due > soon]
        self.waiting = sum(len(one.series) for one in self._gone)
        shared = [one for one in due if one.present is None]
        others = [one for one in due if one.present is not None]
        for some in (shared, *(others[at : at + _AT_ONCE] for at in range(0, len(others), _AT_ONCE))):
            await self._mark_some(some, now)

    async def _mark_some(self, some: Sequence[_Gone], now: float) -> None:
        valid = [one for one in some if one.generation == self._sink.generation]
        shared = [one for one in valid if one.present is None]
        parts = [_rows(shared, self._present())] if shared else []
        parts += [_rows([one], one.present()) for one in valid if one.present is not None]
        if not parts:
            return
        series, times = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        batch = stale_markers(series, times, self._sink.admitted())
        try:
            await self._sink.append(batch)
        except StreamgaugeError as error:
            LOG.warning("stale markers for %d series wait, the store refuses them: %s", len(batch), error.message)
            again = [replace(one, due=now + _RETRY_SECONDS) for one in valid]
            self._gone += again
            self.waiting += sum(len(one.series) for one in again)


def _joined(parts: Iterable[UInt32s]) -> UInt32s:
    return np.concatenate([np.empty(0, np.uint32), *parts])


def _rows(gone: Sequence[_Gone], present: Iterable[UInt32s]) -> tuple[UInt32s, Int64s]:
    """The series of some that are not present, and the times of their markers."""
    series = _joined(one.series for one in gone)
    times = np.concatenate([np.full(len(one.series), one.time, np.int64) for one in gone])
    found = _joined(present)
    if not len(found):
        return series, times
    left = ~np.isin(series, found)
    return series[left], times[left]

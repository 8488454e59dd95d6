"""When each relay is asked: soon after it has said what it can be asked for, and then once an interval.

The times of a relay depend on its id, so that thousands that connect at once are asked evenly over the interval, and
each of them evenly in time.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import zlib
from collections.abc import Iterator
from typing import Protocol

from streamgauge.clock import Clock

FIRST_SECONDS = 0.05
"""After the first collector, for the others to be added, too."""
TICK_SECONDS = 0.05
_ROUNDING = 1e-6
AT_ONCE = 100
"""Asked in one turn of the loop, at some 10 µs each."""


class Asked(Protocol):
    name: str

    @property
    def ended(self) -> str: ...

    def ask(self) -> bool: ...


class Polls:
    """interval: seconds."""

    def __init__(self, clock: Clock, interval: float) -> None:
        self._clock = clock
        self._interval = interval
        self._due: list[tuple[float, int, Asked]] = []
        self._count = 0
        self._some = asyncio.Event()

    def add(self, relay: Asked) -> None:
        """Ask it from now on, until it has ended."""
        self._push(self._clock.monotonic() + FIRST_SECONDS, relay)
        self._some.set()

    async def run(self) -> None:
        while True:
            await self._some.wait()
            for number, relay in enumerate(self._now_due()):
                relay.ask()
                if number % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)
            if not self._due:
                self._some.clear()
                continue
            wait = self._due[0][0] - self._clock.monotonic()
            await self._clock.sleep(min(max(wait, 0.0), TICK_SECONDS))

    def _now_due(self) -> Iterator[Asked]:
        now = self._clock.monotonic()
        while self._due and self._due[0][0] <= now:
            due, _, relay = heapq.heappop(self._due)
            if not relay.ended:
                self._push(self._after(max(due, now), relay.name), relay)  # what was missed is not made up for
                yield relay

    def _push(self, due: float, relay: Asked) -> None:
        self._count += 1
        heapq.heappush(self._due, (due, self._count, relay))

    def _after(self, time: float, name: str) -> float:
        """The next of the relay's times after `time`, which may be one of them, give or take a rounding."""
        phase = zlib.crc32(name.encode()) / (1 << 32) * self._interval
        return phase + (math.floor((time - phase) / self._interval + _ROUNDING) + 1) * self._interval

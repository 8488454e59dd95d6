"""Time, injected. Nothing else in the package reads the wall clock or sleeps."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch. May jump."""

    def now_ns(self) -> int:
        """The same in nanoseconds."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    now_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that a test moves. Sleepers wake, in order of their deadlines, when `advance` passes them."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        return self._now_ms

    def now_ns(self) -> int:
        return self._now_ms * 1_000_000

    def monotonic(self) -> float:
        return self._elapsed

    def jump(self, milliseconds: int) -> None:
        """Move the wall clock alone, as an administrator or NTP would."""
        self._now_ms += milliseconds

    def spend(self, seconds: float) -> None:
        """Let time pass on the monotonic clock while somebody works, so that nobody wakes."""
        self._elapsed += seconds

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self._elapsed + seconds, waiter)
        self._sleepers.append(entry)
        try:
            await waiter
        finally:
            if entry in self._sleepers:
                self._sleepers.remove(entry)

    @property
    def sleepers(self) -> int:
        """How many wait for time to pass."""
        return len(self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, running whatever wakes on the way."""
        end = self._elapsed + seconds
        while due := [entry for entry in self._sleepers if entry[0] <= end and not entry[1].done()]:
            when, waiter = min(due, key=lambda entry: entry[0])
            self._now_ms += round((when - self._elapsed) * 1000)
            self._elapsed = when
            waiter.set_result(None)
            for _ in range(5):
                await asyncio.sleep(0)
        self._now_ms += round((end - self._elapsed) * 1000)
        self._elapsed = end

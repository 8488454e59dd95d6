"""Letting so many targets be asked at once that each is answered soon after it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streamgauge.clock import Clock

AT_ONCE = 100
"""Polls that begin together cost some milliseconds of the processor each: a thousand at a boundary would all seem to
take as long as all of them do, and come close to their deadlines."""
PATIENCE_SECONDS = 0.25
"""After which the next is let in beside one that is not done: readers that hang hold others up by no more."""


class Gate:
    """Of one job. Used on the event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._room = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Waits for room, which the `with` takes for as long as it lasts, or for the time that there is patience."""
        await self._room.acquire()
        patience = asyncio.ensure_future(self._clock.sleep(PATIENCE_SECONDS))
        patience.add_done_callback(lambda _: self._room.release())
        try:
            yield
        finally:
            patience.cancel()

"""Turns on the event loop for whatever decodes: one for each pass of the loop, however many senders there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Turns:
    """Without it, a pass of the loop decodes a batch of every request that is ready: with twenty senders, each with a
    batch of a millisecond, everybody else waits for twenty."""

    def __init__(self) -> None:
        self.takers = 0  # who waits for a turn, or has it
        self._lock = asyncio.Lock()

    async def take(self, step: Callable[[], T]) -> T:
        """What `step` returns or raises, when it was this caller's turn; first come, first served."""
        self.takers += 1
        try:
            async with self._lock:
                try:
                    return step()
                finally:
                    await asyncio.sleep(0)
        finally:
            self.takers -= 1

"""Waiting for what other tasks do in their own time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_SECONDS = 30.0
TURNS = 100
"""At once, which is enough for tasks. What takes longer is another thread or process, which needs this processor."""
PAUSE_SECONDS = 0.001
"""From then on between two turns."""


async def until(condition: Callable[[], object]) -> None:
    """Give other tasks, and sockets, their turn until it holds. Raises TimeoutError when it does not come to that."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        turns = 0
        while not condition():  # what it waits for signals nothing
            turns += 1
            await asyncio.sleep(0 if turns <= TURNS else PAUSE_SECONDS)

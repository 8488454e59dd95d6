"""Waiting for what other tasks do in their own time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_SECONDS = 30.0


async def until(condition: Callable[[], object]) -> None:
    """Give other tasks, and sockets, their turn until it holds. Raises TimeoutError when it does not come to that."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what it waits for signals nothing
            await asyncio.sleep(0)

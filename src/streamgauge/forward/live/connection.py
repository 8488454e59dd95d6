"""A TCP connection to a destination: reading and writing go on side by side until one of them fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Any

SECONDS = 10.0
"""For connecting, and for the other side to read what is sent."""
MAX_LINE_BYTES = 65_536
"""Of what the other side says."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected(host: str, port: int, tls: bool = False) -> Streams:
    """Raises OSError."""
    context = ssl.create_default_context() if tls else None
    async with asyncio.timeout(SECONDS):
        return await asyncio.open_connection(host, port, limit=MAX_LINE_BYTES, ssl=context)


async def until_one_fails(*work: Coroutine[Any, Any, None]) -> None:
    """Raises what the first of them raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def words_of(error: Exception, host: str, port: int) -> str:
    """For the log."""
    return f"{host}:{port}: {str(error) or type(error).__name__}"

"""The live channel of relays over TCP: the same messages as over a WebSocket, one a line.

Where a token is configured, the first message must be {"command": "auth", "data": TOKEN}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Sequence

from streamgauge.errors import Overloaded
from streamgauge.live.tags import Subscriber, TagHub, message

MAX_LINE_BYTES = 65_536
AUTH_SECONDS = 10.0


class LiveTagsListener:
    """fits: whether a token is the right one, or none is asked for. publishes: whether they may tell others."""

    def __init__(self, hub: TagHub, fits: Callable[[str], bool], publishes: Callable[[], bool]) -> None:
        self._hub = hub
        self._fits = fits
        self._publishes = publishes
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        for sock in sockets:
            self._servers.append(await asyncio.start_server(self._serve, sock=sock, limit=MAX_LINE_BYTES))

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(
                ConnectionError, TimeoutError, Overloaded, ValueError, asyncio.IncompleteReadError
            ):
                await self._converse(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._fits("") and not await self._authenticated(reader):
            writer.write(message("auth", [], "", "the first message must be auth, with the token as data").encode())
            writer.write(b"\n")
            return
        subscriber = self._hub.join()
        writing = asyncio.ensure_future(_write(subscriber, writer))
        try:
            while line := await reader.readline():
                if line.strip():
                    subscriber.handle(line, self._publishes())
        finally:
            subscriber.close()
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _authenticated(self, reader: asyncio.StreamReader) -> bool:
        async with asyncio.timeout(AUTH_SECONDS):
            given = json.loads(await reader.readline())
        token = given.get("data") if isinstance(given, dict) and given.get("command") == "auth" else None
        return isinstance(token, str) and self._fits(token)


async def _write(subscriber: Subscriber, writer: asyncio.StreamWriter) -> None:
    while texts := await subscriber.next():
        writer.write("".join(f"{text}\n" for text in texts).encode())
        await writer.drain()

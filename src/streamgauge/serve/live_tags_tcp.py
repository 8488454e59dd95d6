"""The live channel of relays over TCP: the same messages as over a WebSocket, one a line.

Where a token is configured, the first message must be {"command": "auth", "data": TOKEN}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterator, Sequence

from streamgauge.clock import Clock
from streamgauge.errors import Overloaded
from streamgauge.live.tags import Subscriber, TagHub, message
from streamgauge.stats import Reading

MAX_CONNECTIONS = 1_000
"""Whether or not they have shown a token: as many as may follow. Each has a descriptor and up to 128 KiB of lines."""
MAX_LINE_BYTES = 65_536
AUTH_SECONDS = 10.0
CHECK_SECONDS = 2.0
"""Between two looks at whether tokens are still good."""

Protocols = Callable[[], asyncio.BaseProtocol]


class LiveTagsListener:
    """fits: whether a token is the right one, or none is asked for. publishes: whether they may tell others."""

    def __init__(self, hub: TagHub, fits: Callable[[str], bool], publishes: Callable[[], bool]) -> None:
        self._hub = hub
        self._fits = fits
        self._publishes = publishes
        self._servers: list[asyncio.Server] = []
        self._turned_away = 0
        self._tasks: dict[asyncio.Task[None], str | None] = {}  # with the token that let them in, None before that

    async def start(
        self, sockets: Sequence[socket.socket], front: Callable[[Protocols], Protocols] = lambda protocols: protocols
    ) -> None:
        """Listen on sockets that are bound. front: what connections are before they are ours."""
        loop = asyncio.get_running_loop()
        protocols = front(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(MAX_LINE_BYTES, loop), self._serve, loop)
        )
        for sock in sockets:
            self._servers.append(await loop.create_server(protocols, sock=sock))

    def check(self) -> None:
        """End connections of those whose token is not good any more."""
        for task, token in self._tasks.items():
            if token is not None and not self._fits(token):
                task.cancel()

    async def run(self, clock: Clock) -> None:
        """Until cancelled."""
        while True:
            await clock.sleep(CHECK_SECONDS)
            self.check()

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def readings(self) -> Iterator[Reading]:
        yield Reading.of(
            "streamgauge_live_connections_turned_away_total",
            "counter",
            "TCP connections to the live channel that were ended at once, as there are as many as there may be.",
            self._turned_away,
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= MAX_CONNECTIONS:
            self._turned_away += 1
            writer.write(message("", [], "", f"{MAX_CONNECTIONS} are connected already").encode() + b"\n")
            writer.transport.abort()  # what the kernel has is sent; to end TLS in order would keep the descriptor
            return
        self._tasks[task] = None
        try:
            with contextlib.suppress(
                ConnectionError, TimeoutError, Overloaded, ValueError, asyncio.IncompleteReadError
            ):
                await self._converse(reader, writer, task)
        finally:
            del self._tasks[task]
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> None:
        token = "" if self._fits("") else await self._shown(reader)
        if token is None or not self._fits(token):
            writer.write(message("auth", [], "", "the first message must be auth, with the token as data").encode())
            writer.write(b"\n")
            return
        self._tasks[task] = token
        subscriber = self._hub.join()
        writing = asyncio.ensure_future(_write(subscriber, writer))
        try:
            while line := await reader.readline():
                if line.strip():
                    subscriber.handle(line, self._publishes())
                    await asyncio.sleep(0)  # who sends many fills the reader, which does not wait then
        finally:
            subscriber.close()
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _shown(self, reader: asyncio.StreamReader) -> str | None:
        """The token of the first message; None where that is another."""
        async with asyncio.timeout(AUTH_SECONDS):
            line = await reader.readline()
        try:
            given = json.loads(line)
        except RecursionError:
            return None
        token = given.get("data") if isinstance(given, dict) and given.get("command") == "auth" else None
        return token if isinstance(token, str) else None


async def _write(subscriber: Subscriber, writer: asyncio.StreamWriter) -> None:
    while texts := await subscriber.next():
        writer.write("".join(f"{text}\n" for text in texts).encode())
        await writer.drain()

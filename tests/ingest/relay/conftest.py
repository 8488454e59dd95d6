"""A listener on a free port, with a sink in memory, and bare clients of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from streamgauge.clock import ManualClock
from streamgauge.ingest.relay.listener import RelayListener
from streamgauge.ingest.relay.settings import RelaySettings
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink
from streamgauge.testing.free_port import bound
from streamgauge.testing.until import PATIENCE_SECONDS, until


class Client:
    """A connection to the listener. read: everything that has come, as text."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.read = ""
        self.over = False
        self._reading = asyncio.ensure_future(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.read += data.decode()
        self.over = True

    def say(self, text: str) -> None:
        self.writer.write(text.encode())

    async def hears(self, text: str) -> None:
        """Wait until exactly this has come in all."""
        await until(lambda: len(self.read) >= len(text) or self.over)
        assert self.read == text

    async def close(self) -> None:
        self._reading.cancel()
        self.writer.close()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await self._reading


class Relays:
    """A listener that runs."""

    def __init__(self, listener: RelayListener, sink: MemorySink, stats: Stats, clock: ManualClock, port: int) -> None:
        self.listener = listener
        self.sink = sink
        self.port = port
        self._stats = stats
        self._clock = clock
        self._clients: list[Client] = []

    async def connect(self, text: str = "") -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self._clients.append(client)
        if text:
            client.say(text)
        return client

    async def relay(self, name: str, *collectors: str) -> Client:
        """One that has said who it is, and what it can be asked for."""
        client = await self.connect(f"id {name}\n" + "".join(f"add {each}\n" for each in collectors))
        await client.hears("ok\nbeat 30\n" + "ok\n" * len(collectors))
        return client

    def refused(self, reason: str) -> float:
        return self._count("streamgauge_refused_total", "reason", reason)

    def ended(self, reason: str) -> float:
        return self._count("streamgauge_relay_connections_ended_total", "reason", reason)

    def _count(self, name: str, label: str, value: str) -> float:
        found = [
            count
            for family in self._stats.families()
            for each, labels, count in family.samples
            if each == name and dict(labels)[label] == value
        ]
        return sum(found)

    async def passes(self, seconds: float) -> None:
        """Let time pass, once who waits for it has begun to."""
        for _ in range(20):
            await asyncio.sleep(0)
        await self._clock.advance(seconds)

    async def asked(self, *clients: Client) -> None:
        """Let time pass until all of them have been asked."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not all("get " in client.read for client in clients):
                await self.passes(0.05)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


StartRelays = Callable[..., Awaitable[Relays]]


@pytest.fixture
async def start(clock: ManualClock, stats: Stats) -> AsyncIterator[StartRelays]:
    async with contextlib.AsyncExitStack() as stack:

        async def begin(settings: RelaySettings | None = None) -> Relays:
            sink = MemorySink()
            listener = RelayListener(settings or RelaySettings(), sink, stats, clock, gather=0.0)
            stats.watch(listener.readings)
            sock = bound()
            await listener.start([sock])
            running = asyncio.ensure_future(listener.run())
            relays = Relays(listener, sink, stats, clock, sock.getsockname()[1])

            async def end() -> None:
                await listener.stop()
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await relays.close()

            stack.push_async_callback(end)
            return relays

        yield begin


@pytest.fixture
async def relays(start: StartRelays) -> Relays:
    return await start()

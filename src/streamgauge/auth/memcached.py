"""A client for memcached, which does the two things that are needed of it.

The text protocol: https://github.com/memcached/memcached/blob/master/doc/protocol.txt, `get` and `set`. A key's server
is found as Go's client finds it, so that both see the same entries.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable, Sequence

from streamgauge.clock import Clock
from streamgauge.errors import FetchFailed
from streamgauge.http.client import Resolver

TIMEOUT_SECONDS = 0.5
"""Of one operation, connecting included: a cache that takes longer is none."""
MAX_VALUE = 65_536
MAX_LINE = 2048
MAX_CONNECTIONS = 16
"""Of one server. Who finds all of them busy waits, within the time that an operation has."""

_VALUE = re.compile(rb"VALUE \S+ \d+ (\d{1,9})\r\n")


class Memcached:
    """Implements SharedCache. expire: seconds, 0 for never. interval: seconds after which names are looked up again, 0
    for never."""

    def __init__(
        self, servers: Sequence[tuple[str, int]], expire: int, interval: int, resolver: Resolver, clock: Clock
    ) -> None:
        self._servers = [_Server(host, port, interval, resolver, clock) for host, port in servers]
        self._expire = expire

    async def get(self, key: str) -> bytes | None:
        return await self._server(key).run(b"get %s\r\n" % key.encode(), _read_value)

    async def set(self, key: str, value: bytes) -> None:
        if len(value) > MAX_VALUE:
            return
        command = b"set %s 0 %d %d\r\n%s\r\n" % (key.encode(), self._expire, len(value), value)
        await self._server(key).run(command, _read_stored)

    def close(self) -> None:
        for server in self._servers:
            server.close()

    def _server(self, key: str) -> _Server:
        return self._servers[zlib.crc32(key.encode()) % len(self._servers)]


_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_Read = Callable[[asyncio.StreamReader], Awaitable[bytes | None]]


class _Server:
    """One server, and the connections to it that nobody uses at present."""

    def __init__(self, host: str, port: int, interval: int, resolver: Resolver, clock: Clock) -> None:
        self._host = host
        self._port = port
        self._interval = interval
        self._resolver = resolver
        self._clock = clock
        self._free: list[_Connection] = []
        self._address: tuple[str, int] | None = None
        self._looked_up = 0.0
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)

    async def run(self, command: bytes, read: _Read) -> bytes | None:
        """Raises FetchFailed."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS), self._slots:
                await self._look_up()
                return await self._run(command, read)
        except TimeoutError:
            raise self._failed(f"no answer within {TIMEOUT_SECONDS:g} s") from None
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            raise self._failed(str(error) or type(error).__name__) from None

    def close(self) -> None:
        while self._free:
            _, writer = self._free.pop()
            writer.transport.abort()

    async def _look_up(self) -> None:
        now = self._clock.monotonic()
        if self._address is not None and (not self._interval or now < self._looked_up + self._interval):
            return
        try:
            address = (await self._resolver.addresses(self._host, self._port))[0]
        except OSError:
            if self._address is None:
                raise
            address = self._address  # what was right so far
        if address != self._address:
            self.close()
        self._address, self._looked_up = address, now

    async def _run(self, command: bytes, read: _Read) -> bytes | None:
        if self._free:
            try:
                return await self._ask(self._free.pop(), command, read)
            except (ConnectionError, EOFError):
                pass  # a connection that was kept may have been closed from the other side
        assert self._address is not None
        return await self._ask(await asyncio.open_connection(*self._address, limit=MAX_LINE), command, read)

    async def _ask(self, connection: _Connection, command: bytes, read: _Read) -> bytes | None:
        reader, writer = connection
        try:
            writer.write(command)
            answer = await read(reader)
        except BaseException:  # what is left of its answer must not be taken for that of the next question
            writer.transport.abort()
            raise
        self._free.append(connection)
        return answer

    def _failed(self, why: str) -> FetchFailed:
        self.close()
        self._address = None
        return FetchFailed(f"memcached {self._host}:{self._port}: {why}")


async def _read_value(reader: asyncio.StreamReader) -> bytes | None:
    line = await reader.readuntil(b"\r\n")
    if line == b"END\r\n":
        return None
    match = _VALUE.fullmatch(line)
    if match is None or int(match[1]) > MAX_VALUE:
        raise ValueError(f"not understood: {line[:80]!r}")
    value = await reader.readexactly(int(match[1]))
    if await reader.readexactly(7) != b"\r\nEND\r\n":
        raise ValueError("the value has another length than was announced")
    return value


async def _read_stored(reader: asyncio.StreamReader) -> None:
    line = await reader.readuntil(b"\r\n")
    if line != b"STORED\r\n":
        raise ValueError(f"not stored: {line[:80]!r}")

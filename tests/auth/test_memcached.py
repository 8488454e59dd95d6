"""Our client for memcached against the real one, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from streamgauge.auth import memcached
from streamgauge.auth.memcached import MAX_VALUE, Memcached
from streamgauge.clock import ManualClock
from streamgauge.errors import FetchFailed
from streamgauge.http.client import Resolver
from streamgauge.testing.programs import required

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def real() -> Iterator[int]:
    """The port of a memcached."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([required("memcached"), "-u", "nobody", "-l", "127.0.0.1", "-p", str(port), "-U", "0"])
    while not _listens(port):
        assert process.poll() is None
    yield port
    process.kill()
    process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other tests may stop for longer than a cache is waited for."""
    monkeypatch.setattr(memcached, "TIMEOUT_SECONDS", 30)


@pytest.fixture
async def client(resolver: Resolver) -> AsyncIterator[Callable[..., Memcached]]:
    made: list[Memcached] = []

    def make(*ports: int, expire: int = 60, interval: int = 10, clock: ManualClock | None = None) -> Memcached:
        servers = [("127.0.0.1", port) for port in ports]
        made.append(Memcached(servers, expire, interval, resolver, clock or ManualClock()))
        return made[-1]

    yield make
    for each in made:
        each.close()
    await asyncio.sleep(0)  # in which the connections end


Make = Callable[..., Memcached]


@pytest.mark.peer("memcached")
async def test_gives_back_what_was_set(real: int, client: Make) -> None:
    cache = client(real)
    assert await cache.get("ab" * 32) is None
    value = bytes(range(256)) + b"\r\nEND\r\n"
    await cache.set("ab" * 32, value)
    assert await cache.get("ab" * 32) == value
    assert await client(real).get("ab" * 32) == value
    await cache.set("cd", b"")
    assert await cache.get("cd") == b""


@pytest.mark.peer("memcached")
async def test_many_at_once_get_their_own(real: int, client: Make) -> None:
    cache = client(real)
    await asyncio.gather(*(cache.set(f"k{number}", b"%d" % number) for number in range(100)))
    found = await asyncio.gather(*(cache.get(f"k{number}") for number in range(100)))
    assert found == [b"%d" % number for number in range(100)]


@pytest.mark.peer("memcached")
async def test_what_is_too_large_is_not_kept(real: int, client: Make) -> None:
    cache = client(real)
    await cache.set("large", bytes(MAX_VALUE + 1))
    assert await cache.get("large") is None


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(handle: Handler) -> AsyncIterator[int]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_a_key_has_the_server_that_gos_client_gives_it(client: Make) -> None:
    """By the remainder of its CRC-32, which is 352441c2 for abc, and ab40d461 for abd."""
    seen: list[tuple[int, bytes]] = []

    def handler(number: int) -> Handler:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append((number, await reader.readline()))
            writer.write(b"END\r\n")
            writer.close()

        return handle

    async with served(handler(0)) as zero, served(handler(1)) as one:
        cache = client(zero, one)
        assert [await cache.get("abc"), await cache.get("abd")] == [None, None]
    assert seen == [(0, b"get abc\r\n"), (1, b"get abd\r\n")]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"ERROR\r\n",
        b"VALUE k 0 3\r\nabc",
        b"VALUE k 0 3\r\nabcdEND\r\n",
        b"VALUE k 0 999999\r\n",
        b"VALUE k 0 x\r\n",
        b"x" * 5000,
    ],
)
async def test_nonsense_is_a_failure_of_the_cache(client: Make, answer: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    async with served(handle) as port:
        with pytest.raises(FetchFailed, match=f"memcached 127.0.0.1:{port}"):
            await client(port).get("k")
        with pytest.raises(FetchFailed):
            await client(port).set("k", b"v")


async def test_a_silent_server_is_waited_for_a_moment(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = True

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        if silent:
            await reader.read()  # until the client gives up
        else:
            writer.write(b"END\r\n")
        writer.close()

    async with served(handle) as port:
        cache = client(port)
        with monkeypatch.context() as hurry:
            hurry.setattr(memcached, "TIMEOUT_SECONDS", 0.01)
            with pytest.raises(FetchFailed, match="no answer within"):
                await cache.get("k")
        silent = False
        assert await cache.get("k") is None  # on another connection: a late answer would be taken for this one's


async def test_no_server_is_a_failure_of_the_cache(client: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(FetchFailed, match=f"memcached 127.0.0.1:{port}"):
        await client(port).get("k")


async def test_a_connection_that_was_closed_meanwhile_is_opened_anew(client: Make) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"END\r\n")
        writer.close()

    async with served(handle) as port:
        cache = client(port)
        assert [await cache.get("k") for _ in range(3)] == [None] * 3


class Moving(Resolver):
    """Names mean another address each time they are looked up."""

    def __init__(self, ports: list[int]) -> None:
        super().__init__()
        self.ports = ports

    async def addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        if not self.ports:
            raise OSError("no such name")
        return [("127.0.0.1", self.ports.pop(0))]


async def test_names_are_looked_up_again() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"VALUE k 0 5\r\n%05d\r\nEND\r\n" % writer.get_extra_info("sockname")[1])
        writer.close()

    clock = ManualClock()
    async with served(handle) as one, served(handle) as other:
        moving = Moving([one, other])
        cache = Memcached([("cache.example", 1)], 0, 10, moving, clock)
        found = []
        for wait in (0, 9.9, 0.1, 10):
            await clock.advance(wait)
            found.append(await cache.get("k"))
        assert found == [b"%05d" % port for port in (one, one, other, other)]
        cache.close()
        moving.close()
        await asyncio.sleep(0)

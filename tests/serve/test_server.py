"""Listening, many connections, and stopping."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from streamgauge.clock import ManualClock
from streamgauge.errors import ListenFailed
from streamgauge.serve.connections import ConnectionLimits
from streamgauge.serve.server import HttpServer, bind, raise_descriptor_limit

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
hello = PlainTextResponse("hello")


class Held:
    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun.set()
        await self.release.wait()
        await hello(scope, receive, send)


# ---- addresses ------------------------------------------------------------------------------------------------------


async def test_port_0_takes_a_free_port(listen):
    server = await listen(hello)
    assert server.addresses == [f"127.0.0.1:{server.port}"]
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://127.0.0.1:{server.port}/")).text == "hello"


def ipv6_works() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not ipv6_works(), reason="this machine has no IPv6 loopback")
async def test_ipv6(listen):
    server = await listen(hello, host="::1")
    assert server.addresses == [f"[::1]:{server.port}"]
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://[::1]:{server.port}/")).text == "hello"


async def test_localhost_listens_on_the_same_port_of_every_address_it_means(listen):
    server = await listen(hello, host="localhost")
    wanted = {entry[4][0] for entry in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    assert {address.rpartition(":")[0].strip("[]") for address in server.addresses} <= wanted
    assert {int(address.rpartition(":")[2]) for address in server.addresses} == {server.port}


async def test_an_address_in_use_is_an_error_that_says_so(listen):
    server = await listen(hello)
    with pytest.raises(ListenFailed, match=f"cannot listen on 127.0.0.1:{server.port}: another program listens there"):
        await HttpServer(hello, "127.0.0.1", server.port).start()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "a" * 300, "not a host"])
async def test_an_address_of_others_is_an_error(host: str):
    with pytest.raises(ListenFailed, match="cannot listen on"):
        await HttpServer(hello, host, 0).start()


def test_sockets_are_closed_when_one_of_them_cannot_be_bound():
    taken = bind("127.0.0.1", 0)
    port = taken[0].getsockname()[1]
    with pytest.raises(ListenFailed):
        bind("", port)
    for sock in taken:
        sock.close()
    for sock in bind("127.0.0.1", port):
        sock.close()


# ---- many connections -----------------------------------------------------------------------------------------------


async def test_thousands_of_idle_connections_do_not_keep_a_new_one_out(listen, connect):
    count = min(2_000, (raise_descriptor_limit() - 1_000) // 2)
    server = await listen(hello, ConnectionLimits(connections=count // 2))
    idle = []
    for _ in range(count // 100):
        idle += await asyncio.gather(*(connect(server) for _ in range(100)))
    assert server.connections <= count // 2
    assert server.closed["evicted"] >= count - count // 2
    client = await connect(server)
    await client.send(GET)
    assert (await client.read_head()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_descriptors_are_left_to_other_listeners_but_no_more_than_half():
    room = []
    for reserved in (0, 100, 1 << 40):
        server = HttpServer(hello, limits=ConnectionLimits(connections=1 << 40), reserved=reserved)
        await server.start()
        room.append(server._table.limits.connections)
        await server.stop(0.0)
    assert room == [room[0], room[0] - 100, room[0] - room[0] // 2]


async def test_the_connection_that_waited_longest_goes_first(listen, connect, clock: ManualClock):
    server = await listen(hello, ConnectionLimits(connections=2))
    oldest, newer = await connect(server), None
    await oldest.send(GET)
    await clock.advance(2)
    newer = await connect(server)
    await clock.advance(2)
    await connect(server)
    with contextlib.suppress(ConnectionError):
        await oldest.read_all()
    await newer.send(GET)
    assert (await newer.read_head()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_when_all_connections_are_busy_the_next_one_is_told_to_come_later(listen, connect):
    app = Held()
    server = await listen(app, ConnectionLimits(connections=2))
    busy = [await connect(server) for _ in range(2)]
    for client in busy:
        await client.send(GET)
    late = await connect(server)
    assert (await late.read_all()).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    app.release.set()
    for client in busy:
        assert (await client.read_head()).startswith(b"HTTP/1.1 200 OK\r\n")
    assert server.closed == {"no_room": 1}


# ---- stopping -------------------------------------------------------------------------------------------------------


async def test_stopping_lets_a_running_request_finish_and_closes_idle_connections(listen, connect):
    app = Held()
    server = await listen(app)
    busy, idle = await connect(server), await connect(server)
    await busy.send(GET)
    stop = asyncio.ensure_future(server.stop(grace=30))
    assert await idle.read_all() == b""
    with pytest.raises(OSError):
        await connect(server)
    assert not stop.done()
    app.release.set()
    everything = await busy.read_all()
    assert everything.startswith(b"HTTP/1.1 200 OK\r\n")
    assert everything.endswith(b"hello")
    await asyncio.wait_for(stop, 20)


async def test_a_body_that_is_on_its_way_is_still_taken_while_stopping(listen, connect):
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        await hello(scope, receive, send)

    server = await listen(echo)
    client = await connect(server)
    await client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n12")
    stop = asyncio.ensure_future(server.stop(grace=30))
    await client.send(b"34")
    assert (await client.read_all()).endswith(b"hello")
    await asyncio.wait_for(stop, 20)


async def test_after_the_grace_period_what_is_left_is_broken_off(listen, connect, clock: ManualClock):
    app = Held()
    server = await listen(app)
    client = await connect(server)
    await client.send(GET)
    stop = asyncio.ensure_future(server.stop(grace=30))
    await clock.advance(31)
    assert await client.is_reset()
    await asyncio.wait_for(stop, 20)


async def test_a_second_call_hurries_the_first(listen, connect):
    app = Held()
    server = await listen(app)
    client = await connect(server)
    await client.send(GET)
    stop = asyncio.ensure_future(server.stop(grace=3600))
    await asyncio.sleep(0)
    await asyncio.wait_for(server.stop(), 20)
    assert stop.done()
    assert await client.is_reset()
    await stop

"""What a client may do to a connection, and what the server does about it."""

from __future__ import annotations

import asyncio
import random
import re

import pytest
from starlette.types import Message, Receive, Scope, Send

from streamgauge.clock import ManualClock
from streamgauge.serve.connections import ConnectionLimits

pytestmark = pytest.mark.anyio

GET = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


async def answer(send: Send, body: bytes, status: int = 200) -> None:
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


class Echo:
    """Reads the whole body and answers with its length and the names of the headers."""

    def __init__(self) -> None:
        self.disconnects = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return
            size += len(message["body"])
            more = message["more_body"]
        names = b",".join(name for name, _ in scope["headers"])
        await answer(send, b"%s %d %s\n" % (scope["path"].encode(), size, names))


class Held:
    """Answers each request only when told to."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.release = asyncio.Event()
        self.messages: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun.set()
        await self.release.wait()
        await Echo()(scope, receive, send)


class WaitsForDisconnect:
    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone.set()


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


# ---- headers --------------------------------------------------------------------------------------------------------


async def test_a_header_that_comes_too_slowly_is_answered_408(listen, connect, clock: ManualClock):
    server = await listen(Echo())
    client = await connect(server)
    for byte in b"GET / HTTP/1.1":
        await client.send(bytes([byte]))
        await clock.advance(1)
    assert (await client.read_all()).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert server.closed == {"header_timeout": 1}


async def test_a_connection_that_says_nothing_is_closed(listen, connect, clock: ManualClock):
    client = await connect(await listen(Echo()))
    await clock.advance(11)
    assert await client.read_all() == b""


@pytest.mark.parametrize(
    "header",
    [
        b"X-Long: " + b"x" * 70_000,
        b"".join(b"X-%d: y\r\n" % number for number in range(8_000)),
        b"X" * 70_000 + b": y",
    ],
    ids=["value", "count", "name"],
)
@pytest.mark.parametrize("complete", [True, False], ids=["ended", "endless"])
async def test_a_header_over_64_kib_is_answered_431(listen, connect, header: bytes, complete: bool):
    server = await listen(Echo())
    client = await connect(server)
    await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + header + (b"\r\n\r\n" if complete else b""))
    assert (await client.read_all()).startswith(b"HTTP/1.1 431 ")
    assert server.closed == {"header_too_large": 1}


async def test_a_header_just_below_64_kib_is_served(listen, connect):
    client = await connect(await listen(Echo()))
    await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 65_000 + b"\r\n\r\n")
    assert (await client.read_head()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_header_in_many_pieces_is_limited_as_a_whole(listen, connect):
    client = await connect(await listen(Echo(), ConnectionLimits(header_bytes=1_000)))
    await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    for number in range(9):
        await client.send(b"X-%d: %s\r\n" % (number, b"x" * 120))
    assert (await client.read_all()).startswith(b"HTTP/1.1 431 ")


async def test_a_long_target_is_answered_414(listen, connect):
    client = await connect(await listen(Echo()))
    await client.send(b"GET /?q=" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await client.read_all()).startswith(b"HTTP/1.1 414 ")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS greeting
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_answered_400(listen, connect, garbage: bytes):
    server = await listen(Echo())
    client = await connect(server)
    await client.send(garbage)
    assert (await client.read_all()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert server.closed == {"malformed": 1}


async def test_no_bytes_take_the_listener_down(listen, connect):
    """Valid requests with bytes changed, cut, repeated; then a client that is served as ever."""
    rng = random.Random(20240607)
    seeds = [
        POST % 5 + b"12345",
        GET + GET,
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n12345\r\n0\r\nA: b\r\n\r\n",
        b"PUT http://h/%ff%zz?a=%00 HTTP/1.0\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ]
    server = await listen(Echo())
    for _ in range(300):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            data[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3)) * rng.choice((1, 1, 50))
        client = await connect(server)
        await client.send(bytes(data))
        client.abort()
    client = await connect(server)
    await client.send(GET)
    assert (await client.read_head()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_an_offer_to_upgrade_is_ignored(listen, connect):
    client = await connect(await listen(Echo()))
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    await client.send(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n" + offer + b"\r\n")
    assert b"/hello 0 " in await client.read_all()


# ---- bodies ---------------------------------------------------------------------------------------------------------


async def test_a_body_of_one_byte_a_second_is_answered_408_and_the_application_told(
    listen, connect, clock: ManualClock
):
    app = Echo()
    server = await listen(app)
    client = await connect(server)
    await client.send(POST % 1_000_000)
    for _ in range(12):
        await client.send(b"x")
        await clock.advance(1)
    assert (await client.read_all()).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert server.closed == {"body_too_slow": 1}
    assert app.disconnects == 1


async def test_a_chunked_body_of_extensions_only_is_too_slow(listen, connect, clock: ManualClock):
    client = await connect(await listen(Echo()))
    await client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(12):
        await client.send(b"1;%s\r\nx\r\n" % (b"e" * 2_000))
        await clock.advance(1)
    assert (await client.read_all()).startswith(b"HTTP/1.1 408 ")


async def test_a_body_at_a_modem_s_pace_is_taken(listen, connect, clock: ManualClock):
    client = await connect(await listen(Echo()))
    await client.send(POST % 60_000)
    for _ in range(50):
        await client.send(b"x" * 1_200)
        await clock.advance(1)
    assert (await client.read_head()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_slow_application_is_not_held_against_the_client(listen, connect, clock: ManualClock):
    app = Held()
    client = await connect(await listen(app))
    await client.send(POST % 200_000 + b"x" * 200_000)
    await app.begun.wait()
    await clock.advance(600)
    app.release.set()
    assert (await client.read_head()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_client_that_waits_for_100_continue_is_not_slow(listen, connect, clock: ManualClock):
    app = Held()
    client = await connect(await listen(app))
    await client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    await clock.advance(60)
    app.release.set()
    assert await client.read_head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"12345")
    assert (await client.read_head()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_body_that_stops_half_way_ends_in_a_disconnect(listen, connect):
    app = Echo()
    server = await listen(app)
    client = await connect(server)
    await client.send(POST % 1_000 + b"x" * 500)
    await client.close()
    await settle()
    assert server.connections == 0
    assert app.disconnects == 1


async def test_trailers_do_not_join_the_headers_that_were_checked(listen, connect):
    client = await connect(await listen(Echo()))
    await client.send(
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\nContent-Encoding: gzip\r\nHost: example.org\r\n\r\n"
    )
    await client.read_head()
    assert await client.read(27) == b"/ 3 host,transfer-encoding\n"


async def test_endless_trailers_are_refused(listen, connect):
    server = await listen(Echo())
    client = await connect(server)
    await client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
    for _ in range(5):
        await client.send(b"X-Trailer: y\r\n" * 1_500)
    assert (await client.read_all()).startswith(b"HTTP/1.1 431 ")


async def test_an_answer_before_the_body_s_end_is_delivered_and_the_connection_goes_on(listen, connect):
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 413)

    client = await connect(await listen(refuse))
    await client.send(POST % 300_000 + b"x" * 100)
    assert (await client.read_head()).startswith(b"HTTP/1.1 413 ")
    assert await client.read(2) == b"no"
    await client.send(b"x" * 299_900)
    await client.send(GET)
    assert (await client.read_head()).startswith(b"HTTP/1.1 413 ")


async def test_a_body_nobody_wants_is_not_awaited_for_ever(listen, connect, clock: ManualClock):
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 413)

    server = await listen(refuse)
    client = await connect(server)
    await client.send(POST % 300_000)
    await client.read_head()
    await clock.advance(11)
    assert server.connections == 0


# ---- keeping alive and pipelining -----------------------------------------------------------------------------------


async def test_an_idle_connection_is_closed_after_two_minutes(listen, connect, clock: ManualClock):
    server = await listen(Echo())
    client = await connect(server)
    await client.send(GET)
    await clock.advance(100)
    await client.send(GET)
    await clock.advance(118)
    assert server.connections == 1
    await clock.advance(4)
    assert server.connections == 0
    assert (await client.read_all()).count(b"HTTP/1.1 200 OK") == 2


async def test_a_second_request_has_ten_seconds_for_its_header_too(listen, connect, clock: ManualClock):
    server = await listen(Echo())
    client = await connect(server)
    await client.send(GET)
    await clock.advance(60)
    await client.send(GET[:10])
    await clock.advance(11)
    assert (await client.read_all()).count(b"HTTP/1.1 408 ") == 1


async def test_pipelined_requests_are_answered_in_order(listen, connect):
    client = await connect(await listen(Echo()))
    posts = [b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (n, n, b"x" * n) for n in range(20)]
    await client.send(b"".join(posts) + b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    answers = re.findall(rb"/(\w+) (\d+) host", await client.read_all())
    assert answers == [(b"%d" % n, b"%d" % n) for n in range(20)] + [(b"last", b"0")]


async def test_requests_sent_far_ahead_of_their_answers_are_broken_off(listen, connect):
    server = await listen(WaitsForDisconnect())
    client = await connect(server)
    await client.send(GET * 100)
    assert await client.is_reset()
    assert server.closed == {"pipelined": 1}


async def test_a_running_request_learns_of_the_disconnect_behind_pipelined_ones(listen, connect):
    app = WaitsForDisconnect()
    client = await connect(await listen(app))
    await client.send(GET * 3)
    client.abort()
    await asyncio.wait_for(app.gone.wait(), 20)


async def test_garbage_after_a_request_never_looks_like_its_answer(listen, connect):
    app = Held()
    client = await connect(await listen(app))
    await client.send(GET + b"garbage\r\n\r\n")
    assert await client.is_reset()


# ---- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"GET / HTTP/1.0"])
@pytest.mark.parametrize("length", [[(b"content-length", b"1000")], []], ids=["length", "chunked"])
async def test_an_answer_that_fails_in_the_middle_is_broken_off(listen, connect, request_line: bytes, length: list):
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("the other half is lost")

    client = await connect(await listen(fails))
    await client.send(request_line + b"\r\nHost: localhost\r\n\r\n")
    assert await client.is_reset()


async def test_an_application_that_fails_before_its_answer_is_a_500(listen, connect):
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("secret")

    client = await connect(await listen(fails))
    await client.send(GET)
    everything = await client.read_all()
    assert everything.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in everything


class Endless:
    """Answers for ever, as fast as it is read."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        watch = asyncio.ensure_future(self._watch(receive))
        while not watch.done():
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            await asyncio.sleep(0)
        self.gone.set()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


async def test_a_reader_that_stops_is_dropped_and_one_that_reads_is_not(listen, connect, clock: ManualClock):
    app = Endless()
    server = await listen(app)
    client = await connect(server)
    await client.send(GET)
    for _ in range(60):
        await client.read(4_000_000)  # more than socket buffers hide, each second
        await clock.advance(1)
    assert server.connections == 1
    while not app.gone.is_set():
        await clock.advance(1)
    assert server.closed == {"reader_too_slow": 1}


async def test_answers_leave_at_once(listen, connect):
    """With Nagle's algorithm an answer in two writes waits for the client's delayed acknowledgement."""
    import socket

    seen: list[int] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        (connection,) = server._state.connections
        seen.append(connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        await answer(send, b"ok")

    server = await listen(look)
    client = await connect(server)
    await client.send(GET)
    await client.read_head()
    assert seen[0] != 0

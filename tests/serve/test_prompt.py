"""Requests that are taken where their body ends, and what is left to the application."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable

import pytest
from starlette.types import Receive, Scope, Send
from tests.serve.conftest import settle

from streamgauge.serve.connections import HELD_BODIES, HELD_BODY, ConnectionLimits, ConnectionTable
from streamgauge.serve.prompt import Whole
from streamgauge.serve.server import HttpServer
from streamgauge.serve.upload_api import UPLOAD_PATH
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio

HEAD = b"POST /upload HTTP/1.1\r\nHost: localhost\r\n"
TAKEN = b"HTTP/1.1 200 OK\r\n"


class App:
    """Answers what is not taken with 202 and the body. takes: whether requests are taken."""

    def __init__(self, takes: bool = True) -> None:
        self.takes = takes
        self.taken: list[Whole] = []

    def begin(self, request: Whole) -> bool:
        if self.takes:
            self.taken.append(request)
        return self.takes

    def answer(self, status: int = 200, body: bytes = b"taken") -> None:
        """The oldest of those that were taken."""
        self.taken.pop(0).respond(status, [(b"content-length", b"%d" % len(body))], body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def post(body: bytes, *headers: bytes) -> bytes:
    return HEAD + b"".join(b"%b\r\n" % line for line in (b"content-length: %d" % len(body), *headers)) + b"\r\n" + body


async def status_of(client) -> int:
    return int((await client.read_head()).split()[1])


async def test_a_request_is_taken_when_its_body_has_come_whole(listen, connect) -> None:
    app = App()
    client = await connect(await listen(app))
    request = post(b"all of it")
    for cut in (len(request), 20, len(request) - 9, len(request) - 1):
        await client.send(request[:cut])
        if cut < len(request):
            assert app.taken == []
            await client.send(request[cut:])
        assert [each.body for each in app.taken] == [b"all of it"]
        assert app.taken[0].scope["path"] == UPLOAD_PATH
        assert app.taken[0].headers[b"host"] == b"localhost"
        app.answer()
        head = await client.read_head()
        assert head.startswith(TAKEN)
        assert b"date: " in head
        assert await client.read(5) == b"taken"


async def test_what_is_not_taken_goes_to_the_application(listen, connect) -> None:
    client = await connect(await listen(App(takes=False)))
    for cut in (1, 60, 200):
        request = post(b"a body")
        await client.send(request[:cut])
        await client.send(request[cut:])
        assert await status_of(client) == 202
        assert await client.read(6) == b"a body"


OTHERS = {
    "chunked": HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "empty": HEAD + b"content-length: 0\r\n\r\n",
    "large": post(bytes(HELD_BODY + 1)),
    "a header twice": post(b"abc", b"x-a: 1", b"x-a: 2"),
    "another path": post(b"abc").replace(b"/upload", b"/uploads"),
}


@pytest.mark.parametrize("case", OTHERS)
async def test_what_is_no_small_whole_request_goes_to_the_application(listen, connect, case: str) -> None:
    app = App()
    client = await connect(await listen(app))
    await client.send(OTHERS[case])
    assert await status_of(client) == 202
    assert app.taken == []


async def test_a_client_that_waits_to_be_told_to_send_is_told(listen, connect) -> None:
    app = App()
    client = await connect(await listen(app))
    await client.send(HEAD + b"content-length: 3\r\nexpect: 100-continue\r\n\r\n")
    assert await status_of(client) == 100
    await client.send(b"abc")
    assert await status_of(client) == 202


async def test_a_bug_in_what_takes_requests_costs_no_answer(listen, connect, caplog) -> None:
    class Broken(App):
        def begin(self, request: Whole) -> bool:
            raise RuntimeError("a bug")

    client = await connect(await listen(Broken()))
    await client.send(post(b"abc"))
    assert await status_of(client) == 202
    assert "is answered by the application" in caplog.text


async def test_answers_keep_the_order_of_requests_that_were_sent_ahead(listen, connect) -> None:
    app = App()
    client = await connect(await listen(app))
    await client.send(post(b"1") + post(b"2") + post(b"3").replace(b"/upload", b"/other") + post(b"4"))
    statuses = []
    for number in (b"1", b"2", b"", b"4"):
        if number:
            assert [each.body for each in app.taken] == [number]
            app.answer(body=number)
        statuses.append(await status_of(client))
        await client.read(1)
    assert statuses == [200, 200, 202, 200]


@pytest.mark.parametrize("request_", [post(b"1", b"connection: close"), post(b"1").replace(b"HTTP/1.1", b"HTTP/1.0")])
async def test_a_connection_ends_with_the_answer_where_its_client_wants_that(listen, connect, request_: bytes) -> None:
    app = App()
    client = await connect(await listen(app))
    await client.send(request_)
    app.answer()
    text = await client.read_all()
    assert text.startswith(TAKEN)
    assert b"connection: close\r\n" in text
    assert text.endswith(b"\r\n\r\ntaken")


async def test_nothing_is_taken_of_a_client_that_does_not_read(listen, connect) -> None:
    app, large = App(), bytes(16 << 20)
    client = await connect(await listen(app))
    await client.send(post(b"1"))
    app.answer(body=large)
    await client.send(post(b"2"))
    assert app.taken == []
    assert await status_of(client) == 200
    assert await client.read(len(large)) == large
    assert await status_of(client) == 202
    assert await client.read(1) == b"2"
    await client.send(post(b"3"))
    app.answer()
    assert await status_of(client) == 200


async def test_a_client_that_goes_away_is_forgotten(listen, connect) -> None:
    app = App()
    server = await listen(app)
    halfway, taken = await connect(server), await connect(server)
    await halfway.send(post(b"some")[:-1])
    await taken.send(post(b"all"))
    halfway.abort()
    taken.abort()
    await settle()
    assert server.connections == 0
    assert len(app.taken) == 1
    app.answer()
    await (again := await connect(server)).send(post(b"all"))
    app.answer()
    assert await status_of(again) == 200


class Forgetful(App):
    """Keeps of requests how they are answered."""

    def __init__(self) -> None:
        super().__init__()
        self.responds: list[Callable[[], None]] = []

    def begin(self, request: Whole) -> bool:
        respond = request.respond
        self.responds.append(lambda: respond(200, [(b"content-length", b"0")], b""))
        return True


async def test_bodies_of_requests_that_were_taken_are_not_kept(listen, connect) -> None:
    """The disk may stall, and there may be thousands of connections."""
    app = Forgetful()
    server = await listen(app)
    clients = [await connect(server) for _ in range(20)]
    await clients[0].send(post(b"first"))
    tracemalloc.start()
    try:
        for client in clients[1:]:
            await client.send(post(bytes(HELD_BODY)))
        await until(lambda: len(app.responds) == 20)
        assert tracemalloc.get_traced_memory()[0] < 5 * HELD_BODY
    finally:
        tracemalloc.stop()
    for respond, client in zip(app.responds, clients, strict=True):
        respond()
        assert await status_of(client) == 200


async def test_a_stop_lets_requests_that_were_taken_be_answered(listen, connect) -> None:
    app = App()
    server: HttpServer = await listen(app)
    client = await connect(server)
    await client.send(post(b"all"))
    stopping = asyncio.ensure_future(server.stop(30))
    await asyncio.sleep(0)
    app.answer()
    await stopping
    assert (await client.read_all()).startswith(TAKEN)


async def test_a_body_that_does_not_come_is_not_waited_for(listen, connect, clock) -> None:
    app = App()
    client = await connect(await listen(app, limits=ConnectionLimits(grace_seconds=1.0)))
    await client.send(post(b"all")[:-1])
    for _ in range(4):
        await clock.advance(1)
    assert await status_of(client) == 408
    assert app.taken == []


def test_only_so_much_is_waited_for() -> None:
    async def scene() -> None:
        table = ConnectionTable(ConnectionLimits())
        held = [table.hold(HELD_BODY) for _ in range(HELD_BODIES // HELD_BODY + 1)]
        assert held == [True] * (len(held) - 1) + [False]
        table.let_go(HELD_BODY)
        assert table.hold(HELD_BODY)

    asyncio.run(scene())

"""Events by WebSocket, over a real listener, with a client of others and with bare bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.frames import Close, Frame, Opcode

from streamgauge.errors import ReadOnly, SyncFailed
from streamgauge.serve.services import HttpOptions, Replay
from streamgauge.serve.websocket import AT_ONCE, BURST, PING_SECONDS, SILENT_SECONDS, WebSocket
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio
PATHS = ["/", "/api/v1/events/ws"]
HANDSHAKE = {
    "host": "localhost",
    "connection": "keep-alive, Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def request(path: str = "/", version: str = "1.1", **changes: str | None) -> bytes:
    headers = HANDSHAKE | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}\r\n" for name, value in headers.items() if value is not None]
    return f"GET {path} HTTP/{version}\r\n{''.join(lines)}\r\n".encode()


def message(payload: bytes, opcode: Opcode = Opcode.TEXT) -> bytes:
    return Frame(opcode, payload).serialize(mask=True)


@asynccontextmanager
async def talking(served, path: str = "/", **options) -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{served.server.port}{path}"
    async with websockets.connect(url, proxy=None, **options) as socket:
        yield socket


async def final_count(socket: ClientConnection) -> int:
    """The last count before the server closes."""
    count = -1
    with pytest.raises(websockets.ConnectionClosed):
        while True:
            latest = int(await socket.recv())
            assert latest >= count
            count = latest
    return count


async def read_frame(client) -> tuple[int, bytes]:
    first, size = await client.read(2)
    return first & 15, await client.read(size)


async def open_raw(served, connect, path: str = "/"):
    client = await connect(served.server)
    await client.send(request(path))
    assert b" 101 " in await client.read_head()
    return client


# ---- the conversation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_each_message_is_an_event_and_the_end_is_counted_and_closed(served, path: str):
    async with talking(served, path) as socket:
        await socket.send('{"a": "é"}')
        assert await socket.recv() == "1"
        for text in ("no JSON", "", b'{"b":2}', b"\xff\x00", ["[1,", "2]"]):
            await socket.send(text)
        await socket.send(b"")
        assert await final_count(socket) == 6
        assert (socket.close_code, socket.close_reason) == (1000, "")
    sink = served.services.event_sink
    assert sink.payloads() == [
        '{"a": "é"}'.encode(),
        b'"no JSON"',
        b'""',
        b'{"b":2}',
        b'{"base64":"/wA="}',
        b"[1,2]",
    ]
    assert sink.streams[1].transport == "websocket"
    assert json.loads(sink.streams[1].headers)["upgrade"] == "websocket"


async def test_an_end_without_events_counts_none(served):
    async with talking(served) as socket:
        await socket.send(b"")
        assert await final_count(socket) == 0
    assert served.services.event_sink.streams.keys() == {1}


async def test_only_what_is_on_disk_is_counted_once_a_burst(served, connect):
    sink = served.services.event_sink
    client = await open_raw(served, connect)
    sink.gate.clear()
    await client.send(message(b"1"))
    await until(lambda: sink.waiting == 1)
    await client.send(b"".join(message(b"%d" % n) for n in range(2, 500)) + message(b"?", Opcode.PING))
    assert await read_frame(client) == (Opcode.PONG, b"?"), "a ping is answered meanwhile, and no count is sent"
    sink.gate.set()
    counts = []
    while not counts or counts[-1] != 499:
        opcode, text = await read_frame(client)
        assert opcode == Opcode.TEXT
        counts.append(int(text))
    assert counts == [1, 499]
    assert sink.payloads() == [b"%d" % n for n in range(1, 500)]


async def test_control_frames_are_not_counted(served, connect):
    client = await open_raw(served, connect)
    await client.send(message(b"a", Opcode.PING) + message(b"b", Opcode.PONG) + message(b"1"))
    assert await read_frame(client) == (Opcode.PONG, b"a")
    assert await read_frame(client) == (Opcode.TEXT, b"1")
    await client.send(message(b"", Opcode.BINARY))
    assert await read_frame(client) == (Opcode.TEXT, b"1")
    assert await read_frame(client) == (Opcode.CLOSE, (1000).to_bytes(2))
    assert await client.read_all() == b"", "the server hangs up"


async def test_a_client_that_closes_has_its_events_stored_and_counted(served, connect):
    client = await open_raw(served, connect)
    close = message(Close(1001, "tab closed").serialize(), Opcode.CLOSE)
    await client.send(message(b"1") + message(b"2") + close)
    frames = [await read_frame(client)]
    while frames[-1][0] != Opcode.CLOSE:
        frames.append(await read_frame(client))
    assert frames[-2:] == [(Opcode.TEXT, b"2"), (Opcode.CLOSE, (1001).to_bytes(2))]
    assert await client.read_all() == b""
    assert len(served.services.event_sink.payloads()) == 2


async def test_a_connection_that_breaks_off_has_its_events_stored(served, connect):
    client = await open_raw(served, connect)
    await client.send(message(b"1") + message(b"2") + message(b"3")[:-1])
    client.abort()
    await until(lambda: served.server.connections == 0)
    await until(lambda: len(served.services.event_sink.payloads()) == 2)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (Frame(Opcode.TEXT, b"not masked").serialize(mask=False), 1002),
        (message(b"x" * 1001), 1009),
        (message(b"\x01", Opcode.CLOSE), 1002),
    ],
)
async def test_what_is_wrong_closes_after_what_came_before_is_stored(served, connect, bad: bytes, code: int):
    client = await open_raw(served, connect)
    await client.send(message(b"1") + bad + message(b"2"))
    opcode, payload = Opcode.TEXT, b""
    while opcode == Opcode.TEXT:
        last = payload
        opcode, payload = await read_frame(client)
    assert (last, opcode, int.from_bytes(payload[:2])) == (b"1", Opcode.CLOSE, code)
    await client.read_all()
    assert served.services.event_sink.payloads() == [b"1"]


@pytest.mark.parametrize("failure", [ReadOnly("the disk is full"), SyncFailed("the disk is gone")])
async def test_a_failing_disk_closes_with_its_reason_and_without_counting(served, failure: Exception):
    async with talking(served) as socket:
        await socket.send("1")
        assert await socket.recv() == "1"
        served.services.event_sink.failure = failure
        await socket.send("2")
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (1013, str(failure))
    assert served.services.event_sink.payloads() == [b"1"]


async def test_no_extension_and_no_subprotocol_is_taken(served):
    async with talking(served, compression="deflate") as socket:
        assert socket.response.headers.get("sec-websocket-extensions") is None
        await socket.send("compressible " * 50)
        assert await socket.recv() == "1"


# ---- names ----------------------------------------------------------------------------------------------------------


async def test_events_that_are_sent_again_after_a_reconnect_are_stored_once(served):
    async with talking(served, "/?stream=a&index=1") as socket:
        assert socket.response.headers["x-stream-next"] == "1"
        for text in "123":
            await socket.send(text)
        await socket.send(b"")
        assert await final_count(socket) == 3
    headers = {"X-Stream-Id": "a", "X-Stream-Index": "2"}
    async with talking(served, "/api/v1/events/ws", additional_headers=headers) as socket:
        assert socket.response.headers["x-stream-next"] == "4"
        for text in "2345":
            await socket.send(text)
        await socket.send(b"")
        assert await final_count(socket) == 4, "the connection's own count, of what is on disk"
    assert served.services.event_sink.payloads() == [b"1", b"2", b"3", b"4", b"5"]
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with talking(served, "/?stream=a&index=7"):
            pass
    assert (refused.value.response.status_code, refused.value.response.headers["x-stream-next"]) == (409, "6")


# ---- handshakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"connection": "close"}, "Connection header did not include 'upgrade'\n"),
        ({"connection": None}, "Connection header did not include 'upgrade'\n"),
        ({"upgrade": "h2c"}, "`Upgrade` header did not include 'websocket'\n"),
        ({"upgrade": None}, "`Upgrade` header did not include 'websocket'\n"),
        ({"sec_websocket_version": "8"}, "`Sec-WebSocket-Version` header did not include '13'\n"),
        ({"sec_websocket_version": None}, "`Sec-WebSocket-Version` header did not include '13'\n"),
        ({"sec_websocket_key": None}, "`Sec-WebSocket-Key` header missing\n"),
    ],
)
async def test_a_wrong_handshake_is_refused_in_the_words_that_clients_know(
    served, connect, path: str, changes: dict[str, str | None], text: str
):
    client = await connect(served.server)
    await client.send(request(path, **changes))
    head = await client.read_head()
    assert b" 400 " in head
    assert b"content-type: text/plain; charset=utf-8" in head
    assert await client.read(len(text)) == text.encode()
    assert not served.services.event_sink.streams


async def test_a_connection_that_cannot_be_upgraded_is_told_so(served, connect):
    client = await connect(served.server)
    await client.send(request(version="1.0"))
    assert b" 426 " in await client.read_head()


async def test_another_upgrade_gets_the_page_as_if_it_had_not_been_asked_for(served, connect):
    client = await connect(served.server)
    await client.send(
        b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n\r\n"
    )
    assert b" 200 " in await client.read_head()


async def test_a_foreign_page_or_name_gets_no_socket(served, serve, connect):
    for changes in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
        client = await connect(served.server)
        await client.send(request(**changes))
        assert b" 403 " in await client.read_head()
    allowing = await serve(HttpOptions(allow_origins=("https://app.example",)))
    async with talking(allowing, origin="https://app.example") as socket:
        await socket.send("1")
        assert await socket.recv() == "1"


async def test_a_socket_waits_for_the_start_and_for_the_disk(served):
    served.services.state = Replay(1, 4, False)
    for path in PATHS:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with talking(served, path):
                pass
        assert refused.value.response.status_code == 503
    served.services.state = Replay(4, 4, True)
    served.services.event_sink.failure = ReadOnly("the disk is full")
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with talking(served):
            pass
    assert (refused.value.response.status_code, refused.value.response.headers["retry-after"]) == (503, "5")


async def test_sockets_at_once_are_limited(served):
    async with talking(served), talking(served), talking(served):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with talking(served):
                pass
        assert refused.value.response.status_code == 503


async def test_what_follows_the_handshake_at_once_is_not_lost(served, connect):
    client = await connect(served.server)
    await client.send(request() + message(b"1") + message(b"", Opcode.BINARY))
    assert b" 101 " in await client.read_head()
    frames = [await read_frame(client), await read_frame(client)]
    assert frames[0] == (Opcode.TEXT, b"1")
    assert served.services.event_sink.payloads() == [b"1"]


# ---- slow, silent and stopping --------------------------------------------------------------------------------------


async def test_no_more_is_read_than_the_disk_takes(served, connect):
    sink = served.services.event_sink
    client = await open_raw(served, connect)
    sink.gate.clear()
    payload = b'"' + b"x" * 990 + b'"'
    count = 4 * BURST // 1000
    work = asyncio.create_task(client.send(message(payload) * count * 4))
    (connection,) = served.server._state.connections
    await until(lambda: connection.flow.read_paused)
    assert connection._socket._size < 3 * BURST
    sink.gate.set()
    await work
    await until(lambda: len(sink.payloads()) == count * 4)


async def test_empty_messages_are_read_no_faster_than_the_disk_takes_them(served, connect):
    sink = served.services.event_sink
    client = await open_raw(served, connect)
    sink.gate.clear()
    count = 200_000
    work = asyncio.create_task(client.send(message(b"") * count))
    (connection,) = served.server._state.connections
    await until(lambda: sink.waiting == 1 and connection.flow.read_paused)
    assert len(connection._socket._messages) < count // 3
    sink.gate.set()
    await work
    await until(lambda: sum(sink.appends) == count)


async def test_small_messages_are_taken_a_few_at_a_time(served, connect):
    client = await open_raw(served, connect)
    (connection,) = served.server._state.connections
    socket = WebSocket(connection, 100)
    socket.received(message(b"x") * (3 * AT_ONCE + 1) + message(b"", Opcode.BINARY))
    assert connection.flow.read_paused
    sizes = []
    async for burst in socket.bursts():
        assert socket.end is not None or connection.flow.read_paused
        sizes.append(len(burst))
    assert sum(sizes) == 3 * AT_ONCE + 1
    assert max(sizes) <= AT_ONCE
    assert not connection.flow.read_paused
    await client.close()


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.PING])
async def test_a_flood_of_empty_frames_is_read_to_its_end(served, connect, opcode: Opcode):
    """Many turns of the loop after the client has sent the last of it."""
    client = await open_raw(served, connect)
    await client.send(message(b"", opcode) * 60_000 + message(b"[1]") + message(b"", Opcode.BINARY))
    sink = served.services.event_sink
    await until(lambda: sum(sink.appends) == (60_001 if opcode is Opcode.TEXT else 1))
    assert sink.payloads()[-1] == b"[1]"
    await client.close()


async def test_a_client_that_never_reads_costs_no_memory_and_gets_the_latest_count(served, connect):
    sink = served.services.event_sink
    client = await open_raw(served, connect)
    (connection,) = served.server._state.connections
    connection.pause_writing()  # as the transport does when nobody reads
    for n in range(1, 20):
        await client.send(message(b"1") + message(b"%d" % n, Opcode.PING))
        await until(lambda n=n: sum(sink.appends) == n)
    assert connection.transport.get_write_buffer_size() == 0
    connection.resume_writing()
    assert await read_frame(client) == (Opcode.PONG, b"19")
    assert await read_frame(client) == (Opcode.TEXT, b"19")


async def test_a_silent_client_is_asked_and_then_given_up(served, connect, clock):
    client = await open_raw(served, connect)
    await clock.advance(PING_SECONDS + 1)
    assert await read_frame(client) == (Opcode.PING, b"")
    await client.send(message(b"", Opcode.PONG))
    await clock.advance(SILENT_SECONDS - 2)
    assert await read_frame(client) == (Opcode.PING, b"")
    assert served.server.connections == 1
    await clock.advance(4)
    assert await client.is_reset()
    assert served.server.closed["silent"] == 1


async def test_a_stopping_server_stores_what_came_and_says_that_it_goes(served, connect):
    sink = served.services.event_sink
    client = await open_raw(served, connect)
    sink.gate.clear()
    await client.send(message(b"1") + message(b"2"))
    await until(lambda: sink.waiting == 1)
    stopping = asyncio.create_task(served.server.stop())
    await asyncio.sleep(0)
    sink.gate.set()
    frames = [await read_frame(client)]
    while frames[-1][0] != Opcode.CLOSE:
        frames.append(await read_frame(client))
    assert frames[-2] == (Opcode.TEXT, b"2")
    assert frames[-1][1][:2] == (1001).to_bytes(2)
    await client.send(message((1001).to_bytes(2), Opcode.CLOSE))
    await client.close()
    await stopping
    assert sink.payloads() == [b"1", b"2"]

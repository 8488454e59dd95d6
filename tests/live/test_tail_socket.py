"""Live tails by WebSocket, with a client of others."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlencode

import pytest
import websockets

from streamgauge.live.hub import TailLimits
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio


def connect(stand, **parameters):
    url = f"ws://127.0.0.1:{stand.server.port}/api/v1/tail?{urlencode(parameters, doseq=True)}"
    return websockets.connect(url, proxy=None, max_size=None, open_timeout=60)


async def receive(socket, count):
    async with asyncio.timeout(60):
        return [json.loads(await socket.recv()) for _ in range(count)]


async def test_each_event_is_a_message(stand):
    async with connect(stand, filter="level=ERROR") as socket:
        await until(lambda: stand.hub.open)
        await stand.write(stand.stream(), 1, {"level": "INFO"}, {"level": "ERROR"}, {"level": "ERROR", "é": "\n"})
        first, second = await receive(socket, 2)
        assert (first["stream_event_index"], second["payload"]) == (2, {"level": "ERROR", "é": "\n"})
        await socket.send("whatever a client says")
        await stand.write(stand.stream(), 1, {"level": "ERROR"})
        assert (await receive(socket, 1))[0]["stream_id"] == 2
    await until(lambda: stand.hub.open == 0)


async def test_history_comes_first_and_a_message_says_where_to_resume(stand):
    stream = stand.stream()
    await stand.write(stream, 1, *({"n": n, "text": "x" * 5000} for n in range(200)))
    async with connect(stand, since="1h") as socket:
        past = await receive(socket, 200)
        assert [event["payload"]["n"] for event in past] == list(range(200))
        await stand.write(stream, 201, {"n": 200})
        assert (await receive(socket, 1))[0]["payload"] == {"n": 200}
    position = f"{past[150]['time']}/{past[150]['stream_event_index']}"
    async with connect(stand, since=position) as socket:
        assert [event["payload"]["n"] for event in await receive(socket, 50)] == list(range(151, 201))


async def test_what_is_wrong_is_said_before_the_handshake(make_stand):
    stand = await make_stand(TailLimits(tails=1))
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(stand, filter="level").__aenter__()
    assert (refused.value.response.status_code, b"is no condition" in refused.value.response.body) == (400, True)
    async with connect(stand):
        await until(lambda: stand.hub.open)
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(stand).__aenter__()
        assert refused.value.response.status_code == 503


async def test_the_server_says_that_it_stops(stand):
    async with connect(stand) as socket:
        await until(lambda: stand.hub.open)
        stand.hub.close()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd.code == 1001


async def test_a_slow_reader_is_told_what_it_lost(make_stand):
    stand = await make_stand(TailLimits(buffer=256 << 10))
    async with connect(stand) as socket:
        await until(lambda: stand.hub.open)
        socket.transport.pause_reading()
        stream, count = stand.stream(), 0
        while not stand.hub.lost:
            await stand.write(stream, count + 1, *({"n": n, "text": "x" * 1000} for n in range(count, count + 64)))
            await until(lambda: stand.hub.queued == 0)
            count += 64
        socket.transport.resume_reading()
        expected = lost = 0
        while expected < count:
            (message,) = await receive(socket, 1)
            if "lost" in message:
                lost += message["lost"]
                expected += message["lost"]
            else:
                assert message["payload"]["n"] == expected
                expected += 1
        assert lost == stand.hub.lost > 0

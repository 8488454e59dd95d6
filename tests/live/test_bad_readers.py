"""Tails whose clients do as they like."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from streamgauge.live.hub import TailLimits
from streamgauge.serve.connections import ConnectionLimits
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio
REQUEST = b"GET /api/v1/tail%b HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def raw(stand, query=b""):
    _, writer = await asyncio.open_connection("127.0.0.1", stand.server.port, limit=1 << 16)
    writer.write(REQUEST % query)

    async def close() -> None:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    stand.stack.push_async_callback(close)
    return writer


async def test_a_client_that_never_reads_is_let_go(make_stand):
    stand = await make_stand(TailLimits(buffer=4 << 20))
    await raw(stand)
    await until(lambda: stand.hub.open == 1)
    stream, count = stand.stream(), 0
    while not stand.hub.lost:
        await stand.write(stream, count + 1, *[["x" * 10_000]] * 64)
        await until(lambda: stand.hub.queued == 0)
        count += 64
    for _ in range(100):  # what the sockets took counts for its rate, so this takes a while
        await stand.clock.advance(ConnectionLimits().grace_seconds)
    await until(lambda: stand.hub.open == 0)
    assert stand.server.closed["reader_too_slow"] == 1


async def test_clients_that_go_away_leave_nothing(stand):
    await stand.write(stand.stream(), 1, *[["x" * 100_000]] * 100)
    for query in (b"", b"?since=1h", b"?kind=samples&since=1h"):
        connections = [await raw(stand, query) for _ in range(5)]
        await until(lambda: stand.hub.open == 5)
        for writer in connections:
            writer.transport.abort()
        await until(lambda: stand.hub.open == 0)
    await until(lambda: not stand.workers.running())
    assert stand.hub.queued == 0
    reader = await stand.tail()
    await stand.write(stand.stream(), 1, 7)
    assert (await reader.next()).json["payload"] == 7


async def test_more_than_can_be_looked_at_is_told(stand):
    """What waits is bounded, also while it comes in without a pause."""
    reader = await stand.tail(filter="n>=0")
    stream = stand.stream()
    payload = {"n": 1, "text": "x" * 900_000}
    await asyncio.gather(*(stand.write(stream, n, payload) for n in range(1, 41)))
    assert stand.hub.queued <= 32 << 20
    seen = 0
    while seen < 40:
        event = await reader.next()
        seen += event.json["unchecked"] + event.json["lost"] if event.event == "lost" else 1
    assert seen == 40

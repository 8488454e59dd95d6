"""Requests that go on end when whoever sent them may not be there any more."""

from __future__ import annotations

import asyncio
import base64

import pytest
from tests.serve.conftest import settle

from streamgauge.auth.tokens import new_token
from streamgauge.ingest.relay.settings import RelaySettings
from streamgauge.relays import Relays
from streamgauge.serve.app import build_app, build_internal_app
from streamgauge.serve.services import HttpOptions
from streamgauge.serve.sessions import CHECK_SECONDS
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink

pytestmark = pytest.mark.anyio


def asks_for(served, clock, *scopes: str, expires: int | None = None) -> str:
    """A token, from which on the server asks for one."""
    text, token = new_token("ci", scopes, [], clock.now_ms(), expires)
    served.authorities.tokens.replace([token])
    served.authorities.asks = True
    return text


async def open_request(connect, served, head: str, token: str):
    """One whose body, or answer, goes on."""
    client = await connect(served.server)
    await client.send(f"{head_of(head, token)}\r\n".encode())
    return client


def head_of(head: str, token: str) -> str:
    """The head of a request without its end."""
    lines = f"{head} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    if head.startswith("POST"):
        lines += "Transfer-Encoding: chunked\r\n"
    else:
        key = base64.b64encode(b"0" * 16).decode()
        lines += (
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        )
    return lines


async def revoke(served) -> None:
    served.authorities.tokens.replace([])
    served.authorities.changed()
    await served.sessions.check()
    await settle()


async def test_a_websocket_is_told_that_its_token_is_revoked(served, connect, clock):
    token = asks_for(served, clock, "write")
    client = await open_request(connect, served, "GET /api/v1/events/ws", token)
    assert b" 101 " in await client.read_head()
    await served.sessions.check()
    await revoke(served)
    rest = await client.read_all()
    assert rest.endswith(b"\x03\xf0the credentials are not good any more")  # 1008
    assert served.sessions.ended == 1


@pytest.mark.parametrize("change", ["relays' token", "own token", "none"])
async def test_who_follows_live_values_by_the_relays_token_goes_with_it(served, connect, clock, listen, change):
    relays = served.services.relays = Relays(RelaySettings(token="old"), (), MemorySink(), Stats(), clock)
    options = HttpOptions(relay=relays.settings)
    server = await listen(build_app(served.services, options, served.stats, served.sessions))
    token = asks_for(served, clock, "write")
    follower = await connect(server)
    lines = head_of("GET /pulse/subscribe/websocket", token) + "X-Auth-Token: old\r\n\r\n"
    await follower.send(lines.encode())
    assert b" 101 " in await follower.read_head()
    await served.sessions.check()
    if change == "relays' token":
        relays.apply(RelaySettings(token="new"))
    elif change == "own token":  # by which it might publish
        served.authorities.tokens.replace([])
        served.authorities.changed()
    await served.sessions.check()
    await settle()
    assert served.sessions.ended == (change != "none")
    if change != "none":
        assert (await follower.read_all()).endswith(b"the credentials are not good any more")


async def test_one_that_does_not_go_is_broken_off_at_the_next_look(served, connect, clock):
    token = asks_for(served, clock, "write")
    client = await open_request(connect, served, "POST /api/v1/write", token)
    await served.services.write_started.wait()
    await revoke(served)
    assert await client.is_reset()
    await served.services.write_ended.wait()


async def test_a_request_ends_when_the_time_of_its_token_is_up(served, connect, clock):
    token = asks_for(served, clock, "write", expires=clock.now_ms() + 5_000)
    client = await open_request(connect, served, "POST /api/v1/write", token)
    await served.services.write_started.wait()
    running = asyncio.ensure_future(served.sessions.run())
    await settle()
    await clock.advance(2 * CHECK_SECONDS)
    assert not served.services.write_ended.is_set()
    await clock.advance(CHECK_SECONDS)
    assert await client.is_reset()
    running.cancel()


async def test_others_stay_when_one_token_is_revoked(served, connect, clock):
    token = asks_for(served, clock, "write")
    client = await open_request(connect, served, "GET /api/v1/events/ws", token)
    await client.read_head()
    served.authorities.changed()
    await served.sessions.check()
    await client.send(b"\x81\x81\x00\x00\x00\x001")
    assert await client.read(3) == b"\x81\x011"
    assert served.sessions.ended == 0


async def test_who_came_before_anybody_was_asked_goes_too(served, connect, clock):
    client = await open_request(connect, served, "POST /api/v1/write", "nobody asks")
    await served.services.write_started.wait()
    asks_for(served, clock, "write")
    served.authorities.changed()
    await served.sessions.check()
    assert await client.is_reset()


@pytest.mark.parametrize("asks", [False, True])
async def test_where_nobody_is_asked_nobody_goes(served, connect, clock, listen, asks):
    sessions = served.sessions
    internal = await listen(build_internal_app(served.services, HttpOptions(), served.stats, sessions, asks=asks))
    client = await connect(internal)
    await client.send(b"GET /federate?match[]=waits HTTP/1.1\r\nHost: localhost\r\n\r\n")
    workers = served.services.workers
    await workers.started.wait()
    asks_for(served, clock, "read")
    served.authorities.changed()
    await sessions.check()
    await settle()
    assert (workers.stopped.is_set(), sessions.ended) == (asks, int(asks))


async def test_less_permission_ends_it_too(served, connect, clock):
    text, token = new_token("ci", ["read", "write"], [], clock.now_ms(), None)
    served.authorities.tokens.replace([token])
    served.authorities.asks = True
    client = await open_request(connect, served, "POST /api/v1/write", text)
    await served.services.write_started.wait()
    served.authorities.tokens.replace([type(token)(token.id, "ci", token.digest, ("read",), (), 0)])
    served.authorities.changed()
    await served.sessions.check()
    assert await client.is_reset()

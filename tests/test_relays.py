"""Live values over TCP are for whoever shows the token, or for everybody where everybody may read the server."""

from __future__ import annotations

import asyncio

import pytest

from streamgauge.ingest.relay.settings import RelaySettings
from streamgauge.live.tags import TagHub
from streamgauge.relays import live_access
from streamgauge.serve.live_tags_tcp import LiveTagsListener
from streamgauge.serve.server import bind

pytestmark = pytest.mark.anyio

PUBLISH = b'{"command":"publish","tags":["cpu"],"data":"9"}\n'
PING = b'{"command":"ping"}\n'
AUTH = b'{"command":"auth","data":"a secret"}\n'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("token", "is_open", "said", "let_in"),
    [
        ("", True, PING, True),
        ("", False, PING, False),
        ("", False, AUTH + PING, False),
        ("a secret", False, AUTH + PING, True),
        ("a secret", True, PING, False),
    ],
)
async def test_who_may_follow(token: str, is_open: bool, said: bytes, let_in: bool) -> None:
    listener = LiveTagsListener(TagHub(), live_access(RelaySettings(token=token), lambda: is_open), lambda: is_open)
    sockets = bind("127.0.0.1", 0)
    await listener.start(sockets)
    try:
        reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
        writer.write(said)
        assert (b'"pong"' in await reader.readline()) == let_in
        writer.close()
    finally:
        await listener.stop()


@pytest.mark.parametrize(("is_open", "answer"), [(True, b'"pong"'), (False, b"may not publish")])
async def test_the_token_alone_is_for_reading(is_open: bool, answer: bytes) -> None:
    access = live_access(RelaySettings(token="a secret"), lambda: is_open)
    listener = LiveTagsListener(TagHub(), access, lambda: is_open)
    sockets = bind("127.0.0.1", 0)
    await listener.start(sockets)
    try:
        reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
        writer.write(AUTH + PUBLISH + PING)
        assert answer in await reader.readline()
        writer.close()
    finally:
        await listener.stop()

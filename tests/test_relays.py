"""Live values over TCP are for whoever shows the token, or for everybody where everybody may read the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from streamgauge.clock import ManualClock
from streamgauge.forward.live.publisher import LivePublisher
from streamgauge.forward.live.target import LiveValue
from streamgauge.ingest.relay.settings import RelaySettings
from streamgauge.ingest.relay.values import Collector
from streamgauge.live.tags import TagHub
from streamgauge.relays import Relays, live_access
from streamgauge.serve.live_tags_tcp import LiveTagsListener
from streamgauge.serve.server import bind
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink
from streamgauge.testing.until import until

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


class Kept:
    """An outlet that keeps what it is given."""

    def __init__(self) -> None:
        self.values: list[LiveValue] = []

    async def run(self, take: Callable[[], Awaitable[Sequence[LiveValue]]], given: Callable[[], None]) -> None:
        while True:
            self.values += await take()
            given()


async def test_values_go_to_publishers_whether_or_not_anybody_follows() -> None:
    clock, stats, kept = ManualClock(), Stats(), Kept()
    publisher = LivePublisher("mist", kept, clock)
    work = asyncio.create_task(publisher.run())
    try:
        relays = Relays(RelaySettings(), [publisher], MemorySink(), stats, clock)
        collector = Collector(b"disk", (b"dc:x",), ())
        for _ in range(2):
            assert relays.listener.live is not None
            relays.listener.live("web1", collector, b"sda", b"1.5")
            relays.live_tags.join().close()
        await until(lambda: publisher.published == 2)
        tags = ("dc:x", "metrics", "host:web1", "sda")
        assert kept.values == [LiveValue("web1", "disk", "sda", "1.5", tags, clock.now_ms())] * 2
        assert b'streamgauge_live_publish_published_total{to="mist"} 2.0' in stats.exposition()
        assert Relays(RelaySettings(), [], MemorySink(), Stats(), clock).listener.live is None
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

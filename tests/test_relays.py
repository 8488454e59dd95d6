"""Live values over TCP are for whoever shows the token, or for everybody where everybody may read the server."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from streamgauge.clock import ManualClock, SystemClock
from streamgauge.errors import ConfigError
from streamgauge.forward.live.publisher import LivePublisher
from streamgauge.forward.live.target import LiveValue
from streamgauge.ingest.relay.settings import RelaySettings
from streamgauge.ingest.relay.values import Collector
from streamgauge.live.tags import TagHub
from streamgauge.relays import Relays, live_access, open_relays
from streamgauge.serve import live_tags_tcp
from streamgauge.serve.live_tags_tcp import LiveTagsListener
from streamgauge.serve.server import bind
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink
from streamgauge.testing.certificates import CertificateAuthority, Pair
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
    listener = LiveTagsListener(
        TagHub(), live_access(lambda: RelaySettings(token=token), lambda: is_open), lambda: is_open
    )
    sockets = bind("127.0.0.1", 0)
    await listener.start(sockets)
    try:
        reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
        writer.write(said)
        assert (b'"pong"' in await reader.readline()) == let_in
        writer.close()
    finally:
        await listener.stop()


async def test_a_first_message_that_is_nested_too_deeply_is_no_token() -> None:
    access = live_access(lambda: RelaySettings(token="a secret"), lambda: False)
    listener = LiveTagsListener(TagHub(), access, lambda: False)
    sockets = bind("127.0.0.1", 0)
    await listener.start(sockets)
    try:
        reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
        writer.write(b"[" * 60_000 + b"\n")
        assert b"the first message must be auth" in await reader.readline()
        writer.close()
    finally:
        await listener.stop()


@pytest.mark.parametrize(("is_open", "answer"), [(True, b'"pong"'), (False, b"may not publish")])
async def test_the_token_alone_is_for_reading(is_open: bool, answer: bytes) -> None:
    access = live_access(lambda: RelaySettings(token="a secret"), lambda: is_open)
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


async def test_connections_are_bounded_before_they_show_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_tags_tcp, "MAX_CONNECTIONS", 2)
    listener = LiveTagsListener(TagHub(), lambda token: token == "a secret", lambda: False)
    sockets = bind("127.0.0.1", 0)
    await listener.start(sockets)
    try:
        silent, first = [await asyncio.open_connection(*sockets[0].getsockname()) for _ in range(2)]
        await until(lambda: len(listener._tasks) == 2)
        reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
        assert b"2 are connected already" in await reader.read()
        writer.close()
        assert [reading.values[()] for reading in listener.readings()] == [1]
        silent[1].close()
        await until(lambda: len(listener._tasks) == 1)
        last = await asyncio.open_connection(*sockets[0].getsockname())
        for each in (first, last):
            each[1].write(AUTH + PING)
            assert b'"pong"' in await each[0].readline()
            each[1].close()
    finally:
        await listener.stop()


async def test_others_have_their_turn_after_each_line() -> None:
    together, most = 0, 0

    def may_publish() -> bool:  # asked for each line
        nonlocal together, most
        together += 1
        most = max(most, together)
        return True

    async def tick() -> None:
        nonlocal together
        while True:
            together = 0
            await asyncio.sleep(0)

    listener = LiveTagsListener(TagHub(), lambda token: True, may_publish)
    sockets = bind("127.0.0.1", 0)
    await listener.start(sockets)
    ticking = asyncio.ensure_future(tick())
    try:
        reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
        writer.write(PING * 500)
        for _ in range(500):
            assert b'"pong"' in await reader.readline()
        assert most <= 2
        writer.close()
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        await listener.stop()


class Kept:
    """An outlet that keeps what it is given."""

    def __init__(self) -> None:
        self.values: list[LiveValue] = []

    async def run(self, take: Callable[[], Awaitable[Sequence[LiveValue]]], given: Callable[[int], None]) -> None:
        while True:
            self.values += await take()
            given(0)


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


class Opened:
    """Everything that a section `relay:` starts, in this process. relay, live, stats: ports."""

    def __init__(self, relays: Relays, sink: MemorySink, stats: Stats, messages: Sequence[str]) -> None:
        self.relays, self.sink, self.stats = relays, sink, stats
        self.relay, self.live, self.http = (
            int(next(re.findall(r":(\d+)/?$", text)[0] for text in messages if words in text))
            for words in ("relays are listened for", "live values are on", "the stats API is on")
        )


async def pong(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers everything."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"pong"})


@pytest.fixture
async def open_all(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Callable[[RelaySettings], Awaitable[Opened]]]:
    caplog.set_level(logging.INFO)
    tasks: list[asyncio.Task[None]] = []
    async with AsyncExitStack() as stack:

        async def begin(settings: RelaySettings) -> Opened:
            everywhere = {"listen": "127.0.0.1:0", "live_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}
            sink, stats = MemorySink(), Stats()
            relays = await open_relays(
                replace(settings, explicit=True, **everywhere),
                (),
                sink,
                stats,
                SystemClock(),
                pong,
                stack,
                lambda work: tasks.append(asyncio.ensure_future(work)),
                lambda: True,
            )
            return Opened(relays, sink, stats, caplog.messages)

        yield begin
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


def trusting(authority: CertificateAuthority, shown: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    if shown is not None:
        context.load_cert_chain(shown.cert, shown.key)
    return context


async def said(port: int, context: ssl.SSLContext | None, text: bytes) -> bytes:
    """The first line that a listener answers; nothing where it hangs up."""
    name = None if context is None else "localhost"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        writer.write(text)
        line = await reader.readline()
        writer.transport.abort()
    except OSError:
        return b""
    return line


ASK = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def test_with_certificates_all_listeners_are_for_who_shows_one(open_all, authority: CertificateAuthority) -> None:
    pair, stranger = authority.issue("CN=relays"), CertificateAuthority(authority.file.parent, "stranger")
    files = {"tls_cert": str(pair.cert), "tls_key": str(pair.key), "tls_client_ca": str(authority.file)}
    opened = await open_all(RelaySettings(**files, http_tls=True))
    good, none = trusting(authority, authority.issue("CN=web1")), trusting(authority)
    wrong = trusting(authority, stranger.issue("CN=web1"))
    for port, text, answer in (
        (opened.relay, b"id web2\n", b"ok\n"),  # any id
        (opened.live, PING, b'{"command":"ping","tags":[],"data":"pong"}\n'),
        (opened.http, ASK, b"HTTP/1.1 200 OK\r\n"),
    ):
        assert await said(port, good, text) == answer
        for context in (none, wrong, None):
            assert await said(port, context, text) == b"", (port, context)
    assert b"streamgauge_relay_handshakes_failed_total{" in opened.stats.exposition()


async def test_no_relay_takes_an_id_that_its_certificate_does_not_have(
    open_all, authority: CertificateAuthority
) -> None:
    pair = authority.issue("CN=relays")
    files = {"tls_cert": str(pair.cert), "tls_key": str(pair.key), "tls_client_ca": str(authority.file)}
    opened = await open_all(RelaySettings(**files, tls_client_ids=True))
    web1 = trusting(authority, authority.issue("CN=web1"))
    for name, answer in (
        (b"web1", b"ok\n"),
        (b"localhost", b"ok\n"),  # its DNS name
        (b"web2", b"the certificate is not of this id\n"),
        (b"WEB1", b"the certificate is not of this id\n"),
    ):
        assert await said(opened.relay, web1, b"id " + name + b"\n") == answer, name
    ended = b'streamgauge_relay_connections_ended_total{reason="foreign_id"} 2.0'
    await until(lambda: ended in opened.stats.exposition())


async def test_a_relay_by_tls_is_asked_and_answers(open_all, authority: CertificateAuthority) -> None:
    pair = authority.issue("CN=relays")
    opened = await open_all(RelaySettings(tls_cert=str(pair.cert), tls_key=str(pair.key)))
    context = trusting(authority)
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.relay, ssl=context, server_hostname="localhost")
    values = b",".join(b"disk-d%d:%d.5" % (number, number) for number in range(3_000))
    writer.write(b"id web1\nadd disk:dc:a\n")
    while await reader.readline() != b"get disk\n":
        pass
    writer.write(b"got " + values + b"\n")
    await until(lambda: len(opened.sink.series()) == 3_000)
    assert {"__name__": "d2999", "host": "web1", "dc": "a"} in opened.sink.series()
    writer.transport.abort()
    assert await said(opened.http, None, ASK) == b"HTTP/1.1 200 OK\r\n"  # `insecure` leaves that as it was


async def test_who_is_not_allowed_gets_no_handshake(open_all, authority: CertificateAuthority) -> None:
    pair = authority.issue("CN=relays")
    allow = (ipaddress.ip_network("10.0.0.0/8"),)
    opened = await open_all(RelaySettings(tls_cert=str(pair.cert), tls_key=str(pair.key), allow=allow))
    assert await said(opened.relay, trusting(authority), b"id web1\n") == b""
    failed = b'streamgauge_relay_handshakes_failed_total{reason="not_allowed"} 1.0'
    assert failed in opened.stats.exposition()
    assert b"pong" in await said(opened.live, trusting(authority), PING)


async def test_a_certificate_that_is_renewed_is_shown_from_then_on(open_all, authority: CertificateAuthority) -> None:
    pair = authority.issue("CN=old", file="renewed")
    opened = await open_all(RelaySettings(tls_cert=str(pair.cert), tls_key=str(pair.key)))

    async def subject() -> object:
        context = trusting(authority)
        _, writer = await asyncio.open_connection("127.0.0.1", opened.relay, ssl=context, server_hostname="localhost")
        found = writer.get_extra_info("peercert")["subject"]
        writer.transport.abort()
        return found[0][0][1]

    assert await subject() == "old"
    authority.issue("CN=new", file="renewed")
    opened.relays.apply(opened.relays.settings)
    assert await subject() == "new"


async def test_a_reload_ends_who_came_with_the_token_of_before(open_all) -> None:
    opened = await open_all(RelaySettings(token="old"))
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.live)
    writer.write(b'{"command":"auth","data":"old"}\n' + PING)
    assert b"pong" in await reader.readline()
    opened.relays.apply(replace(opened.relays.settings, token="new"))
    assert await reader.read() == b""
    writer.transport.abort()
    assert b"error" in await said(opened.live, None, b'{"command":"auth","data":"old"}\n' + PING)
    assert b"pong" in await said(opened.live, None, b'{"command":"auth","data":"new"}\n' + PING)


async def test_certificates_that_cannot_be_used_are_said_at_the_start(open_all, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used for TLS"):
        await open_all(RelaySettings(tls_cert=str(tmp_path / "a"), tls_key=str(tmp_path / "b")))

"""TLS: handshakes good and bad, clients' certificates, and certificates that change while the server runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import ssl
from pathlib import Path

import pytest
from tests.serve.conftest import settle

from streamgauge.clock import ManualClock
from streamgauge.errors import ConfigError
from streamgauge.serve.connections import ConnectionLimits
from streamgauge.serve.server import HttpServer
from streamgauge.serve.tls import CHECK_SECONDS, Tls, TlsFiles
from streamgauge.testing.certificates import CertificateAuthority

pytestmark = pytest.mark.anyio

MEGABYTES = 3 << 20
PIECE = 1 << 16


async def echo(scope, receive, send):
    """Tells who is there and how much was sent, and answers with as much as is asked for."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    certificate = scope.get("extensions", {}).get("tls", {}).get("client_cert")
    subject = certificate and certificate["subject"]
    body = json.dumps({"scheme": scope["scheme"], "subject": subject, "size": size}).encode()
    body = body.ljust(int(scope["query_string"] or 0))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    for begin in range(0, len(body), PIECE):
        await send({"type": "http.response.body", "body": body[begin : begin + PIECE], "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority):
    return authority.issue("CN=server")


class Site:
    def __init__(self, server: HttpServer, tls: Tls, ca: Path) -> None:
        self.server, self.tls, self._ca = server, tls, ca

    def context(self, client=None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._ca)
        if client is not None:
            context.load_cert_chain(client.cert, client.key)
        return context

    async def open(self, context: ssl.SSLContext | None = None):
        return await asyncio.open_connection(
            "127.0.0.1", self.server.port, ssl=context or self.context(), server_hostname="localhost"
        )

    async def ask(self, client=None, path: str = "/", body: bytes = b"", connection=None) -> dict[str, object]:
        reader, writer = connection or await self.open(self.context(client))
        try:
            writer.write(
                b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body
            )
            await reader.readuntil(b"\r\n\r\n")
            answer = await reader.readuntil(b"}")
        finally:
            if connection is None:
                writer.transport.abort()
        return json.loads(answer)


@pytest.fixture
async def start(clock: ManualClock, authority):
    servers = []

    async def begin(files: TlsFiles, limits: ConnectionLimits | None = None) -> Site:
        tls = Tls(files, clock)
        server = HttpServer(echo, clock=clock, tls=tls, limits=limits)
        await server.start()
        servers.append(server)
        return Site(server, tls, authority.file)

    yield begin
    for server in servers:
        await server.stop(0)


@pytest.fixture
async def site(start, pair) -> Site:
    return await start(TlsFiles(str(pair.cert), str(pair.key)))


async def test_requests_of_any_size_go_and_come(site: Site) -> None:
    assert await site.ask(body=b"x" * MEGABYTES) == {"scheme": "https", "subject": None, "size": MEGABYTES}
    reader, writer = await site.open()
    writer.write(b"GET /?%d HTTP/1.1\r\nHost: x\r\n\r\n" % MEGABYTES)
    await reader.readuntil(b"\r\n\r\n")
    assert len(await reader.readexactly(MEGABYTES)) == MEGABYTES
    writer.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_old_versions_are_not_spoken(site: Site) -> None:
    context = site.context()
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await site.open(context)
    await settle()
    assert site.server.closed["tls_failed"] == 1
    assert site.server.connections == 0


async def test_whoever_speaks_no_tls_gets_nowhere(site: Site, connect) -> None:
    client = await connect(site.server)
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 2_000)
    rest = b""
    with contextlib.suppress(ConnectionError):
        rest = await client.read_all()
    assert b"HTTP" not in rest
    await settle()
    assert site.server.connections == 0


async def test_a_client_that_never_shakes_hands_is_dropped(start, pair, connect, clock: ManualClock) -> None:
    limits = ConnectionLimits()
    site = await start(TlsFiles(str(pair.cert), str(pair.key)), limits)
    silent, slow = await connect(site.server), await connect(site.server)
    await slow.send(b"\x16\x03\x01\x02\x00\x01")  # the first bytes of a ClientHello
    assert site.server.connections == 2
    await clock.advance(limits.header_seconds - 1)
    assert site.server.connections == 2
    await clock.advance(2)
    for client in (silent, slow):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.read(1)
    assert (site.server.connections, site.server.closed["tls_timeout"]) == (0, 2)


async def test_handshakes_count_as_connections(start, pair, connect) -> None:
    site = await start(TlsFiles(str(pair.cert), str(pair.key)), ConnectionLimits(connections=3))
    for _ in range(6):
        await connect(site.server)
    await settle()
    assert site.server.connections <= 3
    assert site.server.closed["evicted"] == 3
    assert (await site.ask())["scheme"] == "https"


async def test_a_reader_that_does_not_read_is_cut_off(site: Site, clock: ManualClock) -> None:
    _, writer = await site.open()
    writer.transport.pause_reading()
    writer.write(b"GET /?%d HTTP/1.1\r\nHost: x\r\n\r\n" % (64 << 20))
    while not site.server.closed["reader_too_slow"]:
        await clock.advance(5)
        await settle()
    assert site.server.connections == 0
    writer.transport.abort()


# ---- clients' certificates ------------------------------------------------------------------------------------------


async def test_a_client_may_show_a_certificate(start, pair, authority) -> None:
    site = await start(TlsFiles(str(pair.cert), str(pair.key), str(authority.file)))
    answer = await site.ask(authority.issue("CN=agent,O=Example"))
    assert answer["subject"] == [[["organizationName", "Example"]], [["commonName", "agent"]]]
    assert (await site.ask())["subject"] is None


async def test_a_bad_certificate_is_refused_though_none_is_needed(start, pair, authority, tmp_path) -> None:
    site = await start(TlsFiles(str(pair.cert), str(pair.key), str(authority.file)))
    stranger = CertificateAuthority(tmp_path, "stranger").issue("CN=agent,O=Example")
    for bad in (stranger, authority.issue("CN=agent", days=-1)):
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await site.ask(bad)
    await settle()
    assert site.server.closed["tls_failed"] == 2


async def test_without_a_certificate_nobody_gets_in_where_one_is_required(start, pair, authority) -> None:
    site = await start(TlsFiles(str(pair.cert), str(pair.key), str(authority.file), required=True))
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await site.ask()
    assert (await site.ask(authority.issue("CN=agent")))["subject"] == [[["commonName", "agent"]]]


# ---- files that change ----------------------------------------------------------------------------------------------


async def served_name(site: Site, authority) -> str:
    _, writer = await site.open()
    certificate = writer.get_extra_info("peercert")
    writer.transport.abort()
    return certificate["subject"][-1][0][1]


async def test_a_certificate_that_changes_is_served_and_connections_go_on(
    start, authority, tmp_path, clock: ManualClock, caplog
) -> None:
    files = [tmp_path / "tls.pem", tmp_path / "tls.key"]

    def put(name: str) -> None:
        made = authority.issue(f"CN={name}", file=name)
        for source, target in zip((made.cert, made.key), files, strict=True):
            shutil.copyfile(source, tmp_path / "new")
            os.replace(tmp_path / "new", target)

    put("first")
    site = await start(TlsFiles(*map(str, files)))
    running = asyncio.ensure_future(site.tls.run())
    await settle()
    old = await site.open()
    assert await served_name(site, authority) == "first"
    put("second")
    await clock.advance(CHECK_SECONDS)
    assert await served_name(site, authority) == "second"
    assert (await site.ask(connection=old))["scheme"] == "https"

    shutil.copyfile(authority.issue("CN=third", file="third").cert, files[0])  # without its key
    for _ in range(3):
        await clock.advance(CHECK_SECONDS)
    assert await served_name(site, authority) == "second"
    assert len([r for r in caplog.records if "the old one stays" in r.getMessage()]) == 1
    files[1].unlink()
    await clock.advance(CHECK_SECONDS)
    assert await served_name(site, authority) == "second"
    put("fourth")
    await clock.advance(CHECK_SECONDS)
    assert await served_name(site, authority) == "fourth"
    old[1].transport.abort()
    running.cancel()


async def test_files_that_cannot_be_used_at_the_start(pair, tmp_path, clock: ManualClock) -> None:
    (tmp_path / "junk").write_text("junk")
    for certificate, key in ((tmp_path / "junk", pair.key), (pair.cert, tmp_path / "missing"), (pair.key, pair.cert)):
        with pytest.raises(ConfigError, match="cannot be used for TLS"):
            Tls(TlsFiles(str(certificate), str(key)), clock)

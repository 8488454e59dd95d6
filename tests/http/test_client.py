"""The HTTP client against servers that do what they should not."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import socket
import ssl
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from streamgauge.errors import ConfigError, FetchFailed
from streamgauge.http.client import Answer, HttpClient, Resolver, _Connection
from streamgauge.http.options import HttpOptions, Secret, Tls, TlsContexts
from streamgauge.testing.target import HttpTarget, Request, answer, http_target
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio

LIMIT = 1 << 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def target() -> AsyncIterator[HttpTarget]:
    async with http_target() as serving:
        yield serving


@pytest.fixture
async def resolver() -> AsyncIterator[Resolver]:
    resolver = Resolver()
    yield resolver
    resolver.close()


def client(resolver: Resolver, options: HttpOptions | None = None) -> HttpClient:
    options = options or HttpOptions()
    return HttpClient(options, TlsContexts(options.tls), resolver)


async def test_one_connection_is_kept_and_opened_again(target: HttpTarget, resolver: Resolver) -> None:
    fetching = client(resolver)
    for _ in range(3):
        assert (await fetching.get(target.url(), {}, LIMIT)).body == b"a 1\n"
    assert target.connections == 1
    target.close = True
    await fetching.get(target.url(), {}, LIMIT)
    await fetching.get(target.url(), {}, LIMIT)
    assert target.connections == 2
    fetching.close()


async def test_a_name_is_looked_up(target: HttpTarget, resolver: Resolver) -> None:
    fetching = client(resolver)
    assert (await fetching.get(f"http://localhost:{target.port}/", {}, LIMIT)).status == 200
    assert target.requests[0].headers["host"] == f"localhost:{target.port}"
    with pytest.raises(FetchFailed, match=r"looking up nowhere\.invalid: "):
        await fetching.get("http://nowhere.invalid/", {}, LIMIT)
    fetching.close()


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "this is no HTTP answer"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
            "the connection was closed in the middle of the answer",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nlonger", "the answer has more bytes than it announced"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "this is no HTTP answer"),
        (CHUNKED + b"5\r\nhello\r\n", "the connection was closed in the middle of the answer"),
        (CHUNKED + b"zz\r\n", "this is no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000 + b"\r\n", "the head of the answer is larger than"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (LIMIT + 1), f"the body is larger than {LIMIT} bytes"),
        (CHUNKED + b"%x\r\n" % (LIMIT + 1) + b"x" * (LIMIT + 1), f"the body is larger than {LIMIT} bytes"),
        (CHUNKED + b"0\r\n" + b"x: y\r\n" * 100_000 + b"\r\n", "between or behind the chunks of the answer is larger"),
        (
            CHUNKED + b"0\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n",
            "between or behind the chunks of the answer is larger",
        ),
        (CHUNKED + b"1;" + b"y" * 1_000_000 + b"\r\na\r\n", "between or behind the chunks of the answer is larger"),
        (answer(b"x", headers={"content-encoding": "br"}), 'content encoding "br" is not spoken here; gzip is'),
        (answer(b"no gzip at all", headers={"content-encoding": "gzip"}), "the body is no gzip"),
        (b"", "the connection was closed before there was an answer"),
    ],
)
async def test_answers_that_are_none(target: HttpTarget, resolver: Resolver, reply: bytes, words: str) -> None:
    target.reply, target.close = reply, True
    fetching = client(resolver)
    with pytest.raises(FetchFailed, match=words):
        await fetching.get(target.url(), {}, LIMIT)
    target.reply, target.close = answer("a 1\n"), False
    assert (await fetching.get(target.url(), {}, LIMIT)).body == b"a 1\n"
    fetching.close()


async def test_a_body_may_end_with_the_connection(target: HttpTarget, resolver: Resolver) -> None:
    target.reply, target.close = b"HTTP/1.0 200 OK\r\n\r\na 1\n", True
    assert (await client(resolver).get(target.url(), {}, LIMIT)).body == b"a 1\n"
    target.reply = CHUNKED + b"2\r\na \r\n2\r\n1\n\r\n0\r\n\r\n"
    assert (await client(resolver).get(target.url(), {}, LIMIT)).body == b"a 1\n"
    target.reply = b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer("a 1\n")
    assert (await client(resolver).get(target.url(), {}, LIMIT)).body == b"a 1\n"


async def test_giving_up_closes_the_connection(target: HttpTarget, resolver: Resolver) -> None:
    target.reply = lambda request: None
    fetching = client(resolver)
    waiting = asyncio.create_task(fetching.get(target.url(), {}, LIMIT))
    await until(lambda: target.requests)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    target.reply = answer("a 1\n")
    assert (await fetching.get(target.url(), {}, LIMIT)).body == b"a 1\n"
    fetching.close()


async def test_a_body_is_posted(target: HttpTarget, resolver: Resolver) -> None:
    options = HttpOptions(scheme="Bearer", credentials=Secret("sesame"))
    fetching = client(resolver, options)
    body = bytes(range(256)) * 4096
    answered = await fetching.post(target.url("/push?a=1"), {"content-type": "x/y"}, body, LIMIT)
    assert (answered.status, answered.body) == (200, b"a 1\n")
    target.close = True
    await fetching.post(target.url(), {}, b"", LIMIT)
    await fetching.post(target.url(), {}, b"again", LIMIT, authorization="Bearer other")
    assert [(r.method, r.target, r.body) for r in target.requests] == [
        ("POST", "/push?a=1", body),
        ("POST", "/metrics", b""),
        ("POST", "/metrics", b"again"),
    ]
    assert target.requests[0].headers["content-type"] == "x/y"
    assert [r.headers["authorization"] for r in target.requests] == ["Bearer sesame", "Bearer sesame", "Bearer other"]
    assert target.connections == 2
    fetching.close()


async def test_a_post_is_redirected_with_its_body_or_not_at_all(target: HttpTarget, resolver: Resolver) -> None:
    async with http_target() as other:
        target.reply = redirect(other.url("/there"), "307 Temporary Redirect")
        fetching = client(resolver)
        assert (await fetching.post(target.url(), {}, b"body", LIMIT, authorization="Bearer sesame")).status == 200
        assert other.requests == [Request("/there", {"host": other.address, "content-length": "4"}, "POST", b"body")]
        target.reply = redirect(other.url("/there"))
        assert (await fetching.post(target.url(), {}, b"body", LIMIT)).status == 302
        assert len(other.requests) == 1
        fetching.close()


def redirect(to: str, status: str = "302 Found") -> bytes:
    return answer(b"", status=status, headers={"location": to})


async def test_redirects(target: HttpTarget, resolver: Resolver) -> None:
    options = HttpOptions(scheme="Bearer", credentials=Secret("sesame"))
    async with http_target() as other:

        def reply(request: Request) -> bytes:
            return redirect({"/a": "/b", "/b": other.url("/c")}[request.target])

        target.reply = reply
        fetching = client(resolver, options)
        assert (await fetching.get(target.url("/a"), {}, LIMIT)).body == b"a 1\n"
        assert [request.headers.get("authorization") for request in target.requests] == ["Bearer sesame"] * 2
        assert "authorization" not in other.requests[0].headers, "another host does not get the secret"
        fetching.close()
    for to, words in (
        ("file:///etc/passwd", "redirected to file:///etc/passwd; only http and https are followed"),
        (target.url("/a"), "redirected more than 10 times"),
        ("http://[::1/", "is no URL"),
    ):
        target.reply = redirect(to)
        fetching = client(resolver)
        with pytest.raises(FetchFailed, match=words):
            await fetching.get(target.url("/a"), {}, LIMIT)
        fetching.close()
    fetching = client(resolver, HttpOptions(follow_redirects=False))
    assert (await fetching.get(target.url("/a"), {}, LIMIT)).status == 302
    fetching.close()


async def test_who_asks(target: HttpTarget, resolver: Resolver, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("pässword\n", encoding="utf-8")
    for options, header in (
        (HttpOptions(user=Secret("u"), password=Secret(file=str(file))), "Basic dTpww6Rzc3dvcmQ="),
        (HttpOptions(scheme="Token", credentials=Secret("t")), "Token t"),
    ):
        fetching = client(resolver, options)
        await fetching.get(target.url(), {"x": "y"}, LIMIT)
        assert target.requests[-1].headers["authorization"] == header
        assert target.requests[-1].headers["x"] == "y"
        fetching.close()
    fetching = client(
        resolver, HttpOptions(headers=(("x-scope", Secret("a")),), credentials=Secret(file=str(file) + "x"))
    )
    with pytest.raises(ConfigError, match="secretx cannot be read: No such file"):
        await fetching.get(target.url(), {}, LIMIT)
    fetching = client(resolver, HttpOptions(headers=(("x-scope", Secret("a\r\nb")),)))
    with pytest.raises(FetchFailed, match="line break"):
        await fetching.get(target.url(), {}, LIMIT)


async def test_what_is_asked_again_is_up_to_date(target: HttpTarget, resolver: Resolver, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    fetching = client(resolver, HttpOptions(scheme="Bearer", credentials=Secret(file=str(file))))
    for secret in ("old", "new"):
        file.write_text(secret)
        await fetching.get(target.url(), {}, LIMIT)
        assert target.requests[-1].headers["authorization"] == f"Bearer {secret}"
    fetching.close()
    fetching, headers = client(resolver), {"x": "1"}
    for path, value in (("/a", "1"), ("/a", "1"), ("/a", "2"), ("/b", "2")):
        headers["x"] = value
        await fetching.get(target.url(path), headers, LIMIT)
        assert (target.requests[-1].target, target.requests[-1].headers["x"]) == (path, value)
    fetching.close()


@pytest.mark.parametrize("url", ["ftp://x/", "http:///x", "x", "http://h:99999/", "http://[::1/"])
async def test_urls_that_are_none(resolver: Resolver, url: str) -> None:
    with pytest.raises(FetchFailed):
        await client(resolver).get(url, {}, LIMIT)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, an authority of the test's own, and server.pem and client.pem with their keys."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        "req",
        "-x509",
        *new,
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=test",
        "-days",
        "2",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
    )
    for name in ("server", "client"):
        (folder / f"{name}.ext").write_text("subjectAltName=DNS:target.example,DNS:localhost")
        openssl("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    return folder


async def test_tls(certificate: Path, resolver: Resolver) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "server.pem", certificate / "server.key")
    authority = Secret(file=str(certificate / "ca.pem"))
    inline = Secret((certificate / "ca.pem").read_text())
    async with http_target(context) as target:
        body = b"a 1\n" * 300_000
        target.reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        url = f"https://localhost:{target.port}/"
        numbered = f"https://127.0.0.1:{target.port}/"
        for tls, place, words in (
            (Tls(ca=authority), url, ""),
            (Tls(ca=inline), url, ""),
            (Tls(ca=authority, server_name="target.example"), numbered, ""),
            (Tls(verify=False), numbered, ""),
            (Tls(), url, "the certificate is not accepted"),
            (Tls(ca=authority), numbered, "the certificate is not accepted: IP address mismatch"),
            (Tls(ca=authority, newest="TLS12", oldest="TLS13"), url, "connecting to"),
        ):
            fetching = client(resolver, HttpOptions(tls=tls))
            if words:
                with pytest.raises(FetchFailed, match=words):
                    await fetching.get(place, {}, LIMIT)
            else:
                assert (await fetching.get(place, {}, len(body))).body == body
            fetching.close()
        fetching = client(resolver, HttpOptions(tls=Tls(ca=Secret(file="/nowhere.pem"))))
        with pytest.raises(ConfigError, match=r"/nowhere\.pem"):
            await fetching.get(url, {}, LIMIT)


async def test_a_certificate_of_ours(certificate: Path, resolver: Resolver) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate / "ca.pem"))
    context.load_cert_chain(certificate / "server.pem", certificate / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    own = (Secret(file=str(certificate / "client.pem")), Secret((certificate / "client.key").read_text()))
    async with http_target(context) as target:
        url = f"https://localhost:{target.port}/"
        authority = Secret(file=str(certificate / "ca.pem"))
        fetching = client(resolver, HttpOptions(tls=Tls(ca=authority, cert=own[0], key=own[1])))
        assert (await fetching.get(url, {}, LIMIT)).body == b"a 1\n"
        fetching.close()
        fetching = client(resolver, HttpOptions(tls=Tls(ca=authority)))
        with pytest.raises(FetchFailed):
            await fetching.get(url, {}, LIMIT)
        fetching.close()


async def test_a_url_may_say_who_asks(target: HttpTarget, resolver: Resolver) -> None:
    url = f"http://u%40x:p@{target.address}"
    async with http_target() as other:

        def reply(request: Request) -> bytes:
            return redirect({"/a": "/b", "/b": target.url("/c"), "/c": other.url("/d")}[request.target])

        target.reply = reply
        fetching = client(resolver)
        await fetching.get(f"{url}/a", {}, LIMIT)
        assert [request.headers.get("authorization") for request in target.requests] == ["Basic dUB4OnA="] * 3
        assert target.connections == 1
        assert "authorization" not in other.requests[0].headers, "another host does not get it"
        fetching.close()
    target.reply = answer("a 1\n")
    fetching = client(resolver, HttpOptions(scheme="Bearer", credentials=Secret("sesame")))
    await fetching.get(f"{url}/a", {}, LIMIT)
    assert target.requests[-1].headers["authorization"] == "Bearer sesame", "what is configured comes first"
    fetching.close()
    with pytest.raises(FetchFailed) as raised:
        await client(resolver).get("http://u:sesame@h:99999/", {}, LIMIT)
    assert raised.value.message == "h:99999 has no valid port"


async def test_trailers_have_no_say(target: HttpTarget, resolver: Resolver) -> None:
    trailers = b"content-encoding: br\r\nlocation: /b\r\ncontent-type: text/html\r\n"
    target.reply = CHUNKED + b"4\r\na 1\n\r\n0\r\n" + trailers + b"\r\n"
    fetching = client(resolver)
    for _ in range(2):
        got = await fetching.get(target.url(), {}, LIMIT)
        assert (got.body, dict(got.headers)) == (b"a 1\n", {"transfer-encoding": "chunked"})
    assert target.connections == 1
    fetching.close()


async def test_small_chunks_take_no_more_memory(target: HttpTarget, resolver: Resolver) -> None:
    count = 100_000
    target.reply = CHUNKED + b"2\r\nab\r\n" * count + b"0\r\n\r\n"
    fetching = client(resolver)
    tracemalloc.start()
    try:
        body = (await fetching.get(target.url(), {}, LIMIT)).body
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert body == b"ab" * count
    assert peak < len(target.reply) + 10 * len(body), "the answer once more on its way, and the body a few times"
    fetching.close()


async def test_a_large_body_takes_as_much_memory_as_has_come_of_it(target: HttpTarget, resolver: Resolver) -> None:
    fetching = client(resolver)
    body = bytes(range(256)) * 20_000
    target.reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    for _ in range(2):
        assert (await fetching.get(target.url(), {}, len(body))).body == body
    assert target.connections == 1
    target.reply, target.close = b"HTTP/1.1 200 OK\r\ncontent-length: 200000000\r\n\r\n" + body[:100_000], True
    tracemalloc.start()
    try:
        with pytest.raises(FetchFailed, match="closed in the middle"):
            await fetching.get(target.url(), {}, 1 << 30)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    fetching.close()


class Wire(asyncio.Transport):
    """The end of a connection at which a test writes what is received."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def writelines(self, list_of_data: object) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


async def received(data: bytes, cuts: Sequence[int]) -> tuple[Answer | str | None, bool]:
    """What becomes of an answer that comes in pieces, or why there is none; and whether the connection is kept."""
    connection, wire = _Connection(), Wire()
    connection.connection_made(wire)
    asking = asyncio.ensure_future(connection.ask(b"", b"", 1000))
    await asyncio.sleep(0)
    for start, stop in itertools.pairwise([0, *sorted(cuts), len(data)]):
        if stop > start and not wire.aborted:
            piece = data[start:stop]
            while piece and not wire.aborted and not asking.done():
                room = connection.get_buffer(-1)
                size = min(len(piece), len(room))
                room[:size] = piece[:size]
                connection.buffer_updated(size)
                piece = piece[size:]
            if asking.done():
                break
            await asyncio.sleep(0)
    if not asking.done() and not wire.aborted:
        connection.connection_lost(None)
    try:
        return await asking, not wire.aborted
    except FetchFailed as error:
        return error.message, not wire.aborted


async def test_what_comes_behind_a_broken_answer_finds_room() -> None:
    """Windows' loop hands over all that it has read, whatever becomes of the connection, and needs room for it."""
    connection = _Connection()
    connection.connection_made(Wire())
    asking = asyncio.ensure_future(connection.ask(b"", b"", LIMIT))
    await asyncio.sleep(0)
    for piece in (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345", b"x" * 100_000):
        while piece:
            room = connection.get_buffer(len(piece))
            size = min(len(piece), len(room))
            assert size
            room[:size] = piece[:size]
            connection.buffer_updated(size)
            piece = piece[size:]
    with pytest.raises(FetchFailed, match="the answer has more bytes than it announced"):
        await asking
    assert connection.closed


HEADS = (
    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nconnection: close\r\nContent-Length:  %d \r\n\r\n",
    b"HTTP/1.0 200 OK\r\ncontent-length: 000000000000000000%d\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\ncontent-length: 7\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: %d\r\n\r\n",
)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    strategies.sampled_from(HEADS),
    strategies.binary(max_size=40),
    strategies.integers(-3, 1000),
    strategies.lists(strategies.integers(0, 200), max_size=6),
)
def test_an_answer_is_the_same_however_it_is_cut(head: bytes, body: bytes, missing: int, cuts: list[int]) -> None:
    data = head % max(0, len(body) + missing) + body
    cuts = [cut for cut in cuts if cut < len(data)]
    if missing < 0:  # else what is too much may come when nobody looks
        cuts = [cut for cut in cuts if cut < len(data) + missing]
    assert asyncio.run(received(data, cuts)) == asyncio.run(received(data, ()))


async def test_a_large_body_comes_in_many_pieces(target: HttpTarget, resolver: Resolver) -> None:
    body = bytes(range(256)) * (LIMIT // 256)
    target.reply = answer(body)
    fetching = client(resolver)
    for _ in range(2):
        got = await fetching.get(target.url(), {}, LIMIT)
        assert (got.body, got.size) == (body, LIMIT)
    assert target.connections == 1
    fetching.close()


class Several(Resolver):
    """Knows one name, by several addresses."""

    def __init__(self, *places: tuple[str, int]) -> None:
        super().__init__()
        self.places = list(places)

    async def addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        return self.places


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog lets others wait on Linux only")
async def test_an_address_that_does_not_answer_leaves_time_for_the_next(target: HttpTarget) -> None:
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = silent.getsockname()[1]
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))  # fills its backlog
        resolver = Several(("127.0.0.1", port), ("127.0.0.1", 1), ("127.0.0.1", target.port))
        stack.callback(resolver.close)
        fetching = client(resolver)
        async with asyncio.timeout(30):
            assert (await fetching.get("http://several.example/", {}, LIMIT)).body == b"a 1\n"
        fetching.close()


async def test_every_address_is_tried(target: HttpTarget) -> None:
    resolver = Several(("127.0.0.1", 1), ("127.0.0.1", target.port))
    fetching = client(resolver)
    assert (await fetching.get("http://several.example/", {}, LIMIT)).body == b"a 1\n"
    fetching.close()
    resolver.places = [("127.0.0.1", 1), ("127.0.0.1", 2)]
    with pytest.raises(FetchFailed, match=r"connecting to 127\.0\.0\.1:2: connection refused"):
        await fetching.get("http://several.example/", {}, LIMIT)
    resolver.places = []
    with pytest.raises(FetchFailed, match=r"several\.example has no address"):
        await fetching.get("http://several.example/", {}, LIMIT)
    resolver.close()


class Silent(Resolver):
    """Finds no address and does not say so."""

    async def addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        await asyncio.Event().wait()
        raise AssertionError


async def test_connecting_may_have_a_limit_of_its_own() -> None:
    silent = Silent()
    fetcher = HttpClient(HttpOptions(connect_seconds=0.01), TlsContexts(Tls()), silent)
    with pytest.raises(FetchFailed, match=r"no connection to far\.example:1 within 0\.01 s"):
        await fetcher.get("http://far.example:1/", {}, 100)
    silent.close()

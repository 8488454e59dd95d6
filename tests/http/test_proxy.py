"""Through a proxy, as the environment says: plain requests, and tunnels to TLS servers."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from streamgauge.errors import FetchFailed
from streamgauge.http.client import HttpClient, Resolver
from streamgauge.http.options import HttpOptions, Secret, Tls, TlsContexts
from streamgauge.http.proxy import Proxy, proxy_for
from streamgauge.testing.target import HttpTarget, http_target

pytestmark = pytest.mark.anyio

OUTSIDE = "outside.example"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("http://a.example/", {}, None),
        ("http://a.example/", {"HTTP_PROXY": "http://p:3128"}, Proxy("p", 3128)),
        ("http://a.example/", {"http_proxy": "p"}, Proxy("p", 80)),
        ("https://a.example/", {"HTTP_PROXY": "http://p"}, None),
        ("https://a.example/", {"HTTPS_PROXY": "http://u:w%20x@p:1"}, Proxy("p", 1, "Basic dTp3IHg=")),
        ("http://a.example/", {"HTTP_PROXY": "http://p", "NO_PROXY": "b.example,.example"}, None),
        ("http://a.example/", {"HTTP_PROXY": "http://p", "no_proxy": "b.example"}, Proxy("p", 80)),
        ("http://a.example/", {"HTTP_PROXY": "http://p", "NO_PROXY": "*"}, None),
        ("http://localhost:1/", {"HTTP_PROXY": "http://p"}, None),
        ("http://127.0.0.2/", {"HTTP_PROXY": "http://p"}, None),
    ],
)
def test_which_proxy(url: str, environment: dict[str, str], expected: Proxy | None) -> None:
    assert proxy_for(urlsplit(url), environment) == expected


@pytest.mark.parametrize("text", ["https://p", "socks5://p", "http://", "http://p:0x1", "http://p:99999"])
def test_a_proxy_that_is_none(text: str) -> None:
    with pytest.raises(FetchFailed, match="HTTP_PROXY is no http URL"):
        proxy_for(urlsplit("http://a.example/"), {"HTTP_PROXY": text})


@dataclass
class RealProxy:
    """Connects wherever it is asked to, which is always `port` on loopback. refusal: its answer to CONNECT instead."""

    port: int = 0
    own_port: int = 0
    refusal: bytes = b""
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode())
        if self.refusal:
            writer.write(self.refusal)
            writer.close()
            return
        there, out = await asyncio.open_connection("127.0.0.1", self.port)
        if head.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n")
        else:
            out.write(head)
        await asyncio.gather(self._pump(reader, out), self._pump(there, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RealProxy]:
    made = RealProxy()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.own_port = server.sockets[0].getsockname()[1]
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://user:word@127.0.0.1:{made.own_port}")
    yield made
    server.close()


@pytest.fixture
async def target(proxy: RealProxy) -> AsyncIterator[HttpTarget]:
    async with http_target() as serving:
        proxy.port = serving.port
        yield serving


async def ask(url: str, options: HttpOptions) -> tuple[int, bytes]:
    resolver = Resolver()
    client = HttpClient(options, TlsContexts(options.tls), resolver)
    try:
        answer = await client.post(url, {"connection": "close"}, b"pushed", 1 << 20, "Bearer secret")
        return answer.status, answer.body
    finally:
        client.close()
        resolver.close()


async def test_a_plain_request_names_its_place_to_the_proxy(proxy: RealProxy, target: HttpTarget) -> None:
    assert await ask(f"http://{OUTSIDE}:81/upload?a=b", HttpOptions(proxies=True)) == (200, b"a 1\n")
    assert proxy.heads[0].startswith(f"POST http://{OUTSIDE}:81/upload?a=b HTTP/1.1\r\nhost: {OUTSIDE}:81\r\n")
    assert "proxy-authorization: Basic dXNlcjp3b3Jk\r\n" in proxy.heads[0]
    assert target.requests[0].body == b"pushed"


def certificate(folder: Path) -> tuple[Path, Path]:
    """Of the server outside, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, OUTSIDE)])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    built = built.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(OUTSIDE)]), critical=False)
    pem = serialization.Encoding.PEM
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(pem))
    key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return cert_file, key_file


async def test_tls_goes_through_a_tunnel_that_sees_nothing(proxy: RealProxy, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    trusting = HttpOptions(proxies=True, tls=Tls(ca=Secret(file=str(cert))))
    async with http_target(context) as target:
        proxy.port = target.port
        assert await ask(f"https://{OUTSIDE}/upload", trusting) == (200, b"a 1\n")
        assert target.requests[0].target == "/upload"
        assert target.requests[0].headers["authorization"] == "Bearer secret"
        with pytest.raises(FetchFailed, match="the certificate is not accepted"):
            await ask("https://elsewhere.example/upload", trusting)
        with pytest.raises(FetchFailed, match="the certificate is not accepted"):
            await ask(f"https://{OUTSIDE}/upload", HttpOptions(proxies=True))
    assert proxy.heads[0].startswith(f"CONNECT {OUTSIDE}:443 HTTP/1.1\r\nhost: {OUTSIDE}:443\r\nproxy-authorization: ")
    assert not any("secret" in head for head in proxy.heads)


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy answered 407 Proxy Auth"),
        (b"nonsense\r\n\r\n", "the proxy answered"),
        (b"HTTP/1.1 200 OK\r\n", "the proxy closed the connection"),
        (b"x" * 100_000, "the proxy's answer has no end"),
    ],
)
async def test_a_proxy_that_refuses(refusal: bytes, said: str, proxy: RealProxy) -> None:
    proxy.refusal = refusal
    with pytest.raises(FetchFailed, match=said):
        await ask(f"https://{OUTSIDE}/upload", HttpOptions(proxies=True))


async def test_nobody_is_asked_who_should_not_be(proxy: RealProxy, target: HttpTarget) -> None:
    assert (await ask(target.url(), HttpOptions(proxies=True)))[0] == 200  # on this machine
    with pytest.raises(FetchFailed, match=f"looking up {OUTSIDE}"):
        await ask(f"http://{OUTSIDE}/", HttpOptions())  # without the option
    assert not proxy.heads

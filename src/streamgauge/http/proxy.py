"""Going through an HTTP proxy: which one the environment names, and the tunnel to a TLS server behind it."""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import SplitResult

from streamgauge.errors import FetchFailed
from streamgauge.http.addresses import is_loopback
from streamgauge.http.options import basic
from streamgauge.http.urls import host_of, split_url, user_of

MAX_HEAD_BYTES = 65_536
"""Of a proxy's answer to CONNECT."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_P = TypeVar("_P", bound=asyncio.BaseProtocol)


@dataclass(frozen=True, slots=True)
class Proxy:
    """authorization: the value of its header, "" for none."""

    host: str
    port: int
    authorization: str = ""

    @property
    def headers(self) -> list[str]:
        return [f"proxy-authorization: {self.authorization}"] if self.authorization else []


def proxy_for(parts: SplitResult, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy that HTTP_PROXY or HTTPS_PROXY names, in capitals or not, unless NO_PROXY has the host or it is this
    machine. Raises FetchFailed for one that is no http URL."""
    host = parts.hostname or ""
    known = {name.lower(): value for name, value in sorted(environment.items()) if value}
    text = known.get(f"{parts.scheme}_proxy", "")
    if not text or is_loopback(host) or _is_excepted(parts, known.get("no_proxy", "")):
        return None
    proxy = split_url(text if "://" in text else f"http://{text}")
    try:
        port = proxy.port or _DEFAULT_PORTS["http"]
    except ValueError:
        port = 0
    if proxy.scheme != "http" or not proxy.hostname or not port:
        raise FetchFailed(f"{parts.scheme.upper()}_PROXY is no http URL with a host")
    user = user_of(proxy)
    return Proxy(proxy.hostname, port, basic(*user) if user else "")


def _is_excepted(parts: SplitResult, no_proxy: str) -> bool:
    return bool(urllib.request.proxy_bypass_environment(host_of(parts), {"no": no_proxy}))  # type: ignore[attr-defined]


async def tunnel(
    transport: asyncio.Transport, proxy: Proxy, place: str, protocol: _P, context: ssl.SSLContext, name: str
) -> None:
    """Ask the proxy on `transport` for a connection to `place`, as host:port, and begin TLS with the server there.
    From then on the connection is that of `protocol`. Raises FetchFailed, and OSError when TLS fails."""
    opening = _Opening()
    transport.set_protocol(opening)
    lines = [f"CONNECT {place} HTTP/1.1", f"host: {place}", *proxy.headers]
    transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    await opening.opened
    loop = asyncio.get_running_loop()
    secure = await loop.start_tls(transport, protocol, context, server_hostname=name)
    assert secure is not None
    protocol.connection_made(secure)


class _Opening(asyncio.Protocol):
    """Reads the answer to CONNECT, behind which nothing comes before we begin TLS."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self.opened.done():
            return
        if b"\r\n\r\n" in self._head:
            words = self._head.split(b"\r\n", 1)[0].split(b" ", 2)
            if words[0].startswith(b"HTTP/1.") and len(words) > 1 and words[1] == b"200":
                self.opened.set_result(None)
            else:
                status = b" ".join(words[1:])[:80].decode("ascii", "backslashreplace")
                self.opened.set_exception(FetchFailed(f"the proxy answered {status}"))
        elif len(self._head) > MAX_HEAD_BYTES:
            self.opened.set_exception(FetchFailed("the proxy's answer has no end"))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(FetchFailed("the proxy closed the connection"))

"""Which requests a browser may bring: those of pages that the server sent itself, whoever its user is.

A browser can be made to send requests to any server by any page it shows, with a password that it remembers. Two
headers that a page cannot forge give it away: Origin (and Sec-Fetch-Site) names the page's site, and Host names what
the browser thinks it talks to, which after DNS rebinding is the attacker's own name. (The Fetch standard, "Origin
header"; W3C Fetch Metadata.)
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from typing import TYPE_CHECKING

from starlette.responses import Response

from streamgauge.errors import BadInput, Forbidden, StreamgaugeError
from streamgauge.serve.errors import failure
from streamgauge.serve.prompt import Begin, Whole, never

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from streamgauge.serve.stats import HttpStats

_REMEMBERED_HOSTS = 1_024
_LONGEST_HOST = 262  # bytes: a DNS name of 255, a colon and a port
_OF_PAGES = frozenset({b"origin", b"sec-fetch-site", b"sec-fetch-mode"})
_CORS = {
    "access-control-allow-methods": "GET, POST, PUT, DELETE, OPTIONS",
    "access-control-allow-headers": "Accept, Authorization, Content-Encoding, Content-Type, Origin, X-Stream-Id, "
    "X-Stream-Index",
    "access-control-max-age": "600",
}


class Guard:
    """ASGI middleware that answers 403 to a request whose Host or Origin is foreign, and 400 to one without a Host.

    `allow_hosts` are further names (without port) that the server is reached by; `allow_origins` are origins
    ("https://grafana.example") whose pages may use it. There is no wildcard.
    """

    def __init__(
        self,
        app: ASGIApp,
        allow_hosts: Collection[str],
        allow_origins: Collection[str],
        stats: HttpStats,
        begin: Begin = never,
    ) -> None:
        self._app = app
        self._begin = begin
        self._stats = stats
        self._names = {_plain(name) for name in (*allow_hosts, *own_names())}
        self._origins = {origin.lower().rstrip("/") for origin in allow_origins}
        self._known_hosts: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = origin = site = mode = None
        hosts = origins = 0
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
                hosts += 1
            elif name == b"origin":
                origin = value
                origins += 1
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"sec-fetch-mode":
                mode = value
        if host is None or hosts != 1:
            await self._refuse(BadInput("a request needs exactly one Host header"), scope, receive, send)
        elif origins > 1:
            await self._refuse(BadInput("a request has at most one Origin header"), scope, receive, send)
        elif host not in self._known_hosts and not self._is_ours(host):
            await self._refuse(_foreign_host(host), scope, receive, send)
        elif _is_same_origin(host, origin, site) or (
            origin is None and mode == b"navigate" and scope["method"] in ("GET", "HEAD")
        ):
            await self._app(scope, receive, send)
        else:
            await self._cross_origin(scope, receive, send, _text(origin or b"another site"))

    def begin(self, request: Whole) -> bool:
        """Where nothing of a request is of a page, and its Host was seen before."""
        headers = request.headers
        known = headers.get(b"host") in self._known_hosts and _OF_PAGES.isdisjoint(headers)
        return known and self._begin(request)

    async def _cross_origin(self, scope: Scope, receive: Receive, send: Send, origin: str) -> None:
        if origin.lower() not in self._origins:
            error = Forbidden(f"requests from pages of {origin} are refused; --allow-origin permits an origin")
            await self._refuse(error, scope, receive, send)
            return
        permission = {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": "X-Stream-Next, X-Reason, Retry-After",
            "vary": "Origin",
        }
        if scope["method"] == "OPTIONS":
            await Response(status_code=204, headers=permission | _CORS)(scope, receive, send)
            return
        added = [(name.encode(), value.encode()) for name, value in permission.items()]

        async def permitted(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self._app(scope, receive, permitted)

    async def _refuse(self, error: StreamgaugeError, scope: Scope, receive: Receive, send: Send) -> None:
        self._stats.observe("refused", error.status, 0.0)
        await failure(scope["path"], error)(scope, receive, send)

    def _is_ours(self, host: bytes) -> bool:
        if len(host) > _LONGEST_HOST:
            return False
        name = _without_port(_text(host).lower())
        ours = name in self._names or name == "localhost" or name.endswith(".localhost") or _is_address(name)
        if ours:
            if len(self._known_hosts) >= _REMEMBERED_HOSTS:
                self._known_hosts.clear()
            self._known_hosts.add(host)
        return ours


def own_names() -> set[str]:
    """The names of this machine, without asking any other."""
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0]} - {""}


def _is_same_origin(host: bytes, origin: bytes | None, site: bytes | None) -> bool:
    """Whether a request comes from a program, the address bar, or a page of this server. Links are others' pages."""
    if origin is None:
        return site in (None, b"same-origin", b"none")
    return origin.lower().partition(b"://")[2] == host.lower()


def _foreign_host(host: bytes) -> Forbidden:
    return Forbidden(f"the Host {_text(host)} is not a name of this server; --allow-host adds one")


def _text(value: bytes) -> str:
    return value[:_LONGEST_HOST].decode("ascii", "backslashreplace")


def _plain(host: str) -> str:
    return _without_port(host.lower())


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal() and (":" not in name or name.endswith("]")):
        host = name
    return host.removesuffix(".") or host


def _is_address(name: str) -> bool:
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

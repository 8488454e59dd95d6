"""Where a writer sends to."""

from __future__ import annotations

import base64

# Python would import this when a name is first looked up, on the thread that sends. A child that is forked meanwhile
# would have half of it, and never be able to look a name up.
import encodings.idna  # noqa: F401
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

_PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """A URL's parts, and what goes with each connection to it."""

    websocket: bool
    host: str
    port: int
    target: str  # path and query
    tls: ssl.SSLContext | None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """The host and the port, for messages: paths and parameters may hold secrets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None, token: str = "") -> Address:
    """token: to be sent as a bearer token, if any.

    Raises ValueError, which names what is wrong, for a URL that no writer can send to.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{_without_secrets(url)!r} is not a URL that begins with ws://, wss://, http:// or https://")
    secure = parts.scheme in ("wss", "https")
    named = dict(headers)
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        named["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    if token:
        if any(name.lower() == "authorization" for name in named):
            raise ValueError("a token, an Authorization header and a user in the URL exclude each other")
        named["Authorization"] = f"Bearer {token}"
    for name, value in named.items():
        if not (name + value).isprintable() or not (name + value).isascii():
            raise ValueError(f"the header {name!r} has characters that no header may have")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    context = (tls or ssl.create_default_context()) if secure else None
    return Address(
        parts.scheme in ("ws", "wss"), parts.hostname, parts.port or _PORTS[parts.scheme], target, context, named
    )


def _without_secrets(url: str) -> str:
    """Without what may be a user and a password."""
    head, separator, _ = url.partition("://")
    _, at, tail = url.rpartition("@")
    return f"{head}{separator}…@{tail}" if at else url

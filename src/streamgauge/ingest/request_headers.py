"""The headers of a request as they are stored with its stream: JSON, with whatever could be a secret taken out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

REDACTED = "[redacted]"

_SECRET_NAMES = frozenset(
    {b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"sec-websocket-protocol"}
)
"""The last one because pages cannot set another header of a WebSocket, and so put their tokens there."""
_SECRET_WORDS = (
    b"token",
    b"secret",
    b"key",
    b"passw",
    b"passphrase",
    b"credential",
    b"auth",
    b"signature",
    b"session",
    b"jwt",
    b"assertion",
    b"cookie",
)
_SECRET_SCHEMES = (b"bearer ", b"basic ", b"digest ", b"negotiate ", b"token ", b"apikey ", b"aws4-hmac-sha256 ")
_WEB_TOKEN = re.compile(rb"eyJ[\w-]+\.[\w-]+\.")  # of three parts, whatever the header is called (RFC 7519)
_PLAIN_NAMES = frozenset({b"sec-websocket-key"})  # a random number that nobody has to keep to himself
_URLS = frozenset({b"referer", b"origin"})
_URL_WORDS = (b"-url", b"-uri", b"original-path")
"""In names under which proxies hand on the address that was asked for, with its parameters."""


def headers_json(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Names in lower case; a header that comes several times is an array. What is not ASCII is read as Latin-1, which
    loses no byte. A name with a colon is none of HTTP, and left out: such are for what the server itself notes."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if b":" in name:
            continue
        name = name.lower()
        found.setdefault(name.decode("latin-1"), []).append(_shown(name, value))
    return json.dumps(
        {name: values[0] if len(values) == 1 else values for name, values in found.items()},
        ensure_ascii=False,
        separators=(",", ":"),
    )


def _shown(name: bytes, value: bytes) -> str:
    if _is_secret(name) or value.lower().startswith(_SECRET_SCHEMES) or _WEB_TOKEN.search(value):
        return REDACTED
    if name in _URLS or any(word in name for word in _URL_WORDS):
        value = value.partition(b"?")[0].partition(b"#")[0]
        if b"@" in value:
            return REDACTED
    return value.decode("latin-1")


def _is_secret(name: bytes) -> bool:
    return name in _SECRET_NAMES or (name not in _PLAIN_NAMES and any(word in name for word in _SECRET_WORDS))

"""Any Python value as one line of JSON. It never fails: what JSON has no form for becomes text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Set
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import islice

MAX_DEPTH = 64
"""Levels of lists and mappings in a value that needs care; what lies deeper is text. Far more than anybody reads."""
MAX_MEMBERS = 10_000
"""Members that are kept of one list or mapping in a value that needs care: a loop of references ends."""


def encode(value: object) -> bytes:
    """`value` as JSON in UTF-8, without a line break."""
    try:
        return _encode(value).encode()
    except Exception:  # whatever a foreign object does when it is asked for its text or its members
        return _encode(_plain(value, 0)).encode(errors="replace")


def encode_text(text: str | bytes) -> bytes:
    """JSON text as it is, in one line; any other text as a JSON string."""
    try:
        json.loads(text, parse_constant=_refuse)
        raw = text.encode() if isinstance(text, str) else text.decode("utf-8-sig").encode()
    except (ValueError, RecursionError):
        return encode(text)
    return raw.strip().replace(b"\r", b" ").replace(b"\n", b" ")  # a break within a string is always escaped


def rfc3339(ns: int) -> str:
    """A time in ns since the Unix epoch, in UTC, to the microsecond."""
    return f"{_second(ns // 1_000_000_000)}.{ns // 1000 % 1_000_000:06d}Z"


def text_of(value: object) -> str:
    """What an object says of itself, or what it is where it cannot."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} without a text>"


@lru_cache(64)  # the same second is written many times
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _default(value: object) -> object:
    """What stands for an object that JSON does not know."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return dict(islice(value.items(), MAX_MEMBERS))
    if isinstance(value, Set):
        return list(islice(value, MAX_MEMBERS))
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode(errors="backslashreplace")
    return text_of(value)


_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default, check_circular=False
).encode


def _plain(value: object, depth: int) -> object:
    """The same of what JSON has a form for, slowly and with care."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.encode(value, errors="backslashreplace").decode()
    if isinstance(value, int):
        return int(value) if value.bit_length() <= 1024 else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if depth == MAX_DEPTH:
        return "…"
    try:
        return _plain_container(value, depth + 1)
    except Exception:
        return f"<{type(value).__name__} that cannot be read>"


def _plain_container(value: object, depth: int) -> object:
    if isinstance(value, Mapping):
        members = islice(value.items(), MAX_MEMBERS)
        return {_key(name): _plain(member, depth) for name, member in members}
    if isinstance(value, list | tuple | Set):
        return [_plain(member, depth) for member in islice(value, MAX_MEMBERS)]
    return _plain(_default(value), depth)


def _key(name: object) -> str:
    text = name if isinstance(name, str) else text_of(name)
    return text.encode(errors="backslashreplace").decode()

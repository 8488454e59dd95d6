"""Request parameters, read as the Prometheus HTTP API reads them: from the query string and from a form."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from streamgauge import durations
from streamgauge.errors import BadInput, TooLarge, UnsupportedMedia

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_FORM_BYTES = 1 << 20
"""A form holds a query of at most 64 KiB and selectors; parsing more would hold up the event loop."""
MAX_PARAMETERS = 10_000

MIN_TIME = -(1 << 62)
MAX_TIME = 1 << 62
"""Times in ms that a request may name: half of what 64 bits hold, so that no offset added to one overflows."""

# What Prometheus prints, and its clients send back, for the ends of time.
_END_OF_TIME = {"-292273086-05-16T16:47:06Z": MIN_TIME, "292277025-08-18T07:12:54.999999999Z": MAX_TIME}

_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:[.,](\d+))?(?:Z|([+-])(\d{2}):(\d{2}))",
    re.ASCII,
)
_ESCAPED_NAME = re.compile(r"(?:[^_]|__|_[0-9a-fA-F]{1,6}_)*", re.DOTALL)
_ESCAPE = re.compile(r"_([0-9a-fA-F]*)_")


class Params:
    """The parameters of one request. Only names that the endpoint declares can be read."""

    def __init__(self, pairs: Collection[tuple[str, str]], declared: Collection[str]) -> None:
        self._declared = declared
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def text(self, name: str) -> str:
        """The value, "" when there is none; of several the first, a form's before the query string's."""
        values = self.all(name)
        return values[0] if values else ""

    def all(self, name: str) -> tuple[str, ...]:
        assert name in self._declared, f"{name} is not among the endpoint's parameters"
        return tuple(self._values.get(name, ()))

    def time(self, name: str, default: int | None = None) -> int:
        """A time in ms. Without a default the parameter is required."""
        text = self.text(name)
        if not text and default is not None:
            return default
        time = parse_time(text)
        if time is None:
            raise BadInput(f'invalid parameter "{name}": cannot parse {quoted(text)} to a valid timestamp')
        return time

    def duration(self, name: str) -> int | None:
        """A duration in ms, None when the parameter is absent."""
        text = self.text(name)
        if not text:
            return None
        duration = parse_duration(text)
        if duration is None:
            raise BadInput(f'invalid parameter "{name}": cannot parse {quoted(text)} to a valid duration')
        return duration

    def flag(self, name: str) -> bool:
        """Whether the parameter is `true` or `1`; not, where it is absent."""
        text = self.text(name)
        if text not in ("", "true", "1", "false", "0"):
            raise BadInput(f'invalid parameter "{name}": write true or false, not {quoted(text)}')
        return text in ("true", "1")

    def limit(self, name: str = "limit") -> int:
        """A count of at least 0, which is also the default."""
        text = self.text(name)
        if text and not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
            raise BadInput(f'invalid parameter "{name}": {quoted(text)} is not a whole number')
        count = int(text or 0)
        if count < 0:
            raise BadInput(f'invalid parameter "{name}": limit must be non-negative')
        return count


async def read_params(request: Request, declared: Collection[str], takes_form: bool = True) -> Params:
    """Parameters of the query string and, for POST, PUT and PATCH, of a form. A form's values come first. Without
    `takes_form` the body is left to be read.

    Raises BadInput, TooLarge, or UnsupportedMedia for a body that is no form.
    """
    pairs = _parse(request.scope["query_string"])
    if takes_form and request.method in ("POST", "PUT", "PATCH"):
        body = await _read_form(request)
        if body:
            pairs = _parse(body) + pairs
    return Params(pairs, declared)


async def read_body(request: Request, limit: int, what: str) -> bytes:
    """The request's body. Raises TooLarge as soon as it has more than `limit` bytes."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise TooLarge(f"the {what} is larger than {limit} bytes")
    return bytes(body)


async def _read_form(request: Request) -> bytes:
    body = await read_body(request, MAX_FORM_BYTES, "form")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind != "application/x-www-form-urlencoded":
        raise UnsupportedMedia(f"parameters are taken as application/x-www-form-urlencoded, not as {quoted(kind)}")
    return body


def _parse(raw: bytes) -> list[tuple[str, str]]:
    if not raw:
        return []
    try:
        return parse_qsl(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise BadInput("a parameter is not UTF-8") from None
    except ValueError:
        raise BadInput(f"a request has at most {MAX_PARAMETERS} parameters") from None


def check_order(start: int, end: int) -> None:
    """Raises BadInput for a range of times that ends before it begins."""
    if end < start:
        raise BadInput('invalid parameter "end": end timestamp must not be before start timestamp')


def parse_time(text: str) -> int | None:
    """Unix seconds or RFC 3339, as ms; None when it is neither or out of range."""
    if _FLOAT.fullmatch(text):
        return _milliseconds(text, MAX_TIME)
    if match := _RFC3339.fullmatch(text):
        return _rfc3339(*match.groups())
    return _END_OF_TIME.get(text)


def parse_duration(text: str) -> int | None:
    """Seconds or a Prometheus duration such as 1h30m, as ms; None when it is neither or out of range."""
    if _FLOAT.fullmatch(text):
        return _milliseconds(text, durations.MAX_MS)
    try:
        return durations.parse_duration(text)
    except BadInput:
        return None


def unescape_label_name(name: str) -> str:
    """Undo Prometheus' U__ escaping of UTF-8 names in paths: __ is an underscore, _1F600_ a code point.

    A name that is not well escaped is returned as it is.
    """
    escaped = name.removeprefix("U__")
    if escaped == name or not _ESCAPED_NAME.fullmatch(escaped):
        return name
    try:
        plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else "_", escaped)
        plain.encode()
    except ValueError:
        return name
    return plain


def quoted(text: str) -> str:
    """A value as an error message shows it."""
    return f'"{text[:100]}…"' if len(text) > 100 else f'"{text}"'


def _milliseconds(seconds: str, limit: int) -> int | None:
    milliseconds = float(seconds) * 1000
    return round(milliseconds) if abs(milliseconds) <= limit else None


def _rfc3339(clock: str, fraction: str | None, sign: str | None, hours: str | None, minutes: str | None) -> int | None:
    try:
        local = datetime.fromisoformat(f"{clock}+00:00")
    except ValueError:
        return None
    offset = timedelta()
    if hours and minutes:
        if int(hours) > 23 or int(minutes) > 59:
            return None
        offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    whole = local - datetime.fromisoformat("1970-01-01T00:00:00+00:00") - offset
    return whole // timedelta(milliseconds=1) + int((fraction or "0")[:3].ljust(3, "0"))

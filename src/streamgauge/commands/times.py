"""Times as a command takes and shows them."""

from __future__ import annotations

import datetime
import math

from streamgauge.durations import parse_duration
from streamgauge.errors import BadInput

EARLIEST, LATEST = -(1 << 62), 1 << 62
"""ms. The bounds of a range whose start or end is open."""
_MAX_MS = 1 << 53
"""Of a time, either side of 1970: more than any calendar needs, and exact as a float of seconds."""


def moment(text: str, now: int) -> int:
    """ms of Unix seconds, RFC 3339, `now`, or a duration before now such as -5m."""
    if text == "now":
        return now
    if text.startswith("-") and text[1:2].isdigit() and text[-1:].isalpha():
        return now - parse_duration(text[1:])
    try:
        return milliseconds(text)
    except ValueError:
        pass
    try:
        found = datetime.datetime.fromisoformat(text)
        return round((found if found.tzinfo else found.astimezone()).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise BadInput(f'"{text}" is not a time; write Unix seconds, 2026-01-31T12:00:00Z or -5m') from None


def milliseconds(text: str) -> int:
    """Of seconds as a number. Raises ValueError, also for one that no time can have."""
    value = float(text)
    if not math.isfinite(value) or abs(value) > _MAX_MS / 1000:
        raise ValueError(text)
    return round(value * 1000)


def seconds(time: int) -> str:
    """ms as the HTTP API takes a time."""
    return f"{time / 1000:.3f}"


def clock(time: int) -> str:
    """ms in UTC, as days of blocks are; a time that the calendar does not reach, as its number."""
    try:
        found = datetime.datetime.fromtimestamp(time / 1000, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time} ms"
    return found.strftime("%Y-%m-%d %H:%M:%S")


def span(start: int, end: int) -> str:
    """A range of times in words; ms, both ends inclusive."""
    if start <= EARLIEST and end >= LATEST:
        return "of all times"
    if start <= EARLIEST:
        return f"up to {clock(end)} UTC"
    if end >= LATEST:
        return f"from {clock(start)} UTC on"
    return f"from {clock(start)} to {clock(end)} UTC"

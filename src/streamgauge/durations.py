"""Durations and sizes as people write them in configuration: 1h30m, 15d, 512MB."""

from __future__ import annotations

import re

from streamgauge.errors import BadInput

_MS = {"y": 31_536_000_000, "w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_SIZE = re.compile(r"(\d+)\s*(?:([KMGTPE])(i?)B?|B)?", re.ASCII)
MAX_MS = (1 << 63) // 1_000_000
"""Prometheus counts durations in nanoseconds in an int64: about 292 years."""


def parse_duration(text: str) -> int:
    """Milliseconds of a Prometheus duration such as 90s, 1h30m, 15d or 0. Raises BadInput."""
    match = _DURATION.fullmatch(text)
    if text == "0":
        return 0
    if not text or match is None or len(text) > 64:
        raise BadInput(f'"{text[:64]}" is not a duration; write for example 30s, 5m, 1h30m or 15d')
    total = sum(int(number) * unit for number, unit in zip(match.groups(), _MS.values(), strict=True) if number)
    if total > MAX_MS:
        raise BadInput(f'duration "{text}" is longer than 292 years')
    return total


def format_duration(milliseconds: int) -> str:
    """The shortest Prometheus spelling of a duration: 900000 is 15m."""
    if milliseconds == 0:
        return "0s"
    parts = []
    for unit, size in _MS.items():
        if unit in "yw" and milliseconds % size:
            continue
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def parse_size(text: str) -> int:
    """Bytes of a size such as 65536, 512MB or 1GiB (both mean powers of 1024, as in Prometheus). Raises BadInput."""
    match = _SIZE.fullmatch(text.strip()) if len(text) <= 32 else None
    if match is None:
        raise BadInput(f'"{text[:32]}" is not a size; write for example 512MB or 2GB')
    number, unit, _ = match.groups()
    return int(number) << (10 * " KMGTPE".index(unit or " "))


def format_size(size: int) -> str:
    """The shortest spelling of a size in bytes that `parse_size` reads back: 536870912 is 512MB."""
    for shift, unit in zip(range(60, 0, -10), "EPTGMK", strict=True):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}B"
    return str(size)

"""Which part of a scrape an upload is, where one scrape needs several: a header of ours that other servers ignore."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from streamgauge.errors import BadInput

HEADER = "x-streamgauge-part"


class Part(Enum):
    """Of a scrape. A whole one has no header."""

    WHOLE = "whole"
    FIRST = "first"
    MIDDLE = "middle"
    LAST = "last"

    __hash__ = object.__hash__  # Enum's own is a call of Python's each time

    @property
    def follows(self) -> bool:
        """There was a part before."""
        return self in (Part.MIDDLE, Part.LAST)

    @property
    def precedes(self) -> bool:
        """There will be another part."""
        return self in (Part.FIRST, Part.MIDDLE)


def part(follows: bool, precedes: bool) -> Part:
    if follows:
        return Part.MIDDLE if precedes else Part.LAST
    return Part.FIRST if precedes else Part.WHOLE


def part_of(headers: Mapping[str, str]) -> Part:
    """headers: by name in lower case. Raises BadInput."""
    if (text := headers.get(HEADER)) is None:
        return Part.WHOLE
    try:
        return Part(text.strip().lower())
    except ValueError:
        raise BadInput(f'{HEADER}: "{text[:100]}" is none of first, middle and last') from None

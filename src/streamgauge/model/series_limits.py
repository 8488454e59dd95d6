"""How many series a metric and how many values a label may have, so that one mistake does not take the whole index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streamgauge.errors import BadInput

MOST = 1 << 32
"""There are no more series ids."""


@dataclass(frozen=True, slots=True)
class CountLimit:
    """A number for every name, `default`, but for those in `exceptions`. 0 is no limit."""

    default: int = 0
    exceptions: Mapping[bytes, int] = field(default_factory=dict)

    def of(self, name: bytes) -> int:
        return self.exceptions.get(name, self.default)

    def __str__(self) -> str:
        """As `parse_limit` reads it."""
        return ",".join([str(self.default), *(f"{name.decode()}={most}" for name, most in self.exceptions.items())])


@dataclass(frozen=True, slots=True)
class SeriesLimits:
    """metric: series of one metric. label: distinct values of one label, over all series."""

    metric: CountLimit = field(default_factory=CountLimit)
    label: CountLimit = field(default_factory=CountLimit)


def parse_limit(text: str) -> CountLimit:
    """A number, and behind it as many exceptions as one likes: `200000,http_requests_total=500000`. Raises BadInput."""
    default, *others = (word.strip() for word in text.split(","))
    exceptions = {}
    for word in others:
        name, equals, most = word.rpartition("=")
        if not equals or not name.strip():
            raise BadInput(f'"{word[:64]}" is no exception; write NAME=N')
        exceptions[name.strip().encode()] = _number(most.strip())
    return CountLimit(_number(default), exceptions)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) > MOST:
        raise BadInput(f'"{text[:64]}" is not a whole number from 0, which is no limit, to {MOST}')
    return int(text)

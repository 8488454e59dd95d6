"""The samples of one series that is named by all of its labels, and of no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streamgauge.model.arrays import Floats, Int64s, stale_mask
from streamgauge.model.source import Matcher, MatchOp, Meter, Source

AT_ONCE = 2_048
"""Points that are written in one go: some milliseconds."""


class PointsFormat(Protocol):
    """How points go out. Picklable."""

    @property
    def content_type(self) -> str: ...

    def encode(self, times: Int64s, values: Floats) -> bytes:
        """times: ms, ascending."""


@dataclass(frozen=True, slots=True)
class OneSeries:
    """Implements query.requests.History. labels: all of the series, by name, without empty values. start, end: ms, both
    inclusive. Without such a series, or samples, nothing comes of it."""

    labels: tuple[tuple[str, str], ...]
    start: int
    end: int
    format: PointsFormat

    @property
    def content_type(self) -> str:
        return self.format.content_type

    @property
    def text(self) -> str:
        """It, for the list of running queries."""
        return f"the points of {dict(self.labels)}"

    def read(self, source: Source, meter: Meter) -> Iterator[bytes]:
        if self.start > self.end:
            return
        given = [Matcher(name, MatchOp.EQUAL, value) for name, value in self.labels]
        named = {name for name, _ in self.labels}
        like_it = source.series([given], self.start, self.end, meter)
        others = [Matcher(name, MatchOp.EQUAL, "") for name in like_it.columns if name not in named]
        found = source.select([*given, *others], self.start, self.end, meter)
        if not len(found.labels):
            return
        keep = np.flatnonzero(~stale_mask(found.samples.values))
        times, values = found.samples.times[keep], found.samples.values[keep]
        for first in range(0, len(times), AT_ONCE):
            yield self.format.encode(times[first : first + AT_ONCE], values[first : first + AT_ONCE])

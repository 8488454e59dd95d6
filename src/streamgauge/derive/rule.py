"""A rule that makes a metric of events: which of them count, what of them, and by which labels."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from streamgauge.live.filters import EventFilter
from streamgauge.model.event_source import Path

DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Those of Prometheus' own client libraries."""

EVERYTHING = EventFilter()


class Kind(enum.Enum):
    COUNT = "count"
    SUM = "sum"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class EventMetric:
    """value: where the number is, which a sum and a histogram need. buckets: of a histogram, ascending upper bounds,
    inclusive, without the infinite one. labels: their names and where the values are."""

    name: str
    kind: Kind
    value: Path = ()
    buckets: tuple[float, ...] = ()
    where: EventFilter = EVERYTHING
    labels: tuple[tuple[str, Path], ...] = ()
    help: str = ""

    @property
    def looks_inside(self) -> bool:
        """Whether events must be parsed to know what they add."""
        return bool(self.value or self.labels)

    @property
    def paths(self) -> Iterator[Path]:
        """Of the fields that it looks at."""
        yield from (term.path for term in self.where.terms)
        yield from (path for _, path in self.labels)
        if self.value:
            yield self.value

    @property
    def written_names(self) -> tuple[str, ...]:
        """The metric names of its series, and its own."""
        if self.kind is Kind.HISTOGRAM:
            return (self.name, f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
        return (self.name,)

"""A source over samples in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.event_source import EventSource, NoEvents
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import AggregateKind, Horizon, Lifetimes, Matcher, Meter, Samples, Selection, Source
from streamgauge.query.promql.matchers import matching_rows

Series = tuple[Mapping[str, str], Iterable[int], Iterable[float]]
"""Labels, times in ms (ascending), and the values beside them. An array of values keeps the bits of stale markers."""


class MemorySource:
    """A Source over samples, and events, in memory. `samples` row i belongs to `labels` row i."""

    def __init__(self, labels: LabelFrame, samples: Samples, events: EventSource | None = None) -> None:
        self.labels = labels
        self.samples = samples
        self.all_events = events or NoEvents()

    @staticmethod
    def of(series: Sequence[Series], events: EventSource | None = None) -> MemorySource:
        times = [np.array(_listed(given), np.int64) for _, given, _ in series]
        values = [np.array(_listed(given), np.float64) for _, _, given in series]
        offsets = np.concatenate(([0], np.cumsum([len(part) for part in times]))).astype(np.int64)
        samples = Samples(offsets, np.concatenate([_NO_TIMES, *times]), np.concatenate([_NO_VALUES, *values]))
        return MemorySource(LabelFrame.of([labels for labels, _, _ in series]), samples, events)

    @property
    def horizons(self) -> Sequence[Horizon]:
        return ()

    def select(
        self,
        matchers: Sequence[Matcher],
        start: int,
        end: int,
        meter: Meter,
        aggregate: AggregateKind = AggregateKind.LAST,
    ) -> Selection:
        rows = self._matching(matchers)
        low, high = self._bounds(start, end)
        rows = rows[high[rows] > low[rows]]
        counts = high[rows] - low[rows]
        total = int(counts.sum())
        meter.charge(total, 16 * total)
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        at = np.arange(total) + np.repeat(low[rows] - offsets[:-1], counts)
        return Selection(self.labels.take(rows), Samples(offsets, self.samples.times[at], self.samples.values[at]))

    def series(
        self,
        matcher_sets: Sequence[Sequence[Matcher]],
        start: int,
        end: int,
        meter: Meter,
        names: Collection[str] | None = None,
    ) -> LabelFrame:
        low, high = self._bounds(start, end)
        rows = self._matching_any(matcher_sets)
        labels = self.labels if names is None else self.labels.only(names)
        meter.charge(0, 4 * len(labels.columns) * len(labels))
        return labels.take(np.flatnonzero(rows & (high > low)))

    def lifetimes(self, matcher_sets: Sequence[Sequence[Matcher]], meter: Meter) -> Lifetimes:
        offsets = self.samples.offsets
        rows = np.flatnonzero(self._matching_any(matcher_sets) & (np.diff(offsets) > 0))
        times = self.samples.times
        return Lifetimes(self.labels.take(rows), times[offsets[rows]], times[offsets[rows + 1] - 1])

    def events(self) -> EventSource:
        return self.all_events

    def _matching_any(self, matcher_sets: Sequence[Sequence[Matcher]]) -> Bools:
        rows = np.zeros(len(self.labels), np.bool_)
        for matchers in matcher_sets or [()]:
            rows[self._matching(matchers)] = True
        return rows

    def _matching(self, matchers: Sequence[Matcher]) -> Int64s:
        rows = np.ones(len(self.labels), np.bool_)
        for matcher in matchers:
            rows &= matching_rows(matcher, self.labels)
        return np.flatnonzero(rows)

    def _bounds(self, start: int, end: int) -> tuple[Int64s, Int64s]:
        """For each series where its samples of that range begin and end."""
        low = np.concatenate(([0], np.cumsum(self.samples.times < start)))
        high = np.concatenate(([0], np.cumsum(self.samples.times > end)))
        first, last = self.samples.offsets[:-1], self.samples.offsets[1:]
        return first + (low[last] - low[first]), last - (high[last] - high[first])


@dataclass(frozen=True, slots=True)
class MemorySnapshot:
    """A snapshot that is its source: for spawned query workers to open."""

    source: MemorySource

    def open(self, kept: MutableMapping[str, object]) -> Source:
        return self.source


_NO_TIMES: Int64s = np.empty(0, np.int64)
_NO_VALUES: Floats = np.empty(0, np.float64)


def _listed(values: Iterable[float]) -> object:
    return values if isinstance(values, np.ndarray) else list(values)

"""What a live tail shows of the past: made in a query worker, by the same filters and in the same form as what follows.

Both classes are picklable and implement query.requests.History.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from streamgauge.live.event_rows import EventRows
from streamgauge.live.filters import EventFilter, SampleFilter
from streamgauge.live.messages import TEXT, as_sse, content, taken
from streamgauge.live.position import Position
from streamgauge.live.samples import fulfils, label_text, sample_messages
from streamgauge.model.arrays import Floats, Int64s, cut, stale_mask
from streamgauge.model.event_source import EventRange, EventSource, Fixed
from streamgauge.model.source import Meter, Selection, Source

CONTENT_TYPE = "text/event-stream"
WINDOW_EVENTS = 65_536
"""Events that are put in order of time together. A block has them in order of streams."""
_SLICE_BYTES = 1 << 20
_SLICE_ROWS = 16_384
_ROW_BYTES = 64
"""Of an event or a sample, beside its text."""


@dataclass(frozen=True, slots=True)
class EventHistory:
    """Events after a position, in the order in which they came."""

    wanted: EventFilter
    after: Position

    content_type = CONTENT_TYPE

    @property
    def text(self) -> str:
        return f"events since {self.after}"

    def read(self, source: Source, meter: Meter) -> Iterator[bytes]:
        events = source.events()
        streams = self._streams(events)
        if streams is not None and not streams:
            return
        for window in self._windows(events, streams, meter):
            yield from self._window(events, window, streams, meter)

    def _streams(self, events: EventSource) -> Collection[int] | None:
        if not self.wanted.streams:
            return None
        known = events.streams()
        numbers: Sequence[Any] = known.column("stream_id").to_pylist()
        names: Sequence[Any] = known.column("name").to_pylist()
        return {number for number, name in zip(numbers, names, strict=True) if self.wanted.names_stream(number, name)}

    def _windows(self, events: EventSource, streams: Collection[int] | None, meter: Meter) -> Iterator[EventRange]:
        """Ranges of time of so many events each, ascending."""
        bounds = (min(streams), max(streams)) if streams else (0, (1 << 63) - 1)
        everything = EventRange(self.after.time, first_stream=bounds[0], last_stream=bounds[1])
        parts: list[Int64s] = []
        for part in events.parts(everything):
            for batch in part.read([Fixed.RECEIVED, Fixed.STREAM], everything):
                times, numbers = (column.to_numpy() for column in batch.columns)
                parts.append(times[(times >= self.after.time) & (numbers >= bounds[0]) & (numbers <= bounds[1])])
                meter.charge(0, parts[-1].nbytes)
        if not parts:
            return
        times = np.sort(np.concatenate(parts))
        first = 0
        while first < len(times):
            last = int(times[min(first + WINDOW_EVENTS, len(times)) - 1])
            yield EventRange(int(times[first]), last, *bounds)
            first = int(np.searchsorted(times, last, side="right"))

    def _window(
        self, events: EventSource, window: EventRange, streams: Collection[int] | None, meter: Meter
    ) -> Iterator[bytes]:
        found: list[EventRows] = []
        charged = unchecked = 0
        for batch in events.payloads(window):
            rows = EventRows.of_batch(batch)
            rows = rows.take(np.flatnonzero(self._is_after(rows)))
            matching, large = rows.matching(self.wanted, streams)
            unchecked += large
            if len(matching):
                found.append(rows.take(matching))
                size = int(found[-1].sizes.sum()) + _ROW_BYTES * len(matching)
                meter.charge(0, 2 * size)  # put in order they are there twice
                charged += 2 * size
        if unchecked:
            yield b'event: lost\ndata: {"lost":0,"unchecked":%d}\n\n' % unchecked
        if found:
            ordered = EventRows.together(found)
            for first, last in cut(ordered.sizes + _ROW_BYTES, _SLICE_BYTES):
                meter.charge(0, 0)
                yield content(as_sse(*ordered.slice(first, last).messages()))
        meter.release(0, charged)

    def _is_after(self, rows: EventRows) -> Any:
        later = rows.times > self.after.time
        return later | ((rows.times == self.after.time) & (rows.indexes > self.after.index))


@dataclass(frozen=True, slots=True)
class SampleHistory:
    """Samples with a time from `start` on, in ms, in order of time. position: what a client hands back later."""

    wanted: SampleFilter
    start: int
    position: str

    content_type = CONTENT_TYPE

    @property
    def text(self) -> str:
        return f"samples since {self.start / 1000:.3f}"

    def read(self, source: Source, meter: Meter) -> Iterator[bytes]:
        texts: list[str] = []
        owners: list[Int64s] = []
        times: list[Int64s] = []
        values: list[Floats] = []
        for number, matchers in enumerate(self.wanted.matchers or ((),)):
            found = source.select(matchers, self.start, (1 << 62), meter)
            labels = list(found.labels)
            mask = np.array(_not_before(self.wanted, number, labels), np.bool_)
            owner, rows = _flat(found, mask)
            meter.charge(0, 3 * _ROW_BYTES * len(rows))
            owners.append(owner + len(texts))
            times.append(found.samples.times[rows])
            values.append(found.samples.values[rows])
            texts += map(label_text, labels)
        all_times, all_values, owner = np.concatenate(times), np.concatenate(values), np.concatenate(owners)
        order = np.argsort(all_times, kind="stable")
        dictionary = pa.array(texts, TEXT)
        position = pa.scalar(self.position, TEXT)
        for first in range(0, len(order), _SLICE_ROWS):
            meter.charge(0, 0)
            rows = order[first : first + _SLICE_ROWS]
            messages = sample_messages(taken(dictionary, owner[rows]), all_times[rows], all_values[rows])
            yield content(as_sse(position, messages))


def _not_before(wanted: SampleFilter, number: int, labels: list[dict[str, str]]) -> Any:
    """Which series no earlier set of matchers has selected already."""
    if not number:
        return np.ones(len(labels), np.bool_)
    return ~fulfils(wanted.matchers[:number], labels)


def _flat(found: Selection, mask: Any) -> tuple[Int64s, Int64s]:
    """For the samples of chosen series that are no stale markers: number of the series, and row."""
    counts = np.diff(found.samples.offsets)
    owner = np.repeat(np.arange(len(counts)), counts)
    rows = np.flatnonzero(mask[owner] & ~stale_mask(found.samples.values))
    return owner[rows], rows

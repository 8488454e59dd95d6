"""One consistent state of the store: described by the server, opened and read wherever the query runs."""

from __future__ import annotations

from collections.abc import Collection, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streamgauge.model.arrays import Floats, Int64s, UInt32s, stale_mask
from streamgauge.model.event_source import EventSource
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import (
    AggregateKind,
    Horizon,
    Lifetimes,
    Matcher,
    Meter,
    Samples,
    Selection,
    empty_selection,
)
from streamgauge.store.aggregates import sample_increases
from streamgauge.store.block_cache import BlockCache
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.columns import IndexSnapshot
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.snapshot import EventSnapshot, StoredEvents
from streamgauge.store.head_view import head_bounds, head_series, read_head
from streamgauge.store.id_set import IdSet
from streamgauge.store.index_view import IndexView, ViewCache
from streamgauge.store.lifetimes import BYTES_PER_ROW, BYTES_PER_SERIES, Bounds
from streamgauge.store.merge import merge
from streamgauge.store.ports import SAMPLE_BYTES, BlockMeta, Part, Tombstone, part_bytes
from streamgauge.store.resolutions import end_of, raw, thinned
from streamgauge.store.runs import HeadSnapshot
from streamgauge.store.tombstones import applying, undeleted, undeleted_bounds, without


@dataclass(frozen=True, slots=True)
class StoreSnapshot:
    """What a query needs to see everything up to `commit`, and nothing after it. Picklable."""

    data: Path
    commit: int
    blocks: tuple[BlockMeta, ...]  # in ascending priority, as `by_priority` orders them
    head: HeadSnapshot
    index: IndexSnapshot
    tombstones: tuple[Tombstone, ...] = ()  # what they mean is not seen
    events: EventSnapshot = field(default_factory=EventSnapshot)

    def names(self) -> list[str]:
        """What the snapshot needs a lease on."""
        return [*(meta.id for meta in self.blocks), *self.head.names, *self.index.names, *self.events.names]

    def open(self, kept: MutableMapping[str, object]) -> StoreSource:
        """The state itself. `kept` belongs to the reading process: attached memory, mirrored labels and open blocks
        stay in it from one query to the next. One query uses it at a time."""
        cache = kept.get(_CACHE)
        if not isinstance(cache, StoreCache) or cache.data != self.data:
            cache = kept[_CACHE] = StoreCache(self.data)
        # An open file of a block that is gone keeps its space on the disk.
        cache.blocks.keep_only(meta.id for meta in self.blocks)
        cache.event_blocks.keep_only({meta.id for meta in self.events.blocks})
        return StoreSource(self, cache)


_CACHE = "store"
_CACHE_BYTES = 64 << 20
_EVENT_CACHE_BYTES = 128 << 20
"""Of open blocks in one process. A query that names no time has a part for each block of events, by turns: if they are
more than fit in here, nothing is found again, at a millisecond a block. A thousand of 30 columns take 80 MB."""
_ROW_BYTES = 10
"""Of a row of the index while rows are matched: its number, and whether it is one of them."""
_ID_BYTES = 4


class StoreCache:
    """What a reading process keeps of one folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.views = ViewCache()
        self.blocks = BlockCache(LocalBlocks(data).open, _CACHE_BYTES)
        self.event_blocks = BlockCache(LocalEventBlocks(data).open, _EVENT_CACHE_BYTES)


def by_priority(metas: Sequence[BlockMeta]) -> tuple[BlockMeta, ...]:
    """Blocks in ascending priority: of equal (series, time) the row of the later block wins."""
    return tuple(sorted(metas, key=lambda meta: (meta.late, meta.last_commit, meta.first_commit)))


def _overlapping(metas: Sequence[BlockMeta], start: int, end: int) -> list[BlockMeta]:
    return [meta for meta in metas if meta.min_time <= end and meta.max_time >= start]


class StoreSource:
    """Implements model.source.Source, and gives the events beside the samples."""

    def __init__(self, snapshot: StoreSnapshot, cache: StoreCache) -> None:
        self._snapshot = snapshot
        self._thinned = thinned(snapshot.blocks)
        self._raw = raw(snapshot.blocks)
        self._blocks = cache.blocks
        self._view: IndexView = cache.views.open(snapshot.index)
        self._event_blocks = cache.event_blocks

    def events(self) -> EventSource:
        return StoredEvents(self._snapshot.events, self._event_blocks)

    @property
    def horizons(self) -> Sequence[Horizon]:
        """Where the resolution of neighbouring blocks of aggregates changes, and where aggregates end."""
        later = [*self._thinned[1:], None]
        return [
            Horizon(end_of(meta), meta.resolution)
            for meta, after in zip(self._thinned, later, strict=False)
            if after is None or after.resolution != meta.resolution
        ]

    def select(
        self,
        matchers: Sequence[Matcher],
        start: int,
        end: int,
        meter: Meter,
        aggregate: AggregateKind = AggregateKind.LAST,
    ) -> Selection:
        rows = self._matching([matchers], meter)
        if not len(rows):
            return empty_selection()
        samples = self._read(self._view.ids(rows), start, end, meter, aggregate)
        filled = np.flatnonzero(np.diff(samples.offsets))
        if len(filled) == len(rows):
            return Selection(self._view.frame(rows, meter=meter), samples)
        offsets = np.concatenate((samples.offsets[:1], samples.offsets[filled + 1]))
        return Selection(self._view.frame(rows[filled], meter=meter), Samples(offsets, samples.times, samples.values))

    def _read(self, ids: UInt32s, start: int, end: int, meter: Meter, aggregate: AggregateKind) -> Samples:
        aggregates = [
            self._read_block(meta, ids, start, end, meter, aggregate)
            for meta in _overlapping(self._thinned, start, end)
        ]
        blocks = _overlapping(self._raw, start, end)
        parts = [self._read_block(meta, ids, start, end, meter, aggregate) for meta in blocks]
        parts += read_head(self._snapshot.head, ids, start, end, meter)
        if parts and aggregate in (AggregateKind.COUNT, AggregateKind.INCREASE):
            samples = merge(len(ids), parts, meter)
            meter.charge(0, part_bytes(len(ids), len(samples.times)))  # with what is made on the way
            counts = np.diff(samples.offsets)
            if aggregate is AggregateKind.COUNT:
                values = np.where(stale_mask(samples.values), samples.values, 1.0)
            else:
                values = sample_increases(samples.values, counts, self._numbers_before(ids, start, end, meter))
            parts = [Part(counts, samples.times, values)]
            meter.release(0, SAMPLE_BYTES * len(samples.times))
        return merge(len(ids), aggregates + parts, meter)

    def _numbers_before(self, ids: UInt32s, start: int, end: int, meter: Meter) -> Floats:
        """The latest number in the range of each series, in the last block of aggregates; NaN where it has none."""
        before = np.full(len(ids), np.nan)
        for meta in _overlapping(self._thinned[-1:], start, end):
            part = self._read_block(meta, ids, start, end, meter, AggregateKind.LAST_NUMBER)
            series = np.repeat(np.arange(len(ids)), part.counts)
            numbers = ~np.isnan(part.values)
            before[series[numbers]] = part.values[numbers]  # of several the last stays
            meter.release(len(part.times), part.size)
        return before

    def _read_block(
        self, meta: BlockMeta, ids: UInt32s, start: int, end: int, meter: Meter, aggregate: AggregateKind
    ) -> Part:
        part = self._blocks.reader(meta.id).read(ids, start, end, meter, aggregate)
        return without(part, ids, applying(self._snapshot.tombstones, meta), meter)

    def series(
        self,
        matcher_sets: Sequence[Sequence[Matcher]],
        start: int,
        end: int,
        meter: Meter,
        names: Collection[str] | None = None,
    ) -> LabelFrame:
        rows = self._matching(matcher_sets or [()], meter)
        if not len(rows):
            return empty_selection().labels
        present = self._present(start, end, meter)
        return self._view.frame(rows[present.contains(self._view.ids(rows))], names, meter)

    def lifetimes(self, matcher_sets: Sequence[Sequence[Matcher]], meter: Meter) -> Lifetimes:
        rows = self._matching(matcher_sets or [()], meter)
        if not len(rows):
            return Lifetimes(empty_selection().labels, np.empty(0, np.int64), np.empty(0, np.int64))
        size = BYTES_PER_ROW * (len(rows) + max([meta.series for meta in self._snapshot.blocks], default=0))
        meter.charge(0, size + BYTES_PER_SERIES * len(rows))
        bounds = Bounds(self._view.ids(rows))
        for meta in self._snapshot.blocks:
            meter.charge(0, 0)  # a block's series may have to be read
            reader = self._blocks.reader(meta.id)
            if tombstones := applying(self._snapshot.tombstones, meta):
                bounds.add(*undeleted_bounds(reader, tombstones, meter))
            else:
                bounds.add(reader.series_ids(), *reader.time_bounds())
        for run in head_bounds(self._snapshot.head):
            bounds.add(*run)
        known = np.flatnonzero(bounds.known())
        meter.release(0, size + BYTES_PER_SERIES * (len(rows) - len(known)))
        return Lifetimes(self._view.frame(rows[known], meter=meter), bounds.first[known], bounds.last[known])

    def _matching(self, matcher_sets: Sequence[Sequence[Matcher]], meter: Meter) -> Int64s:
        """The rows that match any of the sets, ascending. Memory does not grow with the number of sets."""
        size = _ROW_BYTES * self._view.rows
        meter.charge(0, size)
        if len(matcher_sets) == 1:
            rows = self._view.match(matcher_sets[0])
        else:
            matching = np.zeros(self._view.rows, np.bool_)
            for matchers in matcher_sets:
                meter.charge(0, 0)  # each may take a while: there may be thousands
                matching[self._view.match(matchers)] = True
            rows = np.flatnonzero(matching)
        meter.release(0, size)
        return rows

    def _present(self, start: int, end: int, meter: Meter) -> IdSet:
        """The series that may have a sample in the range; those of which some were deleted, only if they do. Not
        charged when this returns."""
        size = _ROW_BYTES * self._view.rows + _ID_BYTES * sum(run.rows for run in self._snapshot.head.runs)
        meter.charge(0, size)
        present = IdSet()
        for meta in _overlapping(self._snapshot.blocks, start, end):
            meter.charge(0, 0)  # a block's series may have to be read
            reader = self._blocks.reader(meta.id)
            ids = reader.series_ids()
            if tombstones := applying(self._snapshot.tombstones, meta):
                ids = undeleted(reader, tombstones, start, end, meter)
            elif start > meta.min_time or end < meta.max_time:
                first, last = reader.time_bounds()
                ids = ids[(first <= end) & (last >= start)]
            present.add(ids)
        present.add(head_series(self._snapshot.head, start, end))
        meter.release(0, size)
        return present

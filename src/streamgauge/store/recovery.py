"""Opening a data folder: what the catalog, the blocks and the log say, put together into one state.

The catalog names the live blocks and how far they go; the log holds everything after that. A catalog that is lost is
rebuilt from the blocks' footers, and then the whole log counts again: a row that stands in a block too is the same row.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from streamgauge.errors import Corrupt, StorageError
from streamgauge.model.arrays import Bools, UInt32s
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.events import EventBatch
from streamgauge.store import arrow
from streamgauge.store.blocks import LocalBlocks, live_blocks
from streamgauge.store.catalog import CatalogLost, SqliteCatalog
from streamgauge.store.clean import samples_left
from streamgauge.store.damage import Damage
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.ports import EventBlockMeta, EventCatalog, EventChange
from streamgauge.store.events.recovery import LoggedStreams, named_in_blocks
from streamgauge.store.id_set import IdSet
from streamgauge.store.log import SegmentLog
from streamgauge.store.patience import Patience
from streamgauge.store.ports import BlockMeta, CatalogChange, CatalogState, Record, RecordKind, Tombstone
from streamgauge.store.records import decode_metadata, decode_samples, decode_series
from streamgauge.store.replay import log_store_id
from streamgauge.store.tombstones import applying
from streamgauge.store.watermarks import Watermarks

LOG = logging.getLogger(__name__)

_LOST_DELETIONS = "deletions that were not carried out yet are lost with it: delete again what was deleted last"


@dataclass(frozen=True, slots=True)
class Series:
    """Series found on disk, each id once."""

    ids: UInt32s
    keys: arrow.Keys


@dataclass(slots=True)
class Recovered:
    """What is on disk, before the log's samples are replayed."""

    catalog: SqliteCatalog
    blocks: LocalBlocks
    state: CatalogState
    series: Series
    next_series_id: int
    watermarks: Watermarks
    metadata: dict[str, Metadata]
    samples: int  # of the log, that blocks do not hold
    damage: list[Damage] = field(default_factory=list)

    @property
    def unsaved_metadata(self) -> dict[str, Metadata]:
        """What only the log knows: it must reach the catalog before the log is trimmed."""
        saved = set(self.state.metadata)
        return {
            metric: entry
            for metric, entry in self.metadata.items()
            if (entry.metric, entry.type, entry.help, entry.unit) not in saved
        }


def recover(data: Path, writable: bool = True, patience: Patience | None = None) -> Recovered:
    """Read everything but the samples of the log. Without `writable`, nothing in the folder is changed.

    `patience`: with a disk that does not give back a block.

    Raises FormatTooNew and StorageError; whatever is merely damaged is set aside and listed in `damage`.
    """
    patience = patience or Patience()
    blocks = LocalBlocks(data, patience=patience)
    damage: list[Damage] = []
    catalog = _open_catalog(data, blocks, writable, damage)
    state = catalog.load()
    found = _SeriesFound()
    live = [meta for meta in state.blocks if _read_series(blocks, meta, found, writable, damage, patience)]
    if len(live) < len(state.blocks):
        if writable:
            _drop_from_catalog(catalog, CatalogChange(remove=[meta.id for meta in state.blocks if meta not in live]))
        state = replace(state, blocks=tuple(live))
    event_blocks = LocalEventBlocks(data)
    events = state.events
    live_events = [meta for meta in events.blocks if _can_read(event_blocks, meta, writable, damage, patience)]
    if len(live_events) < len(events.blocks):
        if writable:
            gone = [meta.id for meta in events.blocks if meta not in live_events]
            _drop_from_catalog(catalog, CatalogChange(events=EventChange(remove=gone)))
        state = replace(state, events=replace(events, blocks=tuple(live_events)))
    if writable:
        _remove_orphans(blocks, state, damage)
        _remove_orphaned_events(event_blocks, state, damage)
    metadata = {entry[0]: Metadata(*entry) for entry in state.metadata}
    log = SegmentLog(data, state.store_id, in_blocks_through(state), writable=False)
    samples = 0
    for record in log.replay():
        try:
            held = _definition(record, found, metadata)
            samples += held if record.commit > state.flushed_through else 0
        except Corrupt as error:
            if record.kind in (RecordKind.SERIES, RecordKind.METADATA):  # of the others `replay` will speak
                damage.append(_unreadable(record, error))
    series = found.series()
    next_id = max(state.next_series_id, found.next_id)
    return Recovered(catalog, blocks, state, series, next_id, found.watermarks, metadata, samples, damage)


def in_blocks_through(state: CatalogState) -> int:
    """The commit up to which blocks hold everything, and the log may hold nothing."""
    return min(state.flushed_through, state.events.flushed_through)


@dataclass(frozen=True, slots=True)
class Replayed:
    """A commit that blocks do not hold: samples, of which there were `read` before some were left out, or events."""

    number: int
    samples: SampleBatch
    read: int
    events: tuple[EventBatch, ...] = ()


def replay(
    log: SegmentLog, state: CatalogState, series: Series, left_out: UInt32s, closed: int, damage: list[Damage]
) -> Iterator[Replayed]:
    """Commits that blocks do not hold yet, in order. Reads the log to its end.

    Left out, and noted in `damage`, are samples of series that nothing defines any more; without a word those of the
    series `left_out`, whose key has another id by now: they are past their retention. So are samples older than
    `closed` (ms), which are in aggregates already: the log still has some where the catalog was lost.
    """
    defined, usable = IdSet(), IdSet()
    defined.add(series.ids)
    usable.add(series.ids)
    usable.discard(left_out)
    streams = LoggedStreams({each.stream.id: each.stream for each in state.events.named})
    lost = 0
    for record in log.replay():
        try:
            if (events := streams.commit_of(record)) and record.commit > state.events.flushed_through:
                yield Replayed(record.commit, _NO_SAMPLES, 0, events)
            if record.kind != RecordKind.SAMPLES or record.commit <= state.flushed_through:
                continue
            batch = decode_samples(record.payload)
        except Corrupt as error:
            damage.append(_unreadable(record, error))
            continue
        lost += int(np.count_nonzero(~defined.contains(batch.series)))
        kept = usable.contains(batch.series) & (batch.times >= closed)
        yield Replayed(record.commit, _only(batch, kept), len(batch))
    if lost:
        what = f"{lost} samples in the log are not served: the record with the labels of their series is damaged"
        damage.append(Damage("log", what))
    damage += log.damage


_NO_SAMPLES = SampleBatch(np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0, np.float64))


def _only(batch: SampleBatch, wanted: Bools) -> SampleBatch:
    if wanted.all():
        return batch
    return SampleBatch(batch.series[wanted], batch.times[wanted], batch.values[wanted])


def _unreadable(record: Record, error: Corrupt) -> Damage:
    return Damage("log", f"a record of commit {record.commit} makes no sense and is left out: {error.message}")


class _SeriesFound:
    """Definitions gathered from blocks and log, in order of finding."""

    def __init__(self) -> None:
        self._ids: list[UInt32s] = []
        self._keys: list[arrow.Keys] = []
        self.watermarks = Watermarks()
        self.next_id = 0  # above every id that occurs, be it defined or not

    def add(self, ids: UInt32s, keys: arrow.Keys) -> None:
        self.see(ids)
        self._ids.append(ids)
        self._keys.append(keys)

    def see(self, ids: UInt32s) -> None:
        """These ids were given: a new series with one of them would inherit what is stored under it."""
        self.next_id = max(self.next_id, int(ids.max(initial=0)) + 1 if len(ids) else 0)

    def series(self) -> Series:
        """Each once, as it was found first."""
        if not self._ids:
            return Series(np.empty(0, np.uint32), arrow.keys_of([]))
        ids = np.concatenate(self._ids)
        first = np.sort(np.unique(ids, return_index=True)[1])
        ends = np.cumsum([len(part) for part in self._ids])
        finds = np.split(first, np.searchsorted(first, ends[:-1]))
        starts = ends - [len(part) for part in self._ids]
        parts = [arrow.take_keys(keys, rows - at) for keys, rows, at in zip(self._keys, finds, starts, strict=True)]
        return Series(ids[first], arrow.keys_of(parts))

    def unseen(self, ids: UInt32s) -> Bools:
        """Which of the ids have not been added."""
        if not self._ids:
            return np.ones(len(ids), np.bool_)
        return ~np.isin(ids, np.concatenate(self._ids))


def _open_catalog(data: Path, blocks: LocalBlocks, writable: bool, damage: list[Damage]) -> SqliteCatalog:
    try:
        return SqliteCatalog.open(data, writable=writable)
    except CatalogLost as lost:
        if lost.damage is not None:
            damage.append(replace(lost.damage, what=f"{lost.damage.what}; {_LOST_DELETIONS}"))
        if not writable:
            raise
    found, broken = blocks.scan()
    damage += broken
    live, superseded = live_blocks(found)
    for meta in superseded:
        blocks.remove(meta.id)
    events = _events_of_blocks(LocalEventBlocks(data), damage)
    if live or events.blocks:
        LOG.warning(
            "the catalog is rebuilt from the footers of %d blocks, and the whole log is replayed; %s",
            len(live) + len(events.blocks),
            _LOST_DELETIONS,
        )
    # The store id ties the log to the folder: it must be the log's, or its segments would count as foreign.
    store_id = log_store_id(data) or uuid.uuid4().hex
    last = max([*(meta.last_commit for meta in live), events.flushed_through], default=0)
    held = _held_by_blocks(data, store_id, last)
    events = replace(events, flushed_through=max(events.flushed_through, held))
    return SqliteCatalog.create(data, CatalogState(store_id, held, 0, tuple(live), events=events))


def _events_of_blocks(blocks: LocalEventBlocks, damage: list[Damage]) -> EventCatalog:
    """What the blocks of events that are there tell of them. Those that were merged into another go."""
    found, broken = blocks.scan()
    damage += broken
    replaced = {parent for meta in found for parent in meta.parents}
    live = [meta for meta in found if meta.id not in replaced]
    for meta in found:
        if meta.id in replaced:
            blocks.remove(meta.id)
    through = max((meta.last_commit for meta in live), default=0)
    following = max((meta.max_stream + 1 for meta in live), default=1)
    named = named_in_blocks(blocks, sorted(live, key=lambda meta: meta.last_commit))
    return EventCatalog(through, following, tuple(sorted(live, key=lambda meta: meta.id)), named)


def _held_by_blocks(data: Path, store_id: str, last: int) -> int:
    """A commit up to which blocks hold everything and the log nothing, so that no record of the log is passed over and
    none that was trimmed is missed. `last`: that of all blocks."""
    first = next((record.commit for record in SegmentLog(data, store_id, writable=False).replay()), last + 1)
    return min(last, first - 1)


def _drop_from_catalog(catalog: SqliteCatalog, change: CatalogChange) -> None:
    try:
        catalog.apply(change)
    except StorageError as error:  # a full disk must not keep the server from starting; the next start tries again
        LOG.error("blocks that cannot be read stay in the catalog: %s", error.message)


def _read_series(
    blocks: LocalBlocks, meta: BlockMeta, found: _SeriesFound, writable: bool, damage: list[Damage], patience: Patience
) -> bool:
    """Take a block's series in. False when the block cannot be read, not even after some tries, and is set aside."""

    def read() -> None:
        with blocks.open(meta.id) as reader:
            ids = reader.series_ids()
            unseen = found.unseen(ids)
            if unseen.any():
                found.add(ids[unseen], reader.keys().filter(pa.array(unseen)))
            found.watermarks = found.watermarks.raised(ids, reader.time_bounds()[1])

    try:
        patience.read(read)
    except Corrupt as error:
        damage.append(_lost(blocks, meta.id, f"{meta.samples} samples", error, writable))
        return False
    return True


def _lost(
    blocks: LocalBlocks | LocalEventBlocks, block_id: str, content: str, error: Corrupt, writable: bool
) -> Damage:
    """What to say of a block that cannot be read, which is set aside if it is there."""
    if block_id not in blocks.names():
        return Damage(block_id, f"block {block_id} is missing: {content} are lost with it")
    what = f"{error.message}; {content} are not served"
    return blocks.set_aside(block_id, what) if writable else Damage(block_id, what)


def _remove_orphans(blocks: LocalBlocks, state: CatalogState, damage: list[Damage]) -> None:
    """Remove what a flush, compaction or retention that was cut short left on disk; keep what none of them explains."""
    live = {meta.id: meta for meta in state.blocks}
    replaced = {parent for meta in state.blocks for parent in meta.parents}
    found, broken = blocks.scan()
    damage += broken
    for meta in found:
        if meta.id in live:
            continue
        unfinished = meta.first_commit > state.flushed_through or any(parent in live for parent in meta.parents)
        past = meta.max_time < state.dropped_before
        if unfinished or meta.id in replaced or past or _is_deleted(blocks, meta, state.tombstones):
            blocks.remove(meta.id)
        else:
            damage.append(blocks.set_aside(meta.id, f"block {meta.id} is not in the catalog and nothing tells why"))


def _can_read(
    blocks: LocalEventBlocks, meta: EventBlockMeta, writable: bool, damage: list[Damage], patience: Patience
) -> bool:
    """False when a block of events cannot be read, not even after some tries, and is set aside."""
    try:
        patience.read(lambda: blocks.open(meta.id).close())
    except Corrupt as error:
        damage.append(_lost(blocks, meta.id, f"{meta.events} events", error, writable))
        return False
    return True


def _remove_orphaned_events(blocks: LocalEventBlocks, state: CatalogState, damage: list[Damage]) -> None:
    """`_remove_orphans` of blocks of events."""
    live = {meta.id for meta in state.events.blocks}
    replaced = {parent for meta in state.events.blocks for parent in meta.parents}
    found, broken = blocks.scan()
    damage += broken
    for meta in found:
        unfinished = meta.first_commit > state.events.flushed_through or not live.isdisjoint(meta.parents)
        if meta.id in live:
            continue
        if unfinished or meta.id in replaced or meta.max_time < state.events.dropped_before:
            blocks.remove(meta.id)
        else:
            damage.append(blocks.set_aside(meta.id, f"block {meta.id} is not in the catalog and nothing tells why"))


def _is_deleted(blocks: LocalBlocks, meta: BlockMeta, tombstones: Sequence[Tombstone]) -> bool:
    """Whether deletions that are being carried out have left nothing of a block."""
    if not (mine := applying(tombstones, meta)):
        return False
    try:
        with blocks.open(meta.id) as reader:
            return samples_left(reader, mine) == 0
    except Corrupt:
        return False


def _definition(record: Record, found: _SeriesFound, metadata: dict[str, Metadata]) -> int:
    """Take in what a record defines. How many samples it has."""
    if record.kind == RecordKind.SERIES:
        ids, keys = decode_series(record.payload)
        found.add(ids, arrow.keys_of([keys]))
    elif record.kind == RecordKind.SAMPLES:
        batch = decode_samples(record.payload)
        found.see(batch.series)
        return len(batch)
    elif record.kind == RecordKind.METADATA:
        for entry in decode_metadata(record.payload):
            metadata[entry.metric] = entry.after(metadata.get(entry.metric))
    return 0

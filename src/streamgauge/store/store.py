"""The store: one data folder, open for writing. Everything here is called on the event loop's thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from streamgauge.clock import Clock
from streamgauge.errors import IndexFull, Overloaded, ReadOnly, StorageError
from streamgauge.model.arrays import UInt32s
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.events import EventBatch
from streamgauge.model.listener import Listener
from streamgauge.model.series_limits import SeriesLimits
from streamgauge.model.sink import Done
from streamgauge.store.commit_times import CommitTimes
from streamgauge.store.committer import Commit, Committer, Pending, pending_events, settle
from streamgauge.store.damage import Damage
from streamgauge.store.events.head import EventHead
from streamgauge.store.events.ports import EventRule
from streamgauge.store.events.store import EventState, EventStore, Gate
from streamgauge.store.head import MAX_COMMIT_ROWS, Head
from streamgauge.store.index import SeriesIndex
from streamgauge.store.leases import Leases
from streamgauge.store.ports import DAY_MS, FIRST_TIME, BlockMeta, Log, Tombstone
from streamgauge.store.pruning import Pruner
from streamgauge.store.refusals import Refusals
from streamgauge.store.resolutions import Tier, thinned_through
from streamgauge.store.retention import RetentionRule
from streamgauge.store.snapshot import StoreSnapshot, by_priority
from streamgauge.store.watermarks import Watermarks

LOG = logging.getLogger(__name__)

OLDEST_ADMITTED = -62_135_596_800_000
"""0001-01-01: what is older has no date in RFC 3339, and none in most tools that open a block."""
MAX_AHEAD_MS = DAY_MS
"""A sample further ahead of the clock is refused: retention would never reach it."""
MAX_QUEUED_ROWS = 2_000_000
"""Rows on their way to the disk before writers are held back: 40 MB, a second or two of the fastest ingest."""
BULK_QUEUED_ROWS = 250_000
"""Rows on their way to the disk from which on bulk imports wait: some tens of ms, which a live write waits behind."""
MAX_METADATA_BYTES = 64 << 20
"""Of types and helps that are kept: those of 200,000 metrics, where a large fleet has 2,000, and a bound on a hostile
client."""
_METADATA_OVERHEAD = 200
"""Bytes of an entry beside its texts."""
MAX_HELP_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """retention, event_retention: ms, 0 keeps for ever. rules: what is kept shorter; of several that match the first
    counts. retention_bytes: of blocks and log, 0 is no limit. tiers: aggregates that are kept of what is past
    retention, ascending; empty for none. head_samples, head_events, head_event_bytes: what in memory starts a flush.
    Sizes in bytes."""

    retention: int = 15 * DAY_MS
    event_retention: int = 15 * DAY_MS
    event_rules: tuple[EventRule, ...] = ()
    rules: tuple[RetentionRule, ...] = ()
    retention_bytes: int = 0
    tiers: tuple[Tier, ...] = ()
    head_samples: int = 4_000_000
    head_events: int = 131_072
    head_event_bytes: int = 64 << 20
    index_bytes: int = 1 << 30
    min_free_bytes: int = 64 << 20
    limits: SeriesLimits = field(default_factory=SeriesLimits)


@dataclass(slots=True)
class StoreState:
    """What recovery hands to the store, and what maintenance changes in one go."""

    blocks: tuple[BlockMeta, ...]  # by priority
    flushed_through: int
    commit: int  # the last one that is visible
    watermarks: Watermarks
    metadata: dict[str, Metadata]
    unsaved_metadata: dict[str, Metadata]  # what of it is in the log and not yet in the catalog
    damage: list[Damage]
    tombstones: tuple[Tombstone, ...] = ()  # deletions that wait to be carried out, by id
    events: EventState = field(default_factory=EventState)


class Store:
    """Implements model.sink.Sink. Made by `opening.open_store`; `maintenance.Maintenance` keeps it in shape."""

    def __init__(
        self,
        data: Path,
        settings: StoreSettings,
        clock: Clock,
        leases: Leases,
        index: SeriesIndex,
        head: Head,
        event_head: EventHead,
        log: Log,
        state: StoreState,
    ) -> None:
        self.data = data
        self.settings = settings
        self.leases = leases
        self.index = index
        self.head = head
        self.state = state
        self.work = asyncio.Event()  # set when maintenance may have something to do
        self.refusal: ReadOnly | None = None  # why writes are refused at the moment
        self._clock = clock
        self._unsaved_metadata = state.unsaved_metadata
        self._metadata_bytes = sum(map(_size, state.metadata.values()))
        self.samples_appended = 0  # since the start
        self._queued: set[Pending] = set()  # on their way to the disk
        self._queued_rows = 0
        self._broken = False  # a commit is on disk and not in memory
        self._closing = False
        self._closed_before = FIRST_TIME  # what is older is about to become aggregates
        self._thinned_through = thinned_through(state.blocks)
        self._room = asyncio.Condition()
        self._bulk_waiting = 0  # who waits in `bulk_room`
        self._listeners: list[Listener] = []
        self.pruner = Pruner(index)
        self.refusals = Refusals()
        self.commit_times = CommitTimes(state.flushed_through)
        self.committer = Committer(log, index.keys_of, self._published, self._failed)
        gate = Gate(self._refuse_if_must, self._wait_until, self._submit_events)
        self.events = EventStore(event_head, state.events, clock, gate, settings.head_events, settings.head_event_bytes)

    # ---- writing ----------------------------------------------------------------------------------------------------

    def resolve(self, key: bytes) -> int:
        try:
            return self.index.resolve(key)
        except IndexFull as error:
            self.refusals.note(error, key, self._clock.now_ms())
            raise

    @property
    def generation(self) -> int:
        return self.index.generation

    def admitted(self) -> tuple[int, int]:
        now = self._clock.now_ms()
        return max(self.oldest_kept(now), self.closed_through), now + MAX_AHEAD_MS

    @property
    def closed_through(self) -> int:
        """Of the days before this time, in ms, only aggregates are kept: they take no more samples, even if they are no
        longer past retention."""
        return max(self._closed_before, self._thinned_through)

    def close_before(self, time: int) -> None:
        """Take no more samples of the days before `time`, in ms. Those that were taken may be on their way."""
        self._closed_before = max(self._closed_before, time)

    def queued_before(self, time: int) -> bool:
        """Whether a sample older than `time`, in ms, is on its way to the disk."""
        return any((pending.batch.times < time).any() for pending in self._queued)

    def keep_for(
        self,
        retention: int,
        rules: tuple[RetentionRule, ...] = (),
        retention_bytes: int = 0,
        tiers: tuple[Tier, ...] = (),
    ) -> None:
        """Change the retention: ms, 0 keeps for ever; what is kept shorter; bytes, 0 is no limit; and which aggregates
        are kept after it."""
        self.settings = replace(
            self.settings, retention=retention, rules=rules, retention_bytes=retention_bytes, tiers=tiers
        )

    def keep_events_for(self, retention: int, rules: tuple[EventRule, ...] = ()) -> None:
        """Change how long events are kept: ms, 0 keeps for ever; and which of them shorter."""
        self.settings = replace(self.settings, event_retention=retention, event_rules=rules)

    def limit_series(self, limits: SeriesLimits) -> None:
        """Change how many series there may be. Those there are stay, however many they are."""
        self.settings = replace(self.settings, limits=limits)
        self.index.limits = limits

    def oldest_kept(self, now: int) -> int:
        """The oldest time, in ms, that retention lets live."""
        return max(OLDEST_ADMITTED, now - self.settings.retention) if self.settings.retention else OLDEST_ADMITTED

    async def append(self, batch: SampleBatch, metadata: Sequence[Metadata] = ()) -> None:
        self._refuse_if_must()
        fresh = self._new_metadata(metadata)
        if not len(batch) and not fresh:
            return
        await self._wait_for_room(len(batch))
        self._refuse_closed(batch)  # from here to the queue nothing else gets a turn
        self.pruner.admit(batch.series)
        self.head.reserve(self._queued_rows + len(batch))
        loop = asyncio.get_running_loop()
        waiting = []
        for start in range(0, max(len(batch), 1), MAX_COMMIT_ROWS):
            part = _slice(batch, start, start + MAX_COMMIT_ROWS)
            stored: asyncio.Future[None] = loop.create_future()
            self._queue(Pending(part, fresh if start == 0 else (), partial(settle, stored)))
            waiting.append(stored)
        await (waiting[0] if len(waiting) == 1 else asyncio.gather(*waiting))

    def begin(self, batch: SampleBatch, done: Done, metadata: Sequence[Metadata] = ()) -> bool:
        rows = len(batch.series)
        if self.refusal is not None or self._closing or not 0 < rows <= MAX_COMMIT_ROWS or not self._has_room(rows):
            return False
        try:
            self._refuse_closed(batch)
            self.pruner.note(batch.series)
            self.head.reserve(self._queued_rows + rows)
        except Overloaded:
            return False
        self._queue(Pending(batch, self._new_metadata(metadata), done))
        return True

    def _queue(self, pending: Pending) -> None:
        self._queued.add(pending)
        self._queued_rows += len(pending.batch.series)
        self.committer.submit(pending)

    def _refuse_closed(self, batch: SampleBatch) -> None:
        """Raises Overloaded for samples of days that were closed after they had been admitted. There are none when the
        batch comes again."""
        closed = self.closed_through
        if closed > FIRST_TIME and (batch.times < closed).any():
            raise Overloaded("a day of this batch has just been closed by downsampling; send it again", retry_after=1)

    async def bulk_room(self) -> None:
        self._refuse_if_must()
        if self._has_bulk_room():
            return
        self._bulk_waiting += 1
        try:
            async with self._room:
                await self._room.wait_for(lambda: self._has_bulk_room() or self.refusal is not None or self._closing)
        finally:
            self._bulk_waiting -= 1
        self._refuse_if_must()

    def _has_bulk_room(self) -> bool:
        """A quarter of the head stays free for live writes while a flush is on its way."""
        bound = self.settings.head_samples * 3 // 2
        return self._queued_rows < BULK_QUEUED_ROWS and self.head.rows + self._queued_rows < bound

    async def _wait_for_room(self, rows: int) -> None:
        """Back-pressure: hold the writer while the queue or the head is full."""
        if not self._has_room(rows):
            await self._wait_until(lambda: self._has_room(rows))

    async def _wait_until(self, has_room: Callable[[], bool]) -> None:
        async with self._room:
            await self._room.wait_for(lambda: has_room() or self.refusal is not None or self._closing)
        self._refuse_if_must()

    def _submit_events(self, batch: EventBatch) -> asyncio.Future[None]:
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.committer.submit(pending_events(batch, partial(settle, stored)))
        return stored

    def _refuse_if_must(self) -> None:
        if self.refusal is not None:
            raise ReadOnly(self.refusal.message)  # a new one: one that is raised again and again keeps every traceback
        if self._closing:
            raise Overloaded("the server is stopping", retry_after=5)

    def _has_room(self, rows: int) -> bool:
        crowded = self._queued_rows and self._queued_rows + rows > MAX_QUEUED_ROWS
        return not crowded and not self.head.full

    async def wake_writers(self) -> None:
        """Let held-back writers look again."""
        async with self._room:
            self._room.notify_all()

    def _new_metadata(self, metadata: Sequence[Metadata]) -> tuple[Metadata, ...]:
        known = self.state.metadata
        room = MAX_METADATA_BYTES - self._metadata_bytes
        fresh = []
        for said in map(_bounded, metadata):
            before = known.get(said.metric)
            entry = said.after(before)
            growth = _size(entry) - (_size(before) if before else 0)
            if entry != before and growth <= max(room, 0):
                fresh.append(entry)
                room -= growth
        return tuple(fresh)

    def _published(self, commits: Sequence[Commit], group: Sequence[Pending]) -> None:
        try:
            self._make_visible(commits)
        except Exception as error:
            # On disk and not in memory: only a start from the log puts that right, so nothing more is taken.
            LOG.critical("a commit that is on disk could not be made visible; restart the server", exc_info=True)
            self._broken = True
            self._failed(group, StorageError(f"stored, but visible only after a restart: {error!r}"))
            return
        for pending in group:
            if pending.metadata:
                self._take_metadata(pending.metadata)
        has_events = self._left_queue(group)
        self._tell(commits)
        self._end(group, None)
        if self.head.rows >= self.settings.head_samples or (has_events and self.events.flush_is_due):
            self.work.set()

    def _take_metadata(self, metadata: Sequence[Metadata]) -> None:
        for said in metadata:
            before = self.state.metadata.get(said.metric)
            entry = said.after(before)  # another may have come since it was queued
            self._metadata_bytes += _size(entry) - (_size(before) if before else 0)
            self.state.metadata[entry.metric] = self._unsaved_metadata[entry.metric] = entry

    def _make_visible(self, commits: Sequence[Commit]) -> None:
        for commit in commits:
            if commit.events:
                self.events.published(commit.number, commit.events)
            else:
                self.take_in(commit.number, commit.batch, commit.span)
            self.state.commit = commit.number
            self.samples_appended += len(commit.batch.series)

    def take_in(self, commit: int, batch: SampleBatch, span: tuple[int, int]) -> None:
        """Add a commit's samples, which are on disk, to those in memory. span: of their times."""
        self.head.append(commit, batch, span)
        if len(batch.series):
            self.commit_times.note(commit, span[0])

    def listen(self, listener: Listener) -> Callable[[], None]:
        """From now on the listener is told of each commit; what is returned ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _tell(self, commits: Sequence[Commit]) -> None:
        for listener in list(self._listeners):
            try:
                for commit in commits:
                    if commit.events:
                        listener.stored_events(commit.number, commit.events)
                    else:
                        listener.stored_samples(commit.number, commit.batch)
            except Exception:  # who listens is not to keep anybody from writing
                LOG.exception("what was stored could not be passed on")

    def _failed(self, group: Sequence[Pending], error: StorageError) -> None:
        self.refuse(error)
        for pending in group:
            self.events.failed(pending.events)
        self._left_queue(group)
        self._end(group, error)

    def _end(self, group: Sequence[Pending], error: StorageError | None) -> None:
        for pending in group:
            try:
                pending.done(error)
            except Exception:  # the others are to hear of it all the same
                LOG.exception("whoever appended could not be told what became of it")

    def _left_queue(self, group: Sequence[Pending]) -> bool:
        """Whether there were events among it."""
        before = self._queued_rows
        self._queued.difference_update(group)
        events: list[EventBatch] = []
        for pending in group:
            self._queued_rows -= len(pending.batch.series)
            events += pending.events
        crowded = bool(events) and self.events.left_queue(events)
        if before > MAX_QUEUED_ROWS // 2 or crowded or self._bulk_waiting:
            self._wake_soon()
        return bool(events)

    def _wake_soon(self) -> None:
        task = asyncio.ensure_future(self.wake_writers())
        task.add_done_callback(lambda done: done.exception())

    # ---- refusing writes --------------------------------------------------------------------------------------------

    def refuse(self, error: StorageError) -> None:
        """Go read-only, until `accept`."""
        if self.refusal is None:
            LOG.error("writes are refused from now on: %s", error.message)
        self.refusal = error if isinstance(error, ReadOnly) else ReadOnly(error.message)
        self.work.set()
        self._wake_soon()

    def accept(self) -> None:
        """The disk has recovered."""
        if self.refusal is not None and not self._broken:
            LOG.warning("writes are accepted again")
            self.refusal = None
            self._wake_soon()

    # ---- reading ----------------------------------------------------------------------------------------------------

    def snapshot(self) -> tuple[StoreSnapshot, Callable[[], None]]:
        """The state at this moment, under a lease: call the second item once it is no longer read."""
        snapshot = StoreSnapshot(
            self.data,
            self.state.commit,
            self.state.blocks,
            self.head.snapshot(),
            self.index.snapshot(),
            self.state.tombstones,
            self.events.snapshot(),
        )
        return snapshot, self.leases.acquire(snapshot.names())

    def is_described(self, metric: str) -> bool:
        """Whether there is metadata of the metric."""
        return metric in self.state.metadata

    def metadata(self) -> list[Metadata]:
        return list(self.state.metadata.values())

    def unsaved_metadata(self) -> list[Metadata]:
        """What the catalog does not hold yet."""
        return list(self._unsaved_metadata.values())

    def metadata_saved(self, saved: Sequence[Metadata]) -> None:
        """The catalog holds these now."""
        for entry in saved:
            if self._unsaved_metadata.get(entry.metric) == entry:
                del self._unsaved_metadata[entry.metric]

    @property
    def queued_series(self) -> list[UInt32s]:
        """Series of the rows on their way to the disk, batch by batch."""
        return [pending.batch.series for pending in self._queued]

    @property
    def queued_rows(self) -> int:
        """Rows on their way to the disk."""
        return self._queued_rows

    # ---- changing the set of blocks ---------------------------------------------------------------------------------

    def swap(self, add: Sequence[BlockMeta], remove: Sequence[str], flushed_through: int | None = None) -> None:
        """Make a change that the catalog holds visible, in one step: a snapshot sees a row in the head or in a block,
        never in both and never in neither."""
        gone = set(remove)
        self.state.blocks = by_priority([*(meta for meta in self.state.blocks if meta.id not in gone), *add])
        self._thinned_through = thinned_through(self.state.blocks)
        if flushed_through is not None:
            self.state.flushed_through = max(self.state.flushed_through, flushed_through)
            self.head.drop(flushed_through)
            self._wake_soon()

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Write what is queued and end. Nothing may be appended any more."""
        self._closing = True
        await self.wake_writers()
        await self.committer.close()


def _slice(batch: SampleBatch, start: int, stop: int) -> SampleBatch:
    if start == 0 and len(batch) <= stop:
        return batch
    return SampleBatch(batch.series[start:stop], batch.times[start:stop], batch.values[start:stop])


def _bounded(entry: Metadata) -> Metadata:
    if len(entry.help) <= MAX_HELP_CHARACTERS:
        return entry
    return Metadata(entry.metric, entry.type, entry.help[:MAX_HELP_CHARACTERS], entry.unit)


def _size(entry: Metadata) -> int:
    return len(entry.metric) + len(entry.type) + len(entry.help) + len(entry.unit) + _METADATA_OVERHEAD

"""Keeping the store in shape: flush, and what else is done at rest, in its order; coming back from a full disk.

Blocks are written by the helper process and become part of the store by a `Change`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from streamgauge.clock import Clock
from streamgauge.errors import Corrupt, ReadOnly, StorageError
from streamgauge.model.source import Matcher
from streamgauge.store import fs
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.catalog import SqliteCatalog
from streamgauge.store.changes import Change, Changes
from streamgauge.store.compactor import Compactor
from streamgauge.store.damaged_blocks import DamagedBlocks
from streamgauge.store.deletion import Deleted, Deletions
from streamgauge.store.events.maintenance import EventMaintenance
from streamgauge.store.events.ports import EventChange
from streamgauge.store.expiry import Expiry
from streamgauge.store.failpoints import hit
from streamgauge.store.folder_snapshot import without_log
from streamgauge.store.head import FlushInput
from streamgauge.store.helper import Runner
from streamgauge.store.jobs import FlushOrder, FlushResult, run_flush
from streamgauge.store.log import SegmentLog
from streamgauge.store.ports import CatalogChange, CatalogState
from streamgauge.store.reported import reported
from streamgauge.store.store import Store
from streamgauge.store.upkeep import Upkeep
from streamgauge.store.verify import check_live_blocks, check_live_event_blocks

LOG = logging.getLogger(__name__)

COMPACT_EVERY_SECONDS = 60.0
MAX_LOG_BYTES = 256 << 20
"""Of closed segments, before everything in memory is flushed so that they can go."""
IDLE_SECONDS = 3600.0
"""Without a flush for so long, what the last one wrote is compacted as if another had followed it."""
DISK_CHECK_SECONDS = 2.0
RETRY_SECONDS = 10.0
"""After a flush or a compaction that failed."""


class Maintenance:
    """The background work of one store. `run` is the whole of it; the steps can be called on their own, one at a time
    for each kind."""

    def __init__(
        self,
        store: Store,
        catalog: SqliteCatalog,
        blocks: LocalBlocks,
        log: SegmentLog,
        flusher: Runner,
        compacter: Runner,
        clock: Clock,
    ) -> None:
        changes = Changes(store, blocks)
        self._upkeep = upkeep = Upkeep(store, catalog, blocks, changes, flusher, compacter, clock)
        self._store = store
        self._catalog = catalog
        self._log = log
        self._flusher = flusher
        self._compacter = compacter
        self._clock = clock
        self._changes = changes
        self._flushing = asyncio.Lock()
        self._flush_error: StorageError | None = None  # why the last flush failed
        self._last_flush = clock.monotonic()  # or the start
        self.counts = upkeep.counts
        self.damaged = DamagedBlocks(upkeep, lambda metas: self.events.look_for_damage(metas))
        self.deletions = Deletions(upkeep, log, self._flushing, self.flush_all)
        self.events = EventMaintenance(
            store,
            catalog,
            changes,
            flusher,
            compacter,
            clock,
            self._trim_log,
            self.deletions.clear_log,
            self.damaged.suspect,
        )
        self._compactor = Compactor(upkeep, self.deletions, self.damaged)
        self._expiry = Expiry(upkeep, self._compactor, self.deletions, self.damaged, self.events, self.flush)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._flush_when_full())
            tasks.create_task(self._compact_and_expire())
            tasks.create_task(self._watch_disk())
            tasks.create_task(self.damaged.run())

    async def close(self) -> None:
        """Wait for files that are being removed. `run` has ended."""
        await self._changes.removals()

    # ---- flush ------------------------------------------------------------------------------------------------------

    async def _flush_when_full(self) -> None:
        while True:
            await self._store.work.wait()
            self._store.work.clear()
            try:
                while await self._flush_what_is_due():
                    pass
            except Exception as error:
                self.counts.flush_failures += 1
                what = "a flush failed and will be tried again; the log keeps everything"
                self._flush_error = reported(error, what)
                await self._clock.sleep(RETRY_SECONDS)
                self._store.work.set()
            else:
                self._flush_error = None

    async def _flush_what_is_due(self) -> bool:
        """False when nothing is, or not one segment is full."""
        store = self._store
        if store.head.rows >= store.settings.head_samples:
            return await self.flush(store.head.rows - store.settings.head_samples // 2)
        if store.events.flush_is_due:
            return await self.events.flush()
        if self.events.is_stale:
            return await self.events.flush(everything=True)
        if self._log.closed_bytes > MAX_LOG_BYTES:
            # What comes seldom must not keep the log of what comes often. Where nothing could be removed it would be
            # of no use to write the few rows that came meanwhile as blocks, again and again.
            before = self._log.closed_bytes
            await self.flush_all()
            await store.committer.run(lambda: None)  # behind the removals that it asked for
            return self._log.closed_bytes < before
        return False

    async def flush(self, rows: int) -> bool:
        """Write about the `rows` oldest rows of the head as blocks. False when there was nothing to write."""
        async with self._flushing:
            return await self._flush(rows)

    async def flush_all(self) -> None:
        """Write everything that is visible now as blocks. What is written meanwhile may stay in memory.

        Raises StorageError and Overloaded."""
        store = self._store
        commit = store.state.commit
        store.head.seal_between()
        while store.state.flushed_through < commit and await self.flush(store.head.rows):
            pass
        await self.events.flush_all()

    async def pin(self, skip_head: bool = False) -> tuple[CatalogState, Callable[[], None]]:
        """What the store holds now, as the catalog of a folder with the same blocks and no log would say it, under a
        lease on its blocks: call the second item once their files are no longer read.

        Everything acknowledged before the call is in it, or, with `skip_head`, only what is in blocks already. Raises
        StorageError and Overloaded.
        """
        if not skip_head:
            await self.flush_all()
        return await self._changes.between(self._pinned)

    def _pinned(self) -> tuple[CatalogState, Callable[[], None]]:
        state = without_log(self._catalog.load(), self._store.metadata())
        blocks = [meta.id for meta in state.blocks] + [meta.id for meta in state.events.blocks]
        return state, self._store.leases.acquire(blocks)

    async def _flush(self, rows: int) -> bool:
        store = self._store
        await self._changes.settle()
        taken = store.head.take_oldest(rows)
        if taken is None:
            return False
        index = store.index.snapshot()
        release = store.leases.acquire([*taken.names, *index.names])
        try:
            order = FlushOrder(store.data, taken.runs, index, store.state.watermarks)
            result: FlushResult = await self._flusher.run(run_flush, order)
        except StorageError:
            await self._upkeep.remove_written(taken.runs[0].first_commit, taken.runs[-1].last_commit)
            raise
        finally:
            release()
        await self._changes.make(self._flushed(taken, result))
        return True

    def _flushed(self, taken: FlushInput, result: FlushResult) -> Change:
        store = self._store
        metadata = store.unsaved_metadata()
        change = CatalogChange(
            add=result.blocks,
            flushed_through=taken.through,
            next_series_id=store.index.next_id,
            metadata=[(entry.metric, entry.type, entry.help, entry.unit) for entry in metadata],
            events=EventChange(flushed_through=store.events.in_blocks_through(taken.through)),
        )

        def apply() -> None:
            hit("flush.before_catalog")
            self._catalog.apply(change)
            hit("flush.after_catalog")

        def visible() -> None:
            store.swap(result.blocks, (), taken.through)
            store.state.watermarks = result.watermarks
            store.metadata_saved(metadata)
            store.events.swap((), (), change.events.flushed_through)
            self.counts.flushes += 1
            self._last_flush = self._clock.monotonic()
            self._trim_log()

        return Change(apply, visible, result.blocks)

    def _trim_log(self) -> None:
        """Remove from the log what blocks hold, by what the catalog says."""
        state = self._store.state
        through = min(state.flushed_through, state.events.flushed_through)
        self._store.committer.run(lambda: self._trim(through)).add_done_callback(_report_trim)

    def _trim(self, through: int) -> None:
        self._log.trim(through)
        hit("flush.after_trim")

    # ---- compaction and retention -----------------------------------------------------------------------------------

    async def _compact_and_expire(self) -> None:
        flushes = 0
        while True:
            worked = True
            while worked:
                worked = False
                for step in (self.expire, self.clean, self.compact, self.events.compact):
                    worked = await self._try(step) or worked
            await self._compacter.close()
            if self.counts.flushes == flushes:  # its process would only hold memory
                await self._flusher.close()
            flushes = self.counts.flushes
            self._store.work.set()  # the log may have grown long
            await self._clock.sleep(COMPACT_EVERY_SECONDS)

    async def _try(self, step: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await step()
        except Exception as error:
            if step == self.expire:
                self.counts.expiry_failures += 1
            else:
                self.counts.compaction_failures += 1
            reported(error, f"{step.__name__} failed and will be tried again; nothing is lost")
            return False

    async def compact(self) -> bool:
        """One compaction, if one is worth it. False when none is."""
        return await self._compactor.compact(self._clock.monotonic() - self._last_flush >= IDLE_SECONDS)

    async def compact_fully(self) -> None:
        """Write the whole head, carry out deletions and compact everything into one block a day. For a store that
        nobody writes to or reads from."""
        await self.flush_all()
        await self.clean_tombstones()
        await self._compactor.compact_fully()
        await self.events.compact_fully()
        await self._changes.removals()

    async def expire(self) -> bool:
        """See `Expiry.expire`."""
        return await self._expiry.expire()

    # ---- deletion ---------------------------------------------------------------------------------------------------

    async def delete(self, matcher_sets: Sequence[Sequence[Matcher]], start: int, end: int) -> Deleted:
        """See `Deletions.delete`."""
        with self.damaged.suspecting():
            return await self.deletions.delete(matcher_sets, start, end)

    async def clean(self) -> bool:
        """Carry deletions out in one block. False when there is nothing to do."""
        try:
            cleaned = await self.deletions.clean()
        except Corrupt as error:
            LOG.error("a deletion met damaged data: %s", error.message)
            return await self.damaged.look(error.message) > 0
        if cleaned:
            self._expiry.data_went()
        return cleaned

    async def clean_tombstones(self) -> None:
        """Carry out every deletion, and forget the series that have no data any more. What a query still reads stays on
        the disk until it ends. Raises StorageError and Overloaded."""
        while await self.clean():
            pass
        await self._expiry.prune()

    async def check(self) -> list[str]:
        """What is wrong with the live blocks, and with the deletions that wait."""
        metas, tombstones = self._store.state.blocks, self._store.state.tombstones
        events = self._store.events.state.blocks
        release = self._store.leases.acquire([meta.id for meta in metas] + [meta.id for meta in events])
        try:
            problems = await self._compacter.run(
                check_live_blocks, self._store.data, metas, tombstones, self._store.index.next_id
            )
            problems += await self._compacter.run(check_live_event_blocks, self._store.data, events)
        finally:
            release()
        return problems + [f"{damage.path}: {damage.what}" for damage in self._store.state.damage]

    # ---- the disk ---------------------------------------------------------------------------------------------------

    async def _watch_disk(self) -> None:
        while True:
            try:
                await self.check_disk()
            except Exception as error:
                reported(error, "the disk cannot be looked at")
            await self._clock.sleep(DISK_CHECK_SECONDS)

    async def check_disk(self) -> None:
        """Refuse writes before the disk is full, or when the head is and cannot be written; and try whether the disk
        takes writes again. Raises StorageError."""
        store = self._store
        least = store.settings.min_free_bytes
        free = await asyncio.to_thread(fs.free_bytes, store.data)
        if free < least:
            store.refuse(
                ReadOnly(
                    f"the disk of {store.data} has {free >> 20} MiB left, less than the {least >> 20} MiB that are "
                    "kept free (--min-free-bytes); what is stored can be read, and writes go on when there is room"
                )
            )
        elif self._flush_error is not None and (store.head.full or store.events.head.full):
            store.refuse(ReadOnly(f"memory is full and cannot be written as a block: {self._flush_error.message}"))
        elif store.refusal is not None:
            try:
                await store.committer.probe()
            except StorageError:
                return
            store.accept()


def _report_trim(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.error(
            "log segments that are no longer needed could not be removed, and stay until the next flush: %s", error
        )

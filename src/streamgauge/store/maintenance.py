"""Keeping the store in shape: flush, compaction, retention, and coming back from a full disk.

Each change of the set of blocks takes the same steps: blocks are written by the helper process, the catalog takes them
in one transaction, one step on the event loop makes them visible, and what is no longer needed goes when nobody reads
it any more. A kill at any point leaves one of two states: the old set, or the new one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from streamgauge.clock import Clock
from streamgauge.errors import Corrupt, ReadOnly, StorageError
from streamgauge.model.arrays import UInt32s
from streamgauge.store import fs
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.catalog import SqliteCatalog
from streamgauge.store.compact import CompactionPlan, full_plan, plan_compaction
from streamgauge.store.failpoints import hit
from streamgauge.store.head_view import head_series
from streamgauge.store.helper import Runner
from streamgauge.store.jobs import FlushOrder, FlushResult, find_damage, run_compaction, run_flush
from streamgauge.store.log import SegmentLog
from streamgauge.store.ports import BlockMeta, CatalogChange
from streamgauge.store.retention import expired
from streamgauge.store.store import FIRST_TIME, LAST_TIME, Store
from streamgauge.store.verify import check_live_blocks

LOG = logging.getLogger(__name__)

COMPACT_EVERY_SECONDS = 60.0
DISK_CHECK_SECONDS = 2.0
RETRY_SECONDS = 10.0
"""After a flush or a compaction that failed."""
CLOCK_JUMP_MS = 600_000
"""More than NTP corrects: retention waits until such a jump has proved to last."""
TRUST_SECONDS = 3600.0


Reached = Callable[[], None]


@dataclass(slots=True)
class Counts:
    """What maintenance did since the start."""

    flushes: int = 0
    flush_failures: int = 0
    compactions: int = 0
    compaction_failures: int = 0
    blocks_dropped: int = 0


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
        self._store = store
        self._catalog = catalog
        self._blocks = blocks
        self._log = log
        self._flusher = flusher
        self._compacter = compacter
        self._clock = clock
        self._changing = asyncio.Lock()  # one change of the catalog at a time
        self._wall_ms = clock.now_ms()
        self._monotonic = clock.monotonic()
        self._distrust_until = 0.0
        self.counts = Counts()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._flush_when_full())
            tasks.create_task(self._compact_and_expire())
            tasks.create_task(self._watch_disk())

    # ---- flush ------------------------------------------------------------------------------------------------------

    async def _flush_when_full(self) -> None:
        store = self._store
        while True:
            await store.work.wait()
            store.work.clear()
            while store.head.rows >= store.settings.head_samples:
                try:
                    await self.flush(store.head.rows - store.settings.head_samples // 2)
                except StorageError as error:
                    self.counts.flush_failures += 1
                    LOG.error("a flush failed and will be tried again; the log keeps everything: %s", error.message)
                    await self._clock.sleep(RETRY_SECONDS)

    async def flush(self, rows: int) -> bool:
        """Write about the `rows` oldest rows of the head as blocks. False when there was nothing to write."""
        store = self._store
        taken = store.head.take_oldest(rows)
        if taken is None:
            return False
        snapshot, release = store.snapshot()
        try:
            order = FlushOrder(store.data, taken.runs, snapshot.index, store.state.watermarks)
            result: FlushResult = await self._flusher.run(run_flush, order)
        finally:
            release()
        metadata = store.take_unsaved_metadata()
        change = CatalogChange(
            add=result.blocks,
            flushed_through=taken.through,
            next_series_id=store.index.next_id,
            metadata=[(entry.metric, entry.type, entry.help, entry.unit) for entry in metadata.values()],
        )
        async with self._changing:
            try:
                await asyncio.to_thread(
                    self._apply, change, lambda: hit("flush.before_catalog"), lambda: hit("flush.after_catalog")
                )
            except StorageError:
                store.keep_unsaved(metadata)
                raise
            store.swap(result.blocks, (), taken.through)
        store.raise_watermarks(result.ids, result.latest)
        self.counts.flushes += 1
        store.committer.run(lambda: self._trim(taken.through)).add_done_callback(_report_trim)
        return True

    def _apply(self, change: CatalogChange, before: Reached, after: Reached) -> None:
        before()
        self._catalog.apply(change)
        after()

    def _trim(self, through: int) -> None:
        self._log.trim(through)
        hit("flush.after_trim")

    # ---- compaction and retention -----------------------------------------------------------------------------------

    async def _compact_and_expire(self) -> None:
        while True:
            try:
                await self.expire()
                while await self.compact():
                    pass
            except StorageError as error:
                self.counts.compaction_failures += 1
                LOG.error("a compaction failed and will be tried again; nothing is lost: %s", error.message)
            await self._compacter.close()
            await self._clock.sleep(COMPACT_EVERY_SECONDS)

    async def compact(self) -> bool:
        """One compaction, if one is worth it. False when none is."""
        plan = plan_compaction(self._store.state.blocks, self._clock.now_ms())
        return plan is not None and await self._perform(plan)

    async def _perform(self, plan: CompactionPlan) -> bool:
        """Carry a plan out. False when nothing came of it."""
        parents = [meta.id for meta in plan.inputs]
        release = self._store.leases.acquire(parents)
        try:
            written = await self._compacter.run(run_compaction, self._store.data, plan)
        except Corrupt as error:
            LOG.error("a compaction met damaged data: %s", error.message)
            return await self.look_for_damage() > 0
        finally:
            release()
        if not await self._replace(written, parents):
            for meta in written:
                await asyncio.to_thread(self._blocks.remove, meta.id)
            return False
        self.counts.compactions += 1
        return True

    async def compact_fully(self) -> None:
        """Write the whole head and compact everything into one block a day. For a store that nobody writes to."""
        self._store.head.seal()
        while await self.flush(self._store.head.rows):
            pass
        while (plan := full_plan(self._store.state.blocks)) is not None:
            await self._perform(plan)

    async def check(self) -> list[str]:
        """What is wrong with the live blocks."""
        metas = self._store.state.blocks
        release = self._store.leases.acquire([meta.id for meta in metas])
        try:
            problems = await self._compacter.run(check_live_blocks, self._store.data, metas)
        finally:
            release()
        return problems + [f"{damage.path}: {damage.what}" for damage in self._store.state.damage]

    async def _replace(self, written: Sequence[BlockMeta], parents: Sequence[str]) -> bool:
        """Swap blocks for their compaction. False when one of them went meanwhile."""
        async with self._changing:
            live = {meta.id for meta in self._store.state.blocks}
            if not live.issuperset(parents):
                return False
            change = CatalogChange(add=written, remove=parents)
            await asyncio.to_thread(
                self._apply, change, lambda: hit("compact.before_catalog"), lambda: hit("compact.after_catalog")
            )
            self._store.swap(written, parents)
        await self._dispose(parents, lambda: hit("compact.after_remove"))
        return True

    async def expire(self) -> bool:
        """Drop the blocks that are wholly past retention. False when there were none."""
        now = self._clock.now_ms()
        if not self._clock_is_trusted(now):
            return False
        gone = [meta.id for meta in expired(self._store.state.blocks, now, self._store.settings.retention)]
        if not gone:
            return False
        async with self._changing:
            await asyncio.to_thread(
                self._apply,
                CatalogChange(remove=gone),
                lambda: hit("retention.before_catalog"),
                lambda: hit("retention.after_catalog"),
            )
            self._store.swap((), gone)
        self.counts.blocks_dropped += len(gone)
        await self._dispose(gone, lambda: hit("retention.after_remove"))
        await self._forget_series_without_data()
        return True

    def _clock_is_trusted(self, now: int) -> bool:
        """False for an hour after the clock jumped: a wrong date must not cost the data."""
        monotonic = self._clock.monotonic()
        drift = (now - self._wall_ms) - (monotonic - self._monotonic) * 1000
        self._wall_ms, self._monotonic = now, monotonic
        if drift > CLOCK_JUMP_MS:
            LOG.warning("the clock jumped %d s ahead; retention waits an hour before it believes it", drift // 1000)
            self._distrust_until = monotonic + TRUST_SECONDS
        return monotonic >= self._distrust_until

    async def _dispose(self, ids: Sequence[str], removed: Reached) -> None:
        """Remove block files as soon as no query reads them."""
        for block_id in ids:
            self._store.leases.retire(block_id, partial(self._remove_soon, block_id, removed))

    def _remove_soon(self, block_id: str, removed: Reached) -> None:
        task = asyncio.get_running_loop().run_in_executor(None, self._remove, block_id, removed)
        task.add_done_callback(_report)

    def _remove(self, block_id: str, removed: Reached) -> None:
        self._blocks.remove(block_id)
        removed()

    async def look_for_damage(self) -> int:
        """Read every block back and take out of service those that are not what was written. How many there were."""
        metas = self._store.state.blocks
        release = self._store.leases.acquire([meta.id for meta in metas])
        try:
            damaged = await self._compacter.run(find_damage, self._store.data, metas)
        finally:
            release()
        for meta, why in damaged:
            await self._take_out(meta, why)
        return len(damaged)

    async def _take_out(self, meta: BlockMeta, why: str) -> None:
        """Set a damaged block aside and serve the rest."""
        async with self._changing:
            if meta.id not in {live.id for live in self._store.state.blocks}:
                return
            await asyncio.to_thread(self._catalog.apply, CatalogChange(remove=[meta.id]))
            self._store.swap((), [meta.id])
            damage = await asyncio.to_thread(self._blocks.set_aside, meta.id, why)
        self._store.state.damage.append(damage)
        LOG.error("%s: %s; %d samples are not served", damage.path, damage.what, meta.samples)

    async def _forget_series_without_data(self) -> None:
        """Prune from the index what neither a block nor the head holds any more."""
        store = self._store
        blocks = store.state.blocks
        kept = await asyncio.to_thread(self._ids_in, blocks)
        if store.state.blocks is not blocks or store.queued_rows:
            return  # the next round looks again
        present = np.zeros(store.index.next_id, np.bool_)
        present[kept] = True
        present[head_series(store.head.snapshot(), FIRST_TIME, LAST_TIME)] = True
        dead = np.flatnonzero(~present).astype(np.uint32)
        if len(dead):
            store.forget(dead)
            if store.index.wants_rebuild:
                for _ in store.index.rebuild():
                    await asyncio.sleep(0)

    def _ids_in(self, metas: Sequence[BlockMeta]) -> UInt32s:
        found = [np.empty(0, np.uint32)]
        for meta in metas:
            with self._blocks.open(meta.id) as reader:
                found.append(reader.series_ids())
        return np.unique(np.concatenate(found))

    # ---- the disk ---------------------------------------------------------------------------------------------------

    async def _watch_disk(self) -> None:
        while True:
            await self.check_disk()
            await self._clock.sleep(DISK_CHECK_SECONDS)

    async def check_disk(self) -> None:
        """Refuse writes before the disk is full, and try whether it takes them again."""
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
        elif store.refusal is not None:
            try:
                await store.committer.probe()
            except StorageError:
                return
            store.accept()


def _report(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.error("a block that is no longer needed could not be removed: %s", error)


def _report_trim(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.error(
            "log segments that are no longer needed could not be removed, and stay until the next flush: %s", error
        )

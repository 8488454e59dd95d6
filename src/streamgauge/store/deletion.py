"""Deleting samples: a tombstone in the catalog hides them at once, and cleaning takes them off the disk.

Everything that is visible is flushed before, so that one commit number separates what a deletion means from what is
written after it. From then on the order is: the log, so that even a lost catalog brings nothing back from it; then the
blocks, one by one; and last the tombstone, when no block and no file needs it any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from streamgauge.errors import Overloaded, ReadOnly, StorageError
from streamgauge.model.source import Matcher
from streamgauge.store.changes import Change
from streamgauge.store.clean import Cleaned
from streamgauge.store.events.ports import EventChange
from streamgauge.store.failpoints import hit
from streamgauge.store.jobs import Affected, DeletionOrder, run_clean, what_is_affected
from streamgauge.store.log import SegmentLog
from streamgauge.store.ports import DAY_MS, BlockMeta, CatalogChange, Tombstone
from streamgauge.store.tombstones import EARLIEST, LATEST, applies, applying
from streamgauge.store.upkeep import Upkeep

LOG = logging.getLogger(__name__)

T = TypeVar("T")

MAX_PENDING = 100
"""Deletions that wait to be carried out. Each query compares all of them with each block that it reads."""
MAX_PENDING_BYTES = 16 << 20
"""Of the series ids of waiting deletions, 4 million of them: they travel with every query. One deletion alone may
have more."""
_TRIES = 10
"""Of a deletion while compactions and retention replace the blocks that it means."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a deletion means: series that had samples in the range, and blocks that held them."""

    series: int
    blocks: int


@dataclass(slots=True)
class DeletionCounts:
    """What was done since the start."""

    deletions: int = 0
    deletions_refused: int = 0  # because too many waited
    blocks_cleaned: int = 0
    samples_deleted: int = 0  # from blocks, for good


class Deletions:
    """The deletions of one store. Used on the event loop.

    flushing: held while a flush runs. flush_all: writes all that is visible as blocks.
    """

    def __init__(
        self, upkeep: Upkeep, log: SegmentLog, flushing: asyncio.Lock, flush_all: Callable[[], Awaitable[None]]
    ) -> None:
        self._store = upkeep.store
        self._catalog = upkeep.catalog
        self._log = log
        self._changes = upkeep.changes
        self._flusher = upkeep.flusher
        self._compacter = upkeep.compacter
        self._flush_all = flush_all
        self._flushing = flushing
        self._rewriting = upkeep.rewriting
        self._remove_written = upkeep.remove_written
        self._deleting = asyncio.Lock()
        self._spared: set[tuple[str, int]] = set()  # block and tombstone that takes nothing from it
        self._left_behind: set[str] = set()  # blocks from before a cleaning, which may still be on the disk
        self._last_id = 0  # of a tombstone made by this process
        self.counts = DeletionCounts()

    # ---- deleting ---------------------------------------------------------------------------------------------------

    async def delete(self, matcher_sets: Sequence[Sequence[Matcher]], start: int, end: int) -> Deleted:
        """Delete the samples with start <= time <= end (ms) of the series that match any of the sets.

        All that was acknowledged before the call goes, all that is acknowledged after its end stays. Raises BadInput
        for a bad regular expression, ReadOnly while writes are refused, Overloaded and StorageError. After a
        StorageError nothing has happened, or the deletion is made as soon as the disk recovers.
        """
        order = DeletionOrder(matcher_sets, max(start, EARLIEST), min(end, LATEST))
        async with self._deleting:
            for _ in range(_TRIES):
                self._refuse_if_must("nothing was deleted")
                await self._flush_all()
                if (deleted := await self._try(order)) is not None:
                    return deleted
        raise _restless()

    async def delete_from_blocks(self, order: DeletionOrder) -> Deleted:
        """Delete what is in blocks already; samples in memory stay, and so do they when they get into blocks. Raises as
        `delete`, but for ReadOnly: a deletion makes room."""
        async with self._deleting:
            for _ in range(_TRIES):
                if (deleted := await self._try(order)) is not None:
                    return deleted
        raise _restless()

    async def _try(self, order: DeletionOrder) -> Deleted | None:
        """Delete from the blocks that there are. None when one of them was replaced meanwhile."""
        state = self._store.state
        commit = max([state.flushed_through, *(meta.last_commit for meta in state.blocks)])
        affected = await self._find(order)
        if not len(affected.series):
            return Deleted(0, 0)
        self._refuse_if_crowded(affected.series.nbytes)
        series = affected.series.astype("<u4").tobytes()
        tombstone = Tombstone(self._next_id(), commit, order.start, order.end, series)
        if not await self._changes.make(self._added(tombstone, affected.blocks)):
            return None
        return Deleted(len(affected.series), len(affected.blocks))

    def _refuse_if_must(self, what: str) -> None:
        if (refusal := self._store.refusal) is not None:
            raise ReadOnly(f"{what}: {refusal.message}")

    def _refuse_if_crowded(self, size: int) -> None:
        pending = self._store.state.tombstones
        held = sum(len(tombstone.series) for tombstone in pending)
        if len(pending) >= MAX_PENDING or (pending and held + size > MAX_PENDING_BYTES):
            self.counts.deletions_refused += 1
            raise Overloaded(
                f"{len(pending)} deletions of {held // 4} series wait to be carried out, which happens within minutes; "
                f"at most {MAX_PENDING} of {MAX_PENDING_BYTES // 4} series may. Delete more with each request, or ask "
                "for clean_tombstones before the next",
                retry_after=60,
            )

    async def _find(self, order: DeletionOrder) -> Affected:
        # No turn of the event loop lies between the commit number of `_try` and this snapshot.
        snapshot, release = self._store.snapshot()
        try:
            return await self._flusher.run(what_is_affected, snapshot, order)
        finally:
            release()

    def _next_id(self) -> int:
        state = self._store.state
        given = [tombstone.id for tombstone in state.tombstones]
        given += [applied for meta in state.blocks for applied in meta.tombstones]
        self._last_id = max([self._last_id, *given]) + 1
        return self._last_id

    def _added(self, tombstone: Tombstone, blocks: Sequence[str]) -> Change:
        change = CatalogChange(next_series_id=self._store.index.next_id, add_tombstones=[tombstone])

        def apply() -> None:
            hit("delete.before_catalog")
            self._catalog.apply(change)
            hit("delete.after_catalog")

        hit_blocks = set(blocks)

        def visible() -> None:
            state = self._store.state
            state.tombstones = (*state.tombstones, tombstone)
            self._spared |= {(meta.id, tombstone.id) for meta in state.blocks if meta.id not in hit_blocks}
            self.counts.deletions += 1

        return Change(apply, visible, needs=blocks)

    # ---- cleaning ---------------------------------------------------------------------------------------------------

    def waits_for(self, meta: BlockMeta) -> bool:
        """Whether a block has yet to be written without what was deleted from it: nothing else may be made of it."""
        return bool(self._needed(meta))

    def waits_for_days_of(self, metas: Sequence[BlockMeta]) -> bool:
        """Whether a deletion waits that means anything in the days of some blocks and is not listed by each: aggregates
        made of them would be taken for what it means, be it that only samples beside them were."""
        return any(
            tombstone.commit >= meta.last_commit
            and tombstone.start < (meta.max_time // DAY_MS + 1) * DAY_MS
            and tombstone.end >= meta.min_time // DAY_MS * DAY_MS
            and tombstone.id not in meta.tombstones
            for tombstone in self._store.state.tombstones
            for meta in metas
        )

    def _needed(self, meta: BlockMeta) -> list[Tombstone]:
        mine = [tombstone for tombstone in self._store.state.tombstones if self._takes(tombstone, meta)]
        return applying(mine, meta)

    def _takes(self, tombstone: Tombstone, meta: BlockMeta) -> bool:
        """Whether a block may hold samples that a tombstone means, as far as is known by now."""
        return applies(tombstone, meta) and (meta.id, tombstone.id) not in self._spared

    async def clean(self) -> bool:
        """Carry deletions out in one block, the smallest first. False when none is left in which that can be done:
        blocks that a query still reads, and what was made of them, wait for its end. Raises StorageError and
        Overloaded."""
        async with self._rewriting:
            await self._changes.settle()
            pending = self._store.state.tombstones
            if not pending:
                return False
            await self.clear_log(max(tombstone.commit for tombstone in pending))
            waiting = [meta for meta in self._store.state.blocks if self.waits_for(meta)]
            await self._changes.removals()
            # What stands on the disk beside its successor is told from other blocks by the successor's list of parents,
            # so that must not be replaced in turn.
            free = [meta for meta in waiting if not self._changes.is_doomed(meta.parents)]
            if not free:
                if not waiting:
                    await self._forget()
                return False
            await self._clean(min(free, key=lambda meta: meta.samples))
            return True

    async def _clean(self, meta: BlockMeta) -> None:
        tombstones = self._needed(meta)
        release = self._store.leases.acquire([meta.id])
        try:
            cleaned = await self._compacter.run(run_clean, self._store.data, meta, tombstones)
        except StorageError:
            await self._remove_written(meta.first_commit, meta.last_commit)
            raise
        finally:
            release()
        if cleaned.removed:
            await self._changes.make(self._replaced(meta, cleaned))
        else:
            self._spared |= {(meta.id, tombstone.id) for tombstone in tombstones}

    def _replaced(self, meta: BlockMeta, cleaned: Cleaned) -> Change:
        change = CatalogChange(add=cleaned.written, remove=[meta.id])

        def apply() -> None:
            hit("clean.before_catalog")
            self._catalog.apply(change)
            hit("clean.after_catalog")

        def visible() -> None:
            self._store.swap(cleaned.written, [meta.id])
            self.counts.blocks_cleaned += 1
            self.counts.samples_deleted += cleaned.removed
            self._left_behind.add(meta.id)
            self._changes.dispose([meta.id], lambda: hit("clean.after_remove"))

        return Change(apply, visible, cleaned.written, [meta.id])

    async def _forget(self) -> None:
        """Drop the tombstones that nothing needs any more. No block does; but as long as one is there, not everything
        is off the disk, and it tells a start after a kill what the file of a block without successor is."""
        if self._changes.is_doomed(self._left_behind):
            return
        self._left_behind.clear()
        state = self._store.state
        finished = [  # but for a deletion that came while others were carried out
            tombstone.id
            for tombstone in state.tombstones
            if not any(self._takes(tombstone, meta) for meta in state.blocks)
        ]

        def apply() -> None:
            hit("clean.before_forget")
            self._catalog.apply(CatalogChange(remove_tombstones=finished))
            hit("clean.after_forget")

        def visible() -> None:
            state.tombstones = tuple(each for each in state.tombstones if each.id not in finished)
            self._spared = {(block, number) for block, number in self._spared if number not in finished}
            LOG.info("deletions carried out: %d; what they meant is gone from the disk", len(finished))

        if finished:
            await self._changes.make(Change(apply, visible))

    # ---- the log ----------------------------------------------------------------------------------------------------

    async def clear_log(self, through: int) -> None:
        """See to it that the log holds no commit up to `through`: by its end those are in blocks, and only there.
        Raises ReadOnly, StorageError and Overloaded."""
        if not await self._in_log_thread(lambda: self._log.may_hold(through)):
            return
        last = await self._in_log_thread(self._log.rotate)  # all that was written before is visible by now
        self._refuse_if_must("deletions are not carried out")
        await self._flush_all()
        await self._count_as_flushed(last)
        through = min(self._store.state.flushed_through, self._store.events.state.flushed_through)
        await self._in_log_thread(lambda: self._log.trim(through))
        hit("clean.after_trim")

    async def _count_as_flushed(self, last: int) -> None:
        """The last commits of a segment may hold descriptions of metrics only, which no flush writes."""
        store = self._store
        async with self._flushing:
            of_events = store.events.in_blocks_through(last)
            if min(store.state.flushed_through, store.events.state.flushed_through) >= last:
                return
            metadata = store.unsaved_metadata()
            rows = [(entry.metric, entry.type, entry.help, entry.unit) for entry in metadata]
            events = EventChange(flushed_through=of_events)
            change = CatalogChange(flushed_through=last, metadata=rows, events=events)

            def visible() -> None:
                store.events.swap((), (), of_events)
                store.swap((), (), last)
                store.metadata_saved(metadata)

            await self._changes.make(Change(lambda: self._catalog.apply(change), visible))

    async def _in_log_thread(self, task: Callable[[], T]) -> T:
        results: list[T] = []
        await self._store.committer.run(lambda: results.append(task()))
        return results[0]


def _restless() -> Overloaded:
    return Overloaded("blocks were replaced again and again while a deletion looked at them", retry_after=5)

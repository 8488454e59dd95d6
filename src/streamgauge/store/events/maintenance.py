"""Keeping the events of a store in shape: flush, compaction, retention, damage. The store's Maintenance calls it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from streamgauge.clock import Clock
from streamgauge.errors import Busy, ClientError, Corrupt, Disabled, StorageError
from streamgauge.store.catalog import SqliteCatalog
from streamgauge.store.changes import Change, Changes
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.jobs import find_event_damage, run_event_compaction, run_event_flush, run_event_pruning
from streamgauge.store.events.pace import Pace
from streamgauge.store.events.plan import past_age, plan_event_compaction
from streamgauge.store.events.ports import UNDIVIDED, Conditions, EventBlockMeta, EventChange, EventRule
from streamgauge.store.failpoints import hit
from streamgauge.store.helper import Runner
from streamgauge.store.ports import CatalogChange
from streamgauge.store.store import Store

LOG = logging.getLogger(__name__)

_STALE_SECONDS = 86_400.0
_IDLE_SECONDS = 3600.0
"""Without a flush for so long, what the last ones wrote is merged as if others had followed."""


@dataclass(slots=True)
class EventCounts:
    """What was done since the start."""

    flushes: int = 0
    flushes_undivided: int = 0  # of these
    compactions: int = 0
    blocks_dropped: int = 0
    events_deleted: int = 0  # by a condition


class EventMaintenance:
    """`trim` removes what blocks hold from the log; called after each flush. `clear_log`: see Deletions.
    `suspect` has the block looked at that a text names."""

    def __init__(
        self,
        store: Store,
        catalog: SqliteCatalog,
        changes: Changes,
        flusher: Runner,
        compacter: Runner,
        clock: Clock,
        trim: Callable[[], None],
        clear_log: Callable[[int], Awaitable[None]],
        suspect: Callable[[str], None],
    ) -> None:
        self._store = store
        self._events = store.events
        self._catalog = catalog
        self._changes = changes
        self._blocks = LocalEventBlocks(store.data)
        self._flusher = flusher
        self._compacter = compacter
        self._clock = clock
        self._trim = trim
        self._clear_log = clear_log
        self._suspect = suspect
        self.conditions: Conditions | None = None  # set by who knows the language
        self._flushing = asyncio.Lock()
        self._rewriting = asyncio.Lock()
        self._last_flush = clock.monotonic()
        self._pace = Pace()
        self._fulfilled: set[tuple[str, str]] = set()  # blocks that hold nothing for a rule to take
        self.counts = EventCounts()

    async def flush(self, everything: bool = False) -> bool:
        """Write the oldest events of the head as a block. False when there was nothing to write.

        Raises StorageError and Overloaded."""
        async with self._flushing:
            await self._changes.settle()
            head = self._events.head
            if everything or self._events.flush_is_due:
                head.seal()
            taken = head.take_sealed()
            if taken is None:
                return False
            release = self._store.leases.acquire([run.name for run in taken.runs])
            events = sum(run.rows for run in taken.runs)
            level = 0 if self._pace.has_time(events, self._clock.monotonic()) else UNDIVIDED
            try:
                hit("flush.before_blocks")
                written = await self._flusher.run(run_event_flush, self._store.data, taken.runs, level)
            except StorageError:
                await self._remove_written(taken.runs[0].first_commit, taken.runs[-1].last_commit)
                raise
            finally:
                release()
            if level == UNDIVIDED:
                self.counts.flushes_undivided += 1
            else:
                self._pace.took(events, self._clock.monotonic())
            await self._changes.make(self._flushed(taken.through, written))
            return True

    async def flush_all(self) -> None:
        """Write everything that is visible now. Raises StorageError and Overloaded."""
        commit = self._store.state.commit
        while (first := self._events.head.first_commit) is not None and first <= commit:
            if not await self.flush(everything=True):
                return

    def _flushed(self, through: int, written: EventBlockMeta) -> Change:
        events, store = self._events, self._store
        add = [written]
        rest = events.head.first_commit_after(through)
        # What has come since and is of samples needs no block of events.
        through = max(through, store.state.commit if rest is None else rest - 1)
        samples_through = through if store.head.rows == 0 else store.state.flushed_through
        metadata = store.unsaved_metadata()
        named, forgotten = events.unsaved_named()
        change = CatalogChange(
            flushed_through=max(samples_through, store.state.flushed_through),
            next_series_id=store.index.next_id,
            metadata=[(entry.metric, entry.type, entry.help, entry.unit) for entry in metadata],
            events=EventChange(add, (), through, events.state.next_stream, named, forget=forgotten),
        )

        def apply() -> None:
            hit("flush.before_catalog")
            self._catalog.apply(change)
            hit("flush.after_catalog")

        def visible() -> None:
            events.swap(add, (), through)
            store.swap((), (), change.flushed_through)
            store.metadata_saved(metadata)
            events.named_saved(named, forgotten)
            self.counts.flushes += 1
            self._last_flush = self._clock.monotonic()
            self._trim()

        return Change(apply, visible)

    async def compact(self, idle: bool = False) -> bool:
        """One compaction, if one is worth it. False when none is."""
        async with self._rewriting:
            await self._changes.settle()
            idle = idle or self._clock.monotonic() - self._last_flush >= _IDLE_SECONDS
            inputs = plan_event_compaction(self._events.state.blocks, idle)
            if not inputs:
                return False
            release = self._store.leases.acquire([meta.id for meta in inputs])
            try:
                written = await self._compacter.run(run_event_compaction, self._store.data, inputs)
            except Corrupt as error:
                LOG.error("a compaction of events met damaged data: %s", error.message)
                return await self.look_for_damage(inputs) > 0
            except StorageError:
                await self._remove_written(inputs[0].first_commit, inputs[-1].last_commit)
                raise
            finally:
                release()
            done = await self.replace(inputs, [written] if written is not None else [])
            self.counts.compactions += done
            return done

    async def compact_fully(self) -> None:
        """Write and merge everything, as far as a block may go."""
        await self.flush_all()
        while await self.compact(idle=True):
            pass

    async def replace(
        self, gone: Sequence[EventBlockMeta], written: Sequence[EventBlockMeta], dropped_before: int = 0
    ) -> bool:
        """Put blocks in the place of others. False, and the new ones are removed, when one of these went meanwhile.

        dropped_before: should a kill leave the files of blocks that go for their age, the next start knows by it (ns)
        that nobody misses them."""
        ids = [meta.id for meta in gone]
        change = CatalogChange(events=EventChange(written, ids, dropped_before=dropped_before))

        def apply() -> None:
            hit("compact.before_catalog")
            self._catalog.apply(change)
            hit("compact.after_catalog")

        def visible() -> None:
            self._events.swap(written, ids)
            self._dispose(ids)

        made = await self._changes.make(Change(apply, visible, still=partial(self._are_live, ids)))
        if not made:
            for meta in written:
                with suppress(StorageError):  # the next start removes it
                    await asyncio.to_thread(self._blocks.remove, meta.id)
        return made

    def _are_live(self, ids: Sequence[str]) -> bool:
        return {meta.id for meta in self._events.state.blocks}.issuperset(ids)

    async def delete(self, condition: str) -> int:
        """Take the events that fulfil a condition off the disk; how many there were. Events that come meanwhile stay,
        and the files of a block that a query reads until it ends.

        Raises BadInput for a condition that is none, StorageError and Overloaded. After an error some may be gone."""
        conditions = self._conditions()
        await self._compacter.run(conditions.check, condition)
        await self._clear_log(self._store.state.commit)
        gone = 0
        async with self._rewriting:
            for meta in self._events.state.blocks:
                gone += await self._prune(meta, condition, "")
        return gone

    async def prune(self, rules: Sequence[EventRule], now: int) -> None:
        """Carry out retention rules on the blocks that are old enough for them. `now`: ns."""
        for rule in rules:
            for meta in past_age(self._events.state.blocks, now - rule.retention):
                if rule.key not in meta.pruned and (meta.id, rule.key) not in self._fulfilled:
                    async with self._rewriting:
                        await self._prune_if_possible(meta, rule)
        live = {meta.id for meta in self._events.state.blocks}
        self._fulfilled = {(block, key) for block, key in self._fulfilled if block in live}

    async def _prune_if_possible(self, meta: EventBlockMeta, rule: EventRule) -> None:
        """A condition that cannot be computed for the events of one block must not keep the other rules from theirs."""
        try:
            await self._prune(meta, rule.condition, rule.key)
        except (ClientError, Busy) as error:
            LOG.error("a retention rule could not be carried out on block %s: %s", meta.id, error.message)

    @property
    def is_stale(self) -> bool:
        """Whether events have been in memory for so long that their block would span days, which retention drops as a
        whole."""
        return self._events.head.rows > 0 and self._clock.monotonic() - self._last_flush >= _STALE_SECONDS

    def _conditions(self) -> Conditions:
        if self.conditions is None:
            raise Disabled("conditions on events are not understood here")
        return self.conditions

    async def _prune(self, meta: EventBlockMeta, condition: str, rule: str) -> int:
        """How many events of a block have gone."""
        await self._changes.settle()  # or what that wrote would pass for what is left of this, should this fail
        if not self._are_live([meta.id]):  # it went meanwhile
            return 0
        release = self._store.leases.acquire([meta.id])
        try:
            pruned = await self._compacter.run(
                run_event_pruning, self._store.data, meta, condition, self._conditions(), rule
            )
        except StorageError as error:
            await self._remove_written(meta.first_commit, meta.last_commit)
            if isinstance(error, Corrupt):
                self._suspect(f"{meta.id}: {error.message}")
            raise
        finally:
            release()
        if not pruned.gone:
            self._fulfilled.add((meta.id, rule))
            return 0
        written = [] if pruned.written is None else [pruned.written]
        if not await self.replace([meta], written, 0 if written else meta.max_time + 1):
            return 0
        self.counts.events_deleted += pruned.gone
        return pruned.gone

    async def expire(self, oldest_kept: int) -> bool:
        """Drop the blocks whose events are all older than `oldest_kept` (ns). False when there are none."""
        gone = past_age(self._events.state.blocks, oldest_kept)
        if not gone or not await self.replace(gone, (), oldest_kept):
            return False
        self.counts.blocks_dropped += len(gone)
        return True

    def _dispose(self, ids: Sequence[str]) -> None:
        """Remove blocks as soon as no query reads them."""
        for block_id in ids:
            self._changes.dispose_with(block_id, partial(self._blocks.remove, block_id))

    async def _remove_written(self, first_commit: int, last_commit: int) -> None:
        """Remove what a helper had written when it died."""
        live = {meta.id for meta in self._events.state.blocks}

        def keep(block_id: str) -> bool:
            return block_id in live or self._changes.is_doomed([block_id])

        with suppress(StorageError):
            await asyncio.to_thread(self._blocks.remove_written, first_commit, last_commit, keep)

    async def look_for_damage(self, metas: Sequence[EventBlockMeta]) -> int:
        """Read blocks back and take out of service those that are not what was written. How many there were."""
        metas = [meta for meta in metas if self._are_live([meta.id])]
        release = self._store.leases.acquire([meta.id for meta in metas])
        try:
            damaged = await self._compacter.run(find_event_damage, self._store.data, metas)
        finally:
            release()
        for meta, why in damaged:
            await self._take_out(meta, why)
        return len(damaged)

    async def _take_out(self, meta: EventBlockMeta, why: str) -> None:
        change = CatalogChange(events=EventChange(remove=[meta.id]))
        out = Change(
            lambda: self._catalog.apply(change),
            lambda: self._events.swap((), [meta.id]),
            still=partial(self._are_live, [meta.id]),
        )
        if not await self._changes.make(out):
            return
        damage = await asyncio.to_thread(self._blocks.set_aside, meta.id, f"{why}; {meta.events} events are not served")
        self._store.state.damage.append(damage)
        LOG.error("%s: %s", damage.path, damage.what)

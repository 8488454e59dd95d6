"""Keeping the store in shape: flush, compaction, deletion, retention, and coming back from a full disk.

Blocks are written by the helper process and become part of the store by a `Change`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from streamgauge.clock import Clock
from streamgauge.errors import Corrupt, Overloaded, ReadOnly, StorageError
from streamgauge.model.source import Matcher
from streamgauge.store import fs, names
from streamgauge.store.block_format import commits_of
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.catalog import SqliteCatalog
from streamgauge.store.changes import Change, Changes
from streamgauge.store.compact import CompactionPlan, full_plan, plan_compaction
from streamgauge.store.deletion import Deleted, Deletions
from streamgauge.store.downsample import Dropping, Step, ThinningPlan, expired_days_end, next_step
from streamgauge.store.events.maintenance import EventMaintenance
from streamgauge.store.events.ports import EventChange
from streamgauge.store.failpoints import hit
from streamgauge.store.folder_snapshot import without_log
from streamgauge.store.head import FlushInput
from streamgauge.store.helper import Runner
from streamgauge.store.jobs import (
    DeletionOrder,
    FlushOrder,
    FlushResult,
    find_damage,
    run_flush,
    run_plan,
    series_without_data,
)
from streamgauge.store.log import SegmentLog
from streamgauge.store.ports import DAY_MS, BlockMeta, CatalogChange, CatalogState
from streamgauge.store.resolutions import raw
from streamgauge.store.retention import NS, RetentionRule, older, too_old_for_size
from streamgauge.store.store import Store
from streamgauge.store.tombstones import EARLIEST
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
CLOCK_JUMP_MS = 600_000
"""More than NTP corrects: retention waits until such a jump has proved to last."""
TRUST_SECONDS = 3600.0


@dataclass(slots=True)
class Counts:
    """What maintenance did since the start."""

    flushes: int = 0
    flush_failures: int = 0
    compactions: int = 0
    compaction_failures: int = 0
    expiry_failures: int = 0
    downsampling_runs: int = 0
    blocks_dropped: Counter[str] = field(default_factory=lambda: Counter(age=0, size=0, room=0))


@dataclass(frozen=True, slots=True)
class _Points:
    """What replaces blocks, in words, and its failpoints."""

    what: str
    before_catalog: Callable[[], None]
    after_catalog: Callable[[], None]
    after_remove: Callable[[], None]


_COMPACTION = _Points(
    "a compaction",
    lambda: hit("compact.before_catalog"),
    lambda: hit("compact.after_catalog"),
    lambda: hit("compact.after_remove"),
)
_THINNING = _Points(
    "downsampling",
    lambda: hit("thin.before_catalog"),
    lambda: hit("thin.after_catalog"),
    lambda: hit("thin.after_remove"),
)


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
        self._changes = Changes(store, blocks)
        self._flushing = asyncio.Lock()
        self._rewriting = asyncio.Lock()  # blocks are being replaced by others of the same samples
        self._flush_error: StorageError | None = None  # why the last flush failed
        self._suspicions: set[str] = set()  # errors that name blocks
        self._suspected = asyncio.Event()
        self._pruning = asyncio.Lock()
        self._kept_from: dict[tuple[RetentionRule, ...], int] = {}  # the first day (ms), by a rule and those before it
        self._may_prune = False  # blocks went since series without data were last looked for
        self._wall_ms = clock.now_ms()
        self._monotonic = clock.monotonic()
        self._last_flush = self._monotonic  # or the start
        self._distrust_until = self._monotonic + TRUST_SECONDS if self._all_expired() else self._monotonic
        self.counts = Counts()
        self.deletions = Deletions(
            store,
            catalog,
            log,
            self._changes,
            flusher,
            compacter,
            self.flush_all,
            self._flushing,
            self._rewriting,
            self._remove_written,
        )
        self.events = EventMaintenance(
            store,
            catalog,
            self._changes,
            flusher,
            compacter,
            clock,
            self._trim_log,
            self.deletions.clear_log,
            self.suspect,
        )

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._flush_when_full())
            tasks.create_task(self._compact_and_expire())
            tasks.create_task(self._watch_disk())
            tasks.create_task(self._look_when_suspected())

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
                self._flush_error = _reported(error, what)
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
            await self._remove_written(taken.runs[0].first_commit, taken.runs[-1].last_commit)
            raise
        finally:
            release()
        await self._changes.make(self._flushed(taken, result))
        return True

    async def _remove_written(self, first_commit: int, last_commit: int) -> None:
        """Remove what a helper had written when it died: by the next start nobody would know what that was."""
        live = {meta.id for meta in self._store.state.blocks}

        def keep(block_id: str) -> bool:
            return block_id in live or self._changes.is_doomed([block_id])

        with suppress(StorageError):
            await asyncio.to_thread(self._blocks.remove_written, first_commit, last_commit, keep)

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
            _reported(error, f"{step.__name__} failed and will be tried again; nothing is lost")
            return False

    async def compact(self) -> bool:
        """One compaction, if one is worth it. False when none is."""
        async with self._rewriting:
            await self._changes.settle()
            idle = self._clock.monotonic() - self._last_flush >= IDLE_SECONDS
            blocks = self._store.state.blocks
            held = {meta.id for meta in blocks if self._changes.is_doomed(meta.parents)}  # as `_may_replace` says
            plan = plan_compaction(blocks, self._clock.now_ms(), idle, held)
            return plan is not None and self._may_replace(plan) and await self._perform(plan)

    def _may_replace(self, plan: CompactionPlan | ThinningPlan) -> bool:
        """False while a deletion waits for one of the blocks, or a query keeps what one was made of: that is told
        from other blocks by its successor's list of parents, so the successor must not be replaced in turn."""
        parents = (parent for meta in plan.inputs for parent in meta.parents)
        return self._is_clean(plan) and not self._changes.is_doomed(parents)

    def _is_clean(self, plan: CompactionPlan | ThinningPlan) -> bool:
        """Whether no deletion waits for one of the plan's blocks, also one that came since it was made."""
        if isinstance(plan, ThinningPlan) and self.deletions.waits_for_days_of(plan.inputs):
            return False
        return not any(self.deletions.waits_for(meta) for meta in plan.reads)

    async def _perform(self, plan: CompactionPlan | ThinningPlan) -> bool:
        """Put what a plan says in the place of its blocks. False when nothing came of it."""
        thins = isinstance(plan, ThinningPlan)
        points = _THINNING if thins else _COMPACTION
        parents, read = [meta.id for meta in plan.inputs], [meta.id for meta in plan.reads]
        release = self._store.leases.acquire(read)
        try:
            written = await self._compacter.run(run_plan, self._store.data, plan)
        except Corrupt as error:
            LOG.error("%s met damaged data: %s", points.what, error.message)
            return await self.look_for_damage(error.message) > 0
        except StorageError:
            await self._remove_written(*commits_of(plan.inputs))
            raise
        finally:
            release()
        change = CatalogChange(add=written, remove=parents)

        def apply() -> None:
            points.before_catalog()
            self._catalog.apply(change)
            points.after_catalog()

        def visible() -> None:
            self._store.swap(written, parents)
            if not thins:
                self.counts.compactions += 1
            elif plan.inputs[0].resolution == 0:
                self.counts.downsampling_runs += 1
            self._changes.dispose(parents, points.after_remove)

        still = partial(self._is_clean, plan)
        return await self._changes.make(Change(apply, visible, written, read, still))

    async def compact_fully(self) -> None:
        """Write the whole head, carry out deletions and compact everything into one block a day. For a store that
        nobody writes to or reads from."""
        await self.flush_all()
        await self.clean_tombstones()
        async with self._rewriting:
            while (plan := full_plan(self._store.state.blocks)) is not None and await self._perform(plan):
                await self._changes.removals()
        await self.events.compact_fully()
        await self._changes.removals()

    # ---- deletion ---------------------------------------------------------------------------------------------------

    async def delete(self, matcher_sets: Sequence[Sequence[Matcher]], start: int, end: int) -> Deleted:
        """See `Deletions.delete`."""
        with self._suspecting():
            return await self.deletions.delete(matcher_sets, start, end)

    async def clean(self) -> bool:
        """Carry deletions out in one block. False when there is nothing to do."""
        try:
            cleaned = await self.deletions.clean()
        except Corrupt as error:
            LOG.error("a deletion met damaged data: %s", error.message)
            return await self.look_for_damage(error.message) > 0
        self._may_prune = self._may_prune or cleaned
        return cleaned

    async def clean_tombstones(self) -> None:
        """Carry out every deletion, and forget the series that have no data any more. What a query still reads stays on
        the disk until it ends. Raises StorageError and Overloaded."""
        while await self.clean():
            pass
        if self._may_prune:
            await self._prune_series()

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

    async def expire(self) -> bool:
        """One step with what is past retention, by age or by size: drop it, or put aggregates in its place; and then
        prune the series that have no data any more. False when there was nothing to do."""
        now = self._clock.now_ms()
        trusted = self._clock_is_trusted(now)
        await self._changes.settle()
        done = False
        try:
            if trusted:
                done = await self._expire_by_age(now)
                await self._expire_by_rules(now)
                if self._store.settings.event_retention:
                    done = await self.events.expire((now - self._store.settings.event_retention) * NS) or done
                await self.events.prune(self._store.settings.event_rules, now * NS)
                self._store.events.forget_idle()
        except Exception:  # for want of room, it may be
            await self._expire_by_size()
            raise
        done = await self._expire_by_size() or done
        if self._may_prune:
            await self._prune_series()
        return done

    async def _expire_by_size(self) -> bool:
        """Of size no clock has a say."""
        if not (limit := self._store.settings.retention_bytes):
            return False
        in_log = await asyncio.to_thread(fs.size_of_files, names.log_dir(self._store.data))
        blocks, events = self._store.state.blocks, self._store.events.state.blocks
        before = too_old_for_size(blocks, events, limit - in_log)
        if before is None:
            return False
        dropped = await self.events.expire(before * NS)
        return await self._drop(older(blocks, before), "size") or dropped

    async def _expire_by_age(self, now: int) -> bool:
        settings = self._store.settings
        if settings.tiers and not await self._write_before(expired_days_end(now, settings.retention)):
            return False
        async with self._rewriting:
            step = next_step(self._store.state.blocks, now, settings.retention, settings.tiers)
            return step is not None and await self._take(step)

    async def _write_before(self, time: int) -> bool:
        """Close the days before `time`, and write what memory holds of them. False when that has to wait."""
        store = self._store
        store.close_before(time)
        if store.queued_before(time):
            return False
        store.head.seal_before(time)
        while rows := store.head.rows_reaching_before(time):
            if not await self.flush(rows):
                return False
        return True

    async def _take(self, step: Step) -> bool:
        if isinstance(step, Dropping):
            return await self._drop(step.gone, "age")
        await self._changes.removals()
        try:
            return self._may_replace(step) and await self._perform(step)
        except ReadOnly as error:
            if self._store.refusal is None:  # nobody suffers yet: somebody may make room until the next time
                raise
            return await self._make_room(step, error)

    async def _make_room(self, step: ThinningPlan | CompactionPlan, error: ReadOnly) -> bool:
        """Let samples past retention go without aggregates, which the disk does not take: what comes is refused for
        want of room, and is worth more. Raises the error where there are no such samples."""
        store = self._store
        past = expired_days_end(self._clock.now_ms(), store.settings.retention)
        newest = max((meta.max_time for meta in raw(step.inputs) if meta.max_time < past), default=None)
        gone = [] if newest is None else older(store.state.blocks, newest + 1)
        if not gone:
            raise error
        LOG.error(
            "%s. %d blocks past retention are dropped, and there will be no aggregates of what they held: %s",
            error.message,
            len(gone),
            ", ".join(meta.id for meta in gone),
        )
        return await self._drop(gone, "room")

    async def _expire_by_rules(self, now: int) -> None:
        """Delete what a retention rule no longer lets live, by whole days: a block is then written anew once a day at
        most. What comes late goes with the next day."""
        rules = self._store.settings.rules
        kept_from: dict[tuple[RetentionRule, ...], int] = {}
        for place, rule in enumerate(rules):
            first_day = (now - rule.retention) // DAY_MS * DAY_MS
            before = rules[:place]
            if self._kept_from.get((*before, rule)) != first_day:
                spared = [other.matchers for other in before]
                order = DeletionOrder([rule.matchers], EARLIEST, first_day - 1, spared)
                with self._suspecting():
                    await self.deletions.delete_from_blocks(order)
            kept_from[(*before, rule)] = first_day
        self._kept_from = kept_from

    async def _drop(self, metas: Sequence[BlockMeta], reason: str) -> bool:
        return bool(metas) and await self._changes.make(self._dropped(metas, reason))

    def _dropped(self, metas: Sequence[BlockMeta], reason: str) -> Change:
        gone = [meta.id for meta in metas]
        # Should a kill leave their files, the next start knows by the time that nobody misses them.
        change = CatalogChange(remove=gone, dropped_before=max(meta.max_time for meta in metas) + 1)

        def apply() -> None:
            hit("retention.before_catalog")
            self._catalog.apply(change)
            hit("retention.after_catalog")

        def visible() -> None:
            self._store.swap((), gone)
            self.counts.blocks_dropped[reason] += len(gone)
            self._may_prune = True
            self._changes.dispose(gone, lambda: hit("retention.after_remove"))

        return Change(apply, visible, needs=gone)

    def _all_expired(self) -> bool:
        """Whether retention, or a rule of it, would take something from every block at once, as after a start with a
        wrong date."""
        settings, now = self._store.settings, self._clock.now_ms()
        periods = [period for period in (settings.retention, *(rule.retention for rule in settings.rules)) if period]
        samples = [meta.max_time for meta in self._store.state.blocks] if periods else []
        events = [meta.max_time // NS for meta in self._store.events.state.blocks] if settings.event_retention else []
        old = [max(samples) < now - min(periods)] if samples else []
        old += [max(events) < now - settings.event_retention] if events else []
        if not old or not all(old):
            return False
        LOG.warning("by the clock every block is past its retention; it waits an hour before it believes that")
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

    async def _prune_series(self) -> None:
        """Prune from the index what neither a block nor the head holds any more."""
        store = self._store
        async with self._pruning:
            with store.pruner.watching(store.queued_series):
                snapshot, release = store.snapshot()
                try:
                    with self._suspecting():
                        dead = await self._compacter.run(series_without_data, snapshot)
                finally:
                    release()
                await store.pruner.prune(dead)
            await self._prune_watermarks()
            self._may_prune = False

    async def _prune_watermarks(self) -> None:
        """Forget those of series that the index no longer has. A flush may put some back that it had been sent; they
        go the next time."""
        state = self._store.state
        while True:
            before = state.watermarks
            after = await asyncio.to_thread(before.only, self._store.index.known_ids())
            if state.watermarks is before:  # no flush raised some meanwhile
                state.watermarks = after
                return

    # ---- damage -----------------------------------------------------------------------------------------------------

    def suspect(self, said: str) -> None:
        """A query met damaged data and said this: have the block that it names looked at, soon."""
        self._suspicions.add(said)
        self._suspected.set()

    @contextmanager
    def _suspecting(self) -> Iterator[None]:
        try:
            yield
        except Corrupt as error:
            self.suspect(error.message)
            raise

    async def _look_when_suspected(self) -> None:
        while True:
            await self._suspected.wait()
            self._suspected.clear()
            said, self._suspicions = " ".join(self._suspicions), set()
            try:
                await self.look_for_damage(said)
            except Exception as error:
                _reported(error, "damaged data could not be looked for")

    async def look_for_damage(self, said: str = "") -> int:
        """Read blocks back and take out of service those that are not what was written. How many there were.

        `said` is what somebody met: where it names blocks only those are read, otherwise all are.
        """
        live, events = self._store.state.blocks, self._store.events.state.blocks
        metas = tuple(meta for meta in live if meta.id in said)
        of_events = tuple(meta for meta in events if meta.id in said)
        if not metas and not of_events:
            metas, of_events = live, events
        release = self._store.leases.acquire([meta.id for meta in metas])
        try:
            damaged = await self._compacter.run(find_damage, self._store.data, metas)
        finally:
            release()
        for meta, why in damaged:
            await self._take_out(meta, why)
        return len(damaged) + (await self.events.look_for_damage(of_events) if of_events else 0)

    async def _take_out(self, meta: BlockMeta, why: str) -> None:
        """Set a damaged block aside and serve the rest."""
        change = CatalogChange(remove=[meta.id])
        out = Change(lambda: self._catalog.apply(change), lambda: self._store.swap((), [meta.id]), needs=[meta.id])
        if not await self._changes.make(out):
            return
        damage = await asyncio.to_thread(
            self._blocks.set_aside, meta.id, f"{why}; {meta.samples} samples are not served"
        )
        self._store.state.damage.append(damage)
        LOG.error("%s: %s", damage.path, damage.what)

    # ---- the disk ---------------------------------------------------------------------------------------------------

    async def _watch_disk(self) -> None:
        while True:
            try:
                await self.check_disk()
            except Exception as error:
                _reported(error, "the disk cannot be looked at")
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


def _reported(error: Exception, what: str) -> StorageError:
    """Say that something failed that will be tried again; a bug of ours must not end what every writer relies on."""
    if isinstance(error, StorageError | Overloaded):
        LOG.error("%s: %s", what, error.message)
        return error if isinstance(error, StorageError) else StorageError(error.message)
    LOG.error("%s: %r", what, error, exc_info=error)
    return StorageError(repr(error))


def _report_trim(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.error(
            "log segments that are no longer needed could not be removed, and stay until the next flush: %s", error
        )

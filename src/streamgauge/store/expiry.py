"""Retention at work: what is past its age, or too much, goes or becomes aggregates; then the series that have no data
any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from streamgauge.errors import ReadOnly
from streamgauge.store import fs, names
from streamgauge.store.changes import Change
from streamgauge.store.clock_trust import ClockTrust
from streamgauge.store.compactor import Compactor, Plan
from streamgauge.store.damaged_blocks import DamagedBlocks
from streamgauge.store.deletion import Deletions
from streamgauge.store.downsample import Dropping, Step, expired_days_end, next_step
from streamgauge.store.events.maintenance import EventMaintenance
from streamgauge.store.failpoints import hit
from streamgauge.store.jobs import DeletionOrder, series_without_data
from streamgauge.store.ports import DAY_MS, BlockMeta, CatalogChange
from streamgauge.store.resolutions import raw
from streamgauge.store.retention import NS, RetentionRule, older, too_old_for_size
from streamgauge.store.tombstones import EARLIEST
from streamgauge.store.upkeep import Upkeep

LOG = logging.getLogger(__name__)


LOOK_AGAIN_SECONDS = 600.0
"""Between two searches for series without data because new ones are refused: of a million series one takes a second or
two of a helper, and while the data itself fills the index it finds nothing."""


class Expiry:
    """Retention of one store. Used on the event loop.

    flush: writes about so many of the oldest rows in memory as blocks; False when there was nothing to write.
    """

    def __init__(
        self,
        upkeep: Upkeep,
        compactor: Compactor,
        deletions: Deletions,
        damaged: DamagedBlocks,
        events: EventMaintenance,
        flush: Callable[[int], Awaitable[bool]],
    ) -> None:
        self._upkeep = upkeep
        self._store = upkeep.store
        self._changes = upkeep.changes
        self._compactor = compactor
        self._deletions = deletions
        self._damaged = damaged
        self._events = events
        self._flush = flush
        self._kept_from: dict[tuple[RetentionRule, ...], int] = {}  # the first day (ms), by a rule and those before it
        self._pruning = asyncio.Lock()
        self._may_prune = False  # data went since series without any were last looked for
        self._refused = 0  # new series, until they were last looked for because of that
        self._look_after = float("-inf")  # monotonic; not because of that before
        self._trust = ClockTrust(upkeep.clock)
        if self._all_expired():
            self._trust.distrust()

    async def expire(self) -> bool:
        """One step with what is past retention, by age or by size: drop it, or put aggregates in its place; and then
        prune the series that have no data any more. False when there was nothing to do."""
        now = self._upkeep.clock.now_ms()
        trusted = self._trust.trusts(now)
        await self._changes.settle()
        done = False
        try:
            if trusted:
                done = await self._by_age(now)
                await self._by_rules(now)
                if self._store.settings.event_retention:
                    done = await self._events.expire((now - self._store.settings.event_retention) * NS) or done
                await self._events.prune(self._store.settings.event_rules, now * NS)
                self._store.events.forget_idle()
        except Exception:  # for want of room, it may be
            await self._by_size()
            raise
        done = await self._by_size() or done
        self._look_when_full()
        await self.prune()
        return done

    def data_went(self) -> None:
        """Have the next `prune` look for series without data."""
        self._may_prune = True

    def _look_when_full(self) -> None:
        """Have the next `prune` look, too, when new series are refused: series may be in their way that were looked up
        and never written, as are those of a scrape that fails at a limit or at its last line."""
        refused = self._store.refusals.totals.total()
        now = self._upkeep.clock.monotonic()
        if refused > self._refused and now >= self._look_after:
            self._refused, self._look_after = refused, now + LOOK_AGAIN_SECONDS
            self._may_prune = True

    # ---- by age, rule and size --------------------------------------------------------------------------------------

    async def _by_age(self, now: int) -> bool:
        settings = self._store.settings
        if settings.tiers and not await self._write_before(expired_days_end(now, settings.retention)):
            return False
        async with self._upkeep.rewriting:
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
            if not await self._flush(rows):
                return False
        return True

    async def _take(self, step: Step) -> bool:
        if isinstance(step, Dropping):
            return await self._drop(step.gone, "age")
        await self._changes.removals()
        try:
            return self._compactor.may_replace(step) and await self._compactor.perform(step)
        except ReadOnly as error:
            if self._store.refusal is None:  # nobody suffers yet: somebody may make room until the next time
                raise
            return await self._make_room(step, error)

    async def _make_room(self, step: Plan, error: ReadOnly) -> bool:
        """Let samples past retention go without aggregates, which the disk does not take: what comes is refused for
        want of room, and is worth more. Raises the error where there are no such samples."""
        store = self._store
        past = expired_days_end(self._upkeep.clock.now_ms(), store.settings.retention)
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

    async def _by_rules(self, now: int) -> None:
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
                with self._damaged.suspecting():
                    await self._deletions.delete_from_blocks(order)
            kept_from[(*before, rule)] = first_day
        self._kept_from = kept_from

    async def _by_size(self) -> bool:
        """Of size no clock has a say."""
        if not (limit := self._store.settings.retention_bytes):
            return False
        in_log = await asyncio.to_thread(fs.size_of_files, names.log_dir(self._store.data))
        blocks, events = self._store.state.blocks, self._store.events.state.blocks
        before = too_old_for_size(blocks, events, limit - in_log)
        if before is None:
            return False
        dropped = await self._events.expire(before * NS)
        return await self._drop(older(blocks, before), "size") or dropped

    async def _drop(self, metas: Sequence[BlockMeta], reason: str) -> bool:
        return bool(metas) and await self._changes.make(self._dropping(metas, reason))

    def _dropping(self, metas: Sequence[BlockMeta], reason: str) -> Change:
        gone = [meta.id for meta in metas]
        # Should a kill leave their files, the next start knows by the time that nobody misses them.
        change = CatalogChange(remove=gone, dropped_before=max(meta.max_time for meta in metas) + 1)

        def apply() -> None:
            hit("retention.before_catalog")
            self._upkeep.catalog.apply(change)
            hit("retention.after_catalog")

        def visible() -> None:
            self._store.swap((), gone)
            self._upkeep.counts.blocks_dropped[reason] += len(gone)
            self.data_went()
            self._changes.dispose(gone, lambda: hit("retention.after_remove"))

        return Change(apply, visible, needs=gone)

    def _all_expired(self) -> bool:
        """Whether retention, or a rule of it, would take something from every block at once, as after a start with a
        wrong date."""
        settings, now = self._store.settings, self._upkeep.clock.now_ms()
        periods = [period for period in (settings.retention, *(rule.retention for rule in settings.rules)) if period]
        samples = [meta.max_time for meta in self._store.state.blocks] if periods else []
        events = [meta.max_time // NS for meta in self._store.events.state.blocks] if settings.event_retention else []
        old = [max(samples) < now - min(periods)] if samples else []
        old += [max(events) < now - settings.event_retention] if events else []
        if not old or not all(old):
            return False
        LOG.warning("by the clock every block is past its retention; it waits an hour before it believes that")
        return True

    # ---- series without data ----------------------------------------------------------------------------------------

    async def prune(self) -> None:
        """Prune from the index what neither a block nor the head holds any more, if data went."""
        async with self._pruning:
            if not self._may_prune:
                return
            self._may_prune = False  # data may go while this looks
            try:
                await self._prune()
            except BaseException:
                self._may_prune = True
                raise

    async def _prune(self) -> None:
        store = self._store
        with store.pruner.watching(store.queued_series):
            snapshot, release = store.snapshot()
            try:
                with self._damaged.suspecting():
                    dead = await self._upkeep.compacter.run(series_without_data, snapshot)
            finally:
                release()
            await store.pruner.prune(dead)
        await self._prune_watermarks()

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

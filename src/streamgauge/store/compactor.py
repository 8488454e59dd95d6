"""Putting blocks in the place of others that hold the same samples, or more of them: compaction and downsampling."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from streamgauge.errors import Corrupt, StorageError
from streamgauge.store.block_format import commits_of
from streamgauge.store.changes import Change
from streamgauge.store.compact import CompactionPlan, full_plan, plan_compaction
from streamgauge.store.damaged_blocks import DamagedBlocks
from streamgauge.store.deletion import Deletions
from streamgauge.store.downsample import ThinningPlan
from streamgauge.store.failpoints import hit
from streamgauge.store.jobs import run_plan
from streamgauge.store.ports import CatalogChange
from streamgauge.store.upkeep import Upkeep

LOG = logging.getLogger(__name__)

Plan = CompactionPlan | ThinningPlan


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


class Compactor:
    """Replaces the blocks of one store. Used on the event loop."""

    def __init__(self, upkeep: Upkeep, deletions: Deletions, damaged: DamagedBlocks) -> None:
        self._upkeep = upkeep
        self._store = upkeep.store
        self._changes = upkeep.changes
        self._deletions = deletions
        self._damaged = damaged

    async def compact(self, idle: bool) -> bool:
        """One compaction, if one is worth it. False when none is. idle: what the last flush wrote is compacted as if
        another had followed it."""
        async with self._upkeep.rewriting:
            await self._changes.settle()
            blocks = self._store.state.blocks
            held = {meta.id for meta in blocks if self._changes.is_doomed(meta.parents)}  # as `may_replace` says
            plan = plan_compaction(blocks, self._upkeep.clock.now_ms(), idle, held)
            return plan is not None and self.may_replace(plan) and await self.perform(plan)

    async def compact_fully(self) -> None:
        """Compact everything into one block a day. Nobody writes to the store or reads from it."""
        async with self._upkeep.rewriting:
            while (plan := full_plan(self._store.state.blocks)) is not None and await self.perform(plan):
                await self._changes.removals()

    def may_replace(self, plan: Plan) -> bool:
        """False while a deletion waits for one of the blocks, or a query keeps what one was made of: that is told
        from other blocks by its successor's list of parents, so the successor must not be replaced in turn."""
        parents = (parent for meta in plan.inputs for parent in meta.parents)
        return self._is_clean(plan) and not self._changes.is_doomed(parents)

    def _is_clean(self, plan: Plan) -> bool:
        """Whether no deletion waits for one of the plan's blocks, also one that came since it was made."""
        if isinstance(plan, ThinningPlan) and self._deletions.waits_for_days_of(plan.inputs):
            return False
        return not any(self._deletions.waits_for(meta) for meta in plan.reads)

    async def perform(self, plan: Plan) -> bool:
        """Put what a plan says in the place of its blocks. False when nothing came of it. `rewriting` is held.

        Raises StorageError and Overloaded."""
        thins = isinstance(plan, ThinningPlan)
        points = _THINNING if thins else _COMPACTION
        parents, read = [meta.id for meta in plan.inputs], [meta.id for meta in plan.reads]
        release = self._store.leases.acquire(read)
        try:
            written = await self._upkeep.compacter.run(run_plan, self._store.data, plan)
        except Corrupt as error:
            LOG.error("%s met damaged data: %s", points.what, error.message)
            return await self._damaged.look(error.message) > 0
        except StorageError:
            await self._upkeep.remove_written(*commits_of(plan.inputs))
            raise
        finally:
            release()
        change = CatalogChange(add=written, remove=parents)

        def apply() -> None:
            points.before_catalog()
            self._upkeep.catalog.apply(change)
            points.after_catalog()

        def visible() -> None:
            self._store.swap(written, parents)
            if not thins:
                self._upkeep.counts.compactions += 1
            elif plan.inputs[0].resolution == 0:
                self._upkeep.counts.downsampling_runs += 1
            self._changes.dispose(parents, points.after_remove)

        still = partial(self._is_clean, plan)
        return await self._changes.make(Change(apply, visible, written, read, still))

"""Which days become aggregates, which of these become coarser, and what goes.

Samples of a day that is wholly past retention become one block of aggregates, the days in order of time. No sample of
such a day is taken any more, whatever becomes of retention: nothing of a day is in both kinds of blocks, and queries
need not tell which to believe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from streamgauge.store.compact import CompactionPlan, towards_one
from streamgauge.store.ports import DAY_MS, FIRST_TIME, BlockMeta
from streamgauge.store.resolutions import Tier, end_of, raw, thinned
from streamgauge.store.retention import expired

SPAN_MS = 16 * DAY_MS
"""Days of the coarsest aggregates that come into one block: a query over a year then opens 23 of them, not 365."""


@dataclass(frozen=True, slots=True)
class Dropping:
    """Blocks that nothing keeps any longer."""

    gone: tuple[BlockMeta, ...]


@dataclass(frozen=True, slots=True)
class ThinningPlan:
    """Blocks to replace by one of aggregates over `resolution` ms."""

    inputs: tuple[BlockMeta, ...]  # of samples of one day, a later one winning; or of aggregates, in order of time
    resolution: int
    before: BlockMeta | None = None  # where inputs are of samples: the block of aggregates up to where they begin

    @property
    def reads(self) -> tuple[BlockMeta, ...]:
        """Every block that it takes something from."""
        return (*self.inputs, self.before) if self.before else self.inputs

    @property
    def window(self) -> int:
        return min(meta.window for meta in self.inputs)


Step = Dropping | ThinningPlan | CompactionPlan


def expired_days_end(now: int, retention: int) -> int:
    """The start of the first day, ms, that is not wholly past retention."""
    return (now - retention) // DAY_MS * DAY_MS if retention else FIRST_TIME


def next_step(metas: Sequence[BlockMeta], now: int, retention: int, tiers: Sequence[Tier]) -> Step | None:
    """What is to be done next with what is past retention, or None. Times in ms; a retention of 0 is for ever.

    With `tiers` the head must not hold samples of days before `expired_days_end`.
    """
    if retention == 0:
        return None
    gone = [meta for meta in thinned(metas) if end_of(meta) <= now - retention and not _tier_of(meta, now, tiers)]
    if not tiers:
        gone += expired(metas, now, retention)
    if gone:
        return Dropping(tuple(gone))
    return (_thin(metas, now, retention, tiers) or _coarsen(metas, now, tiers)) if tiers else None


def _tier_of(meta: BlockMeta, now: int, tiers: Sequence[Tier]) -> Tier | None:
    """The finest that keeps the days of a block."""
    return next((tier for tier in tiers if end_of(meta) > now - tier.keep), None)


def _thin(metas: Sequence[BlockMeta], now: int, retention: int, tiers: Sequence[Tier]) -> Step | None:
    """A step with the oldest day of samples, once it is past retention."""
    samples = raw(metas)
    day = min((meta.min_time // DAY_MS * DAY_MS for meta in samples), default=now)
    end = day + DAY_MS
    if end > expired_days_end(now, retention):
        return None
    blocks = sorted((meta for meta in samples if meta.min_time < end), key=lambda meta: meta.last_commit)
    wide = [meta for meta in blocks if meta.window == -1]
    if wide:
        return CompactionPlan((wide[0],), late=True, split=True)
    merged = towards_one(blocks, lasting=False)
    if len(merged.inputs) < len(blocks):
        return merged
    tier = _tier_of(blocks[0], now, tiers)
    if tier is None:
        return Dropping(tuple(blocks))
    before = next((meta for meta in thinned(metas) if end_of(meta) == day), None)
    return ThinningPlan(merged.inputs, tier.resolution, before)


def _coarsen(metas: Sequence[BlockMeta], now: int, tiers: Sequence[Tier]) -> ThinningPlan | None:
    """A block that by now is for a coarser tier, the oldest first; then the days of the coarsest that fill a span."""
    blocks = thinned(metas)
    for meta in blocks:
        tier = _tier_of(meta, now, tiers)
        if tier and tier.resolution > meta.resolution and tier.resolution % meta.resolution == 0:
            return ThinningPlan((meta,), tier.resolution)
    lasting = [meta for meta in blocks if meta.resolution >= tiers[-1].resolution]
    for (span, resolution), group in groupby(lasting, lambda meta: (meta.window // SPAN_MS, meta.resolution)):
        together = tuple(group)
        if len(together) > 1 and any(meta.window // SPAN_MS > span for meta in lasting):
            return ThinningPlan(together, resolution)
    return None

"""Which blocks retention lets go, by age and by size."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from streamgauge.model.source import Matcher
from streamgauge.store.events.plan import past_age
from streamgauge.store.events.ports import EventBlockMeta
from streamgauge.store.ports import LAST_TIME, BlockMeta
from streamgauge.store.resolutions import raw
from streamgauge.store.snapshot import by_priority

NS = 1_000_000
"""Nanoseconds in a millisecond."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Series that all of `matchers` match are kept for `retention` ms."""

    matchers: tuple[Matcher, ...]
    retention: int


def expired(metas: Sequence[BlockMeta], now: int, retention: int) -> list[BlockMeta]:
    """Blocks of samples, all of which are older than `retention` ms before `now` (ms). 0 keeps everything for ever."""
    return older(raw(metas), now - retention) if retention else []


def too_old_for_size(metas: Sequence[BlockMeta], events: Sequence[EventBlockMeta], limit: int) -> int | None:
    """The youngest age that must go, so that the rest takes `limit` bytes or less: what is older than this time (ms).
    None when nothing must.

    An age is looked for at which the rest fits, so that blocks go as they would by age, whatever they hold. The newest
    block stays, however large it is, and with it the late blocks that hold later values of its samples.
    """
    total = sum(meta.bytes for meta in metas) + sum(meta.bytes for meta in events)
    ages = sorted({meta.max_time for meta in metas} | {meta.max_time // NS for meta in events})
    if total <= limit or not ages:
        return None

    def fits(before: int) -> bool:
        gone = sum(meta.bytes for meta in older(metas, before))
        gone += sum(meta.bytes for meta in past_age(events, before * NS))
        return total - gone <= limit

    first = bisect_left(ages, True, key=fits)
    return ages[min(first, len(ages) - 1)]


def older(metas: Sequence[BlockMeta], before: int) -> list[BlockMeta]:
    """Blocks all of whose samples are older than the time `before` (ms), in ascending priority.

    A block goes as a whole: until its newest sample is old enough its older ones stay, for a day at most once the block
    is split by days. For as long a late block stays that may hold later values of the same samples: without it the
    values that they have replaced would be seen again.
    """
    gone: list[BlockMeta] = []
    stays_from = LAST_TIME  # the oldest time in a block that stays
    for meta in by_priority(metas):
        if meta.max_time >= before or (meta.late and meta.max_time >= stays_from):
            stays_from = min(stays_from, meta.min_time)
        else:
            gone.append(meta)
    return gone

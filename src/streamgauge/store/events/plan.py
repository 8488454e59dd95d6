"""Which blocks of events are worth merging, and which are past retention: pure functions of their metadata."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from streamgauge.store.events.ports import UNDIVIDED, EventBlockMeta

MAX_EVENTS = 1 << 20
MAX_BYTES = 256 << 20
"""Of a merged block: what a compaction holds in memory is several times that, and a query by time or stream reads at
least a row group of each block that it touches."""
DAY_NS = 86_400 * 10**9
_FAN_IN = 4
_MOST_INPUTS = 16


def plan_event_compaction(blocks: Sequence[EventBlockMeta], idle: bool = False) -> list[EventBlockMeta]:
    """Neighbours to merge next, in order of commit; empty when nothing is worth it.

    Blocks of different days stay apart, so that retention by age drops whole ones. A merge takes at least four, of
    which none holds more than half of the events: so each event is written anew once for each doubling, at most. When
    nothing comes any more (`idle`) two are enough. A block that was not divided is written anew by itself when there is
    nothing else to do.
    """
    for _, group in groupby(blocks, key=lambda meta: meta.min_time // DAY_NS):
        if chosen := _best(list(group), idle):
            return chosen
    return next(([meta] for meta in blocks if meta.level == UNDIVIDED), [])


def _best(day: Sequence[EventBlockMeta], idle: bool) -> list[EventBlockMeta]:
    """The stretch with the most blocks for its events."""
    best: list[EventBlockMeta] = []
    for start in range(len(day)):
        for stop in range(start + 2, min(start + _MOST_INPUTS, len(day)) + 1):
            stretch = list(day[start:stop])
            events = sum(meta.events for meta in stretch)
            if events > MAX_EVENTS or sum(meta.bytes for meta in stretch) > MAX_BYTES:
                break
            balanced = len(stretch) >= _FAN_IN and max(meta.events for meta in stretch) <= events / 2
            if (balanced or idle) and len(stretch) > len(best):
                best = stretch
    return best


def past_age(blocks: Sequence[EventBlockMeta], oldest_kept: int) -> list[EventBlockMeta]:
    """The blocks all of whose events were received before `oldest_kept` (ns)."""
    return [meta for meta in blocks if meta.max_time < oldest_kept]

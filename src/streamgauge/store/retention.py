"""Which blocks retention lets go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamgauge.model.source import Matcher
from streamgauge.store.ports import LAST_TIME, BlockMeta
from streamgauge.store.resolutions import raw
from streamgauge.store.snapshot import by_priority


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Series that all of `matchers` match are kept for `retention` ms."""

    matchers: tuple[Matcher, ...]
    retention: int


def expired(metas: Sequence[BlockMeta], now: int, retention: int) -> list[BlockMeta]:
    """Blocks of samples, all of which are older than `retention` ms before `now` (ms). 0 keeps everything for ever.

    A block goes as a whole: until its newest sample is old enough its older ones stay, for a day at most once the block
    is split by days. For as long a late block stays that may hold later values of the same samples: without it the
    values that they have replaced would be seen again.
    """
    if retention == 0:
        return []
    gone: list[BlockMeta] = []
    stays_from = LAST_TIME  # the oldest time in a block that stays
    for meta in by_priority(raw(metas)):
        if meta.max_time >= now - retention or (meta.late and meta.max_time >= stays_from):
            stays_from = min(stays_from, meta.min_time)
        else:
            gone.append(meta)
    return gone

"""Which blocks retention lets go."""

from __future__ import annotations

from collections.abc import Iterable

from streamgauge.store.ports import BlockMeta


def expired(metas: Iterable[BlockMeta], now: int, retention: int) -> list[BlockMeta]:
    """Blocks all of whose samples are older than `retention` ms before `now` (ms). 0 keeps everything for ever.

    A block goes as a whole: until its newest sample is old enough its older ones stay, for a day at most once the block
    is split by days.
    """
    if retention == 0:
        return []
    oldest_kept = now - retention
    return [meta for meta in metas if meta.max_time < oldest_kept]

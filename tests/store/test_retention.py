"""Retention drops a block when the last of its samples is too old, and never before."""

from __future__ import annotations

from streamgauge.store.ports import DAY_MS, BlockMeta
from streamgauge.store.retention import expired


def block(name: str, min_time: int, max_time: int) -> BlockMeta:
    return BlockMeta(name, 1, 2, min_time, max_time, -1, True, 0, 1, 1, 1)


def test_a_block_goes_with_its_newest_sample() -> None:
    now, retention = 100 * DAY_MS, 15 * DAY_MS
    oldest_kept = now - retention
    blocks = [block("old", 0, oldest_kept - 1), block("edge", 0, oldest_kept), block("new", now, now)]
    assert expired(blocks, now, retention) == blocks[:1]
    assert expired(blocks, now + 1, retention) == blocks[:2]


def test_zero_keeps_everything() -> None:
    assert expired([block("old", -(2**62), -(2**62))], 100 * DAY_MS, 0) == []

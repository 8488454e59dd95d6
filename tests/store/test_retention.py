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


def test_a_late_block_stays_as_long_as_what_it_may_have_replaced() -> None:
    now, retention = 100 * DAY_MS, 15 * DAY_MS
    kept = now - retention
    normal = BlockMeta("normal", 1, 2, kept - 100, kept, 0, False, 0, 1, 1, 1)
    over_it = BlockMeta("over it", 3, 4, kept - 500, kept - 50, -1, True, 0, 1, 1, 1)
    over_that = BlockMeta("over that", 5, 6, kept - 600, kept - 400, -1, True, 0, 1, 1, 1)
    before = BlockMeta("before", 7, 8, kept - 900, kept - 700, -1, True, 0, 1, 1, 1)
    assert expired([before, over_that, normal, over_it], now, retention) == [before]
    assert expired([before, over_that, normal, over_it], now + 1, retention) == [normal, over_it, over_that, before]
    assert expired([over_it, over_that], now, retention) == [over_it, over_that]

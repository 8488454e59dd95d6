"""Retention drops a block when the last of its samples is too old, and never before; or when it is among the oldest and
all together are too large."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.clock import ManualClock
from streamgauge.errors import StorageError
from streamgauge.model.labels import key_of
from streamgauge.store import failpoints, fs, names
from streamgauge.store.ports import DAY_MS, BlockMeta
from streamgauge.store.resolutions import Tier
from streamgauge.store.retention import expired, older, too_old_for_size
from streamgauge.store.snapshot import by_priority
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import NOON, Row, batch_of, content, opened
from streamgauge.testing.thorough import examples

IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


def beyond_size(metas: list[BlockMeta], limit: int) -> list[BlockMeta]:
    before = too_old_for_size(metas, (), limit)
    return [] if before is None else older(metas, before)


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


# ---- by size --------------------------------------------------------------------------------------------------------


def sized(name: str, min_time: int, max_time: int, size: int, commit: int = 0, late: bool = False) -> BlockMeta:
    return BlockMeta(name, commit, commit, min_time, max_time, -1 if late else 0, late, 0, 1, 1, size)


def test_the_oldest_go_until_the_others_fit() -> None:
    blocks = [sized("c", 20, 29, 30), sized("a", 0, 9, 10), sized("b", 10, 19, 20)]
    assert beyond_size(blocks, 60) == []
    assert [meta.id for meta in beyond_size(blocks, 59)] == ["a"]
    assert [meta.id for meta in beyond_size(blocks, 50)] == ["a"]
    assert {meta.id for meta in beyond_size(blocks, 49)} == {"a", "b"}


def test_the_newest_block_stays_with_what_holds_later_values_of_its_samples() -> None:
    newest, over_it = sized("newest", 10, 99, 1000), sized("over it", 0, 50, 10, 2, late=True)
    beside = sized("beside", -9, -1, 10, 3, late=True)
    assert [meta.id for meta in beyond_size([newest, over_it, beside], 1)] == ["beside"]
    assert beyond_size([newest], 1) == []
    assert beyond_size([newest], -1) == []
    assert beyond_size([], -1) == []


METAS = st.lists(
    st.builds(
        lambda number, start, length, size, late: (number, start, start + length, size, late),
        st.integers(0, 1 << 30),
        st.integers(0, 50),
        st.integers(0, 20),
        st.integers(1, 100),
        st.booleans(),
    ),
    max_size=12,
    unique_by=lambda row: row[0],
)


@given(METAS, st.integers(0, 800))
def test_what_stays_fits_and_hides_what_it_hid(rows: list[tuple[int, int, int, int, bool]], limit: int) -> None:
    metas = [sized(str(n), start, end, size, n, late) for n, start, end, size, late in rows]
    gone = beyond_size(metas, limit)
    stays = [meta for meta in by_priority(metas) if meta not in gone]
    newest = max((meta.max_time for meta in metas), default=0)
    assert bool(stays) == bool(metas)
    covered = [n for n, meta in enumerate(stays) if meta.late and any(m.min_time <= meta.max_time for m in stays[:n])]
    needed = [meta for n, meta in enumerate(stays) if meta.max_time == newest or n in covered]
    assert sum(meta.bytes for meta in stays) <= limit or stays == needed
    for meta in gone:  # nothing that it may have replaced is seen again
        below = by_priority(metas)[: by_priority(metas).index(meta)]
        if meta.late:
            assert not [other for other in below if other in stays and other.min_time <= meta.max_time]
    if gone:  # not more than had to
        last = max(meta.max_time for meta in gone)
        kept = sum(meta.bytes for meta in metas) - sum(meta.bytes for meta in older(metas, last))
        assert kept > limit


KEYS = [key_of({"__name__": "up", "job": job}) for job in "abc"]


def rows_of(day: int, number: int) -> list[Row]:
    return [(key, NOON - day * DAY_MS + at * 1000, number) for key in KEYS for at in range(50)]


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=12), st.integers(1, 40_000))
@settings(max_examples=examples(25))
def test_a_store_drops_what_is_beyond_its_size(writes: list[tuple[int, bool]], limit: int) -> None:
    """Days are written in any order, and again with other values: what is seen afterwards is what was seen before, or
    nothing."""

    async def life(data: Path) -> None:
        async with opened(data, ManualClock(NOON + DAY_MS), retention_bytes=limit) as (store, maintenance):
            for number, (day, compact) in enumerate(writes):
                await store.append(batch_of(store, rows_of(day, number)))
                await maintenance.flush_all()
                if compact:
                    await maintenance.compact()
            before, blocks = content(store), store.state.blocks
            held = fs.size_of_files(names.log_dir(data)) + sum(meta.bytes for meta in blocks)
            assert await maintenance.expire() == bool(beyond_size(blocks, limit - held + sum(m.bytes for m in blocks)))
            after = content(store)
            assert after.items() <= before.items()
            assert after, "the newest block stays"
            assert maintenance.counts.blocks_dropped == {
                "age": 0,
                "size": len(blocks) - len(store.state.blocks),
                "room": 0,
            }
        async with opened(data, ManualClock(NOON + DAY_MS)) as (store, _):
            assert store.state.damage == []
            assert content(store) == after

    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        asyncio.run(life(Path(path) / "data"))
        assert check_folder(Path(path) / "data") == []


def test_a_sample_older_than_what_went_is_taken_and_goes_next(tmp_path: Path) -> None:
    async def life() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, maintenance):
            for day in (0, 1):
                await store.append(batch_of(store, rows_of(day, day)))
                await maintenance.flush_all()
            store.keep_for(0, retention_bytes=1)
            assert await maintenance.expire()
            await store.append(batch_of(store, rows_of(3, 3)))
            await maintenance.flush_all()
            assert {time for _, time in content(store)} >= {NOON - 3 * DAY_MS}
            assert await maintenance.expire()
            assert min(time for _, time in content(store)) == NOON

    asyncio.run(life())


def test_a_block_that_went_by_size_while_a_query_reads_it_is_no_stranger_to_the_next_start(tmp_path: Path) -> None:
    async def first(data: Path) -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            for day in (0, 1):
                await store.append(batch_of(store, rows_of(day, day)))
                await maintenance.flush_all()
            _, release = store.snapshot()
            store.keep_for(0, retention_bytes=1)
            assert await maintenance.expire()
            assert len(list(names.blocks_dir(data).iterdir())) == 2
            del release  # a killed server releases nothing

    async def second(data: Path) -> None:
        async with opened(data, ManualClock(NOON)) as (store, _):
            assert store.state.damage == []
            assert len(content(store)) == 150
        assert len(list(names.blocks_dir(data).iterdir())) == 1
        assert not names.set_aside_dir(data).exists()

    asyncio.run(first(tmp_path / "data"))
    asyncio.run(second(tmp_path / "data"))


def test_size_goes_by_no_clock(tmp_path: Path) -> None:
    async def life() -> None:
        clock = ManualClock(NOON)
        async with opened(tmp_path / "data", clock, 3 * DAY_MS) as (store, maintenance):
            for day in (0, 1):
                await store.append(batch_of(store, rows_of(day, day)))
                await maintenance.flush_all()
            clock.jump(100 * DAY_MS)
            assert not await maintenance.expire(), "the clock is not believed"
            store.keep_for(3 * DAY_MS, retention_bytes=1)
            assert await maintenance.expire()
            assert maintenance.counts.blocks_dropped == {"age": 0, "size": 1, "room": 0}

    asyncio.run(life())


def test_what_fails_for_want_of_room_does_not_keep_blocks_from_going_by_size(tmp_path: Path) -> None:
    async def life() -> None:
        clock, tiers = ManualClock(NOON), (Tier(300_000, 9 * DAY_MS),)
        async with opened(tmp_path / "data", clock, DAY_MS, retention_bytes=1 << 30, tiers=tiers) as (
            store,
            maintenance,
        ):
            for day in (0, 1):
                await store.append(batch_of(store, rows_of(day, day)))
                await maintenance.flush_all()
            await clock.advance(DAY_MS / 1000)
            with failpoints.armed("thin.before_write", "enospc"), pytest.raises(StorageError):
                await maintenance.expire()
            assert len(store.state.blocks) == 2, "they are not too large"
            store.keep_for(DAY_MS, retention_bytes=1, tiers=tiers)
            with failpoints.armed("thin.before_write", "enospc"), pytest.raises(StorageError):
                await maintenance.expire()
            assert maintenance.counts.blocks_dropped == {"age": 0, "size": 1, "room": 0}

    asyncio.run(life())

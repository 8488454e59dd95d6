"""Days past retention become aggregates, those of long ago coarser ones, and nothing is counted twice or lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import Overloaded, ReadOnly
from streamgauge.model.arrays import STALE_BITS, Floats, stale_mask
from streamgauge.model.labels import key_of
from streamgauge.model.source import AggregateKind, Horizon, Matcher, MatchOp, NoMeter, Source
from streamgauge.store import failpoints, names
from streamgauge.store.compact import CompactionPlan, plan_compaction
from streamgauge.store.downsample import SPAN_MS, Dropping, ThinningPlan, next_step
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.offline import compact_folder, open_folder
from streamgauge.store.ports import DAY_MS, FIRST_TIME, LAST_TIME, BlockMeta
from streamgauge.store.resolutions import Tier, end_of, raw, thinned, thinned_through
from streamgauge.store.store import Store
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import Row, batch_of, content, opened

IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
DAY = 20_000 * DAY_MS
MINUTE = 60_000
HALF_AN_HOUR = 30 * MINUTE
FINE, COARSE = 5 * MINUTE, 60 * MINUTE
RETENTION = 3 * DAY_MS
TIERS = (Tier(FINE, 5 * DAY_MS), Tier(COARSE, 9 * DAY_MS))
KEYS = [key_of({"__name__": "requests_total", "job": job}) for job in "ab"]


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder where a sync costs nothing."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path) / "data"


# ---- planning --------------------------------------------------------------------------------------------------------


def block(day: int, resolution: int = 0, late: bool = False, days: int = 1, first: int = 1) -> BlockMeta:
    start = day * DAY_MS
    end = start + days * DAY_MS - 1
    name = f"{day}-{resolution}-{first}-{'late' if late else ''}"
    window = start if days == 1 or resolution else -1
    return BlockMeta(name, first, first + 9, start, end, window, late, 1, 1, 100, 1000, ("p",), (), resolution)


NOW = 100 * DAY_MS + DAY_MS // 2


def test_the_oldest_day_past_retention_is_thinned_first() -> None:
    blocks = [block(day) for day in (96, 95, 97, 98)]
    step = next_step(blocks, NOW, RETENTION, TIERS)
    assert step == ThinningPlan((block(95),), FINE)
    done = [*blocks, block(95, FINE)]
    done.remove(block(95))
    assert next_step(done, NOW, RETENTION, TIERS) == ThinningPlan((block(96),), FINE, block(95, FINE))
    assert next_step([block(97)], NOW, RETENTION, TIERS) is None, "half of the day is within retention"


def test_all_blocks_of_a_day_are_thinned_together_later_ones_winning() -> None:
    blocks = [block(95, late=True, first=21), block(95, first=11), block(95, first=1), block(95, late=True, first=31)]
    step = next_step(blocks, NOW, RETENTION, TIERS)
    assert isinstance(step, ThinningPlan)
    assert [(meta.late, meta.first_commit) for meta in step.inputs] == [(False, 1), (False, 11), (True, 21), (True, 31)]


def test_a_block_over_several_days_is_split_before() -> None:
    wide = block(94, late=True, days=10, first=11)
    step = next_step([block(95), wide], NOW, RETENTION, TIERS)
    assert step == CompactionPlan((wide,), late=True, split=True)


def test_a_day_of_many_blocks_is_compacted_before() -> None:
    blocks = [block(95, first=number * 10) for number in range(20)]
    step = next_step(blocks, NOW, RETENTION, TIERS)
    assert isinstance(step, CompactionPlan)
    assert len(step.inputs) == 16


def test_a_day_that_is_too_old_for_the_finest_goes_straight_to_a_coarser_one() -> None:
    assert next_step([block(93)], NOW, RETENTION, TIERS) == ThinningPlan((block(93),), COARSE)
    assert next_step([block(80)], NOW, RETENTION, TIERS) == Dropping((block(80),))


def test_aggregates_become_coarser_and_go_in_the_end() -> None:
    assert next_step([block(95, FINE)], NOW, RETENTION, TIERS) is None
    assert next_step([block(94, FINE)], NOW, RETENTION, TIERS) == ThinningPlan((block(94, FINE),), COARSE)
    assert next_step([block(91, COARSE)], NOW, RETENTION, TIERS) is None
    assert next_step([block(90, COARSE)], NOW, RETENTION, TIERS) == Dropping((block(90, COARSE),))
    assert next_step([block(94, 7 * MINUTE)], NOW, RETENTION, TIERS) is None, "an hour is no multiple of 7 minutes"


def test_without_tiers_what_is_past_retention_goes_and_without_retention_nothing_does() -> None:
    blocks = [block(95), block(95, FINE), block(98, FINE), block(99)]
    assert next_step(blocks, NOW, RETENTION, ()) == Dropping((block(95, FINE), block(95)))
    assert next_step(blocks, NOW, 0, ()) is None
    assert next_step(blocks, NOW, 0, TIERS) is None


def test_aggregates_stay_for_as_long_as_samples_would() -> None:
    assert next_step([block(80, FINE)], NOW, 30 * DAY_MS, ()) is None
    assert next_step([block(60, FINE)], NOW, 30 * DAY_MS, ()) == Dropping((block(60, FINE),))


def test_days_of_the_coarsest_that_fill_a_span_become_one_block() -> None:
    tiers = (Tier(FINE, 5 * DAY_MS), Tier(COARSE, 1000 * DAY_MS))
    span = SPAN_MS // DAY_MS
    first = 3 * span
    days = [block(day, COARSE) for day in range(first, first + span)]
    assert next_step(days, NOW, RETENTION, tiers) is None, "the span may get more"
    following = block(first + span, COARSE)
    assert next_step([*days, following], NOW, RETENTION, tiers) == ThinningPlan(tuple(days), COARSE)
    whole = replace(block(first, COARSE, days=span), parents=("a", "b"))
    assert next_step([whole, following], NOW, RETENTION, tiers) is None
    assert end_of(whole) == following.window


def test_compaction_leaves_aggregates_alone() -> None:
    blocks = [block(90, FINE, first=number) for number in (1, 11, 21, 31)]
    assert plan_compaction(blocks, NOW, idle=True) is None


# ---- in a store ------------------------------------------------------------------------------------------------------


def bits(value: float) -> int:
    return int(np.float64(value).view(np.int64))


async def scrape(store: Store, day: int, value: Callable[[int], float]) -> None:
    """A sample a minute of both series, through a day."""
    rows: list[Row] = []
    for minute in range(24 * 60):
        time = DAY + day * DAY_MS + minute * MINUTE
        rows += [(key, time, bits(value(day * 1440 + minute) + number)) for number, key in enumerate(KEYS)]
    await store.append(batch_of(store, rows))


async def flush(store: Store, maintenance: Maintenance) -> None:
    store.head.seal()
    await maintenance.flush(1 << 20)


async def expire(maintenance: Maintenance) -> int:
    """Everything that is to be done with what is past retention. How many steps it took."""
    steps = 0
    while await maintenance.expire():
        steps += 1
        await maintenance.close()  # parents that are still on disk would make the next step wait
    return steps


async def days(store: Store, maintenance: Maintenance, clock: ManualClock, number: int) -> None:
    """Live through days, each with its samples; the clock stands at the end of the last."""
    for day in range(number):
        await clock.advance(DAY_MS / 1000)
        await scrape(store, day, lambda minute: minute * 2.0)
        await flush(store, maintenance)
        await expire(maintenance)


def opened_source(store: Store) -> tuple[Source, Callable[[], None]]:
    snapshot, release = store.snapshot()
    return snapshot.open({}), release


def column(
    store: Store, aggregate: AggregateKind, start: int = FIRST_TIME, end: int = LAST_TIME
) -> tuple[list[int], Floats]:
    """Times and values of the first series."""
    source, release = opened_source(store)
    selection = source.select([], start, end, NoMeter(), aggregate)
    release()
    row = next(row for row in range(len(selection.labels)) if selection.labels.labels(row)["job"] == "a")
    part = slice(*selection.samples.offsets[row : row + 2].tolist())
    return selection.samples.times[part].tolist(), selection.samples.values[part]


def run(data: Path, work: Callable[[Store, Maintenance, ManualClock], object], tiers: tuple[Tier, ...] = TIERS) -> None:
    async def live() -> None:
        clock = ManualClock(DAY)
        async with opened(data, clock, RETENTION, tiers=tiers) as (store, maintenance):
            result = work(store, maintenance, clock)
            if asyncio.iscoroutine(result):
                await result

    asyncio.run(live())


def test_days_go_from_samples_to_aggregates_to_coarser_ones(data: Path) -> None:
    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        await days(store, maintenance, clock, 12)
        kinds = [(meta.window // DAY_MS - 20_000, meta.resolution) for meta in thinned(store.state.blocks)]
        assert kinds == [(3, COARSE), (4, COARSE), (5, COARSE), (6, COARSE), (7, FINE), (8, FINE)]
        assert {meta.window // DAY_MS - 20_000 for meta in raw(store.state.blocks)} == {9, 10, 11}
        source, release = opened_source(store)
        assert source.horizons == [Horizon(DAY + 7 * DAY_MS, COARSE), Horizon(DAY + 9 * DAY_MS, FINE)]
        release()
        assert maintenance.counts.downsampling_runs == 9

        times, last = column(store, AggregateKind.LAST)
        hours, fives = 4 * 24, 2 * 24 * 12
        assert len(times) == hours + fives + 3 * 1440
        assert times[:2] == [DAY + 3 * DAY_MS + COARSE - 1, DAY + 3 * DAY_MS + 2 * COARSE - 1]
        assert last[0] == 2.0 * (3 * 1440 + 59)
        for aggregate, hour, five, sample in (
            (AggregateKind.COUNT, 60, 5, 1),
            (AggregateKind.INCREASE, 120, 10, 2),
        ):
            _, values = column(store, aggregate)
            assert (values[:hours] == hour).all()
            assert (values[hours : hours + fives] == five).all()
            assert (values[hours + fives :] == sample).all(), "and from the last of the aggregates to the first sample"
        _, low = column(store, AggregateKind.MIN)
        _, high = column(store, AggregateKind.MAX)
        assert (high[:hours] - low[:hours] == 118).all()
        _, total = column(store, AggregateKind.SUM)
        assert total[0] == sum(2.0 * minute for minute in range(3 * 1440, 3 * 1440 + 60))

    run(data, live)
    assert check_folder(data) == []


def test_without_room_for_aggregates_days_past_retention_go_once_writes_are_refused(data: Path) -> None:
    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        for day in range(5):
            await clock.advance(DAY_MS / 1000)
            await scrape(store, day, float)
            await flush(store, maintenance)
        with failpoints.armed("thin.before_write", "enospc"):
            with pytest.raises(ReadOnly):
                await maintenance.expire()
            assert len(raw(store.state.blocks)) == 5, "nobody is refused yet: somebody may make room"
            store.refuse(ReadOnly("the disk is full"))
            assert await expire(maintenance) == 2
        store.accept()
        assert [meta.window // DAY_MS - 20_000 for meta in store.state.blocks] == [2, 3, 4]
        assert maintenance.counts.blocks_dropped == {"age": 0, "size": 0, "room": 2}
        await clock.advance(DAY_MS / 1000)
        await expire(maintenance)
        assert [meta.window // DAY_MS - 20_000 for meta in thinned(store.state.blocks)] == [2], "and then as ever"

    run(data, live)
    assert check_folder(data) == []


def test_samples_within_retention_are_what_they_are_without_downsampling(data: Path, tmp_path: Path) -> None:
    kept: list[dict[tuple[bytes, int], int]] = []

    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        await days(store, maintenance, clock, 6)
        kept.append(content(store))

    run(data, live)
    run(tmp_path / "plain", live, tiers=())
    assert kept[0] == kept[1]
    assert len(kept[0]) == 3 * 1440 * 2


def test_samples_of_a_closed_day_are_not_taken(data: Path) -> None:
    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        await days(store, maintenance, clock, 6)
        closed = DAY + 3 * DAY_MS
        assert store.closed_through == closed == thinned_through(store.state.blocks)
        store.keep_for(30 * DAY_MS, tiers=TIERS)
        assert store.admitted()[0] == closed, "even though retention would have them now"
        with pytest.raises(Overloaded, match="closed by downsampling"):
            await store.append(batch_of(store, [(KEYS[0], closed - 1, bits(1.0))]))
        await store.append(batch_of(store, [(KEYS[0], closed, bits(1.0))]))
        assert content(store)[KEYS[0], closed] == bits(1.0)

    run(data, live)


def test_late_samples_in_memory_are_part_of_the_aggregates(data: Path) -> None:
    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        await clock.advance(DAY_MS / 1000)
        await scrape(store, 0, lambda minute: 1.0)
        await flush(store, maintenance)
        await store.append(batch_of(store, [(KEYS[0], DAY + 30_000, bits(5.0)), (KEYS[0], DAY + MINUTE, bits(7.0))]))
        await clock.advance(3 * DAY_MS / 1000)
        await store.append(batch_of(store, [(KEYS[0], clock.now_ms(), bits(9.0))]))
        await expire(maintenance)
        _, counts = column(store, AggregateKind.COUNT)
        _, highest = column(store, AggregateKind.MAX)
        assert counts[:2].tolist() == [6, 5]
        assert highest[:2].tolist() == [7, 1]
        assert content(store) == {(KEYS[0], clock.now_ms()): bits(9.0)}

    run(data, live)
    assert check_folder(data) == []


def test_a_backfill_over_many_days_is_thinned_day_by_day(data: Path) -> None:
    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        store.keep_for(30 * DAY_MS, tiers=TIERS)
        await clock.advance(20 * DAY_MS / 1000)
        await store.append(batch_of(store, [(KEYS[0], clock.now_ms(), bits(1.0))]))
        await flush(store, maintenance)
        rows = [(KEYS[0], DAY + day * DAY_MS + 1, bits(float(day))) for day in range(20)]
        await store.append(batch_of(store, rows))
        await flush(store, maintenance)
        assert any(meta.window == -1 for meta in store.state.blocks)
        store.keep_for(RETENTION, tiers=(Tier(COARSE, 100 * DAY_MS),))
        await expire(maintenance)
        times, last = column(store, AggregateKind.LAST)
        assert last[:17].tolist() == [float(day) for day in range(17)]
        assert times[:17] == [DAY + day * DAY_MS + COARSE - 1 for day in range(17)]
        _, increase = column(store, AggregateKind.INCREASE)
        assert increase[:20].tolist() == [0.0] + [1.0] * 19
        spans = [meta.window // SPAN_MS for meta in thinned(store.state.blocks)]
        assert len(thinned(store.state.blocks)) < 17, "days of a full span are together"
        assert spans == sorted(spans)

    run(data, live)
    assert check_folder(data) == []


def test_what_a_query_keeps_of_a_compaction_is_known_by_a_start_after_a_kill(data: Path, tmp_path: Path) -> None:
    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        store.keep_for(40 * DAY_MS, tiers=TIERS)
        await clock.advance(20 * DAY_MS / 1000)
        for time in range(4):
            rows = [(KEYS[0], DAY + day * DAY_MS + time, bits(1.0)) for day in range(20) if time < 3]
            await store.append(batch_of(store, [(KEYS[0], clock.now_ms() + time, bits(1.0)), *rows]))
            await flush(store, maintenance)
        wide = [meta for meta in store.state.blocks if meta.window == -1]
        release = store.leases.acquire([wide[0].id])
        while await maintenance.compact():
            await maintenance.close()
        (merged,) = [meta for meta in store.state.blocks if meta.window == -1]
        assert merged.parents == tuple(meta.id for meta in wide)
        store.keep_for(RETENTION, tiers=(Tier(COARSE, 100 * DAY_MS),))
        await expire(maintenance)
        shutil.copytree(data, tmp_path / "killed")
        release()
        await maintenance.close()
        assert await expire(maintenance) > 0
        assert len(column(store, AggregateKind.LAST)[0]) == 17 + 3 * 3 + 4

    async def look() -> None:
        async with opened(tmp_path / "killed", ManualClock(DAY + 20 * DAY_MS)) as (store, _):
            assert store.state.damage == []

    run(data, live)
    asyncio.run(look())
    assert check_folder(data) == []


def test_stale_markers_end_a_series_and_do_not_count(data: Path) -> None:
    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        await clock.advance(DAY_MS / 1000)
        rows = [(KEYS[0], DAY + minute * MINUTE, bits(float(minute))) for minute in range(7)]
        rows += [(KEYS[0], DAY + 7 * MINUTE, STALE_BITS), (KEYS[0], DAY + 10 * MINUTE, STALE_BITS)]
        await store.append(batch_of(store, rows))
        await clock.advance(3 * DAY_MS / 1000)
        await expire(maintenance)
        for aggregate, expected in (
            (AggregateKind.LAST_NUMBER, [4.0, 6.0, None]),
            (AggregateKind.LAST, [4.0, None, None]),
            (AggregateKind.COUNT, [5.0, 2.0, None]),
            (AggregateKind.MIN, [0.0, 5.0, None]),
            (AggregateKind.INCREASE, [4.0, 2.0, None]),
        ):
            _, values = column(store, aggregate)
            assert [
                None if stale else value for value, stale in zip(values, stale_mask(values), strict=True)
            ] == expected

    run(data, live)


def test_an_increase_goes_on_over_midnight_and_over_the_end_of_a_series(data: Path) -> None:
    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        await clock.advance(2 * DAY_MS / 1000)
        midnight = DAY + DAY_MS
        rows = [(KEYS[0], midnight - 2 * MINUTE, 10.0), (KEYS[0], midnight + MINUTE, 14.0)]
        await store.append(batch_of(store, [(key, time, bits(value)) for key, time, value in rows]))
        await store.append(batch_of(store, [(KEYS[0], midnight - MINUTE, STALE_BITS)]))
        await clock.advance(3 * DAY_MS / 1000)
        assert await expire(maintenance) == 2
        _, increase = column(store, AggregateKind.INCREASE)
        assert increase.tolist() == [0.0, 4.0]

    run(data, live)


def test_a_deletion_takes_aggregates_as_it_takes_samples(data: Path) -> None:
    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        await days(store, maintenance, clock, 6)
        first, end = DAY, DAY + DAY_MS + HALF_AN_HOUR
        job = Matcher("job", MatchOp.EQUAL, "b")
        await maintenance.delete([[job]], first, end - 1)
        before = column(store, AggregateKind.COUNT)

        def hidden() -> bool:
            source, release = opened_source(store)
            found = source.select([job], FIRST_TIME, LAST_TIME, NoMeter(), AggregateKind.COUNT).samples
            release()
            return int(found.times[0]) == end + FINE - 1 and len(found.times) == 2 * 288 - 6 + 3 * 1440

        assert hidden()
        while await maintenance.clean():
            await maintenance.close()
        assert store.state.tombstones == ()
        assert hidden()
        after = column(store, AggregateKind.COUNT)
        assert (after[0], after[1].tolist()) == (before[0], before[1].tolist()), "the other series has lost nothing"
        assert [meta.resolution for meta in thinned(store.state.blocks)] == [COARSE, FINE, FINE]

    run(data, live)
    assert check_folder(data) == []


def test_a_day_that_a_deletion_waits_for_is_thinned_after_it(data: Path) -> None:
    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        await clock.advance(DAY_MS / 1000)
        await scrape(store, 0, lambda minute: 1.0)
        await flush(store, maintenance)
        await maintenance.delete([[Matcher("job", MatchOp.EQUAL, "a")]], DAY + MINUTE, DAY + 3 * MINUTE)
        await clock.advance(3 * DAY_MS / 1000)
        assert await expire(maintenance) == 0
        assert await maintenance.clean()
        await maintenance.close()
        assert await expire(maintenance) == 1
        _, counts = column(store, AggregateKind.COUNT)
        assert counts[:3].tolist() == [2.0, 5.0, 5.0]

    run(data, live)
    assert check_folder(data) == []


def test_a_deletion_that_took_nothing_from_a_day_takes_nothing_from_its_aggregates(data: Path) -> None:
    """It falls between two samples that one aggregate stands for: the day is thinned when it is done with."""

    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        await clock.advance(DAY_MS / 1000)
        await scrape(store, 0, lambda minute: 1.0)
        await flush(store, maintenance)
        between = DAY + MINUTE + 1, DAY + 2 * MINUTE - 1
        await maintenance.delete([[Matcher("job", MatchOp.EQUAL, "a")]], *between)
        await maintenance.clean()
        assert len(store.state.tombstones) == 1, (
            "the block is known to have lost nothing; the deletion is not forgotten"
        )
        await clock.advance(3 * DAY_MS / 1000)
        assert await expire(maintenance) == 0
        assert not await maintenance.clean()
        assert store.state.tombstones == ()
        assert await expire(maintenance) == 1
        _, counts = column(store, AggregateKind.COUNT)
        assert counts[:3].tolist() == [5.0, 5.0, 5.0]

    run(data, live)
    assert check_folder(data) == []


def test_off_drops_and_retention_for_ever_keeps(data: Path) -> None:
    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        await days(store, maintenance, clock, 6)
        before = store.state.blocks
        store.keep_for(0, tiers=TIERS)
        await clock.advance(30 * DAY_MS / 1000)
        assert await expire(maintenance) == 0
        assert store.state.blocks == before
        store.keep_for(RETENTION + 30 * DAY_MS, tiers=())
        assert await expire(maintenance) == 1
        assert thinned(store.state.blocks) == []
        assert raw(store.state.blocks) == raw(before)

    run(data, live)


def test_a_folder_without_a_server_and_a_compaction_of_it_have_the_aggregates(data: Path) -> None:
    run(data, lambda store, maintenance, clock: days(store, maintenance, clock, 6))

    def aggregates() -> list[tuple[str, int]]:
        with open_folder(data) as (snapshot, damage):
            assert damage == []
            return [(meta.id, meta.resolution) for meta in thinned(snapshot.blocks)]

    before = aggregates()
    assert [resolution for _, resolution in before] == [COARSE, FINE, FINE]
    asyncio.run(compact_folder(data))
    assert aggregates() == before
    assert check_folder(data) == []


def test_a_lost_catalog_is_rebuilt_with_aggregates_and_counts_nothing_twice(data: Path) -> None:
    counts: list[list[float]] = []

    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        await days(store, maintenance, clock, 6)
        counts.append(column(store, AggregateKind.COUNT)[1].tolist())

    run(data, live)
    names.catalog_file(data).unlink()

    async def look() -> None:
        async with opened(data, ManualClock(DAY + 6 * DAY_MS), RETENTION, tiers=TIERS) as (store, _):
            assert store.state.damage == []
            assert store.closed_through == DAY + 3 * DAY_MS
            counts.append(column(store, AggregateKind.COUNT)[1].tolist())

    asyncio.run(look())
    assert counts[0] == counts[1]
    assert check_folder(data) == []


def test_a_damaged_block_of_aggregates_is_set_aside_and_the_rest_is_served(data: Path) -> None:
    async def live(store: Store, maintenance: Maintenance, clock: ManualClock) -> None:
        await days(store, maintenance, clock, 6)
        damaged = thinned(store.state.blocks)[1]
        path = names.aggregates_file(names.block_dir(data, damaged.id))
        content_ = bytearray(path.read_bytes())
        content_[len(content_) // 2] ^= 1
        path.write_bytes(content_)
        assert await maintenance.damaged.look(damaged.id) == 1
        assert damaged.id in store.state.damage[0].path
        times, _ = column(store, AggregateKind.LAST)
        assert len(times) == 24 + 288 + 3 * 1440
        await clock.advance(DAY_MS / 1000)
        await expire(maintenance)
        assert len(thinned(store.state.blocks)) == 3

    run(data, live)


def test_pyarrow_polars_and_duckdb_read_aggregates_without_us(data: Path) -> None:
    run(data, lambda store, maintenance, clock: days(store, maintenance, clock, 4))
    with open_folder(data) as (snapshot, _):
        (meta,) = thinned(snapshot.blocks)
    path = names.aggregates_file(names.block_dir(data, meta.id))
    table = pq.read_table(path)
    assert table.column_names == ["series_id", "time", "count", "sum", "min", "max", "last", "increase", "stale"]
    assert table.num_rows == meta.samples == 2 * 288
    assert table.column("count").to_pylist() == [5] * 576
    frame = polars.read_parquet(path)
    assert frame["increase"].sum() == 2 * 1439 * 2.0
    assert not frame["stale"].any()
    found = duckdb.sql(f"SELECT min(min), max(last), sum(sum) / sum(count) FROM '{path}' WHERE count > 0").fetchall()
    assert found == [(0.0, 1439 * 2.0 + 1, 1439.5)]
    everything = duckdb.sql(f"SELECT count(*) FROM '{data}/blocks/*/samples.parquet'").fetchall()
    assert everything == [(3 * 1440 * 2,)], "files of samples can be read all together, whatever stands beside them"


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from streamgauge.model.labels import key_of
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.downsample import ThinningPlan
from streamgauge.store.ports import BlockMeta, SortedRows
from streamgauge.store.thinning import perform_thinning

DAY, SERIES, STEPS = 20_000 * 86_400_000, 2000, 600
blocks = LocalBlocks(Path(sys.argv[1]))
keys = pa.array(sorted(key_of({"__name__": "m", "host": str(i)}) for i in range(SERIES)), pa.large_binary())
ids, counts = np.arange(SERIES, dtype=np.uint32), np.full(SERIES, STEPS)
values = np.tile(np.arange(STEPS, dtype=np.float64), SERIES)
metas = []
for number in range(int(sys.argv[2])):
    times = np.tile(DAY + 15_000 * (number * STEPS + np.arange(STEPS)), SERIES)
    meta = BlockMeta(f"block-{number}", number, number, 0, 0, DAY, False, 0, 0, 0, 0)
    metas.append(blocks.write(meta, SortedRows(ids, keys, counts, times, values)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
written = perform_thinning(ThinningPlan(tuple(metas), 300_000), blocks)
assert written.samples == len(metas) * SERIES * STEPS // 20
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="needs resource.getrusage")
def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    unit = 1 if sys.platform == "darwin" else 1024
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), "8"], check=True, capture_output=True, text=True, env=environment
    ).stdout
    assert int(output) * unit < 100e6 < 8 * 2000 * 600 * 16

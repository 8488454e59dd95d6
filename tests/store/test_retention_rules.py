"""Retention per selector: a day after its time nothing is left of a series, and everything of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from streamgauge.clock import ManualClock
from streamgauge.model.labels import key_of
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.store import names
from streamgauge.store.clock_trust import TRUST_SECONDS
from streamgauge.store.helper import InThread
from streamgauge.store.lock import acquire
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.opening import Progress, open_store
from streamgauge.store.ports import DAY_MS
from streamgauge.store.retention import RetentionRule
from streamgauge.store.store import Store, StoreSettings
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import NOON, batch_of, content, opened

DEBUG, AUDIT, OTHER = (key_of({"__name__": "lines", "job": job}) for job in ("debug", "audit", "other"))
START = NOON // DAY_MS * DAY_MS
STEP = DAY_MS // 4


def rule(pattern: str, days: int) -> RetentionRule:
    return RetentionRule((Matcher("job", MatchOp.MATCH, pattern),), days * DAY_MS)


def life(data: Path, clock: ManualClock, work: Callable[[Store, Maintenance], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(data, clock) as (store, maintenance):
            await work(store, maintenance)

    asyncio.run(run())


async def write(store: Store, first_day: int, last_day: int) -> None:
    for key in (DEBUG, AUDIT, OTHER):
        times = range(START + first_day * DAY_MS, START + last_day * DAY_MS, STEP)
        await store.append(batch_of(store, [(key, time, 1.0) for time in times]))


def days(store: Store, key: bytes) -> list[int]:
    """Of which samples are stored."""
    return sorted({(time - START) // DAY_MS for of, time in content(store) if of == key})


def test_each_series_is_kept_as_long_as_the_first_rule_says_that_matches_it(tmp_path: Path) -> None:
    clock = ManualClock(START + 6 * DAY_MS + DAY_MS // 2)

    async def work(store: Store, maintenance: Maintenance) -> None:
        store.keep_for(10 * DAY_MS, (rule("audit", 5), rule("debug|audit", 2)))
        await write(store, 0, 6)
        await maintenance.flush_all()
        await maintenance.expire()
        assert days(store, OTHER) == [0, 1, 2, 3, 4, 5]
        assert days(store, AUDIT) == [1, 2, 3, 4, 5]
        assert days(store, DEBUG) == [4, 5]
        await maintenance.clean_tombstones()
        rewritten = maintenance.deletions.counts.blocks_cleaned
        assert rewritten == 4  # the days 0 to 3
        await clock.advance(DAY_MS / 2000 - 1)
        await maintenance.expire()
        assert store.state.tombstones == ()  # the same day
        await clock.advance(2)
        await maintenance.expire()
        assert (days(store, AUDIT), days(store, DEBUG)) == ([2, 3, 4, 5], [5])
        await maintenance.clean_tombstones()
        assert maintenance.deletions.counts.blocks_cleaned == rewritten + 2

    life(tmp_path / "data", clock, work)
    assert check_folder(tmp_path / "data") == []


def test_what_is_in_memory_or_comes_late_goes_with_the_next_day(tmp_path: Path) -> None:
    clock = ManualClock(START + 6 * DAY_MS)

    async def work(store: Store, maintenance: Maintenance) -> None:
        store.keep_for(0, (rule("debug", 2),))
        await write(store, 0, 2)
        await maintenance.expire()
        assert days(store, DEBUG) == [0, 1]
        await maintenance.flush_all()
        await clock.advance(DAY_MS / 1000)
        await maintenance.expire()
        assert days(store, DEBUG) == []
        assert days(store, OTHER) == [0, 1]

    life(tmp_path / "data", clock, work)


def test_a_start_and_a_change_of_the_rules_take_effect_at_once(tmp_path: Path) -> None:
    clock = ManualClock(START + 6 * DAY_MS)

    async def first(store: Store, maintenance: Maintenance) -> None:
        await write(store, 0, 6)
        await maintenance.flush_all()
        store.keep_for(0, (rule("debug", 4),))
        await maintenance.expire()
        assert days(store, DEBUG) == [2, 3, 4, 5]

    async def second(store: Store, maintenance: Maintenance) -> None:
        store.keep_for(0, (rule("debug", 3),))
        await maintenance.expire()
        assert days(store, DEBUG) == [3, 4, 5]
        store.keep_for(0, (rule("other", 1), rule("debug|other", 2)))
        await maintenance.expire()
        assert (days(store, DEBUG), days(store, OTHER), days(store, AUDIT)) == ([4, 5], [5], [0, 1, 2, 3, 4, 5])
        store.keep_for(0)
        await maintenance.expire()
        assert days(store, DEBUG) == [4, 5]

    life(tmp_path / "data", clock, first)
    life(tmp_path / "data", clock, second)


def test_a_start_with_a_wrong_date_is_not_believed(tmp_path: Path) -> None:
    clock = ManualClock(START + 2 * DAY_MS)

    async def first(store: Store, maintenance: Maintenance) -> None:
        await write(store, 0, 2)
        await maintenance.flush_all()

    life(tmp_path / "data", clock, first)

    async def second() -> None:
        settings, runner = StoreSettings(retention=0, rules=(rule("debug", 2),), min_free_bytes=0), InThread()
        ahead = ManualClock(START + 400 * DAY_MS)
        with acquire(tmp_path / "data"):
            async with open_store(tmp_path / "data", settings, ahead, runner, runner, Progress()) as (
                store,
                maintenance,
            ):
                await maintenance.expire()
                assert days(store, DEBUG) == [0, 1]
                await ahead.advance(TRUST_SECONDS + 1)
                await maintenance.expire()
                assert (days(store, DEBUG), days(store, OTHER)) == ([], [0, 1])

    asyncio.run(second())


def test_damage_that_a_rule_meets_is_taken_out_of_service_and_the_rest_goes(tmp_path: Path) -> None:
    async def work(store: Store, maintenance: Maintenance) -> None:
        store.keep_for(0, (rule("debug", 2),))
        await write(store, 0, 2)
        await maintenance.flush_all()
        damaged = names.series_file(names.block_dir(tmp_path / "data", store.state.blocks[0].id))
        damaged.write_bytes(damaged.read_bytes()[:-1])
        running = asyncio.ensure_future(maintenance.run())
        while not store.state.damage:
            await asyncio.wait([running], timeout=0.01)
        running.cancel()
        await asyncio.wait([running])
        await maintenance.expire()
        assert (days(store, DEBUG), days(store, OTHER)) == ([], [1])

    life(tmp_path / "data", ManualClock(START + 6 * DAY_MS), work)

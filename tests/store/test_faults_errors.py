"""A disk that fails once, at any call: writers hear of it, the store recovers by itself, and nothing acknowledged is
lost."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import ReadOnly, StorageError, StreamgaugeError, SyncFailed
from streamgauge.model.batch import SampleBatch
from streamgauge.store import failpoints
from streamgauge.store.failpoints import FAILPOINTS
from streamgauge.store.head import MAX_COMMIT_ROWS
from streamgauge.store.helper import HelperProcess, InThread
from streamgauge.store.lock import acquire
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.opening import Progress, open_store
from streamgauge.store.ports import DAY_MS
from streamgauge.store.store import Store, StoreSettings
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import KEYS, NOON, RETENTION, Diary, Life, Row, batch_of, content, opened
from streamgauge.testing.thorough import some_of, thorough

IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
UNREACHED = {"catalog.upgrade.after_copy", "log.seal.before_truncate", "log.repair.before_truncate"}
"""The last two are reached when something has failed already; test_log lets them fail. tests/backup has its own."""
QUIET = {
    "thin.after_remove",
    "log.trim.before_remove",
    "log.trim.after_remove",
    "catalog.apply.after_commit",
    "flush.after_trim",
    "compact.after_remove",
    "clean.after_remove",
    "retention.after_remove",
}
"""Nobody hears of these: what was asked for is done, and the rest is tried again."""
CALLS = ["fs.write", "fs.sync", "fs.rename", "fs.remove", "fs.open", "fs.link"]
POINTS = [name for name in FAILPOINTS if not name.startswith(("fs.", "backup.", "restore.")) and name not in UNREACHED]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a sync costs nothing."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path)


def live(folder: Path, point: str, errno: str, time: int) -> int:
    """A life in which the disk fails at one point, once. How often steps of it failed."""
    life = Life(folder / "data", Diary(folder / "diary"), InThread(), stops_at=point)
    with failpoints.armed(point, errno, time, time):
        life.run()
    asyncio.run(look(folder))
    lines = check_folder(folder / "data")
    assert all(".log.end" in line for line in lines), lines
    return life.refused


async def look(folder: Path) -> None:
    clock = ManualClock(NOON + 17 * DAY_MS // 10)
    async with opened(folder / "data", clock, RETENTION) as (store, maintenance):
        assert Diary(folder / "diary").allows(content(store)) == []
        await maintenance.compact_fully()
        assert Diary(folder / "diary").allows(content(store)) == []
        assert store.state.damage == []


@pytest.fixture(scope="module")
def times_reached() -> Counter[str]:
    """How often a life calls the disk."""
    reached: Counter[str] = Counter()
    with ExitStack() as stack, tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        for name in CALLS:
            stack.enter_context(failpoints.armed(name, partial(reached.update, [name])))
        Life(Path(path) / "counted", Diary(Path(path) / "counting"), InThread()).run()
    return reached


def errors_at(points: list[str]) -> Iterator[tuple[str, str]]:
    """Either error by turns; in thorough tests both where the log and the catalog are written, on which writers
    depend."""
    for number, point in enumerate(points):
        for error in ("enospc", "eio"):
            if (error == "eio") == bool(number % 2) or (thorough() and point.startswith(("log.", "catalog."))):
                yield point, error


@pytest.mark.parametrize(("point", "errno"), list(errors_at(POINTS)))
def test_an_error_at_any_point_is_survived(folder: Path, point: str, errno: str) -> None:
    refused = live(folder, point, errno, 1)
    assert refused == 0 if point in QUIET else refused > 0


@pytest.mark.parametrize("point", CALLS)
def test_an_error_of_any_call_of_the_disk_is_survived(folder: Path, times_reached: Counter[str], point: str) -> None:
    """Calls by the hundred: some of them (in thorough tests many) spread over the life, in turn with either error."""
    total, last = times_reached[point], 60 if thorough() else 3
    refused = 0
    for number, time in enumerate(sorted({1 + at * (total - 1) // last for at in range(last + 1)})):
        one = folder / str(time)
        one.mkdir()
        refused += live(one, point, "eio" if number % 2 and point != "fs.open" else "enospc", time)
    assert refused


@pytest.mark.skipif(sys.platform == "win32", reason="the helper ends by kill -9")
@pytest.mark.parametrize(
    "point",
    some_of(["flush.before_blocks", "block.before_rename", "flush.after_block_written", "compact.after_write"], 3),
)
def test_a_helper_that_is_killed_is_replaced(folder: Path, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def killed() -> None:
        helper = HelperProcess()
        try:
            async with opened(folder / "data", ManualClock(NOON), 0, helper) as (store, maintenance):
                await fill(store, maintenance, 3)
                await helper.close()
                monkeypatch.setenv(failpoints.VARIABLE, f"{point}=kill")  # of the helpers to come
                await append(store, 3)
                store.head.seal()
                with pytest.raises(StorageError, match="died"):
                    await flush_and_compact(maintenance)
                monkeypatch.delenv(failpoints.VARIABLE)
                await append(store, 4)
                store.head.seal()
                await flush_and_compact(maintenance)
                assert Diary(folder / "diary").allows(content(store)) == []
                await maintenance.close()  # what is being removed goes by way of tmp
                assert not list((folder / "data" / "tmp").iterdir())
        finally:
            await helper.stop()

    async def flush_and_compact(maintenance: Maintenance) -> None:
        while await maintenance.flush(1 << 20) or await maintenance.compact():
            pass

    async def append(store: Store, number: int) -> None:
        await write(store, folder, [(key, NOON + number, number) for key in KEYS])

    async def fill(store: Store, maintenance: Maintenance, times: int) -> None:
        for number in range(times):
            await append(store, number)
            store.head.seal()
            await maintenance.flush(1 << 20)

    asyncio.run(killed())
    asyncio.run(look(folder))
    assert check_folder(folder / "data") == []


async def write(store: Store, folder: Path, rows: list[Row]) -> None:
    diary = Diary(folder / "diary")
    diary.tries(rows)
    await store.append(batch_of(store, rows))
    diary.acknowledged()


def test_a_writer_that_is_refused_hears_why_and_readers_go_on(folder: Path) -> None:
    async def refused() -> None:
        async with opened(folder / "data", ManualClock(NOON)) as (store, maintenance):
            await write(store, folder, [(KEYS[0], NOON, 1)])
            row = [(KEYS[0], NOON + 1, 2)]
            with failpoints.armed("fs.sync", "eio"):
                with pytest.raises(SyncFailed) as first:
                    await store.append(batch_of(store, row))
                with pytest.raises(ReadOnly, match="Input/output error") as second:
                    await store.append(batch_of(store, row))
                assert {first.value.status, second.value.status} == {503}
                await maintenance.check_disk()
                assert store.refusal is not None, "a probe that fails leaves it read-only"
                assert content(store) == {(KEYS[0], NOON): 1}
            await maintenance.check_disk()
            await write(store, folder, row)
            assert content(store) == {(KEYS[0], NOON): 1, (KEYS[0], NOON + 1): 2}

    asyncio.run(refused())
    asyncio.run(look(folder))


def test_who_does_not_wait_is_told_what_became_of_a_batch(folder: Path) -> None:
    rows: list[list[Row]] = [[(KEYS[0], NOON + number, number)] for number in range(4)]

    async def told() -> None:
        async with opened(folder / "data", ManualClock(NOON)) as (store, maintenance):
            answers: asyncio.Queue[tuple[StreamgaugeError | None, int]] = asyncio.Queue()

            def begin(number: int) -> bool:
                def done(error: StreamgaugeError | None) -> None:
                    answers.put_nowait((error, len(content(store))))
                    raise RuntimeError("a bug of who is told")

                return store.begin(batch_of(store, rows[number]), done)

            assert begin(0)
            assert begin(1)
            assert answers.empty()
            assert [await answers.get() for _ in range(2)] == [(None, 2), (None, 2)]
            with failpoints.armed("fs.sync", "eio"):
                assert begin(2)
                error, stored = await answers.get()
                assert (type(error), stored) == (SyncFailed, 2)
                assert not begin(3), "the store is read-only"
            await maintenance.check_disk()
            assert begin(2)
            assert await answers.get() == (None, 3)
            many = MAX_COMMIT_ROWS + 1
            batch = SampleBatch(np.zeros(many, np.uint32), np.full(many, NOON), np.zeros(many))
            for each in (batch, SampleBatch(*(column[:0] for column in (batch.series, batch.times, batch.values)))):
                assert not store.begin(each, lambda _: None), "it makes no commit"
            store.close_before(NOON + 100)
            assert not begin(3), "its day takes no more samples"
            await store.close()
            assert not begin(3)

    asyncio.run(told())


def test_what_is_queued_behind_a_failure_fails_with_it_and_tasks_are_kept(folder: Path) -> None:
    async def behind() -> None:
        async with opened(folder / "data", ManualClock(NOON)) as (store, maintenance):
            held = folder / "held"
            held.touch()
            with failpoints.armed("fs.sync", f"hang:{held}", 1, 1), failpoints.armed("log.append.after_sync", "eio"):
                appends = [store.append(batch_of(store, [(KEYS[0], NOON + number, 1)])) for number in range(3)]
                first = asyncio.ensure_future(appends[0])
                await asyncio.sleep(0)
                task = store.committer.run(lambda: None)
                others = [asyncio.ensure_future(append) for append in appends[1:]]
                await asyncio.sleep(0)
                held.unlink()
                outcomes = await asyncio.gather(first, *others, return_exceptions=True)
                assert all(isinstance(outcome, StorageError) for outcome in outcomes), outcomes
                await task
            assert content(store) == {}
            await maintenance.check_disk()
            await store.append(batch_of(store, [(KEYS[0], NOON, 1)]))

    asyncio.run(behind())


def test_a_commit_that_could_not_be_shown_is_not_followed_by_others(folder: Path) -> None:
    """It is on disk and not in memory: only a start puts that right."""

    async def broken(monkeypatch: pytest.MonkeyPatch) -> None:
        async with opened(folder / "data", ManualClock(NOON)) as (store, maintenance):
            await write(store, folder, [(KEYS[0], NOON, 1)])
            monkeypatch.setattr(store.head, "append", fails)
            with pytest.raises(StorageError, match="after a restart"):
                await write(store, folder, [(KEYS[0], NOON + 1, 2)])
            await maintenance.check_disk()
            with pytest.raises(ReadOnly, match="after a restart"):
                await store.append(batch_of(store, [(KEYS[0], NOON + 2, 3)]))

    def fails(commit: int, batch: SampleBatch) -> None:
        raise MemoryError

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(broken(monkeypatch))
    asyncio.run(look(folder))


def test_writers_are_refused_when_memory_is_full_and_cannot_be_written(folder: Path) -> None:
    """Not held until their clients give up, and not for longer than the disk fails."""

    async def full() -> None:
        clock = ManualClock(NOON)
        settings = StoreSettings(retention=0, min_free_bytes=0, head_samples=131_072)
        runner = InThread()
        with acquire(folder / "data"):
            async with open_store(folder / "data", settings, clock, runner, runner, Progress()) as (store, maintenance):
                tasks = asyncio.ensure_future(maintenance.run())
                with failpoints.armed("flush.before_blocks", "eio"):
                    series = store.resolve(KEYS[0])
                    with pytest.raises(ReadOnly, match="memory is full"):
                        await fill(store, series, clock)
                held = store.head.rows
                assert held >= 2 * settings.head_samples
                while store.head.rows == held or store.refusal is not None:
                    await clock.advance(5.0)
                    await asyncio.wait([tasks], timeout=0.01)
                await store.append(many(series, 41))
                tasks.cancel()
                await asyncio.wait([tasks])

    async def fill(store: Store, series: int, clock: ManualClock) -> None:
        for number in range(40):
            writing = asyncio.ensure_future(store.append(many(series, number)))
            while not writing.done():
                await asyncio.wait([writing], timeout=0.05)
                await clock.advance(2.0)
            await writing

    def many(series: int, number: int) -> SampleBatch:
        times = NOON + np.arange(16_000) + number * 16_000
        return SampleBatch(np.full(16_000, series, np.uint32), times, np.zeros(16_000))

    asyncio.run(full())
    asyncio.run(reopen(folder))  # a flush may have been on its way
    assert check_folder(folder / "data") == []


async def reopen(folder: Path) -> None:
    async with opened(folder / "data", ManualClock(NOON)) as (store, _):
        assert store.state.damage == []
        assert set(content(store).values()) == {0}

"""What a start makes of a folder that is not as a server left it: parts missing, damaged, or a disk without room."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from streamgauge.clock import ManualClock
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.labels import key_of
from streamgauge.model.source import NoMeter
from streamgauge.store import names
from streamgauge.store.failpoints import armed
from streamgauge.store.helper import InThread
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.opening import Progress, open_store
from streamgauge.store.recovery import recover
from streamgauge.store.snapshot import StoreSnapshot
from streamgauge.store.store import MAX_METADATA_BYTES, Store, StoreSettings

NOW = 1_700_000_000_000
EVER = (-(1 << 63), (1 << 63) - 1)
FOREVER = StoreSettings(retention=0)

Rows = Iterable[tuple[bytes, int, float]]


@asynccontextmanager
async def opened(data: Path, settings: StoreSettings = FOREVER) -> AsyncIterator[tuple[Store, Maintenance]]:
    runner = InThread()
    async with open_store(data, settings, ManualClock(NOW), runner, runner, Progress()) as both:
        yield both


def batch(store: Store, rows: Rows) -> SampleBatch:
    listed = list(rows)
    return SampleBatch(
        np.array([store.resolve(key) for key, _, _ in listed], np.uint32),
        np.array([time for _, time, _ in listed], np.int64),
        np.array([value for _, _, value in listed], np.float64),
    )


def content(snapshot: StoreSnapshot) -> dict[tuple[bytes, int], float]:
    selection = snapshot.open({}).select([], *EVER, NoMeter())
    offsets, times, values = selection.samples.offsets, selection.samples.times, selection.samples.values
    return {
        (key_of(selection.labels.labels(row)), int(times[at])): float(values[at])
        for row in range(len(selection.labels))
        for at in range(offsets[row], offsets[row + 1])
    }


def seen(store: Store) -> dict[tuple[bytes, int], float]:
    snapshot, release = store.snapshot()
    try:
        return content(snapshot)
    finally:
        release()


async def flush(store: Store, maintenance: Maintenance) -> None:
    store.head.seal()
    while await maintenance.flush(1 << 30):
        pass


def up(job: str) -> bytes:
    return key_of({"__name__": "up", "job": job})


def test_metadata_outlives_a_restart_and_the_flush_after_it(tmp_path: Path) -> None:
    entry = Metadata("up", "gauge", "Whether it is up.")

    async def first() -> None:
        async with opened(tmp_path) as (store, _):
            await store.append(batch(store, [(up("a"), NOW, 1.0)]), [entry])

    async def second() -> None:
        async with opened(tmp_path) as (store, maintenance):
            assert store.metadata() == [entry]
            await flush(store, maintenance)

    async def third() -> None:
        async with opened(tmp_path) as (store, _):
            assert store.metadata() == [entry]

    asyncio.run(first())
    asyncio.run(second())
    asyncio.run(third())


def test_what_metadata_leaves_open_stays_as_it_was(tmp_path: Path) -> None:
    """A metric that is scraped from its target, and from a federation, which knows neither types nor help."""
    full = Metadata("a", "counter", "Some text.", "seconds")

    async def first() -> None:
        async with opened(tmp_path) as (store, _):
            await store.append(batch(store, []), [Metadata("a", "unknown", ""), Metadata("b", "unknown", "")])
            await asyncio.gather(
                store.append(batch(store, []), [full]),
                store.append(batch(store, []), [Metadata("a", "unknown", ""), Metadata("b", "gauge", "")]),
                store.append(batch(store, []), [Metadata("a", "unknown", "Other text.")]),
            )
            assert store.metadata() == after

    async def second() -> None:
        async with opened(tmp_path) as (store, _):
            assert store.metadata() == after

    after = [Metadata("a", "counter", "Other text.", "seconds"), Metadata("b", "gauge", "")]
    asyncio.run(first())
    asyncio.run(second())


def test_each_series_is_read_once_however_many_blocks_have_it(tmp_path: Path) -> None:
    """A million series of 200 bytes in a dozen blocks would else be 2.4 GB, more than one Arrow array may hold."""

    async def life() -> None:
        async with opened(tmp_path) as (store, maintenance):
            for round_ in range(4):
                await store.append(batch(store, [(up(job), NOW + round_, 1.0) for job in "abc"]))
                await flush(store, maintenance)
            await store.append(batch(store, [(up(job), NOW + 9, 1.0) for job in "abcd"]))

    asyncio.run(life())
    recovered = recover(tmp_path)
    recovered.catalog.close()
    assert sorted(recovered.series.keys.to_pylist()) == sorted(up(job) for job in "abcd")


@pytest.mark.parametrize("gone", ["removed", "damaged"])
def test_starts_on_a_full_disk_without_a_block(tmp_path: Path, gone: str) -> None:
    async def first() -> None:
        async with opened(tmp_path) as (store, maintenance):
            await store.append(batch(store, [(up("a"), NOW, 1.0)]))
            await flush(store, maintenance)
            await store.append(batch(store, [(up("b"), NOW, 2.0)]))

    async def second() -> None:
        with armed("catalog.apply.before_begin", "enospc"):
            async with opened(tmp_path) as (store, _):
                assert seen(store) == {(up("b"), NOW): 2.0}
                assert len(store.state.damage) == 1

    asyncio.run(first())
    (block,) = names.blocks_dir(tmp_path).iterdir()
    if gone == "removed":
        shutil.rmtree(block)
    else:
        names.series_file(block).write_bytes(b"no parquet")
    asyncio.run(second())


def test_metadata_is_bounded_in_bytes(tmp_path: Path) -> None:
    """It stays in memory and in the catalog for ever, and a metric's name may be 16 KB."""
    large = [Metadata(f"{number:05}" + "m" * 16_000, "gauge", "h" * 3000) for number in range(5000)]

    async def life() -> None:
        async with opened(tmp_path) as (store, _):
            for start in range(0, len(large), 500):
                await store.append(batch(store, []), large[start : start + 500])
            kept = store.metadata()
            size = sum(len(entry.metric) + len(entry.help) for entry in kept)
            assert MAX_METADATA_BYTES // 2 < size <= MAX_METADATA_BYTES
            await store.append(batch(store, []), [Metadata(kept[0].metric, "counter", "known ones may change")])
            assert store.metadata()[0].type == "counter"

    asyncio.run(life())


def test_progress_knows_beforehand_how_many_samples_it_will_read(tmp_path: Path) -> None:
    rows = 300_000

    async def first() -> None:
        async with opened(tmp_path) as (store, maintenance):
            await store.append(batch(store, [(up("a"), NOW - 1, 1.0)]))
            await flush(store, maintenance)  # what blocks hold does not count
            series = np.full(rows, store.resolve(up("a")), np.uint32)
            await store.append(SampleBatch(series, NOW + np.arange(rows), np.zeros(rows)))

    async def second() -> None:
        progress, seen, runner = Progress(), set[tuple[int, int]](), InThread()

        async def watch() -> None:
            while True:
                seen.add((progress.current, progress.total))
                await asyncio.sleep(0)

        watching = asyncio.ensure_future(watch())
        async with open_store(tmp_path, FOREVER, ManualClock(NOW), runner, runner, progress) as (store, _):
            watching.cancel()
            assert store.head.rows == rows
        assert {total for _, total in seen} == {0, rows}
        assert any(0 < current < rows for current, _ in seen)
        assert (progress.current, progress.total) == (rows, rows)

    asyncio.run(first())
    asyncio.run(second())

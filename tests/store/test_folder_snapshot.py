"""A snapshot is a data folder with everything that was acknowledged before it, and stays what it is."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import Corrupt, StorageError
from streamgauge.model.batch import Metadata
from streamgauge.store import names
from streamgauge.store.catalog import SqliteCatalog
from streamgauge.store.failpoints import armed
from streamgauge.store.folder_snapshot import FolderSnapshots, without_log, write_snapshot
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.offline import open_folder
from streamgauge.store.ports import DAY_MS, CatalogState, Tombstone
from streamgauge.store.resolutions import Tier
from streamgauge.store.store import Store
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import KEYS, NOON, Row, Rows, batch_of, content, content_of, opened

UP = Metadata("up", "gauge", "Whether it is up.")


def rows(number: int) -> list[Row]:
    return [(key, NOON + number * 1000, number) for key in KEYS]


async def written(store: Store, maintenance: Maintenance) -> None:
    """One block and something in the log."""
    await store.append(batch_of(store, rows(1)), [UP])
    await maintenance.flush_all()
    await store.append(batch_of(store, rows(2)), [replace(UP, help="Whether it still is.")])


def folder_content(data: Path) -> Rows:
    assert check_folder(data) == []
    with open_folder(data) as (snapshot, damage):
        assert damage == []
        return content_of(snapshot)


async def in_snapshot(data: Path, skip_head: bool = False, while_taken: Callable[[], None] = lambda: None) -> Path:
    async with opened(data, ManualClock(NOON)) as (store, maintenance):
        await written(store, maintenance)
        while_taken()
        snapshots = FolderSnapshots(maintenance, data, ManualClock(NOON))
        return names.snapshot_dir(data, await snapshots.take(skip_head))


def test_it_has_aggregates(tmp_path: Path) -> None:
    async def live() -> Path:
        clock, data = ManualClock(NOON), tmp_path / "data"
        async with opened(data, clock, DAY_MS, tiers=(Tier(300_000, 90 * DAY_MS),)) as (store, maintenance):
            await written(store, maintenance)
            await clock.advance(2 * DAY_MS / 1000)
            await store.append(batch_of(store, [(key, clock.now_ms(), 3) for key in KEYS]))
            while await maintenance.expire():
                await maintenance.close()
            snapshots = FolderSnapshots(maintenance, data, clock)
            return names.snapshot_dir(data, await snapshots.take())

    snapshot = asyncio.run(live())
    assert len(list(snapshot.glob(f"blocks/*/{names.AGGREGATES}"))) == 1
    assert folder_content(snapshot) == folder_content(tmp_path / "data")


def test_it_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    snapshot = asyncio.run(in_snapshot(tmp_path / "data"))
    assert snapshot.name.startswith("20231114T120000Z-")
    assert folder_content(snapshot).keys() == {(key, time) for number in (1, 2) for key, time, _ in rows(number)}
    assert [path.name for path in sorted(snapshot.iterdir())] == ["blocks", "catalog.sqlite"]
    assert not list(names.tmp_dir(tmp_path / "data").iterdir())


def test_without_the_head_it_has_what_is_in_blocks(tmp_path: Path) -> None:
    snapshot = asyncio.run(in_snapshot(tmp_path / "data", skip_head=True))
    assert folder_content(snapshot) == {(key, time): bits for key, time, bits in rows(1)}


def test_it_can_be_served_and_written_to_and_the_store_does_not_notice(tmp_path: Path) -> None:
    async def serve(snapshot: Path) -> None:
        async with opened(snapshot, ManualClock(NOON)) as (store, maintenance):
            assert store.metadata() == [replace(UP, help="Whether it still is.")]
            await store.append(batch_of(store, rows(3)))
            await maintenance.compact_fully()
            assert len(content(store)) == 3 * len(KEYS)

    snapshot = asyncio.run(in_snapshot(tmp_path / "data"))
    before = folder_content(tmp_path / "data")
    asyncio.run(serve(snapshot))
    assert folder_content(tmp_path / "data") == before


def test_it_stays_when_the_store_goes_on(tmp_path: Path) -> None:
    async def go_on(data: Path) -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            await store.append(batch_of(store, [(key, NOON + 1000, 99) for key in KEYS]))
            await maintenance.compact_fully()
            await maintenance.close()

    data = tmp_path / "data"
    snapshot = asyncio.run(in_snapshot(data))
    before = folder_content(snapshot)
    asyncio.run(go_on(data))
    assert folder_content(snapshot) == before


def test_its_files_are_second_names_where_there_are_hard_links_and_else_copies(tmp_path: Path) -> None:
    def links(snapshot: Path) -> set[int]:
        return {os.stat(file).st_nlink for file in snapshot.glob("blocks/*/*")}

    assert links(asyncio.run(in_snapshot(tmp_path / "linked"))) == {2}
    with armed("fs.link", "eperm"):
        copied = asyncio.run(in_snapshot(tmp_path / "copied"))
    assert links(copied) == {1}
    assert folder_content(copied).keys() == {(key, time) for number in (1, 2) for key, time, _ in rows(number)}


@pytest.mark.parametrize(
    "point", ["fs.link", "snapshot.after_block", "snapshot.before_rename", "snapshot.after_rename"]
)
def test_a_full_disk_leaves_nothing(tmp_path: Path, point: str) -> None:
    async def life(data: Path) -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            await written(store, maintenance)
            snapshots = FolderSnapshots(maintenance, data, ManualClock(NOON))
            with armed(point, "enospc"), pytest.raises(StorageError):
                await snapshots.take()
            assert not list(names.tmp_dir(data).iterdir())
            assert not list(names.snapshots_dir(data).glob("*"))
            assert await snapshots.take()
            await maintenance.compact_fully()
            await maintenance.close()
            assert len(list(names.blocks_dir(data).iterdir())) == 1, "no block is held any more"

    asyncio.run(life(tmp_path / "data"))


def test_blocks_stay_until_it_is_made_whoever_goes_away(tmp_path: Path) -> None:
    """Its request is cancelled and its blocks are compacted away while a thread makes it."""
    reached, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        assert go_on.wait(60)

    async def life(data: Path) -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            await written(store, maintenance)
            snapshots = FolderSnapshots(maintenance, data, ManualClock(NOON))
            with armed("snapshot.after_block", wait, 1, 1):
                taking = asyncio.ensure_future(snapshots.take())
                await asyncio.to_thread(reached.wait, 60)
                await maintenance.compact_fully()
                await maintenance.close()
                assert len(list(names.blocks_dir(data).iterdir())) == 3
                taking.cancel()
                go_on.set()
                await snapshots.close()
            await asyncio.sleep(0)
            await maintenance.close()
            assert len(list(names.blocks_dir(data).iterdir())) == 1

    asyncio.run(life(tmp_path / "data"))
    (snapshot,) = names.snapshots_dir(tmp_path / "data").iterdir()
    assert len(folder_content(snapshot)) == 2 * len(KEYS)


def test_what_is_written_to_it_is_none_of_what_was_deleted_before(tmp_path: Path) -> None:
    deletion = Tombstone(1, 40, NOON, NOON + 1, np.array([7], "<u4").tobytes())
    state = without_log(CatalogState("0" * 32, 12, 9, tombstones=(deletion,)), [UP])
    assert (state.flushed_through, state.next_series_id, state.tombstones) == (40, 9, (deletion,))
    write_snapshot(tmp_path, "name", state)
    catalog = SqliteCatalog.open(names.snapshot_dir(tmp_path, "name"))
    assert catalog.load() == state
    catalog.close()


def test_a_block_that_somebody_removed_is_named(tmp_path: Path) -> None:
    async def life(data: Path) -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            await written(store, maintenance)
            (block,) = names.blocks_dir(data).iterdir()
            names.series_file(block).unlink()
            with pytest.raises(Corrupt, match=f"block {block.name} is not whole"):
                await FolderSnapshots(maintenance, data, ManualClock(NOON)).take()

    asyncio.run(life(tmp_path / "data"))

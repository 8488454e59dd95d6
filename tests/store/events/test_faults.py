"""Damage to what holds events costs what was damaged, and no more; nothing is there twice."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import Corrupt
from streamgauge.event_rules import conditions
from streamgauge.store import names
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.store import Store
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import NOON, opened
from streamgauge.testing.stored_events import events_of, payloads, streams_of


def blocks_of(data: Path) -> list[Path]:
    """In order of commits."""
    return sorted(
        names.event_blocks_dir(data).iterdir(), key=lambda path: int(path.name.split("-")[1].partition("to")[0])
    )


async def write(store: Store, maintenance: Maintenance, count: int, first: int = 1) -> None:
    """A block for each event."""
    stream, _ = store.events.resume_stream("mine", "http", "{}")
    for index in range(first, first + count):
        await store.events.append_events(stream, index, payloads(f'{{"n":{index}}}'))
        await maintenance.events.flush(everything=True)


def flip_in_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[40] ^= 0x10
    path.write_bytes(content)


def numbers(store: Store) -> list[int]:
    return sorted(index for _, index in events_of(store))


@pytest.mark.parametrize("by", ["query", "deletion", "compaction"])
def test_a_damaged_block_is_taken_out_of_service_and_the_rest_is_served(data: Path, by: str) -> None:
    left = [1, 3, 4] if by == "compaction" else [1, 3]

    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            maintenance.events.conditions = conditions()
            await write(store, maintenance, 3 + (by == "compaction"))  # three are merged by nobody
            damaged = blocks_of(data)[1]
            flip_in_the_middle(names.events_file(damaged))
            running = asyncio.ensure_future(maintenance.run())
            if by == "query":
                with pytest.raises(Corrupt) as met:
                    events_of(store)
                maintenance.damaged.suspect(met.value.message)
            elif by == "deletion":
                with pytest.raises(Corrupt):
                    await maintenance.events.delete("payload.n = 3")
            while not store.state.damage:
                await asyncio.wait([running], timeout=0.01)
            running.cancel()
            await asyncio.wait([running])
            assert "1 events are not served" in store.state.damage[0].what
            assert numbers(store) == left

    async def again() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            assert numbers(store) == left
            await maintenance.compact_fully()
            assert numbers(store) == left

    asyncio.run(main())
    asyncio.run(again())


@pytest.mark.parametrize("lost", [False, True])
def test_what_a_query_has_kept_of_merged_blocks_is_not_there_again(data: Path, lost: bool) -> None:
    """A block that was merged and stays for a query, while what it was merged into is merged in turn; then a kill."""

    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            await write(store, maintenance, 2)
            _, release = store.snapshot()
            assert await maintenance.events.compact(idle=True)
            await write(store, maintenance, 1, 3)
            assert await maintenance.events.compact(idle=True)
            await maintenance.close()
            assert len(blocks_of(data)) == 3
            shutil.copytree(data, data.with_name("killed"), ignore=shutil.ignore_patterns("lock"))
            release()

    async def look() -> None:
        async with opened(data.with_name("killed"), ManualClock(NOON)) as (store, _):
            assert numbers(store) == [1, 2, 3]
            assert store.state.damage == []

    asyncio.run(main())
    if lost:
        names.catalog_file(data.with_name("killed")).unlink()
    asyncio.run(look())
    assert len(blocks_of(data.with_name("killed"))) == 1
    assert check_folder(data.with_name("killed")) == []


def test_streams_without_events_outlive_a_flush_and_a_merge(data: Path) -> None:
    async def main() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            maintenance.events.conditions = conditions()
            for _ in range(2):
                await store.events.append_events(store.events.open_stream("http", "{}"), 1, payloads())
                await maintenance.events.flush(everything=True)
                assert store.events.head.rows == 0
            assert await maintenance.events.delete("payload.n = 4") == 0
            assert [row["stream_id"] for row in streams_of(store)] == [1, 2]
            assert await maintenance.events.compact(idle=True)
            assert [row["stream_id"] for row in streams_of(store)] == [1, 2]
            assert events_of(store) == {}
            assert await maintenance.check() == []

    asyncio.run(main())

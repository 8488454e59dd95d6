"""Delivery from a real store: through flushes and merges nothing comes twice, and what retention takes is counted."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from streamgauge.clock import ManualClock
from streamgauge.forward.delivery import LAST_RETRY_SECONDS, PAUSE_SECONDS, Delivery
from streamgauge.forward.destination import SqliteTarget
from streamgauge.forward.open import open_outlet
from streamgauge.stats import Stats
from streamgauge.store.events.feed import StoreFeed
from streamgauge.store.names import destination_file
from streamgauge.store.store import Store
from streamgauge.testing.lives import NOON, opened
from streamgauge.testing.until import until
from streamgauge.wire.jsonb import json_of

FOREVER = 60.0
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def delivered(file: Path) -> list[int]:
    with closing(sqlite3.connect(file)) as connection:
        return [json.loads(json_of(row[0])) for row in connection.execute("SELECT payload FROM events ORDER BY rowid")]


async def store_events(store: Store, numbers: range) -> None:
    stream = store.events.open_stream("http", "{}")
    await store.events.append_events(stream, 1, pa.array([b"%d" % number for number in numbers], pa.binary()))


def delivery_of(store: Store, data: Path, file: Path, clock: ManualClock, stats: Stats) -> Delivery:
    outlet = partial(open_outlet, SqliteTarget(file))
    return Delivery("out", StoreFeed(store), outlet, destination_file(data, "out"), clock, stats)


def count(stats: Stats, line: str) -> float:
    lines = stats.exposition().decode().splitlines()
    return sum(float(each.rpartition(" ")[2]) for each in lines if each.startswith(line))


async def reach(clock: ManualClock, stats: Stats, events: int) -> None:
    """Let time pass until so many events are delivered."""
    async with asyncio.timeout(FOREVER):
        while count(stats, "streamgauge_destination_events_total") < events:
            await clock.advance(PAUSE_SECONDS)
            await asyncio.sleep(0)


async def test_flushes_and_merges_deliver_nothing_twice(tmp_path: Path) -> None:
    data, file, clock, stats = tmp_path / "data", tmp_path / "out.db", ManualClock(NOON), Stats()
    async with opened(data, clock) as (store, maintenance):
        delivery = delivery_of(store, data, file, clock, stats)
        remove = store.listen(delivery)
        work = asyncio.create_task(delivery.run())
        for turn in range(4):
            await store_events(store, range(10 * turn, 10 * turn + 10))
            await reach(clock, stats, 11 * turn + 10)
            await maintenance.events.flush(everything=True)
            await store_events(store, range(100 + turn, 101 + turn))
            await maintenance.events.compact_fully()
        await reach(clock, stats, 44)
        remove()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    assert sorted(delivered(file)) == [*range(40), *range(100, 104)]


async def test_what_retention_took_is_counted(tmp_path: Path) -> None:
    data, file, clock, stats = tmp_path / "data", tmp_path / "none" / "out.db", ManualClock(NOON), Stats()
    async with opened(data, clock) as (store, maintenance):
        delivery = delivery_of(store, data, file, clock, stats)
        store.listen(delivery)
        work = asyncio.create_task(delivery.run())
        await store_events(store, range(7))
        await maintenance.events.flush(everything=True)
        for _ in range(2):
            failures = count(stats, "streamgauge_destination_failures_total")
            await clock.advance(LAST_RETRY_SECONDS)
            await until(lambda failures=failures: count(stats, "streamgauge_destination_failures_total") > failures)
        assert await maintenance.events.expire(clock.now_ns() + 1)
        file.parent.mkdir()
        await store_events(store, range(7, 9))
        await clock.advance(LAST_RETRY_SECONDS)
        await until(lambda: count(stats, "streamgauge_destination_events_total") == 2)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    assert delivered(file) == [7, 8]
    assert count(stats, "streamgauge_destination_left_out_total") == 7

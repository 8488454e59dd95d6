"""Destinations start and stop at a reload, whatever the others do."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from streamgauge.clock import ManualClock
from streamgauge.forward.deliveries import Deliveries
from streamgauge.forward.destination import EventDestination, SqliteTarget
from streamgauge.model.event_feed import EventPiece
from streamgauge.stats import Stats
from streamgauge.store.events.feed import StoreFeed
from streamgauge.store.names import destination_file
from streamgauge.testing.lives import NOON, opened
from streamgauge.testing.readings import reading
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class CountingFeed(StoreFeed):
    """Counts snapshots that are held."""

    held = 0

    def take(self) -> tuple[int, Sequence[EventPiece], Callable[[], None]]:
        commit, pieces, release = super().take()
        self.held += 1

        def released() -> None:
            self.held -= 1
            release()

        return commit, pieces, released


def works(name: str) -> bool:
    return any(thread.name.startswith(f"deliver-{name}") for thread in threading.enumerate())


async def test_nobody_waits_for_a_destination_that_ends(tmp_path: Path) -> None:
    data, clock, stats = tmp_path / "data", ManualClock(NOON), Stats()
    a, b = (EventDestination(name, SqliteTarget(tmp_path / f"{name}.db")) for name in ("a", "b"))
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE other (x)")
        async with opened(data, clock) as (store, _):
            stream = store.events.open_stream("http", "{}")
            await store.events.append_events(stream, 1, pa.array([b"1"], pa.binary()))
            feed = CountingFeed(store)
            deliveries = Deliveries(feed, store.listen, partial(destination_file, data), clock, stats)
            work = asyncio.create_task(deliveries.run())
            other.execute("BEGIN EXCLUSIVE")
            deliveries.apply([a])
            await until(lambda: works("a"))
            deliveries.apply([b])
            await until(lambda: reading(stats, "streamgauge_destination_events_total", destination="b") == 1)
            assert works("a"), "it waits for its file yet"
            work.cancel()
            await until(lambda: not works("b"))
            assert feed.held == 1, "what it reads stays until it has ended, though it is cancelled twice"
            other.execute("ROLLBACK")
            await asyncio.gather(work, return_exceptions=True)
            assert feed.held == 0
            await until(lambda: not works("a") and not works("b"))

"""Whose a stream is, and where it goes on, outlives restarts, flushes and catalogs that are lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgauge.clock import ManualClock
from streamgauge.model.event_source import EventRange
from streamgauge.model.owned import owned_headers, owned_name
from streamgauge.model.view import View
from streamgauge.query.restricted import restricted
from streamgauge.store import names
from streamgauge.store.store import Store
from streamgauge.testing.lives import NOON, opened
from streamgauge.testing.stored_events import payloads

pytestmark = pytest.mark.anyio
OWNERS = ("a", "b", None)


async def write(store: Store, owner: str | None, count: int) -> None:
    """So many more events of the owner's stream `log`, and one of a stream without a name."""
    headers = '{"x":"1"}' if owner is None else owned_headers(owner, '{"x":"1"}')
    name = "log" if owner is None else owned_name(owner, "log")
    stream, first = store.events.resume_stream(name, "http", headers)
    await store.events.append_events(stream, first, payloads(*[f'"{owner}"'] * count))
    await store.events.append_events(store.events.open_stream("http", headers), 1, payloads(f'"{owner}"'))


def seen(store: Store, owner: str) -> tuple[set[str], list[int]]:
    """The payloads that an owner sees, and how many events each of their streams has."""
    snapshot, release = store.snapshot()
    try:
        events = restricted(snapshot.open({}), View((("team", owner),), owner)).events()
        batches = list(events.payloads(EventRange()))
        texts = {text for batch in batches for text in batch.column(3).to_pylist()}
        streams = [number for batch in batches for number in batch.column(0).to_pylist()]
        known = events.streams()["stream_id"].to_pylist()
        return texts, sorted(streams.count(number) for number in known)
    finally:
        release()


async def test_owners_outlive_restarts_and_flushes(data: Path) -> None:
    clock = ManualClock(NOON)
    for turn in range(3):
        if turn == 2:
            names.catalog_file(data).unlink()  # is rebuilt from what blocks and log say
        async with opened(data, clock) as (store, maintenance):
            for number, owner in enumerate(OWNERS, 1):
                await write(store, owner, number)
                if turn == 1:
                    await maintenance.events.flush(everything=True)
            for number, owner in enumerate(("a", "b"), 1):
                assert seen(store, owner) == ({f'"{owner}"'}, [1] * (turn + 1) + [number * (turn + 1)])
            following = [
                store.events.resume_stream("log" if owner is None else owned_name(owner, "log"), "http", "{}")[1]
                for owner in OWNERS
            ]
            assert following == [number * (turn + 1) + 1 for number in (1, 2, 3)]

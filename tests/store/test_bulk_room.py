"""Bulk imports wait before live writers do."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import ReadOnly
from streamgauge.model.labels import key_of
from streamgauge.testing.lives import NOON, batch_of, opened

ROWS = [(key_of({"__name__": "m", "n": str(number)}), NOON, 0) for number in range(100)]


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_head_that_fills_up_holds_imports_and_lets_live_writes_through(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, maintenance):
            await store.bulk_room()
            store.settings = replace(store.settings, head_samples=60)
            await store.append(batch_of(store, ROWS))  # more than the 90 that imports may fill
            waiting = asyncio.ensure_future(store.bulk_room())
            await turns()
            assert not waiting.done()
            await store.append(batch_of(store, [(ROWS[0][0], NOON + 1, 0)]))
            assert not waiting.done()
            await maintenance.flush_all()
            await waiting

    asyncio.run(work())


def test_whoever_waits_is_told_that_the_disk_is_full(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, _):
            store.settings = replace(store.settings, head_samples=60)
            await store.append(batch_of(store, ROWS))
            waiting = asyncio.ensure_future(store.bulk_room())
            await turns()
            store.refuse(ReadOnly("the disk is full"))
            with pytest.raises(ReadOnly, match="the disk is full"):
                await waiting
            with pytest.raises(ReadOnly):
                await store.bulk_room()

    asyncio.run(work())

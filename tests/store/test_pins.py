"""A pin keeps blocks for a program that copies them, for as long as it says that it is at work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from streamgauge.backup.folder import FolderPlace
from streamgauge.backup.place import manifest
from streamgauge.backup.restore import restore
from streamgauge.backup.write import BackupWriter, Options
from streamgauge.clock import ManualClock
from streamgauge.commands.progress import Bar
from streamgauge.errors import NotFound, Overloaded
from streamgauge.store import names
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.pins import LOOK_SECONDS, MAX_PINS, PIN_SECONDS, Pins
from streamgauge.store.ports import DAY_MS
from streamgauge.store.store import Store
from streamgauge.testing.lives import KEYS, NOON, batch_of, content, opened


def on_disk(data: Path) -> int:
    return len(list(names.blocks_dir(data).iterdir()))


def living(data: Path, life: Callable[[Store, Maintenance, Pins, ManualClock], Awaitable[None]]) -> None:
    """With two blocks that a compaction would replace."""

    async def run() -> None:
        clock = ManualClock(NOON)
        async with opened(data, clock) as (store, maintenance):
            for number in range(2):
                await store.append(batch_of(store, [(key, NOON + number, 1) for key in KEYS]))
                await maintenance.flush_all()
            await life(store, maintenance, Pins(maintenance, clock), clock)

    asyncio.run(run())


def test_blocks_stay_while_pinned(tmp_path: Path) -> None:
    async def life(store: Store, maintenance: Maintenance, pins: Pins, clock: ManualClock) -> None:
        await store.append(batch_of(store, [(KEYS[0], NOON + 5, 1)]))
        pin, state = await pins.take()
        assert len(state.blocks) == 3, "what was acknowledged is in blocks by then"
        await maintenance.compact_fully()
        await maintenance.close()
        assert on_disk(tmp_path) == 4
        pins.end(pin)
        await maintenance.close()
        assert on_disk(tmp_path) == 1
        pins.end(pin)
        with pytest.raises(NotFound):
            pins.renew(pin)

    living(tmp_path, life)


def test_what_comes_while_blocks_are_pinned_is_compacted_all_the_same(tmp_path: Path) -> None:
    async def life(store: Store, maintenance: Maintenance, pins: Pins, clock: ManualClock) -> None:
        for number in range(2, 18):
            await store.append(batch_of(store, [(key, NOON + number, 1) for key in KEYS]))
            await maintenance.flush_all()
            if number == 3:
                pin, _ = await pins.take()
            await maintenance.compact()
        assert len(store.state.blocks) < 8, "but for the one whose parents are pinned"
        pins.end(pin)
        assert len(content(store)) == 18 * len(KEYS)

    living(tmp_path, life)


def test_a_backup_has_what_retention_drops_while_it_is_made(tmp_path: Path) -> None:
    async def life(store: Store, maintenance: Maintenance, pins: Pins, clock: ManualClock) -> None:
        aside = tmp_path.with_name("aside")
        await store.append(batch_of(store, [(KEYS[0], NOON - DAY_MS, 1)]))
        before = {*content(store), (KEYS[0], NOON - DAY_MS)}
        pin, state = await pins.take()
        store.keep_for(0, retention_bytes=1)
        assert await maintenance.expire()
        await maintenance.close()
        assert content(store).keys() < before
        place = FolderPlace(aside / "dest")
        made = BackupWriter(tmp_path, state, place, Options(copy=True), Bar("copying", 2, clock, shown=False)).run(NOON)
        pins.end(pin)
        restore(place, manifest(place, made.name), aside / "back", Bar("", 1, clock, shown=False))
        async with opened(aside / "back", clock) as (restored, _):
            assert content(restored).keys() == before

    living(tmp_path, life)


def test_a_pin_that_nobody_renews_ends(tmp_path: Path) -> None:
    async def life(store: Store, maintenance: Maintenance, pins: Pins, clock: ManualClock) -> None:
        running = asyncio.ensure_future(pins.run())
        pin, _ = await pins.take()
        await asyncio.sleep(0)
        await clock.advance(PIN_SECONDS - 2 * LOOK_SECONDS)
        pins.renew(pin)
        await clock.advance(PIN_SECONDS - 2 * LOOK_SECONDS)
        assert pins.held == 1
        await clock.advance(3 * LOOK_SECONDS)
        assert (pins.held, pins.expired) == (0, 1)
        with pytest.raises(NotFound, match="not renewed for a minute"):
            pins.renew(pin)
        running.cancel()

    living(tmp_path, life)


def test_there_are_not_many(tmp_path: Path) -> None:
    async def life(store: Store, maintenance: Maintenance, pins: Pins, clock: ManualClock) -> None:
        taken = await asyncio.gather(*(pins.take() for _ in range(MAX_PINS)))
        with pytest.raises(Overloaded, match=f"{MAX_PINS} copies"):
            await pins.take()
        assert pins.refused == 1
        pins.end(taken[0][0])
        await pins.take()

    living(tmp_path, life)

"""A data folder that no server holds: read it as it is, check it, delete from it, or compact it all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from streamgauge.clock import SystemClock
from streamgauge.errors import Corrupt, FolderInUse
from streamgauge.model.source import Matcher
from streamgauge.store.catalog import CatalogLost
from streamgauge.store.damage import Damage
from streamgauge.store.deletion import Deleted
from streamgauge.store.events.head import EventHead
from streamgauge.store.events.ports import Conditions, EventBlockMeta
from streamgauge.store.events.snapshot import EventSnapshot
from streamgauge.store.folder import require_data_folder
from streamgauge.store.head import Head
from streamgauge.store.helper import InThread
from streamgauge.store.index import SeriesIndex
from streamgauge.store.leases import Leases
from streamgauge.store.lock import acquire, holder
from streamgauge.store.log import SegmentLog
from streamgauge.store.opening import Progress, open_store
from streamgauge.store.ports import BlockMeta, CatalogState
from streamgauge.store.recovery import in_blocks_through, recover, replay
from streamgauge.store.resolutions import thinned_through
from streamgauge.store.shm import SharedMemory
from streamgauge.store.snapshot import StoreSnapshot, by_priority
from streamgauge.store.store import StoreSettings

UNBOUNDED = 1 << 62


@contextmanager
def open_folder(data: Path) -> Iterator[tuple[StoreSnapshot, list[Damage]]]:
    """The state of a folder, and what in it cannot be read. Nothing is written; the log is replayed in memory.

    Raises FolderInUse when a server holds it, NotFound when it is no data folder, and StorageError.
    """
    require_data_folder(data)
    held = holder(data)
    if held is not None:
        raise FolderInUse(f"{data} is held by the server at {held.address} (process {held.pid}); ask it")
    try:
        recovered = recover(data, writable=False)
    except CatalogLost as lost:
        raise Corrupt(
            f"{lost.message}. The catalog is rebuilt when a server starts on {data}, or by compacting it"
        ) from None
    memory = SharedMemory(recovered.state.store_id)
    leases = Leases()
    index = SeriesIndex(memory, leases, next_id=recovered.next_series_id, budget=UNBOUNDED)
    pool = ThreadPoolExecutor(1, "head")
    head = Head(memory, leases, pool, max_rows=UNBOUNDED)
    event_head = EventHead(memory, leases, max_rows=UNBOUNDED, max_bytes=UNBOUNDED)
    try:
        left_out = index.restore(recovered.series.ids, recovered.series.keys)
        state = recovered.state
        log = SegmentLog(data, state.store_id, in_blocks_through(state), writable=False)
        last, closed = state.flushed_through, thinned_through(state.blocks)
        for commit in replay(log, state, recovered.series, left_out, closed, recovered.damage):
            last = commit.number
            if commit.events:
                event_head.append(last, commit.events)
            else:
                head.append(last, commit.samples)
        blocks, events = by_priority(state.blocks), EventSnapshot(state.events.blocks, event_head.snapshot())
        snapshot = StoreSnapshot(data, last, blocks, head.snapshot(), index.snapshot(), state.tombstones, events)
        yield snapshot, recovered.damage
    finally:
        head.close()
        pool.shutdown()
        memory.close()
        recovered.catalog.close()


async def delete_in_folder(
    data: Path, matcher_sets: Sequence[Sequence[Matcher]], start: int, end: int
) -> tuple[Deleted, int]:
    """Delete the samples with start <= time <= end (ms) of series that match any of the sets, and take them off the
    disk: what was meant, and how many samples that were.

    Raises BadInput, FolderInUse and StorageError. Killed half way, the deletion has happened or not; if it has, the
    next start carries it out.
    """
    settings = StoreSettings(retention=0, event_retention=0, index_bytes=UNBOUNDED)
    runner = InThread()
    with acquire(data):
        async with open_store(data, settings, SystemClock(), runner, runner, Progress()) as (_, maintenance):
            deleted = await maintenance.delete(matcher_sets, start, end)
            await maintenance.clean_tombstones()
            return deleted, maintenance.deletions.counts.samples_deleted


async def delete_events_in_folder(data: Path, condition: str, conditions: Conditions) -> int:
    """Take the events that fulfil a condition off the disk; how many there were.

    Raises BadInput, FolderInUse and StorageError. Killed half way, some are gone."""
    settings = StoreSettings(retention=0, event_retention=0, index_bytes=UNBOUNDED)
    runner = InThread()
    with acquire(data):
        async with open_store(data, settings, SystemClock(), runner, runner, Progress()) as (_, maintenance):
            maintenance.events.conditions = conditions
            return await maintenance.events.delete(condition)


@dataclass(frozen=True, slots=True)
class AllBlocks:
    samples: tuple[BlockMeta, ...]
    events: tuple[EventBlockMeta, ...]


async def compact_folder(data: Path) -> tuple[AllBlocks, AllBlocks]:
    """Write the log into blocks, carry out deletions and compact everything; the blocks before and after.

    Raises FolderInUse and StorageError. Killed half way, it leaves a folder as good as before.
    """
    settings = StoreSettings(retention=0, event_retention=0, index_bytes=UNBOUNDED)
    runner = InThread()
    with acquire(data):
        async with open_store(data, settings, SystemClock(), runner, runner, Progress()) as (store, maintenance):
            before = AllBlocks(store.state.blocks, store.events.state.blocks)
            await maintenance.compact_fully()
            return before, AllBlocks(store.state.blocks, store.events.state.blocks)


@contextmanager
def pinned_folder(data: Path) -> Iterator[CatalogState]:
    """A folder that is held for the length of a `with`, and what is in it. Everything is in blocks by then, and no
    block goes meanwhile.

    Raises FolderInUse and StorageError.
    """
    settings = StoreSettings(retention=0, event_retention=0, index_bytes=UNBOUNDED)
    runner = InThread()

    async def opened(stack: AsyncExitStack) -> CatalogState:
        store = open_store(data, settings, SystemClock(), runner, runner, Progress())
        _, maintenance = await stack.enter_async_context(store)
        state, release = await maintenance.pin()
        stack.callback(release)
        return state

    # Between two runs of the loop Ctrl-C ends what the `with` does at once.
    with acquire(data), asyncio.Runner() as loop:
        stack = AsyncExitStack()
        try:
            yield loop.run(opened(stack))
        finally:
            loop.run(stack.aclose())

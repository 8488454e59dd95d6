"""Opening a data folder for writing: recover what is on disk, restore the index, replay the log into the head."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from streamgauge.clock import Clock
from streamgauge.errors import StorageError
from streamgauge.store import fs
from streamgauge.store.events.head import EventHead
from streamgauge.store.events.store import EventState
from streamgauge.store.head import Head
from streamgauge.store.helper import Runner
from streamgauge.store.index import SeriesIndex
from streamgauge.store.leases import Leases
from streamgauge.store.log import SegmentLog
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.recovery import Recovered, Replayed, in_blocks_through, recover, replay
from streamgauge.store.shm import SharedMemory
from streamgauge.store.shm_names import remove_leftovers
from streamgauge.store.snapshot import by_priority
from streamgauge.store.store import Store, StoreSettings, StoreState

LOG = logging.getLogger(__name__)

_ROWS_BETWEEN_BREATHS = 200_000
"""Rows replayed before the event loop may answer a health check: about 10 ms."""
_ROWS_FOR_AN_EVENT = 8
"""What one takes, as so many samples."""


REPLAYED_SAMPLES = 16_000_000
"""Samples of the log in memory, 320 MB, before some are flushed while the others are still read: a start that flushes
takes several times as long."""


@dataclass(slots=True)
class Progress:
    """How far the opening is. Read by whoever answers whether the server is ready."""

    current: int = 0  # samples of the log that are in memory again, or left out
    total: int = 0  # of how many; 0 until the folder has been looked through


@asynccontextmanager
async def open_store(
    data: Path, settings: StoreSettings, clock: Clock, flusher: Runner, compacter: Runner, progress: Progress
) -> AsyncIterator[tuple[Store, Maintenance]]:
    """Open a folder whose lock is held; everything acknowledged is visible inside the `with`. Its end leaves nothing
    unwritten.

    `flusher` and `compacter` are where blocks are written; they may be the same. Raises FormatTooNew and StorageError.
    """
    fs.make_dir(data)
    recovered = await asyncio.to_thread(recover, data)
    progress.total = recovered.samples
    remove_leftovers(recovered.state.store_id)
    memory = SharedMemory(recovered.state.store_id)
    leases = Leases()
    index = SeriesIndex(
        memory, leases, next_id=recovered.next_series_id, budget=settings.index_bytes, limits=settings.limits
    )
    pool = ThreadPoolExecutor(1, "head")
    head = Head(memory, leases, pool, max_rows=2 * settings.head_samples)
    event_head = EventHead(memory, leases, max_rows=2 * settings.head_events, max_bytes=2 * settings.head_event_bytes)
    try:
        left_out = await asyncio.to_thread(index.restore, recovered.series.ids, recovered.series.keys)
        log = SegmentLog(data, recovered.state.store_id, in_blocks_through(recovered.state))
        state = _state(recovered)
        store = Store(data, settings, clock, leases, index, head, event_head, log, state)
        maintenance = Maintenance(store, recovered.catalog, recovered.blocks, log, flusher, compacter, clock)
        commits = replay(log, recovered.state, recovered.series, left_out, store.closed_through, state.damage)
        await _replay(store, commits, maintenance, progress)
        store.committer.start(max(log.last_commit, state.commit) + 1)
        for damage in state.damage:
            LOG.warning("%s: %s", damage.path, damage.what)
        try:
            yield store, maintenance
        finally:
            await maintenance.close()
            await store.close()
            recovered.catalog.close()
            log.close()
    finally:
        head.close()
        pool.shutdown()
        memory.close()


def _state(recovered: Recovered) -> StoreState:
    # A catalog that was rebuilt knows of no flush, and the log may be gone as well: numbers must not go back even so.
    events = recovered.state.events
    commits = [meta.last_commit for meta in recovered.state.blocks] + [meta.last_commit for meta in events.blocks]
    last = max(commits, default=0)
    return StoreState(
        blocks=by_priority(recovered.state.blocks),
        flushed_through=recovered.state.flushed_through,
        commit=max(recovered.state.flushed_through, events.flushed_through, last),
        watermarks=recovered.watermarks,
        metadata=recovered.metadata,
        unsaved_metadata=recovered.unsaved_metadata,
        damage=recovered.damage,
        tombstones=recovered.state.tombstones,
        events=EventState(
            tuple(sorted(events.blocks, key=lambda meta: (meta.first_commit, meta.last_commit))),
            events.flushed_through,
            max([events.next_stream, *(meta.max_stream + 1 for meta in events.blocks)]),
            events.named,
        ),
    )


async def _replay(store: Store, commits: Iterable[Replayed], maintenance: Maintenance, progress: Progress) -> None:
    """Fill the head with what blocks do not hold, flushing on the way when it is more than the head may hold."""
    since_breath = 0
    for commit in commits:
        if commit.events:
            store.events.replayed(commit.number, commit.events)
            since_breath += sum(
                _ROWS_FOR_AN_EVENT * len(batch) + batch.payloads.nbytes // 20 for batch in commit.events
            )
        else:
            store.take_in(commit.number, commit.samples, commit.samples.span())
            since_breath += len(commit.samples)
        store.state.commit = max(store.state.commit, commit.number)
        progress.current += commit.read
        if since_breath > _ROWS_BETWEEN_BREATHS:
            since_breath = 0
            await asyncio.sleep(0)
            await _make_room(store, maintenance)
    store.work.set()


async def _make_room(store: Store, maintenance: Maintenance) -> None:
    bound = max(REPLAYED_SAMPLES, 2 * store.settings.head_samples)
    try:
        while store.head.rows > bound and await maintenance.flush(store.head.rows // 2):
            pass
        while store.events.head.full and await maintenance.events.flush():
            pass
    except StorageError as error:  # a full disk, most likely: what is stored can be read all the same
        LOG.error("a flush failed and will be tried again; the log keeps everything: %s", error.message)

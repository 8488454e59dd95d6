"""Snapshots on disk: data folders of their own, made of second names for the files of blocks, which never change."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from streamgauge.clock import Clock
from streamgauge.errors import Corrupt, StorageError
from streamgauge.model.batch import Metadata
from streamgauge.store import fs, names
from streamgauge.store.catalog import SqliteCatalog
from streamgauge.store.failpoints import hit
from streamgauge.store.ports import CatalogState
from streamgauge.store.token_file import read_raw, write_raw
from streamgauge.store.tombstones import series_of


class Pinning(Protocol):
    async def pin(self, skip_head: bool = False) -> tuple[CatalogState, Callable[[], None]]:
        """See `maintenance.Maintenance`."""


def without_log(state: CatalogState, metadata: Sequence[Metadata]) -> CatalogState:
    """The state of a folder that has the same blocks, and no log.

    Its next commit comes after those of its blocks and after each deletion: what will be written there is none of what
    was deleted here.
    """
    commits = (
        *(meta.last_commit for meta in state.blocks),
        *(meta.last_commit for meta in state.events.blocks),
        *(each.commit for each in state.tombstones),
        state.events.flushed_through,
    )
    deleted = (int(series_of(each).max(initial=0)) + 1 for each in state.tombstones)
    through = max((state.flushed_through, *commits))
    return replace(
        state,
        next_series_id=max((state.next_series_id, *deleted)),
        flushed_through=through,
        events=replace(state.events, flushed_through=through),
        metadata=tuple(sorted((entry.metric, entry.type, entry.help, entry.unit) for entry in metadata)),
    )


def write_snapshot(data: Path, name: str, state: CatalogState) -> None:
    """Make `snapshots/<name>` of what `state` says; its blocks must not go meanwhile.

    It appears whole, and durable, or not at all; a kill leaves it in `tmp`, which the next start empties. Where the
    file system has no hard links its files are copies. Raises StorageError.
    """
    draft, final = names.snapshot_draft(data, name), names.snapshot_dir(data, name)
    try:
        fs.make_dir(draft)
        for meta in state.blocks:
            _take_block(
                names.block_dir(data, meta.id), names.block_dir(draft, meta.id), names.block_files(meta.resolution)
            )
            hit("snapshot.after_block")
        for events in state.events.blocks:
            _take_block(
                names.event_block_dir(data, events.id),
                names.event_block_dir(draft, events.id),
                names.event_block_files(),
            )
            hit("snapshot.after_block")
        if (tokens := read_raw(data)) is not None:
            write_raw(draft, tokens)
        SqliteCatalog.create(draft, state).close()
        fs.make_dir(final.parent)
        hit("snapshot.before_rename")
        fs.replace(draft, final)
        hit("snapshot.after_rename")
    except BaseException:
        # A publication whose last sync failed has given it its name, where nobody would know that it may go again.
        with suppress(StorageError):
            fs.remove_tree(draft if draft.exists() else final, names.tmp_dir(data))
        raise


def _take_block(block: Path, target: Path, files: Sequence[str]) -> None:
    fs.make_dir(target)
    try:
        for name in files:
            if not fs.link(block / name, target / name):
                fs.copy_durably(block / name, target / name)
    except FileNotFoundError as error:
        raise Corrupt(f"block {block.name} is not whole: {error.filename} is missing") from None
    fs.sync_dir(target)


class FolderSnapshots:
    """Makes snapshots of an open store, one at a time. Used on the event loop."""

    def __init__(self, store: Pinning, data: Path, clock: Clock) -> None:
        self._store = store
        self._data = data
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._running: set[asyncio.Future[None]] = set()

    async def take(self, skip_head: bool = False) -> str:
        """Make one; its name. Durable when this returns. Raises StorageError and Overloaded."""
        async with self._one_at_a_time:
            state, release = await self._store.pin(skip_head)
            name = snapshot_name(self._clock.now_ms())
            work = asyncio.get_running_loop().run_in_executor(None, write_snapshot, self._data, name, state)
            self._running.add(work)
            work.add_done_callback(partial(self._ended, release))
            await asyncio.shield(work)  # a thread cannot be stopped: it keeps its lease until it ends by itself
            return name

    def _ended(self, release: Callable[[], None], work: asyncio.Future[None]) -> None:
        self._running.discard(work)
        release()

    async def close(self) -> None:
        """Wait for what is being made."""
        await asyncio.gather(*self._running, return_exceptions=True)


def snapshot_name(now: int) -> str:
    """As Prometheus names them: the time, and digits that make the name unique."""
    return f"{datetime.fromtimestamp(now / 1000, UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}"

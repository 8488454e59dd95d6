"""Changing the set of blocks: the catalog first, in one transaction, then one step on the event loop, and files go when
nobody reads them any more. A kill at any point leaves one of two states: the old set, or the new one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from streamgauge.errors import StorageError
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.ports import BlockMeta
from streamgauge.store.store import Store

LOG = logging.getLogger(__name__)

Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True)
class Change:
    """apply: changes the catalog; called in a thread, and again after a failure, so doing it twice must be as once.
    visible: makes the change visible; called on the event loop once it is durable.
    written: the new blocks. They are removed if the change comes to nothing.
    needs: ids of blocks without which it comes to nothing.
    still: whether it may be made; asked on the event loop when its turn has come. False: it comes to nothing.
    """

    apply: Callable[[], None]
    visible: Callable[[], None]
    written: Sequence[BlockMeta] = ()
    needs: Sequence[str] = ()
    still: Callable[[], bool] = lambda: True


class Changes:
    """One change at a time. Used on the event loop.

    After an error nobody knows whether the catalog on the disk has the change or not. Such a change is neither
    forgotten nor made anew under other names: it is finished before anything else may change.
    """

    def __init__(self, store: Store, blocks: LocalBlocks) -> None:
        self._store = store
        self._blocks = blocks
        self._one_at_a_time = asyncio.Lock()
        self._unsettled: Change | None = None
        self._doomed: set[str] = set()  # no longer part of the store, and not yet removed
        self._removals: set[asyncio.Future[None]] = set()

    async def settle(self) -> None:
        """Finish a change that failed before. Raises StorageError."""
        async with self._one_at_a_time:
            await self._settle()

    async def make(self, change: Change) -> bool:
        """Make a change. False when a block that it needs went meanwhile, or it may not be made any more.

        Raises StorageError; if the change had begun, the next call or `settle` finishes it.
        """
        async with self._one_at_a_time:
            try:
                await self._settle()
            except Exception:
                await self._discard(change.written)
                raise
            live = {meta.id for meta in self._store.state.blocks}
            if not live.issuperset(change.needs) or not change.still():
                await self._discard(change.written)
                return False
            self._unsettled = change
            await self._settle()
            return True

    async def between(self, look: Callable[[], Seen]) -> Seen:
        """Call `look` on the event loop while no change is under way and none is half done: store and catalog then say
        the same. Raises StorageError."""
        async with self._one_at_a_time:
            await self._settle()
            return look()

    async def _settle(self) -> None:
        change = self._unsettled
        if change is not None:
            await asyncio.to_thread(change.apply)
            change.visible()
            self._unsettled = None

    async def _discard(self, written: Iterable[BlockMeta]) -> None:
        for meta in written:
            with suppress(StorageError):  # the next start removes it
                await asyncio.to_thread(self._blocks.remove, meta.id)

    def dispose(self, ids: Iterable[str], removed: Callable[[], None]) -> None:
        """Remove blocks as soon as no query reads them. `removed` is called in a thread after each."""
        for block_id in ids:
            self.dispose_with(block_id, partial(self._remove, block_id, removed))

    def dispose_with(self, block_id: str, remove: Callable[[], None]) -> None:
        """Call `remove` in a thread as soon as no query reads the block."""
        self._doomed.add(block_id)
        self._store.leases.retire(block_id, partial(self._remove_soon, block_id, remove))

    def is_doomed(self, ids: Iterable[str]) -> bool:
        """Whether one of the blocks has been disposed of and is still on the disk."""
        return not self._doomed.isdisjoint(ids)

    def _remove_soon(self, block_id: str, remove: Callable[[], None]) -> None:
        task = asyncio.get_running_loop().run_in_executor(None, remove)
        self._removals.add(task)
        task.add_done_callback(partial(self._removed, block_id))

    def _remove(self, block_id: str, removed: Callable[[], None]) -> None:
        self._blocks.remove(block_id)
        removed()

    def _removed(self, block_id: str, task: asyncio.Future[None]) -> None:
        self._removals.discard(task)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            LOG.error("block %s is no longer needed and could not be removed; the next start does: %s", block_id, error)
            return
        self._doomed.discard(block_id)

    async def removals(self) -> None:
        """Wait for the removals that have begun."""
        await asyncio.gather(*self._removals, return_exceptions=True)

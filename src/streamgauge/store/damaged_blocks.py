"""Blocks that are no longer what was written: found, set aside, and the rest is served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from streamgauge.errors import Corrupt
from streamgauge.store.changes import Change
from streamgauge.store.events.ports import EventBlockMeta
from streamgauge.store.jobs import find_damage
from streamgauge.store.ports import BlockMeta, CatalogChange
from streamgauge.store.reported import reported
from streamgauge.store.upkeep import Upkeep

LOG = logging.getLogger(__name__)


class DamagedBlocks:
    """Looks for them in one store. Used on the event loop. of_events: does the same for blocks of events."""

    def __init__(self, upkeep: Upkeep, of_events: Callable[[Sequence[EventBlockMeta]], Awaitable[int]]) -> None:
        self._store = upkeep.store
        self._catalog = upkeep.catalog
        self._blocks = upkeep.blocks
        self._changes = upkeep.changes
        self._runner = upkeep.compacter
        self._of_events = of_events
        self._suspicions: set[str] = set()  # errors that name blocks
        self._suspected = asyncio.Event()

    async def run(self) -> None:
        """Look at what is suspected, until cancelled."""
        while True:
            await self._suspected.wait()
            self._suspected.clear()
            said, self._suspicions = " ".join(self._suspicions), set()
            try:
                await self.look(said)
            except Exception as error:
                reported(error, "damaged data could not be looked for")

    def suspect(self, said: str) -> None:
        """Somebody met damaged data and said this: have the block that it names looked at, soon."""
        self._suspicions.add(said)
        self._suspected.set()

    @contextmanager
    def suspecting(self) -> Iterator[None]:
        """Have the block looked at that an error from inside the `with` names."""
        try:
            yield
        except Corrupt as error:
            self.suspect(error.message)
            raise

    async def look(self, said: str = "") -> int:
        """Read blocks back and take out of service those that are not what was written. How many there were.

        `said` is what somebody met: where it names blocks only those are read, otherwise all are.
        """
        live, events = self._store.state.blocks, self._store.events.state.blocks
        metas = tuple(meta for meta in live if meta.id in said)
        of_events = tuple(meta for meta in events if meta.id in said)
        if not metas and not of_events:
            metas, of_events = live, events
        release = self._store.leases.acquire([meta.id for meta in metas])
        try:
            damaged = await self._runner.run(find_damage, self._store.data, metas)
        finally:
            release()
        for meta, why in damaged:
            await self._take_out(meta, why)
        return len(damaged) + (await self._of_events(of_events) if of_events else 0)

    async def _take_out(self, meta: BlockMeta, why: str) -> None:
        """Set a damaged block aside and serve the rest."""
        change = CatalogChange(remove=[meta.id])
        out = Change(lambda: self._catalog.apply(change), lambda: self._store.swap((), [meta.id]), needs=[meta.id])
        if not await self._changes.make(out):
            return
        damage = await asyncio.to_thread(
            self._blocks.set_aside, meta.id, f"{why}; {meta.samples} samples are not served"
        )
        self._store.state.damage.append(damage)
        LOG.error("%s: %s", damage.path, damage.what)

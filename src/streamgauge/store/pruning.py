"""Series that have no data any more: how they leave the index while others write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from streamgauge.errors import Overloaded
from streamgauge.model.arrays import UInt32s
from streamgauge.store.id_set import IdSet
from streamgauge.store.index import SeriesIndex


class Pruner:
    """Everything is called on the event loop's thread.

    A series that was looked up before it was pruned must not bring back half of itself, and one that is written to
    while the blocks are being looked through must stay.
    """

    def __init__(self, index: SeriesIndex) -> None:
        self._index = index
        self._written: IdSet | None = None  # during the watch; None outside it

    def admit(self, ids: UInt32s) -> None:
        """Note that a batch is on its way to the disk. Raises Overloaded when it has a series that was pruned."""
        if np.count_nonzero(self._index.living(ids)) < len(ids):
            raise Overloaded("a series of this batch was just dropped by retention; send it again", retry_after=1)
        self.note(ids)

    def note(self, ids: UInt32s) -> None:
        """The same of a batch whose series were looked up in the present generation of the index."""
        if self._written is not None:
            self._written.add(ids)

    @contextmanager
    def watching(self, on_their_way: Iterable[UInt32s]) -> Iterator[None]:
        """Note which series are written to meanwhile, beginning with those that are on their way already."""
        self._written = IdSet()
        for ids in on_their_way:
            self._written.add(ids)
        try:
            yield
        finally:
            self._written = None

    async def prune(self, dead: UInt32s) -> int:
        """While `watching`: forget the series of `dead`, which neither blocks nor the head held after the watch had
        begun, except those that have been written to. How many there were. Raises Overloaded without shared memory."""
        assert self._written is not None
        before = self._index.forgotten
        for _ in self._index.prune(dead, self._written):
            await asyncio.sleep(0)
        pruned = self._index.forgotten - before
        if self._index.wants_rebuild:
            for _ in self._index.rebuild():
                await asyncio.sleep(0)
        return pruned

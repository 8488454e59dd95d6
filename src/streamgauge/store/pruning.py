"""Series that have no data any more: which they are, and how they leave the index while others write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from streamgauge.errors import Overloaded
from streamgauge.model.arrays import Bools, UInt32s
from streamgauge.store.index import SeriesIndex

_SERIES_AT_ONCE = 4096
"""Pruned in one turn of the event loop, in about 5 ms."""


class Pruner:
    """Everything is called on the event loop's thread.

    A series that was looked up before it was pruned must not bring back half of itself, and one that is written to
    while the blocks are being looked through must stay.
    """

    def __init__(self, index: SeriesIndex) -> None:
        self._index = index
        self._forgotten: Bools = np.zeros(0, np.bool_)  # by series id: pruned, and not to be written to
        self._written: Bools | None = None  # by series id: written to during the watch; None outside it

    def admit(self, ids: UInt32s) -> None:
        """Note that a batch is on its way to the disk. Raises Overloaded when it has a series that was pruned."""
        known = ids[ids < len(self._forgotten)]
        if len(known) and self._forgotten[known].any():
            raise Overloaded("a series of this batch was just dropped by retention; send it again", retry_after=1)
        if self._written is not None:
            self._written[ids[ids < len(self._written)]] = True

    @contextmanager
    def watching(self, on_their_way: Iterable[UInt32s]) -> Iterator[None]:
        """Note which series are written to meanwhile, beginning with those that are on their way already."""
        self._written = np.zeros(self._index.next_id, np.bool_)
        for ids in on_their_way:
            self._written[ids[ids < len(self._written)]] = True
        try:
            yield
        finally:
            self._written = None

    async def prune(self, with_data: Sequence[UInt32s]) -> int:
        """While `watching`: forget every series that has not been written to and is not in `with_data`, which is what
        blocks and head held when the watch had begun. How many there were. Raises Overloaded without shared memory."""
        assert self._written is not None
        grown = np.zeros(len(self._written), np.bool_)
        grown[: len(self._forgotten)] = self._forgotten
        self._forgotten = grown
        dead = ~grown
        for ids in with_data:
            dead[ids[ids < len(dead)]] = False
        pruned = 0
        candidates = np.flatnonzero(dead).astype(np.uint32)
        for start in range(0, len(candidates), _SERIES_AT_ONCE):
            ids = candidates[start : start + _SERIES_AT_ONCE]
            ids = ids[~self._written[ids]]
            try:
                self._index.prune(ids)
            finally:
                self._forgotten[ids] = ~self._index.living(ids)
            pruned += len(ids)
            await asyncio.sleep(0)
        if self._index.wants_rebuild:
            for _ in self._index.rebuild():
                await asyncio.sleep(0)
        return pruned

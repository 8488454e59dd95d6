"""What a query sees of a block of events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from streamgauge.model.event_source import Column, EventRange, Node
from streamgauge.store.block_cache import BlockCache
from streamgauge.store.events.block_reader import EventBlockReader
from streamgauge.store.events.ports import EventBlockMeta


@dataclass(frozen=True, slots=True)
class BlockPart:
    """A block that is open no longer than the cache wants; `event_source.EventPart`.

    A query over thousands of blocks has a part for each, and may read several by turns: what the cache has closed
    between two row groups is opened anew.
    """

    meta: EventBlockMeta
    blocks: BlockCache[EventBlockReader]

    @property
    def rows(self) -> int:
        return self.meta.events

    @property
    def node(self) -> Node:
        return self._reader().node

    def schema(self, columns: Sequence[Column]) -> pa.Schema:
        return self._reader().schema(columns)

    def read(self, columns: Sequence[Column], wanted: EventRange) -> Iterator[pa.RecordBatch]:
        for group in self._reader().groups(wanted):
            yield from self._reader().selected(columns, group, wanted.one_of)

    def payloads(self, wanted: EventRange) -> Iterator[pa.RecordBatch]:
        """Whole events, with the columns EVENT_COLUMNS: a batch for each row group that may have such events."""
        for group in self._reader().groups(wanted):
            yield self._reader().events(group)

    def _reader(self) -> EventBlockReader:
        return self.blocks.reader(self.meta.id)

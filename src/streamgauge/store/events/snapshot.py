"""One consistent state of all events: described by the server, read wherever the query runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import pyarrow as pa

from streamgauge.model.event_source import (
    STREAM_COLUMNS,
    Column,
    EventPart,
    EventRange,
    Fixed,
    Node,
    Rest,
    batch_of_events,
)
from streamgauge.model.events import Stream
from streamgauge.store.events.block_reader import EventBlockReader
from streamgauge.store.events.ports import EventBlockMeta
from streamgauge.store.events.runs import EventHeadSnapshot, EventRun, events_of, streams_of


@dataclass(frozen=True, slots=True)
class EventSnapshot:
    """Picklable. Valid as long as a lease on `names` is held."""

    blocks: tuple[EventBlockMeta, ...] = ()  # in order of commit
    head: EventHeadSnapshot = field(default_factory=EventHeadSnapshot)

    @property
    def names(self) -> tuple[str, ...]:
        return (*(meta.id for meta in self.blocks), *self.head.names)


@dataclass(frozen=True)
class HeadPart:
    """The events of the head, which are in no columns yet. Implements model.event_source.EventPart."""

    runs: tuple[EventRun, ...]

    @cached_property
    def rows(self) -> int:
        return sum(int(np.count_nonzero(run.attached().indexes[: run.rows])) for run in self.runs)

    @property
    def node(self) -> Node:
        return Node()

    def read(self, columns: Sequence[Column], wanted: EventRange) -> Iterator[pa.RecordBatch]:
        names = list(map(str, range(len(columns))))
        for run in self.runs:
            rows = events_of(run.attached().rows(run))
            if not len(rows):
                continue
            if rows.times.min() > wanted.last_received or rows.times.max() < wanted.first_received:
                continue
            given = {
                Fixed.STREAM: lambda rows=rows: pa.array(rows.streams),
                Fixed.INDEX: lambda rows=rows: pa.array(rows.indexes),
                Fixed.RECEIVED: lambda rows=rows: pa.array(rows.times),
                Rest(()): lambda rows=rows: rows.payloads.cast(pa.large_string()),
            }
            yield pa.RecordBatch.from_arrays([given[column]() for column in columns], names)


class EventBlockCache:
    """Keeps the blocks that were read last open, for one process. Not for several threads."""

    def __init__(self, open_block: Callable[[str], EventBlockReader]) -> None:
        self._open = open_block
        self._readers: dict[str, EventBlockReader] = {}

    def reader(self, block_id: str) -> EventBlockReader:
        """An open block, which the cache closes."""
        if block_id not in self._readers:
            self._readers[block_id] = self._open(block_id)
        return self._readers[block_id]

    def keep_only(self, block_ids: Collection[str]) -> None:
        """Close every block that is not among `block_ids`: the others may be about to be removed."""
        for block_id in self._readers.keys() - set(block_ids):
            self._readers.pop(block_id).close()


class StoredEvents:
    """Implements model.event_source.EventSource. `open_block` gives a reader that somebody else closes."""

    def __init__(self, snapshot: EventSnapshot, open_block: Callable[[str], EventBlockReader]) -> None:
        self._snapshot = snapshot
        self._open_block = open_block

    def parts(self) -> list[EventPart]:
        blocks: list[EventPart] = [self._open_block(meta.id) for meta in self._snapshot.blocks]
        return [*blocks, HeadPart(self._snapshot.head.runs)] if self._snapshot.head.runs else blocks

    def payloads(self, wanted: EventRange) -> Iterator[pa.RecordBatch]:
        for meta in self._snapshot.blocks:
            if meta.min_time <= wanted.last_received and meta.max_time >= wanted.first_received:
                yield from map(partial(_inside, wanted), self._open_block(meta.id).payloads(wanted))
        head = HeadPart(self._snapshot.head.runs)
        for batch in head.read([*Fixed, Rest(())], wanted):
            yield _inside(wanted, batch_of_events(*batch.columns))

    def streams(self) -> pa.Table:
        found = {stream.id: stream for stream in head_streams(self._snapshot.head.runs)}
        for meta in self._snapshot.blocks:
            found.update((stream.id, stream) for stream in self._open_block(meta.id).streams())
        return streams_table([found[number] for number in sorted(found)])


def _inside(wanted: EventRange, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows that are wanted."""
    streams, received = batch.column(0).to_numpy(), batch.column(2).to_numpy()
    rows = (received >= wanted.first_received) & (received <= wanted.last_received)
    rows &= (streams >= wanted.first_stream) & (streams <= wanted.last_stream)
    return batch if rows.all() else batch.filter(pa.array(rows))


def head_streams(runs: Sequence[EventRun]) -> list[Stream]:
    """The streams that the runs define, each once."""
    found: dict[int, Stream] = {}
    for run in runs:
        found.update((stream.id, stream) for stream in streams_of(run.attached().rows(run)))
    return list(found.values())


def streams_table(streams: Sequence[Stream]) -> pa.Table:
    """As model.event_source.EventSource gives them."""
    rows = [(stream.id, stream.started, stream.transport, stream.headers, stream.name) for stream in streams]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(STREAM_COLUMNS)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, STREAM_COLUMNS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=STREAM_COLUMNS)

"""One consistent state of all events: described by the server, read wherever the query runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import pyarrow as pa

from streamgauge.model.event_source import (
    EVERY_EVENT,
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
from streamgauge.store.block_cache import BlockCache
from streamgauge.store.events.block_part import BlockPart
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

    def schema(self, columns: Sequence[Column]) -> pa.Schema:
        return pa.schema(
            [
                pa.field(str(number), pa.int64() if isinstance(column, Fixed) else pa.large_string())
                for number, column in enumerate(columns)
            ]
        )

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


class StoredEvents:
    """Implements model.event_source.EventSource. `blocks` belongs to somebody else."""

    def __init__(self, snapshot: EventSnapshot, blocks: BlockCache[EventBlockReader]) -> None:
        self._snapshot = snapshot
        self._blocks = blocks

    def parts(self, wanted: EventRange = EVERY_EVENT) -> list[EventPart]:
        blocks: list[EventPart] = [*self._block_parts(wanted)]
        return [*blocks, HeadPart(self._snapshot.head.runs)] if self._snapshot.head.runs else blocks

    def extents(self) -> list[tuple[int, int]]:
        blocks = [(meta.min_time, meta.events) for meta in self._snapshot.blocks]
        runs = [run for run in self._snapshot.head.runs if run.rows]
        return blocks + [(int(run.attached().times[0]), run.rows) for run in runs]

    def payloads(self, wanted: EventRange) -> Iterator[pa.RecordBatch]:
        for part in self._block_parts(wanted):
            yield from map(partial(_inside, wanted), part.payloads(wanted))
        head = HeadPart(self._snapshot.head.runs)
        for batch in head.read([*Fixed, Rest(())], wanted):
            yield _inside(wanted, batch_of_events(*batch.columns))

    def streams(self) -> pa.Table:
        found = {stream.id: stream for stream in head_streams(self._snapshot.head.runs)}
        for meta in self._snapshot.blocks:
            found.update((stream.id, stream) for stream in self._blocks.reader(meta.id).streams())
        return streams_table([found[number] for number in sorted(found)])

    def _block_parts(self, wanted: EventRange) -> Iterator[BlockPart]:
        for meta in self._snapshot.blocks:
            if (
                meta.min_time <= wanted.last_received
                and meta.max_time >= wanted.first_received
                and meta.min_stream <= wanted.last_stream
                and meta.max_stream >= wanted.first_stream
            ):
                yield BlockPart(meta, self._blocks)


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

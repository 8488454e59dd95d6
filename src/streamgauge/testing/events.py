"""Events in memory: as the head has them, and as blocks do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """Implements model.event_source.EventPart. What was asked of it, and how many rows it gave, is for tests to look
    at."""

    node: Node
    columns: Mapping[Column, pa.Array[Any]]
    read_columns: list[Column] = field(default_factory=list)
    read_rows: list[int] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.columns[Fixed.INDEX])

    def schema(self, columns: Sequence[Column]) -> pa.Schema:
        return pa.schema([pa.field(str(number), self.columns[column].type) for number, column in enumerate(columns)])

    def read(self, columns: Sequence[Column], wanted: EventRange) -> Iterator[pa.RecordBatch]:
        self.read_columns.extend(columns)
        received, stream = (self.columns[fixed].to_numpy() for fixed in (Fixed.RECEIVED, Fixed.STREAM))
        inside = (received >= wanted.first_received) & (received <= wanted.last_received)
        inside &= (stream >= wanted.first_stream) & (stream <= wanted.last_stream)
        arrays = [self.columns[column].filter(inside) for column in columns]
        self.read_rows.append(int(inside.sum()))
        names = [str(number) for number in range(len(columns))]
        yield pa.record_batch(arrays, names)


@dataclass(frozen=True, slots=True)
class MemoryEvents:
    """Implements model.event_source.EventSource."""

    all_parts: Sequence[EventPart] = ()
    all_streams: pa.Table = field(default_factory=STREAM_COLUMNS.empty_table)

    def parts(self, wanted: EventRange = EVERY_EVENT) -> Sequence[EventPart]:
        return self.all_parts

    def extents(self) -> Sequence[tuple[int, int]]:
        own = [part for part in self.all_parts if isinstance(part, MemoryPart) and part.rows]
        return [(int(part.columns[Fixed.RECEIVED][0].as_py()), part.rows) for part in own]

    def payloads(self, wanted: EventRange) -> Iterator[pa.RecordBatch]:
        """Of parts that are not divided into columns."""
        for part in self.all_parts:
            for batch in part.read([*Fixed, Rest(())], wanted):
                yield batch_of_events(*batch.columns)

    def streams(self) -> pa.Table:
        return self.all_streams

    @staticmethod
    def of(payloads: Iterable[object], received: int = 0, step: int = 1_000_000_000) -> MemoryEvents:
        """Events of one stream, as the head has them. A text that is no JSON type is given by json.dumps."""
        return MemoryEvents([raw_part([json.dumps(each) for each in payloads], received, step)], one_stream(received))


def raw_part(payloads: Sequence[str], received: int = 0, step: int = 1_000_000_000, stream: int = 1) -> MemoryPart:
    """Events that are not divided into columns, `step` ns apart."""
    return divided_part(Node(), {Rest(()): pa.array(payloads, pa.string())}, received, step, stream)


def divided_part(
    node: Node, columns: Mapping[Column, pa.Array[Any]], received: int = 0, step: int = 1_000_000_000, stream: int = 1
) -> MemoryPart:
    """Events of one stream whose payloads are in the columns given."""
    rows = len(next(iter(columns.values())))
    fixed: dict[Column, pa.Array[Any]] = {
        Fixed.STREAM: pa.array([stream] * rows, pa.int64()),
        Fixed.INDEX: pa.array(range(1, rows + 1), pa.int64()),
        Fixed.RECEIVED: pa.array([received + step * number for number in range(rows)], pa.int64()),
    }
    return MemoryPart(node, {**fixed, **columns})


def one_stream(started: int = 0, headers: str = '{"host":"here"}') -> pa.Table:
    return pa.table([[1], [started], ["http"], [headers], [""]], schema=STREAM_COLUMNS)

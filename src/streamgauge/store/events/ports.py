"""What the parts of the event store hand to each other. Times are ns since the Unix epoch, when an event was received.

Events go through the same log as samples, and then into blocks of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from streamgauge.model.arrays import Int64s
from streamgauge.model.events import Stream


@dataclass(frozen=True, slots=True)
class EventRows:
    """Events in any order; columns of one length."""

    streams: Int64s  # ids
    indexes: Int64s
    times: Int64s
    payloads: pa.LargeBinaryArray  # JSON texts

    def __len__(self) -> int:
        return len(self.streams)


@dataclass(frozen=True, slots=True)
class EventBlockMeta:
    """What the footer of a block of events says. All ends are inclusive."""

    id: str
    first_commit: int
    last_commit: int
    min_time: int
    max_time: int
    min_stream: int
    max_stream: int
    level: int  # 0 from a flush, one more than its highest parent from a compaction
    events: int
    streams: int
    bytes: int
    parents: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()  # of retention rules by predicate, those that have been carried out on all of it


@dataclass(frozen=True, slots=True)
class EventFlush:
    """What a block is made of: events, and at least the streams they are of."""

    first_commit: int
    last_commit: int
    rows: EventRows
    streams: Sequence[Stream]

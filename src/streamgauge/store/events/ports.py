"""What the parts of the event store hand to each other. Times are ns since the Unix epoch, when an event was received.

Events go through the same log as samples, and then into blocks of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from streamgauge.model.arrays import Int64s
from streamgauge.model.event_source import EventPart
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


UNDIVIDED = -1
"""Level of a block that a flush had no time to divide."""


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
    level: int  # 0 from a flush, or UNDIVIDED; from a compaction one more than its highest parent, 1 at the least
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


@dataclass(frozen=True, slots=True)
class Conditions:
    """The language of conditions, from outside of the store. Both are called in a helper process, so they are functions
    of a module.

    check: raises BadInput for a text that is no condition. fulfilling: streams and indexes of the events of a block
    that fulfil one.
    """

    check: Callable[[str], None]
    fulfilling: Callable[[EventPart, str], tuple[Int64s, Int64s]]


@dataclass(frozen=True, slots=True)
class EventRule:
    """Events that fulfil a condition are kept for `retention` ns. What a condition is, the store does not know."""

    condition: str
    retention: int

    @property
    def key(self) -> str:
        """By which a block notes that it was carried out."""
        return hashlib.sha256(f"{self.retention} {self.condition}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class NamedStream:
    """A stream that a client may go on with."""

    stream: Stream
    next_index: int  # of the next event, after all that is on disk
    last_used: int  # ns


@dataclass(frozen=True, slots=True)
class EventCatalog:
    """What the catalog says of events."""

    flushed_through: int = 0  # every commit up to here that has events is in blocks
    next_stream: int = 1  # no stream in a block has this number or one above it; the log may define higher ones
    blocks: tuple[EventBlockMeta, ...] = ()  # by id
    named: tuple[NamedStream, ...] = ()  # by name; what the log says comes on top
    dropped_before: int = 0  # what retention let go was received before this time, ns


@dataclass(frozen=True, slots=True)
class EventChange:
    """The part of a change of the catalog that is about events. None leaves a value as it is."""

    add: Sequence[EventBlockMeta] = ()
    remove: Sequence[str] = ()
    flushed_through: int | None = None  # raises the catalog's, if it is higher
    next_stream: int | None = None
    named: Sequence[NamedStream] = ()  # those that are new or have changed
    dropped_before: int = 0  # raises the catalog's, if it is higher
    forget: Sequence[str] = ()  # named streams, by their names; before `named`

"""Where queries read events: parts that hold payloads in columns, as far as they could be divided into columns.

A part describes its payloads by a tree of nodes, each an object that a payload has or is. What of an object is in no
column, because too few payloads have it or because its value is of another type than most, is JSON text in the node's
`rest`. So a payload is, at each level, the members with a column that are not null, and the members of `rest`; no
member is in both. A part that has not been divided at all is one node without columns: its rest is the whole payload.
A payload that is no object (a number, a list, a text) is in the root's rest as it is.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

Path = tuple[str, ...]
"""Names of members, from the payload's root down."""


class LeafType(enum.Enum):
    """What the values of a column are, as JSON knows them."""

    BOOL = "bool"
    INT = "int64"
    DOUBLE = "double"
    TEXT = "string"


@dataclass(frozen=True, slots=True)
class Node:
    """An object, or what stands in its place."""

    leaves: Mapping[str, LeafType] = field(default_factory=dict)
    children: Mapping[str, Node] = field(default_factory=dict)
    rest: bool = True  # whether there is, or may be, anything in the text column with what is in no other
    mixed: Collection[str] | None = None
    """Of the members that have a column, those that some payloads have in the rest, with a value other than null. None
    when that is not known: all of them may be there."""

    def may_be_in_rest(self, member: str | None) -> bool:
        """Whether a member, or an element of what stands in the object's place (None), may be in the rest."""
        if (
            not self.rest
            or member is None
            or self.mixed is None
            or not (member in self.leaves or member in self.children)
        ):
            return self.rest
        return member in self.mixed

    def has_text_alone(self, path: Path) -> bool:
        """Whether the member at a path has a column of texts and is in no rest."""
        node = self
        for name in path[:-1]:
            if name not in node.children or node.may_be_in_rest(name):
                return False
            node = node.children[name]
        return bool(path) and node.leaves.get(path[-1]) is LeafType.TEXT and not node.may_be_in_rest(path[-1])


class Fixed(enum.Enum):
    """The columns that every part has; all int64 and never null."""

    STREAM = "stream_id"
    INDEX = "stream_event_index"
    RECEIVED = "received"  # ns since the Unix epoch


@dataclass(frozen=True, slots=True)
class Leaf:
    """The column of a member that has one: of the leaf's type, null where it is absent or in the rest."""

    path: Path


@dataclass(frozen=True, slots=True)
class Present:
    """For an object that has a node: bool, whether a payload has it as an object."""

    path: Path


@dataclass(frozen=True, slots=True)
class Rest:
    """The rest of the node at `path`: JSON text, null where nothing is left."""

    path: Path


Column = Fixed | Leaf | Present | Rest


@dataclass(frozen=True, slots=True)
class OneOf:
    """A member of the payload is one of some texts."""

    path: Path
    texts: frozenset[str]


@dataclass(frozen=True, slots=True)
class EventRange:
    """Which events are wanted, all ends inclusive. A part may give more than these, never fewer.

    one_of: conditions, all of which an event fulfils; a part looks at them where that is less work than not to.
    """

    first_received: int = -(1 << 63)  # ns
    last_received: int = (1 << 63) - 1
    first_stream: int = 0
    last_stream: int = (1 << 63) - 1
    one_of: tuple[OneOf, ...] = ()


EVERY_EVENT = EventRange()

_STREAM_COLUMNS: Mapping[str, pa.DataType] = {
    "stream_id": pa.int64(),
    "started": pa.int64(),  # ns
    "transport": pa.string(),
    "headers": pa.string(),  # JSON
    "name": pa.string(),
}
STREAM_COLUMNS = pa.schema(_STREAM_COLUMNS)


_EVENT_COLUMNS: Mapping[str, pa.DataType] = {
    "stream_id": pa.int64(),
    "stream_event_index": pa.int64(),
    "received": pa.int64(),  # ns
    "payload": pa.large_string(),  # JSON
}
EVENT_COLUMNS = pa.schema(_EVENT_COLUMNS)


class EventPart(Protocol):
    """Events from one place. No event is in two parts of a source."""

    @property
    def rows(self) -> int: ...

    @property
    def node(self) -> Node: ...

    def schema(self, columns: Sequence[Column]) -> pa.Schema:
        """Of the batches that `read` gives."""

    def read(self, columns: Sequence[Column], wanted: EventRange) -> Iterator[pa.RecordBatch]:
        """The columns, in the order asked for and named "0", "1", …, in batches of some ten thousand rows."""


class EventSource(Protocol):
    """One consistent state of all events."""

    def parts(self, wanted: EventRange = EVERY_EVENT) -> Sequence[EventPart]:
        """Those that may have such events, in order of time, as far as that goes."""

    def extents(self) -> Sequence[tuple[int, int]]:
        """Where to look for the latest: of each place with events, when about the first of them was received (ns), and
        about how many there are."""

    def payloads(self, wanted: EventRange) -> Iterator[pa.RecordBatch]:
        """Whole events, with the columns EVENT_COLUMNS, in batches of some ten thousand rows; in order of time as far
        as `parts` are. None that are not wanted."""

    def streams(self) -> pa.Table:
        """Each stream once, with the columns STREAM_COLUMNS. Streams whose events retention took may be gone too."""


def batch_of_events(
    streams: pa.Array[Any], indexes: pa.Array[Any], received: pa.Array[Any], payloads: pa.Array[Any]
) -> pa.RecordBatch:
    """As EVENT_COLUMNS has it. `payloads` may be any kind of text."""
    columns = [streams, indexes, received, payloads.cast(pa.large_string())]
    return pa.RecordBatch.from_arrays(columns, schema=EVENT_COLUMNS)


class NoEvents:
    """Implements EventSource where there are none."""

    def parts(self, wanted: EventRange = EVERY_EVENT) -> Sequence[EventPart]:
        return ()

    def extents(self) -> Sequence[tuple[int, int]]:
        return ()

    def payloads(self, wanted: EventRange) -> Iterator[pa.RecordBatch]:
        return iter(())

    def streams(self) -> pa.Table:
        return STREAM_COLUMNS.empty_table()

"""What somebody sees who may not see everything: a source whose every answer is of their own series and streams.

It stands between the store and all that answers queries, so that no language and no route can ask past it. What it
hands out has nothing in it of others, be it unused: values in a dictionary of labels or texts would show up in errors
about them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.model.arrays import Int64s
from streamgauge.model.event_source import (
    EVERY_EVENT,
    Column,
    EventPart,
    EventRange,
    EventSource,
    Fixed,
    Leaf,
    Node,
    Path,
    Present,
)
from streamgauge.model.frame import ABSENT, LabelColumn, LabelFrame
from streamgauge.model.owned import owner_mark
from streamgauge.model.source import (
    AggregateKind,
    Horizon,
    Lifetimes,
    Matcher,
    Meter,
    Selection,
    Source,
)
from streamgauge.model.view import View

Member = TypeVar("Member")


def restricted(source: Source, view: View) -> Source:
    """What of a source a view shows: of everything the source itself."""
    return source if view.whole else RestrictedSource(source, view)


class RestrictedSource:
    """Implements model.source.Source."""

    def __init__(self, source: Source, view: View) -> None:
        self._source = source
        self._owner = view.owner
        self._bound = view.matchers

    @property
    def horizons(self) -> Sequence[Horizon]:
        return self._source.horizons

    def select(
        self,
        matchers: Sequence[Matcher],
        start: int,
        end: int,
        meter: Meter,
        aggregate: AggregateKind = AggregateKind.LAST,
    ) -> Selection:
        found = self._source.select((*self._bound, *matchers), start, end, meter, aggregate)
        return Selection(_own_texts(found.labels), found.samples)

    def series(
        self,
        matcher_sets: Sequence[Sequence[Matcher]],
        start: int,
        end: int,
        meter: Meter,
        names: Collection[str] | None = None,
    ) -> LabelFrame:
        return _own_texts(self._source.series(self._all_bound(matcher_sets), start, end, meter, names))

    def lifetimes(self, matcher_sets: Sequence[Sequence[Matcher]], meter: Meter) -> Lifetimes:
        found = self._source.lifetimes(self._all_bound(matcher_sets), meter)
        return Lifetimes(_own_texts(found.labels), found.first, found.last)

    def events(self) -> EventSource:
        events = self._source.events()
        return events if self._owner is None else RestrictedEvents(events, self._owner)

    def _all_bound(self, matcher_sets: Sequence[Sequence[Matcher]]) -> list[tuple[Matcher, ...]]:
        return [(*self._bound, *matchers) for matchers in matcher_sets or [()]]


def _own_texts(frame: LabelFrame) -> LabelFrame:
    """The same labels, in dictionaries that hold no others."""
    columns = {name: _own_values(column) for name, column in frame.columns.items()}
    return LabelFrame(len(frame), {name: column for name, column in columns.items() if len(column.values)})


def _own_values(column: LabelColumn) -> LabelColumn:
    used = np.zeros(len(column.values) + 1, np.bool_)
    used[column.codes] = True
    used[ABSENT] = False  # the last one
    codes = np.where(used, np.cumsum(used) - 1, ABSENT).astype(np.int32)
    return LabelColumn(codes[column.codes], column.values.take(np.flatnonzero(used)))


# ---- events ---------------------------------------------------------------------------------------------------------


class RestrictedEvents:
    """The events of one owner's streams. Implements model.event_source.EventSource."""

    def __init__(self, events: EventSource, owner: str) -> None:
        self._events = events
        self._owner = owner

    def parts(self, wanted: EventRange = EVERY_EVENT) -> Sequence[EventPart]:
        """All of them, whatever is wanted: each remembers what it has looked up."""
        return self._parts

    def extents(self) -> Sequence[tuple[int, int]]:
        return self._events.extents()

    def payloads(self, wanted: EventRange) -> Iterator[pa.RecordBatch]:
        within = _within(wanted, self._ids)
        if within is not None:
            for batch in self._events.payloads(within):
                if len(own := _own_rows(batch, 0, self._ids)):
                    yield own

    def streams(self) -> pa.Table:
        return self._streams

    @cached_property
    def _streams(self) -> pa.Table:
        streams = self._events.streams()
        return streams.filter(pc.starts_with(streams["headers"], owner_mark(self._owner))).combine_chunks()

    @cached_property
    def _ids(self) -> Int64s:
        """Ascending."""
        ids: Int64s = np.sort(self._streams["stream_id"].to_numpy())
        return ids

    @cached_property
    def _parts(self) -> Sequence[EventPart]:
        return [RestrictedPart(part, self._ids) for part in self._events.parts()] if len(self._ids) else []


class RestrictedPart:
    """The events of some streams, whose ids ascend. Implements model.event_source.EventPart."""

    def __init__(self, part: EventPart, ids: Int64s) -> None:
        self._part = part
        self._ids = ids
        self._shown: dict[Column, bool] = {}

    @property
    def rows(self) -> int:
        return sum(len(batch) for batch in self.read([Fixed.INDEX], EventRange()))

    @cached_property
    def node(self) -> Node:
        """Says of each column whether any of these events has something in it, once that is asked for: of which type
        the value of a member is, is nothing that events of others decide."""
        return self._node(self._part.node, ())

    def _node(self, node: Node, at: Path) -> Node:
        children = {name: self._node(child, (*at, name)) for name, child in node.children.items()}
        return Node(
            _Shown(node.leaves, lambda name: self._has(Leaf((*at, name)))),
            _Shown(children, lambda name: self._has(Present((*at, name)))),
            node.rest,
            node.mixed,
        )

    def _has(self, column: Column) -> bool:
        if column not in self._shown:
            batches = self.read([column], EventRange())
            self._shown[column] = any(bool(pc.any(_is_there(batch.column(0), column)).as_py()) for batch in batches)
        return self._shown[column]

    def schema(self, columns: Sequence[Column]) -> pa.Schema:
        return self._part.schema(columns)

    def read(self, columns: Sequence[Column], wanted: EventRange) -> Iterator[pa.RecordBatch]:
        within = _within(wanted, self._ids)
        if within is None:
            return
        names = [str(number) for number in range(len(columns))]
        for batch in self._part.read([*columns, Fixed.STREAM], within):
            if len(own := _own_rows(batch, len(columns), self._ids)):
                yield pa.RecordBatch.from_arrays([_plain(column) for column in own.columns[:-1]], names)


class _Shown(Mapping[str, Member], Generic[Member]):
    """Members of a node. One that is in no event that is shown is not `in` it; whoever goes through all of them finds
    nothing in those."""

    def __init__(self, members: Mapping[str, Member], has: Any) -> None:
        self._members = members
        self._has = has

    def __contains__(self, name: object) -> bool:
        return name in self._members and self._has(name)

    def __getitem__(self, name: str) -> Member:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def _within(wanted: EventRange, ids: Int64s) -> EventRange | None:
    """The range with no more streams than from the first to the last of the ids; None when it has none."""
    first, last = ids.searchsorted(wanted.first_stream), ids.searchsorted(wanted.last_stream, "right")
    if first >= last:
        return None
    return EventRange(wanted.first_received, wanted.last_received, int(ids[first]), int(ids[last - 1]))


def _own_rows(batch: pa.RecordBatch, streams: int, ids: Int64s) -> pa.RecordBatch:
    """The rows of a batch whose streams, in column number `streams`, are among the ids."""
    own = np.isin(batch.column(streams).to_numpy(), ids)
    return batch if own.all() else batch.filter(pa.array(own))


def _is_there(values: pa.Array[Any], column: Column) -> Any:
    return values if isinstance(column, Present) else values.is_valid()


def _plain(values: pa.Array[Any]) -> pa.Array[Any]:
    """Texts by number as texts: the dictionary has those of others in it."""
    return values.dictionary_decode() if isinstance(values, pa.DictionaryArray) else values

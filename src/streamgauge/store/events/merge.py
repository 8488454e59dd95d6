"""Several blocks of events into one, column by column: compaction, and what leaves out events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.event_source import EventRange, Fixed, LeafType, Node, Path
from streamgauge.model.events import Stream
from streamgauge.store.events.block_reader import EventBlockReader
from streamgauge.store.events.block_writer import row_groups
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.convert import Converter
from streamgauge.store.events.encodings import COMPACTED_LEVEL
from streamgauge.store.events.format import RowGroup, new_block_id
from streamgauge.store.events.ports import UNDIVIDED, EventBlockMeta
from streamgauge.store.events.tree import COMMON_SHARE, REST, Profile, choose_node
from streamgauge.store.events.undivided import Divider, count, some_of
from streamgauge.store.failpoints import hit

MERGED_SHARE = 0.001
"""Of the events of a merge, so many must have a column's values for it to stay one. What was common in one block is
rarer in several; as text it would take more room, and more time to ask for."""


def merge_blocks(
    blocks: LocalEventBlocks,
    inputs: Sequence[EventBlockMeta],
    omit: Mapping[str, Bools] | None = None,
    pruned: Sequence[str] = (),
    level: int = COMPACTED_LEVEL,
) -> EventBlockMeta | None:
    """Write what takes the place of some blocks, or one. It counts for nothing until the catalog names it.

    `omit` marks, by the id of a block, which of its rows are left out, and `pruned` names the rules that are thereby
    carried out on all blocks. Streams all of whose events are left out go too. `level` is zstd's. Returns None, and
    writes nothing, where nothing is left. Raises Corrupt and StorageError.
    """
    hit("events.merge.before_write")
    with ExitStack() as stack:
        sources = []
        for meta in inputs:
            reader = stack.enter_context(blocks.open(meta.id))
            sources.append(_Source(reader, None if omit is None else omit.get(meta.id)))
        streams = _streams_left(sources)
        if not streams:
            return None
        node = _merged_node(sources)
        merged = blocks.write_groups(
            _successor(inputs, _parents(blocks, inputs), pruned), node, _merged_groups(sources, node), streams, level
        )
    hit("events.merge.after_write")
    return merged


def _parents(blocks: LocalEventBlocks, inputs: Sequence[EventBlockMeta]) -> tuple[str, ...]:
    """The inputs, and of what they were made of in turn whatever a query has kept on the disk: by this list, and
    nothing else, a start without catalog knows that its events are here."""
    standing = set(blocks.names())
    kept = {parent for meta in inputs for parent in meta.parents if parent in standing}
    return (*(meta.id for meta in inputs), *sorted(kept))


def _successor(inputs: Sequence[EventBlockMeta], parents: tuple[str, ...], pruned: Sequence[str]) -> EventBlockMeta:
    """Times and sizes are the writer's to fill in."""
    first = min(meta.first_commit for meta in inputs)
    last = max(meta.last_commit for meta in inputs)
    in_all = set.intersection(*(set(meta.pruned) for meta in inputs))
    return EventBlockMeta(
        id=new_block_id(min(meta.min_time for meta in inputs), first, last),
        first_commit=first,
        last_commit=last,
        min_time=0,
        max_time=0,
        min_stream=0,
        max_stream=0,
        level=1 + max(0, *(meta.level for meta in inputs)),
        events=0,
        streams=0,
        bytes=0,
        parents=parents,
        pruned=tuple(sorted(in_all | set(pruned))),
    )


# ---- the tree -------------------------------------------------------------------------------------------------------


def _merged_node(sources: Sequence[_Source]) -> Node:
    """The tree for the payloads of some blocks together, by the numbers of values in their columns."""
    profile = Profile()
    for source in sources:
        if source.like is None:
            profile.values += source.reader.rows
            _count(source.reader, source.reader.node, (), profile)
        else:
            count(source.like, source.reader.rows, profile)
    share = COMMON_SHARE if all(source.like is not None for source in sources) else MERGED_SHARE
    return choose_node(profile, share)


def _count(reader: EventBlockReader, node: Node, path: Path, profile: Profile) -> int:
    """Add the members of a node to the profile of its values. Returns how many objects it has at least."""
    counts = [reader.values_of((*path, REST))]
    for name, leaf in node.leaves.items():
        count = reader.values_of((*path, name))
        counts.append(count)
        _add(profile.member(name), leaf, count)
    for name, child in node.children.items():
        member = profile.member(name)
        objects = _count(reader, child, (*path, name), member)
        member.objects += objects
        member.values += objects
        counts.append(objects)
    return max(*counts, 1)


def _add(profile: Profile, leaf: LeafType, count: int) -> None:
    profile.values += count
    if leaf == LeafType.INT:
        profile.ints += count
        profile.small_ints += count
    elif leaf == LeafType.DOUBLE:
        profile.doubles += count
    elif leaf == LeafType.TEXT:
        profile.texts += count
    else:
        profile.bools += count


# ---- rows -----------------------------------------------------------------------------------------------------------


class _Source:
    """A block, and which of its rows are wanted."""

    def __init__(self, reader: EventBlockReader, omitted: Bools | None) -> None:
        self.reader = reader
        batches = list(reader.read([Fixed.STREAM, Fixed.INDEX], EventRange()))
        self.all_streams = _column(batches, 0)
        self.like = some_of(reader) if reader.meta.level == UNDIVIDED else None
        self.kept = np.ones(reader.rows, np.bool_) if omitted is None else ~omitted
        self.streams: Int64s = self.all_streams[self.kept]
        self.indexes: Int64s = _column(batches, 1)[self.kept]
        row_bytes = np.array(reader.text_bytes, np.float64) / reader.group_rows
        self.sizes: Floats = np.repeat(row_bytes, reader.group_rows)[self.kept]

    def rows(self, node: Node) -> Iterator[RowGroup]:
        """What is kept of each row group, with payloads as the node says."""
        converter = Converter(self.reader.node, node) if self.like is None else Divider(self.like, node)
        start = 0
        for group, rows in enumerate(self.reader.group_rows.tolist()):
            kept = self.kept[start : start + rows]
            start += rows
            if not kept.any():
                continue
            found = self.reader.row_group(group)
            payloads = found.payloads if kept.all() else found.payloads.filter(pa.array(kept))
            yield RowGroup(
                found.streams[kept],
                found.indexes[kept],
                found.times[kept],
                converter.convert(payloads),
                found.text_bytes,
            )


def _column(batches: Sequence[pa.RecordBatch], number: int) -> Int64s:
    return np.concatenate([np.empty(0, np.int64), *(batch.column(number).to_numpy() for batch in batches)])


def _streams_left(sources: Sequence[_Source]) -> list[Stream]:
    """The streams that have events left, and those that never had any."""
    had = {stream for source in sources for stream in np.unique(source.all_streams).tolist()}
    have = {stream for source in sources for stream in np.unique(source.streams).tolist()}
    streams = {stream.id: stream for source in sources for stream in source.reader.streams()}
    return [stream for stream in streams.values() if stream.id in have or stream.id not in had]


class _Cursor:
    """Takes rows of a source in order."""

    def __init__(self, groups: Iterator[RowGroup]) -> None:
        self._groups = groups
        self._held: RowGroup | None = None
        self._at = 0

    def take(self, rows: int) -> Iterator[RowGroup]:
        """The next rows, which there are, in pieces."""
        while rows:
            if self._held is None:
                self._held, self._at = next(self._groups), 0
            stop = min(self._at + rows, len(self._held))
            rows -= stop - self._at
            yield _part(self._held, slice(self._at, stop))
            self._at = stop
            if stop == len(self._held):
                self._held = None


def _part(group: RowGroup, rows: slice) -> RowGroup:
    return RowGroup(group.streams[rows], group.indexes[rows], group.times[rows], group.payloads[rows], group.text_bytes)


def _merged_groups(sources: Sequence[_Source], node: Node) -> Iterator[RowGroup]:
    streams = np.concatenate([source.streams for source in sources])
    indexes = np.concatenate([source.indexes for source in sources])
    sizes = np.concatenate([source.sizes for source in sources])
    owner = np.repeat(np.arange(len(sources)), [len(source.streams) for source in sources])
    order = np.lexsort((indexes, streams))
    owner, sizes = owner[order], sizes[order]
    cursors = [_Cursor(source.rows(node)) for source in sources]
    for rows in row_groups(sizes):
        yield _interleaved(cursors, owner[rows], int(sizes[rows].sum()))


def _interleaved(cursors: Sequence[_Cursor], owner: Int64s, text_bytes: int) -> RowGroup:
    """The next rows, each from the block that owns it: the rows of each block are in order already."""
    counts = np.bincount(owner, minlength=len(cursors)).tolist()
    pieces = [piece for cursor, count in zip(cursors, counts, strict=True) for piece in cursor.take(count)]
    order = np.argsort(np.argsort(owner, kind="stable"), kind="stable")
    payloads: Any = pa.concat_arrays([piece.payloads for piece in pieces])
    if len(pieces) > 1:
        payloads = payloads.take(pa.array(order))
    return RowGroup(
        np.concatenate([piece.streams for piece in pieces])[order],
        np.concatenate([piece.indexes for piece in pieces])[order],
        np.concatenate([piece.times for piece in pieces])[order],
        payloads,
        text_bytes,
    )

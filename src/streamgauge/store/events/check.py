"""What must hold for blocks of events: each on its own, and all together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from streamgauge.errors import StorageError
from streamgauge.model.arrays import Int64s
from streamgauge.model.event_source import Node
from streamgauge.store.arrow import booleans
from streamgauge.store.arrow import compute as pc
from streamgauge.store.events.block_reader import EventBlockReader
from streamgauge.store.events.format import MAX_ROW_GROUP, RowGroup
from streamgauge.store.events.mixed import members_left
from streamgauge.store.events.ports import UNDIVIDED, EventBlockMeta
from streamgauge.store.events.tree import REST


def check_event_blocks(metas: Sequence[EventBlockMeta], open_block: Callable[[str], EventBlockReader]) -> list[str]:
    """Every violated invariant of blocks that make up a store, as sentences. Reads all of them, a row group at a time,
    and holds the streams and indexes of all events."""
    problems: list[str] = []
    keys: list[tuple[Int64s, Int64s]] = []
    for meta in metas:
        try:
            with open_block(meta.id) as reader:
                problems += check_event_block(reader, keys)
                if reader.meta != meta:
                    problems.append(f"block {meta.id}: its footer and the catalog do not say the same")
        except StorageError as error:  # also for a file that is missing
            problems.append(error.message)
    return problems + list(_check_disjoint(keys))


def check_event_block(reader: EventBlockReader, keys: list[tuple[Int64s, Int64s]] | None = None) -> list[str]:
    """The same of one block. Adds the streams and indexes of its events to `keys`."""
    meta = reader.meta
    problems = list(_check_meta(meta))
    try:
        groups = [] if keys is None else keys
        problems += _check_rows(reader, groups)
    except StorageError as error:
        return [*_prefixed(meta, problems), error.message]
    return _prefixed(meta, problems)


def _prefixed(meta: EventBlockMeta, problems: list[str]) -> list[str]:
    return [f"block {meta.id}: {problem}" for problem in problems]


def _check_meta(meta: EventBlockMeta) -> Iterator[str]:
    if not 0 <= meta.first_commit <= meta.last_commit:
        yield f"its commits run from {meta.first_commit} to {meta.last_commit}"
    if meta.min_time > meta.max_time or meta.min_stream > meta.max_stream:
        yield (
            f"its times run from {meta.min_time} to {meta.max_time}, its streams from {meta.min_stream} to "
            f"{meta.max_stream}"
        )
    if meta.level < UNDIVIDED or (meta.level > 0) != bool(meta.parents):
        yield f"it has level {meta.level} and {len(meta.parents)} parents"


def _check_rows(reader: EventBlockReader, keys: list[tuple[Int64s, Int64s]]) -> Iterator[str]:
    meta, found = reader.meta, reader.streams()
    if meta.level == UNDIVIDED and (reader.node.leaves or reader.node.children):
        yield f"its level is {meta.level}, and it has columns of payloads"
    ids = [stream.id for stream in found]
    if ids != sorted(set(ids)) or len(ids) != meta.streams:
        yield f"its footer says {meta.streams} streams, and its file of streams has {len(ids)}, or not in order"
    if reader.rows != meta.events:
        yield f"its footer says {meta.events} events and it has {reader.rows}"
    times: list[int] = []
    last: tuple[int, int] | None = None
    for group in range(len(reader.group_rows)):
        rows = reader.row_group(group)
        keys.append((rows.streams, rows.indexes))
        times += [int(rows.times.min()), int(rows.times.max())]
        yield from _check_group(group, rows, last, np.array(ids, np.int64))
        yield from (f"row group {group}: {problem}" for problem in _check_rests(rows.payloads, reader.node, "payload"))
        last = int(rows.streams[-1]), int(rows.indexes[-1])
    if times and (min(times), max(times)) != (meta.min_time, meta.max_time):
        yield f"its footer says times {meta.min_time} to {meta.max_time}, its events {min(times)} to {max(times)}"


def _check_group(group: int, rows: RowGroup, last: tuple[int, int] | None, streams: Int64s) -> Iterator[str]:
    if len(rows) > MAX_ROW_GROUP:
        yield f"row group {group} has {len(rows)} rows, more than {MAX_ROW_GROUP}"
    if not np.isin(rows.streams, streams).all():
        yield f"row group {group} has events of a stream that is not in the file of streams"
    follows = (np.diff(rows.streams) > 0) | ((np.diff(rows.streams) == 0) & (np.diff(rows.indexes) > 0))
    if not follows.all() or (last is not None and last >= (int(rows.streams[0]), int(rows.indexes[0]))):
        yield f"the events of row group {group} are not in order of stream and index, or one occurs twice"
    if (rows.indexes < 1).any() or (rows.streams < 1).any():
        yield f"row group {group} has a stream or an index below 1"
    if rows.payloads.null_count:
        yield f"row group {group} has an event without payload"


def _check_rests(objects: pa.StructArray, node: Node, path: str) -> Iterator[str]:
    """What is left over of objects is JSON, has no member that a column has too, and no other member with a column than
    the footer says."""
    columns: dict[str, Any] = {
        field.name: pc.struct_field(objects, number) for number, field in enumerate(objects.type)
    }
    rest = columns.pop(REST)
    valid = {name: booleans(column.is_valid()) for name, column in columns.items()}
    divided = np.logical_or.reduce([np.zeros(len(objects), np.bool_), *valid.values()])
    unmixed = [name for name in columns if not node.may_be_in_rest(name)]
    for name in sorted(members_left(rest, unmixed))[:1]:
        yield f"{path} has {name} left over, and the footer says that it has not"
    for at in np.flatnonzero(rest.is_valid()).tolist():
        try:
            left = msgspec.json.decode(rest[at].as_py())
        except (ValueError, RecursionError):  # too large or too deep to be divided
            left = None
        if divided[at] and not isinstance(left, dict):
            yield f"what is left over of {path} beside its columns is no object"
            return
        twice = [name for name in left if name in valid and valid[name][at]] if isinstance(left, dict) else []
        if twice:
            yield f"{path} has {twice[0]} in a column and left over"
            return
    for name, column in columns.items():
        if isinstance(column.type, pa.StructType):
            yield from _check_rests(column, node.children[name], f"{path}.{name}")


def _check_disjoint(keys: Sequence[tuple[Int64s, Int64s]]) -> Iterator[str]:
    streams = np.concatenate([np.empty(0, np.int64), *(part[0] for part in keys)])
    indexes = np.concatenate([np.empty(0, np.int64), *(part[1] for part in keys)])
    order = np.lexsort((indexes, streams))
    same = (np.diff(streams[order]) == 0) & (np.diff(indexes[order]) == 0)
    for at in np.flatnonzero(same)[:1].tolist():
        row = order[at]
        others = int(same.sum()) - 1
        yield f"event {indexes[row]} of stream {streams[row]} is stored more than once, as are {others} others"

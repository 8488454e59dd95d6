"""The catalog's tables, and its state as rows in them, as docs/format/catalog.md lays them down."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import astuple, replace
from typing import Any

from streamgauge.errors import Corrupt
from streamgauge.model.events import Stream
from streamgauge.store.catalog_checksum import RunningChecksum, checksum_of, store_checksum, stored_checksum
from streamgauge.store.events.ports import EventBlockMeta, EventCatalog, EventChange, NamedStream
from streamgauge.store.ports import FIRST_TIME, BlockMeta, CatalogChange, CatalogState, Tombstone

# Without row ids a table is one tree: there is no index beside it that could disagree unseen.
_TOMBSTONES_TABLE = """
CREATE TABLE tombstones (
    id INTEGER PRIMARY KEY,
    last_commit INTEGER NOT NULL,
    min_time INTEGER NOT NULL,
    max_time INTEGER NOT NULL,
    series BLOB NOT NULL
) WITHOUT ROWID;
"""
_EVENT_TABLES = """
CREATE TABLE event_blocks (
    id TEXT PRIMARY KEY,
    first_commit INTEGER NOT NULL,
    last_commit INTEGER NOT NULL,
    min_time INTEGER NOT NULL,
    max_time INTEGER NOT NULL,
    min_stream INTEGER NOT NULL,
    max_stream INTEGER NOT NULL,
    level INTEGER NOT NULL,
    events INTEGER NOT NULL,
    streams INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    parents TEXT NOT NULL,
    pruned TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE named_streams (
    name TEXT PRIMARY KEY,
    id INTEGER NOT NULL,
    started INTEGER NOT NULL,
    transport TEXT NOT NULL,
    headers TEXT NOT NULL,
    next_index INTEGER NOT NULL,
    last_used INTEGER NOT NULL
) WITHOUT ROWID;
"""
_TABLES = f"""
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE blocks (
    id TEXT PRIMARY KEY,
    first_commit INTEGER NOT NULL,
    last_commit INTEGER NOT NULL,
    min_time INTEGER NOT NULL,
    max_time INTEGER NOT NULL,
    window INTEGER NOT NULL,
    late INTEGER NOT NULL,
    level INTEGER NOT NULL,
    series INTEGER NOT NULL,
    samples INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    parents TEXT NOT NULL,
    tombstones TEXT NOT NULL DEFAULT '[]',
    resolution INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE metadata (
    metric TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    help TEXT NOT NULL,
    unit TEXT NOT NULL
) WITHOUT ROWID;
{_TOMBSTONES_TABLE}
{_EVENT_TABLES}
"""

_BLOCK = (
    "id, first_commit, last_commit, min_time, max_time, window, late, level, series, samples, bytes, parents, "
    "tombstones, resolution"
)
_METADATA = "metric, type, help, unit"
_DROPPED_BEFORE = "dropped_before"
_TOMBSTONE = "id, last_commit, min_time, max_time, series"
_EVENT_BLOCK = (
    "id, first_commit, last_commit, min_time, max_time, min_stream, max_stream, level, events, streams, bytes, "
    "parents, pruned"
)
_NAMED_STREAM = "name, id, started, transport, headers, next_index, last_used"
_FLUSHED_THROUGH = "flushed_through"
_EVENTS_FLUSHED_THROUGH = "events_flushed_through"
_NEXT_STREAM = "next_stream"
_EVENTS_DROPPED_BEFORE = "events_dropped_before"
_NEXT_SERIES_ID = "next_series_id"
_CHANGING = (
    _FLUSHED_THROUGH,
    _EVENTS_FLUSHED_THROUGH,
    _NEXT_SERIES_ID,
    _NEXT_STREAM,
    _DROPPED_BEFORE,
    _EVENTS_DROPPED_BEFORE,
)
"""Rows of meta that a change may change."""


def create(connection: sqlite3.Connection, state: CatalogState, version: int) -> None:
    """Make the tables of an empty database and fill them."""
    _execute_all(connection, _TABLES)
    _set(connection, "store_id", state.store_id)
    _set(connection, "format", str(version))
    _set(connection, _DROPPED_BEFORE, str(state.dropped_before))
    _set(connection, _EVENTS_DROPPED_BEFORE, str(state.events.dropped_before))
    connection.execute(f"PRAGMA user_version = {version}")
    seal(connection, version)
    events = state.events
    write(
        connection,
        CatalogChange(
            state.blocks,
            (),
            state.flushed_through,
            state.next_series_id,
            state.metadata,
            state.tombstones,
            events=EventChange(
                events.blocks, (), events.flushed_through, events.next_stream, events.named, events.dropped_before
            ),
        ),
    )


def add_tombstones(connection: sqlite3.Connection) -> None:
    """Upgrade format 1, which knew neither deletion nor downsampling."""
    connection.execute("ALTER TABLE blocks ADD COLUMN tombstones TEXT NOT NULL DEFAULT '[]'")
    connection.execute("ALTER TABLE blocks ADD COLUMN resolution INTEGER NOT NULL DEFAULT 0")
    connection.execute(_TOMBSTONES_TABLE)


def add_events(connection: sqlite3.Connection) -> None:
    """Upgrade format 2, which knew no events."""
    _execute_all(connection, _EVENT_TABLES)
    _set(connection, _EVENTS_FLUSHED_THROUGH, _meta(connection)[_FLUSHED_THROUGH])
    _set(connection, _NEXT_STREAM, "1")
    _set(connection, _EVENTS_DROPPED_BEFORE, "0")


def sum_rows(connection: sqlite3.Connection) -> None:
    """Upgrade format 3, in which the checksum was another; it is computed whenever the format is set."""


def _execute_all(connection: sqlite3.Connection, statements: str) -> None:
    for statement in filter(str.strip, statements.split(";")):
        connection.execute(statement)


def write(connection: sqlite3.Connection, change: CatalogChange) -> None:
    """Make a change to the rows, and bring the checksum up to date."""
    checksum = RunningChecksum(connection)
    with checksum.changing("blocks", "id", [*change.remove, *(block.id for block in change.add)]):
        connection.executemany("DELETE FROM blocks WHERE id = ?", [(block_id,) for block_id in change.remove])
        _put(connection, "blocks", _BLOCK, map(_block_row, change.add))
    with checksum.changing("metadata", "metric", [row[0] for row in change.metadata]):
        _put(connection, "metadata", _METADATA, change.metadata)
    with checksum.changing(
        "tombstones", "id", [*change.remove_tombstones, *(each.id for each in change.add_tombstones)]
    ):
        connection.executemany("DELETE FROM tombstones WHERE id = ?", [(each,) for each in change.remove_tombstones])
        rows = [(each.id, each.commit, each.start, each.end, each.series) for each in change.add_tombstones]
        _put(connection, "tombstones", _TOMBSTONE, rows)
    _write_events(connection, change.events, checksum)
    with checksum.changing("meta", "key", _CHANGING):
        _write_meta(connection, change)
    checksum.store()


def _write_events(connection: sqlite3.Connection, change: EventChange, checksum: RunningChecksum) -> None:
    with checksum.changing("event_blocks", "id", [*change.remove, *(block.id for block in change.add)]):
        connection.executemany("DELETE FROM event_blocks WHERE id = ?", [(block_id,) for block_id in change.remove])
        _put(connection, "event_blocks", _EVENT_BLOCK, map(_event_block_row, change.add))
    with checksum.changing("named_streams", "name", [*change.forget, *(each.stream.name for each in change.named)]):
        connection.executemany("DELETE FROM named_streams WHERE name = ?", [(name,) for name in change.forget])
        _put(connection, "named_streams", _NAMED_STREAM, map(_named_stream_row, change.named))


def _put(connection: sqlite3.Connection, table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
    places = ", ".join("?" * len(columns.split(",")))
    connection.executemany(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({places})", rows)


def _write_meta(connection: sqlite3.Connection, change: CatalogChange) -> None:
    meta = _meta(connection)
    for key, value in (
        (_FLUSHED_THROUGH, change.flushed_through),
        (_EVENTS_FLUSHED_THROUGH, change.events.flushed_through),
    ):
        if value is not None and value > int(meta.get(key, -1)):
            _set(connection, key, str(value))
    for key, value in ((_NEXT_SERIES_ID, change.next_series_id), (_NEXT_STREAM, change.events.next_stream)):
        if value is not None:
            _set(connection, key, str(value))
    if change.dropped_before > _dropped_before(meta):
        _set(connection, _DROPPED_BEFORE, str(change.dropped_before))
    if change.events.dropped_before > int(meta[_EVENTS_DROPPED_BEFORE]):
        _set(connection, _EVENTS_DROPPED_BEFORE, str(change.events.dropped_before))


def changed(state: CatalogState, change: CatalogChange) -> CatalogState:
    """What `read` gives after `write` of a change to `state`, but for named streams: `change_named`."""
    blocks = {block.id: block for block in state.blocks}
    for block_id in change.remove:
        blocks.pop(block_id, None)
    blocks.update((block.id, block) for block in change.add)
    metadata = {row[0]: row for row in (*state.metadata, *change.metadata)}
    tombstones = {tombstone.id: tombstone for tombstone in state.tombstones}
    for number in change.remove_tombstones:
        tombstones.pop(number, None)
    tombstones.update((tombstone.id, tombstone) for tombstone in change.add_tombstones)
    next_id = state.next_series_id if change.next_series_id is None else change.next_series_id
    return CatalogState(
        state.store_id,
        max(state.flushed_through, change.flushed_through or 0),
        next_id,
        tuple(blocks[block_id] for block_id in sorted(blocks)),
        tuple(metadata[metric] for metric in sorted(metadata)),
        tuple(tombstones[number] for number in sorted(tombstones)),
        max(state.dropped_before, change.dropped_before),
        _events_changed(state.events, change.events),
    )


def _events_changed(state: EventCatalog, change: EventChange) -> EventCatalog:
    blocks = {block.id: block for block in state.blocks}
    for block_id in change.remove:
        blocks.pop(block_id, None)
    blocks.update((block.id, block) for block in change.add)
    return EventCatalog(
        max(state.flushed_through, change.flushed_through or 0),
        state.next_stream if change.next_stream is None else change.next_stream,
        tuple(blocks[block_id] for block_id in sorted(blocks)),
        state.named,
        max(state.dropped_before, change.dropped_before),
    )


def change_named(named: dict[str, NamedStream], change: EventChange) -> None:
    """What `write` does to named streams, which may be many, here by their names."""
    for name in change.forget:
        named.pop(name, None)
    named.update((each.stream.name, each) for each in change.named)


def read(connection: sqlite3.Connection) -> CatalogState:
    """The state that the rows hold; blocks are ordered by id and metadata by metric."""
    meta = _meta(connection)
    return CatalogState(
        meta["store_id"],
        int(meta[_FLUSHED_THROUGH]),
        int(meta[_NEXT_SERIES_ID]),
        tuple(map(_block_of, connection.execute(f"SELECT {_BLOCK} FROM blocks ORDER BY id"))),
        tuple(connection.execute(f"SELECT {_METADATA} FROM metadata ORDER BY metric")),
        tuple(Tombstone(*row) for row in connection.execute(f"SELECT {_TOMBSTONE} FROM tombstones ORDER BY id")),
        _dropped_before(meta),
        EventCatalog(
            int(meta[_EVENTS_FLUSHED_THROUGH]),
            int(meta[_NEXT_STREAM]),
            tuple(map(_event_block_of, connection.execute(f"SELECT {_EVENT_BLOCK} FROM event_blocks ORDER BY id"))),
            tuple(
                map(_named_stream_of, connection.execute(f"SELECT {_NAMED_STREAM} FROM named_streams ORDER BY name"))
            ),
            int(meta[_EVENTS_DROPPED_BEFORE]),
        ),
    )


def check(connection: sqlite3.Connection, known: int) -> int:
    """The format of the tables, whichever it is, once nothing is found wrong with them. Of a format later than `known`
    the checksum may be another: that both places say the same of it is enough. Raises Corrupt."""
    complaints = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
    if complaints != ["ok"]:
        raise Corrupt(f"the catalog is damaged: {'; '.join(map(str, complaints))}")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > known and _meta(connection).get("format") == str(version):
        return int(version)
    if stored_checksum(connection) != checksum_of(connection, int(version)):
        raise Corrupt("the catalog is damaged: its rows do not match their checksum")
    meta = _meta(connection)
    if meta["format"] != str(version):
        raise Corrupt(f"the catalog is damaged: its header says format {version} and its rows {meta['format']}")
    return int(version)


def set_format(connection: sqlite3.Connection, version: int) -> None:
    """Say that the tables are of format `version`: in the file's header, and among the rows, where it is checked."""
    connection.execute(f"PRAGMA user_version = {version}")
    _set(connection, "format", str(version))
    seal(connection, version)


def seal(connection: sqlite3.Connection, version: int) -> None:
    """Compute the checksum over all rows."""
    store_checksum(connection, checksum_of(connection, version))


def _meta(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT key, value FROM meta"))


def _dropped_before(meta: dict[str, str]) -> int:
    """An early catalog has no such row."""
    return int(meta.get(_DROPPED_BEFORE, FIRST_TIME))


def _set(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


def _block_row(block: BlockMeta) -> tuple[str | int, ...]:
    return (
        block.id,
        block.first_commit,
        block.last_commit,
        block.min_time,
        block.max_time,
        block.window,
        int(block.late),
        block.level,
        block.series,
        block.samples,
        block.bytes,
        json.dumps(block.parents),
        json.dumps(block.tombstones),
        block.resolution,
    )


def _block_of(row: tuple[Any, ...]) -> BlockMeta:
    block = BlockMeta(*row)
    parents, tombstones = (tuple(json.loads(text)) for text in row[-3:-1])
    return replace(block, late=bool(block.late), parents=parents, tombstones=tombstones)


def _event_block_row(block: EventBlockMeta) -> tuple[str | int, ...]:
    *fields, parents, pruned = astuple(block)
    return (*fields, json.dumps(parents), json.dumps(pruned))


def _event_block_of(row: tuple[Any, ...]) -> EventBlockMeta:
    block = EventBlockMeta(*row)
    return replace(block, parents=tuple(json.loads(row[-2])), pruned=tuple(json.loads(row[-1])))


def _named_stream_row(named: NamedStream) -> tuple[str | int, ...]:
    stream = named.stream
    return (
        stream.name,
        stream.id,
        stream.started,
        stream.transport,
        stream.headers,
        named.next_index,
        named.last_used,
    )


def _named_stream_of(row: tuple[Any, ...]) -> NamedStream:
    name, number, started, transport, headers, next_index, last_used = row
    return NamedStream(Stream(number, started, transport, headers, name), next_index, last_used)

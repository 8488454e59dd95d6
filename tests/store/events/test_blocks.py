"""A block of events gives back what was written, to us and to any Parquet reader, and nothing else if its files are
damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamgauge.errors import Corrupt, FormatTooNew, StorageError
from streamgauge.model.event_source import Column, EventRange, Fixed, Leaf, LeafType, Node, OneOf, Present, Rest
from streamgauge.model.events import Stream
from streamgauge.store import failpoints
from streamgauge.store.block_cache import BlockCache
from streamgauge.store.events import format
from streamgauge.store.events.assemble import payload_texts
from streamgauge.store.events.block_reader import EventBlockReader
from streamgauge.store.events.block_writer import chunk_range, row_groups
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.format import decode_meta, encode_meta, new_block_id
from streamgauge.store.events.ports import EventBlockMeta, EventFlush, EventRows
from streamgauge.store.events.snapshot import EventSnapshot, StoredEvents
from streamgauge.testing.open_files import open_files

START = 1_790_000_000_123_456_789
EVERYTHING = EventRange()
TEXTS = [
    '{"level":"INFO","http":{"status":200,"path":"/ü"},"ms":1.5}',
    '{"level":"ERROR","http":{"status":"gone"},"tags":["a"],"ms":2}',
    '{"level":"INFO","http":{},"ok":true,"a.b":{"c":1}}',
    "[1,2]",
    '{"level":null,"a.b":{"c":2},"a":{"b.c":"x"}}',
]


def event_flush(
    texts: Sequence[str], streams: Sequence[int] | None = None, indexes: Sequence[int] | None = None
) -> EventFlush:
    """Events a second apart, of one stream if nothing else is said."""
    of = np.array(streams if streams is not None else [1] * len(texts), np.int64)
    rows = EventRows(
        streams=of,
        indexes=np.array(indexes if indexes is not None else range(1, len(texts) + 1), np.int64),
        times=START + 1_000_000_000 * np.arange(len(texts)),
        payloads=pa.array([text.encode() for text in texts], pa.large_binary()),
    )
    return EventFlush(11, 20, rows, [Stream(stream, START, "http", f'{{"n":{stream}}}') for stream in set(of.tolist())])


@pytest.fixture
def blocks(tmp_path: Path) -> LocalEventBlocks:
    return LocalEventBlocks(tmp_path)


def folder_of(tmp_path: Path, meta: EventBlockMeta) -> Path:
    return tmp_path / "events" / meta.id


def read(reader: EventBlockReader, *columns: Column, wanted: EventRange = EVERYTHING) -> list[list[Any]]:
    batches = list(reader.read(columns, wanted))
    return [
        [value for batch in batches for value in batch.column(number).to_pylist()] for number in range(len(columns))
    ]


def texts_in(reader: EventBlockReader) -> list[str | None]:
    return [
        text
        for group in range(len(reader.group_rows))
        for text in payload_texts(reader.row_group(group).payloads).to_pylist()
    ]


def read_everything(blocks: LocalEventBlocks, block_id: str) -> None:
    with blocks.open(block_id) as reader:
        texts_in(reader)
        reader.streams()


def test_what_was_written_is_read(blocks: LocalEventBlocks, tmp_path: Path) -> None:
    flush = event_flush(TEXTS, [2, 1, 2, 1, 2], [8, 2, 7, 1, 9])
    meta = blocks.write(flush)
    assert meta == EventBlockMeta(
        meta.id, 11, 20, START, START + 4_000_000_000, 1, 2, 0, 5, 2,
        bytes=sum(file.stat().st_size for file in folder_of(tmp_path, meta).iterdir()),
    )  # fmt: skip
    assert blocks.scan() == ([meta], [])
    with blocks.open(meta.id) as reader:
        assert (reader.meta, reader.rows) == (meta, 5)
        assert reader.streams() == sorted(flush.streams, key=lambda stream: stream.id)
        streams, indexes, times = read(reader, *Fixed)
        assert list(zip(streams, indexes, strict=True)) == [(1, 1), (1, 2), (2, 7), (2, 8), (2, 9)]
        assert [time - START for time in times] == [3_000_000_000, 1_000_000_000, 2_000_000_000, 0, 4_000_000_000]
        back = [json.loads(text or "") for text in texts_in(reader)]
    assert back == [json.loads(TEXTS[at]) for at in (3, 1, 2, 0, 4)]


def test_columns_are_what_the_node_says(blocks: LocalEventBlocks) -> None:
    with blocks.open(blocks.write(event_flush(TEXTS)).id) as reader:
        assert reader.node == Node(
            {"level": LeafType.TEXT, "ms": LeafType.DOUBLE, "ok": LeafType.BOOL},
            {
                "http": Node({"status": LeafType.INT, "path": LeafType.TEXT}, mixed={"status"}),
                "a.b": Node({"c": LeafType.INT}, rest=False, mixed=frozenset()),
                "a": Node({"b.c": LeafType.TEXT}, rest=False, mixed=frozenset()),
            },
            mixed=frozenset(),
        )
        status, http, rest, path = read(
            reader, Leaf(("http", "status")), Present(("http",)), Rest(("http",)), Leaf(("http", "path"))
        )
        assert status == [200, None, None, None, None]
        assert http == [True, True, True, False, False]
        assert rest == [None, '{"status":"gone"}', None, None, None]
        assert path == ["/ü", None, None, None, None]
        # Parquet knows both of these as payload.a.b.c.
        assert read(reader, Leaf(("a", "b.c")), Leaf(("a.b", "c")), Present(("a",)), Present(())) == [
            [None, None, None, None, "x"],
            [None, None, 1, None, 2],
            [False, False, False, False, True],
            [True] * 5,
        ]
        assert read(reader, Rest(())) == [[None, '{"tags":["a"]}', None, "[1,2]", '{"level":null}']]


def test_row_groups_that_cannot_hold_what_is_wanted_are_not_read(
    blocks: LocalEventBlocks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("streamgauge.store.events.block_writer.MAX_ROW_GROUP", 10)
    texts = [f'{{"n":{n}}}' for n in range(95)]
    meta = blocks.write(event_flush(texts, [1 + n // 30 for n in range(95)], list(range(1, 96))))
    column = Leaf(("n",))
    with blocks.open(meta.id) as reader:
        assert reader.group_rows.tolist() == [10] * 9 + [5]
        assert read(reader, column) == [list(range(95))]
        times = EventRange(first_received=START + 42_000_000_000, last_received=START + 50_000_000_000)
        assert read(reader, column, wanted=times) == [list(range(40, 60))]
        assert read(reader, column, wanted=EventRange(first_stream=2, last_stream=2)) == [list(range(30, 60))]
        assert read(reader, column, wanted=EventRange(last_stream=0)) == [[]]
    damage(folder_of(tmp_path, meta) / "events.parquet", 8)
    with blocks.open(meta.id) as reader:
        assert read(reader, column, wanted=times) == [list(range(40, 60))]
        with pytest.raises(Corrupt, match="row group 0"):
            read(reader, Fixed.STREAM)


def test_of_row_groups_without_a_wanted_text_the_other_columns_are_not_read(
    blocks: LocalEventBlocks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("streamgauge.store.events.block_writer.MAX_ROW_GROUP", 10)
    texts = [f'{{"n":{n},"k":"{"xy"[n == 75]}","id":"id{n}"}}' for n in range(95)] + ['{"n":95}']
    meta = blocks.write(event_flush(texts))

    def wanted(**members: str) -> EventRange:
        return EventRange(one_of=tuple(OneOf((name,), frozenset([text])) for name, text in members.items()))

    with blocks.open(meta.id) as reader:
        assert read(reader, Leaf(("n",)), wanted=wanted(k="y")) == [[75]]
        assert read(reader, Leaf(("k",)), wanted=wanted(k="y")) == [["y"]]
        assert read(reader, Leaf(("id",)), Leaf(("k",)), wanted=wanted(id="id7", k="x")) == [["id7"], ["x"]]
        assert read(reader, Leaf(("id",)), wanted=wanted(id="id7", k="y")) == [[]]
        twice = EventRange(one_of=(OneOf(("k",), frozenset("xy")), OneOf(("k",), frozenset("yz"))))
        assert read(reader, Leaf(("n",)), Leaf(("k",)), wanted=twice) == [[75], ["y"]]
        assert read(reader, Leaf(("id",)), wanted=wanted(n="7")) == [[f"id{n}" for n in range(95)] + [None]]
        assert read(reader, Leaf(("id",)), wanted=wanted(none="7")) == [[f"id{n}" for n in range(95)] + [None]]
        first = reader.parquet_metadata.row_group(0).column(3)
        assert first.path_in_schema == "payload.n"
    damage(folder_of(tmp_path, meta) / "events.parquet", chunk_range(first)[0] + 5)
    with blocks.open(meta.id) as reader:
        assert read(reader, Leaf(("n",)), wanted=wanted(k="y")) == [[75]]
        with pytest.raises(Corrupt, match=r"payload\.n of row group 0"):
            read(reader, Leaf(("n",)), wanted=wanted(k="x"))


def test_a_text_that_may_be_in_a_rest_is_not_looked_for_in_its_column(blocks: LocalEventBlocks) -> None:
    """What is of another type, or of an event that was not divided."""
    texts = ['{"k":"a"}'] * 5 + ['{"k":"b"}'] * 95 + ['{"k":7}']
    meta = blocks.write(event_flush(texts))
    with blocks.open(meta.id) as reader:
        assert reader.node.may_be_in_rest("k")
        found = read(reader, Leaf(("k",)), Rest(()), wanted=EventRange(one_of=(OneOf(("k",), frozenset("7")),)))
        assert found[1][-1] == '{"k":7}'


def test_parts_of_more_blocks_than_may_be_open_are_read_by_turns(
    blocks: LocalEventBlocks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a join of events with themselves does."""
    monkeypatch.setattr("streamgauge.store.events.block_writer.MAX_ROW_GROUP", 10)
    metas = [blocks.write(event_flush([f'{{"n":{10 * m + n}}}' for n in range(30)], [m] * 30)) for m in (1, 2, 3)]
    for max_bytes, max_files in ((1, 256), (1 << 20, 2), (1 << 20, 1)):
        cache = BlockCache(blocks.open, max_bytes, max_files)
        source = StoredEvents(EventSnapshot(tuple(metas)), cache)
        parts = source.parts()
        turns = zip(*(part.read([Leaf(("n",))], EVERYTHING) for part in parts), strict=True)
        for turn, batches in enumerate(turns):
            for part, batch in zip(parts, batches, strict=True):
                assert batch.schema == part.schema([Leaf(("n",))])
            starts = [batch.column(0)[0].as_py() for batch in batches]
            assert starts == [10 * (m + turn) for m in (1, 2, 3)]
            assert len(open_files(tmp_path)) <= 2
        assert sum(batch.num_rows for batch in source.payloads(EVERYTHING)) == 90
        assert source.streams().num_rows == 3
        cache.close()
        assert open_files(tmp_path) == []


def test_blocks_that_cannot_hold_what_is_wanted_are_not_opened(blocks: LocalEventBlocks, tmp_path: Path) -> None:
    metas = [blocks.write(event_flush(TEXTS, [stream] * 5)) for stream in (1, 2)]
    late = replace(metas[1], min_time=metas[1].max_time + 10, max_time=metas[1].max_time + 20)
    cache = BlockCache(blocks.open, 1 << 20)
    source = StoredEvents(EventSnapshot((metas[0], late)), cache)
    for wanted in (EventRange(last_stream=1), EventRange(last_received=late.min_time - 1)):
        [part] = source.parts(wanted)
        assert sum(batch.num_rows for batch in part.read([Fixed.INDEX], wanted)) == part.rows == 5
        assert cache.open_blocks == [metas[0].id]
    assert source.parts(EventRange(first_stream=3)) == []
    cache.close()


def test_row_groups_are_bounded_in_bytes() -> None:
    mib = 1 << 20
    cut = list(row_groups(np.array([40, 30, 100, 1, 1, 63]) * mib))
    assert [(part.start, part.stop) for part in cut] == [(0, 1), (1, 2), (2, 3), (3, 5), (5, 6)]


def test_streams_without_events_are_kept(blocks: LocalEventBlocks) -> None:
    streams = [Stream(7, START, "websocket", '{"host":"x"}', "mine"), Stream(9, START + 1, "http", "{}")]
    meta = blocks.write(replace(event_flush([]), streams=streams))
    assert (meta.events, meta.streams, meta.min_time, meta.max_time) == (0, 2, START, START + 1)
    with blocks.open(meta.id) as reader:
        assert reader.streams() == streams
        assert read(reader, Fixed.STREAM, Present(())) == [[], []]
    assert blocks.scan() == ([meta], [])


def test_what_a_block_replaces_is_in_its_footer(blocks: LocalEventBlocks) -> None:
    meta = blocks.write(event_flush(TEXTS), 3, ("a", "b"), ("errors",))
    [found], _ = blocks.scan()
    assert (found.level, found.parents, found.pruned) == (3, ("a", "b"), ("errors",)) == (
        meta.level, meta.parents, meta.pruned,
    )  # fmt: skip


# ---- other readers --------------------------------------------------------------------------------------------------


def test_other_tools_open_a_block(blocks: LocalEventBlocks, tmp_path: Path) -> None:
    meta = blocks.write(event_flush([*TEXTS, '{"Level":1,"LEVEL":2,"ms":0.25}']))
    path = folder_of(tmp_path, meta) / "events.parquet"

    table = pq.read_table(path)
    assert table.column("received")[0].value == START
    assert table.column("payload")[0].as_py()["http"] == {"status": 200, "path": "/ü", "$rest": None}

    frame = polars.read_parquet(path)
    assert frame.select(polars.col("payload").struct.field("ms")).to_series().to_list() == [
        1.5,
        2,
        None,
        None,
        None,
        0.25,
    ]
    assert polars.scan_parquet(path).filter(polars.col("stream_event_index") == 3).collect().height == 1

    rows = duckdb.sql(
        f"SELECT payload.level, payload.http.status, payload.\"$rest\", epoch_ns(received) FROM '{path}' "
        "ORDER BY stream_event_index"
    ).fetchall()
    assert [row[:2] for row in rows[:2]] == [("INFO", 200), ("ERROR", None)]
    assert json.loads(rows[1][2]) == {"tags": ["a"]}
    assert json.loads(rows[5][2]) == {"Level": 1, "LEVEL": 2}
    assert rows[0][3] == START

    streams = duckdb.sql(f"SELECT * EXCLUDE started FROM '{path.with_name('streams.parquet')}'").fetchall()
    assert streams == [(1, "http", '{"n":1}', "")]


@pytest.mark.parametrize("value", ["null", "{}", "[]", "1", '"x"', "true", "1.5", '{"a":{"b":{}}}'])
def test_other_tools_open_blocks_of_odd_payloads(blocks: LocalEventBlocks, tmp_path: Path, value: str) -> None:
    meta = blocks.write(event_flush([value, f'{{"x":{value}}}']))
    path = folder_of(tmp_path, meta) / "events.parquet"
    assert polars.read_parquet(path).height == 2
    assert duckdb.sql(f"SELECT count(payload), max(stream_id) FROM '{path}'").fetchall() == [(2, 1)]
    with blocks.open(meta.id) as reader:
        assert [json.loads(text or "") for text in texts_in(reader)] == [json.loads(value), {"x": json.loads(value)}]


# ---- damage ---------------------------------------------------------------------------------------------------------


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x40
    path.write_bytes(content)


def test_every_damaged_byte_is_noticed(blocks: LocalEventBlocks, tmp_path: Path) -> None:
    meta = blocks.write(event_flush(TEXTS))
    for name in ("events.parquet", "streams.parquet", "checksums.json"):
        path = folder_of(tmp_path, meta) / name
        good = path.read_bytes()
        for at in range(4 if name == "events.parquet" else 0, len(good), 23):
            damage(path, at)
            with pytest.raises(Corrupt, match=f"block {meta.id}"):
                read_everything(blocks, meta.id)
            path.write_bytes(good)
    read_everything(blocks, meta.id)


@pytest.mark.parametrize("name", ["events.parquet", "streams.parquet", "checksums.json"])
@pytest.mark.parametrize("kept", [0, 0.5, None])
def test_a_block_with_a_file_that_is_cut_or_gone_is_set_aside(
    blocks: LocalEventBlocks, tmp_path: Path, name: str, kept: float | None
) -> None:
    good = blocks.write(event_flush(TEXTS))
    bad = blocks.write(event_flush(TEXTS))
    path = folder_of(tmp_path, bad) / name
    if kept is None:
        path.unlink()
    else:
        os.truncate(path, int(path.stat().st_size * kept))
    read_only = LocalEventBlocks(tmp_path, read_only=True)
    assert [(metas, len(damaged)) for metas, damaged in [read_only.scan()]] == [([good], 1)]
    assert len(blocks.names()) == 2
    found, [damaged] = blocks.scan()
    assert found == [good]
    assert "events" in damaged.path
    assert (tmp_path / "set-aside" / bad.id).is_dir()
    assert blocks.scan() == ([good], [])


def test_files_of_another_block_are_noticed(blocks: LocalEventBlocks, tmp_path: Path) -> None:
    folder_of(tmp_path, blocks.write(event_flush(TEXTS))).rename(tmp_path / "events" / "c")
    with pytest.raises(Corrupt, match="names block"):
        blocks.open("c")


def test_a_block_of_a_later_format_is_refused_not_set_aside(
    blocks: LocalEventBlocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format, "FORMAT_VERSION", 2)
    meta = blocks.write(event_flush(TEXTS))
    monkeypatch.undo()
    with pytest.raises(FormatTooNew, match="version 2"):
        blocks.scan()
    assert blocks.names() == [meta.id]
    with pytest.raises(FormatTooNew, match="version 2"):
        decode_meta(json.dumps(json.loads(encode_meta(meta)) | {"version": 2}).encode(), 0)


@pytest.mark.parametrize("raw", [None, b"", b"[]", b"{}", b'{"version":"x"}', b'{"version":1,"id":"x"}'])
def test_a_footer_entry_that_makes_no_sense_is_an_error(raw: bytes | None) -> None:
    with pytest.raises(ValueError):
        decode_meta(raw, 0)


# ---- crashes and failing disks --------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa
from streamgauge.model.events import Stream
from streamgauge.store import failpoints
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.ports import EventFlush, EventRows
failpoints.arm_from_environment()
one = np.ones(1, np.int64)
rows = EventRows(one, one, one, pa.array([b'{"a":1}'], pa.large_binary()))
LocalEventBlocks(Path(sys.argv[1])).write(EventFlush(1, 2, rows, [Stream(1, 1, "http", "{}")]))
"""


@pytest.mark.parametrize(
    ("point", "survives"),
    [("fs.sync=kill@2", False), ("block.before_rename=kill", False), ("block.after_rename=kill", True)],
)
def test_a_block_whose_writer_is_killed_is_there_whole_or_not_at_all(
    blocks: LocalEventBlocks, tmp_path: Path, point: str, survives: bool
) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), failpoints.VARIABLE: point}
    assert subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], env=environment).returncode != 0
    found, damaged = blocks.scan()
    assert len(found) == survives
    assert damaged == []
    assert list((tmp_path / "tmp").iterdir()) == []
    for meta in found:
        read_everything(blocks, meta.id)


@pytest.mark.parametrize("error", ["enospc", "eio"])
@pytest.mark.parametrize("point", ["fs.open", "fs.write", "fs.sync", "fs.rename"])
def test_a_disk_that_fails_at_any_step_leaves_no_block(blocks: LocalEventBlocks, point: str, error: str) -> None:
    failed = 0
    for nth in range(1, 200):
        with failpoints.armed(point, error, first=nth, last=nth):
            try:
                blocks.write(event_flush(TEXTS))
                break
            except StorageError:
                failed += 1
        assert blocks.names() == []
    assert failed >= 1
    [left] = blocks.names()
    read_everything(blocks, left)


def test_a_process_without_descriptors_does_not_blame_the_block(blocks: LocalEventBlocks) -> None:
    meta = blocks.write(event_flush(TEXTS))
    with failpoints.armed("fs.open", "emfile"), pytest.raises(StorageError) as caught:
        read_everything(blocks, meta.id)
    assert not isinstance(caught.value, Corrupt)
    with failpoints.armed("fs.read", "eio"), pytest.raises(Corrupt, match=f"block {meta.id}"):
        read_everything(blocks, meta.id)


def test_what_a_writer_left_is_removed(blocks: LocalEventBlocks, tmp_path: Path) -> None:
    kept, gone = blocks.write(event_flush(TEXTS)), blocks.write(event_flush(TEXTS))
    other = blocks.write(replace(event_flush(TEXTS), first_commit=1))
    draft = tmp_path / "tmp" / new_block_id(START, 11, 20)
    draft.mkdir()
    blocks.remove_written(11, 20, lambda block_id: block_id == kept.id)
    assert blocks.names() == sorted([kept.id, other.id])
    assert gone.id not in blocks.names()
    assert not draft.exists()
    blocks.remove(kept.id)
    assert blocks.names() == [other.id]


def test_checksums_cover_every_column(blocks: LocalEventBlocks, tmp_path: Path) -> None:
    path = folder_of(tmp_path, blocks.write(event_flush(TEXTS))) / "events.parquet"
    document = json.loads(path.with_name("checksums.json").read_bytes().split(b"\n")[0])
    content = path.read_bytes()
    assert len(document["columns"][0]) == pq.read_metadata(path).num_columns
    assert zlib.crc32(content[document["footer_start"] :]) == document["footer"]

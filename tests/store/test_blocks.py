"""A block gives back what was written, to us and to any Parquet reader, and nothing else if its files are damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamgauge.errors import Corrupt, FormatTooNew, QueryFailed, StorageError
from streamgauge.model.arrays import UInt32s
from streamgauge.model.labels import key_of, labels_of
from streamgauge.model.source import NoMeter
from streamgauge.query.budget import Budget, Limits
from streamgauge.store import failpoints
from streamgauge.store.block_cache import BlockCache
from streamgauge.store.block_encodings import COMPACTED, FLUSHED, LASTING, BlockEncoding
from streamgauge.store.block_format import (
    FOOTER_KEY,
    MAX_ROW_GROUP,
    MIN_ROW_GROUP,
    SAMPLES_SCHEMA,
    SERIES_SCHEMA,
    decode_meta,
    encode_meta,
    new_block_id,
)
from streamgauge.store.block_reader import LocalBlockReader
from streamgauge.store.block_writer import BlockWriter
from streamgauge.store.blocks import LocalBlocks, live_blocks
from streamgauge.store.check import check_block
from streamgauge.store.ports import DAY_MS, BlockMeta, SortedRows
from streamgauge.testing.open_files import open_files
from streamgauge.testing.thorough import examples

DAY = 20_000 * DAY_MS
FOREVER = (-(2**62), 2**62)
META = BlockMeta("b", 11, 20, 0, 0, DAY, False, 0, 0, 0, 0)
LABELS = [
    {"__name__": "up", "instance": "a:9100", "job": "node"},
    {"__name__": "up", "instance": "b:9100", "job": "node"},
    {"__name__": "Größe", "Zone": "eu", "le": "+Inf", "ünï": "c\u0000d"},
    {"no_name": "x"},
]
BITS = [0x7FF0000000000002, 0x7FF8000000000000, 0x7FF80000DEADBEEF, 0x7FF0000000000001, -(2**63), 1, -(2**63) + 1]
"""Stale marker, NaN, a NaN with a payload, a signalling NaN, -0, and the smallest subnormals."""


def sorted_rows(counts: list[int], values: np.ndarray | None = None, step: int = 1000) -> SortedRows:
    """Series in the order of LABELS' keys, then made up ones; ids descend, so that no order is mistaken for another."""
    labels = [*LABELS, *({"__name__": "z", "n": f"{n:06}"} for n in range(len(counts)))][: len(counts)]
    times = np.concatenate([DAY + step * np.arange(count) for count in counts])
    return SortedRows(
        ids=np.arange(len(counts), dtype=np.uint32)[::-1],
        keys=pa.array(sorted(map(key_of, labels)), pa.large_binary()),
        counts=np.array(counts),
        times=times,
        values=np.arange(len(times), dtype=np.float64) if values is None else values,
    )


@pytest.fixture
def blocks(tmp_path: Path) -> LocalBlocks:
    return LocalBlocks(tmp_path)


def folder_of(tmp_path: Path, meta: BlockMeta) -> Path:
    return tmp_path / "blocks" / meta.id


def test_what_was_written_is_read(blocks: LocalBlocks, tmp_path: Path) -> None:
    rows = sorted_rows([3, 1, 2, 4])
    meta = blocks.write(META, rows)
    assert (meta.series, meta.samples, meta.min_time, meta.max_time) == (4, 10, DAY, DAY + 3000)
    with blocks.open("b") as reader:
        assert reader.meta == meta
        assert reader.keys().equals(rows.keys)
        np.testing.assert_array_equal(reader.series_ids(), rows.ids)
        np.testing.assert_array_equal(reader.time_bounds()[1] - DAY, [2000, 0, 1000, 3000])
        part = reader.read(np.array([0, 2, 3, 9], np.uint32), DAY + 1000, DAY + 2000, NoMeter())
        assert check_block(reader) == []
    assert part.counts.tolist() == [2, 0, 2, 0]
    assert part.times.tolist() == [DAY + 1000, DAY + 2000, DAY + 1000, DAY + 2000]
    assert part.values.tolist() == [7, 8, 1, 2]
    assert blocks.scan() == ([meta], [])
    assert meta.bytes == sum(file.stat().st_size for file in (tmp_path / "blocks" / "b").iterdir())


def test_long_keys_are_spread_over_row_groups_of_the_series_file(tmp_path: Path) -> None:
    """A group holds so many bytes of keys, and one series at least: its columns end at 2 GiB."""
    labels = [
        {"__name__": "m", "n": f"{number:03}", "text": "x" * (400 if number == 7 else 40)} for number in range(20)
    ]
    keys = pa.array(list(map(key_of, labels)), pa.large_binary())
    folder = tmp_path / "b"
    folder.mkdir()
    with closing(BlockWriter(folder, META, FLUSHED, series_group_bytes=200)) as writer:
        ones = np.ones(20, np.int64)
        writer.append(np.arange(20, dtype=np.uint32), ones, DAY + ones, ones * 1.0)
        writer.finish(keys)
    file = pq.ParquetFile(folder / "series.parquet")
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    assert sizes == [3, 3, 1, 1, 3, 3, 3, 3]
    with LocalBlockReader(folder) as reader:
        assert reader.keys().equals(keys)
        assert check_block(reader) == []


def test_every_bit_of_a_value_is_kept(blocks: LocalBlocks) -> None:
    bits = np.array(BITS, np.int64)
    blocks.write(META, sorted_rows([len(BITS)], bits.view(np.float64)))
    with blocks.open("b") as reader:
        part = reader.read(np.zeros(1, np.uint32), *FOREVER, NoMeter())
    np.testing.assert_array_equal(part.values.view(np.int64), bits)


@pytest.mark.parametrize("encoding", [FLUSHED, COMPACTED, LASTING])
def test_pyarrow_polars_and_duckdb_read_a_block_without_us(
    blocks: LocalBlocks, tmp_path: Path, encoding: BlockEncoding
) -> None:
    counts, doubles, seconds = np.arange(3.0), np.array([1 / 3]), np.array([0.25, -0.0015])
    rows = sorted_rows([3, 1, 2, 70_000], np.concatenate((counts, doubles, seconds, np.arange(70_000.0))))
    with blocks.writer(META, encoding) as writer:
        writer.append(rows.ids, rows.counts, rows.times, rows.values)
        folder = folder_of(tmp_path, writer.finish(rows.keys))
    samples, series = (str(folder / name) for name in ("samples.parquet", "series.parquet"))
    labels = [labels_of(key) for key in rows.keys.to_pylist()]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    time = [epoch + timedelta(milliseconds=time) for time in rows.times[:10].tolist()]
    ids = np.repeat(rows.ids, rows.counts)

    arrow = pq.read_table(samples)
    assert arrow.schema.names == ["series_id", "time", "value", "unscaled", "scale"]
    assert arrow.schema.field("time").type == pa.timestamp("ms", tz="UTC")
    np.testing.assert_array_equal(arrow["series_id"].to_numpy(), ids)
    powers = pa.array(10.0 ** np.arange(16)).take(arrow["scale"])
    values = pc.coalesce(arrow["value"], pc.divide(arrow["unscaled"].cast("double"), powers))
    np.testing.assert_array_equal(values.to_numpy(), rows.values)
    assert arrow["value"].null_count == 70_005
    assert arrow["time"][:10].to_pylist() == time
    assert [dict(entry) for entry in pq.read_table(series)["labels"].to_pylist()] == labels

    frame = polars.read_parquet(samples)
    np.testing.assert_array_equal(frame["series_id"].to_numpy(), ids)
    value = polars.coalesce("value", polars.col("unscaled") / 10.0 ** polars.col("scale"))
    np.testing.assert_array_equal(frame.select(value).to_series().to_numpy(), rows.values)
    assert frame["time"][:10].to_list() == time
    maps = polars.read_parquet(series)["labels"].to_list()  # of dicts, or of lists of pairs before Polars knew maps
    assert [of if isinstance(of, dict) else {pair["key"]: pair["value"] for pair in of} for of in maps] == labels

    columns = duckdb.sql(
        f"SELECT series_id, epoch_ms(time) AS ms, coalesce(value, unscaled / 10 ** scale) AS value FROM '{samples}'"
    ).fetchnumpy()
    np.testing.assert_array_equal(columns["series_id"], ids)
    np.testing.assert_array_equal(columns["ms"], rows.times)
    np.testing.assert_array_equal(columns["value"], rows.values)
    found = duckdb.sql(f"SELECT labels, first_row, rows FROM '{series}' ORDER BY first_row").fetchall()
    assert [row[0] for row in found] == labels
    assert [row[2] for row in found] == rows.counts.tolist()
    assert duckdb.sql(
        f"SELECT count(*) FROM '{samples}' JOIN '{series}' USING (series_id) WHERE labels['instance'] = 'a:9100'"
    ).fetchall() == [(int(rows.counts[labels.index(LABELS[0])]),)]


LONG = [3, 200_000, 1, 30_000, 30_000, 30_000, 90_000, *([7, 19] * 1500)]
"""Counts of a block of several row groups, with series longer than one."""


@pytest.fixture(scope="module")
def long_block(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SortedRows, LocalBlockReader]]:
    blocks = LocalBlocks(tmp_path_factory.mktemp("long"))
    rows = sorted_rows(LONG, step=100)
    blocks.write(META, rows)
    with blocks.open("b") as reader:
        yield rows, reader


def test_row_groups_keep_their_bounds_and_end_with_a_series_where_they_can(
    long_block: tuple[SortedRows, LocalBlockReader],
) -> None:
    rows, reader = long_block
    sizes = np.diff(reader.samples.row_ends, prepend=0)
    assert (sizes <= MAX_ROW_GROUP).all()
    assert (sizes[:-1] >= MIN_ROW_GROUP).all()
    ends = np.cumsum(rows.counts)
    inside_a_long_series = (reader.samples.row_ends > 3) & (reader.samples.row_ends < 200_003)
    assert (np.isin(reader.samples.row_ends, ends) | inside_a_long_series).all()
    assert inside_a_long_series.any()
    assert check_block(reader) == []


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chosen=st.one_of(
        st.sets(st.integers(0, len(LONG) + 5), max_size=20),
        st.tuples(st.integers(0, len(LONG)), st.integers(0, len(LONG))).map(lambda ends: set(range(*sorted(ends)))),
    ),
    start=st.sampled_from([FOREVER[0], DAY, DAY + 1, DAY + 1800, DAY + 3_500_000, DAY + 15_000_000]),
    length=st.sampled_from([0, 99, 600, 4_000_000, 2**60]),
)
def test_any_selection_equals_the_rows_written(
    long_block: tuple[SortedRows, LocalBlockReader], chosen: set[int], start: int, length: int
) -> None:
    rows, reader = long_block
    ids = np.array(sorted(chosen), np.uint32)
    part = reader.read(ids, start, start + length, NoMeter())
    ends = np.cumsum(rows.counts)
    edges = np.concatenate(([0], np.cumsum(part.counts)))
    assert len(part.times) == len(part.values) == edges[-1]
    for i, series in enumerate(len(LONG) - 1 - ids.astype(np.int64)):  # ids descend
        expected = slice(0, 0) if series < 0 else slice(ends[series] - rows.counts[series], ends[series])
        inside = (rows.times[expected] >= start) & (rows.times[expected] <= start + length)
        np.testing.assert_array_equal(part.times[edges[i] : edges[i + 1]], rows.times[expected][inside])
        np.testing.assert_array_equal(part.values[edges[i] : edges[i + 1]], rows.values[expected][inside])


def test_one_series_is_read_from_its_row_group_alone(blocks: LocalBlocks, tmp_path: Path) -> None:
    meta = blocks.write(META, sorted_rows([40_000] * 6))
    damage(folder_of(tmp_path, meta) / "samples.parquet", 100)
    with blocks.open("b") as reader:
        assert (
            len(reader.read(np.zeros(1, np.uint32), *FOREVER, NoMeter()).times) == 40_000
        )  # the last row group is whole
        with pytest.raises(Corrupt, match="row group 0"):
            reader.read(np.full(1, 5, np.uint32), *FOREVER, NoMeter())


@pytest.mark.parametrize("start", [DAY, DAY + 5000])
def test_a_query_pays_before_a_row_is_decoded(blocks: LocalBlocks, tmp_path: Path, start: int) -> None:
    """Whether all rows of the series are asked for or not. The rows are damaged: who decodes them gets Corrupt."""
    counts = [50_000] * 4
    meta = blocks.write(META, sorted_rows(counts))
    with blocks.open(meta.id) as reader:
        ids = np.sort(reader.series_ids())
        budget = Budget(Limits())
        part = reader.read(ids, start, FOREVER[1], budget)
        assert (budget.samples, budget.bytes) == (len(part.times), part.size)
    damage(folder_of(tmp_path, meta) / "samples.parquet", 100)
    with blocks.open(meta.id) as reader:
        with pytest.raises(QueryFailed, match="more than 1000000 bytes"):
            reader.read(ids, start, FOREVER[1], Budget(Limits(bytes=1_000_000)))
        with pytest.raises(Corrupt):
            reader.read(ids, start, FOREVER[1], Budget(Limits()))


# ---- damage ---------------------------------------------------------------------------------------------------------


def damage(path: Path, at: int, flip: int = 0x10) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= flip
    path.write_bytes(content)


def read_everything(blocks: LocalBlocks, block_id: str) -> None:
    with blocks.open(block_id) as reader:
        reader.keys()
        reader.read(np.sort(reader.series_ids()), *FOREVER, NoMeter())


@pytest.mark.parametrize("name", ["samples.parquet", "series.parquet", "checksums.json"])
def test_a_flipped_bit_anywhere_is_noticed_and_never_served(blocks: LocalBlocks, tmp_path: Path, name: str) -> None:
    meta = blocks.write(META, sorted_rows([30, 10, 20, 5]))
    path = folder_of(tmp_path, meta) / name
    whole = path.read_bytes()
    positions = range(0, len(whole), max(len(whole) // 250, 1))
    for position in positions:
        damage(path, position, 1 << (position % 8))
        with pytest.raises(Corrupt, match="block b"):
            read_everything(blocks, "b")
        path.write_bytes(whole)
    read_everything(blocks, "b")


@pytest.mark.parametrize("name", ["samples.parquet", "series.parquet", "checksums.json"])
@pytest.mark.parametrize("kept", [None, 0, 0.5, 0.99])
def test_a_block_cut_short_or_in_part_missing_is_set_aside_and_the_others_are_served(
    blocks: LocalBlocks, tmp_path: Path, name: str, kept: float | None
) -> None:
    good = blocks.write(replace(META, id="good"), sorted_rows([3]))
    path = folder_of(tmp_path, blocks.write(META, sorted_rows([30, 10]))) / name
    if kept is None:
        path.unlink()
    else:
        os.truncate(path, int(path.stat().st_size * kept))
    with pytest.raises(Corrupt, match="block b"):
        read_everything(blocks, "b")
    found, [damaged] = blocks.scan()
    assert found == [good]
    assert "blocks" in damaged.path
    assert (tmp_path / "set-aside" / "b").is_dir()
    assert blocks.scan() == ([good], [])


def test_a_folder_that_is_only_looked_at_is_not_changed(blocks: LocalBlocks, tmp_path: Path) -> None:
    path = folder_of(tmp_path, blocks.write(META, sorted_rows([3]))) / "series.parquet"
    os.truncate(path, 100)
    (tmp_path / "tmp" / "left").touch()
    before = sorted(tmp_path.rglob("*"))
    found, [damaged] = LocalBlocks(tmp_path, read_only=True).scan()
    assert found == []
    assert "not used" in damaged.what
    assert sorted(tmp_path.rglob("*")) == before


def test_damaged_footers_are_found_by_a_scan(blocks: LocalBlocks, tmp_path: Path) -> None:
    for name in ("samples.parquet", "series.parquet"):
        meta = blocks.write(replace(META, id=name), sorted_rows([3]))
        path = folder_of(tmp_path, meta) / name
        damage(path, path.stat().st_size - 100)
    found, damaged = blocks.scan()
    assert found == []
    assert len(damaged) == 2


def test_a_process_without_descriptors_does_not_blame_the_block(blocks: LocalBlocks) -> None:
    blocks.write(META, sorted_rows([3]))
    with failpoints.armed("fs.open", "emfile"), pytest.raises(StorageError) as caught:
        read_everything(blocks, "b")
    assert not isinstance(caught.value, Corrupt)
    with failpoints.armed("fs.read", "eio"), pytest.raises(Corrupt, match="block b"):
        read_everything(blocks, "b")


def test_files_of_another_block_are_noticed(blocks: LocalBlocks, tmp_path: Path) -> None:
    blocks.write(META, sorted_rows([3]))
    (tmp_path / "blocks" / "b").rename(tmp_path / "blocks" / "c")
    with pytest.raises(Corrupt, match="names block b"):
        blocks.open("c")


def test_a_block_of_a_later_format_is_refused_not_set_aside(blocks: LocalBlocks, tmp_path: Path) -> None:
    document = json.loads(encode_meta(META)) | {"version": 3}
    with pytest.raises(FormatTooNew, match="version 3"):
        decode_meta(json.dumps(document).encode(), 0)
    blocks.write(META, sorted_rows([3]))
    checksums = tmp_path / "blocks" / "b" / "checksums.json"
    line = checksums.read_bytes().split(b"\n")[0].replace(b'"version":2', b'"version":3')
    checksums.write_bytes(line + b"\n%08x\n" % zlib.crc32(line))
    with pytest.raises(FormatTooNew):
        blocks.scan()
    assert blocks.names() == ["b"]


def test_a_block_of_format_1_is_read(tmp_path: Path) -> None:
    """It has no decimal numbers."""
    folder = tmp_path / "20241004-1-2-block0v1"
    shutil.copytree(Path(__file__).parents[1] / "fixtures" / "block-v1", folder)
    with LocalBlockReader(folder) as reader:
        part = reader.read(reader.series_ids(), 0, 1 << 62, NoMeter())
        assert [labels_of(key)["code"] for key in reader.keys().to_pylist()] == ["200", "404", "500"]
    assert part.counts.tolist() == [4, 4, 1]
    expected = np.array([1, 2, 3, 4, 0.5, np.inf, -0.0, np.nan, 7.25])
    np.testing.assert_array_equal(part.values.view(np.int64), expected.view(np.int64))


@pytest.mark.parametrize("raw", [None, b"", b"[]", b"{}", b'{"version":"x"}', encode_meta(META)[:-20].encode()])
def test_a_footer_entry_that_makes_no_sense_is_an_error(raw: bytes | None) -> None:
    with pytest.raises(ValueError):
        decode_meta(raw, 0)


# ---- crashes and failing disks --------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa
from streamgauge.store import failpoints
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.ports import BlockMeta, SortedRows
failpoints.arm_from_environment()
one = np.ones(1, np.int64)
rows = SortedRows(np.zeros(1, np.uint32), pa.array([b"m\\xff"], pa.large_binary()), one, one, np.ones(1))
LocalBlocks(Path(sys.argv[1])).write(BlockMeta("killed", 1, 2, 0, 0, 0, False, 0, 0, 0, 0), rows)
"""


@pytest.mark.parametrize(
    ("point", "survives"),
    [("fs.sync=kill@2", False), ("block.before_rename=kill", False), ("block.after_rename=kill", True)],
)
def test_a_block_whose_writer_is_killed_is_there_whole_or_not_at_all(
    blocks: LocalBlocks, tmp_path: Path, point: str, survives: bool
) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), failpoints.VARIABLE: point}
    assert subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], env=environment).returncode != 0
    found, damaged = blocks.scan()
    assert [meta.id for meta in found] == ["killed"] * survives
    assert damaged == []
    assert list((tmp_path / "tmp").iterdir()) == []
    for meta in found:
        read_everything(blocks, meta.id)


@pytest.mark.parametrize("error", ["enospc", "eio"])
@pytest.mark.parametrize("point", ["fs.open", "fs.write", "fs.sync", "fs.rename"])
def test_a_disk_that_fails_at_any_step_leaves_no_block(
    blocks: LocalBlocks, tmp_path: Path, point: str, error: str
) -> None:
    failed = 0
    for nth in range(1, 200):
        with failpoints.armed(point, error, first=nth, last=nth):
            try:
                blocks.write(META, sorted_rows([3, 5]))
                break
            except StorageError:
                failed += 1
        assert blocks.names() == []
    assert failed >= 1
    read_everything(blocks, "b")


def test_a_block_that_is_written_twice_is_an_error_and_stays(blocks: LocalBlocks) -> None:
    blocks.write(META, sorted_rows([3]))
    with pytest.raises(StorageError):
        blocks.write(META, sorted_rows([5]))
    with blocks.open("b") as reader:
        assert reader.meta.samples == 3


def test_removing_and_setting_aside(blocks: LocalBlocks, tmp_path: Path) -> None:
    blocks.remove("none")
    blocks.write(META, sorted_rows([3]))
    blocks.remove("b")
    assert blocks.scan() == ([], [])
    blocks.write(META, sorted_rows([3]))
    assert "because" in blocks.set_aside("b", "because").what
    assert blocks.names() == []
    assert (tmp_path / "set-aside" / "b" / "samples.parquet").is_file()


# ---- the cache of open blocks, and the list without a catalog -------------------------------------------------------


def test_the_cache_is_bounded_and_closes_what_it_drops(blocks: LocalBlocks) -> None:
    for name in "abcd":
        blocks.write(replace(META, id=name), sorted_rows([3]))
    ids: UInt32s = np.zeros(1, np.uint32)
    with blocks.open("a") as reader:
        size = reader.held_bytes
    cache = BlockCache(blocks.open, max_bytes=2 * size)
    first = cache.reader("a")
    assert cache.reader("a") is first
    cache.reader("b")
    cache.reader("a")
    cache.reader("c")  # b goes, as it was used least recently
    assert cache.reader("a") is first
    assert cache.open_blocks == ["c", "a"]
    cache.keep_only(["c"])
    with pytest.raises(Corrupt, match="closed"):
        first.read(ids, *FOREVER, NoMeter())
    small = BlockCache(blocks.open, max_bytes=1)
    for name in "abcd":
        assert small.reader(name).meta.id == name
    assert small.held_bytes == small.reader("d").held_bytes
    small.close()
    cache.close()


def test_the_cache_has_few_files_open_and_opens_them_again(blocks: LocalBlocks, tmp_path: Path) -> None:
    for name in "abcd":
        blocks.write(replace(META, id=name), sorted_rows([3]))
    ids: UInt32s = np.zeros(1, np.uint32)
    cache = BlockCache(blocks.open, max_bytes=1 << 20, max_files=2)
    first = cache.reader("a")
    for name in "abcdabcd":
        assert len(cache.reader(name).read(ids, *FOREVER, NoMeter()).times) == 3
        assert len(open_files(tmp_path)) <= 2
    assert cache.reader("a") is first, "what is known of a block stays"
    cache.close()
    assert open_files(tmp_path) == []


def test_an_interrupted_merge_counts_once() -> None:
    parents = [replace(META, id=name, samples=10) for name in "pq"]
    merged = replace(META, id="m", samples=20, parents=("p", "q"))
    assert live_blocks(parents) == (parents, [])
    assert live_blocks([*parents, merged]) == ([merged], parents)
    assert live_blocks([parents[1], merged]) == ([merged], [parents[1]])


def test_an_interrupted_split_counts_once() -> None:
    whole = replace(META, id="w", window=-1, late=True, samples=10)
    parts = [replace(META, id=name, samples=5, late=True, parents=("w",)) for name in "xy"]
    assert live_blocks([whole, parts[0]]) == ([whole], [parts[0]])
    assert live_blocks([whole, *parts]) == (parts, [whole])
    assert live_blocks(parts[:1]) == (parts[:1], [])


def test_what_an_interrupted_deletion_wrote_takes_the_place_of_its_block() -> None:
    """It has fewer samples, as half a split has: its list of tombstones tells the two apart."""
    whole = replace(META, id="w", samples=10, tombstones=(3,))
    cleaned = replace(META, id="c", samples=4, parents=("w",), tombstones=(5,))
    assert live_blocks([whole, cleaned]) == ([cleaned], [whole])
    half = replace(cleaned, id="h", tombstones=(3,))
    assert live_blocks([whole, half]) == ([whole], [half])


def test_ids_tell_the_day_and_differ() -> None:
    assert new_block_id(DAY, 3, 17).startswith("20241004-3-17-")
    assert new_block_id(-1, 3, 17).startswith("wide-3-17-")
    assert new_block_id(2**62 // DAY_MS * DAY_MS, 1, 2).startswith("day53375995583-1-2-")
    assert new_block_id(DAY, 3, 17) != new_block_id(DAY, 3, 17)


def test_the_page_on_the_format_knows_every_column_and_entry() -> None:
    page = (Path(__file__).parents[2] / "docs" / "format" / "block.md").read_text()
    entries = [*json.loads(encode_meta(META)), *SAMPLES_SCHEMA.names, *SERIES_SCHEMA.names, FOOTER_KEY]
    assert [entry for entry in entries if f"`{entry}`" not in page] == []
    assert f"{MIN_ROW_GROUP:,} to {MAX_ROW_GROUP:,}" in page
